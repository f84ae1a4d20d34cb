"""Faults of exchange and network, played over real sockets: classified, bounded, survived, and healed.

Bot and exchange share a loop whose time stands still while the machine computes: no load on it changes a story.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import LIMIT_S
from tests.test_live import call
from tradingbot.config import Settings, make_settings
from tradingbot.errors import UsageError
from tradingbot.exchange.ccxt_client import CcxtExchange, retry_after_s
from tradingbot.exchange.errors import NoExchangeError
from tradingbot.io.home import Home
from tradingbot.io.overrides import Effective
from tradingbot.market.ticker import Ticker
from tradingbot.services import listings
from tradingbot.services.clock import Clock
from tradingbot.services.connect import Surroundings
from tradingbot.services.session import Session
from tradingbot.services.status import last_status
from tradingbot.simulated.core import Core
from tradingbot.simulated.faults import Fault, Faults, read_faults
from tradingbot.simulated.market import SyntheticMarket
from tradingbot.simulated.server import ExchangeServer

FAST = {
    "REQUEST_TIMEOUT_S": 1, "POLL_S": 0.25, "WATCHDOG_S": 2, "RETRY_BASE_S": 0.05, "RETRY_MAX_S": 0.2,
    "HEARTBEAT_S": 1, "TOP_N": 2,
}  # fmt: skip
ASKED = "GET ticker/24hr"
FASTER = 4  # than life
CALM_MS = 1_767_225_600_000  # the synthetic market does not crash then, as it may at any time of the day


class _Selector(selectors.DefaultSelector):
    """Count what is waited as time that passes, FASTER than life; neither work, but for a microsecond, nor a stall."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began_s = time.monotonic()
        ready = super().select(timeout and timeout / FASTER)
        self.passed_s += max(min((time.monotonic() - began_s) * FASTER, timeout or 0.0), 1e-6)
        return ready


class SteadyLoop(asyncio.SelectorEventLoop):
    """An event loop with the time of its selector."""

    def __init__(self) -> None:
        self._waiting = _Selector()
        super().__init__(self._waiting)

    def time(self) -> float:
        return self._waiting.passed_s


class Timed(CcxtExchange):
    """Note how long each request for tickers took, and when each connection began."""

    took_s: list[float]
    connected_s: list[float]

    async def tickers(self, symbols: Sequence[str]) -> list[Ticker]:
        began = asyncio.get_running_loop().time()
        try:
            return await super().tickers(symbols)
        finally:
            self.took_s.append(asyncio.get_running_loop().time() - began)

    async def watch(self, symbols: Sequence[str], deliver: Callable[[Ticker], None]) -> None:
        self.connected_s.append(asyncio.get_running_loop().time())
        await super().watch(symbols, deliver)


@dataclass
class Played:
    """Hold what became of a session: what the exchange heard, and when (seconds since its start), the log, states."""

    heard: list[tuple[float, str, int]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    modes: list[tuple[float, str]] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    connected_s: list[float] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    session: Session | None = None
    met: list[int] = field(default_factory=list)
    orders: int = -1

    def asked(self, from_s: float, to_s: float, what: str = ASKED) -> list[float]:
        """Return when a request was heard, within a time."""
        return [at for at, name, _ in self.heard if name == what and from_s <= at < to_s]

    def state(self, symbol: str) -> str:
        """Return the state of a symbol at the end."""
        return next(row["state"] for row in self.status["symbols"] if row["symbol"] == symbol)


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


def play(home: Path, faults: Sequence[Fault], seconds: float, during: Any = None, **settings: Any) -> Played:
    """Run a session for so long against an exchange with faults, both in this process, over real sockets."""
    chosen = make_settings({**FAST, **settings})
    effective = Effective(chosen, dict.fromkeys(Settings.__struct_fields__, "test"), Home(home, "test"))
    played = Played()
    loop = SteadyLoop()
    clock = Clock(1, max(CALM_MS, last_status(effective.state_dir).time_ms), loop.time)
    core = Core(SyntheticMarket(7, 2, every_ms=100), faults=Faults(faults, clock.now_ms()))

    async def connect(_: Settings, __: Path, ___: int, stack: contextlib.AsyncExitStack) -> Surroundings:
        server = await stack.enter_async_context(ExchangeServer(core, clock.now_ms))
        core.faults.began_ms = clock.now_ms()
        exchange = Timed("embedded", clock.now_ms, chosen.REQUEST_TIMEOUT_S, server.url)
        exchange.took_s, exchange.connected_s = played.took_s, played.connected_s
        stack.push_async_callback(exchange.close)
        return Surroundings(exchange, clock)

    def show(status: dict[str, Any]) -> None:
        if status["bot"]["state"] != "stopping":
            played.status = status
        played.modes.append(((clock.now_ms() - core.faults.began_ms) / 1000, status["data"]["mode"]))
        if during is not None:
            during(played.session, core)

    async def main() -> None:
        played.session = Session(effective, show, connect, clock.now_ms, loop.time, status_s=0.1, threaded=False)
        with contextlib.suppress(NoExchangeError):  # where it was held back for all of its time
            await played.session.run(seconds)

    logger, handler = logging.getLogger("tradingbot"), _Lines(played.lines)
    logger.setLevel("INFO")
    logger.addHandler(handler)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())
    finally:
        logger.removeHandler(handler)
    played.heard = [((at - core.faults.began_ms) / 1000, what, status) for at, what, status in core.heard]
    played.met, played.orders = core.faults.met, core.orders_seen
    return played


