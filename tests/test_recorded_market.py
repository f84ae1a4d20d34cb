"""A recorded market: rows are updates, none is left out, and a bot that hears them decides as a replay does."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tradingbot as tb
from tests.helpers import LIMIT_S
from tests.test_replay import crash_csv
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Rejected, to_record
from tradingbot.errors import UsageError
from tradingbot.exchange.ccxt_client import CcxtExchange
from tradingbot.exchange.feeds import BinanceTap
from tradingbot.io.market_files import read_ticks, scan
from tradingbot.market.ticker import Ticker
from tradingbot.services.recorded import read_market
from tradingbot.simulated import server as server_module
from tradingbot.simulated.core import Core, Request
from tradingbot.simulated.market import DAY_MS, SyntheticMarket
from tradingbot.simulated.matching import Order
from tradingbot.simulated.recorded import RecordedMarket, Row
from tradingbot.simulated.server import ExchangeServer
from tradingbot.simulated.streams import KINDS, MarketStream

T = 1_767_225_600_000
MINUTE = 60_000
NAN = math.nan
ZERO = "0.00000000"
SYMBOLS = ("BTC/USDT", "ETH/USDT")
PUBLIC = [
    "ping", "time", "exchangeInfo", "ticker/24hr", "ticker/bookTicker", "ticker/price", "depth?symbol=BTCUSDT",
    "depth?symbol=BTCUSDT&limit=5", "klines?symbol=BTCUSDT&interval=1m&limit=5", "klines?symbol=BTCUSDT&interval=1d",
    "klines?symbol=BTCUSDT&interval=1m&startTime=0&limit=3", "aggTrades?symbol=BTCUSDT", "trades?symbol=BTCUSDT",
    "aggTrades?symbol=BTCUSDT&startTime=0", "aggTrades?symbol=BTCUSDT&fromId=0",
    "aggTrades?symbol=BTCUSDT&fromId=99999", "aggTrades?symbol=BTCUSDT&endTime=0", "ticker/24hr?symbol=BTCUSDT",
]  # fmt: skip


def row(symbol: str, ts_ms: int, last: float, *book: float) -> Row:
    """Return a row; `book` is bid, ask, bid size, ask size and volume as far as they are there."""
    bid, ask, bid_size, ask_size, volume = (*book, *[NAN] * (5 - len(book)))
    return symbol, ts_ms, last, bid, ask, bid_size, ask_size, volume


def rows_of(steps: Iterable[tuple[int, int, bool]]) -> list[Row]:
    """Return rows of (place of the symbol, ms since the row before, whether there is a book)."""
    rows, ms = [], T
    for place, (symbol, step, booked) in enumerate(steps):
        ms += step
        last = 100.0 + place % 7
        rows.append(row(SYMBOLS[symbol], ms, last, *((last - 1, last + 1, 2.0, 3.0, 1e6) if booked else ())))
    return rows


steps = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.booleans()), min_size=1, max_size=30)


def get(core: Core, path: str, now: int) -> Any:
    """Return the answer to a public request."""
    path, _, query = path.partition("?")
    answer = core.handle(Request("GET", f"/api/v3/{path}", query), now)
    assert answer.status == 200, answer.body
    assert b"nan" not in answer.body.lower()
    return orjson.loads(answer.body)


def order(core: Core, now: int, **words: object) -> Any:
    """Return the answer to a new order."""
    query = "&".join(f"{name}={word}" for name, word in (words | {"timestamp": now}).items())
    signature = hmac.new(b"secret", query.encode(), hashlib.sha256).hexdigest()
    request = Request("POST", "/api/v3/order", f"{query}&signature={signature}", headers={"X-MBX-APIKEY": "key"})
    return orjson.loads(core.handle(request, now).body)


def subscribe(stream: MarketStream, symbols: Iterable[str], kinds: Iterable[str], now: int) -> None:
    """Ask for every kind of stream of every symbol."""
    names = [f"{symbol.replace('/', '').lower()}@{kind}" for kind in kinds for symbol in symbols]
    answer = orjson.loads(stream.receive(orjson.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}).decode(), now))
    assert answer == {"result": None, "id": 1}


@given(steps, st.integers(T - 5, T + 100))
def test_numbers_are_those_of_a_plain_list(made: list[tuple[int, int, bool]], ms: int) -> None:
    """Row n is update n; times are searched as a loop over all rows would."""
    rows = rows_of(made)
    market = RecordedMarket(rows)
    assert market.symbols == list(dict.fromkeys(r[0] for r in rows))
    assert (market.first_ms, market.last_ms) == (rows[0][1], rows[-1][1])
    for symbol in market.symbols:
        own = [r for r in rows if r[0] == symbol]
        assert market.number(symbol, ms) == sum(r[1] <= ms for r in own) - 1
        assert market.next_ms(symbol, ms) == next((r[1] for r in own if r[1] > ms), None)
        for number, (_, ts_ms, last, bid, *_) in enumerate(own):
            q = market.update(symbol, number)
            assert (q.symbol, q.ts_ms, q.last) == (symbol, ts_ms, last)
            assert (q.bid, q.bid_size) == ((last, 0) if math.isnan(bid) else (bid, 2))
            assert repr(market.ticker(symbol, number).last) == repr(q)  # NaN is not itself
            assert market.ticker(symbol, number).close_ms == ts_ms
        assert repr(market.update(symbol, -1)) == repr(market.update(symbol, -500)) == repr(market.update(symbol, 0))


PRICES = [100 + (place * 7919 % 1013) / 10 for place in range(6000)]
LONG = RecordedMarket(row("BTC/USDT", T + place * MINUTE, price) for place, price in enumerate(PRICES))


@given(st.integers(-10, 6000 + 2 * 1440))
def test_statistics_and_candles_are_those_of_a_plain_list(place: int) -> None:
    """Highs and lows over many rows, whichever blocks of them were summed up beforehand."""
    now = T + place * MINUTE
    number = min(place, len(PRICES) - 1)
    s = LONG.statistics("BTC/USDT", now)
    inside = PRICES[min(max(place - 1440, 0), len(PRICES) - 1) : max(number, 0) + 1]
    assert (s.open, s.high, s.low, s.last.last) == (inside[0], max(inside), min(inside), inside[-1])
    assert (s.first_number, s.last_number) == (min(max(place - 1440, -1), len(PRICES) - 1) + 1, max(number, -1))
    assert (s.open_ms, s.close_ms) == (now - DAY_MS, now)
    for bars in (1, 60, 1440):
        c = LONG.candle("BTC/USDT", now, bars * MINUTE)
        inside = PRICES[max(place, 0) : max(place + bars, 0)]
        before = PRICES[max(number, 0)]
        assert (c.open_ms, c.updates, c.volume, c.quote_volume) == (now, len(inside), 0, 0)
        inside = inside or [before]
        assert (c.open, c.high, c.low, c.close) == (inside[0], max(inside), min(inside), inside[-1])


def test_a_candle_without_rows_repeats_the_price_before() -> None:
    """A gap in a recording is a time without trades."""
    market = RecordedMarket([row("BTC/USDT", T, 100.0, 99, 101, 1, 1, 1e6), row("BTC/USDT", T + 10 * MINUTE, 50.0)])
    core = Core(market)
    bars = get(core, "klines?symbol=BTCUSDT&interval=1m&limit=12", T + 10 * MINUTE)
    assert [float(bar[4]) for bar in bars] == [100] * 11 + [50]
    assert [bar[8] for bar in bars] == [0, 1, *[0] * 9, 1]
    assert float(bars[1][7]) == pytest.approx(1e6 / 1440, rel=1e-6)
    assert bars[-1][7] == ZERO


def test_a_running_candle_tells_nothing_of_the_future() -> None:
    """The day's candle knows the day so far."""
    rows = [row("BTC/USDT", T + hour * 60 * MINUTE, 100.0 - hour) for hour in range(20)]
    (bar,) = get(Core(RecordedMarket(rows)), "klines?symbol=BTCUSDT&interval=1d&limit=1", T + 3 * 60 * MINUTE)
    assert (bar[0], float(bar[3]), float(bar[4]), bar[8]) == (T, 97, 97, 4)


