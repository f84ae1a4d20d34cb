"""The command: exit codes, help, JSON and plain words, through the real program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jsonschema
import orjson
import pytest

from tests.helpers import LIMIT_S, commands_of
from tradingbot import __version__
from tradingbot.config import registry


def run(*words: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tradingbot", *words],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, **environ}, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def test_help_shows_every_command_with_an_example() -> None:
    """Whoever asks for help gets an example that works."""
    text = run("--help").stdout
    assert "example: tradingbot --duration 60" in text
    commands = commands_of(text)
    assert {"replay", "status", "fsck"} <= commands
    for command in commands:
        assert f"example: tradingbot {command}" in run(command, "--help").stdout
    assert run("--version").stdout.strip() == f"tradingbot {__version__}"


def test_help_needs_none_of_the_heavy_packages() -> None:
    """A command that needs no data starts without the packages that read it."""
    code = (
        "import sys, tradingbot, tradingbot.cli\n"
        "try:\n tradingbot.cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'matplotlib', 'rich', 'msgspec'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr


def test_config_shows_every_setting_with_source_and_meaning(tmp_path: Path) -> None:
    """One line a setting; where it comes from; what it means."""
    (tmp_path / "tradingbot.toml").write_text("POLL_S = 3")
    done = run("config", "--home", str(tmp_path), "--set", "DEBOUNCE_S=5", GLOBAL_TRADING="False")
    assert done.returncode == 0, done.stderr
    assert "POLL_S = 3   # tradingbot.toml: seconds between two polls" in done.stdout
    assert "DEBOUNCE_S = 5   # --set:" in done.stdout
    assert "GLOBAL_TRADING = false   # environment:" in done.stdout
    for name, setting in registry().items():
        assert f"{name} = " in done.stdout
        assert setting.meaning in done.stdout


def test_config_as_json_is_one_document(tmp_path: Path) -> None:
    """Nothing but JSON on stdout."""
    document = orjson.loads(run("config", "--json", "--home", str(tmp_path)).stdout)
    assert list(document["settings"]) == list(registry())
    assert document["settings"]["POLL_S"]["value"] == 2.5
    assert document["settings"]["POLL_S"]["source"] == "default"
    schema = orjson.loads(run("config", "--schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("config", "--set", "POL_S=3"), "tradingbot: there is no setting 'POL_S' (from --set): did you mean POLL_S?"),
        (("config", "--set", "POLL_S=x"), "tradingbot: POLL_S = 'x' (from --set) is not allowed: it takes a number"),
        (("config", "--config", "/nowhere.toml"), "tradingbot: there is no settings file /nowhere.toml"),
        (("replay", "/nowhere"), "tradingbot: there is no file or directory /nowhere"),
        (("replay",), "required: FILE_OR_DIRECTORY"),
        (("stats",), "tradingbot: there is no command stats: did you mean status?"),
        (("xyz",), "tradingbot: there is no command xyz: `tradingbot --help` shows them all"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(words: tuple[str, ...], complaint: str) -> None:
    """Never a traceback."""
    done = run(*words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words", [("prove",), ("compare", "--set", "POLL_S=3"), ("fsck",), ("export", "--to", "csv")])
def test_a_home_in_place_of_a_state_directory_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Exit 2 with the directory that was meant: an empty record would be called clean."""
    (tmp_path / "bot" / "state" / "journal").mkdir(parents=True)
    done = run(words[0], "bot", *words[1:], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tradingbot: bot is a bot's home: did you mean bot/state?\n"


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Before any work is done."""
    (tmp_path / "file").touch()
    data = tmp_path / "x.csv"
    data.write_text("ts_ms,symbol,price\n1,A,1\n")
    done = run("replay", str(data), "--out", str(tmp_path / "file" / "out"))
    assert done.returncode == 2
    assert "cannot write to" in done.stderr


def test_the_summary_as_json_is_the_summary_file(tmp_path: Path) -> None:
    """--json prints what summary.json holds."""
    data = tmp_path / "x.csv"
    data.write_text("ts_ms,symbol,price\n1,A,100\n1000,A,98\n")
    done = run("replay", str(data), "--out", str(tmp_path / "out"), "--json")
    assert done.stdout == (tmp_path / "out" / "summary.json").read_text()


def test_hostile_symbols_reach_no_terminal(tmp_path: Path) -> None:
    """Escapes in a data file are shown as what they are not."""
    data = tmp_path / "x.csv"
    data.write_text("ts_ms,symbol,price\n1,\x1b[31mA[bold]\x07,100\n")
    done = run("replay", str(data))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "[bold]" in done.stdout


def test_ctrl_c_ends_cleanly(tmp_path: Path) -> None:
    """One word, exit 130, and no result under a whole one's name."""
    data = tmp_path / "x.csv"
    data.write_text("ts_ms,symbol,price\n" + "".join(f"{i},A,{100 + i % 7}\n" for i in range(2_000_000)))
    out = tmp_path / "out"
    words = [sys.executable, "-m", "tradingbot", "replay", str(data), "--out", str(out)]
    # a test run started in the background has Ctrl-C switched off, and its children inherit that
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, text=True, preexec_fn=heed) as process:  # noqa: PLW1509  (no thread here)
        under_way = out / "decisions.jsonl.partial"
        while not (under_way.exists() and under_way.stat().st_size):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, stderr
    assert stderr == "tradingbot: interrupted\n"
    assert stdout == ""
    assert not (out / "summary.json").exists()


def test_an_output_that_is_full_is_one_line() -> None:
    """Data that could not be written is an error, and no traceback."""
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m tradingbot config >/dev/full"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "tradingbot: No space left on device\n")


def test_a_file_size_limit_is_one_line_and_no_result(tmp_path: Path) -> None:
    """A full disk under --out leaves no result under a whole one's name."""
    data = tmp_path / "x.csv"
    rows = (f"{i * 5000},A,{100 - i % 2 * 5}\n" for i in range(2000))
    data.write_text("ts_ms,symbol,price\n" + "".join(rows))
    words = f"ulimit -f 1; exec {sys.executable} -m tradingbot replay {data} --out {tmp_path / 'out'}"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "tradingbot: File too large\n"
    assert not (tmp_path / "out" / "summary.json").exists()


def test_terminated_cleans_up(tmp_path: Path) -> None:
    """SIGTERM ends with 143, and the sorted runs in TMPDIR are gone."""
    data = tmp_path / "x.csv"
    data.write_text("ts_ms,symbol,price\n" + "".join(f"{i ^ 1},A,{100 + i % 7}\n" for i in range(1_500_000)))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = [sys.executable, "-m", "tradingbot", "replay", str(data)]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    ) as process:
        while not list(temporary.rglob("0")):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, stderr) == (143, "tradingbot: terminated\n")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [("config", "--home", "x" * 300), ("config", "--home", "~nosuch/x"), ("config", "--config", "~nosuch/x"),
     ("config", "--home", ""), ("config", "--state", ""), ("replay", "x" * 300)],
)  # fmt: skip
def test_paths_that_are_none_are_one_line(words: tuple[str, ...]) -> None:
    """Whatever stands for a path, the answer is one line."""
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("tradingbot: ")
    assert done.stderr.count("\n") == 1


def test_options_stand_before_or_behind_the_command() -> None:
    """`--set` counts on both sides."""
    done = run("--set", "POLL_S=3", "--json", "config", "--set", "DEBOUNCE_S=4")
    settings = orjson.loads(done.stdout)["settings"]
    assert (settings["POLL_S"]["value"], settings["DEBOUNCE_S"]["value"]) == (3, 4)
