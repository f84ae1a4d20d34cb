"""A synthetic market: each price is a function of seed, symbol and time, so that it can seek and two runs are equal."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from tradingbot.simulated.noise import Noise, mix, uniform

__all__ = ["Candle", "Market", "Quote", "Statistics", "SyntheticMarket", "Terms", "main"]

SYMBOLS = (
    ("BTC/USDT", 60_000.0), ("ETH/USDT", 3_000.0), ("SOL/USDT", 150.0), ("XRP/USDT", 0.6), ("ADA/USDT", 0.45),
    ("DOGE/USDT", 0.12), ("LTC/USDT", 85.0), ("LINK/USDT", 14.0), ("AVAX/USDT", 28.0), ("DOT/USDT", 6.5),
    ("ATOM/USDT", 8.0), ("UNI/USDT", 7.5),
)  # fmt: skip

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
SAMPLE_MS = 15 * MINUTE_MS
# (wave length in ms, standard deviation in log price): a random walk has sqrt(length) of it at every length
WAVES = tuple((length, 0.009 * math.sqrt(length / HOUR_MS)) for length in (
    8_000, 30_000, 2 * MINUTE_MS, 8 * MINUTE_MS, 30 * MINUTE_MS, 2 * HOUR_MS, 8 * HOUR_MS, 48 * HOUR_MS,
))  # fmt: skip
TICKER_MS = 1000
KEPT = 64  # updates of a symbol
DRAW = (1 << 21) - 1  # three draws in 64 bits
CRASH_SLOT_MS = 90 * MINUTE_MS  # at most one crash of the whole market begins in each
CRASH_CHANCE = 0.6
CALM_MS = 20 * MINUTE_MS  # after a fall: by then spreads and books are as ever, to a millionth of a per cent
CRASH_MEMORY_SLOTS = 8  # how long a crash is still felt


@dataclass(frozen=True, slots=True)
class Crash:
    """Hold a fall of the whole market: when it begins, how deep it goes (log price), how long, how much comes back."""

    start_ms: int
    depth: float
    fall_ms: int
    recovery: float
    recovery_ms: int


@dataclass(frozen=True, slots=True)
class Quote:
    """Hold the market of one symbol at one time: prices in quote, sizes in base, volume of 24 h in quote."""

    ts_ms: int
    symbol: str
    bid: float
    ask: float
    last: float
    bid_size: float
    ask_size: float
    quote_volume: float


@dataclass(frozen=True, slots=True)
class Terms:
    """Hold what an exchange says of a market: price and amount steps, and the smallest order in quote."""

    base: str
    quote: str
    price_step: Decimal
    amount_step: Decimal
    min_notional: Decimal = Decimal(5)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Hold the statistics of 24 hours: prices in quote, volumes in base and in quote, trades by their numbers."""

    open_ms: int
    close_ms: int
    open: float
    high: float
    low: float
    last: Quote
    first_number: int
    last_number: int

    @property
    def volume(self) -> float:
        """Return the volume in base."""
        return self.last.quote_volume / self.average

    @property
    def average(self) -> float:
        """Return a price in the middle of the day's."""
        return (self.open + self.high + self.low + self.last.last) / 4


