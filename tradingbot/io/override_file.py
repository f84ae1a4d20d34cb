"""overrides.json: the one layer of settings that tools write; read, changed, audited and renamed under a lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tradingbot.config import check_value
from tradingbot.errors import SettingsError, UsageError
from tradingbot.io.audit import append_audit, user
from tradingbot.io.home import OVERRIDES_NAME, read_overrides
from tradingbot.io.reserve import with_reserve
from tradingbot.io.state_files import write_atomic

__all__ = ["CLEAR", "Change", "Override", "change_overrides", "peek_entries", "read_entries"]

LAST_NAME = "overrides.last.json"
LOCK_NAME = "overrides.lock"
LOCK_S = 5.0


class _Clear:
    """Stand for no override."""

    def __repr__(self) -> str:
        return "CLEAR"


CLEAR = _Clear()
"""What a key is changed to where its override is to go."""


@dataclass(frozen=True, slots=True)
class Override:
    """Hold one override: its value, and since when (ms, the wall clock), by whom, where and why it is there."""

    value: Any
    since_ms: int | None = None
    who: str = ""
    host: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Hold what became of one key: the override before and after, None for none."""

    key: str
    old: Override | None
    new: Override | None


def read_entries(state_dir: Path) -> dict[str, Override]:
    """Return the overrides of a state directory, values unchecked; raise SettingsError where the file is broken."""
    values = read_overrides(state_dir)
    if not values:
        return {}
    entries = json.loads((state_dir / OVERRIDES_NAME).read_bytes())["overrides"]
    return {name: _entry(entries.get(name, {"value": value})) for name, value in values.items()}


def peek_entries(state_dir: Path) -> tuple[dict[str, Override], str]:
    """Return the overrides that a change would begin from, and what is wrong with the file, "" where nothing is."""
    try:
        return read_entries(state_dir), ""
    except SettingsError as error:
        return _last_entries(state_dir), str(error)


def change_overrides(
    state_dir: Path,
    changes: Mapping[str, Any],
    why: str,
    check: Callable[[Mapping[str, Any]], None],
    only: Mapping[str, Override | None] | None = None,
) -> list[Change]:
    """Change overrides together, all or none; return what has become another one.

    `changes` gives each key its value, CLEAR, or an Override that is to stand there just so. `check` is told all values
    that would be in force in this layer, and raises SettingsError where they cannot be. `only` holds back a key whose
    override is not the one that it names. A broken file is set aside as `.bad`, and the last good one counts. The audit
    is on the disk before the file changes. Raises SettingsError, and UsageError where it cannot be written.
    """
    checked = {key: _checked(key, value) for key, value in changes.items()}
    if "STATE_DIR" in checked and checked["STATE_DIR"] is not CLEAR:
        raise SettingsError("STATE_DIR cannot be overridden: it is the folder that overrides.json stands in")
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(state_dir):
            entries, is_broken = _good_entries(state_dir)
            wanted = {key for key in checked if only is None or only.get(key) == entries.get(key)}
            made = Override(None, int(time.time() * 1000), user(), socket.gethostname(), why)
            after = dict(entries)
            for key in wanted:
                after.pop(key, None)
                if isinstance(value := checked[key], Override):
                    after[key] = value
                elif value is not CLEAR:
                    after[key] = replace(made, value=value)
            found = [Change(key, entries.get(key), after.get(key)) for key in checked if key in wanted]
            changed = [change for change in found if not _is_same(change)]
            if changed or is_broken:
                check({key: entry.value for key, entry in after.items()})
                _write(state_dir, after, changed, why)
            return changed
    except OSError as error:
        raise UsageError(f"{state_dir / OVERRIDES_NAME} cannot be written: {error.strerror or error}") from None


def _checked(key: str, value: Any) -> Any:
    if isinstance(value, Override):
        return replace(value, value=check_value(key, value.value))
    return value if value is CLEAR else check_value(key, value)


def _write(state_dir: Path, after: Mapping[str, Override], changed: list[Change], why: str) -> None:
    for change in changed:
        old, new = (None if entry is None else entry.value for entry in (change.old, change.new))
        told = {side: _plain(value) if _is_value(change.key, value) else repr(value)[:200]
                for side, value in (("old", old), ("new", new)) if value is not None}  # fmt: skip
        append_audit(state_dir, "override", why, **{"key": change.key, "old": None, "new": None, **told})
    text = json.dumps({"v": 1, "overrides": {key: _record(entry) for key, entry in sorted(after.items())}}, indent=1)
    for name in (OVERRIDES_NAME, LAST_NAME):
        with_reserve(state_dir, partial(write_atomic, state_dir / name, text.encode() + b"\n"))


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    """Hold the lock on the file; raise UsageError where another one does not let go of it."""
    path = state_dir / LOCK_NAME
    descriptor = with_reserve(state_dir, lambda: os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        end_s = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end_s:
                    raise UsageError(f"{state_dir / LOCK_NAME} is held by another command: try again") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _good_entries(state_dir: Path) -> tuple[dict[str, Override], bool]:
    """Return the overrides and whether the file is broken: then it is set aside, and the last good one counts."""
    try:
        return read_entries(state_dir), False
    except SettingsError:
        path = state_dir / OVERRIDES_NAME
        aside = next(
            name
            for number in range(1, 10_000)
            if not os.path.lexists(name := path.with_name(f"{path.name}.bad-{number}"))
        )
        append_audit(state_dir, "overrides set aside", "broken", file=aside.name)
        path.rename(aside)
    return _last_entries(state_dir), True


def _last_entries(state_dir: Path) -> dict[str, Override]:
    try:
        entries = json.loads((state_dir / LAST_NAME).read_bytes())["overrides"]
        return {name: _entry(entry) for name, entry in entries.items() if _is_value(name, entry["value"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _is_value(name: str, value: Any) -> bool:
    try:
        check_value(name, value)
    except SettingsError:
        return False
    return True


def _entry(record: Mapping[str, Any]) -> Override:
    """Return an entry of the file, whatever stands beside its value."""
    since_ms = record.get("since_ms")
    words = {name: record.get(name) for name in ("who", "host", "why")}
    return Override(
        record["value"],
        since_ms if type(since_ms) is int else None,
        **{name: word if isinstance(word, str) else "" for name, word in words.items()},
    )


def _record(entry: Override) -> dict[str, Any]:
    return {
        "value": _plain(entry.value), "since_ms": entry.since_ms, "who": entry.who, "host": entry.host,
        "why": entry.why.encode("utf-8", "backslashreplace").decode(),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_same(change: Change) -> bool:
    """Say whether nothing has changed: the same value stays with whom and why it came."""
    if change.old is None or change.new is None:
        return change.old is change.new
    return bool(_plain(change.old.value) == _plain(change.new.value))