def is_healthy(played: Played) -> bool:
    """Return whether data of every symbol was fresh at the end, and nothing absurd got in or was ordered."""
    engine = played.session.engine if played.session is not None else None
    assert engine is not None
    prices = {symbol: state.last for symbol, state in engine.states.items()}
    return (
        played.status["data"]["fresh"] == 2
        and 10_000 < prices["BTC/USDT"] < 200_000
        and 500 < prices["ETH/USDT"] < 10_000
        and played.session is not None
        and played.session.signals.triggers == 0
        and played.orders == 0
    )


REQUESTS = ["html", "garbage", "empty", "list", "truncated", "short", "hang", "drip", "reset", "delay", "status"]


@pytest.mark.parametrize("does", REQUESTS)
def test_a_bad_answer_is_bounded_and_heals(tmp_path: Path, does: str) -> None:
    """F14, F15: no request more than without the fault, each over in time; said once; fresh again behind it."""
    seconds = {"drip": 0.02, "delay": 5.0}.get(does, 1.0)
    fault = Fault(ASKED, does, from_s=1.5, to_s=3.5, seconds=seconds)
    played = play(tmp_path, [fault], 6, MARKET_DATA="poll")
    assert is_healthy(played)
    assert played.met[0] >= 1
    calm, ill = len(played.asked(0.5, 1.5)), len(played.asked(1.5, 3.5))
    assert ill <= 1.1 * max(2 * calm, 8)
    assert max(played.took_s) <= FAST["REQUEST_TIMEOUT_S"] + 0.5
    broken = [line for line in played.lines if line.startswith("poll broken")]
    assert len(broken) <= 2
    said = [line for line in played.lines if "broken" in line or "retry_state" in line or "held back" in line]
    assert 1 <= len(said) <= 8, played.lines
    assert "Traceback" not in "".join(played.lines)


@pytest.mark.parametrize(("does", "status"), [("status", 429), ("ban", 418)])
def test_a_hold_back_is_kept_to_the_second(tmp_path: Path, does: str, status: int) -> None:
    """F14: after a 429 or 418 nothing at all is asked before Retry-After is over; then the bot is there again."""
    played = play(
        tmp_path, [Fault("GET *", does, status=status, from_s=1.5, to_s=4.5, retry_after_s=3)], 7, MARKET_DATA="poll"
    )
    first = next(at for at, _, answer in played.heard if answer == status)
    assert [at for at, _, _ in played.heard if first < at < first + 3] == []
    assert any(first + 3 <= at <= first + 4.5 for at, _, _ in played.heard)
    assert played.met == [1]
    assert sum("held back for 3 s" in line for line in played.lines) == 1
    assert is_healthy(played)


def test_a_hold_back_at_the_start_is_kept_and_over_a_restart(tmp_path: Path) -> None:
    """A bot that is banned while it starts waits, and one that is started again meanwhile asks nothing either."""
    banned = [Fault("GET exchangeInfo", "ban", to_s=60, retry_after_s=4)]
    played = play(tmp_path, banned, 2)
    assert [what for _, what, _ in played.heard] == ["GET exchangeInfo"]
    assert played.status["bot"]["state"] == "starting"
    assert played.status["data"]["held_back_until_ms"] > played.status["time_ms"]
    again = play(tmp_path, [], 7)
    assert any(re.fullmatch(r"held back for [1-4] s: .*", line) for line in again.lines), again.lines
    assert again.status["data"]["fresh"] == 2


