"""Shortages that a driver brings upon itself: a full disk, one without inodes, no descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path


class Shortage(ABC):
    """Be on from one input of the series to another."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self._folder = folder
        self._first, self._last, *self._words = map(int, words)

    def at(self, place: int) -> None:
        """Begin or end where that is due."""
        if place == self._first:
            self.begin()
        elif place == self._last:
            self.end()

    @abstractmethod
    def begin(self) -> None:
        """Bring it about."""

    @abstractmethod
    def end(self) -> None:
        """Take it back."""


class FullDisk(Shortage):
    """Leave no room on the disk, but for some bytes in files that have blocks already."""

    def begin(self) -> None:
        """Fill the disk."""
        with (self._folder.parent / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1024))

    def end(self) -> None:
        """Make room."""
        (self._folder.parent / "ballast").unlink()


class NoInodes(Shortage):
    """Leave no room for another file."""

    def begin(self) -> None:
        """Make files until there can be no more."""
        ballast = self._folder.parent / "files"
        ballast.mkdir()
        with contextlib.suppress(OSError):
            for number in range(10**6):
                (ballast / str(number)).touch()

    def end(self) -> None:
        """Remove them."""
        for path in (self._folder.parent / "files").iterdir():
            path.unlink()


class NoDescriptors(Shortage):
    """Allow no more than so many open files."""

    def begin(self) -> None:
        """Lower the limit."""
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._words[0], self._before[1]))
        self._open = []
        with contextlib.suppress(OSError):
            while True:
                self._open.append(os.open("/dev/null", os.O_RDONLY))
        for descriptor in self._open[len(self._open) - self._words[0] % 4 :]:  # some are left
            os.close(descriptor)

    def end(self) -> None:
        """Lift it."""
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)
        for descriptor in self._open[: len(self._open) - self._words[0] % 4]:
            os.close(descriptor)


SHORTAGES: dict[str, Callable[[Path, list[str]], Shortage]] = {
    "space": FullDisk, "inodes": NoInodes, "descriptors": NoDescriptors,
}  # fmt: skip
