"""The streams as tables: records become columns, a batch at a time, in Parquet or CSV."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from tradingbot.io.jsonl import Found, ReadReport, read_jsonl
from tradingbot.io.segments import Segment, list_segments, manifest_path, series_of
from tradingbot.io.streams import FOLDERS, Stream

__all__ = ["FORMATS", "SCHEMAS", "Selection", "Table", "write_table"]

FORMATS = ("parquet", "csv")
BATCH_ROWS = 16_384  # of 1 kB each as a record, and a row group in Parquet
REST = "rest"  # what of a journal's record no other column takes, as JSON text

_HEAD = "v:int sid:text ts_ms:int "
SCHEMAS: dict[Stream, str] = {
    Stream.TICKS: _HEAD + "seq:int symbol:text last:float bid:float ask:float bid_size:float ask_size:float "
    "quote_volume:float recv_ms:int feed_age_ms:int",
    Stream.SNAPSHOTS: _HEAD + "cause:int symbol:text last:float bid:float ask:float spread_bps:float reference:float "
    "reference_source:text threshold:float drop_pct:float peak:float trough:float session_start:float "
    "session_peak:float anchor:float anchor_set_ms:int armed:bool below:int triggers:int",
    Stream.WINDOWS: _HEAD + "type:text cause:int k:int symbol:text peak:float trough:float",
    Stream.ANCHORS: _HEAD + "type:text cause:int k:int symbol:text cause_word:text anchor:json",
    Stream.JOURNAL: _HEAD + "type:text seq:int cause:int k:int symbol:text decision_id:text outcome:text reasons:json "
    "last:float bid:float ask:float bid_size:float ask_size:float quote_volume:float recv_ms:int feed_age_ms:int "
    "answered_as:text reference:float reference_source:text threshold:float drop_pct:float mode:int "
    "window_peak:float window_peak_ms:int window_trough:float session_start:float session_peak:float anchor:json "
    "checks:json fingerprint:text side:text qty:float price:float fee:float cash:float reason:text entry:float "
    "height:float entry_ms:int exit_ms:int exit:float pnl:float fees:float detail:text name:text why:text "
    "step_ms:int missing:int on:bool version:text exchange:text settings:json sources:json start:json "
    "checkpoint:json parts:int part:int symbols:json windows:json positions:json orders:json amount_steps:json "
    "counts:json file:text sessions:json " + REST + ":json",
}
"""Columns of each stream, in order, with their types; `json` is text that holds a list or an object."""

_ALLOWED: dict[str, frozenset[type]] = {
    "int": frozenset({int}),
    "float": frozenset({float, int}),
    "text": frozenset({str}),
    "bool": frozenset({bool}),
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


@dataclass(frozen=True, slots=True)
class Selection:
    """Say which records are wanted: of which symbols (empty: all), from when on and until when, in ms."""

    symbols: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None

    def holds(self, record: dict[str, Any]) -> bool:
        """Say whether a record is wanted."""
        if self.symbols and record.get("symbol") not in self.symbols:
            return False
        ts_ms = record["ts_ms"]
        return (self.since_ms is None or ts_ms >= self.since_ms) and (self.until_ms is None or ts_ms < self.until_ms)

    def may_hold(self, segment: Segment) -> bool:
        """Say whether a segment can hold a record that is wanted, as far as its manifest tells."""
        if not segment.sealed or (self.since_ms is None and self.until_ms is None):
            return True
        try:
            sessions = orjson.loads(manifest_path(segment.path).read_bytes())["sessions"].values()
            spans = [session["ts_ms"] for session in sessions if session["ts_ms"] is not None]
            first, last = min(span[0] for span in spans), max(span[1] for span in spans)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return True
        return (self.since_ms is None or last >= self.since_ms) and (self.until_ms is None or first < self.until_ms)


class Table(NamedTuple):
    """Say what became of a stream: its file (None where nothing was wanted), rows, and gap records left out."""

    path: Path | None
    rows: int
    gaps: int


def write_table(
    state_dir: Path,
    stream: Stream,
    path: Path,
    selection: Selection,
    report: ReadReport,
    progress: Callable[[int], None] | None = None,
) -> Table:
    """Write one stream as one table, Parquet or CSV by the suffix of `path`; return what became of it.

    The ticks come series after series, in the order in which a replay of their folder takes equal times, so that a
    replay of the table decides the same. The file takes its name when it is whole; where no record is wanted none is
    made. Memory is bounded by a batch. What cannot be read stands in `report`. Raises OSError.
    """
    columns = [_Column(*pair.split(":")) for pair in SCHEMAS[stream].split()]
    gaps = 0

    def wanted() -> Iterator[dict[str, Any]]:
        nonlocal gaps
        for found in _records(state_dir, stream, selection, report):
            record = found.record
            if record.get("type") == "gap" and stream is not Stream.JOURNAL:
                gaps += 1
            elif type(record.get("ts_ms")) is int and selection.holds(record):
                yield record

    records = wanted()
    batch = list(islice(records, BATCH_ROWS))
    if not batch:
        return Table(None, 0, gaps)
    rows = 0
    partial = path.with_name(path.name + ".tmp")
    try:
        with contextlib.closing(_open(partial, path.suffix, columns)) as sink:
            while batch:
                sink.write(batch)
                rows += len(batch)
                if progress is not None:
                    progress(rows)
                batch = list(islice(records, BATCH_ROWS))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # also an interrupt: no half table stays
        partial.unlink(missing_ok=True)
        raise
    return Table(path, rows, gaps)


def _records(state_dir: Path, stream: Stream, selection: Selection, report: ReadReport) -> Iterator[Found]:
    segments = list_segments(state_dir / FOLDERS[stream])
    if stream is Stream.TICKS and selection.symbols:
        wanted = {series_of(symbol) for symbol in selection.symbols}
        segments = [segment for segment in segments if segment.series in wanted]
    segments.sort(key=lambda segment: segment.path.name)
    return read_jsonl((segment.path for segment in segments if selection.may_hold(segment)), report)


class _Sink(Protocol):
    def write(self, records: list[dict[str, Any]]) -> None:
        """Write a batch."""

    def close(self) -> None:
        """Complete the file."""


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    kind: str

    def arrow(self) -> Any:
        import pyarrow as pa

        return {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}.get(self.kind, pa.string())

    def values(self, records: Iterable[dict[str, Any]]) -> tuple[list[Any], list[int]]:
        """Return the values of the column, and the places of those that are of no type of its own."""
        values = [record.get(self.name) for record in records]
        if self.kind == "json":
            return [None if value is None else orjson.dumps(value).decode() for value in values], []
        allowed = _ALLOWED[self.kind]
        if set(map(type, values)) <= allowed | {type(None)} and (self.kind != "int" or _fits(values)):
            return values, []
        odd = [
            place
            for place, value in enumerate(values)
            if value is not None and (type(value) not in allowed or not _fits([value]))
        ]
        for place in odd:
            values[place] = None
        return values, odd


def _fits(values: Iterable[Any]) -> bool:
    return all(value is None or type(value) is not int or -(1 << 63) <= value < 1 << 63 for value in values)


class _Tables:
    """Turn records into Arrow batches and write them."""

    def __init__(self, columns: list[_Column], is_csv: bool, open_writer: Callable[[Any], Any]) -> None:
        import pyarrow as pa

        self._columns, self._is_csv = columns, is_csv
        self._names = {column.name for column in columns}
        self._schema = pa.schema([(column.name, column.arrow()) for column in columns])
        self._writer = open_writer(self._schema)

    def write(self, records: list[dict[str, Any]]) -> None:
        """Write a batch."""
        import pyarrow as pa

        has_rest = REST in self._names
        rest = [self._beyond(record) for record in records] if has_rest else []
        arrays = []
        for column in self._columns:
            if column.name == REST:
                values: list[Any] = [orjson.dumps(members).decode() if members else None for members in rest]
            else:
                values, odd = column.values(records)
                for place in odd if has_rest else ():
                    rest[place][column.name] = records[place][column.name]
            if self._is_csv and column.kind == "text":
                values = [f"'{text}" if text and text.startswith(_FORMULA) else text for text in values]
            arrays.append(pa.array(values, column.arrow()))
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def _beyond(self, record: dict[str, Any]) -> dict[str, Any]:
        unknown: Collection[str] = record.keys() - self._names
        return {name: record[name] for name in unknown}

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()


def _open(path: Path, suffix: str, columns: list[_Column]) -> _Sink:
    if suffix == ".csv":
        import pyarrow.csv as pc

        options = pc.WriteOptions(quoting_style="needed")
        return _Tables(columns, True, lambda schema: pc.CSVWriter(str(path), schema, write_options=options))
    import pyarrow.parquet as pq

    return _Tables(columns, False, lambda schema: pq.ParquetWriter(str(path), schema, compression="zstd"))
