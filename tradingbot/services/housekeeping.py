"""Housekeeping: full segments are sealed, the oldest go when they are too many, a full disk stops the recording."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tradingbot.config import Settings
from tradingbot.io.reserve import RESERVE_BYTES, disk_low, give_up_reserve, keep_reserve
from tradingbot.io.sealing import Deletion, Store, apply_retention, plan_retention, seal
from tradingbot.io.segments import list_segments, load_sessions, names_by_series
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream

__all__ = ["Housekeeper", "Planned"]

log = logging.getLogger(__name__)

ROOM_S = 10.0  # between two looks at the room that is left, which cost next to nothing
LOOK_S = 60.0  # between two at what is too old or too much
DAY_MS = 86_400_000
RANKS = {Stream.SNAPSHOTS: 0, Stream.WINDOWS: 1, Stream.ANCHORS: 2, Stream.TICKS: 3}  # the lowest go first


class Planned(NamedTuple):
    """Hold what is to be deleted, and of each session in it its first and last `seq` and how many records it is."""

    deletion: Deletion
    sessions: dict[str, list[int]]
    is_asked: bool = False  # by an operator, and not for age or size


class Housekeeper:
    """Look after the segments of a state directory on a thread of its own, while in use.

    `full` takes the path of a segment that is full or past. `is_low` is true while the disk has less than MIN_FREE_MB
    left: nothing more is to be recorded then but the journal, for which the reserve is given up. `settings` is asked
    anew at every look. With `threaded` false nothing is done but when `look` is called.

    What a proof would miss (ticks, journal) is deleted only after `take_planned` has told whoever keeps the journal,
    and `delete` has said that it stands there.
    """

    def __init__(self, state_dir: Path, settings: Callable[[], Settings], threaded: bool = True) -> None:
        self._state_dir, self._settings = state_dir, settings
        self.is_low = False
        self._full: queue.SimpleQueue[Path | list[Planned] | tuple[str, ...] | None] = queue.SimpleQueue()
        self._planned: queue.SimpleQueue[Planned] = queue.SimpleQueue()
        self._known: set[Path] = set()  # planned, and not deleted yet
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True) if threaded else None
        self._ending = False

    def begin(self) -> None:
        """See how much room is left, and begin to look after the segments."""
        self.look(deletes=self._thread is None)
        if self._thread is not None:
            self._thread.start()

    def full(self, path: Path) -> None:
        """Have a segment sealed."""
        self._full.put(path)

    def close(self, timeout_s: float) -> None:
        """End the thread; what is not sealed yet is found by the next session."""
        self._ending = True
        self._full.put(None)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout_s)

    def take_planned(self) -> list[Planned]:
        """Return what is to be deleted next, for the journal; one thread at a time."""
        return [self._planned.get() for _ in range(self._planned.qsize())]

    def delete(self, told: list[Planned]) -> None:
        """Have deleted, by the housekeeper's thread, what the journal tells by now."""
        self._full.put(told)

    def ask(self, files: Sequence[str]) -> None:
        """Have sealed segments of ticks announced and deleted, by their names, that an operator wants gone.

        The newest segment of a series stays, and so does what is no segment, or has no manifest to announce it by.
        """
        self._full.put(tuple(files))

    def look(self, deletes: bool = True) -> None:
        """See how much room is left, and delete what is too old or too much, or have it announced."""
        settings = self._settings()
        try:
            again_mb = RESERVE_BYTES / 1e6 if self.is_low else 0  # taking it up again must not make the disk low
            low = disk_low(self._state_dir, math.ceil(settings.MIN_FREE_MB + again_mb))
            if low != self.is_low:
                self.is_low = low
                if low:
                    log.error("%s stop: less than MIN_FREE_MB = %d MB are free", self._word(), settings.MIN_FREE_MB)
                    give_up_reserve(self._state_dir)
                else:
                    log.warning("%s go on: there is room on the disk again", self._word())
            if not low:
                keep_reserve(self._state_dir)
            if deletes:
                self._plan(settings)
        except OSError as error:
            log.error("%s housekeeping: %s", self._word(), error.strerror or error)  # noqa: TRY400  (one line)

    def _plan(self, settings: Settings) -> None:
        """Delete what is too old or too much of the derived streams, and announce what else is."""
        now_ms = int(time.time() * 1000)
        tick_days, journal_days = settings.TICKS_RETENTION_DAYS, settings.JOURNAL_RETENTION_DAYS
        oldest = now_ms - tick_days * DAY_MS if tick_days else None
        stores = [
            Store(self._state_dir / FOLDERS[stream], rank, oldest if stream is Stream.TICKS else None)
            for stream, rank in RANKS.items()
        ]
        plan = plan_retention(stores, int(settings.STREAMS_MAX_GB * 1e9))
        ticks = list_segments(self._state_dir / FOLDERS[Stream.TICKS])
        oldest_tick_ms = min((segment.end_ms - DAY_MS for segment in ticks), default=now_ms)
        journal_ms = min(now_ms - journal_days * DAY_MS, oldest_tick_ms)  # ticks without their journal prove nothing
        plan += plan_retention([Store(self._state_dir / FOLDERS[JOURNAL], 0, journal_ms)])
        proved = {self._state_dir / FOLDERS[stream] for stream in (Stream.TICKS, JOURNAL)}
        for deletion in plan:
            if self._thread is None or deletion.path.parent not in proved:
                self._delete(deletion)
            elif deletion.path not in self._known:
                self._known.add(deletion.path)
                self._planned.put(Planned(deletion, load_sessions(deletion.path)))

    def _announce(self, files: Sequence[str]) -> None:
        """Announce what an operator has asked to delete."""
        segments = list_segments(self._state_dir / FOLDERS[Stream.TICKS])
        newest = {segment.series: segment.path for segment in segments}
        sealed = {segment.path.name: segment.path for segment in segments if segment.sealed}
        for name in files:
            path = sealed.get(name)
            if path is None or path in self._known or path in newest.values():
                continue
            sessions = load_sessions(path)
            if sessions:
                self._known.add(path)
                self._planned.put(Planned(Deletion(path, 0, "asked for by an operator"), sessions, is_asked=True))

    def _delete(self, deletion: Deletion) -> None:
        ((_, error),) = apply_retention([deletion])
        self._known.discard(deletion.path)
        became = "deleted" if error is None else f"could not be deleted ({error.strerror})"
        log.info("%s segment=%s %s: %s", self._word(), deletion.path.name, became, deletion.reason)

    def _word(self) -> str:
        """Return what the log calls the streams: by the feature's word only while it is on."""
        return "jsonl streams" if self._settings().FEATURE_PERSIST_STREAMS else "streams"

    def _run(self) -> None:
        self._seal_left_over()
        looked_s = planned_s = time.monotonic()
        self.look()
        while not self._ending:
            try:
                work = self._full.get(timeout=ROOM_S)
                if isinstance(work, Path):
                    self._seal(work)
                elif isinstance(work, tuple):
                    self._announce(work)
                for planned in work if isinstance(work, list) else ():
                    self._delete(planned.deletion)
            except queue.Empty:
                pass
            now_s = time.monotonic()
            if not self._ending and now_s - looked_s >= ROOM_S:
                looked_s, deletes = now_s, now_s - planned_s >= LOOK_S
                planned_s = now_s if deletes else planned_s
                self.look(deletes)

    def _seal_left_over(self) -> None:
        """Seal what an earlier session left full; the newest segment of a series is still written on."""
        for folder in FOLDERS.values():
            place = self._state_dir / folder
            try:
                for series in names_by_series(place) if place.is_dir() else ():
                    for segment in list_segments(place, series)[:-1]:
                        if self._ending:
                            return
                        if not segment.sealed:
                            self._seal(segment.path)
            except OSError as error:  # a folder that cannot be listed now: the next start looks again
                log.error("%s housekeeping: %s", self._word(), error)  # noqa: TRY400  (one line)

    def _seal(self, path: Path) -> None:
        try:
            seal(path)
        except OSError as error:
            why = error.strerror or error
            log.error("%s segment=%s could not be sealed: %s", self._word(), path.name, why)  # noqa: TRY400
