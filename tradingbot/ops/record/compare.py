"""Compare: the recorded inputs go through two engines under two settings, and what they decide is held side by side."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tradingbot.config import check_value
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Filled, Input, Output, Trade
from tradingbot.errors import UsageError
from tradingbot.io.jsonl import ReadReport
from tradingbot.io.tick_files import TickRecord
from tradingbot.ops.record.comparison import Comparison, Side
from tradingbot.ops.record.differences import Trigger, sight_of_decision, sight_of_engine
from tradingbot.ops.record.inputs import Progress, RecordedInputs, rare_collections
from tradingbot.ops.record.walk import Run, SideRun, Walk

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
            walk = Walk(run, session)
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


class _Side(SideRun):
    """Run one of the two engines, and keep what it decides."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        super().__init__(changes)
        self._triggers: list[Trigger] = []
        self._trades: list[Trade] = []
        self._fees = 0.0

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

    def result(self) -> Side:
        """Return all that there is to say of this side."""
        changes = {name: (self.recorded.get(name), value) for name, value in self.changes.items()}
        return Side(
            changes=changes, idle=self.idle, triggers=tuple(self._triggers), trades=tuple(self._trades),
            open_positions=len(self.engine.portfolio.positions), fees_quote=self._fees,
            final_equity_quote=self.equity(), max_drawdown_quote=self.drawdown, max_drawdown_pct=self.drawdown_pct,
        )  # fmt: skip


class _Run(Run):
    """Hold the two sides and what is said of both."""

    def __init__(self, ours: _Side, theirs: _Side, ends_s: float | None) -> None:
        super().__init__((ours, theirs), ends_s)
        self.ours, self.theirs = ours, theirs

    def take(self, seq: int, ours: tuple[Output, ...], theirs: tuple[Output, ...]) -> None:
        """Keep what answers a ticker, and let both engines number on from it."""
        one, other = self.ours, self.theirs
        one.engine.seq = other.engine.seq = seq  # a ticker that is only counted takes no number, and here has one
        one.take(ours, theirs, other.engine)
        other.take(theirs, ours, one.engine)

    def run_plain(self, batch: list[TickRecord], seq: int, at: int) -> int:
        """Take in ticks as long as their numbers follow `seq` one by one and stay below `at`; return how many."""
        ours, theirs, first = self.ours, self.theirs, seq
        our_tick, their_tick = ours.engine.tick, theirs.engine.tick
        our_positions, their_positions = ours.engine.portfolio.positions, theirs.engine.portfolio.positions
        for record in batch:
            if record.seq != seq or seq >= at:
                break
            our_outputs, their_outputs = our_tick(record), their_tick(record)
            if our_outputs or their_outputs:
                self.take(seq, our_outputs, their_outputs)
            elif our_positions or their_positions:
                symbol = record.symbol
                if symbol in our_positions:
                    ours.mark()
                if symbol in their_positions:
                    theirs.mark()
            seq += 1
        return seq - first

    def process(self, seq: int, event: Input) -> None:
        """Take in one recorded input under its number."""
        if isinstance(event, TickRecord):
            ours, theirs = (side.engine.tick(event) for side in self.sides)
        else:
            ours, theirs = (side.process(seq, event) for side in self.sides)
        self.take(seq, ours, theirs)
