"""Clocks: the wall time at start plus the monotonic time since, so that setting a clock blinds nobody."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock"]


class Clock:
    """Tell the time in milliseconds since the epoch, `speed` times as fast as real time; it never runs back.

    `start_ms` is what it says first: by default the wall clock's time.
    """

    def __init__(
        self, speed: float = 1.0, start_ms: int | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._speed, self._monotonic = speed, monotonic
        self._began_ms = int(time.time() * 1000) if start_ms is None else start_ms
        self._began_s = monotonic()

    def now_ms(self) -> int:
        """Return the time."""
        return self._began_ms + int((self._monotonic() - self._began_s) * 1000 * self._speed)
