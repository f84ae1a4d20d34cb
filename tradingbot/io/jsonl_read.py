"""Reading streams: every complete record of plain and sealed segments, forwards, or the last of a series from its end.

Memory is bounded by a block, whatever the files hold: a line beyond MAX_LINE is dropped while it is read.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard

from tradingbot.errors import DataError
from tradingbot.io.lines import MAX_LINE, Damage, decode_lines
from tradingbot.io.segments import Frame, Segment, list_segments, load_frames, manifest_path

__all__ = [
    "MISFIT", "Block", "Found", "Lines", "Place", "ReadReport", "numbered_lines", "open_segment", "read_jsonl",
    "read_jsonl_backwards", "read_jsonl_tail", "read_lines", "start_of", "text_blocks",
]  # fmt: skip

MISFIT = "not what its manifest says"  # of a sealed segment that is read without it

_BLOCK = 1 << 18  # of a plain file, forwards
_TAIL_BLOCK = 72 << 10  # backwards: 300 ticks of 240 bytes, which is what a start asks for, are one
_CHUNK = 128  # lines that are parsed at a time while `enough` is asked
_PLACES = 1_000  # that a report names; all are counted
_WINDOW = 1 << 23  # bytes that a foreign zstd file may make its reader hold


class Found(NamedTuple):
    """Hold a record, and the file and line, from 1, where it stands; read backwards, -1 is the file's last line."""

    path: Path
    line: int
    record: dict[str, Any]


class Lines(NamedTuple):
    """Hold lines that follow each other in a file, and the number of the first, from 1."""

    path: Path
    first: int
    lines: list[bytes]


class Place(NamedTuple):
    """Say where something could not be read, and how many lines; line 0 is the file as a whole, -1 its last line."""

    path: Path
    line: int
    damage: Damage
    detail: str = ""
    lines: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.damage}{f' ({self.detail})' if self.detail else ''}"


@dataclass(slots=True)
class ReadReport:
    """Count what was read and what could not be; `places` names the first 1,000 of these."""

    records: int = 0
    damaged: int = 0
    places: list[Place] = field(default_factory=list)

    def note(self, place: Place) -> None:
        """Count and name what could not be read."""
        self.damaged += 1
        if len(self.places) < _PLACES:
            self.places.append(place)

    def forget_torn(self, newest: Path | None) -> None:
        """Take back that the newest segment of a series ends in the middle of a line: somebody may be writing it."""
        kept = [place for place in self.places if place.damage is not Damage.TORN or place.path != newest]
        self.damaged -= len(self.places) - len(kept)
        self.places = kept


class _Strict(ReadReport):
    """Raise DataError at the first thing that cannot be read."""

    def note(self, place: Place) -> None:
        raise DataError(str(place))


def read_jsonl(paths: Iterable[Path], report: ReadReport | None = None, strict: bool = False) -> Iterator[Found]:
    """Yield every complete record of plain and sealed segments, file after file, in order of their lines.

    What is no record, a last line without its end, and what of a file cannot be read, is counted and named in `report`;
    with `strict` the first such place raises DataError. A plain file that has been sealed meanwhile is read sealed.
    """
    report = ReadReport() if report is None else report
    notes = _Strict() if strict else report
    for path in paths:
        for batch in read_lines(path, notes):
            for line, record in enumerate(decode_lines(batch.lines), batch.first):
                if isinstance(record, Damage):
                    notes.note(Place(batch.path, line, record))
                else:
                    report.records += 1
                    yield Found(batch.path, line, record)


def read_lines(path: Path, report: ReadReport) -> Iterator[Lines]:
    """Yield the complete lines of a segment without their ends, unchecked, some hundred at a time.

    A torn last line, and what cannot be read, stands in `report`; of a line beyond MAX_LINE only the beginning comes. A
    plain file that has been sealed meanwhile is read sealed.
    """
    try:
        with ExitStack() as opened:
            file, found = open_segment(path, opened)
            for first, lines in numbered_lines(text_blocks(file, found, report), found, report):
                yield Lines(found, first, lines)
    except OSError as error:
        report.note(Place(path, 0, Damage.UNREADABLE, error.strerror or str(error)))


def open_segment(path: Path, opened: ExitStack) -> tuple[IO[bytes], Path]:
    """Open a segment until the stack is closed, the sealed one where the plain one has gone; return file and path."""
    try:
        return opened.enter_context(path.open("rb", buffering=0)), path
    except FileNotFoundError:
        if path.suffix == ".zst":
            raise
    sealed = path.with_name(path.name + ".zst")
    return opened.enter_context(sealed.open("rb", buffering=0)), sealed


class Block(NamedTuple):
    """Hold some bytes of text, or say how many lines could not be had."""

    text: bytes
    lost: int = 0