@given(steps, st.permutations(KINDS), st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 8))))
def test_every_row_comes_out_once_and_in_order(
    made: list[tuple[int, int, bool]], kinds: list[str], turns: list[tuple[int, int | None]]
) -> None:
    """However time goes on and however much is taken at a time: by time, symbol and row, the ticker before its book."""
    rows = rows_of(made)
    core = Core(RecordedMarket(rows))
    stream = MarketStream(core)
    now = T - 1
    subscribe(stream, core.market.symbols, kinds, now)
    told: list[tuple[str, str, int]] = []
    for step, taken in [*turns, (rows[-1][1], None)]:
        now += step
        for event in map(orjson.loads, islice(stream.due(now), taken)):
            number = event.get("u", event.get("t", event.get("L")))
            told.append((event["s"], event.get("e", "book"), number))
            if event.get("e") == "24hrTicker":
                assert event["E"] == core.market.update(core.names[event["s"]], number).ts_ms <= now
    expected = []
    numbers = dict.fromkeys(core.market.symbols, -1)
    for symbol, ts_ms, _, bid, *_ in rows:
        numbers[symbol] += 1
        place = core.market.symbols.index(symbol)
        for rank, kind in enumerate(("24hrTicker", "24hrMiniTicker", "book", "trade", "trade")):
            if kind != "book" or not math.isnan(bid):
                expected.append((ts_ms, place, numbers[symbol], rank, kind))
    mini = "24hrMiniTicker"  # tells no number
    assert told == [
        (core.market.symbols[place].replace("/", ""), kind, None if kind == mini else number)
        for _, place, number, _, kind in sorted(expected)
    ]
    assert list(stream.due(now)) == []


