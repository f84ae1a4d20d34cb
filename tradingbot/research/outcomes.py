"""What prices did after a moment: returns over fixed times ahead, the worst on the way, and whether luck does as well.

A return is what a buyer at `ask` has who sells at `bid` (the last price where the book is absent), in %, before fees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["HORIZONS_MIN", "Luck", "SymbolTicks", "after", "even_moments", "luck"]

HORIZONS_MIN = (1, 5, 15, 60)
MINUTE_MS = 60_000
LEAST_HOLE_MS = 60_000
DRAWS = 4_000
FEW = 8  # episodes: fewer say nothing
LEVEL = 0.05 / len(HORIZONS_MIN)  # four times ahead are looked at: Bonferroni's correction

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class SymbolTicks:
    """Hold one symbol's accepted ticks by time (ms): last price, what a buyer pays and a seller gets (quote).

    `tolerance_ms` is the longest time between two ticks that is no hole: four times the median, at least a minute.
    """

    symbol: str
    ts_ms: Array
    last: Array
    bid: Array
    ask: Array
    tolerance_ms: float
    hole: Array  # how many holes lie before each tick

    @classmethod
    def of(cls, symbol: str, ts_ms: Array, last: Array, bid: Array, ask: Array) -> SymbolTicks:
        """Make it of columns of equal length; absent prices are NaN."""
        last = np.where(np.isnan(last), (bid + ask) / 2, last)
        if len(ts_ms) and (np.diff(ts_ms) < 0).any():
            order = np.argsort(ts_ms, kind="stable")
            ts_ms, last, bid, ask = ts_ms[order], last[order], bid[order], ask[order]
        steps = np.diff(ts_ms)
        tolerance_ms = max(LEAST_HOLE_MS, 4 * float(np.median(steps)) if len(steps) else 0.0)
        hole = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(steps > tolerance_ms)])[: len(ts_ms)]
        bid, ask = np.where(np.isnan(bid), last, bid), np.where(np.isnan(ask), last, ask)
        return cls(symbol, ts_ms, last, bid, ask, tolerance_ms, hole)

    def at(self, moments_ms: Array) -> Array:
        """Return the place of the last tick at or before each moment, -1 where there is none."""
        return np.searchsorted(self.ts_ms, moments_ms, side="right") - 1

    def covered_ms(self) -> float:
        """Return for how long there were ticks, holes left out."""
        steps = np.diff(self.ts_ms)
        return float(steps[steps <= self.tolerance_ms].sum())


def after(ticks: SymbolTicks, moments_ms: Array, paid: Array, ahead_ms: int) -> tuple[Array, Array]:
    """Return for each moment the return after `ahead_ms` and the worst on the way, both in %, at the bid.

    `paid` is the price (quote) at each moment. Both are NaN where the time ahead is not recorded without a hole.
    """
    count = len(ticks.ts_ms)
    if not count:
        return np.full(len(moments_ms), np.nan), np.full(len(moments_ms), np.nan)
    begin, end = ticks.at(moments_ms), ticks.at(moments_ms + ahead_ms)
    known = begin >= 0
    begin, end = np.maximum(begin, 0), np.maximum(end, 0)
    known &= moments_ms - ticks.ts_ms[begin] <= ticks.tolerance_ms
    known &= moments_ms + ahead_ms - ticks.ts_ms[end] <= ticks.tolerance_ms
    known &= (ticks.hole[begin] == ticks.hole[end]) & (moments_ms + ahead_ms <= ticks.ts_ms[-1])
    final = ticks.bid[end] / paid - 1
    first = np.minimum(begin + 1, end)  # the worst of the ticks behind the moment, of the one itself if there is none
    worst = np.full(len(moments_ms), np.nan)
    if len(moments_ms):
        pairs = np.column_stack([first, end + 1]).ravel()
        worst = np.minimum.reduceat(np.append(ticks.bid, np.inf), pairs)[::2] / paid - 1
    return np.where(known, final, np.nan) * 100, np.where(known, worst, np.nan) * 100


def even_moments(ticks: SymbolTicks, count: int) -> Array:
    """Return moments at even distances of time at which there was a tick a short while ago: any moment, to compare."""
    if len(ticks.ts_ms) < 2:
        return np.array([], dtype=np.int64)
    moments = np.linspace(ticks.ts_ms[0], ticks.ts_ms[-1], count, dtype=np.int64)
    return moments[moments - ticks.ts_ms[ticks.at(moments)] <= ticks.tolerance_ms]


@dataclass(frozen=True, slots=True)
class Luck:
    """Say how likely luck does as well.

    `episodes` are triggers that do not overlap in time, of all symbols together; `excess_pct` how much more they
    returned on average than any moment of the same symbols; `p` how often these differences, each with a sign thrown by
    a coin, lie as far from 0 on average (a sign-flip test: it knows that prices move more around triggers than at other
    times), None where there are too few episodes.
    """

    episodes: int
    excess_pct: float
    p: float | None

    @property
    def says(self) -> str:
        """Return it in words."""
        if self.p is None:
            return f"too few to say ({self.episodes} apart)"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if self.p > LEVEL:
            return f"no different ({p}, {self.episodes} apart)"
        return f"{'better' if self.excess_pct > 0 else 'worse'} ({p}, {self.episodes} apart)"


def luck(symbols: list[str], moments_ms: Array, returns: Array, any_moment: dict[str, Array], ahead_ms: int) -> Luck:
    """Hold the returns of triggers against those of any moment of the same symbols.

    `any_moment` holds returns of each symbol. Triggers less than `ahead_ms` after one that counts, of any symbol, share
    its future and do not count again. The signs are those of a generator with a fixed seed.
    """
    pools = {symbol: values[np.isfinite(values)] for symbol, values in any_moment.items()}
    counted: list[int] = []
    for place in np.argsort(moments_ms, kind="stable"):
        usable = np.isfinite(returns[place]) and len(pools.get(symbols[place], ())) > 0
        if usable and (not counted or moments_ms[place] - moments_ms[counted[-1]] >= ahead_ms):
            counted.append(int(place))
    if not counted:
        return Luck(0, float("nan"), None)
    means = {symbol: pool.mean() for symbol, pool in pools.items() if len(pool)}
    differences = np.array([returns[place] - means[symbols[place]] for place in counted])
    excess = float(differences.mean())
    if len(counted) < FEW:
        return Luck(len(counted), excess, None)
    rng = np.random.default_rng(7)
    flipped = np.array([(differences * rng.choice((-1.0, 1.0), len(counted))).mean() for _ in range(DRAWS)])
    beyond = int((np.abs(flipped) >= abs(excess) * (1 - 1e-9)).sum())
    return Luck(len(counted), excess, (beyond + 1) / (DRAWS + 1))
