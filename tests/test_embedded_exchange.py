"""The embedded exchange, spoken to by unmodified ccxt and ccxt.pro over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.helpers import LIMIT_S
from tradingbot.config import make_settings
from tradingbot.services.clock import wall_ms
from tradingbot.services.embedded import make_exchange
from tradingbot.simulated.core import Core
from tradingbot.simulated.market import SyntheticMarket
from tradingbot.simulated.memory import Memory
from tradingbot.simulated.server import ExchangeServer

NOWHERE = "http://127.0.0.1:9"
NOON_MS = 1_767_225_600_000 + 12 * 3_600_000


def client(library: Any, url: str, secret: str = "secret") -> Any:
    """Return ccxt's own binance class, pointed at `url` and nowhere else."""
    sockets = url.replace("http", "ws")
    feeds = {"spot": sockets + "/stream/ws", "ws-api": {"spot": sockets + "/ws-api/v3"}}
    api = {name: NOWHERE for name in library.binance().urls["api"] if name != "ws"}
    api |= {"public": url + "/api/v3", "private": url + "/api/v3"}
    return library.binance(
        {
            "apiKey": "key", "secret": secret, "enableRateLimit": False,
            "options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False,
                        "fetchMargins": False},
            "urls": {"api": {**api, "ws": feeds}},
        }
    )  # fmt: skip


@asynccontextmanager
async def exchange(
    memory: Path | None = None, clock: Callable[[], int] = wall_ms, **options: Any
) -> AsyncIterator[ExchangeServer]:
    core = Core(SyntheticMarket(seed=7, count=4, **options))
    kept = None if memory is None else Memory(memory, core)
    if kept is not None:
        kept.load()
    async with ExchangeServer(core, clock, kept) as server:
        yield server


def with_ccxt(work: Callable[[Any, ExchangeServer], Awaitable[None]], pro: bool = False, **options: Any) -> None:
    """Run `work` with a ccxt client and the exchange that it speaks to."""

    async def main() -> None:
        if pro:
            import ccxt.pro as library
        else:
            import ccxt.async_support as library  # type: ignore[no-redef]
        async with exchange(**options) as server:
            ex = client(library, server.url)
            try:
                await asyncio.wait_for(work(ex, server), LIMIT_S)
            finally:
                await ex.close()

    asyncio.run(main())


def test_markets_and_prices_are_what_ccxt_expects() -> None:
    """load_markets, fetch_ticker(s), order book, candles and trades of one moment agree with each other."""

    async def work(ex: Any, _: ExchangeServer) -> None:
        markets = await ex.load_markets()
        assert sorted(markets) == ["BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"]
        assert markets["BTC/USDT"]["spot"]
        assert markets["BTC/USDT"]["limits"]["cost"]["min"] == 5
        one = await ex.fetch_ticker("BTC/USDT")
        many = await ex.fetch_tickers(["BTC/USDT", "ETH/USDT"])
        assert sorted(many) == ["BTC/USDT", "ETH/USDT"]
        assert one["low"] <= one["last"] <= one["high"]
        assert one["bid"] < one["ask"]
        assert one["timestamp"] == NOON_MS
        books = await ex.fetch_bids_asks(["BTC/USDT"])
        assert books["BTC/USDT"]["bid"] == pytest.approx(one["bid"], rel=0.01)
        book = await ex.fetch_order_book("BTC/USDT", 5)
        assert len(book["bids"]) == len(book["asks"]) == 5
        assert book["bids"][0][0] < book["asks"][0][0]
        candles = await ex.fetch_ohlcv("BTC/USDT", "1m", limit=10)
        assert len(candles) == 10
        assert all(low <= min(o, c) <= max(o, c) <= high for _, o, high, low, c, _ in candles)
        trades = await ex.fetch_trades("BTC/USDT", limit=20)
        assert len(trades) == 20
        assert trades == sorted(trades, key=lambda trade: trade["timestamp"])

    with_ccxt(work, clock=lambda: NOON_MS)