def test_who_comes_very_late_to_a_recording_has_lost_nothing() -> None:
    """Thousands of rows in one turn, as at a high speed; of a synthetic market only the latest are told."""
    rows = [row("BTC/USDT", T + place, 100.0 + place % 10, 99.0, 111.0) for place in range(5000)]
    for market, books in ((RecordedMarket(rows), 5000), (SyntheticMarket(7, 1, 10), 201)):
        stream = MarketStream(Core(market))
        subscribe(stream, ["BTC/USDT"], ["bookTicker"], T - 1)
        assert len(list(stream.due(T + 50_000))) == books


def test_a_subscription_while_events_are_told_harms_neither() -> None:
    """What is asked for in the middle of a turn begins with the next one."""
    stream = MarketStream(Core(RecordedMarket(rows_of([(0, 1, True)] * 4))))
    subscribe(stream, ["BTC/USDT"], ["bookTicker"], T)
    events = stream.due(T + 2)
    assert orjson.loads(next(events))["u"] == 0
    subscribe(stream, ["BTC/USDT"], ["trade"], T + 2)
    assert [orjson.loads(event)["u"] for event in events] == [1]
    assert [orjson.loads(event).get("t") for event in stream.due(T + 3)] == [None, 2]


BARE = RecordedMarket([row("BTC/USDT", T + place * 1000, 100.0 + place) for place in range(20)])
BOOKED = RecordedMarket([row("BTC/USDT", T + place * 1000, 100.0 + place, 99, 121, NAN, 4, 5e6) for place in range(20)])


