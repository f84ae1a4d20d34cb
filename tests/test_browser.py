"""The notebooks in a real browser: JupyterLab in headless Chromium beside a running bot."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browsers import Lab, chromium, chromium_is_here, jupyter_lab, wait_until
from tests.conftest import ROOT
from tests.past import records
from tests.test_live import bot, status_of

pytestmark = pytest.mark.skipif(
    not chromium_is_here(), reason="Debian's chromium and chromium-driver are not installed"
)

OTHERS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb") if path.name != "observe.ipynb")
FAST = ("--set", "EMBEDDED_SPEED=40", "--set", "EMBEDDED_SYMBOLS=6", "--set", "DROP_TRIGGER_VALUE=0.998")
SHOTS = os.environ.get("TRADINGBOT_TEST_SHOTS")
ANCHOR = "FEATURE_ANCHOR_ENABLED"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the home of a bot that runs, and buys on paper, for all tests."""
    folder = tmp_path_factory.mktemp("home")
    with bot(folder, *FAST, "--set", "GLOBAL_TRADING=true"):
        yield folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Lab]:
    """Give one browser on one server for all tests."""
    folder = tmp_path_factory.mktemp("lab")
    with jupyter_lab(folder / "notebooks", home) as address, chromium(folder / "profile") as driver:
        yield Lab(driver, address)


def shoot(lab: Lab, name: str) -> None:
    """Keep a picture where TRADINGBOT_TEST_SHOTS names a folder."""
    if SHOTS:
        lab.driver.save_screenshot(f"{SHOTS}/{name}.png")


def decided(home: Path, outcome: str) -> int:
    """Return how many triggers the journal holds that ended so."""
    return sum(record.get("outcome") == outcome for record in records(home / "state", "journal"))


def test_a_bot_is_seen_and_steered_from_the_browser(lab: Lab, home: Path) -> None:
    """Values move; a flag's button changes the running bot; HALT stops trading; stop watching ends the cell."""
    lab.open("observe.ipynb")
    lab.set_parameters(duration_s="3600.0")
    lab.run_all()
    wait_until(lambda: "RUNNING" in lab.text() and "BTC/USDT" in lab.text(), "no table came")
    before = lab.text()
    wait_until(lambda: (now := lab.text()) != before and "BTC/USDT" in now, "values do not move")
    wait_until(
        lambda: lab.driver.execute_script("return !!document.querySelector('.widget-image')?.naturalWidth"), "no chart"
    )
    shoot(lab, "running")

    for symbol in lab.symbols()[:3] * 2:
        lab.choose(symbol)
        wait_until(lambda symbol=symbol: f"the chart shows {symbol}" in lab.text(), f"{symbol} is not charted")

    lab.click("", within=f"button.tradingbot-switch-{ANCHOR}")
    wait_until(lambda: f"{ANCHOR}: true becomes false" in lab.text(), "no plan is shown")
    lab.click("do it")
    wait_until(lambda: "say why" in lab.text(), "a switch without a reason is not refused")
    assert status_of(home)["flags"][ANCHOR] is True
    lab.type("odd")
    lab.click("", within=f"button.tradingbot-switch-{ANCHOR}")  # what was typed is told when the field is left
    lab.type(" anchors", behind="odd")
    shoot(lab, "confirm")
    lab.click("do it")
    wait_until(lambda: status_of(home)["flags"][ANCHOR] is False, "the running bot has not adopted it")
    wait_until(lambda: "the running bot goes by it" in lab.text(), "adoption is not shown")
    entry = next(row for row in status_of(home)["overrides"] if row["key"] == ANCHOR)
    assert entry["why"] == "odd anchors"

    lab.type("exchange odd")
    lab.click("HALT")
    wait_until(lambda: status_of(home)["bot"]["state"] == "killed", "the bot was not killed")
    wait_until(lambda: (home / "state" / "KILL").read_text().strip() == "exchange odd", "the reason has not come")
    wait_until(lambda: "KILLED" in lab.text(), "the view does not say that it is killed")
    entered = decided(home, "entered")
    triggers = sum(row["triggers"] for row in status_of(home)["symbols"])
    wait_until(lambda: sum(row["triggers"] for row in status_of(home)["symbols"]) > triggers + 2, "no triggers come")
    assert decided(home, "entered") == entered
    assert "killed" in status_of(home)["decisions"][-1]["reasons"]
    shoot(lab, "killed")

    lab.click("ARM")
    lab.type("looked into it")
    lab.click("do it")
    wait_until(lambda: status_of(home)["bot"]["state"] == "running", "the bot was not armed")
    lab.click("stop watching")
    wait_until(lab.has_ended, "the cell has not ended")
    assert lab.errors() == []
    wait_until(lambda: "fresh prices" in lab.text(), "the verdict is not shown")
    shoot(lab, "summary")
    what = [json.loads(line)["what"] for line in (home / "state" / "audit.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(what)) == ["override", "kill", "arm"]


@pytest.mark.parametrize("name", OTHERS)
def test_each_other_notebook_runs_through_in_the_browser(lab: Lab, name: str) -> None:
    """With its own defaults, beside the running bot."""
    lab.open(name)
    lab.run_all()
    wait_until(lab.has_ended, f"{name} has not ended", 300)
    shoot(lab, name)
    assert lab.errors() == []


def test_the_notebook_runs_under_nbmake_and_stops_its_own_bot(tmp_path: Path) -> None:
    """From the notebook's folder, with no bot anywhere: it starts one, and leaves none behind."""
    import sys

    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    environ = {**os.environ, "TRADINGBOT_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    words = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        "-p",
        "no:cacheprovider",
        str(ROOT / "notebooks" / "observe.ipynb"),
    ]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "home").iterdir()) == []
    assert list((tmp_path / "tmp").glob("tradingbot-*")) == []
