"""Foreign market data: files become ticks, in order of (ts_ms, input order), in bounded memory."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tradingbot.errors import DataError, UsageError
from tradingbot.io.market_tables import SUFFIXES, TICK, Columns, Ticks, read_columns
from tradingbot.io.streams import FOLDERS, Stream
from tradingbot.market.ticker import Ticker

__all__ = ["DataFile", "find_files", "read_ticks", "scan"]

TICKS = FOLDERS[Stream.TICKS]
RESULT_NAMES = ("decisions.jsonl", "trades.jsonl")  # of a replay: they look like quotes, and are none
BLOCK_ROWS = 4_096  # of each run while they are merged
RUN_ROWS = 1_000_000  # what is sorted in memory at a time


@dataclass(slots=True)
class DataFile:
    """Hold what a first pass over a file found.

    `problem` is why it, or its rest, cannot be read; `first_ms` the time of its earliest tick; `span` the first and the
    last time of a tick with a usable price.
    """

    path: Path
    kind: str = ""
    rows: int = 0
    unreadable: int = 0
    problem: str | None = None
    bar_ms: int = 0
    first_ms: int = 1 << 62
    span: tuple[int, int] | None = None
    in_order: bool = True
    rows_by_symbol: dict[str, int] = field(default_factory=dict)

    @property
    def complaint(self) -> str | None:
        """Return in one line what of this file cannot be used, None where all can."""
        parts = []
        if self.unreadable:
            parts.append(f"{self.unreadable} of {self.rows + self.unreadable} rows unreadable")
        if self.problem:
            parts.append(f"{self.problem} ({self.rows} rows used)" if self.rows else self.problem)
        return f"{self.path}: {'; '.join(parts)}" if parts else None


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return the data files that `paths` name: files as given, those of a directory by name; raise UsageError.

    Of a bot's state directory these are its ticks. Where a segment is there sealed and plain, the plain file counts.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = _inside(path / TICKS if (path / TICKS).is_dir() else path)
            if not inside:
                raise UsageError(f"no data file in {path}: looked for *{', *'.join(SUFFIXES)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"there is no file or directory {path}")
    return found


def _inside(folder: Path) -> list[Path]:
    names = {child.name for child in folder.iterdir() if child.name.endswith(SUFFIXES) and child.is_file()}
    doubles = {f"{name}.zst" for name in names}
    return [folder / name for name in sorted(names - doubles - set(RESULT_NAMES))]


def scan(path: Path, progress: Callable[[int], None] | None = None) -> DataFile:
    """Read a file once: count its rows, what is unreadable and its symbols; find its bar; see whether it is in order.

    Never raises on bad data: what cannot be read stands in the result. `progress` is told the rows of each batch.
    """
    file = DataFile(path)
    bars = _Bars()
    last_ms = -1
    try:
        for columns in read_columns(path):
            file.kind = columns.kind
            file.unreadable += columns.unreadable
            ticks = columns.ticks
            if progress is not None:
                progress(len(ticks) + columns.unreadable)
            if not len(ticks):
                continue
            ts = ticks["ts"]
            file.in_order = file.in_order and int(ts[0]) >= last_ms and not np.any(np.diff(ts) < 0)
            last_ms = int(ts[-1])
            file.rows += len(ticks)
            file.first_ms = min(int(ts.min()), file.first_ms)
            _note_span(file, ticks)
            for code, count in enumerate(np.bincount(ticks["symbol"])):
                if count:
                    name = columns.symbols[code]
                    file.rows_by_symbol[name] = file.rows_by_symbol.get(name, 0) + int(count)
            if columns.kind == "candles":
                bars.add(ticks)
    except DataError as error:
        file.problem = str(error)
    if file.kind == "candles" and file.rows:
        bar_ms = bars.smallest if bars.rising else _smallest_step(file)
        file.bar_ms, file.first_ms, file.span = bar_ms, file.first_ms + bar_ms, _later(file.span, bar_ms)
    return file


def _note_span(file: DataFile, ticks: Ticks) -> None:
    """Widen the file's span by the ticks that the guards could take: a price that is none is no part of a market."""
    last, bid, ask = ticks["last"], ticks["bid"], ticks["ask"]
    price = np.where(np.isnan(last), bid + ask, last)
    usable = np.isfinite(price) & (price > 0) & ~(bid <= 0) & ~(ask <= 0) & ~(bid > ask)
    if usable.any():
        ts = ticks["ts"][usable]
        first_ms, last_ms = int(ts.min()), int(ts.max())
        before = file.span or (first_ms, last_ms)
        file.span = min(first_ms, before[0]), max(last_ms, before[1])


def _later(span: tuple[int, int] | None, ms: int) -> tuple[int, int] | None:
    return None if span is None else (span[0] + ms, span[1] + ms)


class _Bars:
    """Find the smallest step > 0 between rows of the same symbol while they come in rising order."""

    def __init__(self) -> None:
        self.smallest = 0
        self.rising = True
        self._last: dict[int, int] = {}

    def add(self, ticks: Ticks) -> None:
        order = np.argsort(ticks["symbol"], kind="stable")
        codes, ts = ticks["symbol"][order], ticks["ts"][order]
        steps = np.diff(ts)[codes[1:] == codes[:-1]]
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        ends = np.r_[starts[1:], len(codes)] - 1
        heads = [int(ts[i]) - self._last[c] for i in starts if (c := int(codes[i])) in self._last]
        self._last |= {int(codes[i]): int(ts[i]) for i in ends}
        every = np.concatenate([steps, np.array(heads, dtype=np.int64)])
        self.rising = self.rising and not np.any(every < 0)
        above = every[every > 0]
        if len(above):
            self.smallest = min(self.smallest or int(above.min()), int(above.min()))


