"""Whole sessions: what the exchange served and what the bot made of it, over sockets and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

import tradingbot as tb
from tests.helpers import LIMIT_S
from tests.test_live import bot, call, command, is_watching, live_until, status_of, wait_for
from tradingbot.config import Settings, make_settings
from tradingbot.exchange.ccxt_client import CcxtExchange
from tradingbot.exchange.errors import NoExchangeError, UnreachableError
from tradingbot.exchange.feeds import BinanceTap
from tradingbot.io.home import Home
from tradingbot.io.overrides import Effective
from tradingbot.market.ticker import Ticker
from tradingbot.services.clock import Clock
from tradingbot.services.connect import Surroundings, connect
from tradingbot.services.session import Session
from tradingbot.simulated import server as server_module
from tradingbot.simulated.core import Core
from tradingbot.simulated.market import CRASH_SLOT_MS, SyntheticMarket
from tradingbot.simulated.server import ExchangeServer
from tradingbot.simulated.streams import MarketStream
from tradingbot.ui.dashboard import render

TRIGGER = re.compile(
    r"BUY TRIGGER symbol=(\S+) last=(\S+) drop_pct=(\S+) reference=(\S+) source=anchor threshold=(\S+) mode=4 "
    r"outcome=(\w+)(?: reasons=(\S+))? id=(\S+)"
)


def crash_ms(market: SyntheticMarket, after_ms: int) -> int:
    """Return when a deep crash begins."""
    slot = after_ms // CRASH_SLOT_MS + 1
    while (crash := market.crash(slot)) is None or crash.depth < 0.04 or crash.fall_ms > 90_000:
        slot += 1
    return crash.start_ms


def test_log_dashboard_and_status_tell_the_triggers_of_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An observing bot through a crash, over real sockets: what was served, replayed, gives the very same triggers.

    The exchange's time goes on when all that was served has been heard: no machine is too slow for it.
    """
    market = SyntheticMarket(7, 4)
    passed_s = 0.0
    clock = Clock(1, crash_ms(market, 1_767_225_600_000) - 30_000, lambda: passed_s)
    core = Core(market)
    served: list[Ticker] = []
    asked: list[str] = []
    looked: list[int] = []
    now = 0
    tap = BinanceTap(lambda: now)
    tap.begin({symbol.replace("/", ""): symbol for symbol in market.symbols}, served.append)

    class Noted(MarketStream):
        def receive(self, text: str, now: int) -> bytes:
            asked.append(text)
            return super().receive(text, now)

        def due(self, at: int) -> Iterator[bytes]:
            nonlocal now
            now = at
            for event in super().due(at):
                tap.take(orjson.loads(event))
                yield event
            looked.append(at)

    monkeypatch.setattr(server_module, "MarketStream", Noted)

    async def connect(settings: Settings, _: Path, __: int, stack: contextlib.AsyncExitStack) -> Surroundings:
        server = await stack.enter_async_context(ExchangeServer(core, clock.now_ms))
        exchange = CcxtExchange("embedded", clock.now_ms, settings.REQUEST_TIMEOUT_S, server.url)
        stack.push_async_callback(exchange.close)
        return Surroundings(exchange, clock)

    settings = make_settings({"WATCHDOG_S": 86_400, "REQUEST_TIMEOUT_S": LIMIT_S})  # the stream alone is listened to
    effective = Effective(settings, dict.fromkeys(Settings.__struct_fields__, "test"), Home(tmp_path, "test"))
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tradingbot")
    logger.setLevel("INFO")
    logger.addHandler(handler)

    async def main() -> None:
        nonlocal passed_s
        session = Session(effective, None, connect)
        running = asyncio.create_task(session.run(None))

        async def until(holds: Callable[[], bool]) -> None:
            while not holds():
                assert not running.done(), running.exception()
                await asyncio.sleep(0.002)

        def is_heard() -> bool:
            data = session.market_data
            return data is not None and data.ticks + sum(data.rejected.values()) == len(served)

        await until(lambda: len(asked) == 2)  # books and tickers
        while passed_s < 200:
            passed_s += 1
            await until(lambda: looked[-1:] == [clock.now_ms()])
            await until(is_heard)
        session._be_stopped()
        await running

    try:
        asyncio.run(asyncio.wait_for(main(), LIMIT_S))
    finally:
        logger.removeHandler(handler)
    logged = [found.groups() for line in lines if (found := TRIGGER.match(line))]
    assert len({found[0] for found in logged}) == 4, "the crash took them all down"
    status = status_of(tmp_path)
    replayed = tb.replay(served).decisions
    expected = [
        (d["symbol"], f"{d['last']:.8g}", f"{d['drop_pct']:.3f}", f"{d['reference']:.8g}", f"{d['threshold']:.8g}",
         d["outcome"], ",".join(d["reasons"]) or None, d["decision_id"])
        for d in replayed
    ]  # fmt: skip
    assert logged == expected
    assert [d["decision_id"] for d in status["decisions"]] == [found[7] for found in logged][-20:]
    for row in status["symbols"]:
        assert row["triggers"] == sum(found[0] == row["symbol"] for found in logged)
    console = Console(width=200, record=True, file=(tmp_path / "x").open("w"))
    console.print(render(status, 200))
    console.file.close()
    shown = console.export_text()
    for d in status["decisions"][-6:]:
        assert f"{d['symbol']} {d['last']:.6g} is {d['drop_pct']:.2f} % from its anchor, {d['outcome']}" in shown
    assert core.orders_seen == 0


