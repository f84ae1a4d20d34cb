"""What a live view shows of the past: a symbol's prices and thresholds, and the latest decisions; in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tradingbot.io.segments import series_of
from tradingbot.io.streams import JOURNAL, Stream
from tradingbot.ops.record.history import History

__all__ = ["DecisionPast", "Levels", "Price", "PricePast"]

MINUTE_MS = 60_000
MOST = 6_000  # prices of a symbol that are kept, and levels
FIRST_SNAPSHOTS, NEXT_SNAPSHOTS = 30_000, 4_000  # of all symbols, that are read to find those of one
JOURNAL_RECORDS = 3_000  # that are read to find the latest decisions
DECISIONS = 60  # that are kept


@dataclass(frozen=True, slots=True)
class Price:
    """Hold a price (quote) and its time (ms, the exchange's)."""

    ts_ms: int
    last: float


@dataclass(frozen=True, slots=True)
class Levels:
    """Hold what a symbol's price was measured against at a time (ms); `peak` is None where it is not recorded."""

    ts_ms: int
    reference: float
    threshold: float
    peak: float | None
    anchor: float | None


class PricePast:
    """Follow a symbol's prices and levels over the last `span_min` minutes of the exchange's time.

    They come from the recorded ticks and snapshots: those of before at first, then what is new. Where the streams are
    off the statuses tell, one point a status.
    """

    def __init__(self, state_dir: Path, symbol: str, span_min: float = 15.0) -> None:
        self.symbol, self._span_ms = symbol, int(span_min * MINUTE_MS)
        self._history = History(state_dir)
        self._tick: tuple[str, int] | None = None  # session and number of the last one that was read
        self._snapshot: tuple[str, int, str] | None = None
        self.prices: deque[Price] = deque(maxlen=MOST)
        self.levels: deque[Levels] = deque(maxlen=MOST)

    def follow(self, status: Mapping[str, Any]) -> bool:
        """Take in what is new, told and recorded; return whether there was anything."""
        fresh = self._ticks() + self._snapshots()
        if not _is_recorded(status):
            fresh += self._told(status)
        if fresh and self.prices:
            edge_ms = self.prices[-1].ts_ms - self._span_ms
            for points in (self.prices, self.levels):
                while points and points[0].ts_ms < edge_ms:
                    points.popleft()
        return fresh > 0

    def _ticks(self) -> int:
        found: list[dict[str, Any]] = []
        for each in islice(self._history.newest(Stream.TICKS, series_of(self.symbol)), MOST):
            record = each.record
            if (record["sid"], record["seq"]) == self._tick:
                break
            if found and record["ts_ms"] < found[0]["ts_ms"] - self._span_ms:
                break
            found.append(record)
        if found:
            self._tick = (found[0]["sid"], found[0]["seq"])
        return _append(self.prices, [Price(r["ts_ms"], p) for r in reversed(found) if (p := _price(r)) is not None])

    def _snapshots(self) -> int:
        most = FIRST_SNAPSHOTS if self._snapshot is None else NEXT_SNAPSHOTS
        found: list[Levels] = []
        newest: tuple[str, int, str] | None = None
        newest_ms = 0
        for each in islice(self._history.newest(Stream.SNAPSHOTS), most):
            r = each.record
            key = (r["sid"], r["cause"], r["symbol"])
            if newest is None:
                newest, newest_ms = key, r["ts_ms"]
            if key == self._snapshot or r["ts_ms"] < newest_ms - self._span_ms:
                break
            if r["symbol"] == self.symbol:
                anchor = r["anchor"] if r["reference_source"] == "anchor" else None  # one that rests sets nothing
                found.append(Levels(r["ts_ms"], r["reference"], r["threshold"], r["peak"], anchor))
        self._snapshot = newest or self._snapshot
        return _append(self.levels, found[::-1])

    def _told(self, status: Mapping[str, Any]) -> int:
        row = next((row for row in status["symbols"] if row["symbol"] == self.symbol), None)
        if row is None or row["last"] is None or row["age_s"] is None:
            return 0
        ts_ms = int(status["time_ms"] - row["age_s"] * 1000 * status["bot"].get("speed", 1))
        anchor = row["reference"] if row["reference_source"] == "anchor" else None
        levels = Levels(ts_ms, row["reference"], row["threshold"], None, anchor)
        return _append(self.prices, [Price(ts_ms, row["last"])]) + _append(self.levels, [levels])


class DecisionPast:
    """Follow the latest decisions of all symbols: those in the journal at first, then what statuses tell."""

    def __init__(self, state_dir: Path) -> None:
        self._history, self._is_read = History(state_dir), False
        self._found: dict[str, dict[str, Any]] = {}

    def follow(self, status: Mapping[str, Any]) -> bool:
        """Take in what is new; return whether there was anything."""
        new: Iterable[dict[str, Any]] = status["decisions"]
        if not self._is_read:
            self._is_read = True
            records = (each.record for each in islice(self._history.newest(JOURNAL), JOURNAL_RECORDS))
            past = list(islice((record for record in records if record.get("type") == "decision"), DECISIONS))
            new = [*reversed(past), *new]
        before = next(reversed(self._found), None)
        for decision in new:
            self._found.setdefault(decision["decision_id"], decision)
        while len(self._found) > DECISIONS:
            del self._found[next(iter(self._found))]
        return next(reversed(self._found), None) != before

    def latest(self) -> list[dict[str, Any]]:
        """Return the decisions, the newest first."""
        return list(reversed(self._found.values()))


def _price(record: Mapping[str, Any]) -> float | None:
    """Return what the engine takes a tick's price to be: last, or the middle of the book."""
    last, bid, ask = record.get("last"), record.get("bid"), record.get("ask")
    if isinstance(last, int | float):
        return float(last)
    return (bid + ask) / 2 if isinstance(bid, int | float) and isinstance(ask, int | float) else None


def _append(points: deque[Any], new: Iterable[Any]) -> int:
    """Append what is later than the last point; return how many there were."""
    count = 0
    for point in new:
        if not points or point.ts_ms > points[-1].ts_ms:
            points.append(point)
            count += 1
    return count


def _is_recorded(status: Mapping[str, Any]) -> bool:
    return bool(status["streams"].get("ticks", {}).get("state") == "ok")
