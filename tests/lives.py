"""A bot's memory without its exchange: told inputs, killed at any write, started again; and one that never stops."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
from msgspec.structs import asdict

from tradingbot.config import Settings, make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Condition, ConditionName, Decision, Input, Rejected, SettingsChanged, to_record
from tradingbot.io import saved
from tradingbot.io.checkpoints import join
from tradingbot.io.jsonl import RotatingJSONLWriter
from tradingbot.io.jsonl_read import read_jsonl
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, JOURNAL, Control, Stream, input_of
from tradingbot.market.ticker import Ticker
from tradingbot.services.memory import Recovered, last_sid, next_sid
from tradingbot.services.recording import Recording
from tradingbot.services.warm_start import CAUGHT_UP, recover


class Killed(BaseException):
    """Stand for SIGKILL: nothing handles it."""


class Life:
    """Run the bot's engine and recording from a start on; `writes` from then on it dies, before the next one."""

    def __init__(self, state_dir: Path, settings: Settings, now_ms: int = 0, warm: bool = True) -> None:
        self.state_dir = state_dir
        self.settings = make_settings({**asdict(settings), "FEATURE_WARMSTART_TICKS": warm})
        self.now_s = 0.0
        self.recovered: Recovered = recover(state_dir, self.settings, {}, now_ms, lambda: self.now_s)
        self.engine = self.recovered.engine
        self.sid = next_sid(last_sid(state_dir), 1_700_000_000_000)
        self.inputs: dict[int, Input] = {}  # by seq, of this life
        self._recording = Recording(
            state_dir, lambda: self.settings, lambda job: job(), self._take, lambda: self.now_s, threaded=False
        )

    def begin(self) -> None:
        """Begin the session."""
        with patch("tradingbot.services.housekeeping.keep_reserve"):  # 16 MB a life
            self._recording.begin(self.sid, self.recovered, {}, "embedded", lambda: max(self.engine.now_ms, 0))
        if self.recovered.kind == "warm":
            self._take(SettingsChanged(self.settings))

    def tell(self, event: Input) -> None:
        """Hand one input to engine and recording; a little later the bot looks around."""
        if isinstance(event, Ticker):
            outputs = self.engine.process(event)
            if not (outputs and isinstance(outputs[0], Rejected) and not outputs[0].whole):
                self.inputs[self.engine.seq] = event
            self._recording.take(event, outputs)
        else:
            if isinstance(event, SettingsChanged):
                self.settings = event.settings
            self._take(event)
        self.now_s += 0.7
        self._recording.look()

    def flush(self) -> None:
        """Have all written that waits."""
        assert self._recording._writer is not None
        self._recording._writer.run(lambda: None)

    def end(self) -> None:
        """End the session cleanly."""
        self._recording.end()

    def release(self) -> None:
        """Give back the open files, as a process does that is killed: what is not written never will be."""
        if self._recording._writer is not None:
            for writer in self._recording._writer._writers.values():
                writer.release()
                while writer._past:
                    os.close(writer._past.pop())

    def _take(self, event: Control) -> None:
        outputs = self.engine.process(event)
        self.inputs[self.engine.seq] = event
        self._recording.control(event, outputs)


class Death:
    """Kill whatever writes at the `after`th write of a line, a checkpoint or the anchors, while in use."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __enter__(self) -> Death:
        self._stack = ExitStack()
        write, whole = RotatingJSONLWriter.write, saved.write_atomic

        def dying_write(writer: RotatingJSONLWriter, ts_ms: int, lines: bytes) -> None:
            self._count()
            write(writer, ts_ms, lines)

        def dying_whole(path: Path, text: bytes, durable: bool = True) -> None:
            self._count()
            whole(path, text, durable)

        self._stack.enter_context(patch.object(RotatingJSONLWriter, "write", dying_write))
        self._stack.enter_context(patch.object(saved, "write_atomic", dying_whole))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


class Never:
    """Be the bot that never stopped: it is told what the others could remember, and nothing else."""

    def __init__(self, settings: Settings) -> None:
        self.engine = Engine(settings)
        self.decided: dict[str, tuple[str, ...]] = {}  # reasons by decision_id

    def take(self, life: Life) -> int:
        """Take in what of a life is on disk; return how many triggers were blocked because nobody recorded them."""
        seqs, decided = on_disk(life.state_dir, life.sid)
        blocked = 0
        for seq, event in sorted(life.inputs.items()):
            if seq not in seqs:
                continue
            if seq not in decided:
                self.engine.conditions["restart"] = CAUGHT_UP
            outputs = self.engine.process(event)
            self.engine.conditions.pop("restart", None)
            made = {o.decision_id: o.reasons for o in outputs if isinstance(o, Decision)}
            self.decided |= made
            blocked += len(made) if seq not in decided else 0
        return blocked

    def dies(self) -> None:
        """Forget what ends with a session."""
        self.engine.process(Condition(ConditionName.DEGRADED, None))


def on_disk(state_dir: Path, sid: str) -> tuple[set[int], set[int]]:
    """Return the numbers of a session's inputs that are on disk, and of those whose decision is, too."""
    seqs, decided = set(), set()
    for stream in (Stream.TICKS, JOURNAL):
        for found in read_jsonl(segment.path for segment in list_segments(state_dir / FOLDERS[stream])):
            record = found.record
            if record["sid"] != sid:
                continue
            if record.get("type") == "decision":
                decided.add(record["cause"])
            elif stream is Stream.TICKS or record["type"] in INPUTS:
                seqs.add(record["seq"])
    return seqs, decided