@contextmanager
def exchange(home: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run an exchange in its own process; give it and its address."""
    arguments = [sys.executable, "-m", "tradingbot", "exchange", "--home", str(home), *words]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[1]
        finally:
            process.kill()


def test_a_bot_follows_an_exchange_that_runs_elsewhere(tmp_path: Path) -> None:
    """Time, speed and symbols are that exchange's; killed and started again it goes on, and no clock runs back."""
    times: list[int] = []

    def is_fresh() -> bool:
        status = status_of(home)
        times.append(status.get("time_ms", 0))
        return bool(status.get("data", {}).get("fresh") == 3 and status["data"]["mode"] == "stream")

    home = tmp_path / "bot"
    home.mkdir()
    speed = ("--set", "EMBEDDED_SPEED=30", "--set", "EMBEDDED_SYMBOLS=3")
    with exchange(tmp_path / "a", *speed) as (first, url):  # noqa: SIM117  (the second one needs its address)
        with bot(home, "--set", f"EMBEDDED_URL={url}", "--set", "WATCHDOG_S=2", "--set", "POLL_S=0.5") as process:
            wait_for(is_fresh, process)
            before = status_of(home)
            wait_for(lambda: status_of(home)["bot"]["uptime_s"] >= before["bot"]["uptime_s"] + 1, process)
            after = status_of(home)
            passed_s = after["bot"]["uptime_s"] - before["bot"]["uptime_s"]
            assert after["time_ms"] - before["time_ms"] > 10_000 * passed_s
            first.kill()
            first.wait()
            wait_for(lambda: not is_fresh(), process)
            with exchange(tmp_path / "a", "--port", url.rsplit(":", 1)[1], *speed):
                wait_for(is_fresh, process)
                ticks = status_of(home)["data"]["ticks"]
                wait_for(lambda: status_of(home)["data"]["ticks"] > ticks + 50, process)
                process.send_signal(signal.SIGTERM)
                assert process.wait(LIMIT_S) == 0
    assert times == sorted(times)
    assert len(status_of(home)["symbols"]) == 3


def test_a_killed_exchange_tells_no_moment_twice(tmp_path: Path) -> None:
    """SIGKILL at a hundred times real time: the next one begins behind all that was told."""
    import urllib.request

    def now(url: str) -> int:
        return int(orjson.loads(urllib.request.urlopen(url + "/api/v3/time", timeout=LIMIT_S).read())["serverTime"])

    last = 0
    for _ in range(3):
        with exchange(tmp_path, "--set", "EMBEDDED_SPEED=100") as (process, url):
            assert now(url) >= last
            time.sleep(0.7)
            last = now(url)
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a recorded market with crashes in it."""
    path = tmp_path_factory.mktemp("data") / "recording.csv"
    words = ["--seed", "7", "--hours", "1.5", "--symbols", "3", "--out", str(path)]
    subprocess.run([sys.executable, "-m", "tradingbot.simulated.market", *words], check=True)
    return path


def virtual(home: Path, seconds: float, *words: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    return call(home, "--virtual", "--duration", str(seconds), "--no-dashboard", *words)


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_a_recorded_market_in_virtual_time_gives_the_decisions_of_its_replay(
    tmp_path: Path, recording: Path, mode: int
) -> None:
    """The whole bot on the recording: every decision id, price, reference and outcome is the replay's."""
    setting = ("--set", f"DROP_TRIGGER_MODE={mode}", "--set", "DROP_TRIGGER_VALUE=0.99")
    done = virtual(tmp_path / "bot", 5410, "--set", f"EMBEDDED_MARKET={recording}", *setting)
    assert done.returncode == 0, done.stderr
    replayed = tb.replay(recording, DROP_TRIGGER_MODE=mode, DROP_TRIGGER_VALUE=0.99).decisions
    logged = re.findall(r"outcome=(\w+)(?: reasons=(\S+))? id=(\S+)", done.stderr)
    assert logged == [(d["outcome"], ",".join(d["reasons"]), d["decision_id"]) for d in replayed]
    assert len(logged) > 5
    kept = status_of(tmp_path / "bot")["decisions"]
    names = ("decision_id", "ts_ms", "symbol", "last", "reference", "threshold", "drop_pct", "outcome", "bid", "ask")
    assert [[d[name] for name in names] for d in kept] == [[d[name] for name in names] for d in replayed[-20:]]


def test_virtual_time_is_the_same_from_run_to_run(tmp_path: Path) -> None:
    """Log and status to the byte, paper orders and all; a second run on the same home goes on where the first ended."""
    words = ("--set", "GLOBAL_TRADING=true", "--set", "DROP_TRIGGER_VALUE=0.995", "--set", "EMBEDDED_SYMBOLS=4")
    seen = []
    for name in ("a", "b"):
        done = virtual(tmp_path / name, 2400, *words)
        assert done.returncode == 0, done.stderr
        status = status_of(tmp_path / name)
        del status["bot"]["pid"], status["disk"]
        seen.append((done.stderr, status))
    assert seen[0] == seen[1]
    assert "FILL symbol=" in seen[0][0]
    assert seen[0][1]["time_ms"] == 1_767_225_600_000 + 2_400_000
    virtual(tmp_path / "a", 60, *words)
    assert status_of(tmp_path / "a")["time_ms"] == 1_767_225_600_000 + 2_460_000


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--virtual",), "needs --duration"),
        (("--virtual", "--duration", "1", "--set", "EXCHANGE=binance"), "embedded exchange in this process"),
        (("--duration", "60", "--set", "EMBEDDED_MARKET=nowhere.csv"), "no file or directory nowhere.csv"),
    ],
)
def test_what_cannot_be_played_is_one_line(tmp_path: Path, words: tuple[str, ...], complaint: str) -> None:
    """Exit 2, and what to do."""
    done = call(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_how_long_a_machine_takes_to_begin_is_no_part_of_a_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that takes longer than the run is to last is waited for; one that is refused, or never ends, is not."""
    chosen = make_settings({"EMBEDDED_SYMBOLS": 2, "RETRY_BASE_S": 10})
    effective = Effective(chosen, dict.fromkeys(Settings.__struct_fields__, "test"), Home(tmp_path, "test"))

    async def slow(*words: Any) -> Surroundings:
        await asyncio.sleep(1.5)
        return await connect(*words)

    async def refusing(*_: Any) -> Surroundings:
        raise UnreachableError("nobody listens")

    async def silent(*_: Any) -> Surroundings:
        await asyncio.sleep(3600)
        raise AssertionError

    session = Session(effective, connect=slow)
    asyncio.run(session.run(0.2))
    assert session.engine is not None
    for without_answer, start_s in ((refusing, 120.0), (silent, 0.1)):
        monkeypatch.setattr("tradingbot.services.session.START_S", start_s)
        with pytest.raises(NoExchangeError, match=r"embedded was not reached in 0\.2 s"):
            asyncio.run(Session(effective, connect=without_answer).run(0.2))


def test_an_interrupt_while_the_exchange_does_not_answer_ends_it_at_once(tmp_path: Path) -> None:
    """Somebody listens and never answers: Ctrl-C is not made to wait for the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        words = command(tmp_path, "--set", f"EMBEDDED_URL={url}", "--set", "REQUEST_TIMEOUT_S=600")
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: status_of(tmp_path).get("bot", {}).get("state") == "starting", process)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert "stopped sid=" in stderr


