"""Logs: one line an event, in UTC, into a file that is rotated, and to stderr where nobody looks at a dashboard."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tradingbot.config import Settings

__all__ = ["logging_to"]

KEPT_FILES = 5
FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"


@contextmanager
def logging_to(folder: Path, settings: Settings, stderr: bool) -> Iterator[None]:
    """Log the package's lines while in use; files and folder are the user's own (0600, 0700)."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / time.strftime("trading_bot_%Y%m%d.log", time.gmtime())
    os.close(os.open(path, os.O_CREAT | os.O_APPEND, 0o600))
    size = int(settings.LOG_MAX_MB * 1_000_000)
    handlers: list[logging.Handler] = [RotatingFileHandler(path, maxBytes=size, backupCount=KEPT_FILES)]
    if stderr:
        handlers.append(logging.StreamHandler())
    formatter = logging.Formatter(FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
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
