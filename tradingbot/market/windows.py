"""Rolling windows: the peak and trough of the last WINDOW_LOOKBACK_S, amortised O(1) a tick."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

__all__ = ["Point", "RollingWindow", "RollingWindowManager"]

Point = tuple[int, float]  # ts_ms, price


class RollingWindow:
    """Hold the accepted ticks of one symbol in (t - lookback, t], as far as they can still be peak or trough.

    `highs` falls and `lows` rises from left to right (monotonic deques; Lemire, "Streaming maximum-minimum filter using
    no more than three comparisons per element", 2006): the left end is the peak or trough, with its time. A tick that
    has left the window never comes back, also where the lookback grows later.
    """

    __slots__ = ("highs", "lows")

    def __init__(self, highs: Iterable[Point] = (), lows: Iterable[Point] = ()) -> None:
        self.highs: deque[Point] = deque((ts_ms, price) for ts_ms, price in highs)
        self.lows: deque[Point] = deque((ts_ms, price) for ts_ms, price in lows)

    def push(self, ts_ms: int, price: float, lookback_ms: float) -> float:
        """Take in one tick, drop those at or before `ts_ms - lookback_ms`, return the peak."""
        point = (ts_ms, price)
        cut = ts_ms - lookback_ms
        highs, lows = self.highs, self.lows
        while highs and highs[-1][1] <= price:
            highs.pop()
        while highs and highs[0][0] <= cut:
            highs.popleft()
        highs.append(point)
        while lows and lows[-1][1] >= price:
            lows.pop()
        while lows and lows[0][0] <= cut:
            lows.popleft()
        lows.append(point)
        return highs[0][1]

    def clear(self) -> None:
        """Forget every tick."""
        self.highs.clear()
        self.lows.clear()

    @property
    def peak(self) -> float | None:
        """Return the highest price, None while empty."""
        return self.highs[0][1] if self.highs else None

    @property
    def trough(self) -> float | None:
        """Return the lowest price, None while empty."""
        return self.lows[0][1] if self.lows else None

    @property
    def peak_ms(self) -> int | None:
        """Return when the peak was last traded, None while empty."""
        return self.highs[0][0] if self.highs else None

    def points(self) -> dict[str, list[Point]]:
        """Return what a checkpoint needs to build this window again."""
        return {"highs": list(self.highs), "lows": list(self.lows)}


class RollingWindowManager:
    """Hold one window a symbol."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: dict[str, RollingWindow] = {}

    def window(self, symbol: str) -> RollingWindow:
        """Return the window of `symbol`, an empty one where there was none."""
        window = self._windows.get(symbol)
        if window is None:
            window = self._windows[symbol] = RollingWindow()
        return window

    def points(self, symbols: Iterable[str]) -> dict[str, dict[str, list[Point]]]:
        """Return the windows of these symbols as a checkpoint holds them."""
        return {symbol: self._windows[symbol].points() for symbol in symbols if symbol in self._windows}

    def load(self, points: dict[str, dict[str, list[Point]]]) -> None:
        """Replace every window by those of a checkpoint."""
        self._windows = {symbol: RollingWindow(**ends) for symbol, ends in points.items()}
