"""The embedded exchange's in-process twin: the same requests, answers and events, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson

from tradingbot.exchange.ccxt_client import retry_after_s
from tradingbot.exchange.errors import (
    BadAnswerError,
    ExchangeTroubleError,
    HeldBackError,
    UnknownSymbolError,
    UnreachableError,
)
from tradingbot.exchange.feeds import BinanceTap, number, side
from tradingbot.exchange.protocol import Abilities, MarketFacts
from tradingbot.market.ticker import Ticker
from tradingbot.simulated.core import Core, Request
from tradingbot.simulated.faults import Manner
from tradingbot.simulated.streams import MarketStream

__all__ = ["TwinExchange"]

TURN_S = 1.0  # what falls due within it is delivered in one turn, each event at its own time


class TwinExchange:
    """Speak to an embedded exchange in this process.

    `now_ms` gives the exchange's time; `at` is told the time of each event before it is delivered (None: no more), so
    that a clock which follows it stamps the event with the very millisecond at which it was due. A request takes no
    time, or fails after `timeout_s` where a fault keeps its answer back.
    """

    name = "embedded"
    abilities = Abilities(streams=True, batched=True, note="in_this_process")

    def __init__(
        self, core: Core, now_ms: Callable[[], int], at: Callable[[int | None], None], timeout_s: float
    ) -> None:
        self._core, self._now_ms, self._at, self._timeout_s = core, now_ms, at, timeout_s
        self._tap = BinanceTap(now_ms)
        self._symbols: dict[str, str] = {}

    async def load(self) -> dict[str, MarketFacts]:
        """Return the spot markets by symbol."""
        rows = (await self._ask("exchangeInfo"))["symbols"]
        markets = {}
        for row in rows:
            symbol = f"{row['baseAsset']}/{row['quoteAsset']}"
            filters = {item["filterType"]: item for item in row["filters"]}
            markets[symbol] = MarketFacts(
                symbol, row["symbol"], row["quoteAsset"], row["status"] == "TRADING",
                float(filters["LOT_SIZE"]["stepSize"]), float(filters["NOTIONAL"]["minNotional"]),
            )  # fmt: skip
        self._symbols = {market.market_id: symbol for symbol, market in markets.items()}
        return markets

    async def tickers(self, symbols: Sequence[str]) -> list[Ticker]:
        """Return one ticker for each symbol that was answered."""
        ids = [symbol.replace("/", "") for symbol in symbols]
        rows = await self._ask("ticker/24hr", symbols=orjson.dumps(ids).decode())
        known = [row for row in rows if isinstance(row, dict) and row.get("symbol") in self._symbols]
        if not known:
            raise BadAnswerError("the answer to ticker/24hr has no ticker that was asked for")
        return [self._ticker(row) for row in known]

    def _ticker(self, row: dict[str, Any]) -> Ticker:
        bid, bid_size = side(number(row.get("bidPrice")), number(row.get("bidQty")))
        ask, ask_size = side(number(row.get("askPrice")), number(row.get("askQty")))
        recv_ms = self._now_ms()
        age_ms = max(recv_ms - row["closeTime"], 0) if isinstance(row.get("closeTime"), int) else None
        return Ticker(
            self._symbols[row["symbol"]], recv_ms, number(row.get("lastPrice")), bid, ask,
            number(row.get("quoteVolume")), bid_size, ask_size, recv_ms, age_ms,
        )  # fmt: skip

    async def time_ms(self) -> int | None:
        """Return the exchange's time in milliseconds."""
        return int((await self._ask("time"))["serverTime"])

    async def watch(self, symbols: Sequence[str], deliver: Callable[[Ticker], None]) -> None:
        """Deliver every update until the connection breaks, each at the time at which it falls due."""
        stream = MarketStream(self._core)
        ids = {symbol.replace("/", ""): symbol for symbol in symbols}
        self._tap.begin(ids, deliver)
        names = [f"{name.lower()}@{kind}" for kind in ("bookTicker", "ticker") for name in ids]
        stream.receive(orjson.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}).decode(), self._now_ms())
        while not any(True for _ in self._core.faults.active("sockets", self._now_ms())):
            await asyncio.sleep(TURN_S)
            for ms, event in stream.events(self._now_ms()):
                self._at(ms)
                self._tap.take(event)
            self._at(None)
        raise UnreachableError("a stream ended")

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def _ask(self, name: str, **words: str) -> Any:
        answer = self._core.handle(Request("GET", f"/api/v3/{name}", urlencode(words)), self._now_ms())
        if answer.delivery.manner is not Manner.WHOLE:
            await asyncio.sleep(min(self._timeout_s, answer.delivery.seconds or self._timeout_s))
            if answer.delivery.manner is not Manner.DELAY or answer.delivery.seconds >= self._timeout_s:
                raise UnreachableError(f"{name}: {answer.delivery.manner}")
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise BadAnswerError(f"{name}: an answer that is no JSON") from None
        if answer.status != 200:
            raise _trouble(answer.status, document, answer.headers)
        return document


def _trouble(status: int, document: Any, headers: dict[str, str]) -> ExchangeTroubleError:
    code = document.get("code") if isinstance(document, dict) else None
    text = f"{status} {document.get('msg') if isinstance(document, dict) else ''}"
    if status in (418, 429):
        return HeldBackError(text, retry_after_s(headers))
    return UnknownSymbolError(text) if code == -1121 else BadAnswerError(text)