def test_orders_live_and_end_as_on_an_exchange() -> None:
    """Market and limit orders with client ids, fetched, cancelled, listed; balances follow to the last digit."""

    async def work(ex: Any, server: ExchangeServer) -> None:
        await ex.load_markets()
        before = await ex.fetch_balance()
        assert before["USDT"]["free"] == 10_000
        bought = await ex.create_order("ETH/USDT", "market", "buy", 0.5, params={"clientOrderId": "one"})
        assert (bought["status"], bought["filled"], bought["clientOrderId"]) == ("closed", 0.5, "one")
        after = await ex.fetch_balance()
        assert after["ETH"]["free"] == 0.4995  # the fee is taken from what was bought
        assert after["USDT"]["free"] == pytest.approx(10_000 - bought["cost"], abs=1e-8)
        same = await ex.fetch_order(None, "ETH/USDT", params={"clientOrderId": "one"})
        assert same["id"] == bought["id"]
        low = ex.price_to_precision("ETH/USDT", bought["average"] * 0.5)
        resting = await ex.create_order("ETH/USDT", "limit", "buy", 0.1, low, params={"clientOrderId": "two"})
        assert resting["status"] == "open"
        assert [order["clientOrderId"] for order in await ex.fetch_open_orders("ETH/USDT")] == ["two"]
        assert (await ex.fetch_balance())["USDT"]["used"] == pytest.approx(0.1 * float(low))
        cancelled = await ex.cancel_order(resting["id"], "ETH/USDT")
        assert cancelled["status"] == "canceled"
        assert await ex.fetch_open_orders("ETH/USDT") == []
        (trade,) = await ex.fetch_my_trades("ETH/USDT")
        assert (trade["amount"], trade["fee"]["currency"]) == (0.5, "ETH")
        sold = await ex.create_order("ETH/USDT", "limit", "sell", 0.3, low)
        assert sold["status"] == "closed"
        assert sold["average"] > float(low)  # it crossed, and got the book's price
        assert (await ex.fetch_balance())["USDT"]["used"] == 0
        assert server.core.orders_seen == 4

    with_ccxt(work)


def test_refusals_are_the_errors_that_ccxt_maps() -> None:
    """InsufficientFunds, OrderNotFound, a wrong secret, an order too small, a symbol that is none."""

    async def work(ex: Any, server: ExchangeServer) -> None:
        import ccxt.async_support as ccxt

        ex.get_exceptions_by_url = lambda _, key: ex.exceptions["spot"].get(key, {})
        await ex.load_markets()
        with pytest.raises(ccxt.InsufficientFunds):
            await ex.create_order("BTC/USDT", "market", "buy", 10)
        with pytest.raises(ccxt.OrderNotFound):
            await ex.fetch_order("999", "BTC/USDT")
        with pytest.raises(ccxt.OrderNotFound):
            await ex.cancel_order("999", "BTC/USDT")
        with pytest.raises(ccxt.ExchangeError):
            await ex.create_order("BTC/USDT", "market", "buy", 0.00001)
        with pytest.raises(ccxt.BadSymbol):
            await ex.public_get_ticker_24hr({"symbol": "NOPE"})
        wrong = client(ccxt, server.url, secret="other")
        try:
            with pytest.raises(ccxt.AuthenticationError):
                await wrong.fetch_balance()
        finally:
            await wrong.close()

    with_ccxt(work)


def test_streams_bring_books_tickers_trades_and_own_orders() -> None:
    """watch_ticker, watch_bids_asks, watch_trades and watch_orders through ccxt.pro."""

    async def work(ex: Any, _: ExchangeServer) -> None:
        await ex.load_markets()
        ticker = await ex.watch_ticker("BTC/USDT", {"name": "ticker"})
        assert ticker["bid"] < ticker["ask"]
        books = await ex.watch_bids_asks(["BTC/USDT", "ETH/USDT"])
        assert set(books) <= {"BTC/USDT", "ETH/USDT"}
        trades = await ex.watch_trades("SOL/USDT")
        assert trades[0]["symbol"] == "SOL/USDT"
        watching = asyncio.create_task(ex.watch_orders("BTC/USDT"))
        while not watching.done():  # until it has signed in
            await asyncio.sleep(0.1)
            await ex.create_order("BTC/USDT", "market", "buy", 0.0002, params={"clientOrderId": "mine"})
        assert {seen["clientOrderId"] for seen in await watching} == {"mine"}

    with_ccxt(work, pro=True, every_ms=100)


def test_no_book_update_is_left_out() -> None:
    """The update numbers of a stream have no gap, whatever the rate."""

    clock = itertools.count(NOON_MS, 70)  # each look at it is 70 ms later, however long it takes

    async def main() -> None:
        async with exchange(clock=clock.__next__, every_ms=10) as server, aiohttp.ClientSession() as session:
            async with session.ws_connect(server.url + "/stream/ws/1") as socket:
                await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker"], "id": 1})
                assert (await socket.receive_json())["result"] is None
                numbers = [(await socket.receive_json())["u"] for _ in range(150)]
            assert numbers == list(range(numbers[0], numbers[0] + 150))

    asyncio.run(main())


