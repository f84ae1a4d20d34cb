"""What the embedded exchange says, in the words of Binance's spot API."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tradingbot.simulated.market import Candle, Quote, Statistics, Terms
from tradingbot.simulated.matching import Account, Fill, Order

__all__ = [
    "RATE_LIMITS", "account", "balances", "book", "depth", "execution", "kline", "market", "mini_ticker", "my_trade",
    "order", "placed", "stream_ticker", "stream_trade", "text", "ticker", "trade",
]  # fmt: skip

RATE_LIMITS = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}]


def text(number: float | Decimal) -> str:
    """Return a number as the exchange writes it: no exponent, at least eight places."""
    return f"{number:.8f}" if isinstance(number, float) else f"{number:f}"


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
    return {
        "symbol": _name(q.symbol), "priceChange": text(change), "priceChangePercent": f"{change / s.open * 100:.3f}",
        "weightedAvgPrice": text(s.average), "prevClosePrice": text(s.open), "lastPrice": text(q.last),
        "lastQty": text(q.bid_size), "bidPrice": text(q.bid), "bidQty": text(q.bid_size), "askPrice": text(q.ask),
        "askQty": text(q.ask_size), "openPrice": text(s.open), "highPrice": text(s.high), "lowPrice": text(s.low),
        "volume": text(s.volume), "quoteVolume": text(q.quote_volume), "openTime": s.open_ms, "closeTime": s.close_ms,
        "firstId": s.first_number, "lastId": s.last_number, "count": s.last_number - s.first_number + 1,
    }  # fmt: skip


def stream_ticker(s: Statistics) -> dict[str, Any]:
    """Return one 24hrTicker event."""
    q = s.last
    change = q.last - s.open
    return {
        "e": "24hrTicker", "E": s.close_ms, "s": _name(q.symbol), "p": text(change),
        "P": f"{change / s.open * 100:.3f}", "w": text(s.average), "x": text(s.open), "c": text(q.last),
        "Q": text(q.bid_size), "b": text(q.bid), "B": text(q.bid_size), "a": text(q.ask), "A": text(q.ask_size),
        "o": text(s.open), "h": text(s.high), "l": text(s.low), "v": text(s.volume), "q": text(q.quote_volume),
        "O": s.open_ms, "C": s.close_ms, "F": s.first_number, "L": s.last_number,
        "n": s.last_number - s.first_number + 1,
    }  # fmt: skip


def mini_ticker(s: Statistics) -> dict[str, Any]:
    """Return one 24hrMiniTicker event."""
    return {
        "e": "24hrMiniTicker", "E": s.close_ms, "s": _name(s.last.symbol), "c": text(s.last.last), "o": text(s.open),
        "h": text(s.high), "l": text(s.low), "v": text(s.volume), "q": text(s.last.quote_volume),
    }  # fmt: skip


def book(q: Quote) -> dict[str, Any]:
    """Return one row of ticker/bookTicker."""
    return {
        "symbol": _name(q.symbol), "bidPrice": text(q.bid), "bidQty": text(q.bid_size), "askPrice": text(q.ask),
        "askQty": text(q.ask_size),
    }  # fmt: skip


def stream_book(q: Quote, number: int) -> dict[str, Any]:
    """Return one bookTicker event."""
    return {
        "u": number, "s": _name(q.symbol), "b": text(q.bid), "B": text(q.bid_size), "a": text(q.ask),
        "A": text(q.ask_size),
    }  # fmt: skip


def depth(q: Quote, number: int, terms: Terms, limit: int) -> dict[str, Any]:
    """Return an order book: the best level as the market has it, thicker ones behind."""
    bid, ask = Decimal(repr(q.bid)), Decimal(repr(q.ask))
    levels = range(limit)
    bids = [[text(bid - place * terms.price_step), text(q.bid_size * (1 + place))] for place in levels]
    asks = [[text(ask + place * terms.price_step), text(q.ask_size * (1 + place))] for place in levels]
    return {"lastUpdateId": number, "bids": bids, "asks": asks}


def kline(c: Candle, bar_ms: int) -> list[Any]:
    """Return one row of klines."""
    half, half_quote = text(c.volume / 2), text(c.quote_volume / 2)
    return [
        c.open_ms, text(c.open), text(c.high), text(c.low), text(c.close), text(c.volume), c.open_ms + bar_ms - 1,
        text(c.quote_volume), c.updates, half, half_quote, "0",
    ]  # fmt: skip


def trade(q: Quote, number: int) -> dict[str, Any]:
    """Return one row of aggTrades (and of trades: the names of both)."""
    qty, maker = text(q.bid_size / 10), q.last == q.bid
    return {
        "a": number, "p": text(q.last), "q": qty, "f": number, "l": number, "T": q.ts_ms, "m": maker, "M": True,
        "id": number, "price": text(q.last), "qty": qty, "time": q.ts_ms, "isBuyerMaker": maker, "isBestMatch": True,
    }  # fmt: skip


def stream_trade(q: Quote, number: int) -> dict[str, Any]:
    """Return one trade event."""
    return {
        "e": "trade", "E": q.ts_ms, "s": _name(q.symbol), "t": number, "p": text(q.last), "q": text(q.bid_size / 10),
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
        "timeInForce": o.time_in_force, "type": o.kind, "side": o.side, "stopPrice": "0.00000000",
        "icebergQty": "0.00000000", "time": o.ms, "updateTime": o.updated_ms, "isWorking": True, "workingTime": o.ms,
        "origQuoteOrderQty": "0.00000000", "selfTradePreventionMode": "NONE",
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
    zero = "0.00000000"
    return {
        "e": "executionReport", "E": o.updated_ms, "s": _name(o.symbol), "c": o.client_id, "S": o.side, "o": o.kind,
        "f": o.time_in_force, "q": text(o.qty), "p": text(o.price if o.kind == "LIMIT" else Decimal(0)), "P": zero,
        "F": zero, "g": -1, "C": "", "x": what, "X": "NEW" if what == "NEW" else o.status, "r": "NONE",
        "i": o.order_id, "l": text(f.qty) if f else zero, "z": zero if what == "NEW" else text(o.filled),
        "L": text(f.price) if f else zero, "n": text(f.fee) if f else "0", "N": f.fee_asset if f else None,
        "T": o.updated_ms, "t": f.trade_id if f else -1, "w": o.is_open, "m": f.maker if f else False, "O": o.ms,
        "Z": zero if what == "NEW" else text(o.spent), "Y": text(f.qty * f.price) if f else zero, "Q": zero,
    }  # fmt: skip


def balances(a: Account, ms: int) -> dict[str, Any]:
    """Return one outboundAccountPosition event."""
    return {
        "e": "outboundAccountPosition", "E": ms, "u": ms,
        "B": [
            {"a": asset, "f": text(free), "l": text(a.locked.get(asset, Decimal(0)))} for asset, free in a.free.items()
        ],
    }  # fmt: skip
