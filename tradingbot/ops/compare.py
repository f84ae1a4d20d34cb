"""Compare: the recorded inputs go through two engines under two settings, and what they decide is held side by side."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tradingbot.config import Settings, check_value, make_settings, registry
from tradingbot.engine.engine import Checkpoint, Engine
from tradingbot.engine.events import ConditionName, Decision, Filled, Input, Output, SettingsChanged, Trade
from tradingbot.engine.state import SymbolMemory
from tradingbot.errors import UsageError
from tradingbot.io.jsonl import ReadReport
from tradingbot.io.streams import input_of
from tradingbot.io.tick_files import TickRecord
from tradingbot.ops.comparison import Comparison, Side, Stretch
from tradingbot.ops.differences import Trigger, sight_of_decision, sight_of_engine
from tradingbot.ops.inputs import (
    CAUGHT_UP,
    INPUTS,
    NEVER,
    OFF_WHYS,
    OUTPUTS,
    Numbered,
    Progress,
    Record,
    RecordedInputs,
    SessionInputs,
    rare_collections,
)

__all__ = ["Comparison", "compare"]

AT_ONCE = 4_096  # ticks between two looks at the time limit
NO_CHECKPOINT = "no checkpoint to begin at"
ABSENT = "not recorded, or lost: tradingbot prove says which"
CUT = "cut off: its bot was killed, or is running"


def compare(
    state_dir: Path,
    ours: Mapping[str, object] | None = None,
    theirs: Mapping[str, object] | None = None,
    last_min: float | None = None,
    progress: Progress | None = None,
    limit_s: float | None = None,
) -> Comparison:
    """Run all that is recorded under a state directory through two engines; return what they decided otherwise.

    `ours` and `theirs` are settings that are laid over those recorded. With `last_min` that is only the last so many
    minutes, from the last checkpoint before them on; after `limit_s` seconds it ends where it is, and the result says
    so. Raises UsageError where nothing can be compared, SettingsError. A bot may go on writing meanwhile. Memory
    follows the decisions and trades, not the ticks.
    """
    ends_s = None if limit_s is None else time.monotonic() + limit_s
    changes = [{name: check_value(name, value) for name, value in (side or {}).items()} for side in (ours, theirs)]
    report = ReadReport()
    with rare_collections():
        recorded = RecordedInputs(state_dir, report, last_min)
        run = _Run(_Side(changes[0]), _Side(changes[1]), ends_s)
        for session in recorded.sessions():
            walk = _Walk(run, session)
            for batch in session.ticks:
                walk.ticks(batch)
                if progress is not None:
                    progress("comparing", report.records, 0)
                if run.is_over:
                    break
            walk.end()
            if run.is_over:
                break
    recorded.forgive_torn_end()
    if not run.inputs:
        whys = ["the time limit came first"] if run.is_over else [stretch.why for stretch in run.unrecorded]
        why = "; ".join(dict.fromkeys(whys)) or "no input is recorded"
        raise UsageError(f"nothing under {state_dir} can be compared: {why}")
    return Comparison.of(
        run.ours.result(), run.theirs.result(), sessions=tuple(run.sessions), inputs=run.inputs,
        first_ms=run.first_ms, last_ms=run.last_ms, is_cut_off=run.is_over, unrecorded=tuple(run.unrecorded),
        only_counted=run.only_counted, damaged=tuple(map(str, report.places)), damaged_lines=report.damaged,
    )  # fmt: skip


class _Side:
    """Run one of the two engines, and keep what it decides."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        self.engine = Engine(make_settings({}))
        self._changes = {
            name: value for name, value in changes.items() if registry()[name].engine and not registry()[name].restart
        }
        self._idle = {name: value for name, value in changes.items() if name not in self._changes}
        self._recorded: dict[str, Any] = {}  # what the settings that are changed were at the beginning
        self._is_recorded = True  # has decided under the recorded settings alone so far
        self._triggers: list[Trigger] = []
        self._trades: list[Trade] = []
        self._fees = self._peak = self._drawdown = self._drawdown_pct = 0.0

    def begin(self, checkpoint: Record) -> None:
        """Begin at a checkpoint, whole."""
        self.engine.restore(checkpoint)
        recorded = self.engine.settings
        self._recorded = self._recorded or {name: getattr(recorded, name) for name in self._changes}
        self._is_recorded = True
        self._adopt(recorded)
        self._peak = self._equity()

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
        settings = make_settings({**msgspec.structs.asdict(recorded), **self._changes}) if self._changes else recorded
        self._is_recorded = self._is_recorded and settings == recorded
        seq = self.engine.seq
        self.engine.process(SettingsChanged(settings))
        self.engine.seq = seq

    def take(self, outputs: Iterable[Output], others: Iterable[Output], other: Engine) -> None:
        """Keep what was decided; the other side has taken in the same ticker, with these outputs."""
        for output in outputs:
            if isinstance(output, Decision):
                same = [one for one in others if isinstance(one, Decision)]
                seen = sight_of_decision(same[0]) if same else sight_of_engine(other, output.symbol, output.ts_ms)
                self._triggers.append(Trigger(output, seen))
            elif isinstance(output, Trade):
                self._trades.append(output)
            elif isinstance(output, Filled):
                self._fees += output.fee
        self.mark()

    def mark(self) -> None:
        """Value open positions at the tick just taken in."""
        equity = self._equity()
        if equity > self._peak:
            self._peak = equity
        elif equity < self._peak:
            self._drawdown = max(self._drawdown, self._peak - equity)
            self._drawdown_pct = max(self._drawdown_pct, (1 - equity / self._peak) * 100)

    def _equity(self) -> float:
        portfolio = self.engine.portfolio
        return portfolio.equity(self.engine.states, portfolio.account.cash)

    def result(self) -> Side:
        """Return all that there is to say of this side."""
        changes = {name: (self._recorded.get(name), value) for name, value in self._changes.items()}
        return Side(
            changes=changes, idle=self._idle, triggers=tuple(self._triggers), trades=tuple(self._trades),
            open_positions=len(self.engine.portfolio.positions), fees_quote=self._fees,
            final_equity_quote=self._equity(), max_drawdown_quote=self._drawdown, max_drawdown_pct=self._drawdown_pct,
        )  # fmt: skip


