"""What turns records into tables, and tables of others into records."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.commands.arguments import STATE_HELP, Add, add_asking
from tradingbot.commands.shared import answer, ask, complain, from_here, settings_of, state_named
from tradingbot.commands.upkeep import LOCKS
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.io.market_files import DataFile

__all__ = ["add_to", "export", "import_", "moment_ms"]


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "write what is recorded as tables, a file a stream"
    command = add("export", export, text, "tradingbot export build/run/state --to parquet --stream ticks")
    command.add_argument("folder", nargs="?", metavar="STATE", help=STATE_HELP)
    command.add_argument("--to", choices=("parquet", "csv"), required=True, help="what to write")
    command.add_argument("--out", default="export", metavar="DIR", help="folder of the tables (export)")
    names = ("ticks", "snapshots", "windows", "anchors", "journal")
    text = "this stream alone; repeatable"
    command.add_argument("--stream", action="append", choices=names, metavar="NAME", help=f"{text}: {', '.join(names)}")
    command.add_argument("--symbol", action="append", metavar="S", help="this symbol alone; repeatable")
    text = "records from this time on: 2026-11-23, 2026-11-23T02:30 (UTC), or ms"
    command.add_argument("--since", type=moment_ms, metavar="TIME", help=text)
    command.add_argument("--until", type=moment_ms, metavar="TIME", help="records before this time")
    text = "record market data of others as a session, as if the bot had watched it"
    command = add("import", import_, text, "tradingbot import candles.parquet --state research")
    command.add_argument("data", nargs="+", metavar="FILE_OR_DIRECTORY", help="Parquet, CSV or JSONL")
    add_asking(command)


def export(arguments: argparse.Namespace) -> int:
    """Write the streams of a state directory as tables."""
    from tradingbot.io.jsonl import Damage, ReadReport
    from tradingbot.io.stream_tables import Selection, write_table
    from tradingbot.io.streams import Stream
    from tradingbot.ops.record.findings import counted
    from tradingbot.ui.progress import showing_progress

    folder = state_named(arguments.folder) if arguments.folder else settings_of(arguments, overrides=False).state_dir
    if not folder.is_dir():
        raise UsageError(f"there is no state directory {folder}: name one, as in tradingbot export build/run/state")
    streams = [Stream(name) for name in dict.fromkeys(arguments.stream or [*Stream])]
    out = Path(arguments.out)
    paths = {stream: out / f"{stream}.{arguments.to}" for stream in streams}
    there = [str(path) for path in paths.values() if os.path.lexists(path)]
    if there:
        raise UsageError(f"{', '.join(there)} would be overwritten: name another --out, or move it away")
    out.mkdir(parents=True, exist_ok=True)
    selection = Selection(frozenset(arguments.symbol or ()), arguments.since, arguments.until)
    report = ReadReport()
    tables = {}
    with showing_progress() as progress:
        for stream, path in paths.items():
            tell = None if progress is None else _telling(f"writing {path.name} (rows)", progress)
            tables[stream] = write_table(folder, stream, path, selection, report, tell)
    gaps = sum(table.gaps for table in tables.values())
    damaged = report.damaged - sum(place.damage is Damage.TORN for place in report.places)
    if not any(table.rows for table in tables.values()):
        raise UsageError(f"no record under {folder} is what was asked for: nothing was written")
    if damaged:
        complain(f"warning: left out: {counted(damaged, 'damaged line')} (tradingbot fsck {folder} names them)")
    if gaps:
        complain(f"warning: left out: {counted(gaps, 'gap record')}, which say how many records are missing there")
    files = {
        stream.value: {"file": str(table.path), "rows": table.rows} for stream, table in tables.items() if table.path
    }
    text = "\n".join(f"{facts['file']}: {facts['rows']:,} rows" for facts in files.values())
    answer(arguments, {"files": files, "damaged": damaged, "gap_records": gaps}, text)
    return 0


def _telling(what: str, progress: Any) -> Any:
    return lambda rows: progress(what, rows, 0)


def moment_ms(text: str) -> int:
    """Return a time of the command line in ms: ISO 8601, UTC unless it says otherwise, or milliseconds themselves."""
    from datetime import UTC, datetime

    if text.isascii() and text.isdigit() and len(text) > 8:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time, as 2026-11-23 or 2026-11-23T02:30 is") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def import_(arguments: argparse.Namespace) -> int:
    """Record market data of others as a session of a state directory."""
    from contextlib import ExitStack

    from tradingbot.io.state_files import StateLock
    from tradingbot.services.importing import import_ticks, recorded_sessions
    from tradingbot.services.replay import scan_all, usable_files
    from tradingbot.ui.plain import printable_lines
    from tradingbot.ui.progress import showing_progress

    effective = settings_of(arguments, overrides=False)
    folder = from_here(effective.state_dir)
    with showing_progress() as progress:
        files = scan_all(arguments.data, progress)
        for file in files:
            if file.complaint and any(other.rows for other in files):
                complain(f"warning: {file.complaint}")
    usable_files(files)  # before a folder is made for nothing
    os.umask(0o077)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        for name in LOCKS:
            stack.enter_context(StateLock(folder, int(time.time() * 1000), name))
        sessions = recorded_sessions(folder)
        if sessions and not ask(arguments, printable_lines(_plan(folder, files, sessions))):
            return 2
        if sessions:
            from tradingbot.io.audit import append_audit

            append_audit(folder, "import", arguments.why, files=[str(file.path) for file in files])
        with showing_progress() as progress:
            done = import_ticks(files, effective.settings, effective.sources, folder, sessions, progress)
    document = {"state": str(folder), "session": done.sid, "ticks": done.ticks, "rejected": done.rejected}
    text = f"{folder}: session {done.sid}, {done.ticks:,} ticks, {done.rejected:,} rejected, {done.triggers:,} triggers"
    answer(arguments, document | {"triggers": done.triggers}, text)
    return 0


def _plan(folder: Path, files: list[DataFile], sessions: set[str]) -> str:
    from tradingbot.ops.record.findings import counted

    rows = sum(file.rows for file in files)
    held = f"{counted(len(sessions), 'session')} already ({', '.join(sorted(sessions)[-3:])})"
    named = f"{', '.join(file.path.name for file in files[:5])}{' and others' if len(files) > 5 else ''}"
    return f"{folder} holds {held}: an import would add one more, of {rows:,} ticks from {named}"
