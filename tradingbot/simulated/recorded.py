"""A recorded market: every row of a recording is one update of its symbol, in the order of the recording."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from tradingbot.simulated.market import DAY_MS, Candle, Quote, Statistics, Terms

__all__ = ["RecordedMarket", "Row"]

Row = tuple[str, int, float, float, float, float, float, float]
"""Symbol, time in ms, last, bid, ask, bid size, ask size, quote volume of 24 h; NaN is absent, but for `last`."""

STEP = Decimal("0.00000001")
SERVED = re.compile(r"[A-Z0-9]+/[A-Z0-9]+")
BLOCK = 512  # rows whose highest and lowest price are known beforehand
BID, ASK, BID_SIZE, ASK_SIZE, VOLUME = range(5)


class _Tape:
    """Hold the rows of one symbol: times (n, ms), last prices (n), and (n, 5) bid, ask, their sizes and the volume."""

    __slots__ = ("book", "highs", "last", "lows", "terms", "ts")

    def __init__(self, symbol: str, ts: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        if np.any(np.diff(ts) < 0):
            raise ValueError(f"the rows of {symbol} are not in order of time")
        base, quote = symbol.split("/")
        self.terms = Terms(base, quote, STEP, STEP)
        self.ts = ts
        self.last = np.ascontiguousarray(values[:, 0])
        self.book = values[:, 1:].copy()
        for price, size in ((BID, BID_SIZE), (ASK, ASK_SIZE)):
            sizes = self.book[:, size]
            sizes[~(np.isfinite(sizes) & (sizes >= 0))] = 1.0
            sizes[np.isnan(self.book[:, price])] = 0.0
            self.book[:, price] = np.where(sizes == 0, self.last, self.book[:, price])
        self.book[~np.isfinite(self.book[:, VOLUME]), VOLUME] = np.nan
        starts = np.arange(0, len(ts), BLOCK)
        self.highs, self.lows = np.maximum.reduceat(self.last, starts), np.minimum.reduceat(self.last, starts)

    def number(self, ms: int) -> int:
        """Return the number of the last row at or before `ms`, -1 before the first."""
        return int(self.ts.searchsorted(ms, "right")) - 1

    def extremes(self, first: int, last: int) -> tuple[float, float]:
        """Return the highest and the lowest price of the rows `first` to `last`, both included."""
        head, tail = -(-first // BLOCK), (last + 1) // BLOCK
        if head >= tail:
            part = self.last[first : last + 1]
            return float(part.max()), float(part.min())
        ends = (self.last[first : head * BLOCK], self.last[tail * BLOCK : last + 1])
        highs, lows = np.concatenate((*ends, self.highs[head:tail])), np.concatenate((*ends, self.lows[head:tail]))
        return float(highs.max()), float(lows.min())


class RecordedMarket:
    """Give the updates of a recording: number n of a symbol is its n-th row, and its n-th ticker event as well.

    Rows come in order of time and are held in memory, 56 bytes each. A side without a price, or of size 0, is empty: it
    has the size 0 and, for orders that meet it, the price of the last trade. A price without a size has the size 1.
    Before its first row a symbol is as that row has it, but nothing has happened yet. Symbols that are no plain
    BASE/QUOTE of upper case letters and digits, or whose name on the wire another one has, are `left_out`.
    `first_ms` and `last_ms` are the span of the rows, 0 without any. Raises ValueError for rows in no order of time.
    """

    max_behind: int | None = None  # nothing of a recording is left out, however fast it is played

    def __init__(self, rows: Iterable[Row]) -> None:
        columns: dict[str, tuple[array[int], array[float]]] = {}
        names: dict[str, str] = {}
        left_out: dict[str, None] = {}
        for symbol, ts_ms, *values in rows:
            column = columns.get(symbol)
            if column is None:
                if symbol in left_out:
                    continue
                if SERVED.fullmatch(symbol) is None or names.setdefault(symbol.replace("/", ""), symbol) != symbol:
                    left_out[symbol] = None
                    continue
                column = columns[symbol] = array("q"), array("d")
            column[0].append(ts_ms)
            column[1].extend(values)
        self.left_out = list(left_out)
        self._tapes: dict[str, _Tape] = {}
        for symbol in list(columns):
            times, flat = columns.pop(symbol)  # so that never all rows are held twice
            self._tapes[symbol] = _Tape(symbol, np.array(times, np.int64), np.array(flat).reshape(-1, 6))
        self.first_ms = min((int(tape.ts[0]) for tape in self._tapes.values()), default=0)
        self.last_ms = max((int(tape.ts[-1]) for tape in self._tapes.values()), default=0)

    @property
    def symbols(self) -> list[str]:
        """Return the symbols in the order of their first rows."""
        return list(self._tapes)

    def terms(self, symbol: str) -> Terms:
        """Return the terms of trade: a recording says nothing of steps, so that they are as fine as amounts are."""
        return self._tapes[symbol].terms

    def number(self, symbol: str, ms: int) -> int:
        """Return the number of the last row at or before `ms`, -1 before the first."""
        return self._tapes[symbol].number(ms)

    def next_ms(self, symbol: str, after_ms: int) -> int | None:
        """Return the time of the first row after `after_ms`, None behind the last."""
        tape = self._tapes[symbol]
        following = tape.number(after_ms) + 1
        return int(tape.ts[following]) if following < len(tape.ts) else None

    def update(self, symbol: str, number: int) -> Quote:
        """Return row `number`; the first one for every number before it."""
        tape, number = self._tapes[symbol], max(number, 0)
        bid, ask, bid_size, ask_size, volume = tape.book[number].tolist()
        return Quote(tape.ts.item(number), symbol, bid, ask, tape.last.item(number), bid_size, ask_size, volume)

    def statistics(self, symbol: str, ms: int) -> Statistics:
        """Return the statistics of the 24 hours before `ms`."""
        return self._day(symbol, self.number(symbol, ms), ms)

    def ticker_number(self, symbol: str, ms: int) -> int:
        """Return the number of the last ticker event at or before `ms`: every row is one."""
        return self.number(symbol, ms)

    def ticker(self, symbol: str, number: int) -> Statistics:
        """Return the statistics as of row `number`, which later rows of the same time do not touch."""
        return self._day(symbol, number, self._tapes[symbol].ts.item(number))

    def _day(self, symbol: str, number: int, ms: int) -> Statistics:
        tape = self._tapes[symbol]
        before = tape.number(ms - DAY_MS)
        first, last = max(before, 0), max(number, 0)
        high, low = tape.extremes(first, last)
        opened = tape.last.item(first)
        return Statistics(ms - DAY_MS, ms, opened, high, low, self.update(symbol, last), before + 1, number)

    def candle(self, symbol: str, open_ms: int, bar_ms: int) -> Candle:
        """Return the candle that opens at `open_ms`; its volume is the bar's share of the last row's 24 hours.

        Where no row is in the bar the price stays what it was, and nothing was traded.
        """
        tape = self._tapes[symbol]
        first, last = tape.number(open_ms - 1) + 1, tape.number(open_ms + bar_ms - 1)
        if last < first:
            price = tape.last.item(max(last, 0))
            return Candle(open_ms, price, price, price, price, 0.0, 0.0, 0)
        (high, low), opened, closed = tape.extremes(first, last), tape.last.item(first), tape.last.item(last)
        volume = tape.book.item(last, VOLUME) * bar_ms / DAY_MS
        volume = volume if math.isfinite(volume) else 0.0
        average = (opened + high + low + closed) / 4
        return Candle(open_ms, opened, high, low, closed, volume / average, volume, last - first + 1)
