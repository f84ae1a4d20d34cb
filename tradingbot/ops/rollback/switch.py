"""Switching: flags and other settings changed by overrides, planned first, and seen to be adopted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tradingbot.config import FLAGS, check_value, registry
from tradingbot.errors import SettingsError
from tradingbot.io.override_file import CLEAR, Change, Override, change_overrides, peek_entries
from tradingbot.io.overrides import Effective
from tradingbot.io.state_files import lock_owner
from tradingbot.ops.control import HEARD_S

__all__ = ["FlagRow", "SwitchPlan", "flag_rows", "plan_switch", "switch", "was_adopted"]


@dataclass(frozen=True, slots=True)
class FlagRow:
    """Hold a flag as it stands: value, source, and of an override since when (ms), by whom and why."""

    name: str
    feature: str
    value: bool
    source: str
    since_ms: int | None
    who: str
    why: str
    off_means: str
    keeps: str
    takes_effect: str
    running: bool | None  # what the running bot goes by, None where none runs


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """Hold what a change of overrides would do: each key's override, and the value in force, before and after."""

    state_dir: Path
    changes: Mapping[str, Any]
    before: Effective
    after: Effective
    overrides: Mapping[str, Override]
    trouble: str  # what is wrong with overrides.json, "" where nothing is
    running: bool

    def rows(self) -> list[dict[str, Any]]:
        """Return a JSON object a key: values in force before and after, the source then, and when it takes effect."""
        return [
            {
                "key": key,
                "override": None if (old := self.overrides.get(key)) is None else old.value,
                "new_override": None if self.changes[key] is CLEAR else self.changes[key],
                "value": getattr(self.before.settings, key),
                "new_value": getattr(self.after.settings, key),
                "source": self.after.sources[key],
                "takes_effect": "at the next start" if registry()[key].restart else "live",
            }
            for key in self.changes
        ]


def flag_rows(effective: Effective) -> list[FlagRow]:
    """Return every flag as it stands."""
    status = _status(effective.state_dir)
    running = status.get("flags", {}) if lock_owner(effective.state_dir) is not None else {}
    rows = []
    for name, flag in FLAGS.items():
        override = effective.overrides.get(name, Override(None))
        rows.append(
            FlagRow(
                name, flag.feature, getattr(effective.settings, name), effective.sources[name], override.since_ms,
                override.who, override.why, flag.off_means, flag.keeps,
                "at the next start" if flag.restart else "live", running.get(name),
            )
        )  # fmt: skip
    return rows


def plan_switch(effective: Effective, changes: Mapping[str, Any]) -> SwitchPlan:
    """Return what these changes (a key's value, or CLEAR) would do; raise SettingsError where they cannot be."""
    unknown = [key for key in changes if key not in registry()]
    if unknown:
        check_value(unknown[0], None)  # names the nearest
    entries, trouble = peek_entries(effective.state_dir)
    after = _with(effective, _laid_over(entries, changes))
    try:
        before = _with(effective, entries)
    except SettingsError:  # they do not fit what lies below any more, and this change is what mends it
        before = effective
    is_running = lock_owner(effective.state_dir) is not None
    return SwitchPlan(effective.state_dir, changes, before, after, entries, trouble, is_running)


def switch(plan: SwitchPlan, why: str) -> list[Change]:
    """Do what is planned, all or nothing; return what has become another one."""

    def check(values: Mapping[str, Any]) -> None:
        _with(plan.before, {key: Override(value) for key, value in values.items()})

    return change_overrides(plan.state_dir, plan.changes, why, check)


def was_adopted(state_dir: Path, changes: Iterable[Change]) -> bool | None:
    """Wait until the running bot goes by what is live in a change; return whether it does, None where none runs."""
    end_s = time.monotonic() + HEARD_S
    live = [change for change in changes if not registry()[change.key].restart]
    while lock_owner(state_dir) is not None:
        told = {row["key"]: row["value"] for row in _status(state_dir).get("overrides", ())}
        if all(
            change.key not in told if change.new is None else told.get(change.key) == _plain(change.new.value)
            for change in live
        ):
            return True
        if time.monotonic() > end_s:
            return False
        time.sleep(0.05)
    return None


def _with(effective: Effective, entries: Mapping[str, Override]) -> Effective:
    if effective.again is None:
        raise SettingsError("these settings were not read from files")
    return effective.again(overrides={key: entry.value for key, entry in entries.items()})


def _laid_over(entries: Mapping[str, Override], changes: Mapping[str, Any]) -> dict[str, Override]:
    after = dict(entries)
    for key, value in changes.items():
        after.pop(key, None)
        if value is not CLEAR:
            after[key] = Override(value)
    return after


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _status(state_dir: Path) -> dict[str, Any]:
    try:
        status = orjson.loads((state_dir / "status.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}
