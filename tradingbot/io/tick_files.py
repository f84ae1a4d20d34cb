"""The ticks of all symbols, out of their segments, in the order in which the engine saw them."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from tradingbot.io.jsonl_read import (
    Block,
    Place,
    ReadReport,
    numbered_lines,
    open_segment,
    read_jsonl_tail,
    start_of,
    text_blocks,
)
from tradingbot.io.lines import Damage, decode_lines
from tradingbot.io.segments import Segment, list_segments, names_by_series
from tradingbot.io.streams import FOLDERS, Stream
from tradingbot.market.ticker import Ticker

__all__ = ["Gap", "TickFiles", "TickRecord", "newest_ms", "tick_ends"]

_BLOCK_BYTES = 1 << 18  # of text that are decoded at a time, for all series together at most:
_ALL_BYTES = 1 << 24
_AHEAD = 10_000  # numbers: what is read on in one round
_PROBE = 1 << 16
_CRC = 18  # what a checksum takes at a line's end


class TickRecord(Ticker, kw_only=True, gc=False):
    """Hold a record of the ticks, which is the ticker itself, with the session and number that it had.

    Prices are as they were recorded: an integer stays one.
    """

    symbol: str = ""
    ts_ms: int = 0
    last: Any = None
    bid: Any = None
    ask: Any = None
    quote_volume: Any = None
    bid_size: Any = None
    ask_size: Any = None
    sid: str
    seq: int = -1
    type: str | None = None
    missing: int = 0
    crc: str


_decode = msgspec.json.Decoder(list[TickRecord]).decode
_decode_one = msgspec.json.Decoder(TickRecord).decode


@dataclass(slots=True)
class Gap:
    """Say that up to `missing` inputs between two numbers, exclusive, could not be written."""

    after: int
    before: int
    missing: int


class _Piece(NamedTuple):
    """Say which part of a segment is to be read: text from `start` to `end`, None for all that is there."""

    path: Path
    start: int
    end: int | None
    newest: bool


@dataclass(slots=True)
class _Series:
    """Read one series; `last` is the number of the last tick that was read of the session under way."""

    records: Iterator[list[TickRecord]]
    behind: list[TickRecord] = field(default_factory=list)  # read, not looked at yet
    last: int = 0
    gap: Gap | None = None
    is_through: bool = False


class TickFiles:
    """Read the ticks under a state directory, session after session.

    `order` names the sessions in the order in which they were recorded; with `after`, a session and a number, reading
    begins behind these. What the files hold is taken as it is when they are listed, so that a bot may go on writing:
    of the newest segment of a series the end may be torn, and a segment may be sealed or deleted meanwhile. Memory is
    bounded by blocks of each series. `ends` is how far segments are read that are not sealed. `gaps` are those met
    so far, by session; `strangers` counts ticks of sessions that
    `order` does not name, `disordered` those that stand behind a later number of their session.
    """

    def __init__(
        self,
        state_dir: Path,
        order: Sequence[str],
        report: ReadReport,
        after: tuple[str, int] | None = None,
        ends: Mapping[str, int] | None = None,
    ) -> None:
        self._places = {sid: place for place, sid in enumerate(order)}
        self._report, self._after, self._ends = report, after, ends
        self.gaps: dict[str, list[Gap]] = {}
        self.strangers: Counter[str] = Counter()
        self.disordered: Counter[str] = Counter()
        folder = state_dir / FOLDERS[Stream.TICKS]
        by_series: dict[str, list[Segment]] = {}
        for segment in list_segments(folder):
            by_series.setdefault(segment.series, []).append(segment)
        pieces = [self._pieces(segments) for segments in by_series.values()]
        size = min(_BLOCK_BYTES, max(_ALL_BYTES // max(len(pieces), 1), _PROBE))
        self._series = [_Series(self._read(piece, size)) for piece in pieces]

    def session(self, sid: str) -> Iterator[list[TickRecord]]:
        """Yield the ticks of the next session, in order of their numbers, some at a time."""
        for series in self._series:
            series.last, series.gap, series.is_through = 0, None, False
        active = list(self._series)
        table: dict[int, TickRecord] = {}
        first = 0
        while active or table:
            for series in active:
                self._fill(series, sid, table, first + _AHEAD)
            active = [series for series in active if not series.is_through]
            bound = min((series.last for series in active), default=None)
            batch = _take(table, first, max(table, default=0) if bound is None else bound)
            if batch:
                first = batch[-1].seq
                yield batch

    def rest(self) -> None:
        """Count what no session has taken."""
        for series in self._series:
            for records in (series.behind, *series.records):
                self._count(record.sid for record in records if record.type != "gap")

    def _count(self, sids: Iterable[str]) -> None:
        for sid in sids:
            (self.disordered if sid in self._places else self.strangers)[sid] += 1

    def _fill(self, series: _Series, sid: str, table: dict[int, TickRecord], ahead: int) -> None:
        """Read the ticks of a session on up to some number, or as far as there are any."""
        while series.last < ahead and not series.is_through:
            records = series.behind or next(series.records, [])
            if not records:
                series.is_through = True
                return
            series.behind = []
            numbers = [record.seq for record in records]
            plain = numbers[0] > series.last and series.gap is None and {record.sid for record in records} == {sid}
            size = len(table) + len(numbers)
            if plain and numbers == sorted(numbers) and table.keys().isdisjoint(numbers):
                table.update(zip(numbers, records, strict=True))
            if len(table) == size:
                series.last = numbers[-1]
            else:
                self._sort_out(series, sid, records, table)

    def _sort_out(self, series: _Series, sid: str, records: list[TickRecord], table: dict[int, TickRecord]) -> None:
        """Take in records one by one: gaps among them, other sessions, numbers that do not rise."""
        for place, record in enumerate(records):
            if record.sid != sid and self._places.get(record.sid, -1) > self._places[sid]:
                series.behind, series.is_through = records[place:], True
                return
            if record.sid != sid:
                self._count([record.sid])
            elif record.type == "gap":
                series.gap = Gap(series.last, 1 << 62, record.missing)
                self.gaps.setdefault(sid, []).append(series.gap)
            elif record.seq <= series.last:  # another session of the same name, or none
                series.behind, series.is_through = records[place:], True
                return
            elif record.seq in table:
                self.disordered[sid] += 1
            else:
                if series.gap is not None:
                    series.gap.before, series.gap = record.seq, None
                table[record.seq] = record
                series.last = record.seq

    def _pieces(self, segments: list[Segment]) -> list[_Piece]:
        """Return what of a series is to be read: as much as there is now, and nothing that is surely before."""
        pieces: list[_Piece] = []
        for segment in reversed(segments):
            start = end = None
            with contextlib.suppress(OSError):
                end = None if segment.sealed else segment.path.stat().st_size
                if self._after is not None:
                    start = start_of(segment.path, self._is_late)
                if end is not None and self._ends is not None:
                    end = max(min(end, self._ends.get(segment.path.name, 0)), start or 0)
            pieces.append(_Piece(segment.path, start or 0, end, segment is segments[-1]))
            if start is not None:
                break
        return pieces[::-1]

    def _is_late(self, line: bytes) -> bool | None:
        try:
            record = _decode_one(line)
        except (msgspec.MsgspecError, UnicodeError):
            return None
        return None if record.seq < 0 else not self._is_before(record)

    def _is_before(self, record: TickRecord) -> bool:
        assert self._after is not None
        sid, seq = self._after
        if record.sid == sid:
            return record.seq <= seq
        return self._places.get(record.sid, -1) < self._places[sid]

    def _read(self, pieces: list[_Piece], size: int) -> Iterator[list[TickRecord]]:
        for piece in pieces:
            notes = ReadReport()
            try:
                with contextlib.ExitStack() as opened:
                    file, path = open_segment(piece.path, opened)
                    blocks = _cut(text_blocks(file, path, notes, piece.start), piece, size)
                    for first, lines in numbered_lines(blocks, path, notes):
                        records = self._records(lines, path, 0 if piece.start else first, notes)
                        if self._after is not None:
                            records = [record for record in records if record.seq < 0 or not self._is_before(record)]
                        if records:
                            yield records
            except FileNotFoundError:
                pass  # deleted since the folder was listed: its numbers are missing, and the journal says why
            except OSError as error:
                notes.note(Place(piece.path, 0, Damage.UNREADABLE, error.strerror or str(error)))
            if piece.newest:
                notes.forget_torn(piece.path)
            self._report.damaged += notes.damaged
            self._report.places += notes.places

    def _records(self, lines: list[bytes], path: Path, first: int, notes: ReadReport) -> list[TickRecord]:
        """Return the records of some lines; all are decoded and their checksums compared at once, if they are sound."""
        self._report.records += len(lines)
        try:
            records = _decode(b"[%b]" % b",".join(lines))
            crcs = struct.pack(f">{len(lines)}I", *[crc32(line[:-_CRC]) for line in lines])
            if len(records) == len(lines) and "".join([record.crc for record in records]) == crcs.hex():
                return records
        except (msgspec.MsgspecError, UnicodeError):
            pass
        records = []
        for place, (line, found) in enumerate(zip(lines, decode_lines(lines), strict=True)):
            damage = found if isinstance(found, Damage) else Damage.NOT_JSON
            if not isinstance(found, Damage):
                with contextlib.suppress(msgspec.MsgspecError):
                    records.append(_decode_one(line))
                    continue
            self._report.records -= 1
            notes.note(Place(path, first and first + place, damage))
        return records


def tick_ends(state_dir: Path) -> dict[str, int]:
    """Return how long the segments of ticks are that are not sealed, by name: what comes later is another look's."""
    folder = state_dir / FOLDERS[Stream.TICKS]
    ends = {}
    for segment in list_segments(folder) if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # sealed meanwhile
            if not segment.sealed:
                ends[segment.path.name] = segment.path.stat().st_size
    return ends


