"""The start: an exchange that does not answer yet is asked again, and one that wants to be left alone is left alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from tradingbot.exchange.errors import ExchangeTroubleError, HeldBackError, NoExchangeError
from tradingbot.exchange.protocol import Exchange
from tradingbot.services.clock import Clock

__all__ = ["Start"]

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)

ATTEMPTS, TRIED_S = 9, 40
WRONG_CLOCK_MS = 1000


class Start:
    """Ask what a session must know before it can watch.

    `held_back_until_s` and `troubled_s`, since when an answer that was asked for is not there, are of the loop's clock.
    """

    def __init__(self, retry_base_s: float) -> None:
        self._retry_base_s = retry_base_s
        self.held_back_until_s = 0.0
        self.troubled_s = float("inf")

    async def answered(self, request: Callable[[], Awaitable[Answer]], whom: str) -> Answer:
        """Return the answer to a request of the start: tried again a few times, and after a hold-back when it is over.

        Raises NoExchangeError.
        """
        held_back = 0
        while True:
            try:
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception(
                        lambda e: isinstance(e, ExchangeTroubleError) and not isinstance(e, HeldBackError)
                    ),
                    stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(TRIED_S),
                    wait=wait_random_exponential(multiplier=self._retry_base_s, max=10),
                    reraise=True,
                    before_sleep=self._be_troubled,
                ):
                    with attempt:
                        return await request()
            except HeldBackError as error:
                log.warning("%s", error)
                held_back += 1
                await self.hold_back(max(error.retry_after_s, min(2.0**held_back, 60.0)))
            except ExchangeTroubleError as error:
                raise NoExchangeError(f"{whom} cannot be reached: {error}") from None

    async def hold_back(self, seconds: float) -> None:
        """Ask nothing for so long."""
        now_s = asyncio.get_running_loop().time()
        self.held_back_until_s, self.troubled_s = now_s + seconds, min(self.troubled_s, now_s)
        log.warning("held back for %.0f s: nothing is asked before that is over", seconds)
        await asyncio.sleep(seconds)

    def _be_troubled(self, state: RetryCallState) -> None:
        self.troubled_s = min(self.troubled_s, asyncio.get_running_loop().time())
        if state.attempt_number == 1 and state.outcome is not None:
            log.warning("not reached yet, trying for %d s: %s", TRIED_S, state.outcome.exception())

    async def say_what_it_gives(self, exchange: Exchange, symbol: str, clock: Clock) -> None:
        """Say what tickers of this exchange hold, and by how much this machine's clock is wrong, as far as it tells."""
        try:
            asked = clock.now_ms()
            theirs = await exchange.time_ms()
            off_ms = 0 if theirs is None else (asked + clock.now_ms()) // 2 - theirs
            ticker = (await exchange.tickers([symbol]))[0]
        except HeldBackError as error:
            await self.hold_back(error.retry_after_s)
            return
        except ExchangeTroubleError as error:
            log.warning("what %s gives is not known: %s", exchange.name, error)
            return
        gives = {
            "streams": exchange.abilities.streams, "batched": exchange.abilities.batched, "time": theirs is not None,
            "last": ticker.last is not None, "bid": ticker.bid is not None, "ask": ticker.ask is not None,
            "volume": ticker.quote_volume is not None,
        }  # fmt: skip
        lacks = ",".join(name for name, given in gives.items() if not given)
        log.info("exchange name=%s data=%s lacks=%s", exchange.name, exchange.abilities.note, lacks or "nothing")
        if abs(off_ms) > WRONG_CLOCK_MS * clock.speed:
            word = "ahead of" if off_ms > 0 else "behind"
            log.warning("clock this machine is %.1f s %s %s: set its clock", abs(off_ms) / 1000, word, exchange.name)
