"""`tradingbot rollback` on a running bot: seen off, undone, seen on; killed in the middle, both of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers import LIMIT_S
from tests.past import records
from tests.rollbacks import (
    ANCHOR,
    PERSIST,
    WARM,
    YES,
    carry_out,
    overrides,
    roll_back,
    run,
    settings,
)
from tests.test_live import bot, call, status_of, wait_for
from tests.test_restarts import exchange
from tradingbot.ops.record.prove import prove
from tradingbot.ops.rollback.plan import PROFILES
from tradingbot.ops.rollback.rollback import plan_rollback
from tradingbot.ops.rollback.store import past_rollbacks

PAUSES = ("--set", "TICKER_MAX_AGE_S=3600", "--set", "WATCHDOG_S=60")  # a machine that pauses is no fault
FAST = ("--set", "EMBEDDED_SPEED=40", "--set", "EMBEDDED_SYMBOLS=2", *PAUSES)
STREAMS = ("ticks", "snapshots", "windows", "anchors")
STEPS = ("begin", "backup", "overrides", "adopted", "restart", "check", "end")


def sizes(home: Path) -> list[int]:
    streams = status_of(home)["streams"]
    return [streams[name]["bytes"] for name in STREAMS]


def stand_still(home: Path, process: subprocess.Popen[str]) -> bool:
    """Return whether the streams stay as they are while hundreds of ticks come in."""
    before, ticks = sizes(home), status_of(home)["data"]["ticks"]
    wait_for(lambda: status_of(home)["data"]["ticks"] > ticks + 200, process)
    return sizes(home) == before


def sources(home: Path) -> set[str]:
    return {row["reference_source"] for row in status_of(home)["symbols"]}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_profile_is_rolled_back_and_undone_on_a_running_bot(
    tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off in status, streams, references and start; on again after the undoing; pinned by the environment or not."""
    flags, log = PROFILES[profile].flags, tmp_path / "stderr"
    if profile == "all":
        for flag in flags:
            monkeypatch.setenv(flag, "true")
    takes_restart = WARM in flags
    more = ("--restart",) if takes_restart else ()
    with bot(tmp_path, *FAST, "--set", "RETRY_BASE_S=0.1") as process:
        sid = status_of(tmp_path)["bot"]["sid"]
        report = run(tmp_path, profile, *more)
        status = status_of(tmp_path)
        assert (report["state"], report["exit_code"], status["bot"]["pid"]) == ("done", 0, process.pid)
        assert {name for name, on in status["flags"].items() if not on} == set(flags)
        assert (status["bot"]["sid"] > sid) == takes_restart
        wait_for(lambda: stand_still(tmp_path, process) == (PERSIST in flags), process)
        assert sources(tmp_path) == ({"legacy_peak"} if ANCHOR in flags else {"anchor"})
        if takes_restart:
            assert status["warm_start"]["kind"] == "cold"
            assert "WARMSTART -" not in log.read_text().partition("stopped sid=")[2]
        assert "retry_state" not in log.read_text()

        report = run(tmp_path, "--undo", *more)
        assert (report["state"], overrides(tmp_path)) == ("done", {})
        assert all(status_of(tmp_path)["flags"].values())
        wait_for(lambda: not stand_still(tmp_path, process), process)
        wait_for(lambda: sources(tmp_path) == {"anchor"}, process)
        if takes_restart:
            assert status_of(tmp_path)["warm_start"]["kind"] == "warm"
        assert call(tmp_path, "stop").returncode == 0
    assert prove(tmp_path / "state").exit_code == 0


def test_without_backoff_a_symbol_that_fails_is_asked_at_every_poll_until_the_undoing(tmp_path: Path) -> None:
    """The plan counts the polls that backoff withheld; then none is, and no retry_state; after the undoing both are."""
    script, log = tmp_path / "faults.toml", tmp_path / "stderr"
    script.write_text(
        "".join(
            f'[[fault]]\non = "GET ticker/*"\ndoes = "crossed"\nfrom_s = {second}\nto_s = {second}.5\n'
            for second in range(1, 600)
        )
    )
    words = ("--set", "MARKET_DATA=poll", "--set", "POLL_S=0.1", "--set", "RETRY_BASE_S=3", "--set", "RETRY_MAX_S=5")

    def withheld() -> int:
        return sum(status_of(tmp_path)["data"]["withheld"].values())

    more = ("--faults", str(script), "--set", "EMBEDDED_SYMBOLS=2")
    with (
        exchange(tmp_path / "exchange", *more) as url,
        bot(tmp_path, *words, "--set", f"EMBEDDED_URL={url}") as process,
    ):
        wait_for(lambda: withheld() > 10, process)
        assert "retry_state symbol=" in log.read_text()
        report = run(tmp_path, "retry")
        assert sum(report["plan"]["foresight"]["withheld"].values()) > 10
        assert report["state"] == "done"
        before, ticks = withheld(), status_of(tmp_path)["data"]["ticks"]
        rejected = status_of(tmp_path)["data"]["rejected"]["crossed"]
        wait_for(lambda: status_of(tmp_path)["data"]["ticks"] > ticks + 20, process)
        wait_for(lambda: status_of(tmp_path)["data"]["rejected"]["crossed"] > rejected + 10, process)
        assert withheld() == before
        assert "retry_state" not in log.read_text().partition("FEATURE_RETRY_BACKOFF=False")[2]
        run(tmp_path, "--undo")
        wait_for(lambda: withheld() > before + 10, process)
        assert "retry_state" in log.read_text().partition("FEATURE_RETRY_BACKOFF=True")[2]


