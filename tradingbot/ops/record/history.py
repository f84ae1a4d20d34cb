"""History: what a state directory holds of the past, found by time, in bounded memory; also while a bot writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tradingbot.io.jsonl import Damage, Found, ReadReport, read_jsonl, read_jsonl_backwards
from tradingbot.io.segments import DAY_MS, Segment, day_of, list_segments, manifest_path, series_of
from tradingbot.io.state_files import lock_owner
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream

__all__ = ["History"]

MINUTE_MS = 60_000


class History:
    """Read the streams and the journal of a state directory; what could not be read is counted in `report`."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.report = ReadReport()

    def newest(self, stream: Stream, series: str | None = None) -> Iterator[Found]:
        """Yield the records of a series, the newest first; `series` is the stream's own where none is given."""
        yield from self._backwards(self._segments(stream, series or stream.value))

    def around(self, stream: Stream, ts_ms: int) -> Iterator[Found]:
        """Yield the records of all segments that may hold one of `ts_ms` (ms), the newest first."""
        segments = self._segments(stream, stream.value)
        yield from self._backwards([segment for segment in segments if _may_hold(segment, ts_ms, ts_ms)])

    def until(self, stream: Stream, path: Path) -> Iterator[Found]:
        """Yield the records of a segment, and of those written before it, the newest first."""
        segments = self._segments(stream, stream.value)
        places = [place for place, segment in enumerate(segments) if _plain(segment.path) == _plain(path)]
        yield from self._backwards(segments[: places[-1] + 1] if places else [])

    def since(self, stream: Stream, path: Path) -> Iterator[Found]:
        """Yield the records of a segment, and of those written after it, the oldest first."""
        paths = [segment.path for segment in self._segments(stream, stream.value)]
        places = [place for place, each in enumerate(paths) if _plain(each) == _plain(path)]
        yield from read_jsonl(paths[places[0] :] if places else [], self.report)

    def session_start(self, sid: str) -> dict[str, Any] | None:
        """Return the record with which a session began, None where it is not recorded (any more)."""
        for segment in self._segments(JOURNAL, JOURNAL.value):
            sessions = _sessions(segment.path)
            if sessions is not None and sid not in sessions:
                continue
            for found in read_jsonl([segment.path], self.report):
                if found.record["sid"] == sid:
                    return found.record if found.record.get("type") == "session_start" else None
        return None

    def ticks(self, symbol: str, from_ms: int, to_ms: int) -> Iterator[Found]:
        """Yield a symbol's recorded ticks of `from_ms` to `to_ms` (ms, both included), the oldest first."""
        segments = self._segments(Stream.TICKS, series_of(symbol))
        paths = (segment.path for segment in segments if _may_hold(segment, from_ms, to_ms))
        for path in paths:
            for found in read_jsonl([path], self.report):
                late_ms = found.record["ts_ms"] - to_ms
                if MINUTE_MS < late_ms < DAY_MS:  # later than any clock of a next session; a leap of days comes back
                    break
                if late_ms <= 0 and found.record["ts_ms"] >= from_ms:
                    yield found

    def ticks_back(self, symbol: str, before_ms: int) -> Iterator[Found]:
        """Yield a symbol's recorded ticks up to `before_ms` (ms, included), the newest first."""
        segments = self._segments(Stream.TICKS, series_of(symbol))
        for found in self._backwards([segment for segment in segments if _may_hold(segment, 0, before_ms)]):
            if found.record["ts_ms"] <= before_ms:
                yield found

    def damage(self) -> list[str]:
        """Return where something could not be read, each place once; a line that a running bot is writing is none."""
        running = lock_owner(self.state_dir) is not None
        found: dict[tuple[Path, bool], dict[str, None]] = {}
        for place in self.report.places:
            if not (running and place.damage is Damage.TORN):
                found.setdefault((place.path, place.line >= 0), {})[str(place)] = None
        told: list[str] = []
        for path in dict.fromkeys(path for path, _ in found):  # read in both directions: the same lines, counted twice
            forwards, backwards = list(found.get((path, True), ())), list(found.get((path, False), ()))
            told += forwards if len(forwards) >= len(backwards) else backwards
        return told

    def place(self, found: Found) -> dict[str, Any]:
        """Return the file, under the state directory, and the line of a record that was read forwards."""
        return {"file": str(found.path.relative_to(self.state_dir)), "line": found.line}

    def _segments(self, stream: Stream, series: str) -> list[Segment]:
        return list_segments(self.state_dir / FOLDERS[stream], series)

    def _backwards(self, segments: list[Segment]) -> Iterator[Found]:
        return read_jsonl_backwards((segment.path for segment in reversed(segments)), self.report)


def _plain(path: Path) -> str:
    return path.name.removesuffix(".zst")


def _may_hold(segment: Segment, from_ms: int, to_ms: int) -> bool:
    """Say whether a segment may hold records of a span of time.

    Its name's day is never before that of a record in it. A sealed segment's manifest tells its times; of an open one
    the first record does, give or take a day for those that come late.
    """
    if segment.day < day_of(from_ms):
        return False
    span = _span(segment.path)
    if span is not None:
        return span[0] <= to_ms and from_ms <= span[1]
    first = next(read_jsonl([segment.path]), None)
    return first is not None and first.record["ts_ms"] - DAY_MS <= to_ms


def _span(path: Path) -> tuple[int, int] | None:
    """Return the first and the last time of a sealed segment, None where no manifest tells them."""
    try:
        spans = [session["ts_ms"] for session in (_sessions(path) or {}).values() if session["ts_ms"] is not None]
        return (min(int(span[0]) for span in spans), max(int(span[1]) for span in spans)) if spans else None
    except (ValueError, LookupError, TypeError):
        return None


def _sessions(path: Path) -> dict[str, Any] | None:
    """Return what a manifest says of each session, None where there is none."""
    if path.suffix != ".zst":
        return None
    try:
        sessions = orjson.loads(manifest_path(path).read_bytes())["sessions"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return sessions if isinstance(sessions, dict) else None
