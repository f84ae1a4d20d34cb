"""Market data: stream or poll, fall back and return, back off symbol by symbol, and never ask whom we must not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tradingbot.config import Settings
from tradingbot.exchange.errors import (
    ExchangeTroubleError,
    HeldBackError,
    RefusedByExchangeError,
    UnknownSymbolError,
)
from tradingbot.exchange.protocol import Exchange
from tradingbot.market.guards import HARMLESS
from tradingbot.market.ticker import Ticker

__all__ = ["MarketData", "Retry"]

log = logging.getLogger(__name__)

MAX_CONNECTS_A_MINUTE = 10
MINUTE_S = 60.0
LOOK_S = 0.25
EARLY_S = 0.5  # before WATCHDOG_S is over: so that the first answer is there by then
SAID = frozenset((1, 64, 4096))  # of so many failures in a row a line tells
COUNTS = 12  # of the accepted tickers, spread over the last minute


@dataclass(slots=True)
class Retry:
    """Hold how often a symbol failed in a row, when it may be asked again (seconds of the loop's clock), and why.

    `said` is whether a line of the log told of it.
    """

    attempts: int
    next_s: float
    error: str
    said: bool = False


class MarketData:
    """Bring tickers of `symbols` to `deliver` for as long as `run` runs.

    `deliver` returns why a ticker was rejected, None where it was accepted. `unknown` is called when the exchange no
    longer knows a symbol. Time here is the loop's monotonic clock: a clock that is set changes nothing. `settings` is
    asked anew at every turn, so that a change is live.
    """

    def __init__(
        self,
        exchange: Exchange,
        symbols: Sequence[str],
        settings: Callable[[], Settings],
        deliver: Callable[[Ticker], str | None],
        rng: random.Random | None = None,
    ) -> None:
        self._exchange, self._settings, self._deliver = exchange, settings, deliver
        self.unknown: Callable[[], None] = _nothing
        self.symbols = list(symbols)
        self.dropped: list[str] = []
        self.retries: dict[str, Retry] = {}
        self.accepted_s: dict[str, float] = {}
        self.rejected: Counter[str] = Counter()
        self.rejected_by_symbol: Counter[str] = Counter()
        self.withheld: Counter[str] = Counter()  # by symbol: polls that it was left out of, for it had failed
        self.ticks = 0
        self._ticks_by_symbol: Counter[str] = Counter()
        self._counts: deque[tuple[float, Counter[str]]] = deque(maxlen=COUNTS)
        self.mode = "starting"
        self._began_s = 0.0
        self.held_back_until_s = 0.0
        self._held_back = 0  # so often in a row
        self._rng = rng or random.Random()  # noqa: S311  (jitter)
        self._connects: deque[float] = deque(maxlen=MAX_CONNECTS_A_MINUTE)
        self._connected_s = self._streamed_s = float("-inf")
        self._is_connected = False
        self._broken = 0  # connections in a row that brought nothing
        self._trouble: dict[str, type[Exception]] = {}
        self._said: dict[tuple[str, str], tuple[float, int]] = {}
        self._stream: asyncio.Task[None] | None = None

    def take(self, ticker: Ticker) -> None:
        """Hand one ticker on, and keep account of what became of it."""
        symbol = ticker.symbol
        reason = self._deliver(ticker)
        now = asyncio.get_running_loop().time()
        if reason is None:
            self.ticks += 1
            self._held_back = 0
            self._ticks_by_symbol[symbol] += 1
            self.accepted_s[symbol] = now
            if symbol in self.retries:
                retry = self.retries.pop(symbol)
                if retry.said and self._settings().FEATURE_RETRY_BACKOFF:
                    log.info("retry_state symbol=%s cleared after=%d", symbol, retry.attempts)
            return
        self.rejected[reason] += 1
        self.rejected_by_symbol[symbol] += 1
        if reason not in HARMLESS:
            self._fail(symbol, f"rejected as {reason}", say=True)
            self._say(symbol, reason)

    def drop(self, symbol: str) -> None:
        """Ask for a symbol no more."""
        self.symbols.remove(symbol)
        self.dropped.append(symbol)
        self.retries.pop(symbol, None)

    def fresh_s(self) -> float:
        """Return how long ago the last ticker of any symbol was accepted, in seconds."""
        return asyncio.get_running_loop().time() - max(self.accepted_s.values(), default=float("-inf"))

    def silent(self) -> list[str]:
        """Return the symbols that have been silent for WATCHDOG_S while others were not."""
        now, limit_s = asyncio.get_running_loop().time(), self._settings().WATCHDOG_S
        if self.fresh_s() > limit_s:
            return []
        return [symbol for symbol in self.symbols if now - self.accepted_s.get(symbol, self._began_s) > limit_s]

    def is_held_back(self) -> bool:
        """Return whether the exchange has asked to be left alone."""
        return asyncio.get_running_loop().time() < self.held_back_until_s

    def hold_back(self, error: HeldBackError) -> None:
        """Leave the exchange alone for as long as it asked for."""
        self._held_back += 1
        wait_s = max(error.retry_after_s, min(2.0 ** (self._held_back - 1), MINUTE_S))  # who says "now" again and again
        self.held_back_until_s = max(self.held_back_until_s, asyncio.get_running_loop().time() + wait_s)
        log.warning("held back for %.0f s: %s", wait_s, error)

    def ticks_per_min(self, symbol: str) -> float | None:
        """Return how many tickers of a symbol were accepted a minute, over the last minute; None at the beginning."""
        if not self._counts:
            return None
        since, before = self._counts[0]
        span_s = asyncio.get_running_loop().time() - since
        return (self._ticks_by_symbol[symbol] - before[symbol]) / span_s * MINUTE_S if span_s > 0 else None

    async def run(self) -> None:
        """Run until cancelled."""
        loop = asyncio.get_running_loop()
        self._began_s = next_poll = loop.time()
        try:
            while True:
                settings = self._settings()
                if not self._counts or loop.time() - self._counts[-1][0] >= MINUTE_S / COUNTS:
                    self._counts.append((loop.time(), self._ticks_by_symbol.copy()))
                streaming = self._look_after_stream(settings)
                if streaming != (self.mode == "stream") or self.mode == "starting":
                    self.mode = "stream" if streaming else "poll"
                    log.info("market_data mode=%s symbols=%d", self.mode, len(self.symbols))
                wanted = self.symbols if self.mode == "poll" else self.silent()
                if wanted and loop.time() >= next_poll:
                    next_poll = loop.time() + settings.POLL_S
                    await self._poll(wanted)
                await asyncio.sleep(min(LOOK_S, settings.POLL_S))
        finally:
            if self._stream is not None:
                self._stream.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._stream

    def _look_after_stream(self, settings: Settings) -> bool:
        """Connect, or cancel what is silent, and return whether the stream can be relied on."""
        now = asyncio.get_running_loop().time()
        wanted = settings.MARKET_DATA == "stream" and self._exchange.abilities.streams and bool(self.symbols)
        limit_s = max(settings.WATCHDOG_S - EARLY_S, settings.WATCHDOG_S / 2)
        silent_s = now - max(self._streamed_s, self._connected_s)
        if self._stream is not None and not wanted:
            self._stream.cancel()
        elif self._stream is not None and self._is_connected and silent_s > limit_s:
            log.warning("stream silent for %.1f s: reconnecting, polling meanwhile", silent_s)
            self._is_connected = False
            self._stream.cancel()
        if wanted and (self._stream is None or self._stream.done()) and self._may_connect():
            self._stream = asyncio.create_task(self._watch())
            return len(self._connects) == 0  # the first one has the benefit of the doubt
        is_heard = self._streamed_s >= self._connected_s or len(self._connects) == 1
        return wanted and self._is_connected and is_heard

    def _may_connect(self) -> bool:
        now = asyncio.get_running_loop().time()
        full = len(self._connects) == self._connects.maxlen and now - self._connects[0] < MINUTE_S
        return not full and not self.is_held_back()

    async def _watch(self) -> None:
        now = asyncio.get_running_loop().time()
        self._connects.append(now)
        self._connected_s, self._is_connected = now, True
        try:
            await self._exchange.watch(self.symbols, self._take_streamed)
        except HeldBackError as error:
            self.hold_back(error)
        except (ExchangeTroubleError, RefusedByExchangeError) as error:
            self._complain("stream", error)
            if isinstance(error, UnknownSymbolError):
                self.unknown()
        self._is_connected = False
        self._broken = 0 if self._streamed_s > now else self._broken + 1
        await asyncio.sleep(self._delay_s(self._broken + 1))

    def _take_streamed(self, ticker: Ticker) -> None:
        ticks = self.ticks
        self.take(ticker)
        if self.ticks > ticks:
            self._streamed_s = asyncio.get_running_loop().time()
            if "stream" in self._trouble:
                del self._trouble["stream"]
                log.info("stream works again")

    async def _poll(self, wanted: Sequence[str]) -> None:
        now = asyncio.get_running_loop().time()
        if self.is_held_back():
            return
        if not self._settings().FEATURE_RETRY_BACKOFF:
            self.retries.clear()
        waiting = {s for s, retry in self.retries.items() if retry.next_s > now}
        due = [symbol for symbol in wanted if symbol not in waiting]
        self.withheld.update(waiting.intersection(wanted))
        if not due:
            return
        try:
            tickers = await self._exchange.tickers(due)
        except HeldBackError as error:
            self.hold_back(error)
        except (ExchangeTroubleError, RefusedByExchangeError) as error:
            if self._complain("poll", error) and self._settings().FEATURE_RETRY_BACKOFF:
                log.warning("retry_state symbols=%d error=%s", len(due), error)
            if isinstance(error, UnknownSymbolError):
                self.unknown()
            for symbol in due:
                self._fail(symbol, str(error))
        else:
            if self._trouble.pop("poll", None) is not None:
                log.info("poll works again")
            for ticker in tickers:
                self.take(ticker)
            for symbol in set(due) - {ticker.symbol for ticker in tickers}:
                self._fail(symbol, "no answer", say=True)

    def _complain(self, what: str, error: Exception) -> bool:
        """Say what broke a stream or a poll: once, until it works again or breaks in another way; return whether."""
        is_new = self._trouble.get(what) is not type(error)
        self._trouble[what] = type(error)
        if is_new:
            log.warning("%s broken: %s", what, error)
        return is_new

    def _delay_s(self, attempts: int) -> float:
        """Return a delay after so many failures in a row, with full jitter (Brooker, 2015), in seconds."""
        settings = self._settings()
        return self._rng.uniform(0, min(settings.RETRY_MAX_S, settings.RETRY_BASE_S * 2 ** min(attempts - 1, 16)))

    def _fail(self, symbol: str, why: str, say: bool = False) -> None:
        if not self._settings().FEATURE_RETRY_BACKOFF or symbol not in self.symbols:
            return
        before = self.retries.get(symbol)
        attempts = before.attempts + 1 if before is not None else 1
        delay_s = self._delay_s(attempts)
        says = say and attempts in SAID
        said = says or (before is not None and before.said)
        self.retries[symbol] = Retry(attempts, asyncio.get_running_loop().time() + delay_s, why, said)
        if says:
            log.warning("retry_state symbol=%s attempts=%d wait_s=%.1f error=%s", symbol, attempts, delay_s, why)

    def _say(self, symbol: str, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        last, count = self._said.get((symbol, reason), (float("-inf"), 0))
        if now - last < MINUTE_S:
            self._said[symbol, reason] = last, count + 1
            return
        self._said[symbol, reason] = now, 0
        log.warning("ticker rejected symbol=%s reason=%s count=%d", symbol, reason, count + 1)


def _nothing() -> None:
    return