def has_polled(home: Path) -> bool:
    """Return whether a bot has rejected what it heard, and then what it asked for."""
    data = status_of(home).get("data", {})
    return data.get("mode") == "poll" and data["rejected"].get("crossed", 0) > 100


@pytest.mark.parametrize("on", [True, False])
def test_a_features_word_is_in_the_log_only_while_it_is_on(tmp_path: Path, on: bool) -> None:
    """`retry_state`, `WARMSTART` and `jsonl` are what an operator greps for after a rollback."""
    script = tmp_path / "faults.toml"
    rows = [f'[[fault]]\non = "stream *@{kind}"\ndoes = "crossed"\n' for kind in ("ticker", "bookTicker")]
    rows.append('[[fault]]\non = "GET ticker/24hr"\ndoes = "crossed"\n')
    script.write_text("".join(rows))
    with exchange(tmp_path, "--set", "EMBEDDED_SPEED=30", "--faults", str(script)) as (_, url):
        words = ("--set", f"EMBEDDED_URL={url}", "--set", "WATCHDOG_S=1", "--set", "POLL_S=0.2")
        flags = ("FEATURE_RETRY_BACKOFF", "FEATURE_WARMSTART_TICKS", "FEATURE_PERSIST_STREAMS")
        done = live_until(
            tmp_path, *words, *(word for flag in flags for word in ("--set", f"{flag}={str(on).lower()}")),
            holds=lambda: has_polled(tmp_path),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ticker rejected" in done.stderr
    assert ("retry_state" in done.stderr) is on
    assert ("WARMSTART - " in done.stderr) is on
    assert ("warmstart" in done.stderr.lower()) is on
    assert on or "jsonl" not in done.stderr


EAGER = ("--set", "GLOBAL_TRADING=true", "--set", "DROP_TRIGGER_VALUE=0.99999", "--set", "EMBEDDED_SPEED=100",
         "--set", "MAX_ENTRY_AWAY_BPS=9999", "--set", "MAX_SPREAD_BPS=9999")  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "fifo", "folder"])
