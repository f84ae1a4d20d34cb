"""Documents say what is so: settings, commands, files and the README's own output."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.conftest import ROOT
from tests.helpers import commands_of
from tradingbot.config import FLAGS, registry
from tradingbot.ui.tables import settings_page

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_settings_page_is_made_from_the_settings() -> None:
    """`make docs` writes it; nobody keeps it by hand."""
    assert (ROOT / "docs" / "SETTINGS.md").read_text() == settings_page()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_and_files_that_a_page_names_exist(page: Path) -> None:
    """A name in capitals with an underscore is a setting; a relative link leads somewhere."""
    text = page.read_text()
    known = {
        *registry(),
        "TRADINGBOT_HOME",
        "FILE_OR_DIRECTORY",
        "RETRY_MAX_S",
        "SNAPSHOT_SCHEMA",
        "TRADINGBOT_TEST_KILLS",
    }
    text = re.sub(r"[A-Z]+_[A-Z]+_\d{8}_\d{4}", "", text)  # a segment's name
    known.add("FEATURE_X")  # what stands for any flag
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text))
    assert named <= known, named - known
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link


def test_every_command_has_a_place_in_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads the pages meets every command."""
    from tradingbot.cli import main

    text = "".join(page.read_text() for page in PAGES)
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = commands_of(capsys.readouterr().out)
    assert {"replay", "status", "fsck"} <= commands
    for command in commands:
        assert re.search(rf"tradingbot {command}\b", text), command


def test_the_changelog_says_how_each_feature_is_rolled_back() -> None:
    """Every flag whose feature has landed stands in the changelog."""
    assert "Rollback: set FEATURE_ANCHOR_ENABLED = false" in (ROOT / "CHANGELOG.md").read_text()
    assert "FEATURE_ANCHOR_ENABLED" in FLAGS


def recipe(target: str, place: str, **variables: str) -> str:
    """Run the commands of a target of the Makefile, with this interpreter and `place` for build; return stdout."""
    text = (ROOT / "Makefile").read_text()
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert found is not None
    variables = {"SPEED": "30", "RUN_ARGS": "", **variables, "PY": sys.executable}
    output = ""
    for line in found.group(1).replace("\\\n", " ").splitlines():
        command = re.sub(r"\$\(if \$\((\w+)\),(.*?)\$\(\w+\)\)", lambda m: m.group(2) + variables[m.group(1)], line)
        command = re.sub(r"\$\((\w+)\)", lambda m: variables[m.group(1)], command.strip().lstrip("@"))
        done = subprocess.run(
            ["sh", "-c", command.replace("build/", f"{place}/")], cwd=ROOT, capture_output=True, text=True, check=True
        )
        output += done.stdout
    return output.replace(f"{place}/", "build/")


def shapes(screen: str) -> list[str]:
    """Return the lines of a live screen without what changes from run to run: numbers, states, triggers."""
    table, _, _ = screen.partition("latest t")
    lines = [re.sub(r"[-+]?[\d,.]+", "0", line) for line in table.splitlines()]
    return sorted(re.sub(r" +", " ", re.sub(r"(armed|triggered)? *$", "", line)) for line in lines)


def test_the_readme_shows_what_the_make_targets_print(tmp_path: Path) -> None:
    """Real output, not a drawing of it: of a replay to the letter, of the live bot its form."""
    screen, replayed = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert recipe("replay", str(tmp_path)) == replayed
    for seconds in ("5", "20", "80"):  # a machine that is slow has no prices of all symbols after five
        shown = shapes(recipe("run", str(tmp_path), DURATION=seconds))
        if shown == shapes(screen):
            break
    assert shown == shapes(screen)


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example for Python works as it stands."""
    from tests.test_replay import crash_csv

    crash_csv(tmp_path / "candles.csv")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(
        r"^    (import tradingbot as tb\n\n(?:    .*\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    code = "\n".join(line.removeprefix("    ") for line in lines[0].splitlines())
    names: dict[str, object] = {}
    exec(code.replace(".parquet", ".csv"), names)
    assert orjson.dumps(names["result"].summary)  # type: ignore[attr-defined]
