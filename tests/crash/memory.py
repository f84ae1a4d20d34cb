"""The bot's memory without its exchange: engine and recording told a series, beside an engine that never dies."""

from __future__ import annotations

import functools
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tests.crash.files import read_records
from tests.crash.rows import Outcome
from tests.crash.shortages import SHORTAGES
from tradingbot.config import Settings, make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import (
    AnchorReset,
    Condition,
    ConditionName,
    Decision,
    Input,
    Parked,
    Rejected,
    SettingsChanged,
)
from tradingbot.io.lines import decode, encode
from tradingbot.io.streams import FOLDERS, JOURNAL, Control, Stream, control_record, rejection_record, tick_record
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.prove import prove
from tradingbot.services import memory as memory_service
from tradingbot.services import warm_start
from tradingbot.services.memory import Recovered, last_sid
from tradingbot.services.recording import Recording

T0 = 1_795_305_600_000 - 20_000  # 20 s before midnight
SYMBOLS = ("BTC/USDT", "ETH/USDT", "X/USDT")
SETTINGS: dict[str, Any] = {
    "GLOBAL_TRADING": True, "DROP_TRIGGER_VALUE": 0.997, "COOLDOWN_MIN": 0, "WINDOW_LOOKBACK_S": 20, "DEBOUNCE_S": 1,
    "MAX_SPREAD_BPS": 5000, "MAX_ENTRY_AWAY_BPS": 5000, "ENTRY_BURST_MAX": 50, "MAX_LOSSES_IN_ROW": 50,
    "TAKE_PROFIT_THRESHOLD": 1.002, "STOP_LOSS_THRESHOLD": 0.998, "MIN_FREE_MB": 0, "MAX_FILE_MB": 0.004,
    "CHECKPOINT_S": 5, "SNAPSHOT_MIN_PERIOD_MS": 2000, "STOP_TIMEOUT_S": 60,
}  # fmt: skip
LENGTH = 90  # inputs of the first life
INPUTS = frozenset({"rejected", "settings", "condition", "parked", "anchor_reset", "clock_step"})
CAUGHT_UP = "caught up"  # written out: the product's word is not the judge of itself


@functools.cache
def series(count: int, seed: int = 5) -> tuple[Input, ...]:
    """Return inputs in which much happens; each of them takes a number."""
    rng = random.Random(seed)
    price, t = dict.fromkeys(SYMBOLS, 100.0), T0
    settings = make_settings(SETTINGS)
    inputs: list[Input] = []
    while len(inputs) < count:
        place = len(inputs)
        symbol = rng.choice(SYMBOLS)
        t += rng.choice((200, 500, 1000, 1500))
        if place % 29 == 28:
            value = 0.996 if settings.DROP_TRIGGER_VALUE == 0.997 else 0.997
            settings = replace(settings, DROP_TRIGGER_VALUE=value)
            inputs.append(SettingsChanged(settings))
        elif place % 37 == 36:
            inputs.append(AnchorReset(symbol))
        elif place % 41 in (20, 26):
            inputs.append(Condition(ConditionName.KILLED, "looks odd" if place % 41 == 20 else None))
        elif place % 43 in (30, 34):
            inputs.append(Parked(SYMBOLS[2], "halted" if place % 43 == 30 else None))
        elif place % 31 == 30:
            inputs.append(Ticker(symbol, t, price[symbol] * 2))  # a jump
        else:
            price[symbol] = round(price[symbol] * (1 + rng.choice((-60, -35, -10, 0, 10, 30, 62)) / 10_000), 4)
            spread = price[symbol] * 0.0002
            inputs.append(Ticker(symbol, t, price[symbol], price[symbol] - spread, price[symbol] + spread))
    return tuple(inputs)