@pytest.mark.parametrize("now", [T - 40 * DAY_MS, T - 1, T, T + 5500, T + 20_000, T + 40 * DAY_MS])
@pytest.mark.parametrize("market", [BARE, BOOKED])
def test_every_public_request_is_answered_at_any_time(market: RecordedMarket, now: int) -> None:
    """Before the first row there is no price, lest anybody learn what is to come; behind the last one it all stays."""
    core = Core(market)
    priced = ("depth", "ticker/24hr?")
    answers = {path: get(core, path, now) for path in PUBLIC if now >= T or not path.startswith(priced)}
    number = min(max((now - T) // 1000, -1), 19)
    last = 100.0 + max(number, 0)
    assert [m["symbol"] for m in answers["exchangeInfo"]["symbols"]] == ["BTCUSDT"]
    if now >= T:
        assert float(answers["ticker/price"][0]["price"]) == last
        assert float(answers["ticker/24hr?symbol=BTCUSDT"]["lastPrice"]) == last
        assert answers["depth?symbol=BTCUSDT"]["lastUpdateId"] == number
    else:
        assert answers["ticker/price"] == answers["ticker/24hr"] == answers["ticker/bookTicker"] == []
        for path in (path for path in PUBLIC if path.startswith(priced)):
            name, _, query = path.partition("?")
            assert b"Nothing has been traded yet" in core.handle(Request("GET", f"/api/v3/{name}", query), now).body
    assert [t["a"] for t in answers["aggTrades?symbol=BTCUSDT"]] == list(range(number + 1))
    assert [t["a"] for t in answers["aggTrades?symbol=BTCUSDT&startTime=0"]] == list(range(number + 1))
    assert answers["aggTrades?symbol=BTCUSDT&fromId=99999"] == answers["aggTrades?symbol=BTCUSDT&endTime=0"] == []
    bars = answers["klines?symbol=BTCUSDT&interval=1m&limit=5"]
    assert len(bars) == 5
    assert float(bars[-1][4]) == last
    bought = order(core, now, symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.5")
    assert bought["status"] == "FILLED"
    assert float(bought["fills"][0]["price"]) == (121 if market is BOOKED else last)
    resting = order(core, now, symbol="BTCUSDT", side="BUY", type="LIMIT", quantity="1", price="50")
    assert resting["status"] == "NEW"
    core.advance(now + DAY_MS)
    assert [o.status for o in core.account.open_orders(None)] == ["NEW"]


def test_an_order_rests_from_before_the_first_row_until_a_row_crosses_it() -> None:
    """Orders meet each row from the first one on."""
    core = Core(RecordedMarket([row("BTC/USDT", T + place, 100.0 - place) for place in range(9)]))
    assert order(core, T - 9, symbol="BTCUSDT", side="BUY", type="LIMIT", quantity="1", price="95")["status"] == "NEW"
    core.advance(T + 100)
    (filled,) = core.account.orders.values()
    assert isinstance(filled, Order)
    assert (filled.status, filled.updated_ms) == ("FILLED", T + 5)


def test_an_empty_side_is_written_as_zeros_and_unknown_volumes_not_at_all() -> None:
    """One rule for every answer and event that tells a book."""
    rows = [row("BTC/USDT", T, 100.0), row("BTC/USDT", T + 1, 100.0, NAN, 101.0, NAN, 7.0)]
    core = Core(RecordedMarket(rows))
    stream = MarketStream(core)
    subscribe(stream, ["BTC/USDT"], ["bookTicker", "ticker", "miniTicker"], T - 1)
    events = list(map(orjson.loads, stream.due(T + 1)))
    assert [event.get("e") for event in events] == [
        "24hrTicker", "24hrMiniTicker", "24hrTicker", "24hrMiniTicker", None,
    ]  # fmt: skip
    asks = [(ZERO, ZERO), ("101.00000000", "7.00000000")]
    for (ask, ask_size), now, event in zip(asks, (T, T + 1), (events[0], events[2]), strict=True):
        assert [event[name] for name in "bBaA"] == [ZERO, ZERO, ask, ask_size]
        for path in ("ticker/bookTicker", "ticker/24hr"):
            (told,) = get(core, path, now)
            assert (told["bidPrice"], told["bidQty"], told["askPrice"], told["askQty"]) == (ZERO, ZERO, ask, ask_size)
            assert not {"volume", "quoteVolume"} & set(told)
    assert not any({"v", "q"} & set(event) for event in events)
    assert [events[4][name] for name in "bBaA"] == [ZERO, ZERO, *asks[1]]
    depth = [get(core, "depth?symbol=BTCUSDT&limit=5", now) for now in (T, T + 1)]
    assert [(len(d["bids"]), len(d["asks"])) for d in depth] == [(0, 0), (0, 5)]


def test_prices_are_told_to_the_last_bit() -> None:
    """A price with more than eight places is read back the same, and a market order pays it."""
    price = 0.1 + 0.2
    core = Core(RecordedMarket([row("BTC/USDT", T, price, price, price * 2, 1.0, 1.0, price)]))
    told = get(core, "ticker/24hr?symbol=BTCUSDT", T)
    names = ("lastPrice", "bidPrice", "quoteVolume", "openPrice")
    assert [float(told[name]) for name in names] == [price] * 4
    assert float(told["askPrice"]) == price * 2
    bought = order(core, T, symbol="BTCUSDT", side="BUY", type="MARKET", quantity="100")
    assert float(bought["fills"][0]["price"]) == price * 2


def test_symbols_that_cannot_be_named_are_left_out() -> None:
    """Upper case letters and digits, and one symbol a name."""
    symbols = ["BTC/USDT", "btc/USDT", "BTC-USDT", "BTC/USDT:USDT", "/USDT", "B/TCUSDT", "1INCH/USDT", "ÄB/USDT"]
    market = RecordedMarket(row(symbol, T, 1.0) for symbol in symbols * 2)
    assert market.symbols == ["BTC/USDT", "1INCH/USDT"]
    assert market.left_out == [symbol for symbol in symbols if symbol not in market.symbols]
    assert (market.terms("1INCH/USDT").base, market.terms("1INCH/USDT").quote) == ("1INCH", "USDT")
    with pytest.raises(ValueError, match="not in order"):
        RecordedMarket([row("BTC/USDT", T, 1.0), row("BTC/USDT", T - 1, 1.0)])


def test_a_file_becomes_a_market_and_one_warning_says_what_was_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The mid stands for an absent price; what is no price, no row or no name is counted in one line."""
    lines = [
        f"{T},BTC/USDT,,99,101", f"{T + 2},BTC/USDT,-5,,", f"{T + 3},BTC/USDT,,,", f"{T + 1},BTC/USDT,100.5,,",
        f"{T},btc,1,,", "soon,BTC/USDT,1,,", f"{T + 4},BTC/USDT,1e300,,",
    ]  # fmt: skip
    (tmp_path / "a.csv").write_text("\n".join(["ts_ms,symbol,last,bid,ask", *lines]))
    (tmp_path / "b.csv").write_text(f"ts_ms,symbol,close\n{T},ETH/USDT,5\n{T + MINUTE},ETH/USDT,6\n")
    with caplog.at_level(logging.WARNING):
        market = read_market(tmp_path)
    told = [market.update("BTC/USDT", number) for number in range(market.number("BTC/USDT", T + 9) + 1)]
    assert [(q.ts_ms, q.last, q.bid, q.ask, q.bid_size) for q in told] == [
        (T, 100, 99, 101, 1), (T + 1, 100.5, 100.5, 100.5, 0),
    ]  # fmt: skip
    assert (market.update("ETH/USDT", 0).ts_ms, market.last_ms) == (T + MINUTE, T + 2 * MINUTE)
    (record,) = caplog.records
    assert "1 of 7 rows unreadable; 3 rows without a usable price; " in record.getMessage()
    assert "'btc'" in record.getMessage()


def test_a_file_of_which_nothing_can_be_played_is_an_error(tmp_path: Path) -> None:
    """No rows, no prices, no names, no file."""
    path = tmp_path / "x.csv"
    for text in (
        "",
        "ts_ms,symbol,price\n",
        f"ts_ms,symbol,price\n{T},BTC/USDT,-1\n",
        f"ts_ms,symbol,price\n{T},b,1\n",
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"nothing usable in .*x\.csv"):
            read_market(path)
    with pytest.raises(UsageError, match="no file"):
        read_market(tmp_path / "y.csv")


class Follower:
    """Play a recorded market into a tap, row by row, and keep what it delivers."""

    def __init__(self, market: RecordedMarket, *kinds: str) -> None:
        self.now, self.market = market.first_ms - 1, market
        self.tickers: list[Ticker] = []
        self._stream = MarketStream(Core(market))
        self._tap = BinanceTap(lambda: self.now)
        self._tap.begin({symbol.replace("/", ""): symbol for symbol in market.symbols}, self.tickers.append)
        subscribe(self._stream, market.symbols, kinds, self.now)

    def run(self) -> list[Ticker]:
        """Return all that was delivered."""
        while following := [ms for s in self.market.symbols if (ms := self.market.next_ms(s, self.now)) is not None]:
            self.now = min(following)
            for event in map(orjson.loads, self._stream.due(self.now)):
                (self._tap.ticker if "e" in event else self._tap.book)(event)
        return self.tickers


def test_the_tap_gives_back_the_recording(tmp_path: Path) -> None:
    """Every row arrives with its own book, and where it has none, or half of one, with that."""
    lines = ["100,99,101", "98,,", "97,96,98", "96,,97", "95,94,"]
    path = tmp_path / "x.csv"
    path.write_text(
        "\n".join(["ts_ms,symbol,last,bid,ask", *(f"{T + i},{SYMBOLS[0]},{x}" for i, x in enumerate(lines))])
    )
    seen = {
        (t.ts_ms, t.last, t.bid, t.ask, t.quote_volume)
        for t in Follower(read_market(path), "bookTicker", "ticker").run()
    }
    rows = [(t.ts_ms, t.last, t.bid, t.ask, t.quote_volume) for t in read_ticks([scan(path)])]
    assert seen == set(rows)


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a synthetic market with crashes in it."""
    return crash_csv(tmp_path_factory.mktemp("data") / "crash.csv")


@pytest.fixture(scope="module")
def of_both(crash: Path) -> list[Ticker]:
    """Give what a tap delivers that hears books and tickers."""
    return Follower(read_market(crash), "bookTicker", "ticker").run()


@pytest.fixture(scope="module")
def of_tickers(crash: Path) -> list[Ticker]:
    """Give what a tap delivers that hears tickers alone."""
    return Follower(read_market(crash), "ticker").run()


def decide(tickers: Iterable[Ticker], mode: int) -> tuple[list[dict[str, Any]], set[str]]:
    """Return what a bot decides, and why it rejected what."""
    bot = Engine(make_settings({"DROP_TRIGGER_MODE": mode}))
    outputs = [output for ticker in tickers for output in bot.tick(ticker)]
    decided = [to_record(output) for output in outputs if isinstance(output, Decision)]
    return decided, {output.reason for output in outputs if isinstance(output, Rejected)}


def told(decisions: Iterable[dict[str, Any]]) -> list[list[Any]]:
    """Return what two bots agree on that number their inputs differently."""
    names = ("symbol", "ts_ms", "last", "bid", "ask", "quote_volume", "reference", "threshold", "outcome", "reasons")
    return [[list(d[name]) if name == "reasons" else d[name] for name in names] for d in decisions]


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_a_bot_that_hears_a_recording_decides_as_its_replay(crash: Path, of_both: list[Ticker], mode: int) -> None:
    """The same triggers from the same references, through wire, tap and engine; a row heard twice is a duplicate."""
    decided, rejected = decide(of_both, mode)
    replayed = tb.replay(crash, DROP_TRIGGER_MODE=mode).decisions
    assert told(decided) == told(replayed)
    assert [d["decision_id"] for d in decided] == [d["decision_id"] for d in replayed]
    assert len(decided) > 5
    assert rejected == {"duplicate"}


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_a_bot_that_hears_the_tickers_alone_is_its_replay(crash: Path, of_tickers: list[Ticker], mode: int) -> None:
    """Ticker events are the rows, each with its own book: without books before them even the inputs are the same."""
    decided, rejected = decide(of_tickers, mode)
    replayed = tb.replay(crash, DROP_TRIGGER_MODE=mode).decisions
    assert told(decided) == told(replayed)
    assert [d["decision_id"] for d in decided] == [d["decision_id"] for d in replayed]
    assert [d["cause"] for d in decided] == [d["cause"] for d in replayed]
    assert len(decided) > 5
    assert rejected == set()


def test_a_real_recording_is_played_whole(market_data: Any) -> None:
    """As many updates as rows."""
    path = market_data("trades_binance_spot_2024-08-08_BTC-USDT.parquet")
    market = read_market(path)
    assert market.number("BTC/USDT", market.last_ms) + 1 == scan(path).rows > 7000


def test_ccxt_hears_every_row_in_order_over_real_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection for books and tickers; a burst of a thousand rows; a market without books has none."""
    rows = [row("BTC/USDT", T + place, 100.0 + place % 9, 99.0, 110.0 + place % 7, 1, 1, 1e6) for place in range(1000)]
    core = Core(RecordedMarket([*rows, row("ETH/USDT", T + 1000, 5.0)]))
    asked: list[MarketStream] = []

    class Noted(MarketStream):
        def receive(self, text: str, now: int) -> bytes:
            asked.append(self)
            return super().receive(text, now)

    monkeypatch.setattr(server_module, "MarketStream", Noted)
    clock = [T - 1]

    async def main() -> list[Ticker]:
        seen: list[Ticker] = []
        async with ExchangeServer(core, lambda: clock[0]) as server:
            ours = CcxtExchange("embedded", lambda: clock[0], LIMIT_S, server.url, ("key", "secret"))
            try:
                await ours.load()
                watching = asyncio.create_task(ours.watch(["BTC/USDT", "ETH/USDT"], seen.append))
                while len(asked) < 2:
                    await asyncio.sleep(0.01)
                clock[0] = T + 1000
                while not seen or seen[-1].symbol != "ETH/USDT":
                    await asyncio.sleep(0.01)
                bare = (await ours.tickers(["BTC/USDT", "ETH/USDT"]))[1]
                assert (bare.last, bare.bid, bare.ask, bare.bid_size, bare.quote_volume) == (5, None, None, None, None)
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            finally:
                await ours.close()
        return seen

    seen = asyncio.run(asyncio.wait_for(main(), LIMIT_S))
    assert asked[0] is asked[1]
    expected = [(each[2], each[4]) for each in rows for _ in range(2)]  # the ticker, then its book
    assert [(t.last, t.ask) for t in seen[:-1]] == expected
    assert (seen[-1].last, seen[-1].bid, seen[-1].ask) == (5, None, None)