def text_blocks(file: IO[bytes], path: Path, notes: ReadReport, start: int = 0) -> Iterator[Block]:
    """Yield a file's text in order, from a byte of the text on."""
    if path.suffix != ".zst":
        file.seek(start)
        while text := file.read(_BLOCK):
            yield Block(text)
        return
    frames = load_frames(path, os.fstat(file.fileno()).st_size)
    if frames is None:
        for block in _unpacked(file, path, notes):
            yield Block(block.text[start:])
            start = max(start - len(block.text), 0)
        return
    offset, line = 0, 1
    for frame in frames:
        if start < frame.text:
            block = _frame(file, offset, frame)
            if block.lost:
                lost = f"{frame.lines} lines of a damaged frame"
                notes.note(Place(path, line, Damage.UNREADABLE, lost, block.lost))
            yield Block(block.text[start:], block.lost)
        start = max(start - frame.text, 0)
        offset, line = offset + frame.packed, line + frame.lines


def _unpacked(file: IO[bytes], path: Path, notes: ReadReport) -> Iterator[Block]:
    """Yield the text of a zstd file without a manifest that fits it, as far as it can be had."""
    if manifest_path(path).exists():
        notes.note(Place(path, 0, Damage.UNREADABLE, MISFIT))
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        with unpacker.stream_reader(file, read_across_frames=True, closefd=False) as reader:
            while text := reader.read(_BLOCK):
                yield Block(text)
    except zstandard.ZstdError as error:
        notes.note(Place(path, 0, Damage.UNREADABLE, str(error)))


def _frame(file: IO[bytes], offset: int, frame: Frame) -> Block:
    """Return the text of one frame, or that its lines are lost."""
    packed = os.pread(file.fileno(), frame.packed, offset)
    try:
        if zstandard.frame_content_size(packed) == frame.text:  # before memory is taken for what it claims
            return Block(zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompress(packed))
    except (zstandard.ZstdError, MemoryError):
        pass
    return Block(b"", max(frame.lines, 1))


def numbered_lines(blocks: Iterable[Block], path: Path, notes: ReadReport) -> Iterator[tuple[int, list[bytes]]]:
    """Yield complete lines without their ends, a block's at a time, with the number of the first, from 1."""
    number, rest = 1, b""
    for block in blocks:
        number += block.lost
        lines = (rest + block.text).split(b"\n")
        rest = lines.pop()
        rest = rest[:MAX_LINE]  # no record any more, and no more memory
        yield number, lines
        number += len(lines)
    if rest:
        notes.note(Place(path, number, Damage.TORN))


def start_of(path: Path, is_late: Callable[[bytes], bool | None]) -> int | None:
    """Return where in a segment's text to begin for all lines that are late: the start of a line, None for all of it.

    `is_late` is false for the lines before some place and true for those behind it; None where a line does not tell.
    Lines before the place may still be among those behind the start, 72 KB of a plain segment, a frame of a sealed one.
    Cost follows the logarithm of the segment's length. Raises OSError.
    """
    with ExitStack() as opened:
        file, found = open_segment(path, opened)
        size = os.fstat(file.fileno()).st_size
        frames = (load_frames(found, size) or []) if found.suffix == ".zst" else None
        blocks = range(0, size, _TAIL_BLOCK) if frames is None else range(len(frames))

        def text(block: int) -> tuple[int, bytes]:
            if frames is None:
                part = os.pread(file.fileno(), _TAIL_BLOCK, block)
                skipped = part.find(b"\n") + 1 if block else 0
                return block + skipped, part[skipped:]
            before = frames[:block]
            packed = _frame(file, sum(frame.packed for frame in before), frames[block])
            return sum(frame.text for frame in before), packed.text

        def late(block: int) -> bool:
            told = (is_late(line) for line in text(block)[1].split(b"\n"))
            return next((answer for answer in told if answer is not None), True)

        place = bisect_left(blocks, True, key=late)
        return None if place == 0 else text(blocks[place - 1])[0]


def read_jsonl_tail(
    folder: Path,
    series: str,
    count: int,
    enough: Callable[[dict[str, Any]], bool] | None = None,
    report: ReadReport | None = None,
    segments: Sequence[Segment] | None = None,
    ordered: bool = False,
) -> list[dict[str, Any]]:
    """Return the last `count` records of a series, the oldest first; with `enough` also those before, until it is true.

    `enough` is asked of one record after the other, newest first, once there are `count`: it says when more are wanted,
    or with a `count` of 0 how many. The record that it is true of is part of the result. Cost follows the records read:
    blocks from the file's end, across segments; of a sealed one the last frames, 1 MB of text each. A sealed one
    without a manifest is unpacked whole, on disk. What is no record is left out, counted and named in `report`.
    `segments` are the series' own where the folder has been listed already: one listing serves 500 symbols. `ordered`
    says that what is enough is so for everything older too: then `enough` is asked of few records.
    """
    report = ReadReport() if report is None else report
    tail = _Tail(count, enough, report, ordered)
    for segment in reversed(list_segments(folder, series) if segments is None else segments):
        if tail.full():
            break
        try:
            with ExitStack() as opened:
                file, path = open_segment(segment.path, opened)
                below = 1  # lines from here to the file's end, and one
                for block in _lines_backwards(_blocks_backwards(file, path, opened, report), path, report):
                    length = len(block)
                    tail.take(block, path, below)
                    if tail.full():
                        break
                    below += length
        except OSError as error:
            report.note(Place(segment.path, 0, Damage.UNREADABLE, error.strerror or str(error)))
    return list(itertools.chain.from_iterable(reversed(tail.parts)))


