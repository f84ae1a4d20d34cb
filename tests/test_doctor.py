"""Doctor: each diagnosis is caused, found and mended; and silent where nothing is wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import ROOT
from tests.helpers import LIMIT_S
from tests.patients import (
    FAILED,
    FIX,
    NOT_APPLICABLE,
    OK,
    WARNING,
    by_name,
    mounted,
    one,
    patient,
    report,
    row,
    running,
    status,
    tree,
)
from tests.test_live import bot, call, command, status_of, wait_for
from tradingbot.config import registry
from tradingbot.ops.checkup import Finding
from tradingbot.ops.doctor import disk as doctor_disk
from tradingbot.ops.doctor import market as doctor_market
from tradingbot.ops.doctor import start as doctor_start
from tradingbot.ops.doctor import state as doctor_state
from tradingbot.ops.doctor.patient import PLAIN

FAST = ("--set", "EMBEDDED_SPEED=40", "--set", "EMBEDDED_SYMBOLS=2", "--set", "DROP_TRIGGER_VALUE=0.998",
        "--set", "TICKER_MAX_AGE_S=3600", "--set", "STREAMS_MAX_GB=0.1")  # fmt: skip
SILENT = {
    "python", "versions", "settings", "overrides", "state directory", "lock", "bot", "disk", "writer", "tickers",
    "anchors", "warm start", "ports", "exchange",
}  # fmt: skip
SLOW = {"warm start": "slow: "}
"""What is rightly said of a machine that is slow, or busy with much else: its disk and its imports may be, too."""
HELD_UP = {"bot", "writer", "tickers", "exchange"}
"""What such a machine may be late for: the diagnosis is right then, and another one is made."""
LOOKS = 10


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the home of a bot that runs."""
    home = tmp_path_factory.mktemp("healthy")
    with bot(home, *FAST) as process:
        wait_for((home / "state" / "checkpoint.json").exists, process, 60)
        yield home


def test_nothing_is_wrong_with_a_healthy_bot(healthy: Path) -> None:
    """Every diagnosis of a running bot says that all is well, and the exchange that it brings is asked."""
    well, is_same, failed = set[str](), False, set[str]()
    for _ in range(LOOKS):
        found = report(healthy, *FAST)
        failed = verdicts(found, "failed")
        assert failed <= HELD_UP
        well |= verdicts(found, "ok")
        well |= {name for name in verdicts(found, "warning") if found[name][0]["says"].startswith(SLOW.get(name, "-"))}
        assert well >= SILENT - HELD_UP
        is_same |= "windows by checkpoint and by recorded ticks are the same" in found["start anew"][0]["says"]
        if well >= SILENT and is_same and not failed:
            break
    assert (SILENT - well, is_same, failed) == (set(), True, set())
    assert "triggers" in found or found["threshold"][0]["verdict"] != "failed"  # a market may be quiet
    assert "answers in" in found["exchange"][0]["says"]


def verdicts(found: dict[str, list[dict[str, Any]]], verdict: str) -> set[str]:
    """Return the names of which the first finding is so."""
    return {name for name, rows in found.items() if rows[0]["verdict"] == verdict}


def test_the_text_ends_by_naming_what_is_wrong_and_the_bundle(healthy: Path) -> None:
    """A line each; at the end what is wrong at a glance, and how to send all of it."""
    for _ in range(LOOKS):
        done = call(healthy, "doctor", *FAST)
        lines = done.stdout.splitlines()
        assert lines[-1] == "for a bug report: tradingbot bundle puts all of this, redacted, into one archive"
        assert done.stderr == ""
        assert ("nothing failed" in lines[-2]) == (done.returncode == 0)
        if done.returncode == 0:
            break
    assert done.returncode == 0


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    """Files, and also damaged ones, are byte by byte what they were."""
    assert call(tmp_path, "--virtual", "--duration", "60", "--no-dashboard").returncode == 0
    (tmp_path / "state" / "anchors" / "anchors.json").write_text("{")
    (tmp_path / "state" / "checkpoint.json").write_text("{")
    before = tree(tmp_path)
    found = report(tmp_path, code=1)
    assert {name for name, rows in found.items() if rows[0]["verdict"] == "failed"} == {"anchors", "start anew"}
    assert tree(tmp_path) == before


