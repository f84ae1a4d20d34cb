"""The exchange adapter against the embedded exchange: every update, errors mapped once, no secret anywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tests.test_embedded_exchange import exchange
from tradingbot.exchange.ccxt_client import CcxtExchange, map_error
from tradingbot.exchange.errors import (
    BadAnswerError,
    ExchangeTroubleError,
    HeldBackError,
    NoExchangeError,
    RefusedByExchangeError,
    UnreachableError,
    redact,
)
from tradingbot.market.ticker import Ticker


def now_ms() -> int:
    return int(time.time() * 1000)


def with_exchange(work: Callable[[CcxtExchange, Any], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with exchange(**options) as server:
            ours = CcxtExchange("embedded", now_ms, 60, server.url, ("key", "secret"))
            try:
                await asyncio.wait_for(work(ours, server), 120)
            finally:
                await ours.close()

    asyncio.run(main())


def test_markets_and_tickers_in_one_call() -> None:
    """Steps, minimums, prices and both times."""

    async def work(ours: CcxtExchange, _: Any) -> None:
        markets = await ours.load()
        assert markets["BTC/USDT"].amount_step == 0.00001
        assert markets["BTC/USDT"].min_cost == 5
        assert ours.abilities.streams
        asked_ms = now_ms()
        tickers = await ours.tickers(["BTC/USDT", "XRP/USDT"])
        assert [ticker.symbol for ticker in tickers] == ["BTC/USDT", "XRP/USDT"]
        for ticker in tickers:
            assert ticker.bid is not None
            assert ticker.ask is not None
            assert ticker.bid < ticker.ask
            assert ticker.recv_ms is not None
            assert asked_ms - 3000 < ticker.ts_ms <= ticker.recv_ms <= now_ms()
            assert ticker.recv_ms >= asked_ms

    with_exchange(work)


def test_the_tap_loses_no_update() -> None:
    """Hundreds of books a second arrive one by one, each with the latest price beside it."""

    async def work(ours: CcxtExchange, server: Any) -> None:
        await ours.load()
        market = server.core.market
        market.max_behind = None  # nothing is left out, however busy this machine is
        seen: list[Ticker] = []
        books: set[tuple[float | None, ...]] = set()
        first = None

        def deliver(ticker: Ticker) -> None:
            nonlocal first
            if first is None:
                first = market.number("BTC/USDT", now_ms())
            seen.append(ticker)
            books.add((ticker.bid, ticker.ask, ticker.bid_size))

        def is_missing(number: int) -> bool:
            quote = market.update("BTC/USDT", number)
            return (quote.bid, quote.ask, quote.bid_size) not in books

        watching = asyncio.create_task(ours.watch(["BTC/USDT"], deliver))
        while first is None or (last := market.number("BTC/USDT", now_ms())) < first + 180:
            await asyncio.sleep(0.05)
        while is_missing(last):
            await asyncio.sleep(0.05)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert [number for number in range(first + 2, last + 1) if is_missing(number)] == []
        assert all(ticker.last is not None and ticker.feed_age_ms is not None for ticker in seen)

    with_exchange(work, every_ms=10)


def test_a_broken_connection_is_said_and_the_next_one_works() -> None:
    """`watch` ends with an error when the exchange goes away, and begins anew."""

    async def work(ours: CcxtExchange, server: Any) -> None:
        await ours.load()
        seen: list[Ticker] = []
        watching = asyncio.create_task(ours.watch(["BTC/USDT"], seen.append))
        while len(seen) < 3:
            await asyncio.sleep(0.05)
        port = server.port
        await server.stop()
        with pytest.raises(ExchangeTroubleError):
            await watching
        await server.start(port)
        count = len(seen)
        watching = asyncio.create_task(ours.watch(["BTC/USDT"], seen.append))
        while len(seen) < count + 3:
            await asyncio.sleep(0.05)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    with_exchange(work, every_ms=100)


async def answered_by(
    status: int, body: bytes, headers: dict[str, str] | None = None, delay_s: float = 0.0, timeout_s: float = 60.0
) -> Exception:
    """Return the error of a call that a server answers in this way."""

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(delay_s)
        return web.Response(status=status, body=body, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ours = CcxtExchange(
        "embedded", now_ms, timeout_s, f"http://127.0.0.1:{runner.addresses[0][1]}", ("key-canary", "secret-canary")
    )
    try:
        await ours.load()
        await ours.tickers(["BTC/USDT"])
    except (ExchangeTroubleError, RefusedByExchangeError) as error:
        return error
    finally:
        await ours.close()
        await runner.cleanup()
    raise AssertionError("no error came")


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind"),
    [
        (429, b'{"code":-1003,"msg":"too much"}', {"Retry-After": "17"}, HeldBackError),
        (418, b'{"code":-1003,"msg":"banned"}', {"Retry-After": "17"}, HeldBackError),
        (200, b"<html>hello</html>", None, ExchangeTroubleError),
        (200, b"", None, ExchangeTroubleError),
        (200, b"[]", None, ExchangeTroubleError),
        (200, b'{"symbols": [', None, ExchangeTroubleError),
        (500, b"oops", None, ExchangeTroubleError),
        (502, b"<html>", None, ExchangeTroubleError),
        (503, b'{"code":-1000}', None, ExchangeTroubleError),
        (401, b'{"code":-2015,"msg":"Invalid API-key"}', None, (RefusedByExchangeError, ExchangeTroubleError)),
    ],
)
def test_every_bad_answer_is_classified(status: int, body: bytes, headers: dict[str, str] | None, kind: Any) -> None:
    """Whatever comes back, it is one of our errors, with the time to wait where one was given."""
    error = asyncio.run(answered_by(status, body, headers))
    assert isinstance(error, kind)
    if isinstance(error, HeldBackError):
        assert error.retry_after_s == 17
    assert "canary" not in str(error)


def test_a_call_ends_with_its_timeout() -> None:
    """An exchange that answers after ten minutes is not waited for: REQUEST_TIMEOUT_S is one second here."""
    assert isinstance(asyncio.run(answered_by(200, b"{}", delay_s=600, timeout_s=1)), UnreachableError)


def test_an_exchange_that_is_none_is_answered_by_the_nearest() -> None:
    """A typo in EXCHANGE is one line."""
    with pytest.raises(NoExchangeError, match="did you mean binance"):
        CcxtExchange("binanec", now_ms, 1)


def test_secrets_stay_out_of_texts() -> None:
    """Signatures and keys are cut out, whatever stands around them; long and hostile texts are cut and cleaned."""
    text = redact("GET https://x/api?timestamp=1&signature=abcDEF123 apiKey='canary' \x1b[31m\n" + "y" * 500)
    assert "abcDEF123" not in text
    assert "canary" not in text
    assert len(text) <= 200
    assert text.isprintable()
    assert "secret-canary" not in repr(
        CcxtExchange("embedded", now_ms, 1, "http://127.0.0.1:9", ("k", "secret-canary"))
    )
    assert isinstance(map_error(KeyError("x")), BadAnswerError)
