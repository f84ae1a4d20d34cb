"""The layers of settings: defaults, tradingbot.toml, environment, --set and state/overrides.json, the later wins."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tradingbot.config import Settings, check_value, make_settings, parse_text, registry
from tradingbot.errors import SettingsError, UsageError

__all__ = ["CONFIG_NAME", "Effective", "Home", "find_home", "read_settings"]

CONFIG_NAME = "tradingbot.toml"
OVERRIDES_NAME = "overrides.json"
MAX_FILE_BYTES = 1_000_000  # a settings file is read whole


@dataclass(frozen=True, slots=True)
class Home:
    """Hold the folder that everything lives under, and how it was chosen."""

    path: Path
    chosen_by: str


@dataclass(frozen=True, slots=True)
class Effective:
    """Hold the settings in force, where each value comes from, and the folders that follow from them."""

    settings: Settings
    sources: Mapping[str, str]
    home: Home

    @property
    def state_dir(self) -> Path:
        """Return the state directory."""
        return self.home.path / self.settings.STATE_DIR


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


def read_settings(
    home: Home,
    *,
    config: str | None = None,
    state: str | None = None,
    assignments: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    overrides: bool = True,
) -> Effective:
    """Read every layer and return the settings in force; raise SettingsError for the first thing that is not allowed.

    `assignments` are the KEY=VALUE of --set; `overrides` is false for what runs over recorded data: then --set comes
    last also for GLOBAL_TRADING, which elsewhere is on only if some layer says on and none but the defaults says off.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    path = home.path / CONFIG_NAME if config is None else _path(config, "--config")
    if config is not None and not path.is_file():
        raise SettingsError(f"there is no settings file {path} (from --config)")
    if os.path.lexists(path):
        layers.append((str(path) if config else CONFIG_NAME, _read_toml(path)))
    layers.append(("environment", _read_environment(os.environ if environ is None else environ)))
    layers.append(("--set", _read_assignments(assignments)))
    if state is not None:
        layers.append(("--state", {"STATE_DIR": check_value("STATE_DIR", state, "--state")}))
    if overrides:
        below = _merge(layers)[0]
        folder = home.path / below.get("STATE_DIR", registry()["STATE_DIR"].default)
        layers.append((OVERRIDES_NAME, _read_overrides(folder / OVERRIDES_NAME)))
    values, sources = _merge(layers)
    if overrides and values.get("GLOBAL_TRADING"):
        off = [where for where, layer in layers if layer.get("GLOBAL_TRADING") is False]
        if off:
            values["GLOBAL_TRADING"], sources["GLOBAL_TRADING"] = False, off[-1]
    try:
        settings = make_settings(values)
    except SettingsError as error:
        named = [f"{name} from {where}" for name, where in sources.items() if re.search(rf"\b{name}\b", str(error))]
        raise SettingsError(f"{error} ({', '.join(named)})" if named else str(error)) from None
    return Effective(settings, {name: sources.get(name, "default") for name in registry()}, home)


def _merge(layers: Iterable[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for where, layer in layers:
        for name, value in layer.items():
            values[name], sources[name] = value, where
    return values, sources


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    if len(text) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes: that is no settings file")
    return text


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(_read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not a TOML file: {error}") from None
    for name, value in values.items():
        if isinstance(value, dict):
            raise SettingsError(
                f"{path} has a table [{name}]: settings stand at the top, as in DROP_TRIGGER_VALUE = 0.98"
            )
    return {name: check_value(name, value, path.name) for name, value in values.items()}


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {name: parse_text(name, environ[name], "environment") for name in registry() if name in environ}


def _read_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set {assignment} is not KEY=VALUE, as in --set DROP_TRIGGER_VALUE=0.98")
        values[name.strip()] = parse_text(name.strip(), text, "--set")
    return values


def _read_overrides(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    try:
        document = orjson.loads(_read_bytes(path))
        entries = document["overrides"]
        values = {name: entry["value"] for name, entry in entries.items()}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise SettingsError(f"{path} is broken, and a rollback may stand in it: mend it, or move it aside") from None
    if "STATE_DIR" in values:
        raise SettingsError(f"{path} sets STATE_DIR, the folder that it stands in: take that out")
    return {name: check_value(name, value, OVERRIDES_NAME) for name, value in values.items()}