def test_doctor_alone_takes_no_reason(tmp_path: Path) -> None:
    """--yes and --why are of --fix; a fix that there is not is named."""
    assert "changes nothing" in call(tmp_path, "doctor", "--yes").stderr
    done = call(tmp_path, "doctor", "--fix", "luck", *FIX)
    assert (done.returncode, "environment, overrides, lock, anchors, disk" in done.stderr) == (2, True)


def test_what_stands_for_the_settings_is_what_they_say() -> None:
    """Names, defaults and dependencies that doctor knows by heart are the project's own."""
    settings = registry()
    assert {name: settings[name].default for name in PLAIN} == PLAIN
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(doctor_start.DEPENDENCIES) == sorted(text.split(">=")[0] for text in project["dependencies"])


# will not start


def test_an_old_python_is_named() -> None:
    """3.10 fails, the one at hand does not."""
    assert doctor_start.python_version((3, 10, 1)).verdict is FAILED
    assert doctor_start.python_version().verdict is OK


def broken(
    folder: Path, names: tuple[str, ...] = doctor_start.DEPENDENCIES, text: str = "raise ImportError('gone')"
) -> Path:
    """Put packages that cannot be imported into a folder."""
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(text)
    return folder


def test_it_works_where_every_package_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each package with how it fails; what needs them says so, and nothing is a traceback."""
    monkeypatch.setenv("PYTHONPATH", str(broken(tmp_path / "bad")))
    (tmp_path / "state" / "journal").mkdir(parents=True)
    found = report(tmp_path, code=1)
    assert found["packages"][0]["verdict"] == "failed"
    assert set(found["packages"][0]["evidence"].values()) == {"ImportError: gone"}
    assert found["packages"][0]["fix"] == "tradingbot doctor --fix environment"
    assert "until the environment is mended" in found["settings"][0]["says"]
    assert "until the environment is mended" in found["start anew"][0]["says"]
    assert {"state directory", "lock", "disk"} <= verdicts(found, "ok")
    assert found["disk speed"][0]["verdict"] in ("ok", "warning")


def test_the_packages_that_are_there_can_be_imported() -> None:
    """However long that takes."""
    found = doctor_start.packages(doctor_start.Imports(doctor_start.DEPENDENCIES), LIMIT_S)
    assert (found.verdict, found.says) == (OK, "all 9 dependencies can be imported")


def test_a_package_that_kills_the_interpreter_is_named_and_the_others_are_looked_at(tmp_path: Path) -> None:
    """A crash in compiled code is a finding, no end of the diagnosis."""
    broken(tmp_path / "bad", ("one", "two"), "import os; os.kill(os.getpid(), 11)")
    (tmp_path / "bad" / "two.py").write_text("raise ValueError('odd')")
    (tmp_path / "bad" / "three.py").write_text("print('hello')")
    imports = doctor_start.Imports(("one", "two", "three"), path=[str(tmp_path / "bad"), *sys.path])
    found = doctor_start.packages(imports, LIMIT_S)
    assert found.verdict is FAILED
    assert "one: the interpreter ended on it (signal 11); two: ValueError: odd" in found.says
    assert "three" not in found.says


def test_a_package_that_never_ends_holds_nobody_up(tmp_path: Path) -> None:
    """It is named as late, once the time is over."""
    broken(tmp_path / "bad", ("slow",), "import time; time.sleep(60)")
    imports = doctor_start.Imports(("slow",), path=[str(tmp_path / "bad"), *sys.path])
    found = doctor_start.packages(imports, 0.3)
    assert (found.verdict, "slow" in found.says) == (WARNING, True)


def test_versions_are_held_against_the_lock(tmp_path: Path) -> None:
    """Another version is to be looked at, an absent package fails; what is for other machines is not asked for."""
    lock = tmp_path / "requirements.txt"
    lock.write_text("A_b==1.0 \\\n    --hash=sha256:00\nc==2.0\nd==3 ; sys_platform == 'win32'\n")
    assert doctor_start.versions(lock, {"a-b": "1.0", "c": "2.0"}).verdict is OK
    other = doctor_start.versions(lock, {"a-b": "1.1", "c": "2.0"})
    assert (other.verdict, "a-b 1.1, locked 1.0" in other.says) == (WARNING, True)
    missing = doctor_start.versions(lock, {"c": "2.0"})
    assert (missing.verdict, "a-b is missing" in missing.says) == (FAILED, True)
    assert missing.fix == "tradingbot doctor --fix environment"
    assert doctor_start.versions(None).verdict is NOT_APPLICABLE


def test_a_file_in_the_way_of_a_package_is_found_until_it_is_moved(tmp_path: Path) -> None:
    """orjson.py in the working directory; also the name of a module of Python itself."""
    (tmp_path / "orjson.py").write_text("loads = None")
    words = command(tmp_path, "doctor", "--json")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False)
    found = {each["name"]: each for each in orjson.loads(done.stdout)["findings"]}
    assert found["imported from"]["verdict"] == "failed"
    assert f"orjson is imported from {tmp_path}/orjson.py" in found["imported from"]["says"]
    (tmp_path / "orjson.py").unlink()
    (tmp_path / "calendar.py").touch()
    assert "calendar is imported from" in doctor_start.origins(cwd=tmp_path).says
    (tmp_path / "calendar.py").unlink()
    assert doctor_start.origins(cwd=tmp_path).verdict is not FAILED


def test_another_checkout_is_named(tmp_path: Path) -> None:
    """Started in one folder, imported from another."""
    (tmp_path / "tradingbot").mkdir()
    (tmp_path / "tradingbot" / "__init__.py").touch()
    found = doctor_start.origins(cwd=tmp_path)
    assert (found.verdict, str(tmp_path / "tradingbot") in found.says) == (WARNING, True)


@pytest.mark.parametrize(
    ("file", "words", "environ", "says"),
    [
        ("POLL_S = [", (), {}, "not a TOML file"),
        ("POL_S = 3", (), {}, "POLL_S"),
        ("", ("POLL_S=-1",), {}, "POLL_S"),
        ("", (), {"POLL_S": "x"}, "environment"),
        ("TAKE_PROFIT_THRESHOLD = 0.5", (), {}, "TAKE_PROFIT_THRESHOLD"),
    ],
)
def test_broken_settings_are_named(
    tmp_path: Path, file: str, words: tuple[str, ...], environ: dict[str, str], says: str
) -> None:
    """Whatever layer it is; mended, it is silent."""
    (tmp_path / "tradingbot.toml").write_text(file)
    found = doctor_start.settings(patient(tmp_path, *words, **environ))
    assert (found.verdict, says in found.says) == (FAILED, True), found.says
    (tmp_path / "tradingbot.toml").unlink()
    assert doctor_start.settings(patient(tmp_path)).verdict is OK


def test_an_override_that_no_longer_fits_is_cleared_by_what_doctor_prints(tmp_path: Path) -> None:
    """Good when it was made, refused since the file below it changed: named, and gone by one command."""
    assert call(tmp_path, "set", "RETRY_MAX_S=5", "--yes", "--why", "x").returncode == 0
    (tmp_path / "tradingbot.toml").write_text("RETRY_BASE_S = 10.0\n")
    found = doctor_start.settings(patient(tmp_path))
    assert (found.verdict, "RETRY_MAX_S" in found.says, "tradingbot clear KEY" in found.fix) == (FAILED, True, True)
    assert call(tmp_path, "clear", "RETRY_MAX_S", "--yes", "--why", "as doctor says").returncode == 0
    assert doctor_start.settings(patient(tmp_path)).verdict is OK


def test_broken_overrides_are_set_aside_and_the_last_good_ones_count(tmp_path: Path) -> None:
    """Found; the plan alone changes nothing; mended; a second time there is nothing to do; the audit knows."""
    assert call(tmp_path, "set", "POLL_S=3", "--yes", "--why", "x").returncode == 0
    path = tmp_path / "state" / "overrides.json"
    path.write_text('{"v": 1, "overr')
    assert doctor_start.overrides(patient(tmp_path)).verdict is FAILED
    plan = call(tmp_path, "doctor", "--fix", "overrides", "--why", "x")
    assert (plan.returncode, "POLL_S = 3" in plan.stdout, path.read_text()) == (2, True, '{"v": 1, "overr')
    done = call(tmp_path, "doctor", "--fix", "overrides", *FIX)
    assert (done.returncode, "1 overrides are in force" in done.stdout) == (0, True), done.stderr
    assert path.with_name("overrides.json.bad-1").exists()
    assert doctor_start.overrides(patient(tmp_path)).says == "POLL_S"
    again = call(tmp_path, "doctor", "--fix", "overrides", *FIX)
    assert (again.returncode, "nothing to mend" in again.stdout) == (0, True)
    assert "doctor overrides" in (tmp_path / "state" / "audit.jsonl").read_text()


def test_a_lock_that_a_killed_bot_left_is_told_from_one_that_is_held(tmp_path: Path) -> None:
    """Whoever has its number now is named; nothing stands in the way; the fix empties it, twice is once."""
    state = tmp_path / "state"
    state.mkdir()
    assert one(doctor_state.lock(patient(tmp_path))).verdict is OK
    (state / "lock").write_text(f'{{"pid": {os.getpid()}, "host": "{os.uname().nodename}"}}')
    found = one(doctor_state.lock(patient(tmp_path)))
    assert (found.verdict, f"process {os.getpid()} is something else now" in found.says) == (WARNING, True)
    done = call(tmp_path, "doctor", "--fix", "lock", *FIX)
    assert (done.returncode, (state / "lock").read_bytes()) == (0, b""), done.stderr
    assert one(doctor_state.lock(patient(tmp_path))).verdict is OK
    assert "no lock is left over" in call(tmp_path, "doctor", "--fix", "lock", *FIX).stdout
    assert "doctor lock" in (state / "audit.jsonl").read_text()


def test_a_lock_that_a_stranger_holds_is_never_touched(tmp_path: Path) -> None:
    """Who holds it is named, whatever number stands in it."""
    with running(tmp_path):
        (tmp_path / "state" / "lock").write_text('{"pid": 4194303}')
        found = report(tmp_path, code=1)["lock"][0]
        assert (found["verdict"], f"process {os.getpid()} (" in found["says"]) == ("failed", True)
        done = call(tmp_path, "doctor", "--fix", "lock", *FIX)
        assert (done.returncode, "left alone" in done.stdout) == (2, True)


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
file.write('{"pid": 4194303}')
file.flush()
print("held", flush=True)
time.sleep(600)
"""


