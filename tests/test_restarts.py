"""The real bot, killed again and again while the market crashes, against an exchange in a process of its own."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lives import decisions_on_disk, replay_unbroken
from tests.test_live import bot, call, command, status_of, wait_for
from tradingbot.io.jsonl_read import Found, read_jsonl
from tradingbot.io.saved import CHECKPOINT
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, JOURNAL
from tradingbot.ops.record.prove import prove

pytestmark = pytest.mark.feature("FEATURE_WARMSTART_TICKS")

KILLS = int(os.environ.get("TRADINGBOT_TEST_KILLS", "3"))  # twenty in the crash test
LIVELY = ("--set", "DROP_TRIGGER_VALUE=0.997", "--set", "GLOBAL_TRADING=true", "--set", "ENTRY_BURST_MAX=50")


def journal(state: Path) -> Iterator[Found]:
    return read_jsonl(segment.path for segment in list_segments(state / FOLDERS[JOURNAL]))


@contextmanager
def exchange(home: Path, *words: str) -> Iterator[str]:
    """Run the embedded exchange in its own process; give its address."""
    with subprocess.Popen(command(home, "exchange", *words), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = re.match(r"READY (\S+)", process.stdout.readline())
            assert ready is not None
            yield ready[1]
        finally:
            process.kill()


def goes_on(state: Path) -> bool:
    """Return whether more was decided than at starts alone, however long that takes here."""
    return sum("restart" not in reasons for reasons in decisions_on_disk(state).values()) > 5


def test_killed_again_and_again_it_decides_as_one_that_was_never_killed(tmp_path: Path) -> None:
    """Windows, anchors, triggers: at every start as in one engine that saw all that was recorded; nothing twice."""
    rng = random.Random(KILLS)
    state = tmp_path / "state"
    with exchange(tmp_path / "exchange", "--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=6") as url:
        words = (*LIVELY, "--set", f"EMBEDDED_URL={url}", "--set", "EMBEDDED_SPEED=60")
        for _ in range(KILLS):
            with bot(tmp_path, *words) as process:
                time.sleep(rng.uniform(0, 1.5))
                process.kill()
                process.wait()
            log = (tmp_path / "stderr").read_text()
            assert "WARMSTART - symbols=" in log
        with bot(tmp_path, *words) as process:
            wait_for(lambda: goes_on(state), process, seconds=120)
            process.terminate()
            assert process.wait(20) == 0
        log = (tmp_path / "stderr").read_text()
        assert re.search(r"WARMSTART - symbols=6 ticks=\d+ kind=warm source=checkpoint", log), log
    decisions, blocked = replay_unbroken(state)
    assert decisions == len(decisions_on_disk(state))
    assert decisions - blocked > 5
    proof = prove(state)
    assert proof.exit_code == 0, proof.text()
    assert len(proof.sessions) == KILLS + 1


def test_a_restart_keeps_positions_and_says_what_it_did(tmp_path: Path) -> None:
    """Stopped and started: status.json and the log tell where the start came from; nothing was bought twice."""
    words = (*LIVELY, "--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=6", "--duration", "6")
    first = call(tmp_path, *words)
    before = status_of(tmp_path)
    assert "kind=cold" in first.stderr
    assert before["warm_start"]["kind"] == "cold"
    again = call(tmp_path, *words[:-1], "4")
    after = status_of(tmp_path)
    assert after["warm_start"]["kind"] == "warm", again.stderr
    assert after["warm_start"]["symbols"] == 6
    assert after["warm_start"]["ms"].keys() >= {"checkpoint", "ticks", "catch_up"}
    assert f"positions={len(before['positions'])} orders=" in again.stderr
    assert replay_unbroken(tmp_path / "state")[0] == len(decisions_on_disk(tmp_path / "state"))


def test_with_the_flag_off_a_start_is_cold_and_does_not_name_the_feature(tmp_path: Path) -> None:
    """Whoever greps for WARMSTART after a rollback finds nothing; positions are there all the same."""
    words = (*LIVELY, "--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=6")
    call(tmp_path, *words, "--duration", "5")
    held = {row["decision_id"] for row in status_of(tmp_path)["positions"]}
    done = call(tmp_path, *words, "--set", "FEATURE_WARMSTART_TICKS=false", "--duration", "4")
    assert "WARMSTART" not in done.stderr
    assert "cold start: symbols=0" in done.stderr
    entries = decisions_on_disk(tmp_path / "state").keys()
    assert held <= entries
    sold = {row["decision_id"] for row in status_of(tmp_path)["positions"]}
    assert status_of(tmp_path)["warm_start"]["kind"] == "cold"
    assert held & sold or not held or "EXIT" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_damaged_checkpoint_is_named_and_the_bot_runs(tmp_path: Path, number: int) -> None:
    """The bad file is kept aside, the ticks build what they can, and what was bought is there."""
    words = (*LIVELY, "--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=3")
    with bot(tmp_path, *words) as process:
        time.sleep(1)
        process.send_signal(number)
        process.wait(20)
    path = tmp_path / "state" / CHECKPOINT
    sides = [found.record["side"] for found in journal(tmp_path / "state") if found.record["type"] == "fill"]
    path.write_bytes(path.read_bytes()[:-30])
    done = call(tmp_path, *words, "--duration", "1")
    assert done.returncode == 0, done.stderr
    assert "checkpoint.json is damaged" in done.stderr
    assert "kind=warm source=ticks" in done.stderr
    assert (path.parent / "checkpoint.json.bad-1").exists()
    assert f"positions={sides.count('buy') - sides.count('sell')} " in done.stderr
