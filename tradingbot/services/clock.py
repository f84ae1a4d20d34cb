"""Clocks: the wall time at start plus the time that has passed since, so that setting a clock blinds nobody."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock", "StepWatch", "passed_s", "wall_ms"]

STEP_MS = 1000  # a wall clock that is off by more has been set, or the machine slept


def passed_s() -> float:
    """Return seconds that run on whatever the wall clock is set to, and while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def wall_ms() -> int:
    """Return the wall clock's time in milliseconds since the epoch."""
    return int(time.time() * 1000)


class Clock:
    """Tell the time in milliseconds since the epoch, `speed` times as fast as real time; it never runs back.

    `start_ms` is what it says first: by default the wall clock's time.
    """

    def __init__(
        self, speed: float = 1.0, start_ms: int | None = None, monotonic: Callable[[], float] = passed_s
    ) -> None:
        self.speed, self._monotonic = speed, monotonic
        self._began_ms = wall_ms() if start_ms is None else start_ms
        self._began_s = monotonic()
        self._said_ms = self._began_ms

    def now_ms(self) -> int:
        """Return the time."""
        now = self._began_ms + int((self._monotonic() - self._began_s) * 1000 * self.speed)
        self._said_ms = max(self._said_ms, now)
        return self._said_ms

    def follow(self, ms: int, speed: float) -> None:
        """Go on from another clock's time at its speed; where that is behind, stand until it has caught up."""
        self._began_ms, self._began_s, self.speed = ms, self._monotonic(), speed


class StepWatch:
    """Notice that the wall clock was set, or that the machine slept: wall and monotonic time part.

    `wall_ms` gives milliseconds, `monotonic` seconds that stand still while the machine sleeps.
    """

    def __init__(self, wall_ms: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall_ms, self._monotonic = wall_ms, monotonic
        self._apart_ms = self._apart()

    def step_ms(self) -> int:
        """Return by how much the two have parted since the last call; 0 up to a second."""
        step = self._apart() - self._apart_ms
        if abs(step) <= STEP_MS:
            return 0
        self._apart_ms += step
        return step

    def _apart(self) -> int:
        return self._wall_ms() - int(self._monotonic() * 1000)