def newest_ms(state_dir: Path) -> int | None:
    """Return the time of the last tick that is recorded under a state directory, None without any."""
    folder = state_dir / FOLDERS[Stream.TICKS]
    series = names_by_series(folder) if folder.is_dir() else ()
    last = [record["ts_ms"] for name in series for record in read_jsonl_tail(folder, name, 1)]
    return max(last, default=None)


def _take(table: dict[int, TickRecord], first: int, last: int) -> list[TickRecord]:
    """Take ticks out of a table, in order of their numbers, up to the last that is surely whole."""
    if last - first > 8 * len(table):  # few and far between
        numbers: Iterable[int] = sorted(number for number in table if number <= last)
    else:
        numbers = range(first, last + 1)
    return list(filter(None, map(table.pop, numbers, itertools.repeat(None))))


def _cut(blocks: Iterator[Block], piece: _Piece, size: int) -> Iterator[Block]:
    """Yield blocks in pieces of `size`, up to where the segment ended when it was listed."""
    left = None if piece.end is None else piece.end - piece.start
    for text, lost in blocks:
        if lost:
            yield Block(b"", lost)
        for start in range(0, len(text), size):
            part = text[start : start + size]
            if left is not None:
                part = part[:left]
                left -= len(part)
            yield Block(part)
        if left == 0:
            return
