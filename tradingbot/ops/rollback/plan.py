"""Rollbacks as values: profiles of flags, and the plan of what a rollback, or its undoing, changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tradingbot.config import FLAGS, registry
from tradingbot.errors import TradingBotError, UsageError
from tradingbot.features import Flag
from tradingbot.io.override_file import Override, peek_entries
from tradingbot.io.overrides import Effective
from tradingbot.io.requests import signature
from tradingbot.io.saved import ANCHORS, CHECKPOINT
from tradingbot.io.streams import FOLDERS, Stream
from tradingbot.ops.code.facts import Code
from tradingbot.ops.rollback.restart import BotFacts, find_bot, status_of

__all__ = ["PROFILES", "FlagChange", "LeftBehind", "Plan", "Profile", "left_behind", "make_plan", "make_undo"]

NOW, LIVE, NEXT = "now, by the restart", "live", "at the next start"
HOUR_MIN, LIMIT_S = 60.0, 5.0
ANCHOR, PERSIST, RETRY, WARM = (
    "FEATURE_ANCHOR_ENABLED", "FEATURE_PERSIST_STREAMS", "FEATURE_RETRY_BACKOFF", "FEATURE_WARMSTART_TICKS",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """Name flags that are rolled back together."""

    name: str
    flags: tuple[str, ...]

    @property
    def means(self) -> str:
        """Return what is then off, in words."""
        return "; ".join(FLAGS[name].off_means for name in self.flags)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("all", tuple(FLAGS)),
        Profile("persistence", (PERSIST, WARM)),
        Profile("warmstart", (WARM,)),
        Profile("retry", (RETRY,)),
        Profile("anchor", (ANCHOR,)),
    )
}


@dataclass(frozen=True, slots=True)
class FlagChange:
    """Hold one flag's override and value before and after, None for no override.

    `source` is what gives the value before, `pinned` what would give it without overrides unless that is the default,
    `running` the value that the running bot goes by.
    """

    key: str
    before: Override | None
    after: Override | None
    value: bool
    new_value: bool
    source: str
    pinned: str
    takes_effect: str
    running: bool | None
    off_means: str
    keeps: str

    @property
    def is_change(self) -> bool:
        """Say whether the override becomes another one."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Name data that stays where it is, unused."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold what a rollback is to do, as it is stored; an undoing names in `undoes` the rollback that it takes back.

    `id` is empty until it is stored. `trouble` is what is wrong with overrides.json: it is then set aside, and what the
    last good one says is written anew. `foresight` says what the last hour would have looked like. `foreign` are the
    overrides that an undoing leaves: others have changed them since. `code` is what a rollback by code goes back to.
    """

    kind: str
    profile: str
    who: str
    host: str
    time_ms: int
    why: str
    restart: bool
    from_empty: bool
    changes: tuple[FlagChange, ...]
    bot: BotFacts
    left_behind: tuple[LeftBehind, ...] = ()
    foresight: dict[str, Any] = field(default_factory=dict)
    foreign: dict[str, Override | None] = field(default_factory=dict)
    undoes: str = ""
    trouble: str = ""
    id: str = ""
    code: Code | None = None

    @property
    def needs_restart(self) -> bool:
        """Say whether a restart is asked for, and a running bot needs it to go by what is planned."""
        return self.restart and self.bot.is_running and (self.from_empty or bool(self.waiting))

    @property
    def waiting(self) -> list[str]:
        """Return the flags that the running bot goes by otherwise until it is restarted."""
        return [
            change.key
            for change in self.changes
            if FLAGS[change.key].restart and change.running not in (None, change.new_value)
        ]

    @property
    def is_needed(self) -> bool:
        """Say whether there is anything to do."""
        is_change = any(change.is_change for change in self.changes)
        return is_change or self.needs_restart or self.from_empty or bool(self.trouble)

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        record: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return record | {"needs_restart": self.needs_restart, "is_needed": self.is_needed}


def make_plan(
    effective: Effective, profile: Profile, why: str, restart: bool = False, from_empty: bool = False,
    compares: bool = True,
) -> Plan:  # fmt: skip
    """Return the plan that rolls a profile back; with `compares` it says what the last hour would have looked like."""
    if from_empty and not (restart and profile.name == "warmstart"):
        raise UsageError("--from-empty goes with rollback warmstart --restart: only a cold start begins from empty")
    state_dir, asked = effective.state_dir, signature(why)
    entries, trouble = peek_entries(state_dir)
    off = Override(False, asked["time_ms"], asked["who"], asked["host"], asked["why"])
    is_off = {key for key, entry in entries.items() if entry.value is False}
    wanted = {key: entries[key] if key in is_off else off for key in profile.flags}
    bot = find_bot(state_dir)
    changes = _changes(effective, entries, wanted, bot, restart)
    return Plan(
        "rollback", profile.name, asked["who"], asked["host"], asked["time_ms"], asked["why"], restart, from_empty,
        changes, bot, tuple(left_behind(state_dir, profile)), _foresight(state_dir, profile, bot, compares),
        trouble=trouble,
    )  # fmt: skip


def make_undo(effective: Effective, rolled_back: Plan, why: str, restart: bool = False) -> Plan:
    """Return the plan that gives the overrides that a rollback changed back as they were."""
    state_dir, asked = effective.state_dir, signature(why)
    entries, trouble = peek_entries(state_dir)
    wanted: dict[str, Override | None] = {}
    foreign: dict[str, Override | None] = {}
    for change in rolled_back.changes:
        if change.is_change and entries.get(change.key) == change.after:
            wanted[change.key] = change.before
        elif change.is_change and entries.get(change.key) != change.before:
            foreign[change.key] = entries.get(change.key)
    bot = find_bot(state_dir)
    changes = _changes(effective, entries, wanted, bot, restart)
    return Plan(
        "undo", rolled_back.profile, asked["who"], asked["host"], asked["time_ms"], asked["why"], restart, False,
        changes, bot, foreign=foreign, undoes=rolled_back.id, trouble=trouble,
    )  # fmt: skip


def _changes(
    effective: Effective, entries: dict[str, Override], wanted: dict[str, Any], bot: BotFacts, restart: bool
) -> tuple[FlagChange, ...]:
    assert effective.again is not None  # a command reads settings from files
    after = {key: entry for key, entry in {**entries, **wanted}.items() if entry is not None}
    now, then, below = (
        effective.again(overrides={key: entry.value for key, entry in each.items()}) for each in (entries, after, {})
    )
    running = status_of(effective.state_dir).get("flags", {}) if bot.is_running else {}
    changes = []
    for key, entry in wanted.items():
        flag = FLAGS[key]
        pinned = "" if below.sources[key] == "default" else below.sources[key]
        changes.append(
            FlagChange(
                key, entries.get(key), entry, getattr(now.settings, key), getattr(then.settings, key),
                now.sources[key], pinned, _when(flag, bot, restart), running.get(key), flag.off_means, flag.keeps,
            )
        )  # fmt: skip
    return tuple(changes)


def _when(flag: Flag, bot: BotFacts, restart: bool) -> str:
    if not bot.is_running:
        return NEXT
    if not registry()[flag.name].restart:
        return LIVE
    return NOW if restart else NEXT


def left_behind(state_dir: Path, profile: Profile) -> Iterable[LeftBehind]:
    """Find what the features of a profile have written, and nobody reads while they are off."""
    paths: list[str] = []
    if PERSIST in profile.flags:
        paths += [folder for stream, folder in FOLDERS.items() if stream is not Stream.JOURNAL]
    if WARM in profile.flags:
        paths.append(CHECKPOINT)
    if ANCHOR in profile.flags:
        paths.append(str(Path(ANCHORS).parent))
    for name in paths:
        path = state_dir / name
        size = sum(map(_size, [path] if path.is_file() else path.rglob("*")))
        if size:
            yield LeftBehind(str(path), size)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # sealed, or deleted for its age, meanwhile
        return 0


def _foresight(state_dir: Path, profile: Profile, bot: BotFacts, compares: bool) -> dict[str, Any]:
    """Return what the last hour would have looked like, feature by feature."""
    found: dict[str, Any] = {}
    if ANCHOR in profile.flags and compares:
        found["decisions"] = _last_hour(state_dir)
    if RETRY in profile.flags and bot.is_running:
        found["withheld"] = status_of(state_dir).get("data", {}).get("withheld", {})
    if set(profile.flags) <= {PERSIST, WARM}:
        found["decisions"] = {"equal": True}
    return found


def _last_hour(state_dir: Path) -> dict[str, Any]:
    """Run the last hour's inputs with and without anchors, in a few seconds at most."""
    from tradingbot.ops.record.compare import compare

    try:
        found = compare(state_dir, {ANCHOR: False}, {}, last_min=HOUR_MIN, limit_s=LIMIT_S)
    except (TradingBotError, OSError) as error:
        return {"trouble": str(error)}
    record = found.to_record()
    sides = {side: {name: record[side][name] for name in COUNTED} for side in ("ours", "theirs")}
    kinds = {name: count for name, count in record["triggers"].items() if isinstance(count, int)}
    return {name: record[name] for name in ("equal", "inputs", "first_ms", "last_ms", "cut_off")} | sides | kinds


COUNTED = ("triggers", "entries", "trades", "pnl_quote")
