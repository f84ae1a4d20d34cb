"""Prove: the recorded inputs of each session go through the engine again, and must give the recorded outputs."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Output
from tradingbot.errors import UsageError
from tradingbot.io.jsonl import ReadReport, encode, read_jsonl
from tradingbot.io.segments import list_segments, names_by_series
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream, input_of, output_record, stream_of

__all__ = ["Divergence", "Proof", "SessionProof", "prove"]

OUTPUTS = frozenset({"decision", "exit", "fill", "cancelled", "trade"})
MARKS = frozenset({"session_start", "session_end", "recording", "checkpoint", "gap"})


@dataclass(frozen=True, slots=True)
class Divergence:
    """Hold the first place where engine and record part: the record found and the one made again, None for neither."""

    seq: int
    found: dict[str, Any] | None
    made: dict[str, Any] | None


@dataclass(slots=True)
class SessionProof:
    """Hold what was compared of one session; `unrecorded` are stretches (first, last seq) without their inputs."""

    sid: str
    inputs: int = 0
    outputs: int = 0
    unrecorded: list[tuple[int, int, str]] = field(default_factory=list)
    missing: int | None = None  # the first seq that is absent for no recorded reason
    ended: bool = False
    divergence: Divergence | None = None

    @property
    def verdict(self) -> str:
        """Return equal, differs, or cannot tell."""
        if self.divergence is not None:
            return "differs"
        unexplained = self.missing is not None and self.ended
        return "cannot tell" if unexplained or not self.inputs else "equal"


@dataclass(slots=True)
class Proof:
    """Hold the proofs of all sessions and what could not be read."""

    sessions: list[SessionProof] = field(default_factory=list)
    report: ReadReport = field(default_factory=ReadReport)

    @property
    def exit_code(self) -> int:
        """Return 0 where all that is recorded is equal, 1 where it differs or is damaged, 2 where nobody can tell."""
        verdicts = {session.verdict for session in self.sessions}
        if "differs" in verdicts or self.report.damaged:
            return 1
        return 2 if "cannot tell" in verdicts or not verdicts else 0

    def to_record(self) -> dict[str, Any]:
        """Return the proof as a JSON object."""
        damage = {"records": self.report.records, "damaged": self.report.damaged}
        return {"sessions": [asdict(session) | {"verdict": session.verdict} for session in self.sessions], **damage}

    def text(self) -> str:
        """Return the proof in words."""
        lines = []
        for session in self.sessions:
            lines.append(
                f"{session.sid}: {session.verdict}, {session.inputs:,} inputs, {session.outputs:,} outputs"
                + ("" if session.ended else ", without an end")
                + "".join(f"; not recorded: {first} to {last}, {why}" for first, last, why in session.unrecorded)
                + ("" if session.missing is None else f"; {session.missing} is missing")
            )
            if session.divergence is not None:
                lines.append(f"  first at input {session.divergence.seq}")
                lines.append(f"  recorded: {_line(session.divergence.found)}")
                lines.append(f"  again:    {_line(session.divergence.made)}")
        for place in self.report.places:
            lines.append(f"damaged: {place}")
        return "\n".join(lines)


def _line(record: dict[str, Any] | None) -> str:
    return "nothing" if record is None else encode(record).decode().rstrip()


@dataclass(frozen=True, slots=True)
class _Item:
    key: tuple[str, int, int]  # session, seq (or cause), inputs before outputs before marks
    record: dict[str, Any]


def prove(state_dir: Path, progress: Callable[[str, int, int], None] | None = None) -> Proof:
    """Run all that is recorded under a state directory through the engine again; raise UsageError where nothing is.

    Cost and time follow the records; memory does not.
    """
    proof = Proof()
    sources = [_journal(state_dir, proof.report), *_ticks(state_dir, proof.report)]
    run: _Run | None = None
    for read, item in enumerate(heapq.merge(*sources, key=attrgetter("key"))):
        if progress is not None and read % 10_000 == 0:
            progress("proving", read, 0)
        if run is None or run.proof.sid != item.key[0]:
            run = _Run(SessionProof(item.key[0]))
            proof.sessions.append(run.proof)
        run.take(item)
    if not proof.sessions:
        raise UsageError(f"nothing is recorded under {state_dir}")
    return proof


def _ticks(state_dir: Path, report: ReadReport) -> Iterator[Iterator[_Item]]:
    folder = state_dir / FOLDERS[Stream.TICKS]
    for series in names_by_series(folder) if folder.is_dir() else ():
        yield _items((segment.path for segment in list_segments(folder, series)), report)


def _journal(state_dir: Path, report: ReadReport) -> Iterator[_Item]:
    folder = state_dir / FOLDERS[JOURNAL]
    segments = list_segments(folder, JOURNAL.value) if folder.is_dir() else []
    return _items((segment.path for segment in segments), report)


def _items(paths: Iterator[Path], report: ReadReport) -> Iterator[_Item]:
    for found in read_jsonl(paths, report):
        record = found.record
        kind = record.get("type")
        if kind == "session_start":
            key = (record["sid"], -1, 0)
        elif kind in OUTPUTS:
            key = (record["sid"], record["cause"], 1)
        elif kind in MARKS:
            if "seq" not in record:
                continue
            key = (record["sid"], record["seq"], 2)
        else:
            key = (record["sid"], record["seq"], 0)
        yield _Item(key, record)


class _Run:
    """Take the records of one session in order, and hold the engine's answers against those recorded."""

    def __init__(self, proof: SessionProof) -> None:
        self.proof = proof
        self._engine: Engine | None = None
        self._expected: list[dict[str, Any]] = []  # made, and not met in the record yet
        self._off_since: int | None = None

    def take(self, item: _Item) -> None:
        """Take in the next record."""
        record, kind = item.record, item.record.get("type")
        if self.proof.divergence is not None:
            return
        if kind in ("session_start", "session_end", "recording"):
            self._mark(record, str(kind))
        elif self._engine is None:
            return
        elif item.key[2] == 1:
            self._compare(record)
        elif item.key[2] == 0:
            self._input(record)

    def _mark(self, record: dict[str, Any], kind: str) -> None:
        self._settle()
        checkpoint = record.get("checkpoint")
        if kind == "session_end":
            self.proof.ended = True
            if self._engine is not None and self._engine.seq < record["seq"] and self._off_since is None:
                self.proof.missing = self._engine.seq + 1
            if self._off_since is not None:
                self.proof.unrecorded.append((self._off_since, record["seq"], "FEATURE_PERSIST_STREAMS off"))
        elif kind == "recording" and not record["on"]:
            self._engine, self._off_since = None, record["seq"] + 1
        elif checkpoint is not None:
            if self._off_since is not None:
                self.proof.unrecorded.append((self._off_since, record["seq"], "FEATURE_PERSIST_STREAMS off"))
                self._off_since = None
            self._engine = Engine(make_settings({}))
            self._engine.restore(checkpoint)

    def _input(self, record: dict[str, Any]) -> None:
        self._settle()
        assert self._engine is not None
        if record["seq"] <= self._engine.seq:
            return  # what a checkpoint in the middle holds already
        if record["seq"] != self._engine.seq + 1:
            self.proof.missing = self._engine.seq + 1
            self._engine = None  # nothing behind a gap can be compared
            return
        outputs = self._engine.process(input_of(record))
        self.proof.inputs += 1
        if self._engine.seq != record["seq"]:
            self._diverge(record["seq"], record, None)
        told = [output for output in outputs if stream_of(output) is JOURNAL and _is_told(output)]
        self._expected = [output_record(self.proof.sid, output) for output in told]

    def _compare(self, found: dict[str, Any]) -> None:
        made = self._expected.pop(0) if self._expected else None
        if made is None or encode(made) != encode(found):
            self._diverge(found["cause"], found, made)
        self.proof.outputs += 1

    def _settle(self) -> None:
        """See that nothing was decided that the record does not hold."""
        if self._expected:
            self._diverge(self._expected[0]["cause"], None, self._expected[0])
            self._expected = []

    def _diverge(self, seq: int, found: dict[str, Any] | None, made: dict[str, Any] | None) -> None:
        if self.proof.divergence is None:
            self.proof.divergence = Divergence(seq, found, made)


def _is_told(output: Output) -> bool:
    return type(output).__struct_config__.tag in OUTPUTS
