"""What the embedded exchange says, in the words of Binance's spot API."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from tradingbot.simulated.market import Candle, Quote, Statistics, Terms
from tradingbot.simulated.matching import Account, Fill, Order

__all__ = [
    "RATE_LIMITS", "account", "balances", "book", "depth", "exact", "execution", "kline", "market", "mini_ticker",
    "my_trade", "order", "placed", "stream_book", "stream_ticker", "stream_trade", "text", "ticker", "trade",
]  # fmt: skip

RATE_LIMITS = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}]
ZERO = "0.00000000"


def text(number: float | Decimal) -> str:
    """Return a number as the exchange writes it: no exponent, at least eight places."""
    return f"{number:.8f}" if isinstance(number, float) else f"{number:f}"


def exact(number: float) -> str:
    """Return a number with at least eight places, and with as many as it needs to be read back the same."""
    short = text(number)
    return short if float(short) == number else f"{Decimal(repr(number)):f}"


def _side(price: float, size: float) -> tuple[str, str]:
    """Return price and size of one side of a book: nothing there has the price 0, as on Binance."""
    return (exact(price), exact(size)) if size else (ZERO, ZERO)


def _volumes(s: Statistics, base: str, quote: str) -> dict[str, str]:
    """Return the volumes under their names; what is not known is no member."""
    return {base: text(s.volume), quote: exact(s.last.quote_volume)} if math.isfinite(s.volume) else {}


def _name(symbol: str) -> str:
    return symbol.replace("/", "")


def market(symbol: str, terms: Terms, is_trading: bool = True) -> dict[str, Any]:
    """Return one market of exchangeInfo."""
    step, tick = text(terms.amount_step), text(terms.price_step)
    return {
        "symbol": _name(symbol),
        "status": "TRADING" if is_trading else "BREAK",
        "baseAsset": terms.base,
        "baseAssetPrecision": 8,
        "quoteAsset": terms.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "90000000.00000000", "stepSize": step},
            {"filterType": "NOTIONAL", "minNotional": text(terms.min_notional), "applyMinToMarket": True,
             "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
        ],
    }  # fmt: skip


def ticker(s: Statistics) -> dict[str, Any]:
    """Return one row of ticker/24hr."""
    q = s.last
    change = q.last - s.open
    (bid, bid_size), (ask, ask_size) = _side(q.bid, q.bid_size), _side(q.ask, q.ask_size)
    return {
        "symbol": _name(q.symbol), "priceChange": text(change), "priceChangePercent": f"{change / s.open * 100:.3f}",
        "weightedAvgPrice": text(s.average), "prevClosePrice": exact(s.open), "lastPrice": exact(q.last),
        "lastQty": bid_size, "bidPrice": bid, "bidQty": bid_size, "askPrice": ask, "askQty": ask_size,
        "openPrice": exact(s.open), "highPrice": exact(s.high), "lowPrice": exact(s.low),
        **_volumes(s, "volume", "quoteVolume"), "openTime": s.open_ms, "closeTime": s.close_ms,
        "firstId": s.first_number, "lastId": s.last_number, "count": s.last_number - s.first_number + 1,
    }  # fmt: skip


def stream_ticker(s: Statistics) -> dict[str, Any]:
    """Return one 24hrTicker event."""
    q = s.last
    change = q.last - s.open
    (bid, bid_size), (ask, ask_size) = _side(q.bid, q.bid_size), _side(q.ask, q.ask_size)
    return {
        "e": "24hrTicker", "E": s.close_ms, "s": _name(q.symbol), "p": text(change),
        "P": f"{change / s.open * 100:.3f}", "w": text(s.average), "x": exact(s.open), "c": exact(q.last),
        "Q": bid_size, "b": bid, "B": bid_size, "a": ask, "A": ask_size,
        "o": exact(s.open), "h": exact(s.high), "l": exact(s.low), **_volumes(s, "v", "q"),
        "O": s.open_ms, "C": s.close_ms, "F": s.first_number, "L": s.last_number,
        "n": s.last_number - s.first_number + 1,
    }  # fmt: skip


def mini_ticker(s: Statistics) -> dict[str, Any]:
    """Return one 24hrMiniTicker event."""
    return {
        "e": "24hrMiniTicker", "E": s.close_ms, "s": _name(s.last.symbol), "c": exact(s.last.last), "o": exact(s.open),
        "h": exact(s.high), "l": exact(s.low), **_volumes(s, "v", "q"),
    }  # fmt: skip


def book(q: Quote) -> dict[str, Any]:
    """Return one row of ticker/bookTicker."""
    (bid, bid_size), (ask, ask_size) = _side(q.bid, q.bid_size), _side(q.ask, q.ask_size)
    return {"symbol": _name(q.symbol), "bidPrice": bid, "bidQty": bid_size, "askPrice": ask, "askQty": ask_size}


def stream_book(q: Quote, number: int) -> dict[str, Any]:
    """Return one bookTicker event."""
    (bid, bid_size), (ask, ask_size) = _side(q.bid, q.bid_size), _side(q.ask, q.ask_size)
    return {"u": number, "s": _name(q.symbol), "b": bid, "B": bid_size, "a": ask, "A": ask_size}


def depth(q: Quote, number: int, terms: Terms, limit: int) -> dict[str, Any]:
    """Return an order book: the best level as the market has it, thicker ones behind; of an empty side no level."""
    return {
        "lastUpdateId": number,
        "bids": _levels(q.bid, q.bid_size, -terms.price_step, limit),
        "asks": _levels(q.ask, q.ask_size, terms.price_step, limit),
    }


def _levels(best: float, size: float, step: Decimal, limit: int) -> list[list[str]]:
    prices = [Decimal(repr(best)) + place * step for place in range(limit if size else 0)]
    return [[text(price), text(size * (1 + place))] for place, price in enumerate(prices) if price > 0]


def kline(c: Candle, bar_ms: int) -> list[Any]:
    """Return one row of klines."""
    half, half_quote = text(c.volume / 2), text(c.quote_volume / 2)
    return [
        c.open_ms, exact(c.open), exact(c.high), exact(c.low), exact(c.close), text(c.volume), c.open_ms + bar_ms - 1,
        text(c.quote_volume), c.updates, half, half_quote, "0",
    ]  # fmt: skip


def trade(q: Quote, number: int) -> dict[str, Any]:
    """Return one row of aggTrades (and of trades: the names of both)."""
    qty, maker = text(q.bid_size / 10), q.last == q.bid
    return {
        "a": number, "p": exact(q.last), "q": qty, "f": number, "l": number, "T": q.ts_ms, "m": maker, "M": True,
        "id": number, "price": exact(q.last), "qty": qty, "time": q.ts_ms, "isBuyerMaker": maker, "isBestMatch": True,
    }  # fmt: skip


def stream_trade(q: Quote, number: int) -> dict[str, Any]:
    """Return one trade event."""
    return {
        "e": "trade", "E": q.ts_ms, "s": _name(q.symbol), "t": number, "p": exact(q.last), "q": text(q.bid_size / 10),
        "T": q.ts_ms, "m": q.last == q.bid, "M": True,
    }  # fmt: skip


def account(a: Account, now: int) -> dict[str, Any]:
    """Return the account: permissions and balances."""
    return {
        "makerCommission": 10, "takerCommission": 10, "canTrade": True, "canWithdraw": False, "canDeposit": False,
        "updateTime": now, "accountType": "SPOT", "permissions": ["SPOT"], "uid": 1,
        "balances": [
            {"asset": asset, "free": text(free), "locked": text(a.locked.get(asset, Decimal(0)))}
            for asset, free in a.free.items()
        ],
    }  # fmt: skip


def order(o: Order) -> dict[str, Any]:
    """Return an order as a query answers it."""
    return {
        "symbol": _name(o.symbol), "orderId": o.order_id, "orderListId": -1, "clientOrderId": o.client_id,
        "price": text(o.price if o.kind == "LIMIT" else Decimal(0)), "origQty": text(o.qty),
        "executedQty": text(o.filled), "cummulativeQuoteQty": text(o.spent), "status": o.status,
        "timeInForce": o.time_in_force, "type": o.kind, "side": o.side, "stopPrice": ZERO,
        "icebergQty": ZERO, "time": o.ms, "updateTime": o.updated_ms, "isWorking": True, "workingTime": o.ms,
        "origQuoteOrderQty": ZERO, "selfTradePreventionMode": "NONE",
    }  # fmt: skip


def placed(o: Order) -> dict[str, Any]:
    """Return the answer to a new order, with its fills."""
    fills = [
        {"price": text(f.price), "qty": text(f.qty), "commission": text(f.fee), "commissionAsset": f.fee_asset,
         "tradeId": f.trade_id}
        for f in o.fills
    ]  # fmt: skip
    return order(o) | {"transactTime": o.ms, "fills": fills}


def my_trade(o: Order, f: Fill) -> dict[str, Any]:
    """Return one row of myTrades."""
    return {
        "symbol": _name(o.symbol), "id": f.trade_id, "orderId": o.order_id, "orderListId": -1, "price": text(f.price),
        "qty": text(f.qty), "quoteQty": text(f.qty * f.price), "commission": text(f.fee),
        "commissionAsset": f.fee_asset, "time": f.ms, "isBuyer": o.side == "BUY", "isMaker": f.maker,
        "isBestMatch": True,
    }  # fmt: skip


def execution(o: Order, what: str) -> dict[str, Any]:
    """Return one executionReport event: `what` is NEW, TRADE or CANCELED."""
    f = o.fills[-1] if what == "TRADE" else None
    return {
        "e": "executionReport", "E": o.updated_ms, "s": _name(o.symbol), "c": o.client_id, "S": o.side, "o": o.kind,
        "f": o.time_in_force, "q": text(o.qty), "p": text(o.price if o.kind == "LIMIT" else Decimal(0)), "P": ZERO,
        "F": ZERO, "g": -1, "C": "", "x": what, "X": "NEW" if what == "NEW" else o.status, "r": "NONE",
        "i": o.order_id, "l": text(f.qty) if f else ZERO, "z": ZERO if what == "NEW" else text(o.filled),
        "L": text(f.price) if f else ZERO, "n": text(f.fee) if f else "0", "N": f.fee_asset if f else None,
        "T": o.updated_ms, "t": f.trade_id if f else -1, "w": o.is_open, "m": f.maker if f else False, "O": o.ms,
        "Z": ZERO if what == "NEW" else text(o.spent), "Y": text(f.qty * f.price) if f else ZERO, "Q": ZERO,
    }  # fmt: skip


def balances(a: Account, ms: int) -> dict[str, Any]:
    """Return one outboundAccountPosition event."""
    return {
        "e": "outboundAccountPosition", "E": ms, "u": ms,
        "B": [
            {"a": asset, "f": text(free), "l": text(a.locked.get(asset, Decimal(0)))} for asset, free in a.free.items()
        ],
    }  # fmt: skip
