"""Tables of what a state directory holds: closest approaches to the thresholds, anchors."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tradingbot.ui.explanation import span_text, utc_text
from tradingbot.ui.plain import printable

__all__ = ["anchors_table", "near_table", "reset_plan_text"]

Record = Mapping[str, Any]

WIDTH = 120  # where nobody looks at a terminal
AN_HOUR = 12  # rows of an hour that people are shown; --json has all


def near_table(approaches: Sequence[Record]) -> str:
    """Return the closest approaches, as their JSON objects, hour by hour, the nearest first."""
    table = _table(
        "hour (UTC)", "symbol", ">to trigger %", ">last", ">threshold", ">drop %", "at", ">triggers", "which is"
    )
    for hour_ms, rows in groupby(approaches, lambda row: int(row["hour_ms"])):
        name = utc_text(hour_ms, "%Y-%m-%d %H:%M")
        several = list(rows)
        for row in several[:AN_HOUR]:
            _add(
                table, name, row["symbol"], f"{row['to_trigger_pct']:+.2f}", f"{row['last']:.10g}",
                f"{row['threshold']:.10g}", f"{row['drop_pct']:+.2f}", utc_text(row["ts_ms"], "%H:%M:%S"),
                str(row["triggers"]), _near(row),
            )  # fmt: skip
            name = ""
        if len(several) > AN_HOUR:
            _add(table, "", f"and {len(several) - AN_HOUR} more, further away (--json shows them)")
    return _text(table)


def _near(row: Record) -> str:
    if row["to_trigger_pct"] < 0:
        return f"{-row['to_trigger_pct']:.2f} % above the threshold"
    if row["armed"]:
        return "under it, not confirmed yet"
    return "under it, and triggered" if row["triggers"] else "under it, and triggered before"


def anchors_table(anchors: Sequence[Record]) -> str:
    """Return anchors, as their JSON objects, with where they come from."""
    table = _table("symbol", ">anchor", "set (UTC)", ">age", "cause", "lowered by", "at the next cold start")
    for row in anchors:
        when = "" if row["clamp_ms"] is None else utc_text(row["clamp_ms"], " %m-%d %H:%M:%S")
        clamp = f"{row['clamp']}{when}" if row["clamp"] else ""
        load = "loaded" if row["unused"] is None else f"not loaded: {row['unused']}"
        _add(
            table, row["symbol"], f"{row['price']:.10g}", utc_text(row["set_ms"], "%Y-%m-%d %H:%M:%S"),
            span_text(row["age_ms"]), row["set_cause"], clamp, load,
        )  # fmt: skip
    return _text(table)


def reset_plan_text(anchors: Mapping[str, Record | None], state_dir: str, running: bool) -> str:
    """Return what a reset would do, symbol by symbol."""
    lines = [f"{state_dir}: session, window and anchor of these begin anew at their next tick:"]
    for symbol, row in anchors.items():
        known = "no anchor is known"
        if row is not None:
            known = f"anchor {row['price']:.10g}, {row['set_cause']}, {span_text(row['age_ms'])} old"
        lines.append(f"  {symbol}: {known}")
    lines.append("positions and orders stay as they are")
    lines.append("the bot is running and does it at once" if running else "no bot is running: the next start does it")
    return "\n".join(map(printable, lines))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(printable(cell)) for cell in cells))


def _text(table: Table) -> str:
    width = max(shutil.get_terminal_size().columns, 72) if sys.stdout.isatty() else WIDTH
    text = io.StringIO()
    console = Console(width=width, highlight=False, no_color=True, force_terminal=False, file=text)
    console.print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().split("\n"))
