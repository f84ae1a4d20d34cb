"""The streams as columns: chosen members of every record, some thousand at a time, as arrays; sound lines alone."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
import numpy as np

from tradingbot.io.jsonl_read import Place, ReadReport, numbered_lines, open_segment, text_blocks
from tradingbot.io.lines import Damage, decode_lines
from tradingbot.io.segments import Segment, day_of, list_segments
from tradingbot.io.stream_tables import Selection
from tradingbot.io.streams import FOLDERS, Stream

__all__ = ["Columns", "Missing", "StreamColumns"]

Columns = dict[str, "np.ndarray[Any, Any]"]

_CRC = 18  # what a checksum takes at a line's end
_TYPES: dict[str, Any] = {"int": int, "float": float | None, "text": str, "bool": bool}
_EMPTY: dict[str, Any] = {"int": 0, "float": math.nan, "text": "", "bool": False}
_DTYPES: dict[str, Any] = {"int": np.int64, "float": np.float64, "text": object, "bool": np.bool_}


class Missing(NamedTuple):
    """Say that `missing` records could not be written before a time (ms)."""

    ts_ms: int
    sid: str
    missing: int


class StreamColumns:
    """Read chosen members of a stream's records; what could not be read is counted in `report`.

    `columns` names members with their kind: `int`, `float` (absent is NaN), `text` or `bool`. `gaps` holds the gap
    records met so far, which are no rows.
    """

    def __init__(
        self, state_dir: Path, stream: Stream, columns: Mapping[str, str], selection: Selection, report: ReadReport
    ) -> None:
        self._folder, self._kinds, self._selection, self._report = (
            state_dir / FOLDERS[stream],
            columns,
            selection,
            report,
        )
        extra = [(name, Any, None) for name in ("type", "missing", "sid") if name not in columns]
        fields = [(name, _TYPES[kind], _EMPTY[kind]) for name, kind in columns.items()]
        row = msgspec.defstruct("Row", [*fields, *extra, ("crc", str, "")], gc=False)
        self._decode = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
        self._row = row
        self.gaps: list[Missing] = []

    def segments(self) -> dict[str, list[Segment]]:
        """Return the segments that may hold what is selected, by series, as they were written."""
        since_ms = self._selection.since_ms
        found: dict[str, list[Segment]] = {}
        for segment in list_segments(self._folder):
            if (since_ms is None or segment.day >= day_of(since_ms)) and self._selection.may_hold(segment):
                found.setdefault(segment.series, []).append(segment)
        return found

    def read(self, segments: list[Segment]) -> Iterator[Columns]:
        """Yield the selected records of segments as columns of equal length, in the order of their lines.

        Memory is bounded by a block of text. A plain file that has been sealed meanwhile is read sealed, one that is
        gone is passed over, and the torn end of the last one is no damage: a bot may be writing it.
        """
        for segment in segments:
            notes = ReadReport()
            for rows in self._rows(segment.path, notes):
                columns = self._columns(rows)
                if columns is not None:
                    yield columns
            if segment is segments[-1]:
                notes.forget_torn(segment.path)
            self._report.records += notes.records
            self._report.damaged += notes.damaged
            self._report.places += notes.places

    def _rows(self, path: Path, notes: ReadReport) -> Iterator[list[Any]]:
        from contextlib import ExitStack

        try:
            with ExitStack() as opened:
                file, found = open_segment(path, opened)
                for first, lines in numbered_lines(text_blocks(file, found, notes), found, notes):
                    if lines:
                        yield self._checked(lines, found, first, notes)
        except FileNotFoundError:
            return
        except OSError as error:
            notes.note(Place(path, 0, Damage.UNREADABLE, error.strerror or str(error)))

    def _checked(self, lines: list[bytes], path: Path, first: int, notes: ReadReport) -> list[Any]:
        """Return the rows of lines whose checksum fits; all are decoded and compared at once, if they are sound."""
        try:
            rows: list[Any] = self._decode(b"[%b]" % b",".join(lines))
            crcs = struct.pack(f">{len(lines)}I", *[crc32(line[:-_CRC]) for line in lines])
            if len(rows) == len(lines) and "".join([row.crc for row in rows]) == crcs.hex():
                notes.records += len(rows)
                return rows
        except (msgspec.MsgspecError, UnicodeError):
            pass
        rows = []
        for line, found in enumerate(decode_lines(lines), first):
            row = found if isinstance(found, Damage) else self._odd(found)
            if isinstance(row, Damage):
                notes.note(Place(path, line, row))
            else:
                notes.records += 1
                rows.append(row)
        return rows

    def _odd(self, record: dict[str, Any]) -> Any:
        """Return the row of a sound record that has a member of another kind, which then counts as absent."""
        row = self._row()
        for name in ("type", "missing", "sid"):
            setattr(row, name, record.get(name))
        for name, kind in self._kinds.items():
            value = record.get(name, _EMPTY[kind])
            if kind == "float":
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                setattr(row, name, _double(value) if is_number else math.nan)
            elif type(value) is _TYPES[kind] and (kind != "int" or -(1 << 63) <= value < 1 << 63):
                setattr(row, name, value)
            elif name == "ts_ms":
                return Damage.SCHEMA
        return row

    def _columns(self, rows: list[Any]) -> Columns | None:
        if any(row.type == "gap" for row in rows):
            self.gaps += [Missing(row.ts_ms, str(row.sid), row.missing) for row in rows if row.type == "gap"]
            rows = [row for row in rows if row.type != "gap"]
        try:
            return self._selected(rows)
        except OverflowError:  # an int beyond 64 bits
            return self._selected([self._odd(msgspec.structs.asdict(row)) for row in rows])

    def _selected(self, rows: list[Any]) -> Columns | None:
        columns: Columns = {}
        for name, kind in self._kinds.items():
            values = map(operator.attrgetter(name), rows)
            try:
                columns[name] = np.fromiter(values, _DTYPES[kind], len(rows))
            except TypeError:  # null stands there for absent
                columns[name] = np.array([getattr(row, name) for row in rows], dtype=_DTYPES[kind])
        chosen, ts_ms = self._selection, columns["ts_ms"]
        wanted = np.ones(len(rows), dtype=bool)
        if chosen.since_ms is not None:
            wanted &= ts_ms >= chosen.since_ms
        if chosen.until_ms is not None:
            wanted &= ts_ms < chosen.until_ms
        if chosen.symbols and "symbol" in columns:
            wanted &= np.isin(columns["symbol"].astype(str), list(chosen.symbols))
        if not wanted.any():
            return None
        return columns if wanted.all() else {name: values[wanted] for name, values in columns.items()}


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.nan
