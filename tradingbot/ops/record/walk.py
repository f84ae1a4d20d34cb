"""The recorded inputs, session after session, through several engines at once: where they begin, rest and go on."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tradingbot.config import Settings, make_settings, registry
from tradingbot.engine.engine import Checkpoint, Engine
from tradingbot.engine.events import ConditionName, Input, Output, SettingsChanged
from tradingbot.engine.state import SymbolMemory
from tradingbot.io.streams import input_of
from tradingbot.io.tick_files import TickRecord
from tradingbot.ops.record.comparison import Stretch
from tradingbot.ops.record.inputs import (
    CAUGHT_UP,
    INPUTS,
    NEVER,
    OFF_WHYS,
    OUTPUTS,
    Numbered,
    Record,
    SessionInputs,
)

__all__ = ["Run", "SideRun", "Walk"]

AT_ONCE = 4_096  # ticks between two looks at the time limit
NO_CHECKPOINT = "no checkpoint to begin at"
ABSENT = "not recorded, or lost: tradingbot prove says which"
CUT = "cut off: its bot was killed, or is running"


class SideRun:
    """Run one engine under recorded settings with changes laid over them; drawdowns are in quote and %."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        self.engine = Engine(make_settings({}))
        self.changes = {
            name: value for name, value in changes.items() if registry()[name].engine and not registry()[name].restart
        }
        self.idle = {name: value for name, value in changes.items() if name not in self.changes}
        self.recorded: dict[str, Any] = {}  # what the settings that are changed were at the beginning
        self._is_recorded = True  # has decided under the recorded settings alone so far
        self._peak = self.drawdown = self.drawdown_pct = 0.0

    def begin(self, checkpoint: Record) -> None:
        """Begin at a checkpoint, whole."""
        self.engine.restore(checkpoint)
        recorded = self.engine.settings
        self.recorded = self.recorded or {name: getattr(recorded, name) for name in self.changes}
        self._is_recorded = True
        self._adopt(recorded)
        self._peak = self.equity()

    def go_on(self, checkpoint: Record, is_warm: bool) -> None:
        """Go on into a session that begins with this checkpoint: the account is this side's own.

        Symbols too, but for those that the session began cold, all of them where it did not go on from a checkpoint of
        its own. A side under the recorded settings alone is what the checkpoint says.
        """
        if self._is_recorded:
            peak = self._peak
            self.begin(checkpoint)
            self._peak = max(peak, self._peak)
            self.mark()
            return
        recorded = msgspec.convert(checkpoint, Checkpoint)
        settings, own = recorded.settings, self.engine.checkpoint()
        recorded.settings, recorded.account = own.settings, own.account
        recorded.positions, recorded.orders = own.positions, own.orders
        memories = {memory.symbol: memory for memory in recorded.symbols}
        for memory in memories.values():
            memory.order = memory.position = memory.last_exit_ms = None
        for mine in own.symbols:
            symbol = mine.symbol
            found = memories.setdefault(symbol, SymbolMemory(symbol, last=mine.last))
            if is_warm and not found.fresh:
                mine.parked = found.parked
                if mine.anchor is not None:
                    mine.anchor.set_seq = 0
                    mine.anchor.clamp_seq = None if mine.anchor.clamp_seq is None else 0
                memories[symbol] = mine
                recorded.windows |= {symbol: own.windows[symbol]} if symbol in own.windows else {}
            else:
                found.order, found.position, found.last_exit_ms = mine.order, mine.position, mine.last_exit_ms
        recorded.symbols = list(memories.values())
        self.engine.restore(recorded)
        self._adopt(settings)

    def process(self, seq: int, event: Input) -> tuple[Output, ...]:
        """Take in a recorded input under its number."""
        if isinstance(event, SettingsChanged):
            self._adopt(event.settings)
            outputs: tuple[Output, ...] = ()
        else:
            outputs = self.engine.process(event)
        self.engine.seq = seq
        return outputs

    def _adopt(self, recorded: Settings) -> None:
        """Lay the changes over recorded settings; the number of the input stays free, for the record numbers them."""
        settings = make_settings({**msgspec.structs.asdict(recorded), **self.changes}) if self.changes else recorded
        self._is_recorded = self._is_recorded and settings == recorded
        seq = self.engine.seq
        self.engine.process(SettingsChanged(settings))
        self.engine.seq = seq

    def mark(self) -> None:
        """Value open positions at the tick just taken in."""
        equity = self.equity()
        if equity > self._peak:
            self._peak = equity
        elif equity < self._peak:
            self.drawdown = max(self.drawdown, self._peak - equity)
            self.drawdown_pct = max(self.drawdown_pct, (1 - equity / self._peak) * 100)

    def equity(self) -> float:
        """Return cash and open positions at their symbols' last prices."""
        portfolio = self.engine.portfolio
        return portfolio.equity(self.engine.states, portfolio.account.cash)


class Run(ABC):
    """Hold the sides of a run and what is said of all of them."""

    def __init__(self, sides: Sequence[SideRun], ends_s: float | None) -> None:
        self.sides, self._ends_s = sides, ends_s
        self.is_running = False  # all have taken in all that there was up to here
        self.is_over = False
        self.sessions: list[str] = []
        self.unrecorded: list[Stretch] = []
        self.inputs = self.only_counted = 0
        self.first_ms: int | None = None
        self.last_ms: int | None = None

    def look(self) -> None:
        """See whether the time limit is reached."""
        self.is_over = self._ends_s is not None and time.monotonic() >= self._ends_s

    @abstractmethod
    def run_plain(self, batch: list[TickRecord], seq: int, at: int) -> int:
        """Take in ticks as long as their numbers follow `seq` one by one and stay below `at`; return how many."""

    @abstractmethod
    def process(self, seq: int, event: Input) -> None:
        """Take in one recorded input under its number."""


