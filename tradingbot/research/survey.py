"""A survey of what is recorded: one pass over the ticks and one over the snapshots, keeping what a study needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tradingbot.errors import UsageError
from tradingbot.io.streams import Stream
from tradingbot.market.drop_triggers import drop_pct
from tradingbot.research.frames import in_ms
from tradingbot.research.load import Recorded
from tradingbot.research.outcomes import HORIZONS_MIN, SymbolTicks, after, even_moments

__all__ = ["Approach", "Coverage", "Near", "TickSurvey", "look_at_snapshots", "look_at_ticks", "symbol_ticks"]

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
MAX_OF_SYMBOL = 12_000_000  # ticks held at a time, 32 bytes each
CHUNK_ROWS = 1 << 16
MOMENTS = 1_500  # of each symbol, to compare with
BEFORE_MS, BEHIND_MS = 10 * MINUTE_MS, 15 * MINUTE_MS  # shown around a trigger
SHOWN_POINTS = 1_500
MOST_SPANS = 2_000
DROP_EDGES = np.arange(-15.0, 5.0001, 0.05)  # %
AGE_EDGES = np.array([0, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 1 << 40], dtype=float)  # s
PRICES = {"ts_ms": "int", "last": "float", "bid": "float", "ask": "float"}
SEEN = {
    "ts_ms": "int", "symbol": "text", "last": "float", "threshold": "float", "reference": "float", "peak": "float",
    "drop_pct": "float", "anchor_set_ms": "float", "armed": "bool",
}  # fmt: skip

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Say of one symbol which ticks there are: times in ms, the median and the longest time between two in s."""

    symbol: str
    ticks: int
    first_ms: int
    last_ms: int
    median_s: float
    longest_s: float
    longest_ms: int  # when it began
    holes: int
    covered_pct: float
    spans_ms: Array  # begin and end of each stretch without a hole, the longest MOST_SPANS of them, by time


@dataclass(slots=True)
class TickSurvey:
    """Hold what one pass over the ticks found.

    `returns` and `worst` are arrays of (trigger, time ahead), `any_return` and `any_worst` the same at even moments of
    each symbol; `shown` the ticks around chosen triggers; `prices` holds times (ms) and last prices of each symbol, at
    400 even moments.
    """

    ticks: int = 0
    coverage: dict[str, Coverage] = field(default_factory=dict)
    returns: Array = field(default_factory=lambda: np.empty((0, len(HORIZONS_MIN))))
    worst: Array = field(default_factory=lambda: np.empty((0, len(HORIZONS_MIN))))
    any_return: dict[str, Array] = field(default_factory=dict)
    any_worst: dict[str, Array] = field(default_factory=dict)
    shown: dict[int, dict[str, Array]] = field(default_factory=dict)
    prices: dict[str, Array] = field(default_factory=dict)


def symbol_ticks(recorded: Recorded) -> Iterator[SymbolTicks]:
    """Yield the ticks of symbol after symbol; raise UsageError where one has more than can be held."""
    for symbol in recorded.symbols:
        parts: dict[str, list[Array]] = {name: [] for name in PRICES}
        rows = 0
        for batch in recorded.of(symbol).columns(Stream.TICKS, PRICES, f"ticks of {symbol}"):
            rows += len(batch["ts_ms"])
            if rows > MAX_OF_SYMBOL:
                raise UsageError(f"{symbol} has more than {MAX_OF_SYMBOL:,} ticks there: name since and until")
            for name, values in batch.items():
                parts[name].append(values)
        if rows:
            whole = [np.concatenate(parts.pop(name)) for name in PRICES]
            yield SymbolTicks.of(symbol, *whole)


