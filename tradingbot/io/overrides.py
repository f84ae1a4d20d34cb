"""The layers of settings: defaults, tradingbot.toml, environment, --set and state/overrides.json, the later wins."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tradingbot.config import Settings, check_value, make_settings, parse_text, registry
from tradingbot.errors import SettingsError
from tradingbot.io.home import (
    CONFIG_NAME,
    OVERRIDES_NAME,
    Home,
    find_settings_file,
    read_toml,
    split_assignment,
)
from tradingbot.io.override_file import Override, peek_entries, read_entries

__all__ = ["Effective", "in_force", "read_assignments", "read_settings"]


@dataclass(frozen=True, slots=True)
class Effective:
    """Hold the settings in force, where each value comes from, and the folders that follow from them."""

    settings: Settings
    sources: Mapping[str, str]
    home: Home
    files: tuple[Path, ...] = ()  # whose change may change a setting
    again: Callable[..., Effective] | None = None  # read every layer anew, with other overrides where they are given
    overrides: Mapping[str, Override] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        """Return the state directory."""
        return self.home.path / self.settings.STATE_DIR


def read_settings(
    home: Home,
    *,
    config: str | None = None,
    state: str | None = None,
    assignments: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    overrides: bool | Mapping[str, Any] = True,
) -> Effective:
    """Read every layer and return the settings in force; raise SettingsError for the first thing that is not allowed.

    `assignments` are the KEY=VALUE of --set; `overrides` is false for what runs over recorded data: then --set comes
    last also for GLOBAL_TRADING, which elsewhere is on only if some layer says on and none but the defaults says off.
    Values given as `overrides` stand for those of the file.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    assignments = tuple(assignments)
    path = find_settings_file(home, config)
    layers.append((CONFIG_NAME if config is None else str(path), _checked(read_toml(path), path.name)))
    layers.append(("environment", _read_environment(os.environ if environ is None else environ)))
    layers.append(("--set", read_assignments(assignments)))
    if state is not None:
        layers.append(("--state", {"STATE_DIR": check_value("STATE_DIR", state, "--state")}))
    entries: dict[str, Override] = {}
    if overrides is not False:
        below = _merge(layers)[0]
        folder = home.path / below.get("STATE_DIR", registry()["STATE_DIR"].default)
        entries = read_entries(folder) if overrides is True else {key: Override(v) for key, v in overrides.items()}
        values = {name: entry.value for name, entry in entries.items()}
        layers.append((OVERRIDES_NAME, _checked(values, OVERRIDES_NAME)))
    values, sources = _merge(layers)
    if overrides is not False and values.get("GLOBAL_TRADING"):
        off = [where for where, layer in layers if layer.get("GLOBAL_TRADING") is False]
        if off:
            values["GLOBAL_TRADING"], sources["GLOBAL_TRADING"] = False, off[-1]
    try:
        settings = make_settings(values)
    except SettingsError as error:
        culprits = [f"{name} from {where}" for name, where in sources.items() if re.search(rf"\b{name}\b", str(error))]
        raise SettingsError(f"{error} ({', '.join(culprits)})" if culprits else str(error)) from None
    files = (path, home.path / settings.STATE_DIR / OVERRIDES_NAME)

    def again(overrides: bool | Mapping[str, Any] = overrides) -> Effective:
        return read_settings(
            home, config=config, state=state, assignments=assignments, environ=environ, overrides=overrides
        )

    named = {name: sources.get(name, "default") for name in registry()}
    return Effective(settings, named, home, files, again, entries)


def in_force(below: Effective) -> Effective:
    """Return the settings in force, also where overrides.json is broken: as the last good one leaves them.

    `below` are the settings that were read without overrides.
    """
    entries, _ = peek_entries(below.state_dir)
    assert below.again is not None
    try:
        return below.again(overrides=True)
    except SettingsError:
        return below.again(overrides={key: entry.value for key, entry in entries.items()})


def _merge(layers: Iterable[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for where, layer in layers:
        for name, value in layer.items():
            values[name], sources[name] = value, where
    return values, sources


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {name: check_value(name, value, where) for name, value in values.items()}


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {name: parse_text(name, environ[name], "environment") for name in registry() if name in environ}


def read_assignments(assignments: Iterable[str], option: str = "--set") -> dict[str, Any]:
    """Return the settings that the KEY=VALUE behind an option name; raise SettingsError for one that is not allowed."""
    pairs = (split_assignment(assignment, option) for assignment in assignments)
    return {name: parse_text(name, text, option) for name, text in pairs}