def test_the_kill_switch_counts_from_the_first_tick_on(tmp_path: Path, kind: str) -> None:
    """Killed before the start: not one entry, whatever it is that stands there."""
    switch = tmp_path / "state" / "KILL"
    switch.parent.mkdir()
    {"file": switch.touch, "fifo": lambda: os.mkfifo(switch), "folder": switch.mkdir}[kind]()
    done = live_until(tmp_path, *EAGER, holds=lambda: len(status_of(tmp_path).get("decisions", ())) > 3)
    assert done.returncode == 0, done.stderr
    outcomes = re.findall(r"outcome=(\w+) reasons=(\S+)", done.stderr)
    assert len(outcomes) > 3
    assert all(outcome == "blocked" and "killed" in reasons for outcome, reasons in outcomes)
    assert "entered" not in done.stderr


def test_a_bot_whose_journal_cannot_be_written_is_degraded(tmp_path: Path) -> None:
    """No room for one more record of it: `status` says so, until there is room again."""
    with bot(tmp_path, "--set", "EMBEDDED_SYMBOLS=2") as process:
        wait_for(lambda: status_of(tmp_path)["data"]["ticks"], process)
        assert status_of(tmp_path)["bot"]["state"] == "running"
        (journal,) = (tmp_path / "state" / "journal").glob("*.jsonl")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (journal.stat().st_size, resource.RLIM_INFINITY))
        assert call(tmp_path, "set", "DEBOUNCE_S=4", "--yes", "--why", "an input of its own").returncode == 0
        wait_for(lambda: status_of(tmp_path)["bot"]["state"] == "degraded", process)
        assert "health: degraded" in call(tmp_path, "status").stdout
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_for(lambda: status_of(tmp_path)["bot"]["state"] == "running", process)


