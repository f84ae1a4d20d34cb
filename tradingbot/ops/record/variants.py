"""Variants: the recorded inputs go through as many engines as there are settings to try, in one pass."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradingbot.config import check_value
from tradingbot.engine.events import Decision, Filled, Input, Output, Trade
from tradingbot.errors import UsageError
from tradingbot.io.jsonl import ReadReport
from tradingbot.io.tick_files import TickRecord
from tradingbot.ops.record.comparison import Stretch
from tradingbot.ops.record.inputs import RecordedInputs, newest_input_ms, rare_collections
from tradingbot.ops.record.walk import Run, SideRun, Walk

__all__ = ["Variant", "Variants", "run_variants"]

FAR_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Variant:
    """Hold what one set of settings decided; quote is the unit of money, `changes` what was laid over the recorded."""

    name: str
    changes: Mapping[str, Any]
    decisions: tuple[Decision, ...]
    trades: tuple[Trade, ...]
    open_positions: int
    fees_quote: float
    equity_quote: float
    start_quote: float
    max_drawdown_quote: float


@dataclass(frozen=True, slots=True)
class Variants:
    """Hold several variants over the same inputs: from `first_ms` to `last_ms`, the last input's time.

    With `is_cut_off` a time limit ended it there. `unrecorded` are stretches that no variant has seen.
    """

    variants: tuple[Variant, ...]
    inputs: int
    first_ms: int | None
    last_ms: int | None
    is_cut_off: bool
    unrecorded: tuple[Stretch, ...]


def run_variants(
    state_dir: Path,
    variants: Mapping[str, Mapping[str, object]],
    since_ms: int | None = None,
    until_ms: int | None = None,
    limit_s: float | None = None,
) -> Variants:
    """Run what is recorded under a state directory through an engine for each variant; return what each decided.

    `variants` names settings that are laid over those recorded; {} are the recorded ones. Engines begin at the last
    checkpoint before `since_ms`; only decisions from it on count, and trades that were entered from it on. After
    `limit_s` seconds it ends where it is, and the result says so. Memory follows decisions and trades, not the ticks.
    Raises UsageError where nothing can be run, SettingsError.
    """
    ends_s = None if limit_s is None else time.monotonic() + limit_s
    checked = {
        name: {key: check_value(key, value) for key, value in changes.items()} for name, changes in variants.items()
    }
    sides = [_Side(name, changes, since_ms) for name, changes in checked.items()]
    run = _Run(sides, ends_s, until_ms)
    report = ReadReport()
    with rare_collections():
        for session in RecordedInputs(state_dir, report, _minutes(state_dir, since_ms)).sessions():
            walk = Walk(run, session)
            for batch in session.ticks:
                walk.ticks(batch)
                if run.is_over:
                    break
            walk.end()
            if run.is_over:
                break
    if not run.inputs:
        why = "; ".join(dict.fromkeys(stretch.why for stretch in run.unrecorded)) or "no input is recorded"
        raise UsageError(
            f"nothing under {state_dir} can be run again: {'the time limit came first' if run.is_over else why}"
        )
    first_ms = run.first_ms if since_ms is None or run.first_ms is None else max(run.first_ms, since_ms)
    return Variants(
        tuple(side.result() for side in sides), run.inputs, first_ms, run.last_ms, run.is_over and not run.is_through,
        tuple(run.unrecorded),
    )  # fmt: skip


def _minutes(state_dir: Path, since_ms: int | None) -> float | None:
    """Return how many minutes before the newest record a time is, as reading counts them."""
    return None if since_ms is None else max((newest_input_ms(state_dir) - since_ms) / 60_000, 0.0)


class _Side(SideRun):
    """Run one variant, and keep what it decides."""

    def __init__(self, name: str, changes: Mapping[str, Any], since_ms: int | None) -> None:
        super().__init__(changes)
        self._name, self._given, self._since_ms = name, changes, -FAR_MS if since_ms is None else since_ms
        self._decisions: list[Decision] = []
        self._trades: list[Trade] = []
        self._fees = 0.0
        self._start: float | None = None

    def take(self, outputs: Iterable[Output]) -> None:
        """Keep what was decided."""
        for output in outputs:
            if isinstance(output, Decision) and output.ts_ms >= self._since_ms:
                self._decisions.append(output)
            elif isinstance(output, Trade) and output.entry_ms >= self._since_ms:
                self._trades.append(output)
            elif isinstance(output, Filled) and output.ts_ms >= self._since_ms:
                self._fees += output.fee
        self.mark()

    def run(self, ticks: Sequence[TickRecord]) -> None:
        """Take in ticks."""
        tick, positions = self.engine.tick, self.engine.portfolio.positions
        if self._start is None and ticks and ticks[0].ts_ms >= self._since_ms:
            self._start = self.equity()
        for record in ticks:
            outputs = tick(record)
            if outputs:
                self.take(outputs)
            elif positions and record.symbol in positions:
                self.mark()

    def result(self) -> Variant:
        """Return what it decided."""
        equity = self.equity()
        return Variant(
            name=self._name, changes=self._given, decisions=tuple(self._decisions), trades=tuple(self._trades),
            open_positions=len(self.engine.portfolio.positions), fees_quote=self._fees, equity_quote=equity,
            start_quote=equity if self._start is None else self._start, max_drawdown_quote=self.drawdown,
        )  # fmt: skip


class _Run(Run):
    """Hold the variants and how far they have come."""

    def __init__(self, sides: Sequence[_Side], ends_s: float | None, until_ms: int | None) -> None:
        super().__init__(sides, ends_s)
        self._own, self._until_ms = sides, FAR_MS if until_ms is None else until_ms
        self.is_through = False  # all that was asked for has been taken in

    def look(self) -> None:
        """See whether the time limit, or the end of what is asked for, is reached."""
        self.is_through = self.last_ms is not None and self.last_ms >= self._until_ms
        super().look()
        self.is_over = self.is_over or self.is_through

    def run_plain(self, batch: list[TickRecord], seq: int, at: int) -> int:
        """Take in ticks as long as their numbers follow `seq` one by one and stay below `at`; return how many."""
        count = 0
        for record in batch:
            if record.seq != seq + count or record.seq >= at or record.ts_ms >= self._until_ms:
                break
            count += 1
        part = batch[:count]
        for side in self._own:
            side.run(part)
            side.engine.seq = seq + count - 1  # a ticker that is only counted takes no number, and here has one
        return count

    def process(self, seq: int, event: Input) -> None:
        """Take in one recorded input under its number."""
        for side in self._own:
            if isinstance(event, TickRecord):
                side.run([event])
                side.engine.seq = seq
            else:
                side.take(side.process(seq, event))
