"""The embedded exchange's memory: its account and its time, in one file beside its market."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from tradingbot.simulated.core import Core

__all__ = ["Memory"]

LATEST_MS = 4_102_444_800_000  # 2100: what says more is damaged
AHEAD_S = 1.5  # the time that is kept is so much later than now: after a kill nothing is told twice


class Memory:
    """Keep what a restart must find, written whole and renamed; a change of the account survives a power loss too."""

    def __init__(self, path: Path, core: Core) -> None:
        self._path, self._core = path, core
        self._kept: dict[str, object] = {}

    def load(self) -> int:
        """Give the core its account back and return the time that was kept, 0 without a file.

        Raises ValueError, KeyError, TypeError or ArithmeticError where the file is damaged.
        """
        try:
            record = orjson.loads(self._path.read_bytes())
        except FileNotFoundError:
            return 0
        now_ms = int(record["now_ms"])
        if not 0 <= now_ms < LATEST_MS:
            raise ValueError(f"now_ms is {now_ms}")
        self._core.account.restore(record["account"])
        return now_ms

    def keep(self, now_ms: int, ahead_s: float = AHEAD_S) -> None:
        """Keep the account, and the time `ahead_s` real seconds after `now_ms`."""
        account = self._core.account.record()
        partial = self._path.with_suffix(".tmp")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            until_ms = now_ms + int(ahead_s * 1000 * self._core.speed)
            file.write(orjson.dumps({"v": 1, "now_ms": until_ms, "account": account}))
            if account != self._kept:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(self._path)
        self._kept = account
