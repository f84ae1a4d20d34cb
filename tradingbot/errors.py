"""The error tree: what can be skipped, and what must stop the program.

TradingBotError
├── Recoverable             skip it, count it, go on
│   └── DataError           a file or a row that cannot be used
└── Unrecoverable           persist, stop, tell the operator what to do
    ├── UsageError          wrong command, wrong input, nothing to work on      exit 2
    │   └── SettingsError   a setting, or a pair of them, that is not allowed   exit 2
    └── StateError          the state directory is refused                      exit 4
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "Recoverable",
    "SettingsError",
    "StateError",
    "TradingBotError",
    "Unrecoverable",
    "UsageError",
]


class TradingBotError(Exception):
    """Say what went wrong in one line; `exit_code` is what a command ends with."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the line that says what to do, without the way that led to it."""
        return [f"{type(self).__name__}: {''.join(c if c.isprintable() else '?' for c in str(self))}"]


class Recoverable(TradingBotError):  # noqa: N818  (a branch of the tree, named for what it asks of who catches it)
    """Skip, count and go on."""


class DataError(Recoverable):
    """Name a file, or rows of it, that cannot be used."""


class Unrecoverable(TradingBotError):  # noqa: N818  (same)
    """Persist, stop and tell the operator what to do."""


class UsageError(Unrecoverable):
    """Name the wrong word of a command, or the input that is of no use."""

    exit_code = 2


class SettingsError(UsageError):
    """Name the setting, its value, where it stands and what is allowed."""


class StateError(Unrecoverable):
    """Say why the state directory is refused."""

    exit_code = 4
