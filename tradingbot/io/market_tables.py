"""Tables of market data, Parquet, CSV or JSONL, as batches of ticks; every row that is none is counted."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import orjson

from tradingbot.errors import DataError

__all__ = ["SUFFIXES", "TICK", "Columns", "Ticks", "read_columns"]

PRICE_COLUMNS = {"last": "quotes", "price": "trades", "close": "candles"}  # the first that is there wins
BATCH_ROWS = 65_536
MAX_LINE_BYTES = 1 << 20
_BLOCK = 1 << 18  # of unpacked text
_WINDOW = 1 << 23  # bytes that a packed file may make its reader hold
MAX_TS_MS = 253_402_300_800_000  # the year 10000: what is later is no time of a market
UNREADABLE_MS = -1

TICK = np.dtype([("ts", "<i8"), ("symbol", "<i4"), ("last", "<f8"), ("bid", "<f8"), ("ask", "<f8"), ("volume", "<f8")])
Ticks = npt.NDArray[np.void]  # of dtype TICK: NaN is absent, inf what is no number (the guards name it)


@dataclass(slots=True)
class Columns:
    """Hold one batch of a file: its ticks, the names behind their symbol codes, and how many rows were none."""

    kind: str
    ticks: Ticks
    symbols: list[str]
    unreadable: int


def read_columns(path: Path) -> Iterator[Columns]:
    """Yield a file's rows in batches; raise DataError where it, or the rest of it, cannot be read."""
    reader = next((reader for suffix, reader in _READERS.items() if path.name.endswith(suffix)), None)
    if reader is None:
        raise DataError(f"not one of {', '.join(SUFFIXES)}")
    try:
        if path.stat().st_size == 0:
            raise DataError("the file is empty")
        yield from reader(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None


@dataclass(slots=True)
class _Encoded:
    """Hold a column of texts as names and places in them; the place behind the last name is absent."""

    names: list[str]
    places: npt.NDArray[np.int64]


class _Builder:
    """Make batches of one file from columns of any type; `symbols` is one growing list of names."""

    def __init__(self, columns: Iterable[str], price: Callable[[Any], float]) -> None:
        names = list(columns)
        missing = [name for name in ("ts_ms", "symbol") if name not in names]
        source = next((name for name in PRICE_COLUMNS if name in names), None)
        if source is None:
            missing.append("one of last, price, close")
        twice = [name for name in ("ts_ms", "symbol", *PRICE_COLUMNS) if names.count(name) > 1]
        if twice:
            raise DataError(f"column twice: {', '.join(twice)}")
        if missing or source is None:
            raise DataError(f"column missing: {', '.join(missing)} (there are {', '.join(names[:20]) or 'none'})")
        self.kind = PRICE_COLUMNS[source]
        self.symbols: list[str] = []
        self.source = source
        self.optional = {
            member: name
            for member, name in (("bid", "bid"), ("ask", "ask"), ("volume", "quote_volume"))
            if self.kind == "quotes" and name in names
        }
        self.columns = ["ts_ms", "symbol", source, *self.optional.values()]
        self._codes: dict[str, int] = {}
        self._price = price

    def batch(self, columns: Sequence[Any], unreadable: int = 0) -> Columns:
        """Build a batch from values in the order of `columns`."""
        ts, symbols, *prices = columns
        ticks = np.empty(len(ts), TICK)
        ticks["bid"] = ticks["ask"] = ticks["volume"] = np.nan
        ticks["ts"] = ts if isinstance(ts, np.ndarray) else [_time(value) for value in ts]
        if isinstance(symbols, _Encoded):
            ticks["symbol"] = np.array([self._code(name) for name in (*symbols.names, None)])[symbols.places]
        else:
            codes = {symbol: self._code(symbol) for symbol in set(symbols)}
            ticks["symbol"] = [codes[symbol] for symbol in symbols]
        for member, values in zip(("last", *self.optional), prices, strict=True):
            ticks[member] = values if isinstance(values, np.ndarray) else [self._price(value) for value in values]
        readable = (ticks["ts"] >= 0) & (ticks["ts"] < MAX_TS_MS) & (ticks["symbol"] >= 0)
        kept = ticks[readable]
        return Columns(self.kind, kept, self.symbols, unreadable + len(ticks) - len(kept))

    def _code(self, symbol: object) -> int:
        if not isinstance(symbol, str) or not symbol.strip() or any("\ud800" <= c <= "\udfff" for c in symbol):
            return -1
        code = self._codes.setdefault(symbol, len(self.symbols))
        if code == len(self.symbols):
            self.symbols.append(symbol)
        return code


def _time(value: object) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return UNREADABLE_MS
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TS_MS:
        return value
    return UNREADABLE_MS


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return math.inf


def _number_in_text(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan if text.strip().lower() in ("", "null", "none", "na", "n/a") else math.inf


def _read_parquet(path: Path) -> Iterator[Columns]:
    import pyarrow as pa  # 0.1 s
    import pyarrow.parquet as pq

    done = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # else the whole file waits in memory
            builder = _Builder(file.schema_arrow.names, _number)
            for batch in file.iter_batches(BATCH_ROWS, columns=builder.columns):
                done += batch.num_rows
                yield builder.batch([_arrow_values(batch.column(name), name) for name in builder.columns])
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:  # what odd schemas and bytes raise
        what = str(error).split("\n", maxsplit=1)[0][:120]
        raise DataError(f"damaged after row {done}: {what}" if done else f"not a whole Parquet file: {what}") from None


def _arrow_values(column: Any, name: str) -> Any:
    import pyarrow as pa

    kind = column.type
    if name == "symbol":
        if not (pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return [_hashable(value) for value in column.to_pylist()]
        encoded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
        places = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
        return _Encoded(encoded.dictionary.to_pylist(), places.astype(np.int64))
    if name == "ts_ms":
        if pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
        if pa.types.is_integer(column.type):
            values = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            values[column.is_null().to_numpy(zero_copy_only=False)] = UNREADABLE_MS
            return values
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return column.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
    elif pa.types.is_decimal(kind):
        return [_number(None if value is None else float(value)) for value in column.to_pylist()]
    return column.to_pylist()


def _read_csv(path: Path) -> Iterator[Columns]:
    with path.open("rb") as file:
        lines = (line.decode("utf-8", "replace").rstrip("\r\n") for line in _lines(file))
        header = next(lines, "").removeprefix("\ufeff")
        mark = next((mark for mark in ",;\t" if "ts_ms" in _cells(header, mark)), ",")
        names = [name.strip() for name in _cells(header, mark)]
        builder = _Builder(names, _number_in_text)
        places = [names.index(name) for name in builder.columns]
        rows: list[list[str]] = []
        unreadable = 0
        for line in lines:
            cells = _cells(line, mark)
            if len(cells) == len(names):
                rows.append([cells[place] for place in places])
            elif line.strip():
                unreadable += 1
            if len(rows) >= BATCH_ROWS:
                yield builder.batch(list(zip(*rows, strict=True)), unreadable)
                rows, unreadable = [], 0
        if rows or unreadable:
            columns = list(zip(*rows, strict=True)) if rows else [()] * len(places)
            yield builder.batch(columns, unreadable)


def _cells(line: str, mark: str) -> list[str]:
    """Return the cells of one line; none where it cannot be one (a row is a line: a lone quote swallows no others)."""
    if '"' not in line:
        return line.split(mark)
    try:
        return next(csv.reader([line], delimiter=mark, strict=True), [])
    except csv.Error:
        return []


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is longer than a mebibyte, its beginning without an end."""
    while line := file.readline(MAX_LINE_BYTES):
        rest = line
        while not rest.endswith(b"\n") and len(rest) == MAX_LINE_BYTES:
            rest = file.readline(MAX_LINE_BYTES)
        yield line


def _read_jsonl(path: Path) -> Iterator[Columns]:
    names: dict[str, None] = {}
    with contextlib.suppress(DataError):  # it is raised again below, behind the rows that stand before it
        for record in _json_records(path):
            if record is not None:
                names |= dict.fromkeys(record)
    builder = _Builder(names, _number)
    rows: list[list[object]] = []
    unreadable = 0
    problem = None
    try:
        for record in _json_records(path):
            if record is None:
                unreadable += 1
            else:
                rows.append([_hashable(record.get(name)) for name in builder.columns])
            if len(rows) >= BATCH_ROWS:
                yield builder.batch(list(zip(*rows, strict=True)), unreadable)
                rows, unreadable = [], 0
    except DataError as error:
        problem = error
    if rows or unreadable:
        yield builder.batch(list(zip(*rows, strict=True)) if rows else [()] * len(builder.columns), unreadable)
    if problem is not None:
        raise problem


@contextlib.contextmanager
def _unpacking(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give the text of a zstd file; raise DataError where it cannot be unpacked."""
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        with unpacker.stream_reader(file, read_across_frames=True) as reader:
            yield io.BufferedReader(reader, _BLOCK)
    except zstandard.ZstdError as error:
        raise DataError(f"damaged: {error}") from None


def _hashable(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else ()  # a list, an object: no value at all


def _json_records(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield each line's object, None for a line that holds none."""
    with contextlib.ExitStack() as opened:
        file: IO[bytes] = opened.enter_context(path.open("rb"))
        if path.suffix == ".zst":
            file = opened.enter_context(_unpacking(file))
        for line in _lines(file):
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                try:  # NaN and Infinity are no JSON, but Python's own writer makes them
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
            yield record if isinstance(record, dict) else None


_READERS: dict[str, Callable[[Path], Iterator[Columns]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".jsonl.zst": _read_jsonl,
}
SUFFIXES = tuple(_READERS)