def test_a_lock_is_free_once_the_stranger_that_doctor_names_is_ended(tmp_path: Path) -> None:
    """A process that is no bot holds it under the number of another: the one to end is the one that does."""
    (tmp_path / "state").mkdir()
    words = [sys.executable, "-c", HOLD, str(tmp_path / "state" / "lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        found = one(doctor_state.lock(patient(tmp_path)))
        assert (found.verdict, f"by process {stranger.pid} (" in found.says) == (FAILED, True)
        assert "kill PID" in found.fix
        subprocess.run(["kill", str(stranger.pid)], check=True)
    assert one(doctor_state.lock(patient(tmp_path))).verdict is WARNING  # left over: nobody holds it


def test_a_lock_that_is_no_file_is_moved_aside(tmp_path: Path) -> None:
    """A folder of its name keeps every bot from starting."""
    (tmp_path / "state" / "lock").mkdir(parents=True)
    assert one(doctor_state.lock(patient(tmp_path))).verdict is FAILED
    assert call(tmp_path, "doctor", "--fix", "lock", *FIX).returncode == 0
    assert (tmp_path / "state" / "lock.bad-1").is_dir()
    assert one(doctor_state.lock(patient(tmp_path))).verdict is OK


def test_a_bot_that_says_nothing_any_more_is_found(tmp_path: Path) -> None:
    """It holds the lock, and its status grows old."""
    with running(tmp_path, age_s=90):
        found = doctor_state.bot(patient(tmp_path))
        assert found.verdict is FAILED
        assert re.search(r"has said nothing for (9\d|1\d\d) s", found.says)
    with running(tmp_path):
        assert doctor_state.bot(patient(tmp_path)).verdict is OK
    assert "was running when it was killed" in doctor_state.bot(patient(tmp_path)).says


def test_a_bot_that_was_stopped_goes_on_by_what_doctor_prints(healthy: Path) -> None:
    """SIGSTOP on a real one: told from one that hangs, with the signal that lets it go on."""
    pid, path = status_of(healthy)["bot"]["pid"], healthy / "state" / "status.json"

    def look(wanted: object) -> Finding:
        """Look until a finding is as wanted: a signal takes a moment."""
        end_s = time.monotonic() + 60
        while (found := doctor_state.bot(patient(healthy))).verdict is not wanted:
            assert time.monotonic() < end_s, found.says
            if wanted is FAILED:
                os.utime(path, (1e9, 1e9))  # as if it had been stopped for long
            time.sleep(0.05)
        return found

    os.kill(pid, signal.SIGSTOP)
    try:
        found = look(FAILED)
        assert "it is stopped (SIGSTOP)" in found.says
        assert found.fix == f"kill -CONT {pid}"
        subprocess.run(found.fix.split(), check=True)
    finally:
        os.kill(pid, signal.SIGCONT)
    look(OK)


def test_a_port_on_which_nobody_listens_is_found(tmp_path: Path) -> None:
    """EMBEDDED_URL without an exchange behind it, or no address at all."""
    found = doctor_state.ports(patient(tmp_path, "EMBEDDED_URL=http://127.0.0.1:9"))
    assert (found.verdict, "tradingbot exchange --port 9" in found.fix) == (FAILED, True)
    for url in ("ftp://127.0.0.1:9", "http://example.com:80", "http://127.0.0.1:x", "http://127.0.0.1"):
        assert doctor_state.ports(patient(tmp_path, f"EMBEDDED_URL={url}")).verdict is FAILED
    assert doctor_state.ports(patient(tmp_path)).verdict is OK


@pytest.mark.parametrize(
    ("stamp", "says"),
    [
        ('{"v": 1, "exchange": "binance", "trading_mode": "paper"}', "belongs to binance"),
        ('{"v": 9, "exchange": "embedded"}', "schema 9"),
        ("{", "damaged"),
    ],
)
def test_a_state_directory_of_somebody_else_is_refused_until_it_is_the_right_one(
    tmp_path: Path, stamp: str, says: str
) -> None:
    """Another exchange, another schema, a stamp that is none."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "stamp.json").write_text(stamp)
    found = doctor_state.state_directory(patient(tmp_path))
    assert (found.verdict, says in found.says) == (FAILED, True)
    assert "another --state" in found.fix
    assert doctor_state.state_directory(patient(tmp_path, "STATE_DIR=another")).verdict is not FAILED
    anew = re.search(r"write it anew: (\{.*?\})", found.fix)
    good = anew[1] if anew else '{"v": 1, "exchange": "embedded", "trading_mode": "paper"}'
    (tmp_path / "state" / "stamp.json").write_text(good)
    assert doctor_state.state_directory(patient(tmp_path)).verdict is OK


def test_an_empty_state_directory_beside_a_full_one_is_told(tmp_path: Path) -> None:
    """Whoever moved the home, or misspelt it, is told where the records are; a first start is none."""
    home = tmp_path / "home"
    home.mkdir()
    assert doctor_state.state_directory(patient(home)).verdict is OK
    (home / "old" / "journal").mkdir(parents=True)
    found = doctor_state.state_directory(patient(home))
    assert (found.verdict, f"--state {home / 'old'}" in found.fix) == (WARNING, True)
    assert doctor_state.state_directory(patient(home, "STATE_DIR=old")).verdict is OK
    (home / "state").touch()
    assert doctor_state.state_directory(patient(home)).verdict is FAILED


# the disk


def test_too_little_room_says_what_takes_it_and_what_may_go(tmp_path: Path) -> None:
    """Below MIN_FREE_MB nothing is recorded; the largest files are named; persistence is the profile."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "large").write_bytes(b"x" * 3_000_000)
    (tmp_path / "state" / "reserve").write_bytes(b"x" * 4_000_000)  # the bot's own, which it gives up by itself
    found = doctor_disk.disk(patient(tmp_path, "MIN_FREE_MB=1e12"))
    assert (found.verdict, found.profile) == (FAILED, "persistence")
    assert "state 7 MB" in found.says
    assert "reserve" not in found.fix
    assert f"large: 3.0 MB {tmp_path}/state/large" in found.fix
    assert "tradingbot clean" in found.fix
    assert doctor_disk.disk(patient(tmp_path, "MIN_FREE_MB=0")).verdict is OK


def test_a_disk_that_takes_no_more_files_is_told_and_is_well_once_some_are_gone(tmp_path: Path) -> None:
    """Of room there is enough: it is the inodes, on a file system of its own of 150."""
    with mounted(tmp_path / "state", "size=40m,nr_inodes=150"):
        files = [tmp_path / "state" / f"small{number}" for number in range(60)]
        for path in files:
            path.touch()
        found = doctor_disk.disk(patient(tmp_path, "MIN_FREE_MB=1"))
        assert (found.verdict, found.profile) == (FAILED, "persistence")
        assert f"no more files can be made: {found.evidence['free_files']} inodes are left" in found.says
        for path in files:
            path.unlink()
        assert doctor_disk.disk(patient(tmp_path, "MIN_FREE_MB=1")).verdict is OK


def test_a_disk_that_fills_is_told_in_time(tmp_path: Path) -> None:
    """Hours left at this pace, as the running bot counts them."""
    with running(tmp_path, status(disk={"free_mb": 900, "hours_left": 5.5})):
        found = doctor_disk.disk(patient(tmp_path, "MIN_FREE_MB=0"))
    assert (found.verdict, "enough for 5.5 h" in found.says, found.profile) == (WARNING, True, "persistence")


def test_a_slow_disk_is_measured(tmp_path: Path) -> None:
    """Milliseconds per fsync of a small file, which leaves nothing behind."""
    (tmp_path / "state").mkdir()
    found = by_name(doctor_disk.writer(patient(tmp_path), lambda _: time.sleep(0.15)))["disk speed"]
    assert (found.verdict, found.profile, len(found.evidence["fsync_ms"]) > 1) == (WARNING, "persistence", True)
    assert by_name(doctor_disk.writer(patient(tmp_path), lambda _: None))["disk speed"].verdict is OK
    assert list((tmp_path / "state").iterdir()) == []


def test_a_writer_that_loses_or_lags_is_found(tmp_path: Path) -> None:
    """Degraded streams, dropped records, ticks that come in and are not on the disk."""
    folder = tmp_path / "state" / "drop_windows" / "ticks"
    folder.mkdir(parents=True)
    path = folder / "X_20260101_0000.jsonl"
    path.touch()
    bad = status(streams={"ticks": {"state": "degraded", "dropped": 7}})
    with running(tmp_path, bad):
        found = by_name(doctor_disk.writer(patient(tmp_path)))["writer"]
        assert (found.verdict, "ticks degraded; lost ticks 7" in found.says) == (FAILED, True)
    with running(tmp_path, status(streams={"ticks": {"state": "ok", "dropped": 7}})):
        assert by_name(doctor_disk.writer(patient(tmp_path)))["writer"].verdict is WARNING
    with running(tmp_path):
        assert by_name(doctor_disk.writer(patient(tmp_path)))["writer"].verdict is OK
        os.utime(path, (1e9, 1e9))
        found = by_name(doctor_disk.writer(patient(tmp_path)))["writer"]
        assert (found.verdict, "cannot keep up" in found.says, found.profile) == (FAILED, True, "persistence")


# no triggers, slow tickers


@pytest.mark.parametrize(
    ("told", "name", "verdict", "says", "profile"),
    [
        (status(row(state="parked: halted")), "symbols", FAILED, "all 1 are parked (parked: halted)", ""),
        (
            status(row(state="backoff 3", retry={"attempts": 3, "in_s": 9, "error": "no answer"})),
            "symbols", FAILED, "all 1 wait after failures (no answer)", "retry",
        ),
        (status(data={"fresh": 0, "stale": 2, "oldest_s": 77.0}), "symbols", FAILED, "the last came 77 s ago", ""),
        (status() | {"symbols": []}, "symbols", FAILED, "none is watched", ""),
        (status(row(last=None), data={"rejected": {"stale": 4}}), "windows", FAILED, "rejected: stale 4", ""),
        (
            status(decisions=[{"outcome": "blocked", "reasons": ["spread", "burst"]}]),
            "entries", WARNING, "were all blocked: spread 1, burst 1", "",
        ),
        (
            status(row(triggers=0, drop_pct=-0.1, reference=100.0, threshold=90.0)),
            "threshold", WARNING, "the largest drop was 0.10 % below the anchor (BTC/USDT), and it takes 10.00 %", "",
        ),
    ],
)  # fmt: skip
def test_what_keeps_triggers_from_coming_is_named(
    tmp_path: Path, told: dict[str, object], name: str, verdict: object, says: str, profile: str
) -> None:
    """Parked, waiting, without data, empty windows, blocked, out of reach."""
    with running(tmp_path, told):
        found = by_name(doctor_market.no_triggers(patient(tmp_path)))[name]
    assert (found.verdict, found.profile) == (verdict, profile)
    assert says in found.says
    assert found.fix
    with running(tmp_path):
        assert one(doctor_market.no_triggers(patient(tmp_path))).verdict is OK


def test_the_mode_that_drops_are_measured_by_is_told(tmp_path: Path) -> None:
    """Anchor, session peak, window peak, or what a rollback has put in their place."""
    with running(tmp_path):
        assert "by the anchor; observe mode" in one(doctor_market.no_triggers(patient(tmp_path))).says
        assert "session peak" in one(doctor_market.no_triggers(patient(tmp_path, "DROP_TRIGGER_MODE=1"))).says
    with running(tmp_path, status(flags={"FEATURE_ANCHOR_ENABLED": False})):
        assert "the anchor being rolled back" in one(doctor_market.no_triggers(patient(tmp_path))).says


def test_strict_windows_that_are_not_full_yet_are_told(tmp_path: Path) -> None:
    """WINDOW_STRICT_WARMUP after a cold start, for as long as a window is short."""
    words = ("WINDOW_STRICT_WARMUP=true", "WINDOW_LOOKBACK_S=1000")
    with running(tmp_path, status(warm_start={"kind": "cold"})):
        found = by_name(doctor_market.no_triggers(patient(tmp_path, *words)))["windows"]
        assert (found.verdict, "in 100 s" in found.says) == (WARNING, True)
        assert one(doctor_market.no_triggers(patient(tmp_path, "WINDOW_STRICT_WARMUP=true"))).verdict is OK


def test_the_kill_switch_is_named_with_its_reason_until_it_is_off(healthy: Path) -> None:
    """On a running bot, over the real commands; a warning is no failure."""
    call(healthy, "kill", "--why", "odd \x1b[31mmarket")
    done = call(healthy, "doctor", *FAST)
    assert "\x1b" not in done.stdout
    assert re.search(r"WARNING +kill switch .*odd \?\[31mmarket", done.stdout)
    assert "fix: when it is well again: tradingbot arm\n" in done.stdout
    call(healthy, "arm")
    assert "kill switch" not in by_name(doctor_market.no_triggers(patient(healthy)))


def test_slow_tickers_are_named_with_their_ages_and_what_held_them_back(tmp_path: Path) -> None:
    """Late symbols, polls that backoff withheld, and every time that the exchange asked to be left alone."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "trading_bot_20260101.log").write_text("t INFO started sid=s1\nt WARNING held back for 60 s: 429\n")
    late = row("ETH/USDT", age_s=88.0, retry={"attempts": 2, "in_s": 1, "error": "timeout"})
    with running(tmp_path, status(row(), late, data={"withheld": {"ETH/USDT": 12}})):
        found = one(doctor_market.tickers(patient(tmp_path)))
    assert (found.verdict, found.profile) == (FAILED, "retry")
    for words in (
        "ETH/USDT 88 s ago",
        "withheld 12 polls",
        "1 times of late to be left alone",
        "1 in backoff (ETH/USDT: timeout",
    ):
        assert words in found.says
    (logs / "trading_bot_20260101.log").unlink()
    with running(tmp_path):
        assert one(doctor_market.tickers(patient(tmp_path))).verdict is OK
    assert one(doctor_market.tickers(patient(tmp_path))).verdict is NOT_APPLICABLE


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'{"v": 1}', b'{"v": 1, "bot": 5, "data": [], "symbols": {}, "streams": 1, "disk": 2}',
     b'{"v": 1, "symbols": [5, {"symbol": null, "age_s": "x", "retry": 7, "reference": "NaN"}], "decisions": [{}]}',
     b"\xff\x00", b"[" * 100_000],
)  # fmt: skip
def test_a_status_that_is_none_is_no_traceback(tmp_path: Path, text: bytes) -> None:
    """Whatever stands there, each diagnosis says something."""
    with running(tmp_path):
        (tmp_path / "state" / "status.json").write_bytes(text)
        seen = patient(tmp_path)
        for look in (doctor_market.no_triggers, doctor_market.tickers, doctor_disk.writer):
            assert list(look(seen))
        assert doctor_state.bot(seen).says
        assert doctor_disk.disk(seen).says


def test_a_file_that_hides_a_module_of_pythons_is_passed_over(tmp_path: Path) -> None:
    """One line names it, and the command does what it was asked."""
    (tmp_path / "random.py").write_text("raise SystemError\n")
    done = subprocess.run(
        command(tmp_path, "--version"), cwd=tmp_path, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False
    )
    assert (done.returncode, done.stdout.startswith("tradingbot ")) == (0, True), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("tradingbot: random.py in the working directory has the name of a module")
