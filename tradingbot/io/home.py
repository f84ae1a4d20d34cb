"""The home and the settings files in it, found and read with the standard library alone.

Who is to see or stop a bot needs these also where a package that the bot is built on is broken.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradingbot.errors import SettingsError, UsageError

__all__ = [
    "CONFIG_NAME",
    "OVERRIDES_NAME",
    "Home",
    "find_home",
    "find_settings_file",
    "read_overrides",
    "read_toml",
    "split_assignment",
]

CONFIG_NAME = "tradingbot.toml"
OVERRIDES_NAME = "overrides.json"
MAX_FILE_BYTES = 1_000_000  # a settings file is read whole


@dataclass(frozen=True, slots=True)
class Home:
    """Hold the folder that everything lives under, and how it was chosen."""

    path: Path
    chosen_by: str


def find_home(home: str | None, environ: Mapping[str, str], cwd: Path) -> Home:
    """Return the home: --home, else TRADINGBOT_HOME, else the nearest folder with a tradingbot.toml, else `cwd`.

    Raises UsageError if it is no folder, or if a found one belongs to somebody else or others may write to it.
    """
    for given, chosen_by in ((home, "--home"), (environ.get("TRADINGBOT_HOME"), "TRADINGBOT_HOME")):
        if given == "":
            raise UsageError(f"the home (from {chosen_by}) is empty: name a folder")
        if given:
            path = _path(given, chosen_by).absolute()
            if path.exists() and not path.is_dir():
                raise UsageError(f"the home {path} (from {chosen_by}) is not a folder")
            return Home(path, chosen_by)
    for folder in (cwd, *cwd.parents):
        if (folder / CONFIG_NAME).is_file():
            for path in (folder, folder / CONFIG_NAME):
                _refuse_foreign(path)
            return Home(folder, f"{CONFIG_NAME} found")
    return Home(cwd, "working directory")


def _path(text: str, where: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text} (from {where}) cannot be found: {error}") from None


def _refuse_foreign(path: Path) -> None:
    facts = path.stat()
    if facts.st_uid != os.geteuid():
        raise UsageError(f"{path} belongs to another user: name the home yourself with --home, or chown it")
    own_group = facts.st_gid == os.getegid() == facts.st_uid
    open_to = stat.S_IWOTH | (0 if own_group else stat.S_IWGRP)
    if facts.st_mode & open_to:
        raise UsageError(f"others may write to {path}: chmod go-w it, or name the home yourself with --home")


def find_settings_file(home: Home, config: str | None) -> Path:
    """Return the settings file, there or not: `config`, which must be there, else the home's tradingbot.toml."""
    if config is None:
        return home.path / CONFIG_NAME
    path = _path(config, "--config")
    if not path.is_file():
        raise SettingsError(f"there is no settings file {path} (from --config)")
    return path


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a settings file says, unchecked, nothing where there is none; raise SettingsError if it is broken."""
    if not os.path.lexists(path):
        return {}
    try:
        values = tomllib.loads(_read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not a TOML file: {error}") from None
    for name, value in values.items():
        if isinstance(value, dict):
            raise SettingsError(
                f"{path} has a table [{name}]: settings stand at the top, as in DROP_TRIGGER_VALUE = 0.98"
            )
    return values


def read_overrides(state_dir: Path) -> dict[str, Any]:
    """Return what overrides.json says, unchecked, nothing where there is none; raise SettingsError if it is broken."""
    path = state_dir / OVERRIDES_NAME
    if not os.path.lexists(path):
        return {}
    try:
        entries = json.loads(_read_bytes(path).decode())["overrides"]
        values = {name: entry["value"] for name, entry in entries.items()}
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()  # NaN and half characters are no JSON
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise SettingsError(f"{path} is broken, and a rollback may stand in it: mend it, or move it aside") from None
    if "STATE_DIR" in values:
        raise SettingsError(f"{path} sets STATE_DIR, the folder that it stands in: take that out")
    return values


def split_assignment(assignment: str, option: str = "--set") -> tuple[str, str]:
    """Return name and text of a KEY=VALUE behind `option`; raise SettingsError if it is none."""
    name, equals, text = assignment.partition("=")
    if not equals:
        raise SettingsError(f"{option} {assignment} is not KEY=VALUE, as in {option} DROP_TRIGGER_VALUE=0.98")
    return name.strip(), text


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_fifo():  # opening it would wait for a writer that may never come
            raise SettingsError(f"{path} is a pipe: that is no settings file")
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    if len(text) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes: that is no settings file")
    return text