def decisions_on_disk(state_dir: Path) -> dict[str, tuple[str, ...]]:
    """Return the reasons of every decision in the journal; each stands there once."""
    decided: dict[str, tuple[str, ...]] = {}
    for found in read_jsonl(segment.path for segment in list_segments(state_dir / FOLDERS[JOURNAL])):
        record = found.record
        if record["type"] == "decision":
            assert record["decision_id"] not in decided
            decided[record["decision_id"]] = tuple(record["reasons"])
    return decided


INPUTS = {"rejected", "settings", "condition", "parked", "anchor_reset", "clock_step"}


def essence(engine: Engine) -> dict[str, Any]:
    """Return all that two engines must share: everything but the numbers of inputs, which each counts by itself."""
    record = engine.checkpoint_record()
    del record["seq"], record["amount_steps"]
    record["settings"].pop("FEATURE_WARMSTART_TICKS")
    for memory in record["symbols"]:
        if memory["anchor"] is not None:
            del memory["anchor"]["set_seq"], memory["anchor"]["clamp_seq"]
        if memory["order"] is not None:
            del memory["order"]["cause"]
    record["symbols"] = {memory["symbol"]: memory for memory in record["symbols"]}
    return record


def replay_unbroken(state_dir: Path) -> tuple[int, int]:
    """Run all recorded inputs of all sessions through one engine that never stops; return decisions and blocked ones.

    At every start that engine must be the one that the session began with, and every decision the one recorded.
    """
    sessions: dict[str, _Session] = {}
    for stream in (Stream.TICKS, JOURNAL):
        for found in read_jsonl(segment.path for segment in list_segments(state_dir / FOLDERS[stream])):
            record = found.record
            session = sessions.setdefault(record["sid"], _Session())
            if record.get("type") == "session_start":
                session.start = join(record, ())
            elif record.get("type") == "session_end":
                session.end = join(record, ())
            elif record.get("type") == "decision":
                session.decided.setdefault(record["cause"], []).append(record)
            elif stream is Stream.TICKS or record["type"] in INPUTS:
                session.inputs[record["seq"]] = record
    engine: Engine | None = None
    decisions = blocked = 0
    for sid in sorted(sessions):
        session = sessions[sid]
        if session.start is None:
            assert not session.inputs
            continue
        begun = Engine(make_settings({}))
        begun.restore(session.start)
        if engine is None:
            engine = begun
        assert essence(begun) == essence(engine), f"{sid} began with another engine"
        for seq, record in sorted(session.inputs.items()):
            held = session.decided.get(seq, [])
            if any("restart" in decision["reasons"] for decision in held):
                engine.conditions["restart"] = CAUGHT_UP
                blocked += 1
            made = [output for output in engine.process(input_of(record)) if isinstance(output, Decision)]
            engine.conditions.pop("restart", None)
            assert [_said(to_record(decision)) for decision in made] == [_said(decision) for decision in held]
            decisions += len(made)
        if session.end is not None:
            ended = Engine(make_settings({}))
            ended.restore(session.end)
            assert essence(ended) == essence(engine)
    return decisions, blocked


class _Session:
    def __init__(self) -> None:
        self.start: dict[str, Any] | None = None
        self.end: dict[str, Any] | None = None
        self.inputs: dict[int, dict[str, Any]] = {}
        self.decided: dict[int, list[dict[str, Any]]] = {}


def _said(decision: dict[str, Any]) -> dict[str, Any]:
    """Return what a decision says, but for the numbers of inputs."""
    said = {name: value for name, value in decision.items() if name not in ("v", "sid", "crc", "cause", "k")}
    if said["anchor"] is not None:
        said["anchor"] = {name: value for name, value in said["anchor"].items() if not name.endswith("_seq")}
    return orjson.loads(orjson.dumps(said))
