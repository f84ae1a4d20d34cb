"""Replay: the very engine of the bot over recorded data, the same to the bit from run to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from tradingbot.config import Settings, make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Trade, to_record
from tradingbot.errors import UsageError
from tradingbot.io.market_files import DataFile, find_files, read_ticks, scan
from tradingbot.market.ticker import Ticker
from tradingbot.services.statistics import Statistics

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FileSink",
    "NullSink",
    "ReplayResult",
    "Sink",
    "replay",
    "run_files",
    "run_ticks",
    "scan_all",
    "usable_files",
]

BATCH_TICKS = 8_192  # between two words on progress

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it, and of how much (0: not known)."""


class Sink(Protocol):
    """Take in what a replay puts out, one record at a time."""

    def decision(self, decision: Decision) -> None:
        """Take in a trigger."""

    def trade(self, trade: Trade) -> None:
        """Take in a closed trade."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Take in the summary, the last there is."""

    def discard(self) -> None:
        """Undo: nothing usable came."""


@dataclass(slots=True)
class ReplayResult:
    """Hold a replay: summary, decisions and trades (JSON objects, as the files have them), and what was unreadable."""

    summary: dict[str, Any]
    decisions: list[dict[str, Any]] = field(default_factory=list)
    trades: list[dict[str, Any]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def decisions_frame(self) -> pd.DataFrame:
        """Return the decisions as a DataFrame indexed by time (UTC)."""
        return _frame(self.decisions, "ts_ms")

    def trades_frame(self) -> pd.DataFrame:
        """Return the closed trades as a DataFrame indexed by their exit (UTC)."""
        return _frame(self.trades, "exit_ms")

    def __repr__(self) -> str:
        s = self.summary
        return (
            f"<ReplayResult {s['ticks']} ticks, {s['triggers']} triggers, {s['trades']} trades, "
            f"{s['final_equity_quote']:.2f} quote>"
        )

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in self.summary.items()
            if not isinstance(value, dict)
        )
        return f"<table>{rows}</table>"


def _frame(records: list[dict[str, Any]], time: str) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame.from_records(records)
    if records:
        frame.index = pd.DatetimeIndex(pd.to_datetime(frame[time], unit="ms", utc=True), name="time")
    return frame


class _ListSink:
    def __init__(self) -> None:
        self.decisions: list[dict[str, Any]] = []
        self.trades: list[dict[str, Any]] = []

    def decision(self, decision: Decision) -> None:
        self.decisions.append(to_record(decision))

    def trade(self, trade: Trade) -> None:
        self.trades.append(to_record(trade))

    def finish(self, summary: dict[str, Any]) -> None:
        """Do nothing: whoever asked has the summary."""

    def discard(self) -> None:
        """Do nothing: the lists go with their owner."""


class NullSink:
    """Forget everything: for a replay of which only the summary is wanted."""

    def decision(self, decision: Decision) -> None:
        """Forget a trigger."""

    def trade(self, trade: Trade) -> None:
        """Forget a closed trade."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Forget the summary."""

    def discard(self) -> None:
        """Do nothing: there is nothing to undo."""


class FileSink:
    """Write decisions.jsonl, trades.jsonl and summary.json into a folder.

    Each is written beside its name as `.partial` and takes the name when all is done, the summary last: a replay that
    is interrupted leaves what it had, and never half a result under a whole one's name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._decisions = (folder / "decisions.jsonl.partial").open("wb")
        self._trades = (folder / "trades.jsonl.partial").open("wb")

    def decision(self, decision: Decision) -> None:
        """Write one trigger as a line."""
        self._decisions.write(orjson.dumps(to_record(decision)) + b"\n")

    def trade(self, trade: Trade) -> None:
        """Write one closed trade as a line."""
        self._trades.write(orjson.dumps(to_record(trade)) + b"\n")

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary and give every file its name."""
        self.close()
        partial = self.folder / "summary.json.partial"
        partial.write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")
        for name in ("decisions.jsonl", "trades.jsonl", "summary.json"):
            (self.folder / f"{name}.partial").replace(self.folder / name)

    def discard(self) -> None:
        """Close the files and remove them: there was nothing to write."""
        self.close()
        for name in ("decisions.jsonl", "trades.jsonl"):
            (self.folder / f"{name}.partial").unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; what is written stays."""
        self._decisions.close()
        self._trades.close()


def run_ticks(
    ticks: Iterable[Ticker],
    settings: Settings,
    sink: Sink,
    first_ms: int,
    last_ms: int,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Feed ticks in order through a new engine; return the statistics.

    `first_ms` and `last_ms` are the span of the ticks; `progress` is told the count now and then.
    """
    engine = Engine(settings)
    statistics = Statistics(engine, first_ms, last_ms)
    tick, positions, states = engine.tick, engine.portfolio.positions, engine.states
    known = statistics.symbols
    held = False
    next_ms = first_ms
    source = iter(ticks)
    while batch := list(islice(source, BATCH_TICKS)):
        for ticker in batch:
            while ticker.ts_ms >= next_ms:
                next_ms = statistics.buy_instalment()
            outputs = tick(ticker)
            if ticker.symbol not in known and not states[ticker.symbol].fresh:
                statistics.begin(ticker.symbol)
            if outputs:
                for output in outputs:
                    statistics.take(output)
                    if type(output) is Decision:
                        sink.decision(output)
                    elif type(output) is Trade:
                        sink.trade(output)
            if positions or held:
                statistics.mark()
                held = bool(positions)
        statistics.ticks += len(batch)
        if progress is not None:
            progress(statistics.ticks)
    return statistics


