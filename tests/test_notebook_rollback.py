"""notebooks/rollback.ipynb and verify.ipynb beside a running bot: what they show is so, what they do is done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import ROOT
from tests.rollbacks import ANCHOR, overrides
from tests.test_live import bot, status_of, wait_for
from tradingbot.ops.record.prove import prove

NOTEBOOKS = ROOT / "notebooks"
LIVELY = ("--set", "EMBEDDED_SPEED=40", "--set", "EMBEDDED_SYMBOLS=2", "--set", "DROP_TRIGGER_VALUE=0.9985")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Give the home of a bot that runs, and its process."""
    home = tmp_path_factory.mktemp("watched")
    with bot(home, *LIVELY) as process:
        wait_for(lambda: status_of(home)["decisions"], process)
        yield home, process


def run(name: str, out: Path, cwd: Path, **parameters: object) -> tuple[int, str, str]:
    """Run a notebook with papermill; return its exit code, what it said, and the text of all outputs."""
    words = [sys.executable, "-m", "papermill", "--no-progress-bar", str(NOTEBOOKS / f"{name}.ipynb"), str(out)]
    for key, value in parameters.items():
        words += ["-r" if isinstance(value, str) else "-p", key, str(value)]
    done = subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, timeout=300, check=False, env=environment(),
    )  # fmt: skip
    return done.returncode, done.stderr, text_of(out)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def text_of(path: Path) -> str:
    """Return the words of a notebook's outputs."""
    texts: list[str] = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            found: Any = output.get("text") or output.get("data", {}).get("text/plain")
            texts.append(found or "\n".join(output.get("traceback", ())))
    return "\n".join(texts)


def test_a_rollback_is_planned_done_undone_and_verified_from_the_notebook(
    watched: tuple[Path, subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Dry nothing changes; then the running bot goes by it, verified GO; undone it is as it was, and all is proved."""
    home, process = watched
    code, said, text = run("rollback", tmp_path / "dry.ipynb", tmp_path, home=str(home), profile="anchor")
    assert code == 0, said
    assert "FEATURE_ANCHOR_ENABLED: no override becomes override off" in text
    assert "theirs  as recorded" in text
    assert "dry_run is True, nothing was changed" in text
    assert overrides(home) == {}
    assert not (home / "state" / "rollbacks").exists()

    words: dict[str, Any] = {"home": str(home), "dry_run": False, "why": "drill from a notebook"}
    code, said, text = run("rollback", tmp_path / "done.ipynb", tmp_path, profile="anchor", **words)
    assert code == 0, said + text
    assert overrides(home) == {ANCHOR: False}
    assert {row["reference_source"] for row in status_of(home)["symbols"]} == {"legacy_peak"}
    assert "off in the running bot" in text
    assert "\nGO" in text
    assert "drill from a notebook" in (home / "state" / "audit.jsonl").read_text()

    code, said, text = run("rollback", tmp_path / "undone.ipynb", tmp_path, undo="last", **words)
    assert code == 0, said + text
    assert overrides(home) == {}
    wait_for(lambda: {row["reference_source"] for row in status_of(home)["symbols"]} == {"anchor"}, process)
    assert process.poll() is None
    assert prove(home / "state").exit_code == 0


@pytest.fixture(scope="module")
def botless(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[int, str, str]]]:
    """Run notebooks where no bot has run, side by side; give the home, and what came of each."""
    folder = tmp_path_factory.mktemp("botless")
    words = {"rollback": {}, "verify": {}, "wrong": {"profile": "anchors"}}

    def one(name: str) -> tuple[int, str, str]:
        notebook = name if name != "wrong" else "rollback"
        return run(notebook, folder / f"{name}.ipynb", folder, home=str(folder / "home"), **words[name])

    with ThreadPoolExecutor(2) as pool:
        return folder / "home", dict(zip(words, pool.map(one, words), strict=True))


def test_a_wrong_parameter_is_one_line_and_a_failure(botless: tuple[Path, dict[str, tuple[int, str, str]]]) -> None:
    """Without a traceback through the package; nothing is made where no bot has run."""
    home, done = botless
    code, said, text = done["wrong"]
    says = "UsageError: there is no profile anchors: did you mean anchor?"
    assert code == 1
    assert says in text
    assert "Traceback" not in text
    assert says in said
    assert not home.exists()


def test_without_a_bot_the_plan_is_shown_and_the_checklist_says_no_go(
    botless: tuple[Path, dict[str, tuple[int, str, str]]],
) -> None:
    """No state directory: a rollback is planned for the next start; verify fails, with its report whole."""
    home, done = botless
    code, said, text = done["rollback"]
    assert code == 0, said
    assert "no bot has run there" in text
    assert not home.exists()
    code, said, text = done["verify"]
    assert code == 1
    assert "NO-GO" in text
    assert "CheckFailedError: failed: " in text
    assert "Traceback" not in text
