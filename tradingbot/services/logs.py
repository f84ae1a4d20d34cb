"""Logs: one line an event, in UTC, into a file that is rotated, and to stderr where nobody looks at a dashboard."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tradingbot.config import Settings

__all__ = ["logging_to"]

KEPT_FILES = 5
FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"


class _Formatter(logging.Formatter):
    def __init__(self, wall_s: Callable[[], float] | None) -> None:
        super().__init__(FORMAT, "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self._wall_s = wall_s

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line under the time that the session goes by, the same in every handler."""
        if self._wall_s is not None and record.created != getattr(record, "wall_s", None):
            record.created = record.__dict__["wall_s"] = self._wall_s()
            record.msecs = record.created % 1 * 1000
        if not record.__dict__.setdefault("is_plain", False):  # no line, and no command of a terminal, out of a message
            record.msg, record.args = "".join(c if c.isprintable() else "?" for c in record.getMessage()), None
            record.__dict__["is_plain"] = True
        return super().format(record)


@contextmanager
def logging_to(
    folder: Path, settings: Settings, stderr: bool, wall_s: Callable[[], float] | None = None
) -> Iterator[None]:
    """Log the package's lines while in use; files and folder are the user's own (0600, 0700).

    `wall_s` tells the time that stands on each line, in seconds since the epoch: by default the wall clock's.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / time.strftime("trading_bot_%Y%m%d.log", time.gmtime((wall_s or time.time)()))
    os.close(os.open(path, os.O_CREAT | os.O_APPEND, 0o600))
    size = int(settings.LOG_MAX_MB * 1_000_000)
    handlers: list[logging.Handler] = [RotatingFileHandler(path, maxBytes=size, backupCount=KEPT_FILES)]
    if stderr:
        handlers.append(logging.StreamHandler())
    formatter = _Formatter(wall_s)
    logger = logging.getLogger("tradingbot")
    logger.setLevel(settings.LOG_LEVEL)
    logger.propagate = False
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
