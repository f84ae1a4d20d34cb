"""`tradingbot restart`: the bot begins anew in its own process, as it was started, and goes on where it was."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.helpers import LIMIT_S
from tests.test_live import bot, call, command, is_watching, status_of, wait_for
from tradingbot.commands import running
from tradingbot.engine.events import AnchorReset
from tradingbot.io.home import Home
from tradingbot.io.overrides import read_settings
from tradingbot.io.requests import BadRequest, RequestFolder, ResetAnchors, Restart, put_request
from tradingbot.io.state_files import StateLock
from tradingbot.ops.record.prove import prove
from tradingbot.ops.rollback.restart import find_bot
from tradingbot.services.operator import OperatorRequests
from tradingbot.services.session import Session

ASKED: Any = {"who": "me", "host": "here", "time_ms": 5, "why": "so"}
YES = ("--why", "test", "--yes")


def test_the_process_stays_and_a_warm_session_with_the_same_arguments_follows(tmp_path: Path) -> None:
    """Same pid, later session, same settings by --set and environment, positions kept; the record is one story."""
    words = ("--set", "EMBEDDED_SPEED=60", "--set", "EMBEDDED_SYMBOLS=3", "--set", "GLOBAL_TRADING=true",
             "--set", "DROP_TRIGGER_VALUE=0.998", "--set", "TAKE_PROFIT_THRESHOLD=1.5",
             "--set", "STOP_LOSS_THRESHOLD=0.5", "--set", "TRADE_TTL_MIN=9999")  # fmt: skip
    with bot(tmp_path, *words) as process:
        wait_for(lambda: status_of(tmp_path)["positions"], process)
        for _ in range(2):
            before = status_of(tmp_path)
            done = call(tmp_path, "restart", *YES, "--json")
            assert done.returncode == 0, done.stderr
            told, after = orjson.loads(done.stdout)["restarted"], status_of(tmp_path)
            assert told["new_sid"] == after["bot"]["sid"] > before["bot"]["sid"] == told["old_sid"]
            assert after["bot"]["pid"] == before["bot"]["pid"] == process.pid
            assert (told["start"], after["warm_start"]["kind"]) == ("warm", "warm")
            assert after["settings_fingerprint"] == before["settings_fingerprint"]
            held = {position["decision_id"] for position in before["positions"]}
            assert held <= {position["decision_id"] for position in after["positions"]}
            assert list((tmp_path / "state" / "requests").iterdir()) == []
        assert call(tmp_path, "stop").returncode == 0
        assert process.wait(LIMIT_S) == 0
    assert len(prove(tmp_path / "state").sessions) == 3
    assert prove(tmp_path / "state").exit_code == 0
    audit = [orjson.loads(line)["what"] for line in (tmp_path / "state" / "audit.jsonl").read_bytes().splitlines()]
    assert audit == ["restart", "restart", "stop"]


def runs_anew(home: Path, seconds: int) -> bool:
    """Return whether a bot of so many seconds was restarted within them, and then ended by itself with exit 0."""
    home.mkdir()
    words = ("--set", "EMBEDDED_SPEED=20", "--set", "EMBEDDED_SYMBOLS=2", "--duration", str(seconds))
    with (home / "stderr").open("w") as log, subprocess.Popen(command(home, *words), stderr=log, text=True) as process:
        try:
            while process.poll() is None and not is_watching(home, process.pid):
                time.sleep(0.05)
            return call(home, "restart", *YES).returncode == 0 and process.wait(seconds + LIMIT_S) == 0
        finally:
            process.kill()


def test_the_duration_runs_anew(tmp_path: Path) -> None:
    """A bot of so many seconds has as many after a restart, then it ends by itself with exit 0."""
    tried = (6, 40, 100)  # a machine that is busy takes longer to start a bot, to ask it, and to start it again
    seconds = next((seconds for seconds in tried if runs_anew(tmp_path / str(seconds), seconds)), None)
    assert seconds is not None
    assert status_of(tmp_path / str(seconds))["bot"]["uptime_s"] >= seconds - 0.1
    assert status_of(tmp_path / str(seconds))["bot"]["state"] == "stopping"


def test_without_a_bot_it_is_exit_3_and_nothing_waits_for_the_next(tmp_path: Path) -> None:
    """Or a later start would restart at once."""
    done = call(tmp_path, "restart", *YES)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "no bot is running" in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_bot_that_hears_nothing_is_told_of_and_the_request_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not restart an hour later, when nobody expects it any more."""
    from tradingbot.ops.rollback import restart

    monkeypatch.setattr(restart, "START_S", 0.2)
    with StateLock(tmp_path, 5):
        status = {"bot": {"sid": "1", "pid": os.getpid(), "started_ms": 5, "state": "running"}}
        (tmp_path / "status.json").write_bytes(orjson.dumps(status))
        done = restart.restart(tmp_path, restart.running_bot(tmp_path), "test", 0.1)
    assert "has not taken the request, which is withdrawn" in done.trouble
    assert list((tmp_path / "requests").iterdir()) == []


