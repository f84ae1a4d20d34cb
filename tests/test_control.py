"""See, stop, kill and arm with the standard library alone, through the real command without site-packages."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import ROOT
from tests.crash.machine import no_mounts, tmpfs
from tests.helpers import LIMIT_S
from tradingbot.config import registry
from tradingbot.io.home import Home
from tradingbot.io.lines import decode
from tradingbot.io.overrides import read_settings
from tradingbot.io.reserve import keep_reserve
from tradingbot.ops.control import ALLOWED, DEFAULTS, find_target

BARE = [sys.executable, "-S", "-m", "tradingbot"]
HOLDER = """
import pathlib, signal, sys
from tradingbot.io.state_files import StateLock
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with StateLock(pathlib.Path(sys.argv[1]), 5):
    print("held", flush=True)
    sys.stdin.read()  # until whoever started it is gone
"""
ROW = {
    "symbol": "BTC/USDT", "last": 59123.4, "bid": 59120.0, "ask": 59126.0, "spread_pct": 0.0101, "drop_pct": -1.234,
    "reference": 59862.0, "reference_source": "anchor", "anchor_age_s": 12.0, "anchor_cause": "rise",
    "threshold": 58964.0, "to_trigger_pct": -0.27, "armed": True, "age_s": 0.2, "state": "armed", "retry": None,
    "triggers": 3, "ticks_per_min": 70.0, "rejected": 0,
}  # fmt: skip
RETRY = {"attempts": 3, "in_s": 12.0, "error": "RequestTimeout"}
UNHEARD = dict.fromkeys(("last", "spread_pct", "drop_pct", "reference", "to_trigger_pct", "age_s"))
STATUS = {
    "v": 1,
    "bot": {"pid": 7, "mode": "observe", "exchange": "embedded", "uptime_s": 61.5, "state": "running"},
    "time_ms": 1_700_000_000_000,
    "flags": {"FEATURE_ANCHOR_ENABLED": True, "FEATURE_RETRY_BACKOFF": False},
    "symbols": [ROW, {**ROW, **UNHEARD, "symbol": "ETH/USDT", "state": "backoff 3", "retry": RETRY}],
    "data": {
        "mode": "stream", "fresh": 1, "stale": 1, "ticks": 12345, "rejected": {"jump": 2}, "held_back_until_ms": None,
    },
    "overrides": [{"key": "HEARTBEAT_S", "value": 5}],
    "errors": [],
    "disk": {"free_mb": 54321},
    "decisions": [],
}  # fmt: skip
TABLE = """\
embedded  observe  running  2023-11-14 22:13:20 UTC  up 62 s
stream: 1 fresh, 1 stale, 12,345 ticks, rejected jump 2; disk 54,321 MB free
health: 1 failing, 1 without fresh data; flags: off: FEATURE_RETRY_BACKOFF; overrides: HEARTBEAT_S=5
symbol      last drop % anchor to trigger % spread % state
BTC/USDT 59123.4  -1.23  59862        -0.27    0.010 armed
ETH/USDT                                             backoff 3, retry in 12 s, RequestTimeout
"""


def call(
    home: Path, *words: str, start: list[str] = BARE, cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*start, *words, "--home", str(home)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, **environ}, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@contextmanager
def holding(state_dir: Path, status: object = STATUS, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock of a state directory, in a process of its own, over a status.json."""
    state_dir.mkdir(parents=True, exist_ok=True)
    (state_dir / "status.json").write_text(json.dumps(status))
    command = [sys.executable, "-S", "-c", HOLDER, str(state_dir), *words]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_without_site_packages_there_is_no_package() -> None:
    """What the other tests stand on: -S leaves the standard library alone."""
    names = ("aiohttp", "ccxt", "msgspec", "numpy", "orjson", "pyarrow", "rich", "tenacity")
    code = f"import importlib.util; print([n for n in {names} if importlib.util.find_spec(n)])"
    words = [sys.executable, "-S", "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert done.stdout == "[]\n"


def test_status_is_a_plain_table(tmp_path: Path) -> None:
    """The two lines over it, the first columns of the live table, and nothing where nothing is known."""
    with holding(tmp_path / "state"):
        done = call(tmp_path, "status")
    assert (done.returncode, done.stdout, done.stderr) == (0, TABLE, "")


def test_status_as_json_is_what_the_bot_says(tmp_path: Path) -> None:
    """One document on stdout."""
    with holding(tmp_path / "state"):
        done = call(tmp_path, "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == STATUS


def test_the_checkout_may_be_named_by_pythonpath(tmp_path: Path) -> None:
    """Whoever is called at night stands anywhere."""
    with holding(tmp_path / "state"):
        done = call(tmp_path, "status", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stdout, done.stderr) == (0, TABLE, "")


def test_both_tables_say_the_same(tmp_path: Path) -> None:
    """The words of the plain table, in their order, are in the one by rich."""
    with holding(tmp_path / "state"):
        rich = call(tmp_path, "status", start=[sys.executable, "-m", "tradingbot"])
    assert rich.returncode == 0, rich.stderr
    assert "age of anchor" in rich.stdout
    for line, plain in zip(rich.stdout.splitlines(), TABLE.splitlines(), strict=True):
        assert line.split()[: len(plain.split())] == plain.split()


@pytest.mark.parametrize("fault", ["raise ImportError", "x = (", "import nowhere", "Console = Text = None"])
def test_a_half_upgraded_package_does_not_hide_the_bot(tmp_path: Path, fault: str) -> None:
    """However the import of rich fails, the plain table is there."""
    (tmp_path / "rich").mkdir()
    for name in ("__init__", "console", "live", "table", "text"):
        (tmp_path / "rich" / f"{name}.py").write_text(fault)
    with holding(tmp_path / "state"):
        done = call(tmp_path, "status", start=[sys.executable, "-m", "tradingbot"], PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, TABLE, "")


@pytest.mark.parametrize("status", [{}, {"v": 9}, {**STATUS, "symbols": [3]}, {**STATUS, "time_ms": 1e300}])
@pytest.mark.parametrize("flags", [["-S"], []], ids=["plain", "rich"])
def test_a_status_of_another_version_is_shown_as_it_is(tmp_path: Path, status: object, flags: list[str]) -> None:
    """A bot that this version knows no table for is still seen."""
    with holding(tmp_path / "state", status):
        done = call(tmp_path, "status", start=[sys.executable, *flags, "-m", "tradingbot"])
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == status


def hostile(value: Any) -> Any:
    """Put a terminal's commands behind every text, in keys too."""
    if isinstance(value, dict):
        return {name: hostile(item) for name, item in value.items()} | ({"a\x1b[2J": 1} if "jump" in value else {})
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f"{value}\x1b[31m\x07\x7f\x9b31m\r\n\u202e\ud800" if isinstance(value, str) else value


DECISION = {
    "ts_ms": 1_700_000_000_000, "symbol": "BTC/USDT", "last": 1.0, "drop_pct": -1.0, "reference_source": "anchor",
    "outcome": "blocked", "reasons": ["cooldown"],
}  # fmt: skip


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["table", "json"])
@pytest.mark.parametrize("flags", [["-S"], []], ids=["plain", "rich"])
@pytest.mark.parametrize("status", [hostile({**STATUS, "decisions": [DECISION]}), hostile({"bot": "x"})])
def test_hostile_text_commands_no_terminal(
    tmp_path: Path, flags: list[str], words: tuple[str, ...], status: object
) -> None:
    """Whatever status.json holds, what is printed is printable."""
    with holding(tmp_path / "state", status):
        done = call(tmp_path, "status", *words, start=[sys.executable, *flags, "-m", "tradingbot"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\n", "").isprintable()
    assert done.stderr == ""
    if words:
        assert json.loads(done.stdout) == status


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_can_show_it(tmp_path: Path, encoding: str) -> None:
    """A symbol that the terminal has no letters for is spelled out."""
    with holding(tmp_path / "state", {**STATUS, "symbols": [{**ROW, "symbol": "币安/USDT"}]}):
        done = call(tmp_path, "status", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert ("币安/USDT" if encoding == "utf-8" else "\\u5e01\\u5b89/USDT") in done.stdout


def test_on_a_terminal_the_table_by_rich_has_its_colours(tmp_path: Path) -> None:
    """What is near its trigger stands out."""
    leader, follower = pty.openpty()
    shown = b""
    with holding(tmp_path / "state"):
        words = [sys.executable, "-m", "tradingbot", "status", "--home", str(tmp_path)]
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        environ.pop("NO_COLOR", None)
        done = subprocess.run(words, cwd=ROOT, stdout=follower, env=environ, timeout=LIMIT_S, check=False)
    os.close(follower)
    with contextlib.suppress(OSError):  # what says that there is no more
        while text := os.read(leader, 65536):
            shown += text
    os.close(leader)
    assert done.returncode == 0
    assert b"\x1b[1;31m" in shown
    assert b"age of anchor" not in shown


def test_a_bot_that_has_said_nothing_is_one_line(tmp_path: Path) -> None:
    """No status yet, or none that can be read: exit 3."""
    with holding(tmp_path / "state"):
        for text in ("", "{", "[" * 100_000, "[]"):
            (tmp_path / "state" / "status.json").write_text(text)
            done = call(tmp_path, "status")
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
        (tmp_path / "state" / "status.json").unlink()
        assert "has said nothing yet" in call(tmp_path, "status").stderr


@pytest.mark.parametrize("words", [("status",), ("stop",), ("status", "--json"), ("stop", "--json")])
def test_where_no_bot_runs_the_exit_code_is_3(tmp_path: Path, words: tuple[str, ...]) -> None:
    """One line, also of a bot that has left its lock and status."""
    with holding(tmp_path / "state") as process:
        process.kill()
        process.wait(LIMIT_S)
    done = call(tmp_path, *words)
    expected = f"tradingbot: no bot is running on {tmp_path / 'state'}\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", expected)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_stop_ends_a_process_and_says_which(tmp_path: Path, words: tuple[str, ...]) -> None:
    """It is gone when the command returns."""
    with holding(tmp_path / "state") as process:
        done = call(tmp_path, "stop", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert process.wait(LIMIT_S) == -15
    if words:
        assert json.loads(done.stdout) == {"stopped": process.pid}
    else:
        assert done.stdout == f"stopped process {process.pid}\n"


@pytest.mark.parametrize("layer", ["toml", "environment", "--set", "overrides"])
def test_stop_waits_as_long_as_the_settings_say(tmp_path: Path, layer: str) -> None:
    """STOP_TIMEOUT_S counts from every layer, and whoever does not stop is named."""
    environ, words = {}, []
    with holding(tmp_path / "state", STATUS, "stubborn") as process:
        if layer == "toml":
            (tmp_path / "tradingbot.toml").write_text("STOP_TIMEOUT_S = 0.25")
        elif layer == "environment":
            environ = {"STOP_TIMEOUT_S": "0.25"}
        elif layer == "--set":
            words = ["--set", "STOP_TIMEOUT_S=0.25"]
        else:
            (tmp_path / "state" / "overrides.json").write_text('{"overrides": {"STOP_TIMEOUT_S": {"value": 0.25}}}')
        done = call(tmp_path, "stop", *words, **environ)
        expected = f"tradingbot: process {process.pid} has not stopped within 0.25 s\n"
        assert (done.returncode, done.stdout, done.stderr) == (3, "", expected)
        assert process.poll() is None


def test_kill_and_arm_need_no_bot(tmp_path: Path) -> None:
    """The reason is kept for whoever looks later, and arming says whether there was one."""
    switch = tmp_path / "state" / "KILL"
    done = call(tmp_path, "kill", "--why", "odd prices")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"kill switch on in {tmp_path / 'state'}: odd prices (no bot is running there now")
    assert (switch.read_text(), switch.stat().st_mode & 0o777) == ("odd prices\n", 0o600)
    done = call(tmp_path, "kill", "--why", "prices 奇怪", "--json")
    assert json.loads(done.stdout) == {"killed": True, "why": "prices 奇怪"}
    assert json.loads(call(tmp_path, "arm", "--json").stdout) == {"killed": False, "was": True}
    assert not switch.exists()
    done = call(tmp_path, "arm")
    assert (done.returncode, done.stdout, done.stderr) == (0, "the kill switch was off\n", "")


def test_the_audit_says_who_killed_armed_and_stopped(tmp_path: Path) -> None:
    """Also where a kill is taken back before the bot has looked; arming what was not killed is nothing."""
    with holding(tmp_path / "state"):
        for words in (("kill", "--why", "odd prices"), ("arm", "--why", "was the feed"), ("arm",), ("stop",)):
            assert call(tmp_path, *words).stderr == ""
    with holding(tmp_path / "state"):
        assert call(tmp_path, "stop", "--why", "new machine").stderr == ""
    assert call(tmp_path, "stop", "--why", "nobody is there").returncode == 3
    lines = [decode(line) for line in (tmp_path / "state" / "audit.jsonl").read_bytes().splitlines()]
    assert [(line["what"], line["why"]) for line in lines] == [
        ("kill", "odd prices"), ("arm", "was the feed"), ("stop", "operator"), ("stop", "new machine"),
    ]  # fmt: skip
    assert all(line["who"] and line["ts_ms"] for line in lines)


def test_an_audit_that_cannot_be_written_keeps_nothing_from_being_killed(tmp_path: Path) -> None:
    """The switch is on, exit 0, and one line says what is missing."""
    (tmp_path / "state" / "audit.jsonl").mkdir(parents=True)
    done = call(tmp_path, "kill", "--why", "odd prices")
    assert (done.returncode, done.stderr.count("\n"), "it is done, and not kept in" in done.stderr) == (0, 1, True)
    assert (tmp_path / "state" / "KILL").read_text() == "odd prices\n"


def test_a_reason_of_any_bytes_switches_it_on(tmp_path: Path) -> None:
    """What a shell hands over need not be text."""
    done = call(tmp_path, "kill", "--why", os.fsdecode(b"odd \xff"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "state" / "KILL").read_text() == "odd \\udcff\n"


@pytest.mark.parametrize(
    ("toml", "environ", "words", "folder"),
    [
        ('STATE_DIR = "a"', {}, (), "a"),
        ('STATE_DIR = "a"\nPOL_S = 3', {}, (), "a"),  # a bot that was started before somebody wrote that
        ('\ufeffSTATE_DIR = "a"', {}, (), "a"),
        ('STATE_DIR = "a"', {"STATE_DIR": "b"}, (), "b"),
        ('STATE_DIR = "a"', {"STATE_DIR": "b"}, ("--set", "STATE_DIR=c"), "c"),
        ('STATE_DIR = "a"', {"STATE_DIR": "b"}, ("--set", "STATE_DIR=c", "--set", " STATE_DIR =d"), "d"),
        ('STATE_DIR = "a"', {"STATE_DIR": "b"}, ("--set", "STATE_DIR=c", "--state", "e"), "e"),
        ('STATE_DIR = "a"', {}, ("--config", "{home}/other.toml"), "f"),
    ],
)
def test_the_state_directory_comes_from_every_layer(
    tmp_path: Path, toml: str, environ: dict[str, str], words: tuple[str, ...], folder: str
) -> None:
    """The later wins, as for the bot itself, and without a warning."""
    (tmp_path / "tradingbot.toml").write_text(toml)
    (tmp_path / "other.toml").write_text('STATE_DIR = "f"')
    done = call(tmp_path, "kill", *(word.format(home=tmp_path) for word in words), **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / folder / "KILL").exists()


@pytest.mark.parametrize(
    ("toml", "words", "environ", "complaint", "folder"),
    [
        ("STATE_DIR = ", (), {}, "is not a TOML file", "state"),
        ("STATE_DIR = ", (), {"STATE_DIR": "b"}, "is not a TOML file", "b"),
        ("STATE_DIR = ", ("--state", "c"), {}, "is not a TOML file", "c"),
        ("[x]\nSTATE_DIR = 'a'", (), {}, "has a table [x]", "state"),
        ("STATE_DIR = 3", (), {}, "STATE_DIR = 3 (from tradingbot.toml) is not allowed", "state"),
        ('STATE_DIR = "a\\u0000"', (), {}, "is not allowed: it takes a text that is not empty", "state"),
        ("STATE_DIR = 'a'", (), {"STATE_DIR": ""}, "STATE_DIR = '' (from environment)", "a"),
        ("STATE_DIR = 'a'", ("--state", ""), {}, "STATE_DIR = '' (from --state)", "a"),
        ("STATE_DIR = 'a'", ("--set", "STATE_DIR"), {}, "--set STATE_DIR is not KEY=VALUE", "a"),
        ("STATE_DIR = 'a'", ("--config", "/nowhere.toml"), {}, "there is no settings file /nowhere.toml", "state"),
        ("STATE_DIR = 'a'", ("--config", "~nosuch/x"), {}, "~nosuch/x (from --config) cannot be found", "state"),
        ("STOP_TIMEOUT_S = '3'", (), {}, "STOP_TIMEOUT_S = '3' (from tradingbot.toml) is not allowed", "state"),
        ("STOP_TIMEOUT_S = true", (), {}, "STOP_TIMEOUT_S = True", "state"),
        (f"STOP_TIMEOUT_S = 1{'0' * 400}", (), {}, "it takes a number > 0", "state"),
        ("", ("--set", "STOP_TIMEOUT_S=0"), {}, "STOP_TIMEOUT_S = 0.0 (from --set) is not allowed", "state"),
        ("", (), {"STOP_TIMEOUT_S": "nan"}, "STOP_TIMEOUT_S = nan (from environment) is not allowed", "state"),
        ("", (), {"STOP_TIMEOUT_S": "\x1b[31m"}, "STOP_TIMEOUT_S = '\\x1b[31m' (from environment)", "state"),
    ],
)
def test_broken_settings_are_one_warning(
    tmp_path: Path, toml: str, words: tuple[str, ...], environ: dict[str, str], complaint: str, folder: str
) -> None:
    """What is broken is passed over; the line says what, and where it goes on."""
    (tmp_path / "tradingbot.toml").write_text(toml)
    with holding(tmp_path / folder):
        done = call(tmp_path, "status", *words, **environ)
        assert (done.returncode, done.stdout) == (0, TABLE)
        assert done.stderr.startswith("tradingbot: warning: ")
        assert complaint in done.stderr
        assert done.stderr.endswith(f"; going on with {tmp_path / folder}\n")
        assert done.stderr.count("\n") == 1
        assert call(tmp_path, "stop", *words, **environ).returncode == 0


def test_files_that_cannot_be_read_are_one_warning_together(tmp_path: Path) -> None:
    """Neither a pipe that nobody writes to nor a folder in a file's place holds anybody up."""
    os.mkfifo(tmp_path / "tradingbot.toml")
    (tmp_path / "state" / "overrides.json").mkdir(parents=True)
    with holding(tmp_path / "state"):
        done = call(tmp_path, "stop")
    assert done.returncode == 0
    assert done.stderr.count("\n") == done.stderr.count("warning") == 1
    assert "tradingbot.toml is a pipe" in done.stderr
    assert "overrides.json cannot be read: Is a directory" in done.stderr


@pytest.mark.parametrize("text", ["{", "[]", '{"overrides": {"STOP_TIMEOUT_S": 3}}', "[" * 100_000, "\xff"])
def test_broken_overrides_are_a_warning(tmp_path: Path, text: str) -> None:
    """A rollback may stand in them, which is no reason not to stop."""
    with holding(tmp_path / "state"):
        (tmp_path / "state" / "overrides.json").write_text(text, encoding="latin-1")
        done = call(tmp_path, "stop")
    assert done.returncode == 0
    assert "overrides.json is broken, and a rollback may stand in it" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_defaults_are_those_of_the_settings() -> None:
    """They stand in two places, and say the same."""
    for name, default in DEFAULTS.items():
        setting = registry()[name]
        assert (setting.default, setting.allowed) == (default, ALLOWED[name])
        assert type(setting.default) is type(default)
    assert ALLOWED.keys() == DEFAULTS.keys()


@pytest.mark.parametrize(
    ("toml", "environ", "assignments", "state", "overrides"),
    [
        ("", {}, [], None, {}),
        ('STATE_DIR = "a b"\nSTOP_TIMEOUT_S = 3', {}, [], None, {}),
        ('STATE_DIR = "/a"\nSTOP_TIMEOUT_S = 3', {"STOP_TIMEOUT_S": " 1e1 "}, ["STATE_DIR= b"], None, {}),
        ("STOP_TIMEOUT_S = 3.5", {"STATE_DIR": "../x"}, ["STOP_TIMEOUT_S=1_0", "STOP_TIMEOUT_S=7"], "~/c", {}),
        ("STOP_TIMEOUT_S = 3.5", {}, ["STOP_TIMEOUT_S=7", "POLL_S=3"], None, {"STOP_TIMEOUT_S": {"value": 8}}),
    ],
)
def test_the_bot_and_whoever_stops_it_agree(
    tmp_path: Path, toml: str, environ: dict[str, str], assignments: list[str], state: str | None, overrides: object
) -> None:
    """Both readers of the settings find the same directory and the same patience."""
    (tmp_path / "tradingbot.toml").write_text(toml)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "overrides.json").write_text(json.dumps({"overrides": overrides}))
    home = Home(tmp_path, "test")
    effective = read_settings(home, environ=environ, assignments=assignments, state=state)
    target = find_target(home, environ=environ, assignments=assignments, state=state)
    assert target.complaints == ()
    assert (target.state_dir, target.stop_timeout_s) == (effective.state_dir, effective.settings.STOP_TIMEOUT_S)


@pytest.mark.skipif(no_mounts() != "", reason=no_mounts() or "-")
@pytest.mark.parametrize("python", [(), ("-S",)], ids=["whole", "standard library alone"])
def test_a_full_disk_keeps_nobody_from_the_kill_switch(tmp_path: Path, python: tuple[str, ...]) -> None:
    """The reserve is given up for it; and for an override, whose audit comes first."""
    with tmpfs(tmp_path / "home", "size=24m,mode=700") as home:
        state = home / "state"
        state.mkdir()
        assert keep_reserve(state)
        with (home / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        words = ("kill", "--why", "full") if python else ("set", "POLL_S=3", "--why", "full", "--yes")
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *python, "-m", "tradingbot", "--home", str(home), *words],
            capture_output=True, text=True, env=environ, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not (state / "reserve").exists()
        if python:
            assert (state / "KILL").read_text() == "full\n"
        else:
            assert orjson.loads((state / "overrides.json").read_bytes())["overrides"]["POLL_S"]["value"] == 3
