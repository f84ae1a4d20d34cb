"""What status.json says as plain text, with the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = [
    "cells", "columns", "header", "json_text", "printable", "printable_lines", "reference_name", "status_text",
]  # fmt: skip

REFERENCES = {
    "anchor": "anchor", "session": "session peak", "rolling": "window peak", "hybrid": "higher peak",
    "legacy_peak": "window peak",
}  # fmt: skip
"""What a drop is measured from, by its name in status.json."""
HARMLESS = ("duplicate", "out_of_order")  # no failure of the feed, and nothing that anybody need look at
LEFT = ("symbol", "state")  # the others are numbers, and stand right


def printable(text: str) -> str:
    """Return `text` without what would command a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines without what would command a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(document: object) -> str:
    """Return a document as JSON of printable ASCII, which every terminal can be shown."""
    return json.dumps(document, indent=2).replace("\x7f", "\\u007f")


def header(status: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the lines over the table: the bot, its data, and what is not as it should be."""
    bot, data = status["bot"], status["data"]
    when = datetime.fromtimestamp(status["time_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    rejected = ", ".join(f"{name} {count}" for name, count in data["rejected"].items() if name not in HARMLESS)
    off = [name for name, on in status["flags"].items() if not on]
    overrides = [f"{item['key']}={item['value']}" for item in status["overrides"]]
    return (
        printable(f"{bot['exchange']}{_speed(bot)}  {bot['mode']}  {bot['state']}  {when}  up {bot['uptime_s']:.0f} s"),
        printable(
            f"{data['mode']}: {data['fresh']} fresh, {data['stale']} stale, {data['ticks']:,} ticks"
            + (f", rejected {rejected}" if rejected else "")
            + f"; disk {status['disk']['free_mb']:,} MB free"
        ),
        printable(
            f"health: {_health(status)}; flags: {f'off: {chr(32).join(off)}' if off else 'all on'}"
            f"; overrides: {' '.join(overrides) or 'none'}"
        ),
    )


def _speed(bot: Mapping[str, Any]) -> str:
    speed = bot.get("speed", 1)
    return "" if speed == 1 else f" x{speed:g}"


def _health(status: Mapping[str, Any]) -> str:
    bot, data = status["bot"], status["data"]
    until_ms = data["held_back_until_ms"]
    if until_ms is not None:
        return f"held back for {max(until_ms - status['time_ms'], 0) / 1000:.0f} s"
    if bot["state"] not in ("running", "stopping"):
        return str(bot["state"])
    failing = sum(row["retry"] is not None for row in status["symbols"])
    parked = sum(str(row["state"]).startswith("parked") for row in status["symbols"])
    ills = ((parked, "parked"), (failing, "failing"), (data["stale"], "without fresh data"))
    return ", ".join(f"{count} {word}" for count, word in ills if count) or "good"


def reference_name(source: str) -> str:
    """Return in words what a drop is measured from."""
    return REFERENCES.get(source, printable(str(source)))


def columns(status: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the heads of the table: the reference's is what drops are measured from."""
    sources = {row["reference_source"] for row in status["symbols"]}
    reference = reference_name(sources.pop()) if len(sources) == 1 else "reference"
    return ("symbol", "last", "drop %", reference, "to trigger %", "spread %", "state")


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return the texts of a symbol under the columns."""
    retry = row["retry"]
    state = row["state"] if retry is None else f"{row['state']}, retry in {retry['in_s']:.0f} s, {retry['error'][:24]}"
    return [
        printable(row["symbol"]),
        _number(row["last"], ".6g"),
        _number(row["drop_pct"], "+.2f"),
        _number(row["reference"], ".6g"),
        _number(row["to_trigger_pct"], "+.2f"),
        _number(row["spread_pct"], ".3f"),
        printable(state),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def status_text(status: Mapping[str, Any]) -> str:
    """Return a status as people read it; one that is of another version, and so no table, as JSON."""
    try:
        lines = list(header(status))
        head = columns(status)
        rows = [head, *(cells(row) for row in status["symbols"])]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError):
        return json_text(status)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        fitted = [
            text.ljust(width) if name in LEFT else text.rjust(width)
            for name, text, width in zip(head, row, widths, strict=True)
        ]
        lines.append(" ".join(fitted).rstrip())
    return "\n".join(lines)
