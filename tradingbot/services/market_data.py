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
from tradingbot.exchange.errors import ExchangeTroubleError, HeldBackError, UnknownSymbolError
from tradingbot.exchange.protocol import Exchange
from tradingbot.market.guards import HARMLESS
from tradingbot.market.ticker import Ticker

__all__ = ["MarketData", "Retry"]

log = logging.getLogger(__name__)

MAX_CONNECTS_A_MINUTE = 10
MINUTE_S = 60.0
LOOK_S = 0.5
COUNTS = 12  # of the accepted tickers, spread over the last minute


@dataclass(slots=True)
class Retry:
    """Hold how often a symbol failed in a row, when it may be asked again (seconds of the loop's clock), and why."""

    attempts: int
    next_s: float
    error: str


class MarketData:
    """Bring tickers of `symbols` to `deliver` for as long as `run` runs.

    `deliver` returns why a ticker was rejected, None where it was accepted. Time here is the loop's monotonic clock: a
    clock that is set changes nothing. `settings` is asked anew at every turn, so that a change is live.
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
        self.symbols = list(symbols)
        self.retries: dict[str, Retry] = {}
        self.accepted_s: dict[str, float] = {}
        self.rejected: Counter[str] = Counter()
        self.rejected_by_symbol: Counter[str] = Counter()
        self.ticks = 0
        self._ticks_by_symbol: Counter[str] = Counter()
        self._counts: deque[tuple[float, Counter[str]]] = deque(maxlen=COUNTS)
        self.mode = "starting"
        self.held_back_until_s = 0.0
        self._rng = rng or random.Random()  # noqa: S311  (jitter)
        self._connects: deque[float] = deque(maxlen=MAX_CONNECTS_A_MINUTE)
        self._said: dict[tuple[str, str], tuple[float, int]] = {}
        self._stream: asyncio.Task[None] | None = None

    def take(self, ticker: Ticker) -> None:
        """Hand one ticker on, and keep account of what became of it."""
        reason = self._deliver(ticker)
        now = asyncio.get_running_loop().time()
        if reason is None:
            self.ticks += 1
            self._ticks_by_symbol[ticker.symbol] += 1
            self.accepted_s[ticker.symbol] = now
            self.retries.pop(ticker.symbol, None)
            return
        self.rejected[reason] += 1
        self.rejected_by_symbol[ticker.symbol] += 1
        if reason not in HARMLESS:
            self._fail(ticker.symbol, f"rejected as {reason}")
            self._say(ticker.symbol, reason)

    def fresh_s(self) -> float:
        """Return how long ago the last ticker of any symbol was accepted, in seconds."""
        return asyncio.get_running_loop().time() - max(self.accepted_s.values(), default=float("-inf"))

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
        began = next_poll = loop.time()
        try:
            while True:
                settings = self._settings()
                if not self._counts or loop.time() - self._counts[-1][0] >= MINUTE_S / COUNTS:
                    self._counts.append((loop.time(), self._ticks_by_symbol.copy()))
                wanted = settings.MARKET_DATA == "stream" and self._exchange.abilities.streams
                silent = min(self.fresh_s(), loop.time() - began) > settings.WATCHDOG_S
                if wanted and self._stream is not None and not self._stream.done() and silent and self.mode == "stream":
                    log.warning("stream silent for %.1f s: reconnecting, polling meanwhile", self.fresh_s())
                    self._stream.cancel()
                if not wanted and self._stream is not None:
                    self._stream.cancel()
                if wanted and (self._stream is None or self._stream.done()) and self._may_connect():
                    self._stream = asyncio.create_task(self._watch())
                streaming = wanted and not silent and self._stream is not None and not self._stream.done()
                if streaming != (self.mode == "stream") or self.mode == "starting":
                    self.mode = "stream" if streaming else "poll"
                    log.info("market_data mode=%s symbols=%d", self.mode, len(self.symbols))
                if self.mode == "poll" and loop.time() >= next_poll:
                    next_poll = loop.time() + settings.POLL_S
                    await self._poll()
                await asyncio.sleep(min(LOOK_S, settings.POLL_S))
        finally:
            if self._stream is not None:
                self._stream.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._stream

    def _may_connect(self) -> bool:
        now = asyncio.get_running_loop().time()
        full = len(self._connects) == self._connects.maxlen and now - self._connects[0] < MINUTE_S
        return not full and now >= self.held_back_until_s

    async def _watch(self) -> None:
        self._connects.append(asyncio.get_running_loop().time())
        try:
            await self._exchange.watch(self.symbols, self.take)
        except HeldBackError as error:
            self._hold_back(error)
        except ExchangeTroubleError as error:
            log.warning("stream broken: %s", error)
        settings = self._settings()
        bound = min(settings.RETRY_MAX_S, settings.RETRY_BASE_S * 2 ** min(len(self._connects), 16))
        await asyncio.sleep(self._rng.uniform(0, bound))

    async def _poll(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self.held_back_until_s:
            return
        backing_off = self._settings().FEATURE_RETRY_BACKOFF
        waiting = {s for s, retry in self.retries.items() if backing_off and retry.next_s > now}
        due = [symbol for symbol in self.symbols if symbol not in waiting]
        if not due:
            return
        try:
            tickers = await self._exchange.tickers(due)
        except HeldBackError as error:
            self._hold_back(error)
        except UnknownSymbolError as error:
            log.warning("symbol unknown: %s", error)
        except ExchangeTroubleError as error:
            log.warning("poll failed: %s", error)
            for symbol in due:
                self._fail(symbol, str(error))
        else:
            for ticker in tickers:
                self.take(ticker)
            for symbol in set(due) - {ticker.symbol for ticker in tickers}:
                self._fail(symbol, "no answer")

    def _hold_back(self, error: HeldBackError) -> None:
        self.held_back_until_s = asyncio.get_running_loop().time() + error.retry_after_s
        log.warning("held back for %.0f s: %s", error.retry_after_s, error)

    def _fail(self, symbol: str, why: str) -> None:
        settings = self._settings()
        if not settings.FEATURE_RETRY_BACKOFF:
            return
        before = self.retries.get(symbol)
        attempts = before.attempts + 1 if before is not None else 1
        bound = min(settings.RETRY_MAX_S, settings.RETRY_BASE_S * 2 ** min(attempts - 1, 16))
        delay = self._rng.uniform(0, bound)  # full jitter
        self.retries[symbol] = Retry(attempts, asyncio.get_running_loop().time() + delay, why)

    def _say(self, symbol: str, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        last, count = self._said.get((symbol, reason), (float("-inf"), 0))
        if now - last < MINUTE_S:
            self._said[symbol, reason] = last, count + 1
            return
        self._said[symbol, reason] = now, 0
        log.warning("ticker rejected symbol=%s reason=%s count=%d", symbol, reason, count + 1)