def run_files(
    files: list[DataFile], settings: Settings, sink: Sink, progress: Progress | None = None
) -> dict[str, Any]:
    """Replay scanned files through a new engine into `sink`; return the summary.

    Raises UsageError if not one tick of them is usable.
    """
    usable = usable_files(files)
    spans = [file.span for file in usable if file.span is not None] or [(0, 0)]
    first_ms, last_ms = min(first for first, _ in spans), max(last for _, last in spans)
    total = sum(file.rows for file in usable)
    tell = None if progress is None else lambda count: progress("replaying", count, total)
    statistics = run_ticks(read_ticks(files), settings, sink, first_ms, last_ms, tell)
    summary = statistics.summary() | {"files": [_file_record(file) for file in files]}
    _require_one(statistics)
    return summary


def usable_files(files: Iterable[DataFile]) -> list[DataFile]:
    """Return the scanned files that have rows; raise UsageError, which says why, where none has."""
    usable = [file for file in files if file.rows]
    if not usable:
        reasons = "; ".join(file.complaint or f"{file.path}: no rows" for file in files)
        raise UsageError(f"nothing usable: {reasons}")
    return usable


def _require_one(statistics: Statistics) -> None:
    if not statistics.symbols:
        reasons = ", ".join(f"{reason} {count}" for reason, count in statistics.rejected.items())
        raise UsageError(f"nothing usable: every one of {statistics.ticks} ticks was rejected: {reasons}")


def _file_record(file: DataFile) -> dict[str, Any]:
    return {
        "name": file.path.name.encode("utf-8", "replace").decode(),
        "kind": file.kind,
        "rows": file.rows,
        "unreadable": file.unreadable,
        "problem": file.problem,
        "bar_ms": file.bar_ms if file.kind == "candles" else None,
    }


def scan_all(paths: Iterable[str | Path], progress: Progress | None = None) -> list[DataFile]:
    """Scan every file that `paths` name, in order."""
    files = []
    for path in find_files(paths):
        tell = None if progress is None else _reading(path.name, progress)
        files.append(scan(path, tell))
    return files


def _reading(name: str, progress: Progress) -> Callable[[int], None]:
    read = 0

    def tell(rows: int) -> None:
        nonlocal read
        read += rows
        progress(f"reading {name}", read, 0)

    return tell


def replay(source: str | Path | Iterable[Any], /, **settings: object) -> ReplayResult:
    """Replay recorded market data through the engine and return what it decided.

    `source` is a file or directory, several of them, a DataFrame with the columns of such a file (ts_ms, symbol, and
    last, price or close), or tickers; keywords are settings under their one name. Raises UsageError, SettingsError.

    >>> import tradingbot as tb
    >>> drop = [tb.Ticker("BTC/USDT", 1_700_000_000_000 + i * 1000, last=p) for i, p in enumerate((100.0, 98.4, 99.0))]
    >>> result = tb.replay(drop)
    >>> result.decisions[0]["decision_id"], result.decisions[0]["outcome"]
    ('BTC/USDT:1700000001000:1', 'observed')
    """
    chosen = make_settings(settings)
    sink = _ListSink()
    if isinstance(source, str | Path):
        source = [source]
    if hasattr(source, "to_parquet"):
        return _replay_frame(source, chosen, sink)
    try:
        items = list(source)
    except TypeError:
        items = []
    if items and all(isinstance(item, Ticker) for item in items):
        items.sort(key=lambda ticker: ticker.ts_ms)
        statistics = run_ticks(items, chosen, sink, items[0].ts_ms, items[-1].ts_ms)
        _require_one(statistics)
        return ReplayResult(statistics.summary(), sink.decisions, sink.trades)
    if not items or not all(isinstance(item, str | Path) for item in items):
        raise UsageError("replay takes files, directories, a DataFrame or tickers")
    return _replay_paths(items, chosen, sink)


def _replay_paths(paths: list[str | Path], settings: Settings, sink: _ListSink) -> ReplayResult:
    files = scan_all(paths)
    summary = run_files(files, settings, sink)
    complaints = [complaint for file in files if (complaint := file.complaint)]
    return ReplayResult(summary, sink.decisions, sink.trades, complaints)


def _replay_frame(frame: Any, settings: Settings, sink: _ListSink) -> ReplayResult:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tradingbot-") as folder:
        path = Path(folder) / "DataFrame.parquet"
        try:
            frame.to_parquet(path, index=False)
        except (ValueError, TypeError) as error:  # also pyarrow's own
            raise UsageError(f"the DataFrame cannot be read: {error}") from None
        return _replay_paths([path], settings, sink)
