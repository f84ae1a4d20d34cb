"""Watching a bot from outside: whether it lives and what it last said, cheap enough to be asked twice a second."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from tradingbot import __version__
from tradingbot.io.state_files import lock_owner
from tradingbot.ops.checkup import Finding, Verdict

__all__ = ["SILENT_S", "Seen", "Standing", "Watch", "Watcher", "watch_findings"]

SCHEMA = 1  # of status.json
QUIET_S = 2.0  # without a new status until the lock is asked for: a status a second says that the bot lives
SILENT_S = 10.0  # without a new status until a bot that holds its lock counts as hanging


class Standing(StrEnum):
    """Say how a bot stands, as seen from outside."""

    NOTHING = "no bot"
    STARTING = "starting"
    RUNNING = "running"
    KILLED = "killed"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SILENT = "silent"
    DEAD = "dead"
    UNREADABLE = "unreadable"

    @property
    def lives(self) -> bool:
        """Say whether a bot is at work there."""
        return self in (Standing.STARTING, Standing.RUNNING, Standing.KILLED, Standing.DEGRADED, Standing.STOPPING)


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold one look at a bot: how it stands, in a sentence, its last status ({} where none can be read).

    `age_s` is how many real seconds ago the status was written; `note` is what is odd but no trouble.
    """

    standing: Standing
    says: str
    status: Mapping[str, Any]
    age_s: float = 0.0
    note: str = ""

    @property
    def sid(self) -> str:
        """Return which session spoke last, "" where none did."""
        return str(self.status["bot"]["sid"]) if self.status else ""


