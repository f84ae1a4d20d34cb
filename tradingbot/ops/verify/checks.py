"""The checklist: what a bot that runs is held to, from outside; each check is one function that gives one finding."""

from __future__ import annotations

import shutil
import time
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from tradingbot.config import FLAGS, Settings, registry
from tradingbot.errors import SettingsError
from tradingbot.io.lines import Damaged, decode
from tradingbot.io.override_file import read_entries
from tradingbot.io.streams import FOLDERS, Stream
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.control import HEARD_S
from tradingbot.ops.rollback.plan import Profile, left_behind
from tradingbot.ops.rollback.store import past_rollbacks
from tradingbot.ops.verify.scene import FOUR, Look, Scene
from tradingbot.services.logs import KEPT_FILES

__all__ = [
    "DATA", "FLAGS_AS_INTENDED", "GROWTH", "LEFT_BEHIND", "SETTINGS_BACKED_UP", "flags_as_intended", "freshness",
    "growth", "intended", "is_fresh", "market_data_alive", "polls_rarely", "settings_backed_up", "what_is_left",
]  # fmt: skip

SETTINGS_BACKED_UP = "settings backed up"
FLAGS_AS_INTENDED = "flags as intended"
DATA = "market data alive"
LEFT_BEHIND = "data left behind"
GROWTH = "growth within budget"

WATCHED_S = 2.0  # between two looks, at least
STATUS_S = 5.0  # between two statuses, at most, of a bot that is well
PATIENCE_S = 12.0
SHARE = 0.95
NAMED = 5
LOOSE = 1.05  # retention looks once a minute
CLEAN = "tradingbot clean ticks snapshots windows anchors --archive"


def settings_backed_up(scene: Scene) -> Finding:
    """See that the copies which the last rollback made are there, whole and readable."""
    rollbacks = [stored for stored in past_rollbacks(scene.state_dir) if stored.plan.kind == "rollback"]
    if not rollbacks:
        says = "nothing has been rolled back here: a rollback copies settings, overrides, stamp, checkpoint and anchors"
        return Finding(SETTINGS_BACKED_UP, Verdict.NOT_APPLICABLE, says)
    last = rollbacks[-1]
    evidence: dict[str, Any] = {"rollback": last.plan.id, "profile": last.plan.profile, "state": last.state}
    again = f"tradingbot rollback {last.plan.profile} --yes --why ... goes on with it"
    if "backup" not in last.done:
        says = f"rollback {last.plan.id} ({last.plan.profile}) is {last.state}: nothing is copied yet"
        return Finding(SETTINGS_BACKED_UP, Verdict.FAILED, says, evidence, again)
    folder = last.folder / "backup"
    names = [str(name) for name in last.done["backup"].get("files", ())]
    bad = {name: why for name in names if (why := _unreadable(folder / name))}
    evidence |= {"folder": str(folder), "files": names, "bad": bad}
    if bad:
        named = "; ".join(f"{name}: {why}" for name, why in list(bad.items())[:NAMED])
        fix = f"look into {folder}: without it tradingbot rollback --undo still gives the overrides back (plan.json)"
        return Finding(SETTINGS_BACKED_UP, Verdict.FAILED, f"the copies are not whole: {named}", evidence, fix)
    says = f"{len(names)} files copied by rollback {last.plan.id} ({last.plan.profile}), all readable"
    if last.state == "half done":
        return Finding(SETTINGS_BACKED_UP, Verdict.FAILED, f"{says}, but that rollback is half done", evidence, again)
    return Finding(SETTINGS_BACKED_UP, Verdict.OK, says, evidence)


def _unreadable(path: Path) -> str:
    """Return what is wrong with a copy, "" where nothing is."""
    try:
        text = path.read_bytes()
        if path.suffix == ".toml":
            tomllib.loads(text.decode("utf-8-sig"))
        elif path.suffix == ".json":
            document = orjson.loads(text)
            if isinstance(document, dict) and "crc" in document:
                decode(text.strip())
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, Damaged):
        return "is damaged"
    return ""


def intended(scene: Scene, name: str) -> tuple[Any, str]:
    """Return the value that a setting is to have in the running bot, and where that is said.

    What the bot was started with (`--set`, its environment) is in no file: its journal holds it.
    """
    effective = scene.effective
    value, source = getattr(effective.settings, name), effective.sources.get(name, "default")
    at_start, began = scene.start.get("settings", {}), scene.start.get("sources", {}).get(name, "")
    if name in at_start and began in ("--set", "environment") and source not in ("overrides.json", "--set"):
        own = at_start[name]
        if name == "GLOBAL_TRADING" and source != "default" and value is False:
            return value, source  # off in any layer is off
        return own, f"{began} of its start"
    if name == "GLOBAL_TRADING" and began in ("--set", "environment") and at_start.get(name) is False:
        return False, f"{began} of its start"
    return value, source