SOCKETS = [("sockets", "close"), ("sockets", "reset"), ("sockets", "freeze"),
           ("stream *", "silent"), ("stream *", "garbage"), ("stream *", "stale")]  # fmt: skip


@pytest.mark.parametrize(("on", "does"), SOCKETS)
def test_a_stream_that_fails_is_found_polled_beside_and_comes_back(tmp_path: Path, on: str, does: str) -> None:
    """F16: found within WATCHDOG_S, polling takes over, few connects, nothing old decided on, back by itself."""
    faults = [Fault(on, does, from_s=1.5, to_s=6, seconds=60)]
    if does in ("close", "reset"):
        faults.append(Fault("sockets", "refuse", from_s=1.5, to_s=6))
    played = play(tmp_path, faults, 11)
    assert is_healthy(played)
    assert played.asked(1.5, 1.5 + FAST["WATCHDOG_S"] + 1), "polling did not take over"
    assert len(played.connected_s) <= 10
    modes = [mode for _, mode in played.modes]
    assert modes[-1] == "stream", played.lines
    assert "poll" in modes
    gaps = played.status["data"]["oldest_s"]
    assert gaps is not None
    assert gaps < FAST["WATCHDOG_S"]
    if does == "stale":
        assert played.status["data"]["rejected"]["stale"] > 0


def test_a_refused_port_is_survived(tmp_path: Path) -> None:
    """F15: nobody listens for a while; stream and polls are back when somebody does."""
    played = play(tmp_path, [Fault("port", "refuse", from_s=1.5, to_s=4)], 9)
    assert is_healthy(played)
    assert sum(line.startswith(("poll broken", "stream broken")) for line in played.lines) <= 4
    assert any("works again" in line for line in played.lines)


BAD_VALUES = [None, "NaN", "Infinity", "-1", "0", "1e400", "", True, "abc", [], {}]


@pytest.mark.parametrize("value", BAD_VALUES, ids=repr)
def test_no_bad_value_gets_in(tmp_path: Path, value: Any) -> None:
    """F13: a price that is none is rejected with a reason, by stream and poll alike, and triggers nothing."""
    faults = [
        Fault(on, "value", from_s=1, to_s=2, field=name, value=value)
        for on, name in (("stream *@ticker", "last"), ("stream *@bookTicker", "bid"), (ASKED, "last"))
    ]
    played = play(tmp_path, faults, 3.5)
    assert is_healthy(played)
    rejected = played.status["data"]["rejected"]
    assert set(rejected) <= {"missing", "not_finite", "not_positive", "duplicate", "far_quote"}, rejected
    if value is not None:
        assert sum(rejected.values()) > 0


@pytest.mark.parametrize(("does", "reason"), [("crossed", "crossed"), ("foreign", "wrong_symbol")])
def test_crossed_and_foreign_tickers_are_rejected(tmp_path: Path, does: str, reason: str) -> None:
    """F13: another symbol's answer is not this one's."""
    fault = Fault(ASKED, does, from_s=1, to_s=2, symbol="XRPUSDT")
    played = play(tmp_path, [fault], 4, MARKET_DATA="poll")
    assert is_healthy(played)
    assert played.status["data"]["rejected"].get(reason, 0) > 0 or does == "foreign"


MARKETS = [("gone", {}), ("renamed", {"symbol": "BTX/USDT"}), ("halted", {}), ("redenominated", {"factor": 0.001})]


@pytest.mark.parametrize(("does", "more"), MARKETS)
@pytest.mark.parametrize("mode", ["stream", "poll"])
def test_a_market_that_changes_is_parked_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, more: dict[str, Any], mode: str
) -> None:
    """F17: the symbol is parked with why, no trigger of it can buy, and the other one goes on as if nothing were."""
    monkeypatch.setattr(listings, "LOOK_AGAIN_S", 0.5)
    fault = Fault("market BTC/USDT", does, from_s=1.5, **more)
    played = play(tmp_path, [fault], 9, MARKET_DATA=mode, WATCHDOG_S=1.5, TICKER_MAX_AGE_S=2)
    assert played.state("BTC/USDT").startswith("parked"), played.lines
    assert played.state("ETH/USDT") == "armed"
    row = next(row for row in played.status["symbols"] if row["symbol"] == "ETH/USDT")
    assert row["age_s"] < 1.5
    assert row["rejected"] <= 2, played.lines
    assert sum("symbol BTC/USDT is parked" in line for line in played.lines) == 1
    assert all("parked" in d["reasons"] for d in played.status["decisions"] if d["symbol"] == "BTC/USDT")