def test_without_restart_a_cold_start_waits_for_the_next_one(tmp_path: Path) -> None:
    """The plan and the check say so, and the next start is cold; a second run has nothing to do."""
    with bot(tmp_path, *FAST):
        report = run(tmp_path, "warmstart")
        checks = {check["name"]: check for check in report["checks"]}
        assert "until its next start" in checks[WARM]["says"]
        assert report["plan"]["changes"][0]["takes_effect"] == "at the next start"
        assert status_of(tmp_path)["flags"][WARM] is True
        done = call(tmp_path, "rollback", "warmstart", "--why", "again", "--yes")
        assert (done.returncode, "nothing to do" in done.stdout) == (0, True), done.stdout
        assert "at its next start: FEATURE_WARMSTART_TICKS" in done.stdout
        call(tmp_path, "stop")
    with bot(tmp_path, *FAST):
        assert status_of(tmp_path)["warm_start"]["kind"] == "cold"


def test_from_empty_no_anchor_of_before_is_used_by_the_session_behind_the_restart(tmp_path: Path) -> None:
    """Every symbol's anchor begins anew before the first tick; the session that ends keeps its own."""
    with bot(tmp_path, *FAST):
        report = run(tmp_path, "warmstart", "--restart", "--from-empty")
        sid = status_of(tmp_path)["bot"]["sid"]
        again = run(tmp_path, "warmstart", "--restart", "--from-empty")
        assert (again, status_of(tmp_path)["bot"]["sid"]) == (None, sid)
        call(tmp_path, "stop")
    symbols = report["steps"]["from-empty"]["symbols"]
    resets = [record for record in records(tmp_path / "state", "journal") if record["type"] == "anchor_reset"]
    assert {(record["sid"], record["symbol"]) for record in resets} == {(sid, symbol) for symbol in symbols}
    ticks = [record["seq"] for record in records(tmp_path / "state", "drop_windows/ticks") if record["sid"] == sid]
    assert max(record["seq"] for record in resets) < min(ticks)


def test_killed_between_two_steps_it_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    """SIGKILL behind each step of a rollback on a running bot: the same command ends it, with one restart in all."""
    code = """
import os, signal, sys
from tradingbot import cli
from tradingbot.ops.rollback.store import Stored
record, step = Stored.record, sys.argv.pop(1)
def record_and_die(self, name, facts):
    record(self, name, facts)
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)
Stored.record = record_and_die
sys.exit(cli.main(sys.argv[1:]))
"""
    with bot(tmp_path, *FAST) as process:
        sid = status_of(tmp_path)["bot"]["sid"]
        for step in ("backup", "overrides", "restart"):
            words = [sys.executable, "-c", code, step, "--home", str(tmp_path), "rollback", "persistence", "--restart"]
            done = subprocess.run(
                [*words, *YES], cwd=ROOT, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False
            )
            assert done.returncode == -signal.SIGKILL, done.stderr
            stored = past_rollbacks(tmp_path / "state")
            assert [each.state for each in stored] == ["half done"]
            assert step in stored[0].done
        report = run(tmp_path, "persistence")
        assert (report["state"], tuple(report["steps"])) == ("done", STEPS)
        assert status_of(tmp_path)["bot"]["pid"] == process.pid
        assert len({record["sid"] for record in records(tmp_path / "state", "journal")}) == 2
        assert report["steps"]["restart"]["old_sid"] == sid
        assert overrides(tmp_path) == {PERSIST: False, WARM: False}


def test_a_bot_that_is_killed_meanwhile_is_told_of_and_the_next_one_ends_the_rollback(tmp_path: Path) -> None:
    """SIGKILL of the bot between two steps: exit 1 and dead; once a bot runs again the same command ends with 0."""
    with bot(tmp_path, *FAST) as process:
        found = plan_rollback(settings(tmp_path), "anchor", "drill")
        process.kill()
        process.wait()
        report = carry_out(tmp_path, found)
        assert (report.exit_code, overrides(tmp_path)) == (1, {ANCHOR: False})
        assert f"dead: process {process.pid} is gone" in report.text()
    with bot(tmp_path, *FAST) as process:
        report = roll_back(tmp_path, "anchor")
        assert (report.exit_code, sources(tmp_path)) == (0, {"legacy_peak"})
        assert report.plan.bot.pid != process.pid
    assert len(past_rollbacks(tmp_path / "state")) == 1
