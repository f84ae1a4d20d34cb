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
from tradingbot.market.ticker import Ticker

__all__ = ["DataFile", "find_files", "read_ticks", "scan"]

BLOCK_ROWS = 4_096  # of each run while they are merged
RUN_ROWS = 1_000_000  # what is sorted in memory at a time


@dataclass(slots=True)
class DataFile:
    """Hold what a first pass over a file found: `problem` is why it, or its rest, cannot be read."""

    path: Path
    kind: str = ""
    rows: int = 0
    unreadable: int = 0
    problem: str | None = None
    bar_ms: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
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
    """Return the data files that `paths` name: files as given, those of a directory by name; raise UsageError."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(child for child in path.iterdir() if child.suffix in SUFFIXES and child.is_file())
            if not inside:
                raise UsageError(f"no data file in {path}: looked for *{', *'.join(SUFFIXES)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"there is no file or directory {path}")
    return found


def scan(path: Path, progress: Callable[[int], None] | None = None) -> DataFile:
    """Read a file once: count its rows, what is unreadable and its symbols; find its bar; see whether it is in order.

    Never raises on bad data: what cannot be read stands in the result. `progress` is told the rows of each batch.
    """
    file = DataFile(path)
    bars = _Bars()
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
            in_order = not np.any(np.diff(ts) < 0) and (file.last_ms is None or int(ts[0]) >= file.last_ms)
            file.in_order = file.in_order and in_order
            file.rows += len(ticks)
            file.first_ms = int(ts.min()) if file.first_ms is None else min(file.first_ms, int(ts.min()))
            file.last_ms = int(ts.max()) if file.last_ms is None else max(file.last_ms, int(ts.max()))
            for code, count in enumerate(np.bincount(ticks["symbol"])):
                if count:
                    name = columns.symbols[code]
                    file.rows_by_symbol[name] = file.rows_by_symbol.get(name, 0) + int(count)
            if columns.kind == "candles":
                bars.add(ticks)
    except DataError as error:
        file.problem = str(error)
    if file.kind == "candles" and file.first_ms is not None and file.last_ms is not None:
        file.bar_ms = bars.smallest if bars.rising else _smallest_step(path)
        file.first_ms, file.last_ms = file.first_ms + file.bar_ms, file.last_ms + file.bar_ms
    return file


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


def _smallest_step(path: Path) -> int:
    by_symbol: dict[int, list[npt.NDArray[np.int64]]] = {}
    for columns in _as_far_as_readable(path):
        for code in np.unique(columns.ticks["symbol"]):
            part = columns.ticks["ts"][columns.ticks["symbol"] == code]
            by_symbol.setdefault(int(code), []).append(np.array(part))
    steps = [np.diff(np.unique(np.concatenate(parts))) for parts in by_symbol.values()]
    return min((int(step.min()) for step in steps if len(step)), default=0)


def read_ticks(files: Sequence[DataFile]) -> Iterator[Ticker]:
    """Yield the ticks of scanned files in order of (ts_ms, file, row).

    Files in order are streamed; others are sorted in runs of a million rows that wait in a temporary directory.
    """
    with tempfile.TemporaryDirectory(prefix="tradingbot-") as folder, contextlib.ExitStack() as opened:
        sources: list[Iterator[Ticker]] = []
        for place, file in enumerate(files):
            if file.rows and file.in_order:
                sources.append(_stream(file))
            elif file.rows:
                sources += _sorted_runs(file, Path(folder, str(place)), opened)
        if len(sources) == 1:
            yield from sources[0]
        else:
            yield from heapq.merge(*sources, key=attrgetter("ts_ms"))  # equal times: in order of the sources


def _as_far_as_readable(path: Path) -> Iterator[Columns]:
    try:
        yield from read_columns(path)
    except DataError:
        return  # the scan has said so


def _stream(file: DataFile) -> Iterator[Ticker]:
    for columns in _as_far_as_readable(file.path):
        yield from _tickers(columns.ticks, columns.symbols, file.bar_ms)


def _sorted_runs(file: DataFile, prefix: Path, opened: contextlib.ExitStack) -> list[Iterator[Ticker]]:
    sources: list[Iterator[Ticker]] = []
    waiting: list[Ticks] = []
    symbols: list[str] = []

    def write_run() -> None:
        run = np.concatenate(waiting)
        waiting.clear()
        path = prefix.with_suffix(f".{len(sources)}")
        run[np.argsort(run["ts"], kind="stable")].tofile(path)
        sources.append(_read_run(opened.enter_context(path.open("rb")), symbols, file.bar_ms))

    for columns in _as_far_as_readable(file.path):
        symbols = columns.symbols  # one growing list for the whole file
        waiting.append(columns.ticks)
        if sum(map(len, waiting)) >= RUN_ROWS:
            write_run()
    if waiting:
        write_run()
    return sources


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
