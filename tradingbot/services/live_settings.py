"""Live settings: what a settings file has changed is adopted, as far as it may be while the bot runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as replace_settings

from tradingbot.config import Settings, registry
from tradingbot.errors import UsageError
from tradingbot.io.overrides import Effective

__all__ = ["LiveSettings"]

log = logging.getLogger(__name__)


class LiveSettings:
    """Hold the settings in force, and look at the files that may change them.

    `check` raises UsageError for settings that the running bot refuses.
    """

    def __init__(self, effective: Effective, check: Callable[[Settings], None]) -> None:
        self.effective, self._check = effective, check
        self._stamps: tuple[tuple[int, ...] | None, ...] | None = None

    @property
    def settings(self) -> Settings:
        """Return the settings in force."""
        return self.effective.settings

    def look(self) -> bool:
        """Adopt what has changed and is live; return whether anything has. What does not validate is refused whole."""
        stamps = tuple(_stamp(path) for path in self.effective.files)
        again = self.effective.again
        if stamps == self._stamps or again is None:
            return False
        self._stamps, is_first = stamps, self._stamps is None
        if is_first:
            return False
        try:
            fresh = again()
            self._check(fresh.settings)
        except UsageError as error:
            log.error("settings are refused, those in force stay: %s", error)  # noqa: TRY400  (one line)
            return False
        live = [name for name, setting in registry().items() if not setting.restart]
        changed = {name: getattr(fresh.settings, name) for name in live}
        changed = {name: value for name, value in changed.items() if value != getattr(self.settings, name)}
        self.effective = replace(fresh, settings=replace_settings(self.settings, **changed))
        if not changed:
            return False
        log.warning("settings changed: %s", " ".join(f"{name}={value}" for name, value in changed.items()))
        return True


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
