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

from tradingbot.ui.plain import COLUMNS, LEFT, cells, header, printable

__all__ = ["render", "showing_dashboard"]

DECISIONS, TROUBLES = 6, 3
WIDE_COLUMNS = ("age of anchor", "cause", "age of data", "triggers")


def render(status: Mapping[str, Any], width: int = 120) -> Group:
    """Return a status as people read it; below 110 columns the less urgent ones are left out."""
    wide = width >= 110
    first, *others = header(status)
    lines = [Text(first, style="bold"), *map(Text, others)]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in (*COLUMNS, *WIDE_COLUMNS) if wide else COLUMNS:
        left = column in (*LEFT, "cause")
        least = None if column == "state" else 9 if column == "symbol" else len(column)  # the state gives way first
        table.add_column(column, justify="left" if left else "right", no_wrap=True, min_width=least)
    for row in status["symbols"]:
        table.add_row(*_cells(row, wide))
    latest = [Text(_decision(decision)) for decision in status["decisions"][-DECISIONS:]]
    trouble = [Text(_trouble(error)) for error in status["errors"][-TROUBLES:]]
    return Group(
        *lines,
        table,
        *([Text("latest triggers", style="bold"), *latest] if latest else []),
        *([Text("latest trouble", style="bold"), *trouble] if trouble else []),
    )


def _cells(row: Mapping[str, Any], wide: bool) -> list[Text]:
    texts = [Text(text) for text in cells(row)]
    if row["to_trigger_pct"] is not None and row["to_trigger_pct"] > -0.3:
        texts[COLUMNS.index("drop %")].stylize("bold red")
    if wide:
        age = row["anchor_age_s"]
        texts += [
            Text("" if age is None else f"{age:.0f} s"),
            Text(printable(row["anchor_cause"] or "")),
            Text("" if row["age_s"] is None else f"{row['age_s']:.1f} s"),
            Text(printable(str(row["triggers"]))),
        ]
    return texts


def _decision(d: Mapping[str, Any]) -> str:
    when = datetime.fromtimestamp(d["ts_ms"] / 1000, UTC).strftime("%H:%M:%S")
    became = f"{d['outcome']}: {', '.join(d['reasons'])}" if d["reasons"] else d["outcome"]
    return printable(
        f"{when} {d['symbol']} {d['last']:.6g} is {d['drop_pct']:.2f} % from its {d['reference_source']}, {became}"
    )


def _trouble(error: Mapping[str, Any]) -> str:
    return printable(f"{datetime.fromtimestamp(error['time_ms'] / 1000, UTC):%H:%M:%S} {error['text']}")


@contextmanager
def showing_dashboard(wanted: bool | None) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Give a function that is handed each status: by default where stdout is a terminal, else None."""
    if not (sys.stdout.isatty() if wanted is None else wanted):
        yield None
        return
    console = Console()
    if not console.is_terminal:  # nothing to redraw: the last one is printed at the end
        kept: list[dict[str, Any]] = []
        try:
            yield lambda status: kept.__setitem__(slice(None), [status])
        finally:
            for status in kept:
                console.print(render(status, console.width))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def show(status: dict[str, Any]) -> None:
            live.update(render(status, console.width), refresh=True)

        yield show