def test_one_bad_list_of_markets_parks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F14, F17: HTML in place of exchangeInfo is a bad answer, not the end of every symbol."""
    monkeypatch.setattr(listings, "LOOK_AGAIN_S", 0.3)
    prices = {"last": "600000", "bid": "599999", "ask": "600001"}  # a slip, so that the listings are looked at
    faults = [Fault("stream btcusdt@ticker", "value", 1.5, 2.5, field=name, value=prices[name]) for name in prices]
    played = play(tmp_path, [*faults, Fault("GET exchangeInfo", "html", from_s=1.5, to_s=4)], 8)
    assert any(line.startswith("listings cannot be read") for line in played.lines)
    assert not any("gone" in line or "dropped" in line for line in played.lines)
    assert is_healthy(played)
    assert played.state("BTC/USDT") == "armed"


def test_a_symbol_whose_stream_never_speaks_is_polled(tmp_path: Path) -> None:
    """F16: the others' stream works, so that one is asked for beside it."""
    played = play(tmp_path, [Fault("stream btcusdt@*", "silent")], 6)
    row = next(row for row in played.status["symbols"] if row["symbol"] == "BTC/USDT")
    assert row["last"] is not None
    assert row["age_s"] < 2 * FAST["WATCHDOG_S"]
    assert played.status["data"]["mode"] == "stream"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("17", 17), ("0", 1), ("-5", 1), ("Wed, 21 Oct 2015 07:28:00 GMT", 1), ("1" + "0" * 20, 604_800), ("", 60),
        ("soon", 60), ("nan", 60), ("inf", 604_800), ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", 60),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999", 60),
    ],
)  # fmt: skip
def test_whatever_stands_in_retry_after_is_a_time_to_wait(text: str, seconds: float) -> None:
    """Never none, never for good, never an exception."""
    assert retry_after_s({"retry-after": text}) == seconds


def test_a_refusal_in_mid_session_is_survived(tmp_path: Path) -> None:
    """A 401 that comes and goes is trouble of the exchange; at the start it would end the bot with exit 5."""
    played = play(tmp_path, [Fault(ASKED, "status", status=401, from_s=1.5, to_s=3)], 6, MARKET_DATA="poll")
    assert is_healthy(played)
    assert any(line.startswith("poll broken") for line in played.lines)


def test_a_halted_market_is_released_when_it_trades_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halted for two seconds, then as before."""
    monkeypatch.setattr(listings, "LOOK_AGAIN_S", 0.3)
    monkeypatch.setattr(listings, "LOOK_EVERY_S", 1.0)
    fault = Fault("market BTC/USDT", "halted", from_s=1, to_s=4)
    played = play(tmp_path, [fault], 8, WATCHDOG_S=1)
    assert any("symbol BTC/USDT is parked: halted" in line for line in played.lines)
    assert any("symbol BTC/USDT is released" in line for line in played.lines)
    assert played.state("BTC/USDT") == "armed"


def test_a_slip_of_the_feed_parks_only_until_it_is_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One price ten times too high is a jump; the symbol is released when the exchange and the next prices say so."""
    monkeypatch.setattr(listings, "LOOK_AGAIN_S", 0.5)
    prices = {"last": "600000", "bid": "599999", "ask": "600001"}
    slip = [Fault("stream btcusdt@ticker", "value", 1.5, 2.5, field=name, value=prices[name]) for name in prices]
    played = play(tmp_path, slip, 5)  # a second holds one ticker
    assert any("symbol BTC/USDT is parked: leap" in line for line in played.lines), played.lines
    assert played.state("BTC/USDT") == "armed"


def test_a_clock_that_is_set_is_an_event_and_nothing_else(tmp_path: Path) -> None:
    """F11: an hour forwards and back; the ticks go on, no trigger, two lines of the log."""
    offset = [0]
    changes = iter([3_600_000, 0])

    def during(session: Session, _: Core) -> None:
        if session.state == "running" and session.market_data is not None and session.market_data.ticks > 50:
            session.market_data.ticks = 0
            offset[0] = next(changes, offset[0])
            session._steps._wall_ms = lambda: session.clock.now_ms() + offset[0]

    played = play(tmp_path, [], 9, during)
    assert is_healthy(played)
    steps = [line for line in played.lines if line.startswith("clock_step")]
    assert [line.split()[1] for line in steps] == ["step_s=+3600.0:", "step_s=-3600.0:"]


