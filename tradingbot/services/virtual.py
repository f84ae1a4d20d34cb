"""Virtual time: the same session in one process, where waiting costs nothing and a day takes minutes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import selectors
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tradingbot.config import Settings
from tradingbot.errors import UsageError
from tradingbot.exchange.twin import TwinExchange
from tradingbot.io.overrides import Effective
from tradingbot.services.clock import Clock
from tradingbot.services.connect import Surroundings
from tradingbot.services.embedded import lock_exchange, make_core
from tradingbot.services.session import Session
from tradingbot.simulated.faults import Faults

__all__ = ["VirtualLoop", "run_virtual"]

START_MS = 1_767_225_600_000  # 2026-01-01: a fixed time, so that two runs are equal
STATUS_S = 60.0


class _Selector(selectors.PollSelector):
    """Never wait: where nothing is ready, the time that would have been waited is passed on."""

    def __init__(self, passed: Callable[[float], None]) -> None:
        super().__init__()
        self._passed = passed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now."""
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and timeout is None:
            return list(super().select(None))  # nothing to come but a signal
        if not ready and timeout is not None and timeout > 0:
            self._passed(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only where everybody waits, and then at once."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        super().__init__(_Selector(self._pass))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_s

    def wall_s(self) -> float:
        """Return the virtual wall time in seconds since the epoch, to the millisecond."""
        return START_MS / 1000 + round(self._virtual_s, 3)

    def _pass(self, seconds: float) -> None:
        self._virtual_s += seconds


class _VirtualClock(Clock):
    """Tell the virtual time, or that of the event that is being delivered."""

    _event_ms: int | None = None

    def now_ms(self) -> int:
        """Return the time."""
        return super().now_ms() if self._event_ms is None else self._event_ms

    def at(self, ms: int | None) -> None:
        """Stand at the time of an event until the next one; None: go on."""
        self._event_ms = ms


def run_virtual(
    effective: Effective,
    duration_s: float,
    loop: VirtualLoop,
    show: Callable[[dict[str, Any]], None] | None = None,
    faults: Faults | None = None,
) -> Session:
    """Run a bot on the embedded exchange in this process for `duration_s` seconds of a virtual loop.

    Return the session. The same settings and state directory give the same session, to the byte. Raises UsageError for
    another exchange.
    """
    settings = effective.settings
    if settings.EXCHANGE != "embedded" or settings.EMBEDDED_URL:
        raise UsageError(
            "virtual time needs the embedded exchange in this process: EXCHANGE = embedded, no EMBEDDED_URL"
        )

    async def connect(settings: Settings, state_dir: Path, _: int, stack: contextlib.AsyncExitStack) -> Surroundings:
        stack.enter_context(lock_exchange(state_dir))
        core, memory, start_ms = make_core(settings, state_dir, "key", "secret", START_MS, faults)
        clock = _VirtualClock(settings.EMBEDDED_SPEED, start_ms, loop.time)
        stack.callback(lambda: memory.keep(clock.now_ms(), ahead_s=0.0))
        return Surroundings(TwinExchange(core, clock.now_ms, clock.at, settings.REQUEST_TIMEOUT_S), clock)

    async def main() -> Session:
        session = Session(
            effective,
            show,
            connect,
            lambda: round(loop.wall_s() * 1000),
            loop.time,
            STATUS_S,
            threaded=False,
        )
        await session.run(duration_s)
        return session

    before = gc.get_threshold()
    gc.freeze()  # what has been imported stays, and need not be looked through again and again
    gc.set_threshold(100_000, *before[1:])
    try:
        return loop.run_until_complete(main())
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
        loop.close()
