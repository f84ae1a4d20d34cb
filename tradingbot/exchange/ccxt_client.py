"""ccxt behind the Exchange protocol: requests, taps on its streams, errors mapped once, secrets kept out."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import ccxt

from tradingbot.exchange.errors import (
    BadAnswerError,
    ExchangeTroubleError,
    HeldBackError,
    NoExchangeError,
    RefusedByExchangeError,
    UnknownSymbolError,
    UnreachableError,
    redact,
)
from tradingbot.exchange.feeds import BinanceTap, can_tap, side, tapped
from tradingbot.exchange.protocol import Abilities, MarketFacts
from tradingbot.market.ticker import Ticker

__all__ = ["CcxtExchange", "addresses", "map_error", "retry_after_s"]

Answer = TypeVar("Answer")
DEFAULT_RETRY_AFTER_S, LEAST_RETRY_AFTER_S, MOST_RETRY_AFTER_S = 60.0, 1.0, 7 * 86_400.0
MOST_NAMED = 100  # symbols in a request for tickers; more are asked for all together
NOWHERE = "http://127.0.0.1:9"  # the discard port: what must not leave the machine ends here


class CcxtExchange:
    """Speak to one exchange through ccxt.

    `exchange_id` is ccxt's, or "embedded" for the embedded exchange at `url`, which speaks Binance's words. `now_ms` is
    the session's clock; every ticker is stamped with it on receipt, and goes by the exchange's own time only where
    every feed tells one. A request ends within `timeout_s`.
    """

    def __init__(
        self,
        exchange_id: str,
        now_ms: Callable[[], int],
        timeout_s: float,
        url: str | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        import ccxt.pro  # 1.3 s: only where an exchange is really used

        self.name = exchange_id
        self._now_ms, self._timeout_s = now_ms, timeout_s
        ccxt_id = "binance" if exchange_id == "embedded" else exchange_id
        if ccxt_id not in ccxt.pro.exchanges and ccxt_id not in ccxt.exchanges:
            import difflib

            near = difflib.get_close_matches(ccxt_id, ccxt.exchanges, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise NoExchangeError(f"ccxt knows no exchange {ccxt_id!r}{hint}")
        options: dict[str, Any] = {"timeout": int(timeout_s * 1000), "enableRateLimit": True, "newUpdates": True}
        if credentials is not None:
            options["apiKey"], options["secret"] = credentials
        if ccxt_id == "binance":
            options["options"] = {
                "defaultType": "spot", "fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False,
                "fetchMargins": False, "order": {"maxRetriesOnFailure": 0},
            }  # fmt: skip
        kind: Any = getattr(ccxt.pro, ccxt_id, None) or getattr(ccxt.async_support, ccxt_id)
        self._tap: BinanceTap | None = BinanceTap(now_ms) if can_tap(kind) else None
        self._tells_time = self._tap is None  # books carry none; one clock for all feeds, and so the receipt's
        if self._tap is not None:
            kind = tapped(kind, self._tap)
        if url is not None:
            options["urls"] = {"api": addresses(kind, url)}
            options["enableRateLimit"] = False
            # one connection for all streams: only so do books and tickers arrive in the order in which they were sent
            options.setdefault("options", {}).update(
                streamLimits={"spot": 1}, subscriptionLimitByStream={"spot": 100_000}
            )
        self._ccxt: Any = kind(options)
        if url is not None:
            self._ccxt.get_exceptions_by_url = lambda _, key: self._ccxt.exceptions["spot"].get(key, {})
        self.held_back_until_s = 0.0  # of the loop's clock, for whoever else speaks to the same exchange
        has = self._ccxt.has
        self.abilities = Abilities(
            streams=self._tap is not None or bool(has.get("watchTicker")),
            batched=bool(has.get("fetchTickers")),
            note="books_and_tickers" if self._tap is not None else "tickers_one_by_one",
        )

    def __repr__(self) -> str:
        return f"<CcxtExchange {self.name}>"

    async def load(self) -> dict[str, MarketFacts]:
        """Return the spot markets by symbol."""
        self._ccxt.open()
        if hasattr(self._ccxt.session, "_retry_connection"):  # aiohttp repeats a GET after a reset, and says nothing
            self._ccxt.session._retry_connection = False
        markets = await self._ask(self._ccxt.load_markets(True))
        facts = {
            symbol: MarketFacts(
                symbol, market["id"], market["quote"], market.get("active") is not False,
                _positive(market["precision"].get("amount")), _positive(market["limits"]["cost"].get("min")),
            )
            for symbol, market in markets.items()
            if market.get("spot")
        }  # fmt: skip
        if not facts:  # ccxt makes this of HTML, of an empty body and of an empty list
            raise BadAnswerError("the answer to load_markets has no spot market")
        return facts

    async def tickers(self, symbols: Sequence[str]) -> list[Ticker]:
        """Return one ticker for each symbol that was answered."""
        if self.abilities.batched:
            wanted = list(symbols) if len(symbols) <= MOST_NAMED else None  # else an address that servers refuse
            rows = await self._ask(self._ccxt.fetch_tickers(wanted))
            if not isinstance(rows, dict):
                raise BadAnswerError("the answer to fetch_tickers is no table")
            found = [self._ticker(symbol, rows[symbol]) for symbol in symbols if isinstance(rows.get(symbol), dict)]
            if symbols and not found:
                raise BadAnswerError("the answer to fetch_tickers has no ticker that was asked for")
            return found
        return await self._one_by_one(symbols)

    async def _one_by_one(self, symbols: Sequence[str]) -> list[Ticker]:
        found: list[Ticker] = []
        trouble: ExchangeTroubleError | None = None
        for symbol in symbols:
            try:
                found.append(self._ticker(symbol, await self._ask(self._ccxt.fetch_ticker(symbol))))
            except HeldBackError:
                raise
            except ExchangeTroubleError as error:  # one symbol's trouble is its own
                trouble = error
        if trouble is not None and not found:
            raise trouble
        return found

    async def time_ms(self) -> int | None:
        """Return the exchange's time in milliseconds, None where it tells none."""
        if not self._ccxt.has.get("fetchTime"):
            return None
        answer = await self._ask(self._ccxt.fetch_time())
        return answer if isinstance(answer, int) else None

    async def watch(self, symbols: Sequence[str], deliver: Callable[[Ticker], None]) -> None:
        """Deliver every update until the connection breaks."""
        if self._tap is not None:
            known = self._ccxt.markets
            self._tap.begin({known[symbol]["id"]: symbol for symbol in symbols if symbol in known}, deliver)
            feeds = [
                self._ccxt.watch_bids_asks(list(symbols)),
                self._ccxt.watch_tickers(list(symbols), {"name": "ticker"}),
            ]
        else:
            feeds = [self._watch_one(symbol, deliver) for symbol in symbols]
        tasks = [asyncio.ensure_future(feed) for feed in feeds]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                raise map_error(error) if error is not None else UnreachableError("a stream ended")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close_streams()

    async def _watch_one(self, symbol: str, deliver: Callable[[Ticker], None]) -> None:
        while True:
            deliver(self._ticker(symbol, await self._ccxt.watch_ticker(symbol)))

    async def _close_streams(self) -> None:
        for client in list(self._ccxt.clients.values()):
            with contextlib.suppress(Exception):  # what cannot be closed is forgotten all the same
                await asyncio.wait_for(client.close(), 1)
        self._ccxt.clients.clear()

    async def close(self) -> None:
        """Close every connection."""
        with contextlib.suppress(Exception):  # at the end nothing is left that could be done about it
            await asyncio.wait_for(self._ccxt.close(), 5)

    async def _ask(self, request: Awaitable[Answer]) -> Answer:
        try:
            return await asyncio.wait_for(request, self._timeout_s + 0.25)
        except Exception as error:  # noqa: BLE001  (every failure of ccxt, mapped once)
            mapped = map_error(error, self._ccxt.last_response_headers)
            if isinstance(mapped, HeldBackError):
                self.held_back_until_s = asyncio.get_running_loop().time() + mapped.retry_after_s
            raise mapped from None

    def _ticker(self, symbol: str, row: dict[str, Any]) -> Ticker:
        recv_ms = self._now_ms()
        info = row.get("info")
        answered = info.get("symbol") if isinstance(info, dict) else None
        asked = self._ccxt.markets[symbol]["id"] if symbol in (self._ccxt.markets or {}) else None
        foreign = answered if isinstance(answered, str) and asked is not None and answered != asked else None
        ts = row.get("timestamp")
        if not isinstance(ts, int) or isinstance(ts, bool):
            self._tells_time, ts = False, recv_ms
        age_ms = None if self._tells_time else max(recv_ms - ts, 0)
        bid, bid_size = side(row.get("bid"), row.get("bidVolume"))
        ask, ask_size = side(row.get("ask"), row.get("askVolume"))
        return Ticker(
            symbol, ts if self._tells_time else recv_ms, row.get("last"), bid, ask, row.get("quoteVolume"), bid_size,
            ask_size, recv_ms, age_ms, foreign,
        )  # fmt: skip