def look_at_ticks(recorded: Recorded, shown: list[int]) -> TickSurvey:
    """Go through the ticks once; `shown` names rows of the decisions whose surroundings are wanted."""
    decisions, found = recorded.decisions, TickSurvey()
    at_ms = in_ms(decisions)
    symbols = decisions["symbol"].to_numpy()
    ask, last = decisions["ask"].to_numpy(), decisions["last"].to_numpy()
    paid = np.where(np.isnan(ask), last, ask)
    found.returns = np.full((len(decisions), len(HORIZONS_MIN)), np.nan)
    found.worst = found.returns.copy()
    for ticks in symbol_ticks(recorded):
        symbol = ticks.symbol
        found.ticks += len(ticks.ts_ms)
        found.coverage[symbol] = _coverage(ticks)
        own = np.flatnonzero(symbols == symbol)
        moments = even_moments(ticks, MOMENTS)
        paid_any = ticks.ask[ticks.at(moments)] if len(moments) else np.array([])
        anywhere = [after(ticks, moments, paid_any, ahead * MINUTE_MS) for ahead in HORIZONS_MIN]
        found.any_return[symbol] = np.column_stack([one[0] for one in anywhere])
        found.any_worst[symbol] = np.column_stack([one[1] for one in anywhere])
        for column, ahead in enumerate(HORIZONS_MIN):
            found.returns[own, column], found.worst[own, column] = after(
                ticks, at_ms[own], paid[own], ahead * MINUTE_MS
            )
        for row in shown:
            if symbols[row] == symbol:
                found.shown[row] = _around(ticks, int(at_ms[row]))
        found.prices[symbol] = _thinned(ticks)
    return found


def _thinned(ticks: SymbolTicks) -> Array:
    """Return times and last prices at 400 even moments: enough to value holding and averaging in."""
    moments = np.linspace(ticks.ts_ms[0], ticks.ts_ms[-1], 400, dtype=np.int64)
    return np.column_stack([moments, ticks.last[ticks.at(moments)]])


def _coverage(ticks: SymbolTicks) -> Coverage:
    steps = np.diff(ticks.ts_ms)
    breaks = np.flatnonzero(steps > ticks.tolerance_ms)
    spans = np.column_stack(
        [ticks.ts_ms[np.append(0, breaks + 1)], ticks.ts_ms[np.append(breaks, len(ticks.ts_ms) - 1)]]
    )
    if len(spans) > MOST_SPANS:
        spans = spans[np.sort(np.argsort(spans[:, 0] - spans[:, 1], kind="stable")[:MOST_SPANS])]
    longest = int(steps.argmax()) if len(steps) else 0
    span = float(ticks.ts_ms[-1] - ticks.ts_ms[0])
    return Coverage(
        symbol=ticks.symbol, ticks=len(ticks.ts_ms), first_ms=int(ticks.ts_ms[0]), last_ms=int(ticks.ts_ms[-1]),
        median_s=float(np.median(steps)) / 1000 if len(steps) else 0.0,
        longest_s=float(steps[longest]) / 1000 if len(steps) else 0.0, longest_ms=int(ticks.ts_ms[longest]),
        holes=int(ticks.hole[-1]), covered_pct=ticks.covered_ms() / span * 100 if span else 0.0,
        spans_ms=spans,
    )  # fmt: skip


def _around(ticks: SymbolTicks, at_ms: int) -> dict[str, Array]:
    first, end = np.searchsorted(ticks.ts_ms, [at_ms - BEFORE_MS, at_ms + BEHIND_MS])
    places = np.arange(first, end)
    if len(places) > SHOWN_POINTS:
        places = np.unique(np.linspace(first, end - 1, SHOWN_POINTS, dtype=np.int64))
    columns = {"ts_ms": ticks.ts_ms, "last": ticks.last, "bid": ticks.bid, "ask": ticks.ask}
    return {name: values[places].copy() for name, values in columns.items()}


@dataclass(slots=True)
class Approach:
    """Hold a symbol's hour (ms): its closest approach to the threshold while armed, and its deepest drop at all.

    `to_trigger_pct` is how far the price must still have moved (negative: above the threshold; -inf: never armed),
    `drop_pct` and `deepest_pct` how far prices stood from the reference.
    """

    hour_ms: int
    symbol: str
    ts_ms: int = 0
    last: float = 0.0
    threshold: float = 0.0
    to_trigger_pct: float = -np.inf
    drop_pct: float = 0.0
    deepest_pct: float = np.inf


