"""The session: the one place that wires a bot, runs its loop and ends it cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from tradingbot import __version__
from tradingbot.config import Settings, fingerprint
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Condition, ConditionName, Rejected
from tradingbot.errors import UsageError
from tradingbot.exchange.ccxt_client import CcxtExchange
from tradingbot.exchange.errors import ExchangeTroubleError, NoExchangeError
from tradingbot.exchange.protocol import Exchange, MarketFacts
from tradingbot.io.overrides import Effective
from tradingbot.io.state_files import StateLock, check_stamp, write_atomic
from tradingbot.market.ticker import Ticker
from tradingbot.services.buy_signals import BuySignalService
from tradingbot.services.clock import Clock
from tradingbot.services.embedded import make_exchange
from tradingbot.services.market_data import MarketData
from tradingbot.services.status import make_status
from tradingbot.services.universe import choose_symbols
from tradingbot.simulated.server import ExchangeServer

__all__ = ["Session", "run_session"]


log = logging.getLogger(__name__)

STATUS_S = 1.0
FIRST_HEARTBEAT_S = 2.0  # after the first ticker, at most
START_ATTEMPTS, START_S = 5, 40


class _Errors(logging.Handler):
    """Keep the last warnings and errors for status.json."""

    def __init__(self, kept: deque[dict[str, Any]]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(
            {"time_ms": int(record.created * 1000), "level": record.levelname, "text": record.getMessage()[:300]}
        )


class Session:
    """Run one bot over one state directory, from its start to its end.

    `show` is given every status as it is written, for a dashboard.
    """

    def __init__(self, effective: Effective, show: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._effective, self._show = effective, show
        self.settings: Settings = effective.settings
        self.started_ms = int(time.time() * 1000)
        self.sid = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.started_ms / 1000)) + f"-{os.getpid()}"
        self.state = "starting"
        self.errors: deque[dict[str, Any]] = deque(maxlen=20)
        self.signals = BuySignalService()
        self.engine: Engine | None = None
        self.market_data: MarketData | None = None
        self._now_ms: Callable[[], int] = Clock().now_ms
        self._stop = asyncio.Event()
        self._heartbeats = 0

    async def run(self, duration_s: float | None) -> None:
        """Run until `duration_s` is over or somebody stops it."""
        state_dir = self._effective.state_dir
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with StateLock(state_dir, self.started_ms):
            check_stamp(state_dir, self.settings.EXCHANGE, self.settings.TRADING_MODE)
            if self.settings.GLOBAL_TRADING and self.settings.TRADING_MODE == "live":
                raise UsageError("this version places no live orders: set TRADING_MODE = paper, or GLOBAL_TRADING off")
            errors = _Errors(self.errors)
            logging.getLogger("tradingbot").addHandler(errors)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._stop.set)
            async with contextlib.AsyncExitStack() as stack:
                exchange = await self._connect(stack)
                await self._start(exchange)
                await self._loop(duration_s)
            self.state = "stopping"
            self._write_status()
            log.info("stopped sid=%s", self.sid)
            logging.getLogger("tradingbot").removeHandler(errors)

    async def _connect(self, stack: contextlib.AsyncExitStack) -> Exchange:
        settings = self.settings
        url: str | None = None
        if settings.EXCHANGE == "embedded":
            if settings.EMBEDDED_URL:
                raise UsageError("EMBEDDED_URL is not followed in this version: leave it empty")
            server: ExchangeServer = make_exchange(settings, self._effective.state_dir, "key", "secret")
            await stack.enter_async_context(server)
            url, self._now_ms = server.url, server.now_ms
            log.info("embedded exchange at %s", url)
        exchange = CcxtExchange(settings.EXCHANGE, self._now_ms, settings.REQUEST_TIMEOUT_S, url)
        stack.push_async_callback(exchange.close)
        return exchange

    async def _start(self, exchange: Exchange) -> None:
        markets: dict[str, MarketFacts] = {}
        symbols: list[str] = []
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(ExchangeTroubleError),
                stop=stop_after_attempt(START_ATTEMPTS) | stop_after_delay(START_S),
                wait=wait_random_exponential(multiplier=self.settings.RETRY_BASE_S, max=10),
                reraise=True,
            ):
                with attempt:
                    markets = await exchange.load()
                    symbols = await choose_symbols(exchange, markets, self.settings)
        except ExchangeTroubleError as error:
            raise NoExchangeError(f"{exchange.name} cannot be reached: {error}") from None
        steps = {symbol: step for symbol in symbols if (step := markets[symbol].amount_step) is not None}
        self.engine = Engine(self.settings, steps)
        self.market_data = MarketData(exchange, symbols, lambda: self.settings, self._deliver)
        trading = "paper orders" if self.settings.GLOBAL_TRADING else "observing"
        log.info(
            "started sid=%s version=%s exchange=%s symbols=%d mode=%s fingerprint=%s",
            self.sid, __version__, exchange.name, len(symbols), trading, fingerprint(self.settings),
        )  # fmt: skip
        if self.settings.GLOBAL_TRADING:
            log.warning("paper positions live in memory only: they are lost at a restart")

    def _deliver(self, ticker: Ticker) -> str | None:
        assert self.engine is not None
        outputs = self.engine.tick(ticker)
        if not outputs:
            return None
        first = outputs[0]
        if isinstance(first, Rejected):
            return first.reason
        self.signals.take(outputs)
        return None

    async def _loop(self, duration_s: float | None) -> None:
        assert self.market_data is not None
        loop = asyncio.get_running_loop()
        end_s = None if duration_s is None else loop.time() + duration_s
        feed = asyncio.create_task(self.market_data.run())
        self.state = "running"
        next_beat: float | None = None
        try:
            while not self._stop.is_set() and (end_s is None or loop.time() < end_s):
                self._look_at_kill_switch()
                self._write_status()
                if next_beat is None and self.market_data.ticks:
                    next_beat = loop.time() + FIRST_HEARTBEAT_S
                if next_beat is not None and loop.time() >= next_beat:
                    next_beat = loop.time() + self.settings.HEARTBEAT_S
                    self._heartbeat()
                if feed.done():
                    feed.result()  # a defect, not trouble of the exchange: let it be seen
                rest = STATUS_S if end_s is None else max(min(STATUS_S, end_s - loop.time()), 0)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), rest)
            self._heartbeat()
        finally:
            feed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feed

    def _look_at_kill_switch(self) -> None:
        assert self.engine is not None
        path = self._effective.state_dir / "KILL"
        why: str | None = None
        if path.exists():
            with contextlib.suppress(OSError):
                why = path.read_text(errors="replace").strip()[:200]
            why = why or "kill switch"
        if why != self.engine.conditions.get("killed"):
            self.engine.process(Condition(ConditionName.KILLED, why))
            log.warning("kill switch %s", f"on: {why}" if why else "off")
        self.state = "killed" if why else "running"

    def _heartbeat(self) -> None:
        data = self.market_data
        assert data is not None
        now = asyncio.get_running_loop().time()
        ages = [now - data.accepted_s[symbol] for symbol in data.symbols if symbol in data.accepted_s]
        fresh = sum(age <= self.settings.WATCHDOG_S for age in ages)
        log.info(
            "HEARTBEAT - Ticker fetched fresh=%d/%d oldest_s=%.1f ticks=%d triggers=%d",
            fresh, len(data.symbols), max(ages, default=0.0), data.ticks, self.signals.triggers,
        )  # fmt: skip

    def _write_status(self) -> None:
        status = make_status(self, self._effective, self._now_ms())
        try:
            write_atomic(self._effective.state_dir / "status.json", orjson.dumps(status), durable=False)
        except OSError as error:
            log.error("status.json cannot be written: %s", error.strerror)  # noqa: TRY400  (one line, no traceback)
        if self._show is not None:
            self._show(status)


def run_session(
    effective: Effective, duration_s: float | None, show: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Run a bot until `duration_s` is over or it is stopped."""

    async def main() -> None:
        await Session(effective, show).run(duration_s)

    asyncio.run(main())