def test_a_plan_alone_restarts_nothing(tmp_path: Path) -> None:
    """Without a terminal and without --yes: exit 2, and no request."""
    (tmp_path / "state").mkdir()
    with StateLock(tmp_path / "state", 5):
        status = {"bot": {"sid": "1", "pid": 7, "started_ms": 5, "state": "running"}}
        (tmp_path / "state" / "status.json").write_bytes(orjson.dumps(status))
        done = call(tmp_path, "restart")
        assert (done.returncode, "session 1" in done.stdout) == (2, True), done.stderr
        assert not (tmp_path / "state" / "requests").exists()


def test_a_restart_is_for_the_session_that_it_names(tmp_path: Path) -> None:
    """One that comes too late, or that a power loss brought back, goes without an effect."""
    asked: list[int] = []
    requests = OperatorRequests(tmp_path, lambda: asked.append(1))
    for sid in ("1", "2"):
        put_request(tmp_path, Restart(**ASKED, sid=sid))
    requests.look([], lambda _: None, "2")
    assert (len(asked), list((tmp_path / "requests").iterdir())) == (1, [])


def test_a_restart_that_cannot_be_removed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be found again by the session that it begins."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = put_request(tmp_path, Restart(**ASKED, sid="1"))
    monkeypatch.setattr(Path, "unlink", refuse)
    seen: list[Any] = []
    RequestFolder(tmp_path).take(seen.append, "1")
    assert [isinstance(request, BadRequest) for request in seen] == [True]
    assert not path.exists()


def test_a_request_for_the_next_session_waits_for_it(tmp_path: Path) -> None:
    """An anchor that is to begin anew after a restart is left alone before it."""
    taken: list[Any] = []
    put_request(tmp_path, ResetAnchors(**ASKED, symbols=("A",), after="1"))
    OperatorRequests(tmp_path).look(["A"], taken.append, "1")
    assert taken == []
    OperatorRequests(tmp_path).look(["A"], taken.append, "2")
    assert taken == [AnchorReset("A")]


def test_who_is_told_to_stop_does_not_restart(tmp_path: Path) -> None:
    """A signal that comes while the session ends for a restart counts: the process ends."""
    session = Session(read_settings(Home(tmp_path, "test"), environ={}))
    session._restart()
    assert session.is_to_restart
    session._be_stopped()
    assert not session.is_to_restart


def test_a_process_that_cannot_be_replaced_says_so_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the error; the bot is down, and its supervisor sees it."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(logging.getLogger("tradingbot"), "propagate", True)
    assert running._begin_again() == 1
    assert "restart failed, the bot has ended" in caplog.text


def test_a_bot_is_running_stopped_dead_or_none(tmp_path: Path) -> None:
    """Dead: status.json says that one runs, and nobody holds the lock."""
    assert find_bot(tmp_path).state == "none"
    facts = {"sid": "1", "pid": 7, "started_ms": 5}
    for state, seen in (("stopping", "stopped"), ("running", "dead")):
        (tmp_path / "status.json").write_bytes(orjson.dumps({"bot": facts | {"state": state}}))
        found = find_bot(tmp_path)
        assert (found.state, found.pid, found.is_running) == (seen, 7, False)
        assert found.seen_ms is not None
    (tmp_path / "status.json").write_bytes(orjson.dumps({"bot": {"pid": "x", "sid": None}}))
    assert (find_bot(tmp_path).state, find_bot(tmp_path).pid) == ("dead", 0)
    (tmp_path / "status.json").write_bytes(b"[]")
    assert find_bot(tmp_path).state == "none"