def test_a_bot_on_an_exchange_elsewhere_asks_nothing_of_it_during_a_ban(tmp_path: Path) -> None:
    """Its clock's questions count too: one request meets the ban, and no other."""
    for times in (1, 4):  # as long: a bot that starts slowly may come when all is over
        script = tmp_path / f"faults{times}.toml"
        script.write_text(f'[[fault]]\non = "GET *"\ndoes = "ban"\nfrom_s = {4 * times}\nto_s = {14 * times}\n')
        home = tmp_path / f"a{times}"
        words = [sys.executable, "-m", "tradingbot", "exchange", "--home", str(home), "--faults", str(script)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[1]
            home, seconds = tmp_path / f"b{times}", str(16 * times)
            done = call(home, "--duration", seconds, "--set", f"EMBEDDED_URL={url}", "--set", "MARKET_DATA=poll",
                        "--set", "POLL_S=1")  # fmt: skip
            process.terminate()
            _, stderr = process.communicate(timeout=LIMIT_S)
        if "held back for" in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert "fault over: ban on GET * (met 1 times)" in stderr
    assert re.search(r"fresh=12/12 .*\n.*stopped", done.stderr)


def test_without_a_network_the_bot_says_so_and_ends(tmp_path: Path) -> None:
    """F15: no name can be found; exit 5, one line."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-n", "true"], check=False).returncode:
        pytest.skip("network namespaces are refused here")
    words = ["unshare", "-n", sys.executable, "-m", "tradingbot", "--home", str(tmp_path), "--set", "EXCHANGE=binance",
             "--set", "RETRY_BASE_S=0.05"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 5, done.stderr
    assert done.stderr.splitlines()[-1].startswith("tradingbot: binance cannot be reached: ")
    assert "Traceback" not in done.stderr


SCRIPT = """
[[fault]]
on = "GET time"
does = "status"
status = 500
to_s = 1000
"""


def test_the_exchange_alone_plays_a_script(tmp_path: Path) -> None:
    """`--faults FILE`: what it says happens, to any program, and is told on stderr."""
    import urllib.error
    import urllib.request

    (tmp_path / "faults.toml").write_text(SCRIPT)
    words = [sys.executable, "-m", "tradingbot", "exchange", "--home", str(tmp_path), "--faults",
             str(tmp_path / "faults.toml")]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        with pytest.raises(urllib.error.HTTPError, match="500"):
            urllib.request.urlopen(url + "/api/v3/time")
        assert urllib.request.urlopen(url + "/api/v3/ping").status == 200
        process.terminate()
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert "fault begins: status 500 on GET time" in stderr
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[fault]]\non='GET *'", "does missing"),
        ("[[fault]]\non='GET *'\ndoes='explode'", "nothing that GET can do: ban, crossed"),
        ("[[fault]]\non='stream *'\ndoes='ban'", "nothing that stream can do"),
        ("[[fault]]\non='PATCH x'\ndoes='ban'", "METHOD NAME"),
        ("[[fault]]\non='GET *'\ndoes='ban'\nform_s=1", "form_s is unknown"),
        ("[[fault]]\non='GET *'\ndoes='ban'\nfrom_s='now'", "from_s = 'now' is no number"),
        ("[[fault]]\non='GET *'\ndoes='ban'\nfrom_s=5\nto_s=5", "0 <= from_s < to_s"),
        ("[[fault]]\non='market A/B'\ndoes='renamed'", "needs a symbol"),
        ("[[fault]]\non='GET *'\ndoes='value'\nfield='x'", "field = 'x'"),
        ("[[fault]]\non='market A/B'\ndoes='redenominated'\nfactor=0", "cannot be used"),
        ("fault = 3", "no [[fault]]"),
        ("[[fault", "is not a TOML file"),
    ],
)
def test_a_script_that_cannot_be_played_is_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    """It names the fault and what is allowed."""
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_faults(path)
    assert complaint in str(error.value)


def test_the_script_of_the_documents_can_be_played(tmp_path: Path) -> None:
    """docs/EXCHANGE.md shows one that works."""
    from tests.conftest import ROOT

    text = (ROOT / "docs" / "EXCHANGE.md").read_text()
    path = tmp_path / "faults.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0])
    assert [fault.does for fault in read_faults(path).faults] == ["ban", "freeze", "value", "redenominated"]
