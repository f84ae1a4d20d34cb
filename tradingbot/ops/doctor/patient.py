"""Who is looked at: home, settings as far as they can be read, the lock, and what the bot last told of itself."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.errors import SettingsError, TradingBotError
from tradingbot.io.home import Home, find_settings_file, read_overrides, read_toml, split_assignment
from tradingbot.io.state_files import lock_owner
from tradingbot.ops.control import find_target

if TYPE_CHECKING:
    from tradingbot.io.overrides import Effective

__all__ = ["PACKAGE", "UNMENDED", "Patient", "meet", "number", "process_name", "rows"]

UNMENDED = "cannot be looked at until the environment is mended"
PLAIN: dict[str, Any] = {  # as in tradingbot.config, for while that cannot be imported; a test holds that
    "EXCHANGE": "embedded", "EMBEDDED_URL": "", "LOG_DIR": "logs", "ARCHIVE_DIR": "archives", "MIN_FREE_MB": 500.0,
    "WATCHDOG_S": 10.0, "FEATURE_ANCHOR_ENABLED": True, "FEATURE_PERSIST_STREAMS": True, "FEATURE_RETRY_BACKOFF": True,
    "FEATURE_WARMSTART_TICKS": True, "DROP_TRIGGER_VALUE": 0.985, "DROP_TRIGGER_MODE": 4, "WINDOW_LOOKBACK_S": 300.0,
    "WINDOW_STRICT_WARMUP": False, "GLOBAL_TRADING": False, "ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT": 0.5,
    "TICKER_MAX_AHEAD_S": 5.0, "POLL_S": 2.5,
}  # fmt: skip
PACKAGE = Path(__file__).resolve().parents[2]
"""Where this package lies; the folder above it is on the path of whatever imports it."""

MAX_STATUS_BYTES = 64_000_000


@dataclass(slots=True)
class Patient:
    """Hold what every diagnosis begins from.

    `status` is empty where nothing can be read of it; `owner` is who holds the lock, None where nobody does;
    `effective` is None where the settings, or the packages that read them, are broken: `trouble` says which.
    """

    home: Home
    state_dir: Path
    config: str | None
    state: str | None
    assignments: tuple[str, ...]
    environ: Mapping[str, str]
    status: dict[str, Any]
    owner: dict[str, Any] | None
    effective: Effective | None
    trouble: str
    is_unmended: bool
    layers: dict[str, Any] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)

    @property
    def is_running(self) -> bool:
        """Return whether a bot holds the state directory."""
        return self.owner is not None

    def setting(self, name: str) -> Any:
        """Return a setting in force; where the settings are broken, what can be made out of it, else the default."""
        if self.effective is not None:
            return getattr(self.effective.settings, name)
        value, default = self.layers.get(name, PLAIN[name]), PLAIN[name]
        if isinstance(default, bool) and isinstance(value, str):
            return value.strip().lower() in ("1", "true", "on", "yes")
        if isinstance(default, float | int) and not isinstance(default, bool):
            return number(value, default)
        return value if isinstance(value, type(default)) else default

    @property
    def log_dir(self) -> Path:
        """Return where the logs lie."""
        return self.home.path / str(self.setting("LOG_DIR"))

    def now_ms(self) -> int:
        """Return the time that the bot goes by: its own clock's where it runs on the embedded exchange."""
        status_ms = int(number(self.status.get("time_ms"), 0))
        is_embedded = self.bot.get("exchange", self.setting("EXCHANGE")) == "embedded"
        return status_ms if is_embedded and status_ms else int(time.time() * 1000)

    @property
    def bot(self) -> dict[str, Any]:
        """Return what the status tells of the bot."""
        found = self.status.get("bot")
        return found if isinstance(found, dict) else {}

    @property
    def data(self) -> dict[str, Any]:
        """Return what the status tells of market data."""
        found = self.status.get("data")
        return found if isinstance(found, dict) else {}

    @property
    def symbols(self) -> list[dict[str, Any]]:
        """Return the rows of the status, one a symbol."""
        return rows(self.status.get("symbols"))

    def status_age_s(self) -> float | None:
        """Return how long ago the status was written (s, the wall clock), None where there is none."""
        with contextlib.suppress(OSError):
            return max(time.time() - (self.state_dir / "status.json").stat().st_mtime, 0.0)
        return None


def number(value: object, default: float) -> float:
    """Return a number that a file or a text holds, `default` where it is none."""
    if isinstance(value, bool):
        return default
    if isinstance(value, int | float | str):
        with contextlib.suppress(ValueError, OverflowError):
            found = float(value)
            if found == found and abs(found) != float("inf"):  # noqa: PLR0124  (NaN)
                return found
    return default


def rows(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list that a file holds; none where it is no list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def meet(
    home: Home, config: str | None, state: str | None, assignments: Iterable[str], environ: Mapping[str, str]
) -> Patient:
    """Return the patient; refuse nothing, whatever is broken."""
    assignments = tuple(assignments)
    target = find_target(home, config=config, state=state, assignments=assignments, environ=environ)
    effective, trouble, is_unmended = None, "", False
    try:
        from tradingbot.io.overrides import read_settings

        effective = read_settings(home, config=config, state=state, assignments=assignments, environ=environ)
    except (TradingBotError, OSError) as error:
        trouble = str(error)
    except Exception as error:  # noqa: BLE001  (a half upgraded package fails in more ways than by its absence)
        trouble, is_unmended = f"{type(error).__name__}: {error}", True
    state_dir = target.state_dir if effective is None else effective.state_dir
    found = Patient(
        home, state_dir, config, state, assignments, environ, read_whole_status(state_dir), lock_owner(state_dir),
        effective, trouble, is_unmended,
    )  # fmt: skip
    if effective is None:
        found.layers = _layers(found)
    return found


def read_whole_status(state_dir: Path) -> dict[str, Any]:
    """Return status.json as it is, empty where it is none of this version."""
    path = state_dir / "status.json"
    try:
        if not path.is_file() or path.stat().st_size > MAX_STATUS_BYTES:
            return {}
        status = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) and status.get("v") == 1 else {}


def _layers(patient: Patient) -> dict[str, Any]:
    """Return what the layers say, the later wins, unchecked; what cannot be read is passed over."""
    values: dict[str, Any] = {}
    with contextlib.suppress(TradingBotError, OSError):
        values |= read_toml(find_settings_file(patient.home, patient.config))
    values |= {name: patient.environ[name] for name in PLAIN if name in patient.environ}
    for assignment in patient.assignments:
        with contextlib.suppress(SettingsError):
            name, text = split_assignment(assignment)
            values[name] = text
    with contextlib.suppress(TradingBotError, OSError):
        values |= read_overrides(patient.state_dir)
    return values


def process_name(pid: int) -> str:
    """Return the command of a process of this machine, "" where there is none."""
    if pid <= 0:
        return ""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except OSError:
            return "?"
        return "?"
    text = b" ".join(words).decode(errors="replace").strip()
    return "".join(c if c.isprintable() else "?" for c in text)[:120] or "?"
