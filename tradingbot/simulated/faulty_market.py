"""A market whose symbols are halted, renamed or re-denominated while a script of faults says so."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from tradingbot.simulated.faults import Fault, Faults
from tradingbot.simulated.market import Candle, Market, Quote, Statistics, Terms

__all__ = ["FaultyMarket"]


class FaultyMarket:
    """Give another market's books as its faults have them.

    A halted symbol stands still; a renamed one is there under both names (who lists it says under which); the prices of
    a re-denominated one are multiplied by the factor, and its sizes divided.
    """

    def __init__(self, market: Market, faults: Faults) -> None:
        self._market, self._faults = market, faults
        renamed = [fault for fault in faults.faults if fault.does == "renamed"]
        self._true = {fault.symbol: fault.on.removeprefix("market ") for fault in renamed}
        self._stops = [fault for fault in faults.faults if fault.does == "halted"]
        self._factors = [fault for fault in faults.faults if fault.does == "redenominated"]

    @property
    def symbols(self) -> list[str]:
        """Return the symbols, new names last."""
        return [*self._market.symbols, *self._true]

    def terms(self, symbol: str) -> Terms:
        """Return the terms of trade."""
        terms = self._market.terms(self._true.get(symbol, symbol))
        return replace(terms, base=symbol.split("/", maxsplit=1)[0]) if symbol in self._true else terms

    def number(self, symbol: str, ms: int) -> int:
        """Return the number of the last update at or before `ms`."""
        for fault in self._stops:
            if self._is_on(fault, symbol, ms):
                ms = self._faults.begins_ms(fault)
        return self._market.number(self._true.get(symbol, symbol), ms)

    def update(self, symbol: str, number: int) -> Quote:
        """Return the book, and the trade, that update `number` brought."""
        quote = self._market.update(self._true.get(symbol, symbol), number)
        factor = self._factor(symbol, quote.ts_ms)
        if factor == 1 and quote.symbol == symbol:
            return quote
        return Quote(
            quote.ts_ms, symbol, quote.bid * factor, quote.ask * factor, quote.last * factor,
            quote.bid_size / factor, quote.ask_size / factor, quote.quote_volume,
        )  # fmt: skip

    def statistics(self, symbol: str, ms: int) -> Statistics:
        """Return the statistics of the 24 hours before `ms`."""
        true = self._market.statistics(self._true.get(symbol, symbol), ms)
        last = self.update(symbol, self.number(symbol, ms))
        factor = self._factor(symbol, last.ts_ms)
        return replace(
            true, last=last, open=true.open * factor, high=true.high * factor, low=true.low * factor,
            last_number=self.number(symbol, ms),
        )  # fmt: skip

    def candle(self, symbol: str, open_ms: int, bar_ms: int) -> Candle:
        """Return the candle that opens at `open_ms`."""
        c = self._market.candle(self._true.get(symbol, symbol), open_ms, bar_ms)
        factor = self._factor(symbol, open_ms)
        return replace(c, open=c.open * factor, high=c.high * factor, low=c.low * factor, close=c.close * factor)

    def _factor(self, symbol: str, ms: int) -> float:
        factor = 1.0
        for fault in self._factors:
            if self._is_on(fault, symbol, ms):
                factor *= fault.factor
        return factor

    def _is_on(self, fault: Fault, symbol: str, ms: int) -> bool:
        since_s = (ms - self._faults.began_ms) / 1000
        return fault.from_s <= since_s < fault.to_s and fnmatchcase(f"market {symbol}", fault.on)