class Watcher:
    """Look at the bot of a state directory again and again; nothing is read that has not changed."""

    def __init__(self, state_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.state_dir, self._clock = state_dir, clock
        self._stamp: tuple[int, int, int] | None = None
        self._status: Mapping[str, Any] = {}
        self._lived = False  # when the lock was last asked for
        self._trouble = ""  # why there is no status
        self._written_s = clock()  # when the status was written, on our clock

    def look(self) -> Seen:
        """Return what is there now. Costs one stat where nothing has changed, and no error of a file is raised."""
        self._read()
        age_s = max(self._clock() - self._written_s, 0.0)
        if self._lived and self._status and age_s < QUIET_S and self._status["bot"]["state"] != Standing.STOPPING:
            return self._seen(True, age_s)
        self._lived = lock_owner(self.state_dir) is not None
        return self._seen(self._lived, age_s)

    def _read(self) -> None:
        path = self.state_dir / "status.json"
        try:
            facts = path.stat()
            stamp = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
            if stamp == self._stamp:
                return
            first, self._stamp = self._stamp is None, stamp
            status = json.loads(path.read_bytes())
        except FileNotFoundError:
            self._stamp, self._status, self._trouble = None, {}, "absent"
            return
        except (OSError, ValueError, RecursionError) as error:
            self._status, self._trouble = {}, f"status.json cannot be read: {getattr(error, 'strerror', None) or error}"
            return
        self._status, self._trouble = _checked(status)
        # what was there before we came may be old; after that our own clock tells, whatever the machine's is set to
        self._written_s = self._clock() - (max(time.time() - facts.st_mtime, 0.0) if first else 0.0)

    def _seen(self, lives: bool, age_s: float) -> Seen:
        folder, status = self.state_dir, self._status
        if not status:
            if self._trouble != "absent":
                return Seen(Standing.UNREADABLE, f"{self._trouble} ({folder})", {}, age_s)
            if lives:
                return Seen(Standing.STARTING, f"a bot has begun in {folder} and has said nothing yet", {})
            if not folder.is_dir():
                return Seen(Standing.NOTHING, f"there is no state directory {folder}: no bot has run there", {})
            return Seen(Standing.NOTHING, f"no bot has run in {folder}: there is no status.json", {})
        bot = status["bot"]
        who, when = f"process {bot['pid']}", _utc(status["time_ms"])
        when += "" if bot.get("speed", 1) == 1 else " by its exchange's clock"
        version = str(bot.get("version"))
        note = "" if version == __version__ else f"the bot is of version {version}, this notebook of {__version__}"
        if lives and age_s > SILENT_S:
            says = f"the bot ({who}) lives but has said nothing for {_span(age_s)}: it hangs, or its disk is full"
            return Seen(Standing.SILENT, says, status, age_s, note)
        if lives:
            standing = Standing(bot["state"]) if bot["state"] in _LIVE else Standing.RUNNING
            says = {
                Standing.STARTING: f"the bot ({who}) is starting",
                Standing.KILLED: f"the kill switch is on: the bot ({who}) opens no position, exits go on",
                Standing.STOPPING: f"the bot ({who}) is stopping",
                Standing.DEGRADED: f"the bot ({who}) runs degraded, and opens no position",
            }.get(standing, f"the bot ({who}) is running")
            return Seen(standing, says, status, age_s, note)
        if bot["state"] == "stopping":
            says = f"no bot is running: it was stopped cleanly {_span(age_s)} ago, at {when}"
            return Seen(Standing.STOPPED, says, status, age_s, note)
        says = f"the bot is dead: {who} ended without a clean stop {_span(age_s)} ago, at {when}; start it again"
        return Seen(Standing.DEAD, says, status, age_s, note)


_LIVE = ("starting", "running", "killed", "degraded", "stopping")


def _checked(status: Any) -> tuple[Mapping[str, Any], str]:
    """Return a status, or why it is none."""
    if not isinstance(status, dict):
        return {}, "status.json is no status"
    if status.get("v") != SCHEMA:
        of = str(status.get("v"))[:20]
        return {}, f"status.json is of schema {of}, this version reads {SCHEMA}: watch it with the bot's own version"
    bot, time_ms = status.get("bot"), status.get("time_ms")
    if not isinstance(bot, dict) or not isinstance(time_ms, int) or not {"sid", "pid", "state"} <= set(bot):
        return {}, "status.json is damaged: it does not say which bot it is of"
    return status, ""


def _utc(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class Watch:
    """Hold what came of watching: the last look, the first one, how many statuses were seen, and what went on."""

    first: Seen
    last: Seen
    statuses: int
    sessions: int
    watched_s: float
    complaints: tuple[str, ...] = ()


def watch_findings(watch: Watch) -> Iterator[Finding]:
    """Yield whether the bot lived, moved, saw its market and recorded it, from what a watcher saw."""
    yield _bot_finding(watch)
    if not watch.last.status:
        return
    for name, check in (("data", _data_finding), ("recording", _streams_finding)):
        try:
            yield check(watch.last.status)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            yield Finding(name, Verdict.FAILED, f"status.json does not tell: {type(error).__name__} {error}")
    for complaint in watch.complaints:
        yield Finding("settings", Verdict.WARNING, complaint, fix="mend them: tradingbot config")


def _bot_finding(watch: Watch) -> Finding:
    seen = watch.last
    evidence = {"statuses": watch.statuses, "sessions": watch.sessions, "standing": seen.standing.value}
    finding = Finding("bot", Verdict.OK, seen.says, {**evidence, "watched_s": round(watch.watched_s, 1)})
    if seen.standing is Standing.STOPPED and watch.first.standing.lives:
        text = f"{seen.says}; it ran while it was watched"
        return replace(finding, verdict=Verdict.WARNING, says=text, fix="start it: tradingbot")
    fixes = {
        Standing.NOTHING: "start one: tradingbot; or name the home that it was started with: home, state",
        Standing.STARTING: "wait, and look into its log",
        Standing.SILENT: "look into its log and at the disk: tradingbot doctor; tradingbot restart",
        Standing.DEAD: "look at the end of its log, and start it: tradingbot",
        Standing.STOPPED: "start it: tradingbot",
        Standing.UNREADABLE: "tradingbot status --json; tradingbot fsck",
    }
    if seen.standing in fixes:
        return replace(finding, verdict=Verdict.FAILED, fix=fixes[seen.standing])
    if watch.statuses < 2 and watch.watched_s > SILENT_S:
        return replace(finding, verdict=Verdict.FAILED, says="the bot has told nothing new while it was watched")
    if seen.standing in (Standing.KILLED, Standing.DEGRADED):
        return replace(finding, verdict=Verdict.WARNING, fix="when it may buy again: tradingbot arm")
    if watch.sessions > 1:
        return replace(finding, verdict=Verdict.WARNING, says=f"{seen.says}; {watch.sessions - 1} restart(s) were seen")
    return replace(finding, says=f"{seen.says}; {seen.note}") if seen.note else finding


def _data_finding(status: Mapping[str, Any]) -> Finding:
    data, count = status["data"], len(status["symbols"])
    evidence = {name: data[name] for name in ("mode", "fresh", "stale", "ticks", "rejected")}
    says = f"{data['fresh']} of {count} symbols have fresh prices ({data['mode']}), {data['ticks']:,} ticks"
    if count and data["fresh"] == count:
        return Finding("data", Verdict.OK, says, evidence)
    verdict = Verdict.WARNING if data["fresh"] else Verdict.FAILED
    return Finding("data", verdict, says, evidence, "is it the exchange? tradingbot status; tradingbot doctor", "retry")


def _streams_finding(status: Mapping[str, Any]) -> Finding:
    states = {name: str(stream["state"]) for name, stream in status["streams"].items()}
    dropped = {name: stream["dropped"] for name, stream in status["streams"].items() if stream["dropped"]}
    bad = [name for name, state in states.items() if state not in ("ok", "off")]
    off = [name for name, state in states.items() if state == "off"]
    evidence = {"states": states, "dropped": dropped}
    if bad or dropped:
        names = ", ".join(bad or dropped)
        says = f"{'not all is recorded of' if dropped else 'cannot be written:'} {names}"
        return Finding("recording", Verdict.WARNING, says, evidence, "look at the disk: tradingbot fsck", "persistence")
    if off:
        return Finding("recording", Verdict.NOT_APPLICABLE, f"switched off: {', '.join(off)}", evidence)
    return Finding("recording", Verdict.OK, f"{len(states)} streams are recorded, nothing was dropped", evidence)
