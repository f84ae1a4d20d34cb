"""The embedded exchange without sockets or clocks: `handle(request, now) -> response`, in Binance's spot words."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl

import orjson

from tradingbot.simulated import payloads
from tradingbot.simulated.faults import WHOLE, Delivery, Fault, Faults
from tradingbot.simulated.faulty_market import FaultyMarket
from tradingbot.simulated.market import Market
from tradingbot.simulated.matching import Account, Order, OrderRefusedError

__all__ = ["Core", "Request", "Response"]

WEIGHT_LIMIT = 6000  # a minute
MINUTE_MS = 60_000
PREFIX = "/api/v3/"
WALLET = "/sapi/v1/"  # what belongs to the account as a whole; its names keep the prefix
JSON = {"Content-Type": "application/json;charset=UTF-8"}
HEARD = 10_000  # requests that are remembered
REFUSING = frozenset({"status", "ban"})  # faults that keep a request from having any effect
INTERVALS = {
    "1s": 1000, "1m": 60_000, "3m": 180_000, "5m": 300_000, "15m": 900_000, "30m": 1_800_000, "1h": 3_600_000,
    "2h": 7_200_000, "4h": 14_400_000, "6h": 21_600_000, "8h": 28_800_000, "12h": 43_200_000, "1d": 86_400_000,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """Hold one HTTP request; `query` and `body` as they were sent, for the signature is over them."""

    method: str
    path: str
    query: str = ""
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """Hold one HTTP response; `body` is JSON, unless a fault made it something else."""

    status: int
    body: bytes
    headers: dict[str, str]
    delivery: Delivery = WHOLE


class RefusedError(Exception):
    """Say why a request is refused, with the exchange's code and the HTTP status."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Core:
    """Answer requests about one market and one account; times are the exchange's, in milliseconds.

    Whoever calls says what time it is, and must never say an earlier one than before. `orders_seen` counts the requests
    that would place or cancel an order: an observing bot makes none.
    """

    def __init__(
        self,
        market: Market,
        api_key: str = "key",
        api_secret: str = "secret",  # noqa: S107
        faults: Faults | None = None,
    ) -> None:
        self.faults = Faults() if faults is None else faults
        self.market = market = FaultyMarket(market, self.faults) if self.faults else market
        self.speed = 1.0  # of its clock, for whoever asks the time
        self.heard: deque[tuple[int, str, int]] = deque(maxlen=HEARD)
        self._now = 0
        self.account = Account(market, {"USDT": Decimal(10_000)})
        self.orders_seen = 0
        self._key, self._secret = api_key, api_secret
        self.names = {symbol.replace("/", ""): symbol for symbol in market.symbols}
        self._weight, self._minute = 0, -1
        self._reports: list[dict[str, Any]] = []
        self._routes: dict[tuple[str, str], tuple[int, Callable[[dict[str, str], int], Any]]] = {
            ("GET", "ping"): (1, lambda _, __: {}),
            ("GET", "time"): (1, lambda _, now: {"serverTime": now, "speed": self.speed}),
            ("GET", "exchangeInfo"): (20, self._exchange_info),
            ("GET", "ticker/24hr"): (2, self._tickers),
            ("GET", "ticker/bookTicker"): (2, self._books),
            ("GET", "ticker/price"): (2, self._prices),
            ("GET", "depth"): (5, self._depth),
            ("GET", "klines"): (2, self._klines),
            ("GET", "aggTrades"): (4, self._trades),
            ("GET", "trades"): (4, self._trades),
            ("GET", "account"): (20, self._account),
            ("GET", WALLET + "system/status"): (1, lambda _, __: {"status": 0, "msg": "normal"}),
            ("GET", WALLET + "account/apiRestrictions"): (1, self._restrictions),
            ("GET", "openOrders"): (6, self._open_orders),
            ("GET", "allOrders"): (20, self._all_orders),
            ("GET", "myTrades"): (20, self._my_trades),
            ("POST", "order"): (1, self._place),
            ("GET", "order"): (4, self._query),
            ("DELETE", "order"): (1, self._cancel),
        }
        self._signed = {"account", "openOrders", "allOrders", "myTrades", "order", WALLET + "account/apiRestrictions"}
        self.can_withdraw = False  # what its API key may do beside trading

    def handle(self, request: Request, now: int) -> Response:
        """Answer one request at `now`."""
        what = f"{request.method} {request.path.removeprefix(PREFIX)}"
        fault = self.faults.meets(what, now) if self.faults else None
        response = self._refused(fault, now) if fault is not None and fault.does in REFUSING else None
        if response is None:
            response = self._answer(request, now)
            if fault is not None:
                status, body, headers, delivery = self.faults.answer(
                    fault, response.status, response.body, now, self.speed
                )
                response = Response(status, body, response.headers | headers, delivery)
        self.heard.append((now, what, response.status))
        return response

    def _refused(self, fault: Fault, now: int) -> Response:
        """Return the refusal of a request that does not come through to the account."""
        status, body, headers, delivery = self.faults.answer(fault, 200, b"", now, self.speed)
        return Response(status, body, JSON | headers, delivery)

    def _answer(self, request: Request, now: int) -> Response:
        self.advance(now)
        headers = dict(JSON)
        try:
            name = request.path.removeprefix(PREFIX)
            weight, answer = self._route(request, name)
            self._spend(weight, now, headers)
            words = dict(parse_qsl("&".join(filter(None, (request.query, request.body))), keep_blank_values=True))
            if name in self._signed:
                self._check_signature(request, words, now)
            return Response(200, orjson.dumps(answer(words, now)), headers)
        except RefusedError as error:
            return Response(error.status, _error(error.code, error.message), headers)
        except OrderRefusedError as error:
            return Response(400, _error(error.code, error.message), headers)

    def _route(self, request: Request, name: str) -> tuple[int, Callable[[dict[str, str], int], Any]]:
        route = self._routes.get((request.method, name))
        if route is None or (name == request.path and not name.startswith(WALLET)):
            raise RefusedError(404, -1000, f"there is no {request.method} {request.path} here")
        return route

    def advance(self, now: int) -> None:
        """Let resting orders meet the market up to `now`."""
        self._now = now
        for order in self.account.advance(now):
            self._report(order, "TRADE")

    def reports(self) -> list[dict[str, Any]]:
        """Take the user data events since the last call."""
        reports, self._reports = self._reports, []
        return reports

    def authorised(self, words: Mapping[str, Any]) -> bool:
        """Return whether signed parameters of the WebSocket API carry the right key and signature."""
        signed = "&".join(f"{name}={words[name]}" for name in sorted(words) if name != "signature")
        return words.get("apiKey") == self._key and self._is_signature(signed, str(words.get("signature", "")))

    def _is_signature(self, text: str, signature: str) -> bool:
        expected = hmac.new(self._secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected.encode(), signature.encode())

    def _spend(self, weight: int, now: int, headers: dict[str, str]) -> None:
        minute = now // MINUTE_MS
        if minute != self._minute:
            self._minute, self._weight = minute, 0
        self._weight += weight
        headers["X-MBX-USED-WEIGHT"] = headers["X-MBX-USED-WEIGHT-1M"] = str(self._weight)
        if self._weight > WEIGHT_LIMIT:
            left_s = ((minute + 1) * MINUTE_MS - now) / 1000 / self.speed  # of whoever waits, not of this clock
            headers["Retry-After"] = str(math.ceil(left_s))
            status = 418 if self._weight > 2 * WEIGHT_LIMIT else 429
            raise RefusedError(status, -1003, "Too much request weight used; please wait.")

    def _check_signature(self, request: Request, words: dict[str, str], now: int) -> None:
        key = {name.lower(): value for name, value in request.headers.items()}.get("x-mbx-apikey")
        if key is None:
            raise RefusedError(401, -2014, "API-key format invalid.")
        if key != self._key:
            raise RefusedError(401, -2015, "Invalid API-key, IP, or permissions for action.")
        whole = "&".join(filter(None, (request.query, request.body)))
        text, _, signature = whole.rpartition("&signature=")
        if not self._is_signature(text, signature):
            raise RefusedError(400, -1022, "Signature for this request is not valid.")
        try:
            sent, window = int(words["timestamp"]), int(words.get("recvWindow", 5000))
        except (KeyError, ValueError):
            raise RefusedError(400, -1102, "Mandatory parameter 'timestamp' was not sent or is malformed.") from None
        if sent > now + 1000:
            raise RefusedError(400, -1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if now - sent > window:
            raise RefusedError(400, -1021, "Timestamp for this request is outside of the recvWindow.")

    def symbol(self, words: Mapping[str, str]) -> str:
        """Return the symbol that a request names."""
        symbol = self.names.get(words.get("symbol", ""))
        if symbol is None or self.state(symbol, self._now) == "gone":
            raise RefusedError(400, -1121, "Invalid symbol.")
        return symbol

    def state(self, symbol: str, now: int) -> str:
        """Return whether a market is `trading`, `halted` or `gone`."""
        return self.faults.market_state(symbol, now) if self.faults else "trading"

    def _symbols(self, words: Mapping[str, str]) -> Iterator[str]:
        if "symbol" in words:
            yield self.symbol(words)
        elif "symbols" in words:
            try:
                names = orjson.loads(words["symbols"])
            except orjson.JSONDecodeError:
                names = None
            if not isinstance(names, list) or not names:
                raise RefusedError(400, -1100, "Illegal characters found in parameter 'symbols'.")
            for name in names:
                yield self.symbol({"symbol": str(name)})
        else:
            yield from (symbol for symbol in self.names.values() if self.state(symbol, self._now) != "gone")

    def _listed(self, words: Mapping[str, str], make: Callable[[str], Any]) -> Any:
        if "symbol" in words:
            return make(self._begun(self.symbol(words)))
        return [make(symbol) for symbol in self._symbols(words) if self.market.number(symbol, self._now) >= 0]

    def _begun(self, symbol: str) -> str:
        """Return a symbol; refuse one that a recording has no price of yet: who asks must not learn what is to come."""
        if self.market.number(symbol, self._now) < 0:
            raise RefusedError(400, -1000, "Nothing has been traded yet.")
        return symbol

    def _exchange_info(self, words: dict[str, str], now: int) -> Any:
        markets = [
            payloads.market(symbol, self.market.terms(symbol), self.state(symbol, now) == "trading")
            for symbol in self._symbols(words)
        ]
        return {"timezone": "UTC", "serverTime": now, "rateLimits": payloads.RATE_LIMITS, "exchangeFilters": [],
                "symbols": markets}  # fmt: skip

    def _tickers(self, words: dict[str, str], now: int) -> Any:
        return self._listed(words, lambda symbol: payloads.ticker(self.market.statistics(symbol, now)))

    def _books(self, words: dict[str, str], now: int) -> Any:
        return self._listed(words, lambda symbol: payloads.book(self._book(symbol, now)))

    def _prices(self, words: dict[str, str], now: int) -> Any:
        return self._listed(
            words,
            lambda symbol: {"symbol": symbol.replace("/", ""), "price": payloads.exact(self._book(symbol, now).last)},
        )

    def _book(self, symbol: str, now: int) -> Any:
        return self.market.update(symbol, self.market.number(symbol, now))

    def _depth(self, words: dict[str, str], now: int) -> Any:
        symbol = self._begun(self.symbol(words))
        limit = _integer(words, "limit", 100, 1, 5000)
        terms, number = self.market.terms(symbol), self.market.number(symbol, now)
        return payloads.depth(self.market.update(symbol, number), number, terms, min(limit, 100))

    def _klines(self, words: dict[str, str], now: int) -> Any:
        symbol, limit = self.symbol(words), _integer(words, "limit", 500, 1, 1000)
        bar_ms = INTERVALS.get(words.get("interval", ""))
        if bar_ms is None:
            raise RefusedError(400, -1120, "Invalid interval.")
        end = min(_integer(words, "endTime", now, 0, 1 << 62), now)
        start = _integer(words, "startTime", end - (limit - 1) * bar_ms, 0, 1 << 62)
        opens = range(-(-start // bar_ms) * bar_ms, end + 1, bar_ms)
        if "startTime" not in words:
            opens = range((end // bar_ms - limit + 1) * bar_ms, end + 1, bar_ms)
        return [  # the last candle only so far: who asks must not learn what is still to come
            payloads.kline(self.market.candle(symbol, open_ms, min(bar_ms, now + 1 - open_ms)), bar_ms)
            for open_ms in opens[:limit]
        ]

    def _trades(self, words: dict[str, str], now: int) -> Any:
        symbol, limit = self.symbol(words), _integer(words, "limit", 500, 1, 1000)
        last = self.market.number(symbol, min(_integer(words, "endTime", now, 0, 1 << 62), now))
        if "startTime" in words:
            first = self.market.number(symbol, _integer(words, "startTime", 0, 0, 1 << 62) - 1) + 1
            last = min(last, first + limit - 1)
        else:
            first = _integer(words, "fromId", last - limit + 1, 0, 1 << 62)
            last = min(last, first + limit - 1)
        numbers = range(max(first, 0), last + 1)  # none before the first of a market that has one
        return [payloads.trade(self.market.update(symbol, number), number) for number in numbers]

    def _account(self, _: dict[str, str], now: int) -> Any:
        return payloads.account(self.account, now)

    def _restrictions(self, _: dict[str, str], __: int) -> Any:
        return {"ipRestrict": False, "enableReading": True, "enableWithdrawals": self.can_withdraw}

    def _open_orders(self, words: dict[str, str], _: int) -> Any:
        symbol = self.symbol(words) if "symbol" in words else None
        return [payloads.order(order) for order in self.account.open_orders(symbol)]

    def _all_orders(self, words: dict[str, str], _: int) -> Any:
        symbol = self.symbol(words)
        return [payloads.order(order) for order in self.account.orders.values() if order.symbol == symbol][-500:]

    def _my_trades(self, words: dict[str, str], _: int) -> Any:
        symbol = self.symbol(words)
        orders = [order for order in self.account.orders.values() if order.symbol == symbol]
        return [payloads.my_trade(order, fill) for order in orders for fill in order.fills][-500:]

    def _place(self, words: dict[str, str], now: int) -> Any:
        self.orders_seen += 1
        symbol, side, kind = self.symbol(words), words.get("side", ""), words.get("type", "")
        if side not in ("BUY", "SELL") or kind not in ("MARKET", "LIMIT"):
            raise RefusedError(400, -1116, "Invalid orderType or side.")
        qty, price, quote_qty = (_decimal(words, name) for name in ("quantity", "price", "quoteOrderQty"))
        if (qty is None and (quote_qty is None or kind == "LIMIT")) or (kind == "LIMIT" and price is None):
            raise RefusedError(400, -1102, "Mandatory parameter 'quantity' or 'price' was not sent.")
        order = self.account.place(
            now, symbol, side, kind, qty, price, quote_qty, words.get("newClientOrderId", ""),
            words.get("timeInForce", "GTC"),
        )  # fmt: skip
        self._report(order, "NEW")
        if order.fills:
            self._report(order, "TRADE")
        return payloads.placed(order)

    def _found(self, words: dict[str, str]) -> Order:
        order_id = _integer(words, "orderId", 0, 0, 1 << 62) or None
        return self.account.find(self.symbol(words), order_id, words.get("origClientOrderId"))

    def _query(self, words: dict[str, str], _: int) -> Any:
        return payloads.order(self._found(words))

    def _cancel(self, words: dict[str, str], now: int) -> Any:
        self.orders_seen += 1
        try:
            order = self._found(words)
        except OrderRefusedError:
            raise OrderRefusedError(-2011, "Unknown order sent.") from None
        self.account.cancel(order, now)
        self._report(order, "CANCELED")
        return payloads.order(order)

    def _report(self, order: Order, what: str) -> None:
        self._reports.append(payloads.execution(order, what))
        self._reports.append(payloads.balances(self.account, order.updated_ms))


def _error(code: int, message: str) -> bytes:
    return orjson.dumps({"code": code, "msg": message})


def _integer(words: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = words.get(name)
    if text is None:
        return default
    try:
        return min(max(int(text), least), most)
    except ValueError:
        raise RefusedError(400, -1100, f"Illegal characters found in parameter '{name}'.") from None


def _decimal(words: Mapping[str, str], name: str) -> Decimal | None:
    text = words.get(name)
    if text is None:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise RefusedError(400, -1100, f"Illegal characters found in parameter '{name}'.")
    return number
