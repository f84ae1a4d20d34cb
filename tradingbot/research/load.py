"""Load: what a bot has recorded, streams and journal, as DataFrames that are read when they are first asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.errors import UsageError
from tradingbot.io.home import find_home
from tradingbot.io.jsonl_read import ReadReport, read_jsonl, read_jsonl_tail
from tradingbot.io.overrides import read_settings
from tradingbot.io.segments import list_segments, names_by_series, series_of, symbol_of
from tradingbot.io.stream_columns import Columns, Missing, StreamColumns
from tradingbot.io.stream_tables import Selection
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
from tradingbot.io.tick_files import newest_ms
from tradingbot.research.frames import moment_ms, times, utc
from tradingbot.research.journal import Journal, read_journal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_ROWS", "Recorded", "find_state", "load"]

MAX_ROWS = 5_000_000  # of one DataFrame: half a gigabyte of ticks

_HEAD = {"ts_ms": "int", "symbol": "text"}
TICKS = {
    "last": "float", "bid": "float", "ask": "float", "bid_size": "float", "ask_size": "float", "quote_volume": "float",
    "recv_ms": "float", "seq": "int", "sid": "text",
}  # fmt: skip
SNAPSHOTS = {
    "last": "float", "bid": "float", "ask": "float", "spread_bps": "float", "reference": "float",
    "reference_source": "text", "threshold": "float", "drop_pct": "float", "peak": "float", "trough": "float",
    "session_start": "float", "session_peak": "float", "anchor": "float", "anchor_set_ms": "float", "armed": "bool",
    "below": "int", "triggers": "int", "cause": "int", "sid": "text",
}  # fmt: skip
WINDOWS = {"peak": "float", "trough": "float", "cause": "int", "sid": "text"}


def find_state(home: str | os.PathLike[str] | None = None, state: str | os.PathLike[str] | None = None) -> Path:
    """Return the state directory of a home, there or not: the one that its settings name, or `state` itself.

    Without a home it is the one that commands find: TRADINGBOT_HOME, else the nearest folder with a tradingbot.toml,
    else the working directory. A `home` that is itself a state directory is taken for one. Raises UsageError.
    """
    if state:
        return Path(state).expanduser()
    given = str(home) if home else None
    if given is not None:
        folder = Path(given).expanduser()
        if any((folder / name).is_dir() for name in ("journal", "drop_windows")):
            return folder
    return read_settings(find_home(given, os.environ, Path.cwd())).state_dir


def load(
    home: str | os.PathLike[str] | None = None,
    *,
    state: str | os.PathLike[str] | None = None,
    since: object = None,
    until: object = None,
    symbols: Sequence[str] | str | None = None,
) -> Recorded:
    """Return what a bot has recorded, as DataFrames that are read when they are first asked for.

    `home` is the bot's, or a state directory itself, which `state` names too. `since` (included) and `until` (not) are
    ISO text (UTC), datetimes, milliseconds, or minutes back from the newest record; `symbols` one name or several. A
    bot may go on writing meanwhile. Raises UsageError where there is no such directory, symbol or stretch of time.

    >>> import tempfile, tradingbot as tb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recorded = tb.load(state=folder)
    ...     len(recorded.ticks), list(recorded.decisions.columns[:3])
    (0, ['decision_id', 'symbol', 'outcome'])
    """
    folder = find_state(home, state)
    if not folder.is_dir():
        raise UsageError(f"there is no state directory {folder}: name the home of a bot that has run, or state=")
    newest = _newest_ms(folder)
    since_ms, until_ms = moment_ms(since, "since", newest), moment_ms(until, "until", newest)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UsageError(f"since ({utc(since_ms)}) is not before until ({utc(until_ms)} UTC)")
    wanted = [symbols] if isinstance(symbols, str) else list(symbols or ())
    if not all(isinstance(symbol, str) and symbol for symbol in wanted):
        raise UsageError("symbols takes names, as ['BTC/USDT', 'ETH/USDT']")
    return Recorded(folder, Selection(frozenset(wanted), since_ms, until_ms))


def _newest_ms(folder: Path) -> int | None:
    last = [record["ts_ms"] for record in read_jsonl_tail(folder / FOLDERS[JOURNAL], JOURNAL.value, 1)]
    ticks = newest_ms(folder)
    return max([*last, *([] if ticks is None else [ticks])], default=None)


class Recorded:
    """Hold what is recorded under a state directory, between two times, of some symbols or of all.

    Each table is read once, when it is first asked for; times are UTC, prices quote per base, sizes base, fees and
    profit quote. `damage` says what could not be read, as far as it has been read.
    """

    def __init__(self, state_dir: Path, selection: Selection, known: list[str] | None = None) -> None:
        self.state_dir, self.selection = state_dir, selection
        if known is not None:
            self._known = known
        self._reports: dict[str, ReadReport] = {}
        self._missing: dict[str, list[Missing]] = {}
        unknown = sorted(selection.symbols - set(self._known))
        if unknown:
            named = ", ".join(self._known[:10]) + (", ..." if len(self._known) > 10 else "")
            raise UsageError(f"{unknown[0]!r} is not recorded under {state_dir}: there are {named or 'no symbols'}")

    @cached_property
    def _known(self) -> list[str]:
        """Name every symbol that ticks or journal know of."""
        folder = self.state_dir / FOLDERS[Stream.TICKS]
        series = names_by_series(folder) if folder.is_dir() else {}
        found = {name: symbol_of(name) for name in series}
        told = {symbol for symbol in found.values() if symbol is not None}
        for long in [name for name, symbol in found.items() if symbol is None]:  # too long for a file name
            told |= {str(record.get("symbol")) for record in read_jsonl_tail(folder, long, 1)}
        return sorted(told | {row["symbol"] for rows in self._whole.rows.values() for row in rows if row.get("symbol")})

    @property
    def symbols(self) -> list[str]:
        """Return the symbols that were asked for, or all that are recorded."""
        return sorted(self.selection.symbols) or list(self._known)

    @cached_property
    def _whole(self) -> Journal:
        report = self._reports["journal"] = ReadReport()
        segments = list_segments(self.state_dir / FOLDERS[JOURNAL], JOURNAL.value)
        journal = read_journal(found.record for found in read_jsonl((each.path for each in segments), report))
        report.forget_torn(segments[-1].path if segments else None)
        return journal

    @cached_property
    def journal(self) -> Journal:
        """Return the journal's facts: of the symbols and the time that were asked for; sessions and settings whole."""
        whole, chosen = self._whole, self.selection
        rows = {name: [row for row in rows if _holds(chosen, name, row)] for name, rows in whole.rows.items()}
        return Journal(whole.sessions, whole.stretches, rows, whole.first_ms, whole.last_ms)

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Return a row for each trigger, with all that explains it; `stretch` numbers the settings in force."""
        return self.journal.table("decisions")

    @cached_property
    def fills(self) -> pd.DataFrame:
        """Return a row for each fill."""
        return self.journal.table("fills")

    @cached_property
    def exits(self) -> pd.DataFrame:
        """Return a row for each decision to end a position."""
        return self.journal.table("exits")

    @cached_property
    def trades(self) -> pd.DataFrame:
        """Return a row for each closed trade, indexed by its exit."""
        return self.journal.table("trades")

    @cached_property
    def rejections(self) -> pd.DataFrame:
        """Return rejected tickers: `count` is 1 for one that was recorded whole, else how many were only counted."""
        return self.journal.table("rejections")

    @cached_property
    def settings_changes(self) -> pd.DataFrame:
        """Return a row for each setting that became another one, while running or from session to session."""
        return self.journal.table("changes")

    @cached_property
    def conditions(self) -> pd.DataFrame:
        """Return what blocked entries, and of which symbol where it was one: kill switch, degraded, parked."""
        return self.journal.table("conditions")

    @cached_property
    def sessions(self) -> pd.DataFrame:
        """Return a row for each session."""
        return self.journal.sessions_table()

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """Return the stretches that were not recorded while a bot ran, each with why."""
        return self.journal.table("gaps")

    @cached_property
    def ticks(self) -> pd.DataFrame:
        """Return the accepted ticks, by time; of more than MAX_ROWS raise UsageError: see `ticks_of`."""
        return self._frame(Stream.TICKS, TICKS)

    @cached_property
    def snapshots(self) -> pd.DataFrame:
        """Return what the bot knew of each symbol, at most every SNAPSHOT_MIN_PERIOD_MS, by time."""
        return self._frame(Stream.SNAPSHOTS, SNAPSHOTS)

    @cached_property
    def windows(self) -> pd.DataFrame:
        """Return peak and trough of each symbol's window, a row where either changed, by time."""
        return self._frame(Stream.WINDOWS, WINDOWS)

    @cached_property
    def anchors(self) -> pd.DataFrame:
        """Return each change of an anchor, with its cause, by time."""
        import pandas as pd

        report = self._reports["anchors"] = ReadReport()
        segments = list_segments(self.state_dir / FOLDERS[Stream.ANCHORS])
        rows = []
        for found in read_jsonl((each.path for each in segments if self.selection.may_hold(each)), report):
            record = found.record
            if record.get("type") != "gap" and type(record.get("ts_ms")) is int and self.selection.holds(record):
                anchor = record.get("anchor") or {}
                names = ("symbol", "cause_word", "sid")
                symbol, cause, sid = (str(record.get(name, "")) for name in names)
                facts = (record["ts_ms"], symbol, cause, anchor.get("price"), sid)
                rows.append(facts)
        report.forget_torn(segments[-1].path if segments else None)
        frame = pd.DataFrame(rows, columns=["ts_ms", "symbol", "cause", "price", "sid"])
        frame = frame.astype({"symbol": "category", "cause": "category", "price": "float64", "sid": "category"})
        frame.index = times(frame.pop("ts_ms"))
        return frame

    def ticks_of(self, symbol: str, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
        """Return one symbol's accepted ticks, by time: for records whose ticks are too many for one DataFrame."""
        return self.of(symbol)._frame(Stream.TICKS, columns or TICKS, f"ticks of {symbol}")

    def of(self, symbol: str) -> Recorded:
        """Return the same of one symbol alone; what it cannot read counts here too."""
        chosen = Selection(frozenset({symbol}), self.selection.since_ms, self.selection.until_ms)
        one = Recorded(self.state_dir, chosen, self._known)
        one._reports, one._missing = self._reports, self._missing
        return one

    def columns(self, stream: Stream, columns: Mapping[str, str], name: str = "") -> Iterator[Columns]:
        """Yield chosen members of a stream's records in bounded memory: arrays of equal length, some thousand rows.

        `columns` names members with their kind (int, float, text, bool). The ticks come symbol after symbol, without
        the member `symbol` where it is not asked for.
        """
        name = name or stream.value
        report = self._reports[name] = ReadReport()
        reader = StreamColumns(self.state_dir, stream, columns, self.selection, report)
        for series, segments in reader.segments().items():
            if stream is Stream.TICKS and self.selection.symbols and not self._is_wanted(series):
                continue
            yield from reader.read(segments)
        self._missing[name] = reader.gaps

    def _is_wanted(self, series: str) -> bool:
        return series in {series_of(symbol) for symbol in self.selection.symbols}

    @property
    def missing(self) -> list[Missing]:
        """Return the gap records of what has been read: how many records could not be written, and before when."""
        return [gap for gaps in self._missing.values() for gap in gaps]

    @property
    def damaged(self) -> int:
        """Return how many lines could not be read, of what has been read."""
        return sum(report.damaged for report in self._reports.values())

    @property
    def damage(self) -> list[str]:
        """Name the places that could not be read, of what has been read; at most 1,000 a stream."""
        return [str(place) for report in self._reports.values() for place in report.places]

    def _frame(self, stream: Stream, columns: Mapping[str, str], name: str = "") -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        columns = {**_HEAD, **columns}
        texts = [column for column, kind in columns.items() if kind == "text"]
        codes: dict[str, dict[str, int]] = {column: {} for column in texts}
        parts: dict[str, list[Any]] = {column: [] for column in columns}
        rows = 0
        for batch in self.columns(stream, columns, name):
            rows += len(batch["ts_ms"])
            if rows > MAX_ROWS:
                raise UsageError(
                    f"more than {MAX_ROWS:,} {name or stream.value} are recorded there, too many for one DataFrame: "
                    "name since=, until= or symbols=, or go symbol by symbol with ticks_of"
                )
            for column, values in batch.items():
                parts[column].append(_coded(values, codes[column]) if column in codes else values)
        whole: dict[str, Any] = {}
        for column, kind in columns.items():
            dtype = "int32" if kind == "text" else {"int": "int64", "float": "float64", "bool": "bool"}[kind]
            whole[column] = np.concatenate(parts.pop(column) or [np.array([], dtype=dtype)])
        ts_ms = whole.pop("ts_ms")
        if len(ts_ms) and (np.diff(ts_ms) < 0).any():
            order = np.argsort(ts_ms, kind="stable")
            ts_ms, whole = ts_ms[order], {column: values[order] for column, values in whole.items()}
        for column in texts:
            whole[column] = pd.Categorical.from_codes(whole[column], categories=pd.Index(list(codes[column])))
        return pd.DataFrame(whole, index=times(ts_ms), copy=False)

    def __repr__(self) -> str:
        journal = self.journal
        return (
            f"<Recorded {self.state_dir}: {len(journal.sessions)} sessions, {len(self.symbols)} symbols, "
            f"{len(journal.rows.get('decisions', ()))} triggers, {utc(journal.first_ms)} .. {utc(journal.last_ms)} UTC>"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def _holds(selection: Selection, name: str, row: dict[str, Any]) -> bool:
    if name == "gaps":
        until = row.get("until")
        ends = until is None or selection.since_ms is None or until >= selection.since_ms
        return bool(ends and (selection.until_ms is None or row["time"] < selection.until_ms))
    chosen = selection if row.get("symbol") else Selection(frozenset(), selection.since_ms, selection.until_ms)
    return chosen.holds({"symbol": row.get("symbol"), "ts_ms": row["time"]})


def _coded(values: Any, table: dict[str, int]) -> Any:
    """Return texts as numbers; a text that is new takes the next one."""
    import numpy as np

    first = values[0]
    if (values == first).all():
        return np.full(len(values), table.setdefault(first, len(table)), dtype=np.int32)
    return np.array([table.setdefault(text, len(table)) for text in values], dtype=np.int32)
