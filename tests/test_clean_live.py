"""`tradingbot clean` beside a running bot: the bot tells its journal and deletes; open segments are never touched."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.cleanups import SMALL, YES, archives, data, recorded, sealed, settings
from tests.test_live import bot, call, status_of, wait_for
from tradingbot.io.jsonl import read_jsonl
from tradingbot.io.requests import DeleteTicks, put_request, signature
from tradingbot.io.segments import list_segments
from tradingbot.ops.cleanup import ticks as cleanup_ticks
from tradingbot.ops.cleanup.archives import contents_of
from tradingbot.ops.cleanup.cleanup import Plan, execute, plan_clean
from tradingbot.ops.record.prove import prove

TICKS = "state/drop_windows/ticks"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the home of a bot that goes on from a session that ended, in small segments, an hour a minute."""
    home = tmp_path_factory.mktemp("home")
    recorded(home)
    with bot(home, "--set", "EMBEDDED_SPEED=60", *SMALL) as process:
        sid = status_of(home)["bot"]["sid"]

        def has_sealed() -> bool:
            return any(sid in path.read_text() for path in (home / TICKS).glob("*.manifest.json"))

        wait_for(has_sealed, process)
        yield home
        assert process.poll() is None


def test_sealed_segments_go_and_come_back_while_the_bot_runs(running: Path) -> None:
    """Archived, told by the bot, deleted by the bot; prove says not recorded, exit 0; put back, nothing is absent."""
    before = {name: digest for name, digest in data(running).items() if not name.endswith(".tmp")}
    done = call(running, "clean", "ticks", "snapshots", "--archive", *YES, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = orjson.loads(done.stdout)
    assert document["plan"]["is_running"] is True
    assert document["report"]["left"] == {}
    (archive,) = archives(running)
    gone = {member.name: member.sha256 for member in contents_of(archive).members}
    left = data(running)
    assert len([name for name in gone if name.startswith(TICKS)]) > 4
    assert all(name.endswith((".zst", ".manifest.json")) for name in gone)
    assert not gone.keys() & left.keys()
    assert all(gone.get(name, digest) == digest for name, digest in before.items())
    there = gone.keys() | left.keys()
    assert [name for name in before if not {name, f"{name}.zst"} & there] == []  # some were sealed meanwhile
    told = [record for record in journal(running) if record["type"] == "deleted"]
    names = {name.rsplit("/")[-1] for name in gone if name.startswith(TICKS) and name.endswith(".zst")}
    assert {record["file"].removeprefix("ticks/") for record in told} == names
    proof = call(running, "prove")
    assert (proof.returncode, "segments deleted" in proof.stdout) == (0, True), proof.stdout
    assert "missing" not in proof.stdout
    assert call(running, "fsck").returncode == 0
    back = call(running, "clean", "--restore", str(archive), *YES)
    assert back.returncode == 0, back.stderr
    after = data(running)
    assert {name: after[name] for name in gone} == gone
    proof = call(running, "prove")
    assert (proof.returncode, "not recorded" in proof.stdout) == (0, False), proof.stdout
    assert call(running, "fsck").returncode == 0
    assert not list((running / "state" / "requests").glob("*"))


def journal(home: Path) -> list[dict[str, object]]:
    return [found.record for found in read_jsonl(one.path for one in list_segments(home / "state" / "journal"))]


def test_a_bot_deletes_neither_for_another_session_nor_what_is_open(running: Path) -> None:
    """A request that comes too late is dropped; names of open segments, of none, and of other folders do nothing."""
    before = sealed(running, "ticks")
    state, sid = running / "state", str(status_of(running)["bot"]["sid"])
    open_ = [path.name for path in (running / TICKS).glob("*.jsonl")]
    names = ["../../checkpoint.json", "none.jsonl.zst", "", *open_, *(f"{name}.zst" for name in open_)]
    asked = [
        put_request(state, DeleteTicks(**signature("x"), sid="20200101T000000.000", files=tuple(before))),
        put_request(state, DeleteTicks(**signature("x"), sid=sid, files=tuple(names))),
    ]
    ticks, end_s = status_of(running)["data"]["ticks"], time.monotonic() + 120

    def is_taken() -> bool:
        return not any(path.exists() for path in asked) and status_of(running)["data"]["ticks"] > ticks + 200

    while not is_taken():
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.05)
    assert sealed(running, "ticks") >= before
    assert (state / "checkpoint.json").exists()
    assert not list((state / "requests").glob("*.bad"))


def test_a_bot_that_does_not_heed_leaves_all_and_the_request_is_withdrawn(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is named, exit 1; nothing is deleted later, behind the operator's back; then it goes on."""
    for archive in archives(running):
        assert call(running, "clean", "--restore", str(archive), *YES).returncode == 0
    before, count = sealed(running, "ticks"), len(archives(running))
    monkeypatch.setattr(cleanup_ticks, "HEED_S", 0.0)
    plan = plan_clean(settings(running), ["ticks"], "drill", archive=True)
    assert isinstance(plan, Plan)
    pid = int(status_of(running)["bot"]["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        report = execute(settings(running), plan)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert report.exit_code == 1
    assert "the running bot has not deleted it" in next(iter(report.left.values()))
    assert not list((running / "state" / "requests").glob("*.json"))
    assert sealed(running, "ticks") >= before
    monkeypatch.undo()
    done = call(running, "clean", "ticks", "--archive", *YES)
    assert done.returncode == 0, done.stderr
    assert len(archives(running)) == count + 1
    assert before - sealed(running, "ticks")
    assert prove(running / "state").exit_code == 0


def test_afterwards_it_stops_starts_warm_and_is_proved(running: Path) -> None:
    """The state directory of a bot whose past was archived is as good as any."""
    assert call(running, "restart", *YES).returncode == 0
    assert status_of(running)["warm_start"]["kind"] == "warm"
    assert prove(running / "state").exit_code == 0
