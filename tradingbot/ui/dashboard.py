"""The live table: what status.json says, as rows that terminal and notebook share, and as a terminal shows them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tradingbot.ui.plain import LEFT, cells, columns, header, printable, reference_name

__all__ = ["DROP", "WIDE_COLUMNS", "Row", "decision_text", "render", "rows", "showing_dashboard", "trouble_text"]

DECISIONS, TROUBLES = 6, 3
DROP = 2  # the place of "drop %" among the columns
NEAR_PCT = 0.3  # so close above its threshold, or under it, a symbol stands out
WIDE_COLUMNS = ("age of anchor", "cause", "age of data", "triggers")


@dataclass(frozen=True, slots=True)
class Row:
    """Hold a symbol as it is shown: its texts under the columns and under WIDE_COLUMNS, and how far it has fallen.

    `drop_share` is the fall as a share of the one that triggers (1: at the threshold), `limit_pct` where the threshold
    stands, in % from the reference; both None without a price. `is_near` says that a trigger is close.
    """

    symbol: str
    cells: tuple[str, ...]
    wide_cells: tuple[str, ...]
    is_near: bool
    to_trigger_pct: float | None
    limit_pct: float | None
    drop_share: float | None


def rows(status: Mapping[str, Any]) -> list[Row]:
    """Return a status' symbols as rows, in its order; what would command a terminal is left out."""
    return [_row(row) for row in status["symbols"]]


def _row(row: Mapping[str, Any]) -> Row:
    age, to_trigger_pct, limit_pct, share = row["anchor_age_s"], row["to_trigger_pct"], None, None
    if row["threshold"] is not None and row["reference"]:
        limit_pct = (row["threshold"] / row["reference"] - 1) * 100
        share = row["drop_pct"] / limit_pct if limit_pct < 0 else None
    wide = (
        "" if age is None else f"{age:.0f} s",
        printable(row["anchor_cause"] or ""),
        "" if row["age_s"] is None else f"{row['age_s']:.1f} s",
        printable(str(row["triggers"])),
    )
    is_near = to_trigger_pct is not None and to_trigger_pct > -NEAR_PCT
    return Row(printable(row["symbol"]), tuple(cells(row)), wide, is_near, to_trigger_pct, limit_pct, share)


def render(status: Mapping[str, Any], width: int = 120) -> Group:
    """Return a status as people read it; below 110 columns the less urgent ones are left out."""
    wide = width >= 110
    first, *others = header(status)
    lines = [Text(first, style="bold"), *map(Text, others)]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in (*columns(status), *(WIDE_COLUMNS if wide else ())):
        left = column in (*LEFT, "cause")
        least = None if column == "state" else 9 if column == "symbol" else len(column)  # the state gives way first
        table.add_column(column, justify="left" if left else "right", no_wrap=True, min_width=least)
    for row in rows(status):
        table.add_row(*_cells(row, wide))
    latest = [Text(decision_text(decision)) for decision in status["decisions"][-DECISIONS:]]
    trouble = [Text(trouble_text(error)) for error in status["errors"][-TROUBLES:]]
    return Group(
        *lines,
        table,
        *([Text("latest triggers", style="bold"), *latest] if latest else []),
        *([Text("latest trouble", style="bold"), *trouble] if trouble else []),
    )


def _cells(row: Row, wide: bool) -> list[Text]:
    texts = [Text(text) for text in row.cells]
    if row.is_near:
        texts[DROP].stylize("bold red")
    return [*texts, *map(Text, row.wide_cells)] if wide else texts


def decision_text(d: Mapping[str, Any]) -> str:
    """Return a decision as a line."""
    when = datetime.fromtimestamp(d["ts_ms"] / 1000, UTC).strftime("%H:%M:%S")
    became = f"{d['outcome']}: {', '.join(d['reasons'])}" if d["reasons"] else d["outcome"]
    return printable(
        f"{when} {d['symbol']} {d['last']:.6g} is {d['drop_pct']:.2f} %"
        f" from its {reference_name(d['reference_source'])}, {became}"
    )


def trouble_text(error: Mapping[str, Any]) -> str:
    """Return an error of the running session as a line."""
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
