"""Small ways to roll back, to undo, and to change the same overrides as somebody else would."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tests.test_live import call
from tradingbot.config import FLAGS
from tradingbot.io.home import Home
from tradingbot.io.override_file import change_overrides, read_entries
from tradingbot.io.overrides import Effective, read_settings
from tradingbot.io.state_files import StateLock
from tradingbot.ops.rollback.plan import Plan
from tradingbot.ops.rollback.rollback import Report, execute, plan_rollback, plan_undo
from tradingbot.ops.rollback.store import Stored

YES = ("--why", "drill", "--yes", "--json")


ANCHOR, PERSIST, WARM = "FEATURE_ANCHOR_ENABLED", "FEATURE_PERSIST_STREAMS", "FEATURE_WARMSTART_TICKS"


def run(home: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """Run a rollback over the real command; return its report."""
    done = call(home, "rollback", *words, *YES)
    assert done.returncode == code, done.stdout + done.stderr
    report: dict[str, Any] = orjson.loads(done.stdout)["report"]
    return report


def settings(home: Path) -> Effective:
    return read_settings(Home(home, "test"), environ={})


def overrides(home: Path) -> dict[str, Any]:
    return {key: entry.value for key, entry in read_entries(home / "state").items()}


def by_hand(home: Path, **changes: Any) -> None:
    """Override settings as somebody else would."""
    change_overrides(home / "state", changes, "by hand", lambda _: None)


def roll_back(home: Path, profile: str = "all", **options: bool) -> Report:
    return carry_out(home, plan_rollback(settings(home), profile, "drill", **options))


def undo(home: Path, rollback_id: str = "") -> Report:
    return carry_out(home, plan_undo(settings(home), rollback_id, "was the feed"))


def carry_out(home: Path, found: Stored | Plan) -> Report:
    return execute(settings(home), found if isinstance(found, Plan) else found.plan)


@contextlib.contextmanager
def holding(home: Path, **facts: Any) -> Iterator[None]:
    """Hold the lock as a bot does that looks at nothing."""
    state = home / "state"
    state.mkdir(exist_ok=True)
    with StateLock(state, 5):
        dead(home, started_ms=5, **facts)
        yield


def dead(home: Path, **facts: Any) -> None:
    """Leave the status of a bot that runs, where none does."""
    bot = {"sid": "1", "pid": 99, "state": "running", "started_ms": 1} | facts
    (home / "state").mkdir(exist_ok=True)
    status = {"v": 1, "bot": bot, "time_ms": 5, "flags": dict.fromkeys(FLAGS, True), "overrides": [], "symbols": []}
    (home / "state" / "status.json").write_bytes(orjson.dumps(status))