class Life:
    """Run engine and recording from a start on."""

    def __init__(self, state_dir: Path, settings: Settings, now_ms: int, threaded: bool = False) -> None:
        self.settings, self.now_s = settings, 0.0
        self.recovered: Recovered = warm_start.recover(state_dir, settings, {}, now_ms, lambda: self.now_s)
        self.engine = self.recovered.engine
        self.sid = memory_service.next_sid(last_sid(state_dir), now_ms)
        self.told: dict[int, Input] = {}  # by seq
        self.posted: list[Callable[[], None]] = []  # by the writer's thread, for this one
        post = self.posted.append if threaded else self._at_once
        self.recording = Recording(
            state_dir, lambda: self.settings, post, self.take, lambda: self.now_s, threaded=threaded
        )

    @staticmethod
    def _at_once(job: Callable[[], None]) -> None:
        job()

    def begin(self) -> None:
        """Begin the session, as the bot does."""
        self.recording.begin(self.sid, self.recovered, {}, "embedded", lambda: max(self.engine.now_ms, 0))
        if self.recovered.kind == "warm":
            self.take(SettingsChanged(self.settings))

    def tell(self, event: Input) -> None:
        """Hand in one input; then the bot looks around."""
        while self.posted:
            self.posted.pop(0)()
        if isinstance(event, Ticker):
            outputs = self.engine.process(event)
            if not (outputs and isinstance(outputs[0], Rejected) and not outputs[0].whole):
                self.told[self.engine.seq] = event
            self.recording.take(event, outputs)
        else:
            if isinstance(event, SettingsChanged):
                self.settings = event.settings
            self.take(event)
        self.now_s += 0.7
        self.recording.look()

    def take(self, event: Control) -> None:
        """Hand in an input that is no ticker."""
        outputs = self.engine.process(event)
        self.told[self.engine.seq] = event
        self.recording.control(event, outputs)

    @property
    def is_written(self) -> bool:
        """Return whether all that was put is written."""
        return self.recording._writer is not None and self.recording._writer.waiting_bytes() == 0


def settings_at(place: int) -> Settings:
    """Return the settings in force before input `place` of the series."""
    changes = [event.settings for event in series(place) if isinstance(event, SettingsChanged)]
    return changes[-1] if changes else make_settings(SETTINGS)


def now_at(place: int) -> int:
    """Return the time before input `place` of the series."""
    return max((event.ts_ms for event in series(place) if isinstance(event, Ticker)), default=T0)


def live(folder: Path, tell: Callable[[object], None], words: list[str]) -> None:
    """Live through the series; words: from where, to where, "end" to end it cleanly, a shortage and where it is on."""
    first, last, *rest = words
    shortage = SHORTAGES[rest[1]](folder, rest[2:]) if rest[1:] else None
    life = Life(folder, settings_at(int(first)), now_at(int(first)))
    life.begin()
    tell("begun")
    for place in range(int(first), int(last)):
        if shortage is not None:
            shortage.at(place)
        life.tell(series(int(last))[place])
        if life.is_written:
            tell(f"seq {life.engine.seq}")
    if rest:
        life.recording.end()
        tell(f"seq {life.engine.seq}")
        places = {id(event): place for place, event in enumerate(series(int(last)))}
        for seq, event in life.told.items():
            own = event.why if isinstance(event, Condition) else ""
            tell(f"input {seq} {places.get(id(event), own)}")


@dataclass(slots=True)
class OnDisk:
    """Hold what a state directory holds of its sessions: inputs by number, and the numbers of what was decided."""

    inputs: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    decided: dict[str, set[int]] = field(default_factory=dict)
    journal: list[dict[str, Any]] = field(default_factory=list)
    missing: int = 0  # records that gap records tell of, of ticks and journal


