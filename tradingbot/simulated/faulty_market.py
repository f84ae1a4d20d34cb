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

    @property
    def max_behind(self) -> int | None:
        """Return how many events of a stream are told at most to who asks late, None where all are."""
        return self._market.max_behind

    def terms(self, symbol: str) -> Terms:
        """Return the terms of trade."""
        terms = self._market.terms(self._true.get(symbol, symbol))
        return replace(terms, base=symbol.split("/", maxsplit=1)[0]) if symbol in self._true else terms

    def number(self, symbol: str, ms: int) -> int:
        """Return the number of the last update at or before `ms`."""
        return self._market.number(self._true.get(symbol, symbol), self._stopped_ms(symbol, ms))

    def ticker_number(self, symbol: str, ms: int) -> int:
        """Return the number of the last ticker event at or before `ms`."""
        return self._market.ticker_number(self._true.get(symbol, symbol), self._stopped_ms(symbol, ms))

    def update(self, symbol: str, number: int) -> Quote:
        """Return the book, and the trade, that update `number` brought."""
        return self._changed(symbol, self._market.update(self._true.get(symbol, symbol), number))

    def _changed(self, symbol: str, quote: Quote) -> Quote:
        factor = self._factor(symbol, quote.ts_ms)
        return replace(
            quote, symbol=symbol, bid=quote.bid * factor, ask=quote.ask * factor, last=quote.last * factor,
            bid_size=quote.bid_size / factor, ask_size=quote.ask_size / factor,
        )  # fmt: skip

    def statistics(self, symbol: str, ms: int) -> Statistics:
        """Return the statistics of the 24 hours before `ms`."""
        ms = self._stopped_ms(symbol, ms)  # the time that it tells stands still as well
        return self._as_it_is(symbol, self._market.statistics(self._true.get(symbol, symbol), ms))

    def ticker(self, symbol: str, number: int) -> Statistics:
        """Return the statistics that ticker event `number` tells."""
        return self._as_it_is(symbol, self._market.ticker(self._true.get(symbol, symbol), number))

    def _as_it_is(self, symbol: str, s: Statistics) -> Statistics:
        last = self._changed(symbol, s.last)
        factor = self._factor(symbol, s.close_ms)
        return replace(s, last=last, open=s.open * factor, high=s.high * factor, low=s.low * factor)

    def candle(self, symbol: str, open_ms: int, bar_ms: int) -> Candle:
        """Return the candle that opens at `open_ms`."""
        c = self._market.candle(self._true.get(symbol, symbol), open_ms, bar_ms)
        factor = self._factor(symbol, open_ms)
        return replace(c, open=c.open * factor, high=c.high * factor, low=c.low * factor, close=c.close * factor)

    def _stopped_ms(self, symbol: str, ms: int) -> int:
        for fault in self._stops:
            if self._is_on(fault, symbol, ms):
                return self._faults.begins_ms(fault)
        return ms

    def _factor(self, symbol: str, ms: int) -> float:
        factor = 1.0
        for fault in self._factors:
            if self._is_on(fault, symbol, ms):
                factor *= fault.factor
        return factor

    def _is_on(self, fault: Fault, symbol: str, ms: int) -> bool:
        since_s = (ms - self._faults.began_ms) / 1000
        return fault.from_s <= since_s < fault.to_s and fnmatchcase(f"market {symbol}", fault.on)
