"""Streams of the embedded exchange without sockets: what a connection asks for, and what is due on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from tradingbot.simulated import payloads
from tradingbot.simulated.core import Core

__all__ = ["MarketStream", "UserStream"]

TICKER_MS = 1000
MAX_BEHIND = 200  # updates of a symbol; who asks later has lost what is older


class MarketStream:
    """Hold one connection's subscriptions and how far each has been told."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._told: dict[str, int] = {}

    def receive(self, text: str, now: int) -> bytes:
        """Take in a SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS; return the answer."""
        try:
            message = orjson.loads(text)
            method, names, number = message["method"], message.get("params", []), message.get("id")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return _error(None, "Invalid JSON")
        if method == "LIST_SUBSCRIPTIONS":
            return orjson.dumps({"result": list(self._told), "id": number})
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE") or not isinstance(names, list):
            return _error(number, "Unknown method")
        for name in names:
            if method == "UNSUBSCRIBE":
                self._told.pop(name, None)
                continue
            parsed = self._parse(str(name))
            if parsed is None:
                return _error(number, f"Invalid stream {str(name)[:40]}")
            self._told.setdefault(str(name), self._place(*parsed, now))
        return orjson.dumps({"result": None, "id": number})

    def due(self, now: int) -> Iterator[bytes]:
        """Yield every event up to `now` that has not been told yet, stream by stream."""
        for name, told in self._told.items():
            parsed = self._parse(name)
            if parsed is None:
                continue
            symbol, kind = parsed
            place = self._place(symbol, kind, now)
            for number in range(max(told + 1, place - MAX_BEHIND), place + 1):
                yield orjson.dumps(self._event(symbol, kind, number))
            self._told[name] = max(place, told)

    def _parse(self, name: str) -> tuple[str, str] | None:
        market, _, kind = name.partition("@")
        symbol = self._core.names.get(market.upper())
        kinds = ("bookTicker", "ticker", "miniTicker", "trade", "aggTrade")
        return (symbol, kind) if symbol is not None and kind in kinds else None

    def _place(self, symbol: str, kind: str, now: int) -> int:
        if kind in ("ticker", "miniTicker"):  # once a second, spread over it
            return (now - self._offset(symbol)) // TICKER_MS
        return self._core.market.number(symbol, now)

    def _offset(self, symbol: str) -> int:
        return sum(symbol.encode()) * 37 % TICKER_MS

    def _event(self, symbol: str, kind: str, number: int) -> dict[str, Any]:
        market = self._core.market
        if kind in ("ticker", "miniTicker"):
            statistics = market.statistics(symbol, number * TICKER_MS + self._offset(symbol))
            return payloads.stream_ticker(statistics) if kind == "ticker" else payloads.mini_ticker(statistics)
        update = market.update(symbol, number)
        return payloads.stream_book(update, number) if kind == "bookTicker" else payloads.stream_trade(update, number)


class UserStream:
    """Hold one connection of the WebSocket API; user data flows once it has signed in."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.subscribed = False

    def receive(self, text: str) -> bytes:
        """Take in one request; return the answer."""
        try:
            message = orjson.loads(text)
            number, method, words = message.get("id"), message["method"], message.get("params", {})
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return _api_error(None, 400, -1100, "Invalid JSON")
        if method != "userDataStream.subscribe.signature":
            return _api_error(number, 400, -1100, "Unknown method")
        if not isinstance(words, dict) or not self._core.authorised(words):
            return _api_error(number, 401, -1022, "Signature for this request is not valid.")
        self.subscribed = True
        return orjson.dumps({"id": number, "status": 200, "result": {"subscriptionId": 0}})


def _error(number: object, message: str) -> bytes:
    return orjson.dumps({"error": {"code": 2, "msg": message}, "id": number})


def _api_error(number: object, status: int, code: int, message: str) -> bytes:
    return orjson.dumps({"id": number, "status": status, "error": {"code": code, "msg": message}})
