"""The numbers of a session's inputs: which are there, which are not, and what is known to have taken those."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["LAST_MOMENTS", "Missing", "Numbers", "Session"]

LAST_MOMENTS = 10_000  # inputs: more than any kill or power loss takes of what waited to be written
_CHUNK = 4_096  # numbers that share a bitmap: what one number far off costs is 512 bytes

NO_INPUTS = (
    "checkpoint", "checkpoint_part", "rejections", "deleted", "decision", "exit", "fill", "cancelled", "trade",
)  # fmt: skip

Stretch = tuple[int, int]


class Numbers:
    """Remember which whole numbers have been met, in a bit for each where they stand close together."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}

    def add(self, number: int) -> bool:
        """Take in a number; return False where it was there already."""
        place = number // _CHUNK
        chunk = self._chunks.get(place)
        if chunk is None:
            chunk = self._chunks[place] = bytearray(_CHUNK // 8)
        byte, bit = number % _CHUNK >> 3, 1 << (number & 7)
        if chunk[byte] & bit:
            return False
        chunk[byte] |= bit
        return True

    def missing(self, first: int, last: int) -> Iterator[Stretch]:
        """Yield the stretches from `first` to `last`, both included, that have not been met."""
        expected = first
        for place in sorted(self._chunks):
            bits = np.unpackbits(np.frombuffer(self._chunks[place], np.uint8), bitorder="little")
            met = np.flatnonzero(bits) + place * _CHUNK
            met = met[(met >= expected) & (met <= last)]
            if len(met) == 0:
                continue
            if met[0] > expected:
                yield expected, int(met[0]) - 1
            for jump in np.flatnonzero(np.diff(met) > 1):
                yield int(met[jump]) + 1, int(met[jump + 1]) - 1
            expected = int(met[-1]) + 1
        if expected <= last:
            yield expected, last


@dataclass(frozen=True, slots=True)
class Missing:
    """Name a stretch of inputs that no record holds, and why, None where nothing says why."""

    first: int
    last: int
    why: str | None

    @property
    def count(self) -> int:
        """Return how many they are."""
        return self.last - self.first + 1


@dataclass(slots=True)
class Session:
    """Gather what the records of one session say of its inputs."""

    sid: str
    numbers: Numbers = field(default_factory=Numbers)
    inputs: int = 0
    twice: int = 0
    lowest: int | None = None
    highest: int = 0
    before: int | None = None  # the number that the session started from
    started_ms: int | None = None
    end: int | None = None
    gaps: int = 0  # records that gap records name
    kept_from: int = 0  # what of it lies before has been deleted with its segments, as far as one can tell
    deleted: list[Stretch] = field(default_factory=list)  # what the journal says was in segments that were deleted
    _off: list[Stretch] = field(default_factory=list)
    _off_since: int | None = None

    def take(self, record: dict[str, Any]) -> None:
        """Take in a record of the ticks or of the journal."""
        kind, seq = record.get("type"), whole(record.get("seq"))
        if kind == "gap":
            self.gaps += whole(record.get("missing")) or 0
        elif kind == "session_start":
            checkpoint = record.get("checkpoint")
            self.before = whole(checkpoint.get("seq")) if isinstance(checkpoint, dict) else None
            self.started_ms = whole(record.get("ts_ms"))
        elif kind == "session_end":
            self.end = seq
        elif kind == "recording" and seq is not None:
            self._switch(seq, record.get("on") is True)
        elif seq is not None and (kind is None or kind not in NO_INPUTS):
            self.inputs += 1
            if not self.numbers.add(seq):
                self.twice += 1
            if self.lowest is None or seq < self.lowest:
                self.lowest = seq
            if seq > self.highest:
                self.highest = seq

    def _switch(self, seq: int, is_on: bool) -> None:
        if not is_on:
            self._off_since = seq + 1
        elif self._off_since is not None:
            self._off.append((self._off_since, seq))
            self._off_since = None

    def missing(self) -> list[Missing]:
        """Return the stretches without a record, each with the reason where one is known."""
        if self.lowest is None:
            return []
        first = self.lowest if self.before is None else self.before + 1
        last = self.highest if self.end is None else self.end
        off = self._off + ([] if self._off_since is None else [(self._off_since, last)])
        found = []
        for low, high in self.numbers.missing(first, last):
            why = None
            if any(begin <= low and high <= finish for begin, finish in off):
                why = "not recorded: switched off, or the disk was full"
            elif high < self.kept_from:
                why = "their segments are gone"
            elif _is_within(low, high, self.deleted):
                why = "their segments were deleted"
            elif self.end is None and low > last - LAST_MOMENTS:
                why = "the session has no end: not written yet, or lost with it"
            found.append(Missing(low, high, why))
        return found


def _is_within(low: int, high: int, stretches: list[Stretch]) -> bool:
    """Say whether stretches together hold all numbers from `low` to `high`."""
    for first, last in sorted(stretches):
        if first <= low <= last:
            low = last + 1
    return low > high


def whole(value: object) -> int | None:
    """Return a value as a number that can be one of a record's, None where it is none."""
    return value if type(value) is int and 0 <= value < 1 << 62 else None