def read_state(state_dir: Path, outcome: Outcome) -> OnDisk:
    """Return what is on disk; what cannot be read, twice the same number, and twice the same answer, is a violation."""
    disk = OnDisk()
    answers: set[bytes] = set()
    for stream in (Stream.TICKS, JOURNAL):
        for entry in read_records(state_dir / FOLDERS[stream], outcome):
            kind, sid = entry.get("type"), entry["sid"]
            if stream is JOURNAL:
                disk.journal.append(entry)
            if kind == "gap":
                disk.missing += entry["missing"]
            if (stream is Stream.TICKS and kind is None) or kind in INPUTS:
                if not outcome.holds("seq" in entry, f"no number, so of another file: {entry!r:.200}", "unreadable"):
                    continue
                of = disk.inputs.setdefault(sid, {})
                outcome.holds(entry["seq"] not in of, f"input {entry['seq']} of {sid} is there twice")
                of[entry["seq"]] = entry
            elif "cause" in entry:
                line = encode(entry)
                outcome.holds(line not in answers, f"an answer is there twice: {line!r:.200}")
                answers.add(line)
                if kind == "decision" and "restart" not in entry["reasons"]:
                    disk.decided.setdefault(sid, set()).add(entry["cause"])
    for stream in (Stream.SNAPSHOTS, Stream.WINDOWS, Stream.ANCHORS):
        read_records(state_dir / FOLDERS[stream], outcome)
    return disk


class Never:
    """Be the bot that never stopped: told what is on disk of the others, and nothing else."""

    def __init__(self) -> None:
        self.engine = Engine(make_settings(SETTINGS))

    def take(self, disk: OnDisk, sid: str, told: Mapping[int, Input], outcome: Outcome) -> None:
        """Take in what of a session is on disk, and see that it is what the session was told."""
        inputs, decided = disk.inputs.get(sid, {}), disk.decided.get(sid, set())
        for seq, entry in sorted(inputs.items()):
            event = told.get(seq)
            if event is None:
                outcome.fail(f"input {seq} of {sid} was never told: {entry}")
                continue
            if seq not in decided:
                self.engine.conditions["restart"] = CAUGHT_UP
            outputs = self.engine.process(event)
            self.engine.conditions.pop("restart", None)
            wanted = _record_of(sid, seq, event, outputs, entry["ts_ms"])
            outcome.holds(decode(encode(wanted)) == entry, f"input {seq} of {sid} was {wanted}, is {entry}")

    def goes_on(self) -> None:
        """Do what a start does to what the session before knew of its own troubles."""
        for name in ("degraded", "restart"):
            self.engine.conditions.pop(name, None)


def _record_of(sid: str, seq: int, event: Input, outputs: Any, ts_ms: int) -> dict[str, Any]:
    if not isinstance(event, Ticker):
        return control_record(sid, seq, ts_ms, event)
    if outputs and isinstance(outputs[0], Rejected):
        return rejection_record(sid, seq, event, outputs[0])
    return tick_record(sid, seq, event)


def essence(engine: Engine) -> dict[str, Any]:
    """Return all that two engines must share: everything but the numbers of inputs, which each counts by itself."""
    found = engine.checkpoint_record()
    del found["seq"], found["amount_steps"]
    for memory in found["symbols"]:
        if memory["anchor"] is not None:
            del memory["anchor"]["set_seq"], memory["anchor"]["clamp_seq"]
        if memory["order"] is not None:
            del memory["order"]["cause"]
    found["symbols"] = {memory["symbol"]: memory for memory in found["symbols"] if not memory["fresh"]}
    return found


def differences(one: Engine, other: Engine) -> str:
    """Return in which members two engines differ, "" where they are equal."""
    a, b = essence(one), essence(other)
    if a == b:
        return ""
    told = [name for name in a if a[name] != b[name]]
    for symbol in a["symbols"].keys() & b["symbols"].keys():
        mine, its = a["symbols"][symbol], b["symbols"][symbol]
        told += [f"{symbol} {key}: {mine[key]!r:.80} for {its[key]!r:.80}" for key in mine if mine[key] != its[key]]
    return "; ".join(told)