def read_jsonl_backwards(paths: Iterable[Path], report: ReadReport | None = None) -> Iterator[Found]:
    """Yield every complete record of segments, the last line of the first path first.

    Give the paths newest first. Memory and cost are those of `read_jsonl_tail`, however far it is read; what is no
    record is left out, counted and named in `report`.
    """
    report = ReadReport() if report is None else report
    for given in paths:
        try:
            with ExitStack() as opened:
                file, path = open_segment(given, opened)
                below = 1
                for block in _lines_backwards(_blocks_backwards(file, path, opened, report), path, report):
                    for place, record in enumerate(reversed(decode_lines(block)), below):
                        if isinstance(record, Damage):
                            report.note(Place(path, -place, record))
                        else:
                            report.records += 1
                            yield Found(path, -place, record)
                    below += len(block)
        except OSError as error:
            report.note(Place(given, 0, Damage.UNREADABLE, error.strerror or str(error)))


class _Tail:
    """Collect records, the newest first, until there are enough; `parts` are newest first, in each the oldest first."""

    def __init__(
        self,
        count: int,
        enough: Callable[[dict[str, Any]], bool] | None,
        report: ReadReport,
        ordered: bool = False,
    ) -> None:
        self._count, self._enough, self._report, self._ordered = count, enough, report, ordered
        self._have, self._full = 0, enough is None and count <= 0
        self.parts: list[list[dict[str, Any]]] = []

    def full(self) -> bool:
        """Say whether there are enough."""
        return self._full

    def take(self, lines: list[bytes], path: Path, below: int) -> None:
        """Take lines from the end of a list, which is used up, until there are enough."""
        while lines and not self._full:
            wanted = self._count - self._have
            chunk = lines[-(wanted if self._enough is None else max(wanted, _CHUNK)) :]
            del lines[-len(chunk) :]
            decoded = decode_lines(chunk)
            records = [record for record in decoded if not isinstance(record, Damage)]
            if len(records) < len(decoded):
                for place, damage in enumerate(reversed(decoded), below):
                    if isinstance(damage, Damage):
                        self._report.note(Place(path, -place, damage))
            below += len(chunk)
            self._keep(records)

    def _keep(self, records: list[dict[str, Any]]) -> None:
        if self._enough is None:
            self._have += len(records)
            self._full = self._have >= self._count
        elif self._ordered and records and not self._enough(records[0]):
            self._have += len(records)
        else:
            for place in range(len(records) - 1, -1, -1):
                self._have += 1
                if self._have >= self._count and self._enough(records[place]):
                    self._full = True
                    records = records[place:]
                    break
        self._report.records += len(records)
        self.parts.append(records)


def _blocks_backwards(file: IO[bytes], path: Path, opened: ExitStack, report: ReadReport) -> Iterator[Block]:
    """Yield a file's text, the last block first."""
    if path.suffix == ".zst":
        size = os.fstat(file.fileno()).st_size
        frames = load_frames(path, size)
        if frames is not None:
            for frame in reversed(frames):
                size -= frame.packed
                block = _frame(file, size, frame)
                if block.lost:
                    report.note(Place(path, 0, Damage.UNREADABLE, f"{frame.lines} lines of a damaged frame"))
                yield block
            return
        unpacked = opened.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115  (it is one)
        for block in _unpacked(file, path, report):
            unpacked.write(block.text)
        file = unpacked
    end = os.fstat(file.fileno()).st_size
    while end > 0:
        start = max(end - _TAIL_BLOCK, 0)
        yield Block(os.pread(file.fileno(), end - start, start))
        end = start


def _lines_backwards(blocks: Iterable[Block], path: Path, report: ReadReport) -> Iterator[list[bytes]]:
    """Yield complete lines without their ends, the last block's first, in order within a block."""
    rest, ended = b"", False  # the line whose beginning is yet to come, and whether its end was seen
    for block in blocks:
        if block.lost:  # a frame ends with a line
            if ended:
                yield [rest]
            rest, ended = b"", False
            continue
        lines = (block.text + rest).split(b"\n")
        if not ended and len(lines) > 1:
            ended = True
            if lines.pop():
                report.note(Place(path, -1, Damage.TORN))
        rest = lines.pop(0)[-MAX_LINE:]  # a longer one is no record any more
        if lines:
            yield lines
    if ended:
        yield [rest]
    elif rest:
        report.note(Place(path, -1, Damage.TORN))