@dataclass(slots=True)
class Near:
    """Hold what one pass over the snapshots found: by hour and symbol, how deep prices stood, how old anchors were."""

    rows: int = 0
    hours: dict[tuple[int, str], Approach] = field(default_factory=dict)
    drops: Array = field(default_factory=lambda: np.zeros(len(DROP_EDGES) - 1))
    ages: Array = field(default_factory=lambda: np.zeros(len(AGE_EDGES) - 1))
    shown: dict[int, dict[str, Array]] = field(default_factory=dict)


def look_at_snapshots(recorded: Recorded, shown: list[int]) -> Near:
    """Go through the snapshots once; `shown` names rows of the decisions whose surroundings are wanted."""
    near = Near()
    decisions = recorded.decisions
    at_ms = in_ms(decisions)
    wanted = {row: (str(decisions["symbol"].iloc[row]), int(at_ms[row])) for row in shown}
    kept: dict[int, list[dict[str, Array]]] = {row: [] for row in shown}
    for chunk in _chunks(recorded):
        near.rows += len(chunk["ts_ms"])
        _take_hours(near, chunk)
        near.drops += np.histogram(np.clip(chunk["drop_pct"], -15, 4.999), DROP_EDGES)[0]
        ages = (chunk["ts_ms"] - chunk["anchor_set_ms"]) / 1000
        near.ages += np.histogram(np.maximum(ages[np.isfinite(ages)], 0), AGE_EDGES)[0]
        for row, (symbol, moment) in wanted.items():
            if chunk["ts_ms"][-1] < moment - BEFORE_MS or chunk["ts_ms"][0] > moment + BEHIND_MS:
                continue
            inside = (chunk["ts_ms"] >= moment - BEFORE_MS) & (chunk["ts_ms"] < moment + BEHIND_MS)
            inside &= chunk["symbol"] == symbol
            kept[row].append({name: chunk[name][inside] for name in ("ts_ms", "threshold", "reference", "peak")})
    for row, parts in kept.items():
        if parts:
            near.shown[row] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return near


def _chunks(recorded: Recorded) -> Iterator[dict[str, Array]]:
    """Yield snapshots in larger pieces: what numpy does for each costs less."""
    held: list[dict[str, Array]] = []
    rows = 0
    for batch in recorded.columns(Stream.SNAPSHOTS, SEEN):
        held.append(batch)
        rows += len(batch["ts_ms"])
        if rows >= CHUNK_ROWS:
            yield {name: np.concatenate([part[name] for part in held]) for name in SEEN}
            held, rows = [], 0
    if held:
        yield {name: np.concatenate([part[name] for part in held]) for name in SEEN}


def _take_hours(near: Near, chunk: dict[str, Array]) -> None:
    known: dict[str, int] = {}
    codes = np.array([known.setdefault(name, len(known)) for name in chunk["symbol"]], dtype=np.int64)
    names = list(known)
    hours = chunk["ts_ms"] // HOUR_MS
    key = (hours - hours.min()) * len(names) + codes
    armed = chunk["armed"]
    distance = np.where(armed, (chunk["threshold"] / chunk["last"] - 1) * 100, -np.inf)  # as drop_pct
    order = np.lexsort((distance, key))
    ends = np.flatnonzero(np.append(np.diff(key[order]) != 0, True))
    starts = np.concatenate([[0], ends[:-1] + 1])
    deepest = np.minimum.reduceat(chunk["drop_pct"][order], starts)
    for end, deep in zip(order[ends], deepest, strict=True):
        symbol, hour_ms = names[codes[end]], int(hours[end]) * HOUR_MS
        best = near.hours.setdefault((hour_ms, symbol), Approach(hour_ms, symbol))
        best.deepest_pct = min(best.deepest_pct, float(deep))
        if distance[end] > best.to_trigger_pct:
            best.ts_ms, best.last = int(chunk["ts_ms"][end]), float(chunk["last"][end])
            best.threshold, best.drop_pct = float(chunk["threshold"][end]), float(chunk["drop_pct"][end])
            best.to_trigger_pct = drop_pct(best.threshold, best.last)
