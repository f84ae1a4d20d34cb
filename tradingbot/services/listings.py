"""Listings: what the exchange still lists, looked at now and then; what is halted or gone is parked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Mapping

from tradingbot.exchange.errors import ExchangeTroubleError, HeldBackError, RefusedByExchangeError
from tradingbot.exchange.protocol import Exchange, MarketFacts
from tradingbot.services.market_data import MarketData

__all__ = ["JUMP_FACTOR", "Listings"]

log = logging.getLogger(__name__)

LOOK_EVERY_S = 900.0
LOOK_AGAIN_S = 10.0  # at the earliest, whoever asks
JUMP_FACTOR = 2.0  # a price that is so many times the last one, or so small a part of it, may be another money


class Listings:
    """Park symbols whose market is halted, gone, or may have been re-denominated, and release them again.

    `park` is told a symbol and why (None: released); `price` gives a symbol's last accepted price. A symbol that is
    gone is dropped from `data` for the session. A price that leaps by JUMP_FACTOR parks at once; where the exchange
    still lists the market and the leap has proved a slip of the feed it is released, else it stays parked.
    """

    def __init__(
        self,
        exchange: Exchange,
        data: MarketData,
        markets: Mapping[str, MarketFacts],
        price: Callable[[str], float],
        park: Callable[[str, str | None], None],
    ) -> None:
        self._exchange, self._data, self._price, self._park = exchange, data, price, park
        self._known = {symbol: markets[symbol] for symbol in data.symbols}
        self.parked: dict[str, str] = {}
        self._absent: set[str] = set()
        self._leaps: dict[str, tuple[float, float]] = {}  # the price before, and when it was (the loop's clock)
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have the listings looked at soon."""
        self._asked.set()

    def leapt(self, symbol: str, price: float) -> None:
        """Take note that a ticker was rejected as a jump to `price`; a leap parks its symbol until all is clear."""
        before = self._price(symbol)
        if symbol in self.parked or 1 / JUMP_FACTOR < price / before < JUMP_FACTOR:
            return
        self._leaps[symbol] = before, asyncio.get_running_loop().time()
        self._set(symbol, f"leap from {before:.8g} to {price:.8g}")
        self.ask()

    def resume(self, parked: Mapping[str, str]) -> None:
        """Go on with symbols that an earlier session parked; the listings tell soon whether they stay so."""
        for symbol, why in parked.items():
            self.parked[symbol] = why
            leap = re.match(r"leap from (\S+) to ", why)
            if leap is not None:
                self._leaps[symbol] = float(leap[1]), float("-inf")
            self.ask()

    async def run(self) -> None:
        """Look now and then, and when asked, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_EVERY_S)
            self._asked.clear()
            await self.look()
            await asyncio.sleep(LOOK_AGAIN_S)

    async def look(self) -> None:
        """Ask the exchange once what it lists, and park or release accordingly."""
        if self._data.is_held_back():
            self.ask()
            return
        try:
            listed = await self._exchange.load()
        except HeldBackError as error:
            self._data.hold_back(error)
            self.ask()
            return
        except (ExchangeTroubleError, RefusedByExchangeError) as error:
            log.warning("listings cannot be read: %s", error)
            self.ask()
            return
        for symbol in list(self._data.symbols):
            self._judge(symbol, listed.get(symbol))

    def _judge(self, symbol: str, market: MarketFacts | None) -> None:
        if market is None and symbol not in self._absent:  # one answer may be a bad one
            self._absent.add(symbol)
            self._set(symbol, "gone: the exchange does not list it")
            self.ask()
            return
        if market is None:
            self._data.drop(symbol)
            self._leaps.pop(symbol, None)
            log.warning("symbol %s is dropped for this session: the exchange lists it no more", symbol)
            return
        self._absent.discard(symbol)
        if not market.active:
            self._set(symbol, "halted by the exchange")
        elif symbol in self._leaps:
            before, since_s = self._leaps[symbol]
            if asyncio.get_running_loop().time() - since_s < LOOK_AGAIN_S:
                self.ask()  # a second witness may be on its way
            elif 1 / JUMP_FACTOR < self._price(symbol) / before < JUMP_FACTOR:
                del self._leaps[symbol]
                self._set(symbol, None)
        else:
            self._set(symbol, None)
            known = self._known[symbol]
            if market.amount_step != known.amount_step:
                self._known[symbol] = market
                log.warning(
                    "symbol %s has another amount step (%s, was %s): it counts from the next start on",
                    symbol, market.amount_step, known.amount_step,
                )  # fmt: skip

    def _set(self, symbol: str, why: str | None) -> None:
        if why == self.parked.get(symbol) or (why is None and symbol not in self.parked):
            return
        if why is None:
            del self.parked[symbol]
            log.warning("symbol %s is released: its market is as before", symbol)
        else:
            self.parked[symbol] = why
            log.warning("symbol %s is parked: %s", symbol, why)
        self._park(symbol, why)
