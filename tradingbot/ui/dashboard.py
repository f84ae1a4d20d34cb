"""The live table: what status.json says, for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["render", "showing_dashboard"]

DECISIONS = 6


def render(status: Mapping[str, Any], width: int = 120) -> Group:
    """Return a status as people read it; below 110 columns the less urgent ones are left out."""
    wide = width >= 110
    bot, data = status["bot"], status["data"]
    when = datetime.fromtimestamp(status["time_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    off = [name for name, on in status["flags"].items() if not on]
    lines = [
        Text(f"{bot['exchange']}  {bot['mode']}  {bot['state']}  {when}  up {bot['uptime_s']:.0f} s", style="bold"),
        Text(
            f"{data['mode']}: {data['fresh']} fresh, {data['stale']} stale, {data['ticks']:,} ticks"
            + (f", rejected {_counts(data['rejected'])}" if data["rejected"] else "")
            + f"; disk {status['disk']['free_mb']:,} MB free"
            + (f"; off: {', '.join(off)}" if off else "")
        ),
    ]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    columns = ["symbol", "last", "drop %", "anchor", "to trigger %", "spread %", "state"]
    if wide:
        columns += ["age of anchor", "cause", "age of data", "triggers"]
    for column in columns:
        left = column in ("symbol", "state", "cause")
        least = None if column == "state" else 9 if column == "symbol" else len(column)  # the state gives way first
        table.add_column(column, justify="left" if left else "right", no_wrap=True, min_width=least)
    for row in status["symbols"]:
        table.add_row(*_cells(row, wide))
    latest = [Text(_decision(decision)) for decision in status["decisions"][-DECISIONS:]]
    return Group(*lines, table, *([Text("latest triggers", style="bold"), *latest] if latest else []))


def _cells(row: Mapping[str, Any], wide: bool) -> list[Text]:
    retry = row["retry"]
    state = row["state"] if retry is None else f"{row['state']}, retry in {retry['in_s']:.0f} s, {retry['error'][:24]}"
    urgent = row["to_trigger_pct"] is not None and row["to_trigger_pct"] > -0.3
    cells = [
        Text(_plain(row["symbol"])),
        Text(_number(row["last"], ".6g")),
        Text(_number(row["drop_pct"], "+.2f"), style="bold red" if urgent else ""),
        Text(_number(row["reference"], ".6g")),
        Text(_number(row["to_trigger_pct"], "+.2f")),
        Text(_number(row["spread_pct"], ".3f")),
        Text(_plain(state)),
    ]
    if wide:
        age = row["anchor_age_s"]
        cells += [
            Text("" if age is None else f"{age:.0f} s"),
            Text(row["anchor_cause"] or ""),
            Text("" if row["age_s"] is None else f"{row['age_s']:.1f} s"),
            Text(str(row["triggers"])),
        ]
    return cells


def _decision(d: Mapping[str, Any]) -> str:
    when = datetime.fromtimestamp(d["ts_ms"] / 1000, UTC).strftime("%H:%M:%S")
    became = f"{d['outcome']}: {', '.join(d['reasons'])}" if d["reasons"] else d["outcome"]
    return _plain(
        f"{when} {d['symbol']} {d['last']:.6g} is {d['drop_pct']:.2f} % from its {d['reference_source']}, {became}"
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


@contextmanager
def showing_dashboard(wanted: bool | None) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Give a function that is handed each status: by default where stdout is a terminal, else None."""
    if not (sys.stdout.isatty() if wanted is None else wanted):
        yield None
        return
    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def show(status: dict[str, Any]) -> None:
            live.update(render(status, console.width), refresh=True)

        yield show
