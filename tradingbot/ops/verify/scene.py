"""What a verification looks at: the bot, the settings that it goes by, its log, and its status at several moments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tradingbot.config import Settings, make_settings
from tradingbot.errors import SettingsError
from tradingbot.io.overrides import Effective
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
from tradingbot.ops.record.history import History
from tradingbot.ops.rollback.restart import BotFacts, find_bot, status_of
from tradingbot.ops.verify.log_lines import LogLine, log_lines

__all__ = ["FOUR", "Look", "Scene", "behind", "has_begun", "look_at"]

FOUR = tuple(stream for stream in Stream if stream is not JOURNAL)
LOOK_S = 0.1
ALL_S, LEAST_S = 18.0, 0.5  # for which all checks together wait for what does not come, and each one at least
BEGUN_S = 10.0  # in which a bot that starts has reached its exchange
UP = ("running", "killed", "degraded")


@dataclass(frozen=True, slots=True)
class Look:
    """Hold status.json, and the sizes of the four streams' open segments, at one moment (seconds, monotonic)."""

    at_s: float
    status: Mapping[str, Any]
    sizes: Mapping[Stream, Mapping[str, int]]

    @property
    def bot(self) -> Mapping[str, Any]:
        """Return what the bot says of itself."""
        return _table(self.status.get("bot"))

    @property
    def data(self) -> Mapping[str, Any]:
        """Return what the bot says of its market data."""
        return _table(self.status.get("data"))

    @property
    def ticks(self) -> int:
        """Return how many tickers its session has accepted."""
        return int(self.data.get("ticks", 0))

    @property
    def is_held_back(self) -> bool:
        """Return whether the exchange has asked to be left alone."""
        return self.data.get("held_back_until_ms") is not None

    @property
    def is_trading(self) -> bool:
        """Return whether the bot goes by GLOBAL_TRADING on."""
        return self.bot.get("mode") != "observe"


@dataclass(slots=True)
class Scene:
    """Hold what the checks have in common.

    `settings` are those that the running bot goes by, out of its journal, where that tells; `start` is the record with
    which its session began. `last_min` is how many minutes of the exchange's time are proved.
    """

    effective: Effective
    bot: BotFacts
    first: Look
    settings: Settings
    start: Mapping[str, Any] = field(default_factory=dict)
    last_min: float = 10.0
    ends_s: float = field(default_factory=lambda: time.monotonic() + ALL_S)

    @property
    def state_dir(self) -> Path:
        """Return the state directory."""
        return self.effective.state_dir

    @property
    def log_folder(self) -> Path:
        """Return where the bot writes its log."""
        return self.effective.home.path / self.settings.LOG_DIR

    @property
    def started_ms(self) -> int:
        """Return when the session that runs was started, by the wall clock (ms)."""
        return int(self.first.bot.get("started_ms", 0))

    @property
    def speed(self) -> float:
        """Return how many times as fast as real time the exchange runs."""
        return max(float(self.first.bot.get("speed", 1.0)), 1.0)

    def look(self) -> Look:
        """Return how it looks now."""
        return Look(time.monotonic(), status_of(self.state_dir), _open_sizes(self.state_dir))

    def until(self, holds: Callable[[Look], bool], patience_s: float) -> Look:
        """Look again and again until something holds, for `patience_s` seconds at most; return the last look.

        Of a bot that hangs nothing comes: all checks together wait ALL_S for it, and not each.
        """
        now = time.monotonic()
        end_s = min(now + patience_s, max(self.ends_s, now + LEAST_S))
        while True:
            look = self.look()
            if holds(look) or time.monotonic() > end_s:
                return look
            time.sleep(LOOK_S)

    def read_settings(self) -> None:
        """Read out of the journal what the bot goes by now: it adopts what is live within two seconds."""
        if self.bot.is_running and self.bot.sid:
            settings, self.start = behind(self.state_dir, self.bot.sid)
            self.settings = settings or self.effective.settings

    def log(self, since_ms: int) -> list[LogLine]:
        """Return the lines of the log that matter since a time (ms, wall clock)."""
        return log_lines(self.log_folder, since_ms)


def look_at(effective: Effective, last_min: float = 10.0) -> Scene:
    """Return the scene as it is now; of a bot that has only just begun it waits a moment for its first words."""
    state_dir = effective.state_dir
    bot = find_bot(state_dir)
    scene = Scene(effective, bot, Look(0.0, {}, {}), effective.settings, last_min=last_min)
    if bot.is_running:
        scene.first = scene.until(lambda look: has_begun(look) or look.is_held_back, BEGUN_S)
        scene.bot = bot = find_bot(state_dir)
    scene.first = scene.look()
    scene.read_settings()
    return scene


def has_begun(look: Look) -> bool:
    """Return whether the session has reached its exchange."""
    return look.bot.get("state") in UP


def behind(state_dir: Path, sid: str) -> tuple[Settings | None, Mapping[str, Any]]:
    """Return the settings that a session goes by and the record of its start, as far as the journal tells."""
    history = History(state_dir)
    values: Mapping[str, Any] | None = None
    for found in history.newest(JOURNAL):
        record = found.record
        if record.get("sid") != sid:
            break
        if record.get("type") in ("settings", "session_start"):
            values = record.get("settings")
        elif "checkpoint" in record:
            values = record["checkpoint"].get("settings")
        if values is not None:
            break
    start = history.session_start(sid) or {}
    try:
        return (None if values is None else make_settings(values)), start
    except SettingsError:
        return None, start


def _table(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _open_sizes(state_dir: Path) -> dict[Stream, dict[str, int]]:
    """Return the sizes of the segments that are not sealed, by stream and name: of these alone any may grow."""
    sizes: dict[Stream, dict[str, int]] = {}
    for stream in FOUR:
        folder = state_dir / FOLDERS[stream]
        sizes[stream] = {}
        for segment in list_segments(folder) if folder.is_dir() else ():
            if not segment.sealed:
                try:
                    sizes[stream][segment.path.name] = segment.path.stat().st_size
                except OSError:  # sealed meanwhile
                    continue
    return sizes
