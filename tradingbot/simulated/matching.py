"""Matching: orders against the books of a market, balances to the last digit, and fills with their fees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Any

from tradingbot.simulated.market import Market, Quote

__all__ = ["Account", "Fill", "Order", "OrderRefusedError"]

FEE_RATE = Decimal("0.001")  # in what is received
MAX_UPDATES = 5000  # looked at one by one for a resting order; over a longer gap evenly spread ones
UNIT = Decimal("0.00000001")


class OrderRefusedError(Exception):
    """Say why an order is refused, with the exchange's code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(slots=True)
class Fill:
    """Hold one fill: price in quote, quantity in base, fee in `fee_asset`."""

    trade_id: int
    ms: int
    price: Decimal
    qty: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool


@dataclass(slots=True)
class Order:
    """Hold an order and what became of it; quantities in base, `spent` in quote."""

    order_id: int
    client_id: str
    symbol: str
    side: str  # BUY or SELL
    kind: str  # MARKET or LIMIT
    time_in_force: str
    price: Decimal
    qty: Decimal
    ms: int
    status: str = "NEW"
    filled: Decimal = Decimal(0)
    spent: Decimal = Decimal(0)
    updated_ms: int = 0
    seen: int = 0  # the last update of the book that it was held against
    fills: list[Fill] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Return whether it can still be filled."""
        return self.status in ("NEW", "PARTIALLY_FILLED")


class Account:
    """Hold the balances and orders of one account on one market.

    Amounts are decimals: what is bought and sold adds up to the last digit. A market order is filled whole at the
    book's price; a limit order that does not cross rests until an update of the book crosses it.
    """

    def __init__(self, market: Market, start: Mapping[str, Decimal]) -> None:
        self._market = market
        self.free: dict[str, Decimal] = dict(start)
        self.locked: dict[str, Decimal] = {}
        self.orders: dict[int, Order] = {}
        self._open: dict[int, Order] = {}
        self._next_id = 1

    def place(
        self,
        ms: int,
        symbol: str,
        side: str,
        kind: str,
        qty: Decimal | None,
        price: Decimal | None = None,
        quote_qty: Decimal | None = None,
        client_id: str = "",
        time_in_force: str = "GTC",
    ) -> Order:
        """Take in an order and match it with the book of this moment; raise OrderRefusedError."""
        terms = self._market.terms(symbol)
        number = self._market.number(symbol, ms)
        book = self._market.update(symbol, number)
        ours = _price(book.ask if side == "BUY" else book.bid)
        limit = price if kind == "LIMIT" and price is not None else ours
        if qty is None:
            qty = (quote_qty or Decimal(0)) / ours
            qty -= qty % terms.amount_step
        if qty <= 0 or qty % terms.amount_step:
            raise OrderRefusedError(-1013, "Filter failure: LOT_SIZE")
        if kind == "LIMIT" and (limit <= 0 or limit % terms.price_step):  # the book's own price is no choice of theirs
            raise OrderRefusedError(-1013, "Filter failure: PRICE_FILTER")
        if qty * limit < terms.min_notional:
            raise OrderRefusedError(-1013, "Filter failure: NOTIONAL")
        if client_id and any(order.client_id == client_id for order in self._open.values()):
            raise OrderRefusedError(-2010, "Duplicate order sent.")
        asset, amount = (terms.quote, qty * limit) if side == "BUY" else (terms.base, qty)
        if self.free.get(asset, Decimal(0)) < amount:
            raise OrderRefusedError(-2010, "Account has insufficient balance for requested action.")
        order = Order(
            self._next_id, client_id or f"x-{self._next_id:012}", symbol, side, kind, time_in_force, limit, qty, ms,
            updated_ms=ms, seen=number,
        )  # fmt: skip
        self._next_id += 1
        self.orders[order.order_id] = order
        self._move(asset, -amount, amount)
        crosses = kind == "MARKET" or (ours <= limit if side == "BUY" else ours >= limit)
        if crosses:
            self._fill(order, ms, ours, qty, maker=False)
        elif time_in_force in ("IOC", "FOK"):
            self._finish(order, ms, "EXPIRED")
        else:
            self._open[order.order_id] = order
        return order

    def cancel(self, order: Order, ms: int) -> None:
        """Cancel an open order; raise OrderRefusedError where it is not open."""
        if not order.is_open:
            raise OrderRefusedError(-2011, "Unknown order sent.")
        self._finish(order, ms, "CANCELED")

    def advance(self, ms: int) -> Iterator[Order]:
        """Hold resting orders against the updates since they were last looked at; yield those that were filled."""
        for order in list(self._open.values()):
            last = self._market.number(order.symbol, ms)
            step = max(1, (last - order.seen) // MAX_UPDATES)
            for number in range(order.seen + step, last + 1, step):
                book = self._market.update(order.symbol, number)
                order.seen = number
                if self._is_crossed(order, book):
                    self._fill(order, book.ts_ms, order.price, order.qty - order.filled, maker=True)
                    yield order
                    break

    def find(self, symbol: str, order_id: int | None, client_id: str | None) -> Order:
        """Return an order by its id or the client's; raise OrderRefusedError."""
        for order in reversed(self.orders.values()):
            if order.symbol == symbol and (order.order_id == order_id or (client_id and order.client_id == client_id)):
                return order
        raise OrderRefusedError(-2013, "Order does not exist.")

    def open_orders(self, symbol: str | None) -> list[Order]:
        """Return the open orders, the oldest first."""
        return [order for order in self._open.values() if symbol in (None, order.symbol)]

    def record(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {
            "free": {asset: str(amount) for asset, amount in self.free.items()},
            "locked": {asset: str(amount) for asset, amount in self.locked.items()},
            "next_id": self._next_id,
            "orders": [_texts(asdict(order)) for order in self.orders.values()],
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """Go on from what `record` returned."""
        self.free = {asset: _finite(amount) for asset, amount in record["free"].items()}
        self.locked = {asset: _finite(amount) for asset, amount in record["locked"].items()}
        self._next_id = record["next_id"]
        orders = [_order(values) for values in record["orders"]]
        self.orders = {order.order_id: order for order in orders}
        self._open = {order.order_id: order for order in orders if order.is_open}

    def _is_crossed(self, order: Order, book: Quote) -> bool:
        return _price(book.ask) <= order.price if order.side == "BUY" else _price(book.bid) >= order.price

    def _fill(self, order: Order, ms: int, price: Decimal, qty: Decimal, maker: bool) -> None:
        terms = self._market.terms(order.symbol)
        received, asset = (qty, terms.base) if order.side == "BUY" else (qty * price, terms.quote)
        fee = (received * FEE_RATE).quantize(UNIT, ROUND_DOWN)
        trade_id = sum(len(other.fills) for other in self.orders.values()) + 1
        order.fills.append(Fill(trade_id, ms, price, qty, fee, asset, maker))
        order.filled += qty
        order.spent += qty * price
        if order.side == "BUY":  # what was set aside at the limit and not needed goes back
            self._move(terms.quote, qty * (order.price - price), -qty * order.price)
        else:
            self._move(terms.base, Decimal(0), -qty)
        self._move(asset, received - fee, Decimal(0))
        order.updated_ms = ms
        order.status = "FILLED" if order.filled == order.qty else "PARTIALLY_FILLED"
        if not order.is_open:
            self._open.pop(order.order_id, None)

    def _finish(self, order: Order, ms: int, status: str) -> None:
        terms = self._market.terms(order.symbol)
        rest = order.qty - order.filled
        asset, amount = (terms.quote, rest * order.price) if order.side == "BUY" else (terms.base, rest)
        self._move(asset, amount, -amount)
        order.status, order.updated_ms = status, ms
        self._open.pop(order.order_id, None)

    def _move(self, asset: str, free: Decimal, locked: Decimal) -> None:
        self.free[asset] = self.free.get(asset, Decimal(0)) + free
        self.locked[asset] = self.locked.get(asset, Decimal(0)) + locked


def _price(price: float) -> Decimal:
    return Decimal(repr(price))


def _finite(text: str) -> Decimal:
    amount = Decimal(text)
    if not amount.is_finite():
        raise ValueError(f"an amount is {text}")
    return amount


def _texts(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    return [_texts(item) for item in value] if isinstance(value, list) else value


def _order(values: Mapping[str, Any]) -> Order:
    fills = [
        Fill(**{**fill, **{name: Decimal(fill[name]) for name in ("price", "qty", "fee")}}) for fill in values["fills"]
    ]
    amounts = {name: Decimal(values[name]) for name in ("price", "qty", "filled", "spent")}
    return Order(**{**values, **amounts, "fills": fills})