def map_error(
    error: BaseException, headers: Mapping[str, str] | None = None
) -> ExchangeTroubleError | RefusedByExchangeError:
    """Return our error for one of ccxt's, or of the network's; its text carries no secret.

    `headers` are those of the last answer: a 429 or 418 says in them for how long it wants to be left alone.
    """
    cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ is not None else ""
    text = redact(f"{type(error).__name__}: {error}{cause}")
    if isinstance(error, ExchangeTroubleError | RefusedByExchangeError):
        return error
    handshake = error.args[0] if error.args else None  # of a stream: ccxt wraps what aiohttp raised
    if getattr(handshake, "status", None) in (418, 429):
        return HeldBackError(text, retry_after_s(getattr(handshake, "headers", None)))
    if isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
        return HeldBackError(text, retry_after_s(headers))
    if isinstance(error, ccxt.InvalidNonce):
        return BadAnswerError(text)
    if isinstance(error, ccxt.AuthenticationError | ccxt.PermissionDenied):
        return RefusedByExchangeError(text)
    if isinstance(error, ccxt.BadSymbol):
        return UnknownSymbolError(text)
    if isinstance(error, ccxt.NetworkError | asyncio.TimeoutError | OSError):
        return UnreachableError(text)
    return BadAnswerError(text)


def retry_after_s(headers: Mapping[str, str] | None) -> float:
    """Return the seconds that Retry-After names (RFC 9110, 10.2.3: a number of them, or a date), else a minute.

    Never less than one second, whatever stands there, and never more than a week.
    """
    text = {name.lower(): value for name, value in (headers or {}).items()}.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            seconds = DEFAULT_RETRY_AFTER_S
    if math.isnan(seconds):
        return DEFAULT_RETRY_AFTER_S
    return min(max(seconds, LEAST_RETRY_AFTER_S), MOST_RETRY_AFTER_S)


def addresses(kind: Any, url: str) -> dict[str, Any]:
    """Return the addresses of the embedded exchange at `url` for one of ccxt's classes: nothing leaves the machine."""
    sockets = url.replace("http", "ws", 1)
    api: dict[str, Any] = {name: NOWHERE for name in kind().urls["api"] if name != "ws"}
    feeds = {"spot": sockets + "/stream/ws", "ws-api": {"spot": sockets + "/ws-api/v3"}}
    return {**api, "public": url + "/api/v3", "private": url + "/api/v3", "sapi": url + "/sapi/v1", "ws": feeds}


def _positive(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None
