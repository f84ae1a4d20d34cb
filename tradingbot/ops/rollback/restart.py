"""Restarting: a running bot is found, asked to begin anew in its own process, and seen to run again."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from tradingbot.io.audit import append_audit
from tradingbot.io.requests import Restart, put_request, signature
from tradingbot.io.state_files import lock_owner
from tradingbot.ops.control import NoBotError

__all__ = ["BotFacts", "Restarted", "find_bot", "restart", "running_bot", "status_of"]

START_S = 60.0  # in which a new session is given up, beside the time that a clean stop may take
SAID_S = 5.0  # in which a bot that holds the lock has told who it is
UP = ("running", "killed", "degraded")


@dataclass(frozen=True, slots=True)
class BotFacts:
    """Hold what is known of the bot of a state directory.

    `state` is what status.json says where one runs, else `dead` (it says that one runs, and nobody holds the lock),
    `stopped`, or `none` where none has run; `seen_ms` is its last sign of life by the wall clock.
    """

    state: str
    sid: str = ""
    pid: int = 0
    seen_ms: int | None = None
    is_running: bool = False

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Restarted:
    """Hold what came of a restart: the session that ended and the one that runs, `trouble` where none does."""

    pid: int
    old_sid: str
    new_sid: str = ""
    start: str = ""  # warm or cold
    took_s: float = 0.0
    trouble: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def status_of(state_dir: Path) -> dict[str, Any]:
    """Return status.json, nothing where it cannot be read."""
    try:
        status = orjson.loads((state_dir / "status.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) and isinstance(status.get("bot"), dict) else {}


def find_bot(state_dir: Path) -> BotFacts:
    """Return what is known of the bot of a state directory, waiting a moment for one that has not told yet."""
    end_s = time.monotonic() + SAID_S
    while True:
        owner, status = lock_owner(state_dir), status_of(state_dir)
        told = status.get("bot", {})
        seen_ms = None
        with contextlib.suppress(OSError):
            seen_ms = int((state_dir / "status.json").stat().st_mtime * 1000)
        facts = (str(told.get("sid", "")), _pid(told), seen_ms)
        if owner is None:
            if not told:
                return BotFacts("none")
            return BotFacts("stopped" if told.get("state") == "stopping" else "dead", *facts)
        if told.get("started_ms") == owner.get("started_ms"):
            return BotFacts(str(told.get("state")), *facts, True)
        if time.monotonic() > end_s:
            return BotFacts("starting", "", _pid(owner), seen_ms, True)
        time.sleep(0.05)


def running_bot(state_dir: Path) -> BotFacts:
    """Return the bot that runs on a state directory; raise NoBotError where none does, or it has not begun yet."""
    bot = find_bot(state_dir)
    if not bot.is_running:
        raise NoBotError(f"no bot is running on {state_dir}")
    if not bot.sid:
        raise NoBotError(f"the bot on {state_dir} has said nothing yet: try again in a second")
    return bot


def restart(state_dir: Path, bot: BotFacts, why: str, stop_timeout_s: float) -> Restarted:
    """Ask a bot to begin anew, and wait until another session of it runs.

    A request that the bot does not take in time is withdrawn. Raises OSError where nothing can be asked.
    """
    append_audit(state_dir, "restart", why, sid=bot.sid)
    request = put_request(state_dir, Restart(**signature(why), sid=bot.sid))
    began_s = time.monotonic()
    while time.monotonic() < began_s + stop_timeout_s + START_S:
        if lock_owner(state_dir) is not None:
            status = status_of(state_dir)
            told = status.get("bot", {})
            if told.get("sid", "") > bot.sid and told.get("state") in UP:
                took_s = round(time.monotonic() - began_s, 1)
                start = str(status.get("warm_start", {}).get("kind", ""))
                return Restarted(int(told["pid"]), bot.sid, str(told["sid"]), start, took_s)
        elif not _is_alive(bot.pid):
            break
        time.sleep(0.05)
    return Restarted(bot.pid, bot.sid, trouble=_trouble(state_dir, request, bot))


def _trouble(state_dir: Path, request: Path, bot: BotFacts) -> str:
    with contextlib.suppress(FileNotFoundError):
        request.unlink()
        return f"the bot (process {bot.pid}) has not taken the request, which is withdrawn: look at its log"
    if lock_owner(state_dir) is None:
        return f"the bot (process {bot.pid}) has stopped and has not come back: look at its log, and start it"
    return f"the bot (process {bot.pid}) is not running again yet: look at its log"


def _pid(facts: Mapping[str, Any]) -> int:
    """Return a process's number, 0 where a file says none."""
    pid = facts.get("pid")
    return pid if isinstance(pid, int) else 0


def _is_alive(pid: int) -> bool:
    """Say whether a process of this machine is there; of one elsewhere nobody here can tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
