"""What a session runs in: an exchange, and the clock that its tickers are stamped with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tradingbot.config import Settings
from tradingbot.exchange.ccxt_client import CcxtExchange
from tradingbot.exchange.protocol import Exchange
from tradingbot.services.clock import Clock
from tradingbot.services.embedded import FollowedExchange, lock_exchange, make_exchange

__all__ = ["Connect", "Surroundings", "connect"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Surroundings:
    """Hold an exchange and the session's clock."""

    exchange: Exchange
    clock: Clock


Connect = Callable[[Settings, Path, int, contextlib.AsyncExitStack], Awaitable[Surroundings]]


async def connect(
    settings: Settings, state_dir: Path, not_before_ms: int, stack: contextlib.AsyncExitStack
) -> Surroundings:
    """Return what the settings ask for: the embedded exchange, one that runs elsewhere on this machine, or a real one.

    `stack` closes it. The clock of an exchange that runs elsewhere is never said to be before `not_before_ms`. Raises
    ExchangeTroubleError where EMBEDDED_URL does not answer, UsageError where it is not on this machine.
    """
    url: str | None = None
    followed: FollowedExchange | None = None
    if settings.EXCHANGE != "embedded":
        clock = Clock()
    elif settings.EMBEDDED_URL:
        followed = FollowedExchange(settings.EMBEDDED_URL, settings.REQUEST_TIMEOUT_S, not_before_ms)
        await stack.enter_async_context(followed)
        url, clock = followed.url, followed.clock
    else:
        stack.enter_context(lock_exchange(state_dir))
        server, clock = make_exchange(settings, state_dir, "key", "secret")
        await stack.enter_async_context(server)
        url = server.url
        log.info("embedded exchange at %s", url)
    exchange = CcxtExchange(settings.EXCHANGE, clock.now_ms, settings.REQUEST_TIMEOUT_S, url)
    stack.push_async_callback(exchange.close)
    if followed is not None:
        followed.held_back_until_s = lambda: exchange.held_back_until_s
    return Surroundings(exchange, clock)
