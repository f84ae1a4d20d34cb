"""Streams of the embedded exchange without sockets: what a connection asks for, and what is due on it."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tradingbot.simulated import payloads
from tradingbot.simulated.core import Core
from tradingbot.simulated.faults import VALUES, Fault, alter

__all__ = ["MarketStream", "UserStream"]

KINDS = ("ticker", "miniTicker", "bookTicker", "trade", "aggTrade")  # the order of what one update brings
GARBAGE = b"\x00\x01{garbage"
TICKERS = ("ticker", "miniTicker")

_Event = tuple[
    int, int, int, int, int, dict[str, Any] | None
]  # time, place of the symbol, number, rank, place of the subscription


@dataclass(slots=True)
class _Subscription:
    """Hold one stream of a connection, and the number of the last event that it was told."""

    symbol: str
    kind: str
    told: int
    is_stale: bool = False


class MarketStream:
    """Hold one connection's subscriptions and how far each has been told."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._subscriptions: dict[str, _Subscription] = {}
        self._places = {symbol: place for place, symbol in enumerate(core.names.values())}

    def receive(self, text: str, now: int) -> bytes:
        """Take in a SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS; return the answer."""
        try:
            message = orjson.loads(text)
            method, names, number = message["method"], message.get("params", []), message.get("id")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return _error(None, "Invalid JSON")
        if method == "LIST_SUBSCRIPTIONS":
            return orjson.dumps({"result": list(self._subscriptions), "id": number})
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE") or not isinstance(names, list):
            return _error(number, "Unknown method")
        for name in names:
            if method == "UNSUBSCRIBE":
                self._subscriptions.pop(str(name), None)
                continue
            parsed = self._parse(str(name))
            if parsed is None:
                return _error(number, f"Invalid stream {str(name)[:40]}")
            self._subscriptions.setdefault(str(name), _Subscription(*parsed, self._last(*parsed, now)))
        return orjson.dumps({"result": None, "id": number})

    def due(self, now: int) -> Iterator[bytes]:
        """Yield every event up to `now` that has not been told yet, in order of time, an update's ticker first."""
        for _, event in self.events(now):
            if not self._core.faults:
                yield orjson.dumps(event)
            else:  # a fault can ask for a value that only a careless exchange would write
                yield GARBAGE if event is None else json.dumps(event).encode()

    def events(self, now: int) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield the events of `due` with their times, None for garbage.

        Events are made one by one as they are asked for, so that a long absence costs no memory.
        """
        subscriptions = list(self._subscriptions.values())  # others may come while this runs
        streams = []
        for place, subscription in enumerate(subscriptions):
            faults = self._faults(subscription, now)
            span = self._span(subscription, faults, now)
            if span:
                streams.append(self._events(subscription, place, span, faults))
        for ms, _, number, _, place, event in heapq.merge(*streams):
            subscriptions[place].told = number
            yield ms, event

    def _span(self, subscription: _Subscription, faults: Sequence[Fault], now: int) -> range:
        """Return the numbers of the events that are due."""
        lag_ms = max((int(fault.seconds * 1000) for fault in faults if fault.does == "stale"), default=0)
        is_stale, last = lag_ms > 0, self._last(subscription.symbol, subscription.kind, now - lag_ms)
        silent = any(fault.does == "silent" for fault in faults)
        if silent or self._core.state(subscription.symbol, now) != "trading":
            subscription.told = last
        elif subscription.is_stale != is_stale:
            subscription.is_stale, subscription.told = is_stale, last - 1
        behind = self._core.market.max_behind
        return range(subscription.told + 1 if behind is None else max(subscription.told + 1, last - behind), last + 1)

    def _events(
        self, subscription: _Subscription, place: int, span: range, faults: Sequence[Fault]
    ) -> Iterator[_Event]:
        symbol, kind = subscription.symbol, subscription.kind
        rank, symbol_place = KINDS.index(kind), self._places[symbol]
        for number in span:
            ms, event = self._event(symbol, kind, number)
            if event is None:
                subscription.told = number
                continue
            for fault in faults:
                if fault.does in VALUES:
                    event = alter(fault, event)
            if any(fault.does == "garbage" for fault in faults):
                event = None
            yield ms, symbol_place, number, rank, place, event

    def _faults(self, subscription: _Subscription, now: int) -> list[Fault]:
        if not self._core.faults:
            return []
        target = f"stream {subscription.symbol.replace('/', '').lower()}@{subscription.kind}"
        return [fault for _, fault in self._core.faults.active(target, now)]

    def _parse(self, name: str) -> tuple[str, str] | None:
        market, _, kind = name.partition("@")
        symbol = self._core.names.get(market.upper())
        return (symbol, kind) if symbol is not None and kind in KINDS else None

    def _last(self, symbol: str, kind: str, now: int) -> int:
        market = self._core.market
        return market.ticker_number(symbol, now) if kind in TICKERS else market.number(symbol, now)

    def _event(self, symbol: str, kind: str, number: int) -> tuple[int, dict[str, Any] | None]:
        """Return an event and its time; None where an update brings none: no bookTicker without a book."""
        market = self._core.market
        if kind in TICKERS:
            statistics = market.ticker(symbol, number)
            make = payloads.stream_ticker if kind == "ticker" else payloads.mini_ticker
            return statistics.close_ms, make(statistics)
        update = market.update(symbol, number)
        if kind != "bookTicker":
            return update.ts_ms, payloads.stream_trade(update, number)
        return update.ts_ms, payloads.stream_book(update, number) if update.bid_size or update.ask_size else None


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