def _smallest_step(file: DataFile) -> int:
    """Return the smallest step > 0 between any two rows of the same symbol, where they come in no order."""
    last: dict[str, int] = {}
    smallest = 0
    for ticker in read_ticks([file]):
        step = ticker.ts_ms - last.get(ticker.symbol, ticker.ts_ms)
        last[ticker.symbol] = ticker.ts_ms
        if step > 0 and (smallest == 0 or step < smallest):
            smallest = step
    return smallest


def read_ticks(files: Sequence[DataFile]) -> Iterator[Ticker]:
    """Yield the ticks of scanned files in order of (ts_ms, file, row).

    A file is opened when its time has come and closed at its end. Files in order are streamed; others are sorted in
    runs of a million rows that wait in a temporary directory. Raises UsageError if a file no longer holds what the scan
    found.
    """
    waiting = sorted((file.first_ms, place) for place, file in enumerate(files) if file.rows)
    waiting.reverse()
    # of each open file: its next tick's time, its place, the tick, the rest
    heads: list[tuple[int, int, Ticker, Iterator[Ticker]]] = []
    while waiting or heads:
        while waiting and (not heads or waiting[-1][0] <= heads[0][0]):
            _, place = waiting.pop()
            rest = _stream(files[place]) if files[place].in_order else _sorted(files[place])
            _push(heads, place, rest)
        if len(heads) == 1:  # nobody to compare with until the next file begins
            _, place, ticker, rest = heads.pop()
            until = waiting[-1][0] if waiting else None
            yield ticker
            for ticker in rest:
                if until is not None and ticker.ts_ms >= until:
                    heapq.heappush(heads, (ticker.ts_ms, place, ticker, rest))
                    break
                yield ticker
        else:
            _, place, ticker, rest = heapq.heappop(heads)
            yield ticker
            _push(heads, place, rest)


def _push(heads: list[tuple[int, int, Ticker, Iterator[Ticker]]], place: int, rest: Iterator[Ticker]) -> None:
    ticker = next(rest, None)
    if ticker is not None:
        heapq.heappush(heads, (ticker.ts_ms, place, ticker, rest))


def _again(file: DataFile) -> Iterator[Columns]:
    """Read a scanned file again, as far as it was readable then; raise UsageError if it is not the same any more."""
    rows, why = 0, "it has changed"
    try:
        for columns in read_columns(file.path):
            rows += len(columns.ticks)
            yield columns
    except DataError as error:
        why = str(error)
    if rows != file.rows:
        raise UsageError(f"{file.path}: {rows} of the {file.rows} rows found at first could be read again: {why}")


def _stream(file: DataFile) -> Iterator[Ticker]:
    for columns in _again(file):
        for first in range(0, len(columns.ticks), BLOCK_ROWS):
            yield from _tickers(columns.ticks[first : first + BLOCK_ROWS], columns.symbols, file.bar_ms)


def _sorted(file: DataFile) -> Iterator[Ticker]:
    with tempfile.TemporaryDirectory(prefix="tradingbot-") as folder, contextlib.ExitStack() as opened:
        runs: list[Path] = []
        waiting: list[Ticks] = []
        symbols: list[str] = []

        def write_run() -> None:
            run = np.concatenate(waiting)
            waiting.clear()
            runs.append(Path(folder, str(len(runs))))
            runs[-1].write_bytes(run[np.argsort(run["ts"], kind="stable")].tobytes())

        for columns in _again(file):
            symbols = columns.symbols  # one growing list for the whole file
            waiting.append(columns.ticks)
            if sum(map(len, waiting)) >= RUN_ROWS:
                write_run()
        if waiting:
            write_run()
        sources = [_read_run(opened.enter_context(run.open("rb")), symbols, file.bar_ms) for run in runs]
        yield from heapq.merge(*sources, key=attrgetter("ts_ms"))  # equal times: in order of the runs


def _read_run(run: IO[bytes], symbols: list[str], bar_ms: int) -> Iterator[Ticker]:
    while len(block := np.frombuffer(run.read(BLOCK_ROWS * TICK.itemsize), dtype=TICK)):
        yield from _tickers(block, symbols, bar_ms)


def _tickers(ticks: Ticks, symbols: list[str], bar_ms: int) -> Iterator[Ticker]:
    columns = zip(
        map(symbols.__getitem__, ticks["symbol"].tolist()),
        (ticks["ts"] + bar_ms).tolist(),
        _optional(ticks["last"]),
        _optional(ticks["bid"]),
        _optional(ticks["ask"]),
        _optional(ticks["volume"]),
        strict=False,  # where a column is absent, None repeats for ever
    )
    return itertools.starmap(Ticker, columns)


def _optional(prices: npt.NDArray[Any]) -> Iterable[float | None]:
    absent = np.isnan(prices)
    if absent.all():
        return itertools.repeat(None)
    values: list[float] = prices.tolist()
    return [None if price != price else price for price in values] if absent.any() else values  # noqa: PLR0124
