"""Taps on ccxt.pro's streams: every book and ticker message is taken as it comes in, and none is conflated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tradingbot.market.ticker import Ticker

__all__ = ["BinanceTap", "can_tap", "number", "side", "tapped"]


class BinanceTap:
    """Turn bookTicker and 24hrTicker messages into tickers.

    Books carry neither price nor time: each goes out with the symbol's latest `last` and volume, stamped on receipt,
    and with the age of the ticker feed beside it. One clock a symbol: tickers are stamped on receipt as well; they go
    out with the book that they carry, which belongs to their price. A side of a book whose price and size are zero is
    empty, and absent here.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._deliver: Callable[[Ticker], None] = _nowhere
        self._symbols: dict[str, str] = {}
        self._last: dict[str, tuple[float | None, float | None, int]] = {}

    def begin(self, symbols: Mapping[str, str], deliver: Callable[[Ticker], None]) -> None:
        """Begin a connection: know the symbols by the exchange's own ids, forget what older connections said."""
        self._symbols = dict(symbols)
        self._deliver = deliver
        self._last.clear()

    def take(self, message: Any) -> None:
        """Take in one event, whichever it is."""
        if isinstance(message, dict) and "e" in message:
            self.ticker(message)
        else:
            self.book(message)

    def book(self, message: Any) -> None:
        """Take in one bookTicker message; before the first ticker there is no price to go with it."""
        symbol = self._symbols.get(str(message.get("s"))) if isinstance(message, dict) else None
        if symbol is None or symbol not in self._last:
            return
        now = self._now_ms()
        bid, ask, bid_size, ask_size = _book(message)
        last, volume, heard_ms = self._last[symbol]
        self._deliver(Ticker(symbol, now, last, bid, ask, volume, bid_size, ask_size, now, max(now - heard_ms, 0)))

    def ticker(self, message: Any) -> None:
        """Take in one 24hrTicker message."""
        symbol = self._symbols.get(str(message.get("s"))) if isinstance(message, dict) else None
        if symbol is None or message.get("e") != "24hrTicker":
            return
        now = self._now_ms()
        last, volume, sent_ms = number(message.get("c")), number(message.get("q")), message.get("E")
        age_ms = now - sent_ms if isinstance(sent_ms, int) else 0
        self._last[symbol] = last, volume, now - max(age_ms, 0)
        bid, ask, bid_size, ask_size = _book(message)
        self._deliver(Ticker(symbol, now, last, bid, ask, volume, bid_size, ask_size, now, max(age_ms, 0)))


def side(price: Any, size: Any) -> tuple[Any, Any]:
    """Return price and size of one side of a book, (None, None) where it is empty: Binance then writes zeros."""
    return (None, None) if size == 0 and price in (None, 0) else (price, size)


def can_tap(kind: Any) -> bool:
    """Return whether an exchange's class has the two handlers that BinanceTap understands."""
    return kind.__name__ in ("binance", "binanceus") and hasattr(kind, "handle_bids_asks")


def tapped(kind: Any, tap: BinanceTap) -> Any:
    """Return a subclass that hands books and tickers to `tap`, and to nobody else: ccxt's own parser is left out."""

    class Tapped(kind):  # type: ignore[misc]
        def handle_bids_asks(self, _client: Any, message: Any) -> None:
            tap.book(message)

        def handle_tickers(self, _client: Any, message: Any) -> None:
            for row in message if isinstance(message, list) else (message,):
                tap.ticker(row)

    Tapped.__name__ = kind.__name__
    return Tapped


def _book(message: Any) -> tuple[Any, Any, Any, Any]:
    bid, bid_size = side(number(message.get("b")), number(message.get("B")))
    ask, ask_size = side(number(message.get("a")), number(message.get("A")))
    return bid, ask, bid_size, ask_size


def number(text: Any) -> Any:
    """Return the number that a text states; what states none as it is, for the guards to say so."""
    if isinstance(text, str):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _nowhere(_: Ticker) -> None:
    return