def _found(look: Look, name: str) -> Any:
    return look.is_trading if name == "GLOBAL_TRADING" else look.status.get("flags", {}).get(name)


def flags_as_intended(scene: Scene) -> Finding:
    """See that the running bot goes by the flags and overrides that are on the disk."""
    names = (*FLAGS, "GLOBAL_TRADING")
    wanted = {name: intended(scene, name) for name in names}
    try:
        entries = read_entries(scene.state_dir)
    except SettingsError as error:
        return Finding(FLAGS_AS_INTENDED, Verdict.FAILED, str(error), {}, "tradingbot rollback PROFILE writes it anew")
    off = [name for name in FLAGS if not wanted[name][0]]
    words = "all off" if len(off) == len(FLAGS) else f"off: {', '.join(off)}" if off else "all on"
    evidence: dict[str, Any] = {
        "intended": {name: {"value": value, "source": where} for name, (value, where) in wanted.items()}
    }
    if not scene.bot.is_running:
        says = f"on the disk {words}; no bot runs that could go by them"
        return Finding(FLAGS_AS_INTENDED, Verdict.NOT_APPLICABLE, says, evidence)

    def differing(look: Look) -> list[str]:
        told = {row["key"]: row["value"] for row in look.status.get("overrides", ())}
        others = {key for key in told.keys() | entries.keys() if key not in names}
        unlike = [
            key for key in sorted(others) if told.get(key) != (_plain(entries[key].value) if key in entries else None)
        ]
        return [name for name in names if _found(look, name) is not wanted[name][0]] + unlike

    def live(keys: Iterable[str]) -> list[str]:
        return [key for key in keys if not registry()[key].restart]

    look = scene.until(lambda look: bool(look.status) and not live(differing(look)), HEARD_S)
    scene.read_settings()
    differ = differing(look)
    evidence["running"] = {name: _found(look, name) for name in names}
    evidence["overrides"] = {key: _plain(entry.value) for key, entry in entries.items()}
    own = scene.settings if scene.start else None
    later = [key for key, entry in entries.items() if own is not None and getattr(own, key, entry.value) != entry.value]
    wrong = live(differ)
    waiting = [key for key in dict.fromkeys([*differ, *later]) if registry()[key].restart]
    if wrong and not scene.start and look.is_held_back:
        says = f"on the disk {words}; it has not begun yet, and what it was started with is in no file"
        return Finding(
            FLAGS_AS_INTENDED, Verdict.WARNING, says, evidence, "verify again once the exchange lets it begin"
        )
    if wrong:
        parts = [
            f"{key} is {_word(wanted[key][0])} by {wanted[key][1]} and {_word(_found(look, key))} in the running bot"
            if key in wanted else f"the override of {key} is not the one that the running bot goes by"
            for key in wrong[:NAMED]
        ]  # fmt: skip
        fix = "look at its log: it may refuse the settings, or hang"
        fix += '\ntradingbot restart --yes --why "settings not taken up"'
        return Finding(FLAGS_AS_INTENDED, Verdict.FAILED, "; ".join(parts), evidence, fix)
    if waiting:
        says = f"{words}; {', '.join(waiting)} not in the running bot before its next start"
        fix = 'tradingbot restart --yes --why "flags that take a restart"'
        return Finding(FLAGS_AS_INTENDED, Verdict.WARNING, says, evidence, fix)
    trading = "trading on" if wanted["GLOBAL_TRADING"][0] else "observing"
    says = f"{words}, {trading}; the same on the disk and in the running bot"
    return Finding(FLAGS_AS_INTENDED, Verdict.OK, says, evidence)


def _word(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, "unknown")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _now_ms() -> int:
    return int(time.time() * 1000)


def freshness(look: Look, settings: Settings) -> tuple[int, int, float]:
    """Return how many symbols are fresh, of how many, and the age (s) up to which one is.

    That is WATCHDOG_S; where polls are further apart, by setting, it is the time between two and what one may take.
    """
    limit_s = settings.WATCHDOG_S
    if settings.MARKET_DATA == "poll" and limit_s < settings.POLL_S + 1:
        limit_s = settings.POLL_S + settings.REQUEST_TIMEOUT_S
    rows = [row for row in look.status.get("symbols", ()) if not str(row.get("state", "")).startswith("parked")]
    return sum(_is_young(row, limit_s) for row in rows), len(rows), limit_s


