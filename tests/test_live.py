"""The live bot as a whole, through the real command against the embedded exchange."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from tests.helpers import LIMIT_S
from tradingbot.io.state_files import StateLock, lock_owner, write_atomic
from tradingbot.ui.dashboard import render


def command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tradingbot", "--home", str(home), *words]


def call(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(home, *words), capture_output=True, text=True, timeout=2 * LIMIT_S, check=False)


@contextmanager
def bot(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a bot in its own process until the block ends."""
    with (home / "stderr").open("w") as log, subprocess.Popen(command(home, *words), stderr=log, text=True) as process:
        try:
            wait_for(lambda: is_watching(home, process.pid), process)
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def live_until(home: Path, *words: str, holds: Callable[[], object] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a bot until `holds`, or it has told of ticks, however long that takes here; end it, return what it said.

    One that ends by itself before is left to whoever looks at its exit code.
    """
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(
        command(home, *words), stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:  # fmt: skip
        try:
            end = time.monotonic() + LIMIT_S
            while process.poll() is None and not (is_watching(home, process.pid) if holds is None else holds()):
                assert time.monotonic() < end, "it did not come"
                time.sleep(0.05)
            process.terminate()
            stdout, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
        log.seek(0)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, log.read())


def is_watching(home: Path, pid: int) -> bool:
    """Return whether the bot of this process, and not one before it, has told of ticks."""
    status = status_of(home)
    return bool(status) and status["bot"]["pid"] == pid and status["data"]["ticks"] > 0


def wait_for(holds: Any, process: subprocess.Popen[str], seconds: float = LIMIT_S) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, "the bot has ended"
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def status_of(home: Path) -> dict[str, Any]:
    try:
        status: dict[str, Any] = orjson.loads((home / "state" / "status.json").read_bytes())
    except OSError:
        return {}
    return status


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Give the home of a bot that ran for a few seconds through minutes of market, and what it said."""
    words = ("--set", "DROP_TRIGGER_VALUE=0.9985", "--set", "EMBEDDED_SPEED=40", "--set", "GLOBAL_TRADING=true",
             "--set", "SYMBOLS=BTC/USDT,ETH/USDT,NO/PE")  # fmt: skip
    for seconds in (15, 90):
        home = tmp_path_factory.mktemp("home")
        done = call(home, "--duration", str(seconds), *words)
        if done.stderr.count("HEARTBEAT") > 1:  # else the machine was too busy for a start within its time
            break
    return home, done


def test_it_starts_runs_and_ends_by_itself(ended: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Started, HEARTBEAT with all symbols fresh, stopped, exit 0; an unknown symbol is one line."""
    _, done = ended
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("symbol NO/PE is unknown to embedded: left out") == 1
    beats = re.findall(r"HEARTBEAT - Ticker fetched fresh=(\d+/\d+) oldest_s=[\d.]+ ticks=(\d+)", done.stderr)
    assert len(beats) >= 2
    assert beats[0][0] == "2/2"
    assert int(beats[-1][1]) > int(beats[0][1]) > 0
    assert "stopped sid=" in done.stderr
    assert "Traceback" not in done.stderr


def test_log_and_status_tell_the_same_triggers(ended: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Every BUY TRIGGER line is a decision in status.json, with the same numbers."""
    home, done = ended
    status = status_of(home)
    logged = re.findall(r"BUY TRIGGER .* outcome=(\w+).* id=(\S+)", done.stderr)
    assert logged[-20:] == [(d["outcome"], d["decision_id"]) for d in status["decisions"]]
    assert sum(row["triggers"] for row in status["symbols"]) == len(logged)
    assert done.stderr == (home / "logs").glob("*.log").__next__().read_text()


def test_the_status_file_has_what_others_rely_on(ended: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The names of the schema, and honest values."""
    home, _ = ended
    status = status_of(home)
    assert list(status) == [
        "v", "bot", "time_ms", "flags", "overrides", "settings_fingerprint", "symbols", "data", "streams", "disk",
        "warm_start", "positions", "decisions", "errors",
    ]  # fmt: skip
    assert status["bot"]["state"] == "stopping"
    assert [row["symbol"] for row in status["symbols"]] == ["BTC/USDT", "ETH/USDT"]
    assert any("NO/PE" in error["text"] for error in status["errors"])
    for row in status["symbols"]:
        assert row["ticks_per_min"] > 60
        assert row["bid"] < row["ask"]
        assert row["threshold"] == pytest.approx(row["reference"] * 0.9985)
        assert row["reference_source"] == "anchor"
    assert not (home / "state" / "status.json.tmp").exists()


def test_what_it_writes_is_the_users_own(ended: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """0600 and 0700, whatever the umask."""
    home, _ = ended
    for folder in ("state", "logs"):
        assert (home / folder).stat().st_mode & 0o777 == 0o700
        for path in (home / folder).rglob("*"):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_second_bot_is_told_whose_the_directory_is(tmp_path: Path) -> None:
    """Exit 3; and status, kill, arm and stop speak to the first."""
    with bot(tmp_path) as process:
        second = call(tmp_path, "--duration", "1")
        assert second.returncode == 3
        assert f"is in use by process {process.pid}" in second.stderr
        shown = call(tmp_path, "status")
        assert shown.returncode == 0
        assert "BTC/USDT" in shown.stdout
        assert orjson.loads(call(tmp_path, "status", "--json").stdout)["bot"]["pid"] == process.pid
        assert call(tmp_path, "kill", "--why", "odd prices").returncode == 0
        wait_for(lambda: status_of(tmp_path)["bot"]["state"] == "killed", process)
        assert "kill switch on: odd prices" in (tmp_path / "stderr").read_text()
        assert call(tmp_path, "arm").returncode == 0
        wait_for(lambda: status_of(tmp_path)["bot"]["state"] == "running", process)
        (tmp_path / "tradingbot.toml").write_text("POL_S = 3")  # broken since: no reason not to stop
        assert call(tmp_path, "stop").returncode == 0
        (tmp_path / "tradingbot.toml").unlink()
        assert process.wait(LIMIT_S) == 0
    for word in ("status", "stop"):
        done = call(tmp_path, word)
        assert (done.returncode, "no bot is running" in done.stderr) == (3, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_sigkill_leaves_no_lock(tmp_path: Path, number: int) -> None:
    """The lock goes with the process, however it ends."""
    with bot(tmp_path) as process:
        process.send_signal(number)
        assert process.wait(LIMIT_S) == 0
        assert "stopped sid=" in (tmp_path / "stderr").read_text()
    with bot(tmp_path) as process:
        process.kill()
        process.wait(LIMIT_S)
    assert lock_owner(tmp_path / "state") is None
    assert live_until(tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--set", "EXCHANGE=binanec"), 5, "did you mean binance"),
        (("--set", "SYMBOLS=NO/PE"), 2, "knows none of SYMBOLS"),
        (("--set", "QUOTE=XYZ"), 2, "no spot market quoted in XYZ"),
        (("--set", "EMBEDDED_URL=http://127.0.0.1:1", "--set", "RETRY_BASE_S=0.05"), 5, "EMBEDDED_URL"),
        (("--set", "EMBEDDED_URL=http://10.0.0.1:80"), 2, "no address on this machine"),
        (("--set", "GLOBAL_TRADING=true", "--set", "TRADING_MODE=live"), 2, "places no live orders"),
        (("--duration", "x"), 2, "--duration"),
    ],
)
def test_a_start_that_cannot_be_is_one_line(tmp_path: Path, words: tuple[str, ...], code: int, complaint: str) -> None:
    """The exit code says what kind, the line what to do."""
    done = call(tmp_path, *words)
    assert done.returncode == code, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_of_another_exchange_is_refused(tmp_path: Path) -> None:
    """The stamp of the first start holds."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "stamp.json").write_text('{"v": 1, "exchange": "kraken", "trading_mode": "paper"}')
    done = call(tmp_path, "--duration", "1")
    assert done.returncode == 4
    assert "belongs to kraken" in done.stderr
    (tmp_path / "state" / "stamp.json").write_text("{")
    assert call(tmp_path, "--duration", "1").returncode == 4


def open_files(pid: int) -> set[str]:
    """Return what a process has open, but for what it closes meanwhile."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(os.readlink(descriptor))  # noqa: PTH115  (no real path)
    return found


def test_an_observing_bot_sends_no_order_and_opens_no_port_but_the_exchanges(tmp_path: Path) -> None:
    """What it listens on is loopback, and the exchange's account is as it was."""
    with bot(tmp_path, "--set", "EMBEDDED_SPEED=60", "--set", "DROP_TRIGGER_VALUE=0.9995") as process:
        wait_for(lambda: sum(row["triggers"] for row in status_of(tmp_path)["symbols"]) > 5, process)
        listening = [
            line.split()
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/{process.pid}/net/{name}").read_text().splitlines()[1:]
        ]
        inodes = open_files(process.pid)
        own = [line[1] for line in listening if line[3] == "0A" and f"socket:[{line[9]}]" in inodes]
        assert len(own) == 1
        assert own[0].startswith("0100007F:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    account = orjson.loads((tmp_path / "state" / "exchange.json").read_bytes())["account"]
    assert account["orders"] == []
    assert {d["outcome"] for d in status_of(tmp_path)["decisions"]} <= {"observed", "blocked"}


def test_the_dashboard_fits_narrow_and_wide_terminals(ended: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Readable on 80 and on 200 columns; hostile text becomes none of the terminal's."""
    status = status_of(ended[0])
    status["symbols"][0] |= {
        "retry": {"attempts": 3, "in_s": 12.0, "error": "RequestTimeout \x1b[31m"},
        "state": "backoff 3",
    }
    for width in (80, 200):
        console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
        console.print(render(status, width))
        text = console.export_text()
        console.file.close()
        assert max(map(len, text.splitlines())) <= width
        for word in ("BTC/USDT", "ETH/USDT", "drop %", "spread %", "backoff 3"):
            assert word in text
        assert ("age of anchor" in text) == (width == 200)
        assert "\x1b" not in text


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    """Old or new, and nothing beside it."""
    path = tmp_path / "x.json"
    for text in (b"old", b"new"):
        write_atomic(path, text)
        assert path.read_bytes() == text
    assert [child.name for child in tmp_path.iterdir()] == ["x.json"]


def test_the_lock_is_let_go_at_the_end(tmp_path: Path) -> None:
    """Whoever asks while it is held learns who holds it."""
    with StateLock(tmp_path, 5):
        assert (lock_owner(tmp_path) or {})["pid"] == os.getpid()
    assert lock_owner(tmp_path) is None
    assert lock_owner(tmp_path / "nowhere") is None
