"""Ticks a second through the whole engine, beside the bare loop; one tick's time; one symbol beside fifty."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import starmap

from benchmarks.yardstick import bare_loop, walk
from tradingbot.config import Settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.gate import admit
from tradingbot.market.ticker import Ticker
from tradingbot.services.replay import NullSink, run_ticks

ROUNDS = 7


class _Columns:
    """Hold ticks as a file's columns hold them: the points, for each symbol in turn."""

    def __init__(self, points: list[tuple[int, float]], symbols: list[str], book: bool) -> None:
        every = [(symbol, t, price) for t, price in points for symbol in symbols]
        self.columns: list[Iterable[object]] = [list(column) for column in zip(*every, strict=True)]
        if book:
            prices = [price for _, _, price in every]
            self.columns += [[p * 0.9999 for p in prices], [p * 1.0001 for p in prices], [1e7] * len(prices)]
        self.span = points[0][0], points[-1][0]

    def replay(self) -> None:
        """Replay them in observe mode, tickers made on the way, statistics and all: what `tradingbot replay` does."""
        run_ticks(starmap(Ticker, zip(*self.columns, strict=True)), Settings(), NullSink(), *self.span)

    def engine(self) -> None:
        """Feed them to an engine alone."""
        tick = Engine(Settings()).tick
        for ticker in starmap(Ticker, zip(*self.columns, strict=True)):
            tick(ticker)


def _rates(count: int, *runs: Callable[[], object]) -> list[list[float]]:
    """Run each in turn, several times over, and return the rates round by round."""
    rates: list[list[float]] = []
    for _ in range(ROUNDS):
        row = []
        for run in runs:
            gc.collect()
            start = time.perf_counter()
            run()
            row.append(count / (time.perf_counter() - start))
        rates.append(row)
    return rates


def _median(rates: list[list[float]], column: int, over: int | None = None) -> float:
    return statistics.median(row[column] / (1 if over is None else row[over]) for row in rates)


def engine(count: int = 1_000_000) -> Iterator[str]:
    """Measure replay and engine in observe mode against the bare loop, and fifty symbols against one."""
    points = walk(count)
    plain, book = _Columns(points, ["BTC/USDT"], book=False), _Columns(points, ["BTC/USDT"], book=True)
    fifty = _Columns(points[: count // 50], [f"S{i}/USDT" for i in range(50)], book=True)
    runs = {
        "bare loop": lambda: bare_loop(points),
        "replay, last only": plain.replay,
        "replay, last, bid, ask, volume": book.replay,
        "replay, the same over 50 symbols": fifty.replay,
        "engine alone, last only": plain.engine,
        "engine alone, last to volume": book.engine,
    }
    rates = _rates(count, *runs.values())
    for column, name in enumerate(runs):
        share = _median(rates, column, 0)
        yield f"{name:33} {_median(rates, column):10,.0f} ticks/s   {share:.3f} of the bare loop"
    yield f"50 symbols                        {_median(rates, 3, 2):10.3f} of one symbol"


def latency(count: int = 400_000) -> Iterator[str]:
    """Measure one tick's time with a short and a long window, and the guards alone."""
    points = walk(count)
    for lookback_s in (60, 86_400):
        bot = Engine(Settings(WINDOW_LOOKBACK_S=lookback_s))
        times = []
        for t, price in points:
            ticker = Ticker("BTC/USDT", t, price, price * 0.9999, price * 1.0001, 1e7)
            start = time.perf_counter_ns()
            bot.tick(ticker)
            times.append(time.perf_counter_ns() - start)
        cuts = statistics.quantiles(times[1000:], n=1000)
        median, p99, p999 = (cuts[place] / 1000 for place in (499, 989, 998))
        name = f"one tick, window {lookback_s} s"
        yield f"{name:31} median {median:6.2f} us, p99 {p99:6.2f} us, p99.9 {p999:6.2f} us"
    bot = Engine(Settings())
    bot.tick(Ticker("BTC/USDT", 0, 100.0))
    state, ticker = bot.states["BTC/USDT"], Ticker("BTC/USDT", 1, 100.0, 99.9, 100.1, recv_ms=2)
    times = []
    for _ in range(100_000):
        start = time.perf_counter_ns()
        admit(state, ticker, bot.rules)
        times.append(time.perf_counter_ns() - start)
    cuts = statistics.quantiles(times, n=100)
    yield f"all guards, one by one          median {cuts[49] / 1000:6.2f} us, p99 {cuts[98] / 1000:6.2f} us"