def _is_young(row: Mapping[str, Any], limit_s: float) -> bool:
    return row["age_s"] is not None and row["age_s"] <= limit_s


def polls_rarely(settings: Settings) -> bool:
    """Return whether it may be that no ticker is asked for while a verification watches."""
    return settings.MARKET_DATA == "poll" and settings.POLL_S + 1 >= PATIENCE_S


def is_fresh(look: Look, settings: Settings) -> bool:
    """Return whether 95 % of the symbols are fresh."""
    fresh, of, _ = freshness(look, settings)
    return of > 0 and fresh >= SHARE * of


def market_data_alive(scene: Scene) -> Finding:
    """See that tickers come in for 95 % of the symbols, that the bot's loop turns, and that its heart beats."""
    if not scene.bot.is_running:
        return Finding(DATA, Verdict.NOT_APPLICABLE, "no bot runs")
    first, settings = scene.first, scene.settings

    def is_well(look: Look) -> bool:
        turns = _turns(first, look) and look.at_s - first.at_s >= WATCHED_S
        return turns and (look.is_held_back or (is_fresh(look, settings) and (rests or look.ticks > first.ticks)))

    rests = polls_rarely(settings)
    look = scene.until(is_well, PATIENCE_S)
    watched_s = look.at_s - first.at_s
    fresh, of, limit_s = freshness(look, settings)
    ticks = look.ticks - first.ticks
    beat_s, beats = _since_heartbeat(scene)
    evidence: dict[str, Any] = {
        "fresh": fresh, "symbols": of, "limit_s": limit_s, "oldest_s": look.data.get("oldest_s"),
        "mode": look.data.get("mode"), "ticks": ticks, "watched_s": round(watched_s, 1), "heartbeat_s": beat_s,
        "uptime_s": [first.bot.get("uptime_s"), look.bot.get("uptime_s")],
        "held_back_until_ms": look.data.get("held_back_until_ms"),
        "stale": [row["symbol"] for row in look.status.get("symbols", ()) if not _is_young(row, limit_s)][:20],
    }  # fmt: skip
    why = "tradingbot status, and its log, say what the exchange answers; tradingbot doctor"
    if not _turns(first, look):
        says = f"it hangs: its status has not changed for {watched_s:.0f} s"
        fix = f"tradingbot stop; where that does not help: kill -CONT {scene.bot.pid}, then -9, and start it again"
        return Finding(DATA, Verdict.FAILED, says, evidence, fix)
    beat = f"the last HEARTBEAT {beat_s:.0f} s ago" if beat_s is not None else beats
    is_late = beat_s is None and not beats.startswith("the clock")
    if (
        is_late
        and look.ticks
        and look.bot.get("uptime_s", 0) > 2 * settings.HEARTBEAT_S + PATIENCE_S
        and _logs_beats(settings)
    ):
        return Finding(DATA, Verdict.FAILED, "its heart does not beat: no HEARTBEAT in its log", evidence, why)
    if beat_s is not None and beat_s > 2 * settings.HEARTBEAT_S + STATUS_S:
        return Finding(DATA, Verdict.FAILED, f"its heart does not beat: {beat}", evidence, why)
    if look.is_held_back:
        says = f"the exchange wants to be left alone: none are asked for meanwhile, the loop turns, {beat}"
        return Finding(DATA, Verdict.WARNING, says, evidence, "wait until it is over: tradingbot status")
    says = f"{fresh} of {of} symbols fresh (within {limit_s:g} s), {ticks:,} ticks in {watched_s:.0f} s, {beat}"
    if ticks <= 0 and not rests:
        return Finding(DATA, Verdict.FAILED, f"no ticker has come in for {watched_s:.0f} s: {says}", evidence, why)
    if not is_fresh(look, settings):
        return Finding(DATA, Verdict.FAILED, f"less than 95 %: {says}", evidence, why, "retry")
    return Finding(DATA, Verdict.OK, says, evidence)


def _turns(first: Look, look: Look) -> bool:
    """Return whether another status was written between two looks; of a bot that was restarted it was."""
    told = ("sid", "uptime_s")
    return bool(look.status) and [first.bot.get(name) for name in told] != [look.bot.get(name) for name in told]


def _logs_beats(settings: Settings) -> bool:
    return settings.LOG_LEVEL in ("DEBUG", "INFO")


