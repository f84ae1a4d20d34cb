"""The real bot, killed again and again while the market crashes, against an exchange in a process of its own."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lives import decisions_on_disk, replay_unbroken
from tests.test_live import bot, call, command, status_of, wait_for
from tradingbot.io.jsonl_read import Found, read_jsonl
from tradingbot.io.saved import CHECKPOINT
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
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


def is_recorded(home: Path) -> bool:
    """Return whether the running session has a beginning on the disk."""
    sid = status_of(home)["bot"]["sid"]
    return any(found.record["sid"] == sid for found in journal(home / "state"))


def recorded_symbols(state: Path) -> set[str]:
    """Return the symbols that ticks on the disk are of."""
    ticks = read_jsonl(segment.path for segment in list_segments(state / FOLDERS[Stream.TICKS]))
    return {found.record["symbol"] for found in ticks if "last" in found.record}


def goes_on(state: Path) -> bool:
    """Return whether more was decided than at starts alone, however long that takes here."""
    return sum("restart" not in reasons for reasons in decisions_on_disk(state).values()) > 5


def lived(home: Path, *words: str, until: Callable[[], object]) -> str:
    """Run a bot until something holds, stop it, and return what it logged."""
    with bot(home, *words) as process:
        wait_for(until, process, seconds=120)
        process.terminate()
        assert process.wait(120) == 0
    return (home / "stderr").read_text()


def holds_position(home: Path) -> bool:
    """Return whether every symbol has a price, and something was bought."""
    status = status_of(home)
    return bool(status["positions"]) and all(row["last"] is not None for row in status["symbols"])


def test_killed_again_and_again_it_decides_as_one_that_was_never_killed(tmp_path: Path) -> None:
    """Windows, anchors, triggers: at every start as in one engine that saw all that was recorded; nothing twice."""
    rng = random.Random(KILLS)
    state = tmp_path / "state"
    with exchange(tmp_path / "exchange", "--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=6") as url:
        words = (*LIVELY, "--set", f"EMBEDDED_URL={url}", "--set", "EMBEDDED_SPEED=60")
        for _ in range(KILLS):
            with bot(tmp_path, *words) as process:
                wait_for(lambda: is_recorded(tmp_path), process, seconds=120)
                time.sleep(rng.uniform(0, 1.5))
                process.kill()
                process.wait()
            log = (tmp_path / "stderr").read_text()
            assert "WARMSTART - symbols=" in log
        symbols = recorded_symbols(state)
        log = lived(tmp_path, *words, until=lambda: goes_on(state))
        warm = rf"WARMSTART - symbols={len(symbols)} ticks=\d+ kind=warm source=checkpoint"
        assert re.search(warm, log), log
        assert len(recorded_symbols(state)) == 6
    decisions, blocked = replay_unbroken(state)
    assert decisions == len(decisions_on_disk(state))
    assert decisions - blocked > 5
    proof = prove(state)
    assert proof.exit_code == 0, proof.text()
    assert len(proof.sessions) == KILLS + 1


def test_a_restart_keeps_positions_and_says_what_it_did(tmp_path: Path) -> None:
    """Stopped and started: status.json and the log tell where the start came from; nothing was bought twice."""
    words = (*LIVELY, "--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=6")
    first = lived(tmp_path, *words, until=lambda: holds_position(tmp_path))
    before = status_of(tmp_path)
    assert "kind=cold" in first
    assert before["warm_start"]["kind"] == "cold"
    ticks = len(recorded_symbols(tmp_path / "state"))
    again = lived(tmp_path, *words, until=lambda: status_of(tmp_path)["decisions"])
    after = status_of(tmp_path)
    assert after["warm_start"]["kind"] == "warm", again
    assert after["warm_start"]["symbols"] == ticks == 6
    assert after["warm_start"]["ms"].keys() >= {"checkpoint", "ticks", "catch_up"}
    assert f"positions={len(before['positions'])} orders=" in again
    assert replay_unbroken(tmp_path / "state")[0] == len(decisions_on_disk(tmp_path / "state"))


def test_with_the_flag_off_a_start_is_cold_and_does_not_name_the_feature(tmp_path: Path) -> None:
    """Whoever greps for WARMSTART after a rollback finds nothing; positions are there all the same."""
    words = (*LIVELY, "--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=6")
    lived(tmp_path, *words, until=lambda: holds_position(tmp_path))
    held = {row["decision_id"] for row in status_of(tmp_path)["positions"]}
    off = ("--set", "FEATURE_WARMSTART_TICKS=false")
    log = lived(tmp_path, *words, *off, until=lambda: status_of(tmp_path)["data"]["ticks"] > 100)
    assert "WARMSTART" not in log
    assert f"cold start: symbols=0 ticks=0 kind=cold source=nothing caught_up=0 blocked=0 positions={len(held)} " in log
    assert held <= decisions_on_disk(tmp_path / "state").keys()
    assert status_of(tmp_path)["warm_start"]["kind"] == "cold"
    kept = {row["decision_id"] for row in status_of(tmp_path)["positions"]}
    assert held - kept <= set(re.findall(r" EXIT symbol=.* id=(\S+)", log))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_damaged_checkpoint_is_named_and_the_bot_runs(tmp_path: Path, number: int) -> None:
    """The bad file is kept aside, the ticks build what they can, and what was bought is there."""
    words = (*LIVELY, "--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=3")
    path = tmp_path / "state" / CHECKPOINT
    with bot(tmp_path, *words) as process:
        wait_for(lambda: path.exists() and recorded_symbols(tmp_path / "state"), process, seconds=120)
        process.send_signal(number)
        process.wait(120)
    sides = [found.record["side"] for found in journal(tmp_path / "state") if found.record["type"] == "fill"]
    path.write_bytes(path.read_bytes()[:-30])
    done = call(tmp_path, *words, "--duration", "1")
    assert done.returncode == 0, done.stderr
    assert "checkpoint.json is damaged" in done.stderr
    assert "kind=warm source=ticks" in done.stderr
    assert (path.parent / "checkpoint.json.bad-1").exists()
    assert f"positions={sides.count('buy') - sides.count('sell')} " in done.stderr