@dataclass(frozen=True, slots=True)
class Candle:
    """Hold one candle: when it opens, prices in quote, volumes in base and quote, how many updates."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    updates: int


class Market(Protocol):
    """Give the books of a market whose updates are numbered: number n of a symbol is the same at every asking."""

    @property
    def symbols(self) -> list[str]:
        """Return the symbols, the largest market first or in the order of their first appearance."""

    @property
    def max_behind(self) -> int | None:
        """Return how many events of a stream are told at most to who asks late, None where all are."""

    def terms(self, symbol: str) -> Terms:
        """Return the terms of trade."""

    def number(self, symbol: str, ms: int) -> int:
        """Return the number of the last update at or before `ms`."""

    def update(self, symbol: str, number: int) -> Quote:
        """Return the book, and the trade, that update `number` brought."""

    def statistics(self, symbol: str, ms: int) -> Statistics:
        """Return the statistics of the 24 hours before `ms`."""

    def ticker_number(self, symbol: str, ms: int) -> int:
        """Return the number of the last ticker event at or before `ms`."""

    def ticker(self, symbol: str, number: int) -> Statistics:
        """Return the statistics that ticker event `number` tells."""

    def candle(self, symbol: str, open_ms: int, bar_ms: int) -> Candle:
        """Return the candle that opens at `open_ms`."""


class _Share:
    """Hold what makes one symbol of the market: its base price, tick, beta to the market, and its own noise."""

    __slots__ = (
        "base", "beta", "day", "digits", "due", "phase", "place", "quotes", "spread", "step", "terms", "volatility",
        "volume", "waves",
    )  # fmt: skip

    def __init__(self, seed: int, place: int, symbol: str, base: float) -> None:
        self.place, self.base = place, base
        self.phase = sum(symbol.encode()) * 37 % TICKER_MS
        exponent = math.floor(math.log10(base))
        coin, quote = symbol.split("/")
        self.terms = Terms(coin, quote, Decimal(1).scaleb(exponent - 5), Decimal(1).scaleb(-exponent - 1))
        self.beta = 1 + 0.12 * place * (0.5 + uniform(seed, 12, place))
        self.step = 10.0 ** (exponent - 5)
        self.digits = max(0, -round(math.log10(self.step)))
        self.waves = [  # the market's own noise and the symbol's
            (deviation, length <= 2 * HOUR_MS, Noise(length, [(0.6, (seed, 14)), (0.5, (seed, 15, place))]))
            for length, deviation in WAVES
        ]
        self.volatility = Noise(4 * HOUR_MS, [(1.0, (seed, 13, place))])
        self.spread = Noise(5_000, [(1.0, (seed, 16, place))])
        self.volume = Noise(24 * HOUR_MS, [(1.0, (seed, 19, place))])
        # for speed alone: updates and their times by their numbers; open, high and low of 24 hours
        self.quotes: dict[int, Quote] = {}
        self.due: dict[int, int] = {}
        self.day: tuple[range, float, float, float] | None = None


class SyntheticMarket:
    """Give quotes of any number of symbols at any time, forwards or backwards; `every_ms` apart as numbered updates.

    Volatility comes in clusters; now and then the whole market falls by 2 to 7 % within a minute or three and recovers,
    or not; spreads widen and books thin out while it falls.
    """

    max_behind = 200

    def __init__(self, seed: int, count: int = 6, every_ms: int = 1000) -> None:
        self.seed, self.every_ms = seed, every_ms
        self._crashes: dict[int, Crash | None] = {}
        self._samples: dict[tuple[str, int], float] = {}
        self._felt: tuple[int, list[Crash]] = 0, []
        named = [*SYMBOLS, *((f"C{place:04}/USDT", 1 + 99 * uniform(9, place)) for place in range(12, count))]
        self._shares = {symbol: _Share(seed, place, symbol, base) for place, (symbol, base) in enumerate(named[:count])}

    @property
    def symbols(self) -> list[str]:
        """Return the symbols, the largest market first."""
        return list(self._shares)

    def terms(self, symbol: str) -> Terms:
        """Return the terms of trade."""
        return self._shares[symbol].terms

    def number(self, symbol: str, ms: int) -> int:
        """Return the number of the last update at or before `ms`."""
        slot = ms // self.every_ms
        return slot if self._due_ms(symbol, slot) <= ms else slot - 1

    def _due_ms(self, symbol: str, number: int) -> int:
        share = self._shares[symbol]
        due = share.due.get(number)
        if due is None:
            if len(share.due) >= KEPT:
                share.due.clear()  # they can be made again
            due = number * self.every_ms + mix(self.seed, 21, share.place, number) % self.every_ms
            share.due[number] = due
        return due

    def update(self, symbol: str, number: int) -> Quote:
        """Return the book, and the trade, that update `number` brought."""
        share = self._shares[symbol]
        quote = share.quotes.get(number)
        if quote is None:
            if len(share.quotes) >= KEPT:
                share.quotes.clear()  # they can be made again
            quote = share.quotes[number] = self.quote(symbol, self._due_ms(symbol, number))
        return quote

    def statistics(self, symbol: str, ms: int) -> Statistics:
        """Return the statistics of the 24 hours before `ms`; high and low are sampled every quarter of an hour."""
        number = self.number(symbol, ms)
        last = self.update(symbol, number)
        first = self.number(symbol, ms - DAY_MS) + 1
        opened, high, low = self._day(symbol, range((ms - DAY_MS) // SAMPLE_MS + 1, ms // SAMPLE_MS + 1))
        return Statistics(ms - DAY_MS, ms, opened, max(high, last.last), min(low, last.last), last, first, number)

    def _day(self, symbol: str, slots: range) -> tuple[float, float, float]:
        share = self._shares[symbol]
        if share.day is None or share.day[0] != slots:
            samples = [self._sample(symbol, slot) for slot in slots]
            share.day = slots, samples[0], max(samples), min(samples)
        return share.day[1:]

    def ticker_number(self, symbol: str, ms: int) -> int:
        """Return the number of the last ticker event at or before `ms`: one a second, symbols spread over it."""
        return (ms - self._shares[symbol].phase) // TICKER_MS

    def ticker(self, symbol: str, number: int) -> Statistics:
        """Return the statistics that ticker event `number` tells."""
        return self.statistics(symbol, number * TICKER_MS + self._shares[symbol].phase)

    def _sample(self, symbol: str, slot: int) -> float:
        key = (symbol, slot)
        if key not in self._samples:
            if len(self._samples) > 200 * len(self._shares):
                self._samples.clear()  # they can be made again
            self._samples[key] = self.quote(symbol, slot * SAMPLE_MS).last
        return self._samples[key]

    def candle(self, symbol: str, open_ms: int, bar_ms: int) -> Candle:
        """Return the candle that opens at `open_ms`, from eight updates spread over it."""
        first, last = self.number(symbol, open_ms) + 1, self.number(symbol, open_ms + bar_ms - 1)
        count = max(last - first + 1, 1)
        prices = [self.update(symbol, first + (count - 1) * part // 7) for part in range(8)]
        traded = [quote.last for quote in prices]
        volume = prices[-1].quote_volume * bar_ms / DAY_MS
        middle = sum(traded) / len(traded)
        return Candle(open_ms, traded[0], max(traded), min(traded), traded[-1], volume / middle, volume, count)

    def crash(self, slot: int) -> Crash | None:
        """Return the crash that begins in the `slot`-th stretch of 90 minutes since the epoch, or None."""
        if slot not in self._crashes:
            if len(self._crashes) > 1000:
                self._crashes.clear()  # they can be made again
            self._crashes[slot] = self._make_crash(slot)
        return self._crashes[slot]

    def _make_crash(self, slot: int) -> Crash | None:
        if uniform(self.seed, 11, slot) >= CRASH_CHANCE:
            return None
        draw = [uniform(self.seed, 11, slot, place) for place in range(5)]
        start_ms = slot * CRASH_SLOT_MS + int(draw[0] * CRASH_SLOT_MS * 0.8)
        recovery = 0.0 if draw[3] < 0.25 else 0.3 + 0.7 * draw[3]
        depth, fall_ms = 0.02 + 0.05 * draw[1] ** 2, int((30 + 150 * draw[2]) * 1000)
        return Crash(start_ms, depth, fall_ms, recovery, int((3 + 40 * draw[4]) * MINUTE_MS))

    def stress(self, ms: int) -> tuple[float, float]:
        """Return how far crashes have the market down (log price), and how fast it is falling (0 to 1)."""
        down = speed = 0.0
        slot = ms // CRASH_SLOT_MS
        if slot != self._felt[0]:
            crashes = map(self.crash, range(slot - CRASH_MEMORY_SLOTS, slot + 1))
            self._felt = slot, [crash for crash in crashes if crash is not None]
        for crash in self._felt[1]:
            if ms < crash.start_ms:
                continue
            since = ms - crash.start_ms
            if since < crash.fall_ms:
                share = since / crash.fall_ms
                down += crash.depth * share
                speed = max(speed, math.sin(math.pi * share))
            else:
                after = since - crash.fall_ms
                back = crash.recovery * (1 - math.exp(-2 * after / crash.recovery_ms))
                fade = max(0.0, 1 - after / ((CRASH_MEMORY_SLOTS - 1) * CRASH_SLOT_MS))
                down += crash.depth * (1 - back) * fade
                if after < CALM_MS:
                    speed = max(speed, 0.5 * math.exp(-after / MINUTE_MS))
        return down, speed

    def quote(self, symbol: str, ms: int) -> Quote:
        """Return the market of `symbol` at `ms` (milliseconds since the epoch, UTC)."""
        share = self._shares[symbol]
        seed, place = self.seed, share.place
        down, speed = self.stress(ms)
        calm = math.exp(0.6 * share.volatility.at(ms))  # volatility comes in clusters
        wander = 0.0
        for deviation, is_short, noise in share.waves:
            wander += deviation * (calm if is_short else 1.0) * noise.at(ms)
        mid = share.base * math.exp((wander - down) * share.beta)
        half_bps = (1.0 + 0.6 * place) * (1 + 12 * speed) * math.exp(0.3 * share.spread.at(ms))
        step, digits = share.step, share.digits
        bid = math.floor(mid * (1 - half_bps / 10_000) / step) * step
        ask = max(math.ceil(mid * (1 + half_bps / 10_000) / step) * step, bid + step)
        bits = mix(seed, 17, place, ms)
        last = bid if (bits & DRAW) / (DRAW + 1) < 0.5 + 0.4 * speed else ask
        depth = 20_000 / (1 + place) / (1 + 8 * speed) / mid
        sizes = [depth * (0.2 + 1.6 * (bits >> shift & DRAW) / (DRAW + 1)) for shift in (21, 42)]
        volume = 2e9 / (1 + place) ** 1.5 * math.exp(0.4 * share.volume.at(ms))
        return Quote(
            ms, symbol, round(bid, digits), round(ask, digits), round(last, digits),
            round(sizes[0], 6), round(sizes[1], 6), round(volume, 2),
        )  # fmt: skip

    def quotes(self, start_ms: int, end_ms: int, every_ms: int) -> Iterator[Quote]:
        """Yield the quotes of all symbols in [start_ms, end_ms), each about every `every_ms`, in order of time."""
        for base in range(start_ms, end_ms, every_ms):
            due = sorted(
                (base + mix(self.seed, 20, share.place, base) % every_ms, symbol)
                for symbol, share in self._shares.items()
            )
            for ms, symbol in due:
                if ms < end_ms:
                    yield self.quote(symbol, ms)


def main(argv: Sequence[str] | None = None) -> int:
    """Write quotes of the synthetic market to a CSV file."""
    parser = argparse.ArgumentParser(
        prog="python -m tradingbot.simulated.market",
        description="Write quotes of a synthetic market, crashes included, to a CSV file that can be replayed.",
        epilog="example: python -m tradingbot.simulated.market --seed 7 --hours 6 --out crash.csv",
    )
    parser.add_argument("--seed", type=int, default=7, help="another seed, another market (7)")
    parser.add_argument("--hours", type=float, default=6.0, help="length (6)")
    parser.add_argument("--symbols", type=int, default=6, metavar="N", help="how many (6)")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between quotes of a symbol (2)")
    parser.add_argument("--start", type=int, default=1_767_225_600_000, metavar="MS", help="first time (2026-01-01)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the CSV file to write")
    chosen = parser.parse_args(argv)
    market = SyntheticMarket(chosen.seed, max(1, chosen.symbols))
    end_ms = chosen.start + int(chosen.hours * HOUR_MS)
    try:
        with Path(chosen.out).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("ts_ms", "symbol", "bid", "ask", "last", "bid_size", "ask_size", "quote_volume"))
            for q in market.quotes(chosen.start, end_ms, max(1, int(chosen.every * 1000))):
                writer.writerow((q.ts_ms, q.symbol, q.bid, q.ask, q.last, q.bid_size, q.ask_size, q.quote_volume))
    except OSError as error:
        print(f"cannot write {chosen.out}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
