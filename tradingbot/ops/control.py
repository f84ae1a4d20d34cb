"""See, stop, kill and arm a running bot, with the standard library alone."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradingbot.errors import SettingsError, Unrecoverable, UsageError
from tradingbot.io.home import OVERRIDES_NAME, Home, find_settings_file, read_overrides, read_toml, split_assignment
from tradingbot.io.reserve import with_reserve
from tradingbot.io.state_files import lock_owner

__all__ = [
    "DEFAULTS", "HEARD_S", "NoBotError", "Target", "arm", "find_target", "is_running", "kill", "read_status", "stop",
]  # fmt: skip

DEFAULTS: dict[str, Any] = {"STATE_DIR": "state", "STOP_TIMEOUT_S": 20.0}  # as in tradingbot.config; a test holds that
ALLOWED = {"STATE_DIR": "a text that is not empty", "STOP_TIMEOUT_S": "a number > 0"}
HEARD_S = 10.0  # in which a bot has taken what a file tells it: it looks once a second, and its machine may be busy


class NoBotError(Unrecoverable):
    """Say that no bot is running where one is needed."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Target:
    """Hold where the bot is to be found, how long its clean stop may take, and what of the settings was passed over."""

    state_dir: Path
    stop_timeout_s: float
    complaints: tuple[str, ...]


def find_target(
    home: Home,
    *,
    config: str | None = None,
    state: str | None = None,
    assignments: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Target:
    """Return the target that the layers of settings name, the later wins, asking for no package and refusing nothing.

    What is broken is passed over, a file whole and a value alone, and complained of: whoever wants to stop a bot must
    not have to mend its settings first.
    """
    environ = os.environ if environ is None else environ
    values = dict(DEFAULTS)
    complaints: list[str] = []

    @contextlib.contextmanager
    def complaining() -> Iterator[None]:
        try:
            yield
        except (UsageError, OSError) as error:
            complaints.append(str(error))

    def take(layer: Mapping[str, Any], where: str) -> None:
        for name in DEFAULTS:
            if name in layer:
                with complaining():
                    values[name] = _check(name, layer[name], where)

    with complaining():
        path = find_settings_file(home, config)
        take(read_toml(path), path.name)
    take({name: _parse(name, environ[name]) for name in DEFAULTS if name in environ}, "environment")
    for assignment in assignments:
        with complaining():
            name, text = split_assignment(assignment)
            take({name: _parse(name, text)}, "--set")
    if state is not None:
        take({"STATE_DIR": state}, "--state")
    state_dir = home.path / values["STATE_DIR"]
    with complaining():
        take(read_overrides(state_dir), OVERRIDES_NAME)
    return Target(state_dir, values["STOP_TIMEOUT_S"], tuple(complaints))


def _parse(name: str, text: str) -> str | float:
    if name == "STOP_TIMEOUT_S":
        with contextlib.suppress(ValueError):
            return float(text)
    return text


def _check(name: str, value: object, where: str) -> str | float:
    if name == "STATE_DIR":
        if isinstance(value, str) and value and "\0" not in value:
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number too large to be any number of seconds
            if math.isfinite(value) and value > 0:
                return float(value)
    raise SettingsError(f"{name} = {value!r:.80} (from {where}) is not allowed: it takes {ALLOWED[name]}")


def _owner(state_dir: Path) -> dict[str, Any]:
    owner = lock_owner(state_dir)
    if owner is None:
        raise NoBotError(f"no bot is running on {state_dir}")
    return owner


def read_status(state_dir: Path) -> dict[str, Any]:
    """Return the status of the bot that runs on `state_dir`; raise NoBotError if none does."""
    _owner(state_dir)
    try:
        status = json.loads((state_dir / "status.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        raise NoBotError(f"the bot on {state_dir} has said nothing yet: try again in a second") from None
    if not isinstance(status, dict):
        raise NoBotError(f"{state_dir / 'status.json'} is no status")
    return status


def stop(state_dir: Path, timeout_s: float) -> int:
    """Ask the bot to stop and wait until it has; return its pid. Raises NoBotError if none runs, or it stays."""
    pid = int(_owner(state_dir).get("pid", 0))
    if pid > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end_s = time.monotonic() + timeout_s
    while lock_owner(state_dir) is not None:
        if time.monotonic() > end_s:
            raise NoBotError(f"process {pid} has not stopped within {timeout_s:g} s")
        time.sleep(0.05)
    return pid


def is_running(state_dir: Path) -> bool:
    """Return whether a bot runs on a state directory."""
    from tradingbot.io.state_files import lock_owner

    return lock_owner(state_dir) is not None


def kill(state_dir: Path, why: str) -> None:
    """Switch the kill switch on; a bot that runs, or starts later, opens no position while it is."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with_reserve(state_dir, lambda: _write_kill(state_dir / "KILL", why))


def _write_kill(path: Path, why: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:  # any word of a shell
        file.write(why + "\n")
        file.flush()
        os.fsync(file.fileno())


def arm(state_dir: Path) -> bool:
    """Switch the kill switch off; return whether it was on."""
    try:
        (state_dir / "KILL").unlink()
    except FileNotFoundError:
        return False
    return True
