"""What every result can do: show itself as text and as a table, and be found under a home."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from tradingbot.io.home import Home
    from tradingbot.io.overrides import Effective
    from tradingbot.ops.control import Target

__all__ = ["Shown", "effective_at", "frame_of", "home_at", "state_at", "target_at"]

Place = str | Path | None


class Shown(ABC):
    """Show a value: its text where there is a terminal, tables where there is a notebook."""

    __slots__ = ()

    @abstractmethod
    def text(self) -> str:
        """Return it in words."""

    def html(self) -> str:
        """Return it as HTML, every foreign text escaped."""
        from tradingbot.ui.html_tables import preformatted

        return preformatted(self.text())

    def __repr__(self) -> str:
        from tradingbot.ui.plain import printable_lines

        return printable_lines(self.text())

    def _repr_html_(self) -> str:
        return self.html()


def home_at(home: Place) -> Home:
    """Return the home, found as every command finds it; nothing and "" stand for no --home."""
    from tradingbot.io.home import find_home

    return find_home(str(home) if home else None, os.environ, Path.cwd())


def target_at(home: Place, state: Place = None, config: Place = None) -> Target:
    """Return where the bot is to be found, passing over settings that are broken."""
    from tradingbot.ops.control import find_target

    return find_target(home_at(home), config=_word(config), state=_word(state))


def effective_at(home: Place, state: Place = None, config: Place = None) -> Effective:
    """Return the settings in force, also where overrides.json is broken; raise SettingsError for any other trouble."""
    from tradingbot.io.overrides import in_force, read_settings

    return in_force(read_settings(home_at(home), config=_word(config), state=_word(state), overrides=False))


def state_at(home: Place, state: Place = None, config: Place = None) -> Path:
    """Return the state directory, for what looks at the record and asks for no other setting."""
    return target_at(home, state, config).state_dir


def frame_of(records: Iterable[dict[str, Any]], index: str | None = None, time: str | None = None) -> pd.DataFrame:
    """Return records as a DataFrame, indexed by one of their members or by a time (ms) of theirs, UTC."""
    import pandas as pd

    frame = pd.DataFrame.from_records(list(records))
    if time is not None and time in frame:
        frame.index = pd.DatetimeIndex(pd.to_datetime(frame[time], unit="ms", utc=True), name="time")
    return frame.set_index(index) if index is not None and index in frame else frame


def _word(place: Place) -> str | None:
    return str(place) if place else None
