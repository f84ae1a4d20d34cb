"""The log: the lines that matter since a time, and a log that is followed while it is written."""

from __future__ import annotations

import calendar
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["BAD", "LogLine", "LogTail", "iso", "log_lines", "parse_line"]

PATTERN = "trading_bot_*.log*"
LONGEST = 65_536  # of a line that is looked at
BAD = ("ERROR", "CRITICAL")
MARKS = (b" ERROR ", b" CRITICAL ", b"HEARTBEAT - ", b" WARNING ", b"Traceback (most recent call last)")
"""What a line holds that a verification looks at: others are only counted by."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """Hold one line: its time (ms, as it stands there; 0 where none does), its level and what it says."""

    ts_ms: int
    level: str
    text: str

    @property
    def is_bad(self) -> bool:
        """Return whether it tells of an error."""
        return self.level in BAD


def iso(ts_ms: float) -> str:
    """Return a time as the log spells it."""
    whole = int(ts_ms)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole // 1000))}.{whole % 1000:03d}Z"


def parse_line(raw: bytes) -> LogLine:
    """Return what a line of the log says; a traceback's is an error without a time."""
    text = raw[:LONGEST].decode(errors="replace").rstrip("\n")
    when, _, rest = text.partition(" ")
    level, _, said = rest.partition(" ")
    try:
        seconds = calendar.timegm(time.strptime(when[:19], "%Y-%m-%dT%H:%M:%S"))
        return LogLine(seconds * 1000 + int(when[20:23]), level, said)
    except (ValueError, OverflowError):
        return LogLine(0, "ERROR" if text.startswith("Traceback (most recent") else "", text)


def log_lines(folder: Path, since_ms: int) -> list[LogLine]:
    """Return the warnings, errors and heartbeats of a log folder since a time (ms), in the order of their times.

    Memory follows these lines, of which a bot that is well writes one a minute.
    """
    found: list[LogLine] = []
    for path in _files(folder):
        before = b""
        try:
            if path.stat().st_mtime * 1000 < since_ms:
                continue
            with path.open("rb") as file:
                for raw in _lines(file):
                    if any(mark in raw for mark in MARKS):
                        line = parse_line(raw)
                        ts_ms = line.ts_ms or parse_line(before).ts_ms
                        if ts_ms >= since_ms:
                            found.append(LogLine(ts_ms, line.level, line.text))
                    elif not raw[:1].isdigit():
                        continue
                    before = raw
        except OSError:  # rotated away while it was looked at
            continue
    return sorted(found, key=lambda line: line.ts_ms)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(PATTERN))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines, of one without an end no more than its beginning at a time."""
    while line := file.readline(1 << 20):
        yield line


class LogTail:
    """Follow the log of a folder from its present end on, also over rotation and the first file of another day."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[tuple[int, int], int] = {}
        self._rest: dict[tuple[int, int], bytes] = {}
        for path in _files(folder):
            with self._opened(path) as (key, file):
                if key is not None and file is not None:
                    self._places[key] = file.seek(0, os.SEEK_END)

    def new(self) -> list[LogLine]:
        """Return the whole lines that have come since the last call, those of rotated files first."""
        found: list[LogLine] = []
        for path in sorted(_files(self._folder), key=_mtime):
            with self._opened(path) as (key, file):
                if key is None or file is None:
                    continue
                file.seek(self._places.get(key, 0))
                text = self._rest.pop(key, b"") + file.read()
                self._places[key] = file.tell()
                *lines, rest = text.split(b"\n")
                if rest:
                    self._rest[key] = rest[:LONGEST]
                found += [parse_line(line) for line in lines]
        return found

    @staticmethod
    def _opened(path: Path) -> _Opened:
        return _Opened(path)


class _Opened:
    """Open a file, if it is still there, and tell it apart from any other that comes under its name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> tuple[tuple[int, int] | None, BinaryIO | None]:
        try:
            self._file = self._path.open("rb")
            facts = os.fstat(self._file.fileno())
        except OSError:
            return None, None
        return (facts.st_dev, facts.st_ino), self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