class Walk:
    """Take one session's inputs, in order, through every engine of a run."""

    def __init__(self, run: Run, session: SessionInputs) -> None:
        self._run, self._sid = run, session.sid
        self._journal = Numbered(session.journal)
        self._due = (session.begins or 0) + 1  # the next number
        self._is_off = self._has_ended = False
        self._carries, run.is_running = run.is_running, False
        self._since, self._why = self._due, NO_CHECKPOINT  # of the stretch without engines
        run.sessions.append(self._sid)

    def ticks(self, batch: list[TickRecord]) -> None:
        """Take in the next ticks, unless the time limit is reached."""
        place, count = 0, len(batch)
        while place < count and not self._run.is_over:
            if self._run.is_running:
                place = self._run_plain(batch, place)
            if place < count and not (self._run.is_running and batch[place].seq == self._due < self._journal.at):
                tick = batch[place]
                self._until(tick.seq)
                self._input(tick.seq, tick.ts_ms, tick)
                place += 1
            self._run.look()

    def _run_plain(self, batch: list[TickRecord], place: int) -> int:
        """Run ticks at whose numbers the journal holds nothing, AT_ONCE at most; return the first place not run."""
        run, due = self._run, self._due
        done = run.run_plain(batch[place : place + AT_ONCE], due, self._journal.at)
        if done:
            run.last_ms = batch[place + done - 1].ts_ms
            run.inputs += done
            self._due = due + done
        return place + done

    def end(self) -> None:
        """Take in what the journal holds behind the last tick; where the time limit is reached, nothing more."""
        run = self._run
        if run.is_over:
            return
        self._until(NEVER)
        if not run.is_running:
            self._why = CUT if self._why == ABSENT and not self._has_ended else self._why
            self._close(self._due - 1)

    def _until(self, limit: int) -> None:
        for seq, record in self._journal.before(limit):
            kind = record.get("type")
            if kind in INPUTS:
                self._input(seq, record["ts_ms"], record)
            elif kind not in OUTPUTS:
                self._mark(seq, record)

    def _input(self, seq: int, ts_ms: int, found: TickRecord | Record) -> None:
        """Take in an input, with all that the journal holds of its number."""
        answers, marks = self._journal.of(seq)
        if seq < self._due:
            return  # there twice
        if seq > self._due:
            self._miss(seq - 1)
        self._due = seq + 1
        if self._run.is_running:
            try:
                event = found if isinstance(found, TickRecord) else input_of(found)
            except (ValueError, KeyError):
                self._suspend(seq, "an input that cannot be read")
            else:
                self._process(seq, ts_ms, event, answers)
        for mark in marks:
            self._mark(seq, mark)

    def _process(self, seq: int, ts_ms: int, event: Input, answers: list[Record]) -> None:
        """Run an input; what a later start made up for is blocked by that on every side, as it was."""
        run, name = self._run, ConditionName.RESTART.value
        caught_up = [side.engine for side in run.sides if name not in side.engine.conditions]
        if not any(name in answer.get("reasons", ()) for answer in answers):
            caught_up = []
        for engine in caught_up:
            engine.conditions[name] = CAUGHT_UP
        run.process(seq, event)
        for engine in caught_up:
            del engine.conditions[name]
        run.inputs += 1
        run.last_ms = ts_ms

    def _mark(self, seq: int, record: Record) -> None:
        """Take in what is neither input nor output."""
        kind, checkpoint = record.get("type"), record.get("checkpoint")
        if kind == "gap":
            return  # the numbers themselves tell
        if kind == "session_start":
            self._due = self._since = 1 if checkpoint is None else checkpoint["seq"] + 1
        elif seq >= self._due:
            if kind == "recording" and record["on"] and self._is_off:
                self._is_off, self._due = False, seq  # the tick that it was written with is recorded
            self._miss(seq)
        if kind == "session_end":
            self._has_ended = True
        elif kind == "rejections":
            self._run.only_counted += sum(sum(reasons.values()) for reasons in record["counts"].values())
        elif kind == "recording":
            self._is_off = not record["on"]
            if self._is_off:
                why = str(record.get("why", "flag"))
                self._suspend(self._due, OFF_WHYS.get(why, why))
        if checkpoint is not None and not self._is_off and not self._run.is_running:
            self._begin(record, checkpoint)

    def _begin(self, record: Record, checkpoint: Record) -> None:
        """Let every side begin at a checkpoint, or go on where all before it was seen."""
        run, seq = self._run, checkpoint["seq"]
        self._close(seq)
        if self._carries and record["type"] == "session_start":
            is_warm = (record.get("start") or {}).get("source", "checkpoint") == "checkpoint"
            for side in run.sides:
                side.go_on(checkpoint, is_warm)
        else:
            for side in run.sides:
                side.begin(checkpoint)
        run.is_running, self._carries = True, False
        run.first_ms = record["ts_ms"] if run.first_ms is None else run.first_ms

    def _miss(self, last: int) -> None:
        """Note that numbers are absent up to `last`."""
        if last >= self._due:
            if not self._is_off:
                self._suspend(self._due, ABSENT)
            self._due = last + 1

    def _suspend(self, since: int, why: str) -> None:
        """Stop every engine: what they would decide behind an input that is absent says nothing."""
        if self._run.is_running:
            self._since, self._why = since, why
        elif why not in self._why and self._why != NO_CHECKPOINT:
            self._why = f"{self._why} and {why}"
        self._run.is_running, self._carries = False, False

    def _close(self, last: int) -> None:
        if last >= self._since:
            self._run.unrecorded.append(Stretch(self._sid, self._since, last, self._why))
        self._since = last + 1