class _Run:
    """Hold the two sides and what is said of both."""

    def __init__(self, ours: _Side, theirs: _Side, ends_s: float | None) -> None:
        self.ours, self.theirs, self._ends_s = ours, theirs, ends_s
        self.is_running = False  # both have taken in all that there was up to here
        self.is_over = False
        self.sessions: list[str] = []
        self.unrecorded: list[Stretch] = []
        self.inputs = self.only_counted = 0
        self.first_ms: int | None = None
        self.last_ms: int | None = None

    def look(self) -> None:
        """See whether the time limit is reached."""
        self.is_over = self._ends_s is not None and time.monotonic() >= self._ends_s

    def take(self, seq: int, ours: tuple[Output, ...], theirs: tuple[Output, ...]) -> None:
        """Keep what answers a ticker, and let both engines number on from it."""
        one, other = self.ours, self.theirs
        one.engine.seq = other.engine.seq = seq  # a ticker that is only counted takes no number, and here has one
        one.take(ours, theirs, other.engine)
        other.take(theirs, ours, one.engine)


class _Walk:
    """Take one session's inputs, in order, through both engines."""

    def __init__(self, run: _Run, session: SessionInputs) -> None:
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
        run, seq, at = self._run, self._due, self._journal.at
        ours, theirs = run.ours, run.theirs
        our_tick, their_tick = ours.engine.tick, theirs.engine.tick
        our_positions, their_positions = ours.engine.portfolio.positions, theirs.engine.portfolio.positions
        for record in batch[place : place + AT_ONCE]:
            if record.seq != seq or seq >= at:
                break
            our_outputs, their_outputs = our_tick(record), their_tick(record)
            if our_outputs or their_outputs:
                run.take(seq, our_outputs, their_outputs)
            elif our_positions or their_positions:
                symbol = record.symbol
                if symbol in our_positions:
                    ours.mark()
                if symbol in their_positions:
                    theirs.mark()
            seq += 1
        done = seq - self._due
        if done:
            run.last_ms = batch[place + done - 1].ts_ms
            run.inputs += done
            self._due = seq
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
        """Run an input; what a later start made up for is blocked by that on both sides, as it was."""
        run, name = self._run, ConditionName.RESTART.value
        engines = (run.ours.engine, run.theirs.engine)
        caught_up = [one for one in engines if name not in one.conditions]
        if not any(name in answer.get("reasons", ()) for answer in answers):
            caught_up = []
        for engine in caught_up:
            engine.conditions[name] = CAUGHT_UP
        if isinstance(event, TickRecord):
            ours, theirs = (engine.tick(event) for engine in engines)
        else:
            ours, theirs = (side.process(seq, event) for side in (run.ours, run.theirs))
        for engine in caught_up:
            del engine.conditions[name]
        run.take(seq, ours, theirs)
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
        """Let both sides begin at a checkpoint, or go on where all before it was seen."""
        run, seq = self._run, checkpoint["seq"]
        self._close(seq)
        if self._carries and record["type"] == "session_start":
            is_warm = (record.get("start") or {}).get("source", "checkpoint") == "checkpoint"
            run.ours.go_on(checkpoint, is_warm)
            run.theirs.go_on(checkpoint, is_warm)
        else:
            run.ours.begin(checkpoint)
            run.theirs.begin(checkpoint)
        run.is_running, self._carries = True, False
        run.first_ms = record["ts_ms"] if run.first_ms is None else run.first_ms

    def _miss(self, last: int) -> None:
        """Note that numbers are absent up to `last`."""
        if last >= self._due:
            if not self._is_off:
                self._suspend(self._due, ABSENT)
            self._due = last + 1

    def _suspend(self, since: int, why: str) -> None:
        """Stop both engines: what they would decide behind an input that is absent says nothing."""
        if self._run.is_running:
            self._since, self._why = since, why
        elif why not in self._why and self._why != NO_CHECKPOINT:
            self._why = f"{self._why} and {why}"
        self._run.is_running, self._carries = False, False

    def _close(self, last: int) -> None:
        if last >= self._since:
            self._run.unrecorded.append(Stretch(self._sid, self._since, last, self._why))
        self._since = last + 1
