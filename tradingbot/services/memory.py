"""What was remembered last (the newest checkpoint, and the journal since), and what a start made of it."""

from __future__ import annotations

import calendar
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Output
from tradingbot.errors import StateError, TradingBotError
from tradingbot.io.checkpoints import PART, join
from tradingbot.io.jsonl_read import read_jsonl_tail
from tradingbot.io.saved import load_checkpoint
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, JOURNAL

__all__ = ["Base", "Memory", "Position", "Recovered", "last_memory", "last_sid", "next_sid", "position_of"]

Position = tuple[str, int]
"""Session id and number of an input: the order of all inputs of a state directory."""


@dataclass(frozen=True, slots=True)
class Base:
    """Hold an engine's checkpoint, and the input after which it was taken."""

    position: Position
    checkpoint: dict[str, Any]


@dataclass(slots=True)
class Memory:
    """Hold the newest checkpoint, None where there is none, and the journal's records behind it.

    `is_whole` says whether it is good for a warm start, else only for what was bought: a checkpoint.json was there.
    """

    base: Base | None = None
    is_whole: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Recovered:
    """Hold the engine that a new session begins with, its inputs counted from 1, and how it came about.

    `kind` is warm or cold, `source` checkpoint, ticks or nothing; `symbols` go on where they were. `late` are the
    outputs of inputs that an earlier session (its sid) took in and died over: the journal does not hold them yet.
    `cold` are symbols that begin anew, `discarded` anchors that are not believed, each with why; `troubles` is what was
    damaged. `ms` is the time that each phase took.
    """

    engine: Engine
    kind: str = "cold"
    source: str = "nothing"
    symbols: int = 0
    ticks: int = 0
    caught_up: int = 0
    late: list[tuple[str, Output]] = field(default_factory=list)
    cold: dict[str, str] = field(default_factory=dict)
    discarded: dict[str, str] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    tick_ranges: dict[str, tuple[Position, Position]] = field(default_factory=dict)
    ms: dict[str, float] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return what the session's first record tells of it."""
        return {
            "kind": self.kind, "source": self.source, "symbols": self.symbols, "ticks": self.ticks,
            "caught_up": self.caught_up, "late": len(self.late), "cold": self.cold, "discarded": self.discarded,
            "warm_ticks": {symbol: [*first, *last] for symbol, (first, last) in self.tick_ranges.items()},
        }  # fmt: skip

    def line(self) -> str:
        """Return it as one line of the log."""
        portfolio = self.engine.portfolio
        words = [
            f"symbols={self.symbols} ticks={self.ticks} kind={self.kind} source={self.source}",
            f"caught_up={self.caught_up} blocked={sum(isinstance(output, Decision) for _, output in self.late)}",
            f"positions={len(portfolio.positions)} orders={len(portfolio.orders)}",
        ]
        for word, whys in (("cold", self.cold), ("discarded", self.discarded)):
            if whys:
                words.append(f"{word}={len(whys)} ({'; '.join(f'{s}: {why}' for s, why in list(whys.items())[:5])})")
        words += [f"{phase}_ms={ms:.1f}" for phase, ms in self.ms.items()]
        return " ".join(words)


def position_of(record: Mapping[str, Any]) -> Position | None:
    """Return the place of an input or an output among the inputs, None for what has none."""
    sid, seq = record.get("sid"), record.get("seq", record.get("cause"))
    return (sid, seq) if isinstance(sid, str) and type(seq) is int else None


def last_sid(state_dir: Path) -> str:
    """Return the newest session id that the journal knows, "" where it knows none."""
    found = read_jsonl_tail(state_dir / FOLDERS[JOURNAL], JOURNAL.value, 1)
    return str(found[0].get("sid", "")) if found else ""


def next_sid(before: str, now_ms: int) -> str:
    """Return the id of a session that starts now; it sorts behind the one before, whatever the clock was set to."""
    sid = _sid(now_ms)
    if sid > before:
        return sid
    with contextlib.suppress(ValueError):
        day, _, fraction = before.partition(".")
        last_s = calendar.timegm(time.strptime(day, "%Y%m%dT%H%M%S"))
        return _sid(last_s * 1000 + int(fraction[:3]) + 1)
    return f"{before}+"


def _sid(ms: int) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(ms // 1000))}.{ms % 1000:03d}"


def last_memory(state_dir: Path) -> Memory:
    """Return the newest checkpoint of a state directory, checkpoint.json's or the journal's, and what came after it.

    Raises StateError where one of them is there and cannot be read.
    """
    memory = Memory()
    try:
        found, memory.troubles = load_checkpoint(state_dir)
        for segment in list_segments(state_dir / FOLDERS[JOURNAL], JOURNAL.value)[-2:]:
            with segment.path.open("rb") as file:
                file.read(1)
    except OSError as error:
        what = error.filename or state_dir
        raise StateError(
            f"{what} cannot be read ({error.strerror}): a start without it could forget what was bought"
        ) from None
    if found is not None:
        memory.base = _base(found["sid"], found["checkpoint"])
        if memory.base is None:
            memory.troubles.append("checkpoint.json is of another version: it is not used")
        memory.is_whole = memory.base is not None
    parts: list[dict[str, Any]] = []  # of the journal's newest checkpoint, newest first
    newest: list[Base] = []

    def is_enough(record: dict[str, Any]) -> bool:
        """Say whether the newest checkpoint has been met; asked from the newest record on."""
        if record.get("type") == PART:
            parts.append(record)
            return False
        position = position_of(record)
        checkpoint = record.get("checkpoint")
        if isinstance(checkpoint, dict) and type(checkpoint.get("seq")) is int:
            position = str(record.get("sid")), checkpoint["seq"]
        if memory.base is not None and position is not None and position <= memory.base.position:
            return True
        if checkpoint is not None:
            whole = join(record, parts[::-1])
            base = None if whole is None else _base(record["sid"], whole)
            if base is not None:
                newest.append(base)
                return True
        parts.clear()
        return False

    records = read_jsonl_tail(state_dir / FOLDERS[JOURNAL], JOURNAL.value, 0, is_enough)
    if newest:
        memory.base = newest[0]
    if memory.base is not None:
        after = memory.base.position
        memory.records = [r for r in records if (position := position_of(r)) is not None and position > after]
    return memory


def _base(sid: str, checkpoint: dict[str, Any]) -> Base | None:
    try:
        Engine(make_settings({})).restore(checkpoint)
    except (TradingBotError, msgspec.ValidationError, KeyError, TypeError, ValueError):
        return None
    return Base((sid, checkpoint["seq"]), checkpoint)