def check(folder: Path, told: list[str], outcome: Outcome, starts: Sequence[int] = (0,), length: int = LENGTH) -> None:
    """See that what the last life acknowledged is there, recover, and go on to a proof that the whole is equal.

    `starts` are the places in the series at which each life began; the last one was to go on for `length`.
    """
    never = Never()
    disk = read_state(folder, outcome)
    sids = [entry["sid"] for entry in disk.journal if entry.get("type") == "session_start"]
    acknowledged = max((int(word.split()[1]) for word in told if word.startswith("seq")), default=0)
    last = disk.inputs.get(sids[-1], {}) if sids and (told or len(sids) == len(starts)) else {}
    for seq in range(1, acknowledged + 1):
        outcome.holds(seq in last, f"input {seq} of {acknowledged} acknowledged is not there", "lost")
    ends = [*starts[1:], starts[-1] + length]
    for sid, first, end in zip(sids, starts, ends, strict=False):
        if sid != sids[0]:
            never.goes_on()
        never.take(disk, sid, _inputs_of(first, end, disk.inputs.get(sid, {})), outcome)
    resume(folder, ends[-1], outcome, never)


def _inputs_of(first: int, last: int, inputs: Mapping[int, dict[str, Any]]) -> dict[int, Input]:
    events = list(series(last)[first:])
    if first and inputs.get(1, {}).get("type") == "settings":
        events.insert(0, SettingsChanged(settings_at(first)))
    return dict(enumerate(events, 1))


def resume(folder: Path, place: int, outcome: Outcome, never: Never) -> None:
    """Recover, hold the engine against the one that never stopped, go on for a while, and prove the whole."""
    before = last_sid(folder)
    life = Life(folder, settings_at(place), now_at(place))
    outcome.holds(life.sid > before, f"session {life.sid} does not sort behind {before}")
    if life.recovered.source == "nothing":
        outcome.holds(never.engine.seq == 0, "nothing is left of what is on disk", "lost")
        never.engine = Engine(settings_at(place))
    never.goes_on()
    outcome.holds(not life.recovered.troubles, f"troubles: {life.recovered.troubles}", "unreadable")
    differ = differences(life.engine, never.engine)
    outcome.holds(not differ, f"recovered otherwise: {differ}")
    for sid, output in life.recovered.late:
        blocked = not isinstance(output, Decision) or "restart" in output.reasons
        outcome.holds(blocked, f"a trigger of {sid} that nobody recorded became {output}")
    life.begin()
    for event in series(place + 25)[place:]:
        life.tell(event)
    life.recording.end()
    for event in life.told.values():
        never.engine.process(event)
    differ = differences(life.engine, never.engine)
    outcome.holds(not differ, f"went on otherwise: {differ}")
    proof = prove(folder)
    outcome.holds(proof.exit_code == 0, f"prove: {proof.text()}")


AGAIN = 20  # inputs of the second life
KILLED_AT = next(  # the place of a trigger whose decision is lost
    place
    for place, outputs in enumerate(map(Engine(make_settings(SETTINGS)).process, series(LENGTH)))
    if place > LENGTH // 2 and any(isinstance(output, Decision) and not output.reasons for output in outputs)
)


def prepare_again(folder: Path) -> None:
    """Leave behind a bot that was killed when a trigger's tick was written, and its decision was not."""
    before, state = folder.with_name(folder.name + "-before"), folder
    life = Life(state, make_settings(SETTINGS), T0)
    life.begin()
    for event in series(KILLED_AT):
        life.tell(event)
    shutil.copytree(state, before)
    life.tell(series(KILLED_AT + 1)[KILLED_AT])
    ticks = FOLDERS[Stream.TICKS]
    shutil.rmtree(before / ticks)
    shutil.copytree(state / ticks, before / ticks)
    shutil.rmtree(state)
    before.rename(state)


def check_again(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that a start that was killed is as good as none."""
    check(folder, told, outcome, (0, KILLED_AT + 1), AGAIN)