def test_a_run_as_json_is_its_last_status(tmp_path: Path) -> None:
    """One document on stdout and nothing else there: what status.json holds at the end."""
    done = call(tmp_path, "--duration", "5", "--virtual", "--set", "EMBEDDED_SYMBOLS=1", "--json", "--dashboard")
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout)
    assert told == status_of(tmp_path)
    assert (told["bot"]["state"], told["data"]["ticks"] > 0) == ("stopping", True)


def test_hostile_text_forges_no_line_of_the_log(tmp_path: Path) -> None:
    """A reason with a line end and a terminal's escape stays one line of plain text."""
    assert call(tmp_path, "kill", "--why", "x\n2026-11-23T00:00:00.000Z CRITICAL all lost \x1b[31m").returncode == 0
    done = live_until(tmp_path, "--set", 'SYMBOLS=["BTC/USDT","y\\n2026 FAKE\\u001b[31m"]')
    assert done.returncode == 0, done.stderr
    for text in (done.stderr, next((tmp_path / "logs").glob("*.log")).read_text()):
        assert "\x1b" not in text
        assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z (INFO|WARNING) \w", line) for line in text.splitlines())
        assert not any(
            line.startswith(("2026-11-23T00:00:00.000Z CRITICAL", "2026 FAKE")) for line in text.splitlines()
        )


def test_files_and_folders_are_the_users_own_whatever_the_umask(tmp_path: Path) -> None:
    """F27: 0600 and 0700, folders on the way and rotated logs too."""
    home, words = tmp_path / "deep" / "er", ("--set", "LOG_MAX_MB=0.0005", "--set", "LOG_DIR=l/a/b")
    before = os.umask(0)
    try:
        assert live_until(home, *words).returncode == 0
    finally:
        os.umask(before)
    paths = list((tmp_path / "deep").rglob("*"))
    assert len([path for path in paths if ".log" in path.name]) > 1
    for path in paths:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_reason_to_fall(tmp_path: Path, closed: str) -> None:
    """Started by something that closed stdout or stderr, it runs all the same."""
    line = f"exec {' '.join(command(tmp_path))} {closed}"
    with subprocess.Popen(
        ["sh", "-c", line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            wait_for(lambda: is_watching(tmp_path, process.pid), process)
            process.terminate()
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()
    assert "stopped sid=" in next((tmp_path / "logs").glob("*.log")).read_text()


def test_two_exchanges_never_share_an_account(tmp_path: Path) -> None:
    """The second one on a state directory is refused, a bot with its own included; exit 3 and whose it is."""
    with exchange(tmp_path) as (first, _):
        for words in (["exchange"], ["--duration", "60"]):
            done = call(tmp_path, *words)
            assert done.returncode == 3, done.stderr
            assert f"is in use by process {first.pid}" in done.stderr


def test_an_account_with_orders_on_another_market_is_refused(tmp_path: Path) -> None:
    """Exit 4 at the start, rather than an exchange that fails at every request."""
    order = {
        "order_id": 1, "client_id": "x", "symbol": "ATOM/USDT", "side": "BUY", "kind": "LIMIT", "time_in_force": "GTC",
        "price": "1", "qty": "10", "ms": 1, "status": "NEW", "filled": "0", "spent": "0", "updated_ms": 1, "seen": 1,
        "fills": [],
    }  # fmt: skip
    account = {"free": {"USDT": "9990"}, "locked": {"USDT": "10"}, "next_id": 2, "orders": [order]}
    (tmp_path / "state").mkdir()
    kept = tmp_path / "state" / "exchange.json"
    kept.write_bytes(orjson.dumps({"v": 1, "now_ms": 1_700_000_000_000, "account": account}))
    done = call(tmp_path, "--duration", "60", "--set", "EMBEDDED_SYMBOLS=1")
    assert (done.returncode, "open orders on ATOM/USDT" in done.stderr) == (4, True)
    for damage in ({"now_ms": 10**17}, {"account": {**account, "free": {"USDT": "NaN"}}}):
        kept.write_bytes(orjson.dumps({"v": 1, "now_ms": 5, "account": account, **damage}))
        done = call(tmp_path, "--duration", "60")
        assert (done.returncode, "is damaged" in done.stderr) == (4, True), done.stderr