def test_a_restart_sees_the_same_orders_and_balances(tmp_path: Path) -> None:
    """What was ordered before is there after, in a file that is written whole."""

    async def buy(ex: Any, _: ExchangeServer) -> None:
        await ex.load_markets()
        await ex.create_order("ETH/USDT", "market", "buy", 0.5)
        await ex.create_order("ETH/USDT", "limit", "buy", 0.1, 100)

    async def look(ex: Any, _: ExchangeServer) -> None:
        await ex.load_markets()
        assert (await ex.fetch_balance())["ETH"]["free"] == 0.4995
        (resting,) = await ex.fetch_open_orders("ETH/USDT")
        assert resting["price"] == 100
        fresh = await ex.create_order("ETH/USDT", "limit", "buy", 0.1, 101)
        assert int(fresh["id"]) > int(resting["id"])

    with_ccxt(buy, memory=tmp_path / "exchange.json")
    with_ccxt(look, memory=tmp_path / "exchange.json")
    assert [path.name for path in tmp_path.iterdir()] == ["exchange.json"]


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_a_foreign_page_is_refused(headers: dict[str, str]) -> None:
    """No web page that a browser on this machine shows can place an order."""

    async def main() -> None:
        async with exchange() as server, aiohttp.ClientSession() as session:
            async with session.get(server.url + "/api/v3/ping", headers=headers) as response:
                assert response.status == 403
            async with session.get(server.url + "/api/v3/ping") as response:
                assert response.status == 200

    asyncio.run(main())


def test_too_many_requests_are_told_when_to_come_back() -> None:
    """429 with Retry-After, then 418, until the minute is over."""
    from tradingbot.simulated.core import Request

    core = Core(SyntheticMarket(seed=7, count=1))
    now = 1_767_225_600_000 + 15_000
    statuses = [core.handle(Request("GET", "/api/v3/exchangeInfo"), now).status for _ in range(700)]
    assert (statuses[0], statuses[299], statuses[300], statuses[-1]) == (200, 200, 429, 418)
    answer = core.handle(Request("GET", "/api/v3/ping"), now)
    assert (answer.status, answer.headers["Retry-After"]) == (418, "45")
    assert core.handle(Request("GET", "/api/v3/ping"), now + 45_000).status == 200


def test_the_exchange_runs_alone_and_remembers(tmp_path: Path) -> None:
    """`tradingbot exchange` says where it listens, serves any ccxt program, ends on SIGTERM, and is there again."""
    import ccxt

    for turn in (1, 2):
        words = [sys.executable, "-m", "tradingbot", "exchange", "--home", str(tmp_path), "--api-secret", "own"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            word, url = process.stdout.readline().split()
            assert word == "READY"
            ex = client(ccxt, url, secret="own")
            ex.load_markets()
            assert len(ex.symbols) == 12
            ex.create_order("BTC/USDT", "market", "buy", 0.01)
            assert ex.fetch_balance()["BTC"]["free"] == pytest.approx(turn * 0.00999)
            process.terminate()
            _, stderr = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, stderr) == (0, "")
    (tmp_path / "state" / "exchange.json").write_text("{")
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 4
    assert "exchange.json is damaged" in done.stderr


def test_time_never_runs_back_over_a_restart(tmp_path: Path) -> None:
    """At a thousand times real time a restart goes on in the market's future, not in its past."""

    async def turn() -> tuple[int, int]:
        server, _ = make_exchange(make_settings({"EMBEDDED_SPEED": 1000, "EMBEDDED_SYMBOLS": 1}), tmp_path, "k", "s")
        async with server, aiohttp.ClientSession() as session:
            times = []
            for _ in range(2):
                async with session.get(server.url + "/api/v3/time") as answer:
                    times.append((await answer.json())["serverTime"])
                await asyncio.sleep(0.2)
        return times[0], times[1]

    first, second = (asyncio.run(turn()) for _ in range(2))
    assert first[0] < first[1] < second[0] < second[1]
    assert first[1] - first[0] > 150_000
    assert (tmp_path / "exchange.json").stat().st_mode & 0o777 == 0o600
