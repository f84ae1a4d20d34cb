"""Doctor's advice: faults caused on a real bot, the very commands that a finding prints are run, and it is gone."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.patients import FAILED, OK, WARNING, by_name, patient, report
from tests.test_live import bot, call, command, status_of, wait_for
from tradingbot.ops.checkup import Finding
from tradingbot.ops.doctor import disk as doctor_disk
from tradingbot.ops.doctor import exchange as doctor_exchange
from tradingbot.ops.doctor import market as doctor_market
from tradingbot.ops.doctor import past as doctor_past
from tradingbot.ops.doctor import state as doctor_state
from tradingbot.ops.doctor.exchange import Probe

WHY = ("--yes", "--why", "as doctor says")


def settled(home: Path, **settings: object) -> None:
    """Write the settings of a home, so that every command there goes by them."""
    rows = (f"{key} = {str(value).lower() if value is True else repr(value)}\n" for key, value in settings.items())
    (home / "tradingbot.toml").write_text("".join(rows))


def seen(home: Path) -> dict[str, Finding]:
    """Return what doctor finds of the market, the writer and the exchange, by name."""
    ill = patient(home)
    found = [*doctor_market.no_triggers(ill), *doctor_market.tickers(ill), *doctor_disk.writer(ill)]
    return by_name([*found, doctor_state.ports(ill), doctor_exchange.exchange(ill, Probe(ill), 5)])


def follow(home: Path, finding: Finding, said: str, *more: str) -> str:
    """Run the command of a finding that begins so, or the rollback that it names; return what that prints."""
    printed = f"{finding.fix}\ntradingbot rollback {finding.profile}"
    match = re.search(rf"tradingbot ({re.escape(said)}[^\s,;:)]*)", printed)
    assert match is not None, f"{said} is not what is printed: {printed}"
    done = call(home, *shlex.split(match[1]), *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> int:
    """Return a port that nobody listens on, and that no outgoing connection is given either."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("every port is taken")


