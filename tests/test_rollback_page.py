"""docs/ROLLBACK.md: every command on it is run, in its order, beside a running bot."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.code_repos import WITH_REV, small
from tests.conftest import ROOT
from tests.test_live import bot, command, status_of, wait_for
from tradingbot import cli
from tradingbot.config import FLAGS

PAGE = (ROOT / "docs" / "ROLLBACK.md").read_text()
COMMANDS = re.findall(r"^    tradingbot (.+)$", PAGE, re.MULTILINE)
LIVELY = ("--set", "EMBEDDED_SPEED=30", "--set", "EMBEDDED_SYMBOLS=3", "--set", "DROP_TRIGGER_VALUE=0.998")


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    """A person who follows it top to bottom ends where the page says: all off, restarted, proved."""
    assert len(COMMANDS) > 15
    with bot(tmp_path, *LIVELY) as process:
        wait_for(lambda: status_of(tmp_path)["decisions"], process)
        repo = small(tmp_path / "repo")  # the program under test may lie in no checkout
        for line in COMMANDS:
            words = line.replace("--monitor 10s", "--monitor 2s")  # longer watches are tests of their own
            where = ("--repo", str(repo)) if words.startswith("rollback code") else ()
            done = subprocess.run(
                command(tmp_path, *shlex.split(words), *where), stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=120, check=False, cwd=tmp_path,
            )  # fmt: skip
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr
            if "rollback all --restart" in words:
                wait_for(lambda: not any(status_of(tmp_path)["flags"].values()), process)
        said_ms = status_of(tmp_path)["time_ms"]
        wait_for(lambda: status_of(tmp_path)["time_ms"] > said_ms, process)
        assert not any(status_of(tmp_path)["flags"].values())
        assert all(row["reference_source"] == "legacy_peak" for row in status_of(tmp_path)["symbols"])
    assert (tmp_path / "build" / "tables" / "journal.parquet").exists()
    assert (tmp_path / "trial" / "checkpoint.json").exists()


def test_every_command_that_the_page_names_in_passing_is_one() -> None:
    """In its tables and sentences, with something in the place of each word that stands for another."""
    named = set(re.findall(r"`tradingbot ([^`]+)`", PAGE))
    assert len(named) > 20
    stands_for = {"...": "x=1", "PROFILE": "all"}
    for words in sorted(named):
        arguments = [stands_for.get(word, word) for word in words.split()]
        assert cli._parser().parse_args(arguments).command == arguments[0], words


def test_the_commands_of_the_page_that_take_a_revision_run_in_the_journey_of_one() -> None:
    """tests/test_code_rollback.py runs them in their order, in a repository of this package."""
    kinds = [set(words.split()) & {"--dry-run", "--deploy", "--undo", "--files"} for words in WITH_REV]
    assert kinds == [{"--dry-run"}, set(), {"--deploy"}, {"--undo"}, {"--files"}]
    assert not [words for words in COMMANDS if "REV" in words.split()]


@pytest.mark.parametrize("name", list(FLAGS))
def test_the_page_and_the_changelog_name_every_flag(name: str) -> None:
    """With its modules and tests, and the line that takes its feature back."""
    changes = " ".join((ROOT / "CHANGELOG.md").read_text().split())
    assert f"Rollback: set {name} = false" in changes
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    assert all(module in row for module in FLAGS[name].modules), row
    assert all(test in row for test in FLAGS[name].tests), row
