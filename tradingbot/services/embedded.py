"""The embedded exchange made from the settings (market, clock, memory), and one that runs elsewhere followed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from tradingbot.config import Settings
from tradingbot.errors import StateError, UsageError
from tradingbot.exchange.ccxt_client import retry_after_s
from tradingbot.exchange.errors import ExchangeTroubleError, HeldBackError, UnreachableError
from tradingbot.io.state_files import StateLock
from tradingbot.services.clock import Clock, wall_ms
from tradingbot.services.recorded import read_market
from tradingbot.simulated.core import Core
from tradingbot.simulated.faults import Faults
from tradingbot.simulated.market import Market, SyntheticMarket
from tradingbot.simulated.memory import Memory
from tradingbot.simulated.recorded import RecordedMarket
from tradingbot.simulated.server import ExchangeServer

__all__ = ["FollowedExchange", "lock_exchange", "make_core", "make_exchange", "serve"]

log = logging.getLogger(__name__)

FOLLOW_S = 5.0  # how often the time of an exchange that runs elsewhere is asked for
APART_S = 0.25  # by how many real seconds the two clocks may part until then


def make_core(
    settings: Settings, state_dir: Path, api_key: str, api_secret: str, start_ms: int, faults: Faults | None = None
) -> tuple[Core, Memory, int]:
    """Return the embedded exchange without sockets, its memory in `state_dir`, and the time at which it goes on.

    A synthetic market begins at `start_ms`, a recorded one with its first row; neither account nor time runs back over
    a restart. Raises UsageError for an EMBEDDED_MARKET that is none, StateError where the memory is damaged.
    """
    market: Market
    if settings.EMBEDDED_MARKET == "synthetic":
        market = SyntheticMarket(settings.EMBEDDED_SEED, settings.EMBEDDED_SYMBOLS)
    else:
        market = read_market(Path(settings.EMBEDDED_MARKET).expanduser())
        start_ms = market.first_ms
    core = Core(market, api_key, api_secret, faults)
    core.speed = settings.EMBEDDED_SPEED
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state_dir / "exchange.json"
    memory = Memory(path, core)
    try:
        start_ms = max(start_ms, memory.load())
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        why = f"{type(error).__name__}: {error}"
        raise StateError(f"{path} is damaged ({why}): move it aside to begin with a new account") from None
    strangers = {order.symbol for order in core.account.open_orders(None)} - set(market.symbols)
    if strangers:
        raise StateError(
            f"{path} has open orders on {', '.join(sorted(strangers))}, which this market has not: move it aside"
        )
    if isinstance(market, RecordedMarket) and start_ms > market.last_ms:
        log.warning(
            "the recording is over: the exchange's time stands behind its last row; remove %s to play it anew", path
        )
    core.faults.began_ms = start_ms
    return core, memory, start_ms


def make_exchange(
    settings: Settings, state_dir: Path, api_key: str, api_secret: str, faults: Faults | None = None
) -> tuple[ExchangeServer, Clock]:
    """Return the embedded exchange that the settings describe, not yet started, and its clock; raises as make_core."""
    core, memory, start_ms = make_core(settings, state_dir, api_key, api_secret, wall_ms(), faults)
    clock = Clock(settings.EMBEDDED_SPEED, start_ms)
    return ExchangeServer(core, clock.now_ms, memory), clock


def lock_exchange(state_dir: Path) -> StateLock:
    """Return the lock that keeps two exchanges from one account, to be held while one runs."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return StateLock(state_dir, wall_ms(), "exchange.lock")


async def serve(server: ExchangeServer, port: int, ready: Callable[[str], None]) -> None:
    """Run an exchange until SIGINT or SIGTERM; tell its address when it listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.start(port)
    try:
        ready(server.url)
        await stop.wait()
    finally:
        await server.stop()


class FollowedExchange:
    """Follow the clock of an embedded exchange that runs in another process of this machine, while in use.

    The clock begins at `not_before_ms` or later: where the exchange's is behind, it stands until that has caught up.
    Raises UsageError for an address that is not on this machine, UnreachableError on entering where nobody answers.
    """

    held_back_until_s: Callable[[], float] = staticmethod(lambda: 0.0)  # of the loop's clock

    def __init__(self, url: str, timeout_s: float, not_before_ms: int) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost") or parts.port is None:
            raise UsageError(f"EMBEDDED_URL = {url} is no address on this machine, as http://127.0.0.1:18080 is")
        self.url = f"http://{parts.hostname}:{parts.port}"
        self.clock = Clock(1.0, not_before_ms)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            await self._look()
        except BaseException:  # also a cancellation: the connection is not left open
            await self._session.close()
            raise
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._session.close()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_S)
            if asyncio.get_running_loop().time() >= self.held_back_until_s():
                with contextlib.suppress(ExchangeTroubleError):  # whoever asks it for prices says so
                    await self._look()

    async def _look(self) -> None:
        try:
            async with self._session.get(self.url + "/api/v3/time") as answer:
                if answer.status in (418, 429):
                    raise HeldBackError(f"{self.url}: {answer.status}", retry_after_s(answer.headers))
                facts = await answer.json(content_type=None)
                now, speed = int(facts["serverTime"]), float(facts["speed"])
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            raise UnreachableError(f"EMBEDDED_URL = {self.url}: {type(error).__name__}: {error}") from None
        if speed != self.clock.speed or abs(now - self.clock.now_ms()) > APART_S * 1000 * speed:
            self.clock.follow(now, speed)