@contextmanager
def exchange_on(home: Path, words: list[str]) -> Iterator[None]:
    """Run the command that starts an exchange until the block ends."""
    with subprocess.Popen(command(home, *words), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("READY ")
            yield
        finally:
            process.kill()


def test_an_exchange_that_is_gone_and_comes_back_with_other_money_is_met_by_what_doctor_prints(
    tmp_path: Path,
) -> None:
    """Started where nobody listens, asked at once where symbols wait, streamed where polls are refused, others set."""
    port, market = free_port(), tmp_path / "market"
    settled(
        tmp_path, EMBEDDED_URL=f"http://127.0.0.1:{port}", MARKET_DATA="poll", POLL_S=0.2, RETRY_BASE_S=40_000.0,
        RETRY_MAX_S=80_000.0, SYMBOLS=["BTC/USDT", "ETH/USDT"],
    )  # fmt: skip
    missing = seen(tmp_path)
    assert (missing["ports"].verdict, missing["exchange"].verdict) == (FAILED, FAILED)
    start = re.search(r"tradingbot (exchange --port \d+)", missing["ports"].fix)
    assert start is not None
    words = start[1].split()
    with ExitStack() as stack:
        with exchange_on(market, words):
            found = seen(tmp_path)
            assert (found["ports"].verdict, found["exchange"].verdict) == (OK, OK)
            process = stack.enter_context(bot(tmp_path))
        wait_for(lambda: all(row["retry"] for row in status_of(tmp_path)["symbols"]), process, 60)
        assert seen(tmp_path)["ports"].verdict is FAILED

        with exchange_on(market, words):
            found = seen(tmp_path)
            assert (found["ports"].verdict, found["exchange"].verdict) == (OK, OK)
            assert (found["symbols"].verdict, "all 2 wait after failures" in found["symbols"].says) == (FAILED, True)
            follow(tmp_path, found["symbols"], "rollback retry", *WHY, "--no-compare")
            wait_for(lambda: status_of(tmp_path)["data"]["fresh"] == 2, process, 60)
            wait_for(lambda: seen(tmp_path)["tickers"].verdict is OK, process, 60)
            assert "symbols" not in seen(tmp_path)

        faults = tmp_path / "faults.toml"
        leap = '[[fault]]\non = "market {}/USDT"\ndoes = "redenominated"\nfactor = 1000\n'
        busy = '[[fault]]\non = "GET ticker/24hr"\ndoes = "status"\nstatus = 429\nretry_after_s = 1\ntimes = 2\n'
        faults.write_text(leap.format("BTC") + leap.format("ETH") + busy)
        with exchange_on(market, [*words, "--faults", str(faults)]):
            wait_for(lambda: "to be left alone" in seen(tmp_path)["tickers"].says, process, 60)
            follow(tmp_path, seen(tmp_path)["tickers"], "set MARKET_DATA=stream", *WHY)
            wait_for(
                lambda: all(row["state"].startswith("parked") for row in status_of(tmp_path)["symbols"]), process, 90
            )
            found = seen(tmp_path)
            assert (found["symbols"].verdict, "all 2 are parked" in found["symbols"].says) == (FAILED, True)
            assert "tradingbot set SYMBOLS=..." in found["symbols"].fix
            assert call(tmp_path, "set", "SYMBOLS=SOL/USDT", *WHY).returncode == 0
            follow(tmp_path, found["symbols"], "restart", *WHY)
            wait_for(lambda: [row["symbol"] for row in status_of(tmp_path)["symbols"]] == ["SOL/USDT"], process, 60)
            wait_for(lambda: status_of(tmp_path)["data"]["fresh"] == 1, process, 60)
            wait_for(lambda: seen(tmp_path)["tickers"].verdict is OK, process, 60)
            assert "symbols" not in seen(tmp_path)
            assert status_of(tmp_path)["data"]["mode"] == "stream"


def test_windows_that_are_not_full_and_entries_that_are_blocked_come_by_what_doctor_prints(tmp_path: Path) -> None:
    """WINDOW_STRICT_WARMUP for a day, then the kill switch: each finding's command ends it, and explain says why."""
    settled(
        tmp_path, EMBEDDED_SPEED=40.0, EMBEDDED_SYMBOLS=2, DROP_TRIGGER_VALUE=0.9985, GLOBAL_TRADING=True,
        WINDOW_STRICT_WARMUP=True, WINDOW_LOOKBACK_S=86_400.0,
    )  # fmt: skip
    assert call(tmp_path, "kill", "--why", "a drill").returncode == 0
    with bot(tmp_path) as process:
        found = seen(tmp_path)
        assert (found["windows"].verdict, found["kill switch"].verdict) == (WARNING, WARNING)
        follow(tmp_path, found["windows"], "set WINDOW_STRICT_WARMUP=false", *WHY)
        wait_for(lambda: status_of(tmp_path)["decisions"], process, 120)
        found = seen(tmp_path)
        assert "windows" not in found
        assert (found["entries"].verdict, "all blocked: " in found["entries"].says) == (WARNING, True)
        assert "killed" in follow(tmp_path, found["entries"], "explain --last")
        follow(tmp_path, found["kill switch"], "arm")
        wait_for(lambda: any(each["outcome"] == "entered" for each in status_of(tmp_path)["decisions"]), process, 120)
        assert not {"kill switch", "entries", "windows"} & set(seen(tmp_path))


def test_an_anchor_that_one_odd_tick_has_set_begins_anew_by_what_doctor_prints(tmp_path: Path) -> None:
    """A market with a spike: the trigger's reference is named, explained, reset; what was is no failure any more."""
    prices = [100 + (second % 3) / 100 for second in range(6000)]
    prices[100] = 103.0
    rows = "".join(f"{1_767_225_600_000 + second * 1000},X/USDT,{price},1e9\n" for second, price in enumerate(prices))
    (tmp_path / "market.csv").write_text("ts_ms,symbol,last,quote_volume\n" + rows)
    settled(
        tmp_path, EMBEDDED_MARKET=str(tmp_path / "market.csv"), EMBEDDED_SPEED=20.0, DROP_TRIGGER_VALUE=0.99,
        WINDOW_LOOKBACK_S=5000.0,
    )  # fmt: skip

    def references() -> Finding:
        return by_name(doctor_past.unexpected_triggers(patient(tmp_path)))["references"]

    with bot(tmp_path) as process:
        wait_for(lambda: references().verdict is FAILED, process, 60)
        found = references()
        assert "103, +3.0 % from the" in found.says
        assert "103" in follow(tmp_path, found, f"explain {status_of(tmp_path)['decisions'][-1]['decision_id']}")
        follow(tmp_path, found, "anchors reset X/USDT", *WHY)
        wait_for(lambda: references().verdict is WARNING, process, 60)
        assert "another anchor is in force by now" in references().fix
        assert status_of(tmp_path)["symbols"][0]["reference"] < 101


SLOW = """
import errno, io, os, threading, time

here, opened, written = os.environ["SLOW_DISK"], io.open, os.write

def fsync(descriptor):
    if not os.readlink(f"/proc/self/fd/{descriptor}").startswith(here + os.sep):
        return  # of a disk that takes no time
    time.sleep(float(os.environ.get("FSYNC_S", "0")))
    while os.path.exists(here + ".stands") and threading.current_thread().name == "streams":
        opened(here + ".stands.here", "w").close()
        time.sleep(0.05)

def slow(path, *words, **more):
    if f"{os.sep}ticks{os.sep}" in str(path):
        time.sleep(float(os.environ.get("OPEN_S", "0")))
    return opened(path, *words, **more)

def full(descriptor, text):
    if os.path.exists(here + ".full") and f"{os.sep}ticks{os.sep}" in os.readlink(f"/proc/self/fd/{descriptor}"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return written(descriptor, text)

os.fsync, os.write, io.open = fsync, full, slow
"""
"""What makes a disk bad for a process: slow to sync, slow to open ticks, full for ticks, or standing still."""


@pytest.fixture
def slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the disk of a home's state be slow for the processes that are begun; return the home."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))
    monkeypatch.setenv("SLOW_DISK", str(tmp_path / "state"))
    return tmp_path


def test_a_slow_disk_is_left_for_another(slow_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real command: 150 ms for each fsync there; moved to a disk that is quick, it is silent."""
    monkeypatch.setenv("FSYNC_S", "0.15")
    (slow_disk / "state" / "journal").mkdir(parents=True)
    (found,) = report(slow_disk, code=0)["disk speed"]
    assert (found["verdict"], found["profile"]) == ("warning", "persistence")
    assert "move the state to another disk" in found["fix"]
    (slow_disk / "quick").mkdir()
    shutil.move(slow_disk / "state", slow_disk / "quick" / "state")
    settled(slow_disk, STATE_DIR="quick/state")
    assert report(slow_disk, code=0)["disk speed"][0]["verdict"] == "ok"


def test_a_start_that_is_slow_and_a_writer_that_loses_or_stands_still_are_well_again_by_what_doctor_prints(
    slow_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that open slowly: bounded. A disk that is full: it is not. One that stands still: recording is stopped."""
    home = slow_disk
    settled(home, EMBEDDED_SYMBOLS=8)
    assert call(home, "--virtual", "--duration", "20", "--no-dashboard").returncode == 0
    monkeypatch.setenv("OPEN_S", "0.3")
    with bot(home) as process:
        monkeypatch.setenv("OPEN_S", "0")

        def started() -> Finding:
            return by_name(doctor_past.warm_start(patient(home)))["warm start"]

        assert (started().verdict, "went into ticks" in started().fix) == (WARNING, True)
        follow(home, started(), "set WARMSTART_MAX_S=1", *WHY)
        sid = status_of(home)["bot"]["sid"]
        assert call(home, "restart", *WHY).returncode == 0
        wait_for(lambda: status_of(home)["bot"]["sid"] != sid and status_of(home)["data"]["ticks"], process, 60)
        assert started().verdict is OK, started().says

        full = home / "state.full"
        full.touch()
        wait_for(lambda: "ticks degraded; lost ticks" in seen(home)["writer"].says, process, 60)
        found = seen(home)["writer"]
        assert (found.verdict, "it heals by itself" in found.fix) == (FAILED, True)
        full.unlink()
        wait_for(lambda: seen(home)["writer"].verdict is WARNING, process, 60)
        assert "gap" in follow(home, seen(home)["writer"], "fsck")

        (home / "state.stands").touch()
        wait_for((home / "state.stands.here").exists, process, 60)
        for path in (home / "state" / "drop_windows" / "ticks").iterdir():
            os.utime(path, (1e9, 1e9))  # as if it had stood for long
        wait_for(lambda: "cannot keep up" in seen(home)["writer"].says, process, 60)
        found = seen(home)["writer"]
        assert found.verdict is FAILED
        follow(home, found, "rollback persistence", *WHY, "--no-compare")
        wait_for(lambda: seen(home)["writer"].verdict is not FAILED, process, 60)
        (home / "state.stands").unlink()
