"""Importing: market data of others becomes a recorded session, run through the engine as if it had been watched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from msgspec import to_builtins

from tradingbot.config import Settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Rejected
from tradingbot.errors import UsageError
from tradingbot.io.jsonl import read_jsonl, read_jsonl_tail
from tradingbot.io.market_files import DataFile, read_ticks
from tradingbot.io.reserve import disk_low
from tradingbot.io.sealing import seal
from tradingbot.io.segments import list_segments, names_by_series
from tradingbot.io.state_files import check_stamp
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
from tradingbot.market.ticker import Ticker
from tradingbot.services.recorder import Recorder
from tradingbot.services.replay import usable_files

__all__ = ["ORIGIN", "Imported", "import_ticks", "recorded_sessions"]

ORIGIN = "import"  # the exchange of what came from none
BATCH_TICKS = 8_192

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """Hold what an import has recorded."""

    sid: str
    ticks: int
    rejected: int
    triggers: int


def recorded_sessions(state_dir: Path) -> set[str]:
    """Return the sessions that a state directory's journal, or else its ticks, hold, as far as it can be read."""
    journal = list_segments(state_dir / FOLDERS[JOURNAL])
    found = {str(item.record.get("sid")) for item in read_jsonl(segment.path for segment in journal)}
    folder = state_dir / FOLDERS[Stream.TICKS]
    for series in names_by_series(folder) if not found else ():  # without a journal the last ticks must tell
        found |= {str(record.get("sid")) for record in read_jsonl_tail(folder, series, 1)}
    return found


def import_ticks(
    files: list[DataFile],
    settings: Settings,
    sources: Mapping[str, str],
    state_dir: Path,
    taken: set[str],
    progress: Progress | None = None,
) -> Imported:
    """Record scanned files as one session of a state directory, its streams and journal; return what was recorded.

    The engine runs over them under `settings`, with paper orders where these say so. The session is named by the time
    of its first tick and by none of `taken`. A fresh directory is stamped, so that no bot takes this for its own past.
    For who holds the directory's lock. What cannot be written ends the import with UsageError: the session it leaves
    then has no end.
    """
    usable = usable_files(files)
    _check_room(state_dir, settings)
    if not taken:
        check_stamp(state_dir, ORIGIN, settings.TRADING_MODE, stamp=True)
    first_ms = min(file.first_ms for file in usable)
    sid = _free_sid(first_ms, taken)
    full: list[Path] = []
    trouble: list[str] = []
    now_ms = first_ms
    writer = StreamWriter(
        state_dir, sid, int(settings.MAX_FILE_MB * 1_000_000), settings.STREAM_FLUSH_MS / 1000, settings.STREAM_FSYNC_S,
        lambda why: trouble.append(why or ""), full.append, threaded=False,
    )  # fmt: skip
    engine = Engine(settings)
    recorder = Recorder(writer, sid, engine, settings.SNAPSHOT_MIN_PERIOD_MS, lambda: now_ms)
    ticks = rejected = triggers = 0
    total = sum(file.rows for file in usable)
    try:
        recorder.begin(to_builtins(settings), sources, ORIGIN, {"kind": "cold", "source": "nothing"})
        for batch in _batches(read_ticks(files)):
            for ticker in batch:
                now_ms = ticker.ts_ms
                outputs = engine.process(ticker)
                recorder.take(ticker, outputs)
                if outputs:
                    rejected += isinstance(outputs[0], Rejected)
                    triggers += sum(isinstance(output, Decision) for output in outputs)
            ticks += len(batch)
            _check(writer, state_dir, settings, trouble)
            if full:
                writer.flush()
            while full:
                seal(full.pop())
            if progress is not None:
                progress("importing", ticks, total)
        recorder.end()
    finally:
        writer.close()
    _check(writer, state_dir, settings, trouble)
    return Imported(sid, ticks, rejected, triggers)


def _batches(ticks: Iterator[Ticker]) -> Iterator[list[Ticker]]:
    while batch := list(islice(ticks, BATCH_TICKS)):
        yield batch


def _free_sid(first_ms: int, taken: set[str]) -> str:
    """Return the name of the session: by the time of its data, so that sessions sort by time."""
    base = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(first_ms / 1000))}-{ORIGIN}"
    number = 1
    while (sid := base if number == 1 else f"{base}{number}") in taken:
        number += 1
    return sid


def _check(writer: StreamWriter, state_dir: Path, settings: Settings, trouble: list[str]) -> None:
    """Raise UsageError where the disk is too full, or has not taken all that was recorded."""
    if any(state.dropped or state.state == "degraded" for state in writer.states.values()):
        why = next(filter(None, trouble), "a stream could not be written")
        raise UsageError(f"the import is not complete, {why}: begin again with another --state")
    _check_room(state_dir, settings)


def _check_room(state_dir: Path, settings: Settings) -> None:
    if disk_low(state_dir, math.ceil(settings.MIN_FREE_MB)):
        raise UsageError(f"less than MIN_FREE_MB = {settings.MIN_FREE_MB:g} MB are free: make room, and begin again")
