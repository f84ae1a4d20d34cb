"""The four troubleshooting stories, each from what an operator sees to what mends it, over the real command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import T
from tests.patients import FIX, WARNING, mounted, patient, report
from tests.test_live import bot, call, status_of, wait_for
from tradingbot.ops.doctor import disk as doctor_disk

FAST = ("--set", "EMBEDDED_SPEED=40", "--set", "EMBEDDED_SYMBOLS=2")
SHORT = ("--virtual", "--duration", "30", "--no-dashboard", "--set", "EMBEDDED_SYMBOLS=2")


def failed(found: dict[str, list[dict[str, object]]]) -> set[str]:
    return {name for name, rows in found.items() for row in rows if row["verdict"] == "failed"}


def test_a_bot_that_does_not_start_after_a_rollback(tmp_path: Path) -> None:
    """The overrides that it wrote are torn: refused, named, set aside; the rollback stands in the last good."""
    assert call(tmp_path, *SHORT).returncode == 0
    assert call(tmp_path, "rollback", "anchor", "--yes", "--why", "odd", "--no-compare").returncode == 0
    path = tmp_path / "state" / "overrides.json"
    path.write_bytes(path.read_bytes()[:40])
    refused = call(tmp_path, *SHORT)
    assert (refused.returncode, "overrides.json is broken" in refused.stderr) == (2, True)

    found = report(tmp_path, code=1)
    assert failed(found) == {"overrides"}
    assert "tradingbot doctor --fix overrides" in found["overrides"][0]["fix"]
    assert call(tmp_path, "doctor", "--fix", "overrides", *FIX).returncode == 0
    assert failed(report(tmp_path, code=0)) == set()
    assert call(tmp_path, *SHORT).returncode == 0
    assert status_of(tmp_path)["flags"]["FEATURE_ANCHOR_ENABLED"] is False


def saw(path: Path) -> Path:
    """Write a market of ten hours that falls by a per cent in each minute, and is back at once."""
    rows = [f"{T + second * 1000},X/USDT,{100 - second % 60 / 60:.3f}" for second in range(36_000)]
    path.write_text("\n".join(["ts_ms,symbol,last", *rows, ""]))
    return path


def test_a_legacy_trigger_that_does_not_come(tmp_path: Path) -> None:
    """The anchor is rolled back and nothing triggers: told why, with the command that leads to a trigger."""
    words = ("--set", "EMBEDDED_SPEED=40", "--set", f"EMBEDDED_MARKET={saw(tmp_path / 'saw.csv')}")
    with bot(tmp_path, *words, "--set", "DROP_TRIGGER_VALUE=0.9") as process:
        assert call(tmp_path, "rollback", "anchor", "--yes", "--why", "odd", "--no-compare").returncode == 0
        uptime_s = status_of(tmp_path)["bot"]["uptime_s"]
        wait_for(lambda: status_of(tmp_path)["bot"]["uptime_s"] > uptime_s + 4, process)
        found = report(tmp_path, *words, "--set", "DROP_TRIGGER_VALUE=0.9")["threshold"][0]
        assert found["verdict"] == "warning"
        assert "below the window peak of 300 s, the anchor being rolled back" in found["says"]
        assert "it takes 10.00 %" in found["says"]

        fix = re.search(r"tradingbot (set DROP_TRIGGER_VALUE=[\d.]+)", str(found["fix"]))
        assert fix is not None
        assert call(tmp_path, *shlex.split(fix[1]), "--yes", "--why", "as doctor says").returncode == 0
        wait_for(lambda: status_of(tmp_path)["decisions"], process)
        decision = status_of(tmp_path)["decisions"][-1]
        assert (decision["reference_source"], decision["outcome"]) == ("legacy_peak", "observed")
        assert "threshold" not in report(tmp_path, *words)


def test_anchors_that_are_corrupted(tmp_path: Path) -> None:
    """Damaged on the disk, and absurd by hand: found, set aside, begun anew; the next start has anchors that can be."""
    for _ in range(2):
        assert call(tmp_path, *SHORT).returncode == 0
    path = tmp_path / "state" / "anchors" / "anchors.json"
    good = path.read_bytes()
    path.write_bytes(good[:-30] + b"\0" * 30)
    found = report(tmp_path, code=1)
    assert "anchors" in failed(found)
    assert found["anchors"][0]["profile"] == "anchor"
    assert call(tmp_path, "doctor", "--fix", "anchors", *FIX).returncode == 0
    assert path.with_name("anchors.json.bad-1").exists()
    assert failed(report(tmp_path, code=0)) == set()

    price = status_of(tmp_path)["symbols"][0]["last"] * 3
    symbol = status_of(tmp_path)["symbols"][0]["symbol"]
    path.write_text(f'{{"v": 1, "anchors": {{"{symbol}": {{"price": {price}, "set_ms": 1000}}}}}}')
    found = report(tmp_path, code=1)
    assert f"{symbol} {price:g}, +200 % from the last price" in found["anchors"][0]["says"]
    assert call(tmp_path, "doctor", "--fix", "anchors", *FIX).returncode == 0
    assert call(tmp_path, *SHORT).returncode == 0
    assert failed(report(tmp_path, code=0)) == set()
    row = next(row for row in status_of(tmp_path)["symbols"] if row["symbol"] == symbol)
    assert row["reference"] == pytest.approx(row["last"], rel=0.1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a state directory on a disk of its own of 40 MB."""
    with mounted(tmp_path / "state", "size=40m"):
        yield tmp_path


def test_a_disk_that_is_full(small_disk: Path) -> None:
    """While the bot runs: told what takes the room; what stops it works while it is full; freed, all is well."""
    words = (*FAST, "--set", "MIN_FREE_MB=0")  # it never gives its reserve up by itself
    filler = small_disk / "state" / "filler"
    with bot(small_disk, *words) as process:
        wait_for(lambda: status_of(small_disk)["disk"]["hours_left"] is not None, process, 60)
        filling = doctor_disk.disk(patient(small_disk, "MIN_FREE_MB=0"))
        assert (filling.verdict, "filling: " in filling.says, filling.profile) == (WARNING, True, "persistence")
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(b"x" * 100_000)
                    file.flush()
            except OSError:
                pass
        found = report(small_disk, *words, code=1)
        assert "disk" in failed(found)
        assert (found["disk"][0]["profile"], f"{filler}" in found["disk"][0]["fix"]) == ("persistence", True)
        assert "full: " in found["disk"][0]["says"]
        advice = call(small_disk, "doctor", "--fix", "disk", *words)
        assert (advice.returncode, f"MB {filler}" in advice.stdout) == (2, True)

        done = call(small_disk, "rollback", "persistence", "--yes", "--why", "full", "--no-compare", *words)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout  # it takes the room that the bot keeps for this
        assert not (small_disk / "state" / "reserve").exists()
        wait_for(lambda: not status_of(small_disk)["flags"]["FEATURE_PERSIST_STREAMS"], process)
        filler.unlink()
        found = report(small_disk, *words)
        assert "disk" not in failed(found)
        assert (found["disk"][0]["evidence"]["hours_left"] or 1e9) > filling.evidence["hours_left"]  # the journal alone
        assert {"disk speed", "writer", "bot", "tickers"} & failed(found) == set()
        assert call(small_disk, "stop", *words).returncode == 0