def _since_heartbeat(scene: Scene) -> tuple[float | None, str]:
    """Return how long ago (s) the last HEARTBEAT line was written, None with the reason where that says nothing."""
    if not _logs_beats(scene.settings):
        return None, f"no HEARTBEAT lines under LOG_LEVEL = {scene.settings.LOG_LEVEL}"
    lines = scene.log(scene.started_ms)
    beats = [line for line in lines if line.text.startswith("HEARTBEAT - ")]
    if any(line.text.startswith("clock_step") for line in lines) and not beats:
        return None, "the clock was set"
    if not beats:
        return None, "no HEARTBEAT yet: it has just begun"
    if any(line.text.startswith("clock_step") and line.ts_ms >= beats[-1].ts_ms for line in lines):
        return None, "the clock was set since the last HEARTBEAT"
    return max((_now_ms() - beats[-1].ts_ms) / 1000, 0.0), ""


def what_is_left(scene: Scene) -> Finding:
    """Name what features that are off have written, and nobody reads meanwhile."""
    off = [name for name in FLAGS if not intended(scene, name)[0]]
    if not off:
        return Finding(LEFT_BEHIND, Verdict.NOT_APPLICABLE, "no feature is off: all that is there is in use")
    found = {each.path: each.bytes for each in left_behind(scene.state_dir, Profile("what is off", tuple(off)))}
    evidence: Mapping[str, Any] = {"off": off, "bytes": found}
    if not found:
        return Finding(LEFT_BEHIND, Verdict.OK, f"{', '.join(off)} off, and nothing left of it", dict(evidence))
    named = ", ".join(f"{Path(path).relative_to(scene.state_dir)} {_bytes(size)}" for path, size in found.items())
    says = f"{_bytes(sum(found.values()))} lie unused until an undo; sealed segments go with {CLEAN}: {named}"
    return Finding(LEFT_BEHIND, Verdict.OK, says, dict(evidence), CLEAN)


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def growth(scene: Scene) -> Finding:
    """See that streams, disk and log keep within what the settings allow."""
    settings, state_dir = scene.settings, scene.state_dir
    sizes = {stream.value: _size(state_dir / FOLDERS[stream]) for stream in Stream}
    written = sum(sizes[stream.value] for stream in FOUR)
    look = scene.first if not scene.bot.is_running else scene.look()
    free_mb = _free_mb(state_dir)
    hours = look.status.get("disk", {}).get("hours_left") if scene.bot.is_running else None
    per_hour = sum(look.status.get("streams", {}).get(stream.value, {}).get("bytes_per_hour", 0) for stream in FOUR)
    logs = _size(scene.log_folder)
    largest = max((path.stat().st_size for path in scene.log_folder.glob("trading_bot_*")), default=0)
    budget = settings.STREAMS_MAX_GB * 1e9
    evidence = {
        "bytes": sizes, "streams_max_gb": settings.STREAMS_MAX_GB, "free_mb": free_mb, "hours_left": hours,
        "min_free_mb": settings.MIN_FREE_MB, "bytes_per_hour": per_hour, "log_bytes": logs,
        "largest_log_bytes": largest,
    }  # fmt: skip
    room = f"{written / 1e6:,.1f} MB of streams (at most {settings.STREAMS_MAX_GB:g} GB), {free_mb:,} MB free"
    clean = "tradingbot clean ticks snapshots windows anchors --older-than 2d --archive"
    if free_mb < settings.MIN_FREE_MB:
        says = f"less than MIN_FREE_MB = {settings.MIN_FREE_MB:g} MB are free: {room}"
        return Finding(GROWTH, Verdict.FAILED, says, evidence, f"{clean}-to DIR", "persistence")
    if written > budget * LOOSE + min(per_hour / 60, budget / 2):
        says = f"more than STREAMS_MAX_GB: {room}"
        fix = f"{clean}\nor allow more: tradingbot set STREAMS_MAX_GB=... --why ..."
        return Finding(GROWTH, Verdict.FAILED, says, evidence, fix, "persistence")
    if largest > (settings.LOG_MAX_MB + 1) * 1e6:
        says = f"a log file of {largest / 1e6:,.1f} MB, more than LOG_MAX_MB = {settings.LOG_MAX_MB:g}"
        return Finding(GROWTH, Verdict.FAILED, says, evidence, "tradingbot clean logs --archive")
    if hours is not None and hours < 24:
        says = f"{room}: recording stops in {hours:g} h at this pace"
        return Finding(GROWTH, Verdict.WARNING, says, evidence, clean, "persistence")
    most = (KEPT_FILES + 1) * settings.LOG_MAX_MB
    says = f"{room}, {logs / 1e6:,.1f} MB of log (at most {most:g} MB a file and its rotated ones)"
    return Finding(GROWTH, Verdict.OK, says, evidence)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # sealed, or deleted for its age, meanwhile
            continue
    return total


def _free_mb(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return int(shutil.disk_usage(folder).free // 1_000_000)
