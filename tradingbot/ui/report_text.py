"""Reports and notebooks in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tradingbot.ui.plain import printable, printable_lines

__all__ = ["finished_text", "notebooks_text", "reports_text"]


def finished_text(record: Mapping[str, Any]) -> str:
    """Return what came of a run: the verdict, the checks that are not well, where the report is."""
    lines = [f"{record['verdict'].upper()} {record['notebook']}{': ' if record['says'] else ''}{record['says']}"]
    for finding in record["findings"]:
        if finding["verdict"] in ("failed", "warning"):
            lines.append(f"  {finding['verdict'].upper()} {finding['name']}: {finding['says']}")
            lines += [f"    fix: {line}" for line in str(finding.get("fix", "")).splitlines()]
    lines.append(f"report    {record['paths']['page']}")
    lines.append(f"notebook  {record['paths']['notebook']}")
    lines.append(f"index     {record['folder']}/index.html")
    if record["removed"]:
        lines.append(f"removed   {len(record['removed'])} older (--keep)")
    return printable_lines("\n".join(lines))


def reports_text(records: Sequence[Mapping[str, Any]], folder: str) -> str:
    """Return reports as a table, the newest first."""
    if not records:
        return printable(f"{folder}: no report yet; tradingbot report NAME makes one")
    rows = [("started (UTC)", "notebook", "verdict", "took", "parameters given", "page")]
    for record in records:
        started = datetime.fromtimestamp(record["started_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        ended = record["ended_ms"]
        took = "" if ended is None else f"{max(ended - record['started_ms'], 0) / 1000:.1f} s"
        given = " ".join(f"{name}={_shown(value)}" for name, value in record["parameters"].items())
        given = given if len(given) <= 60 else f"{given[:57]}..."
        rows.append((started, record["notebook"], record["verdict"], took, given, record["files"].get("page", "")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return printable_lines("\n".join([*lines, f"{folder}/index.html"]))


def notebooks_text(records: Sequence[Mapping[str, Any]], folder: str) -> str:
    """Return notebooks with their parameters, defaults and meanings."""
    if not records:
        return printable(f"{folder}: no notebooks")
    lines = []
    for record in records:
        lines.append(f"{record['name']}: {record['title']}")
        rows = [
            (f"-p {name}={_shown(facts['default'])}", facts["type"], facts["help"])
            for name, facts in record["parameters"].items()
        ]
        width = max((len(row[0]) for row in rows), default=0)
        kind = max((len(row[1]) for row in rows), default=0)
        lines += [f"  {given:{width}}  {type_:{kind}}  {text}".rstrip() for given, type_, text in rows]
    return printable_lines("\n".join([*lines, f"in {folder}"]))


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_shown, value)) if isinstance(value, list | tuple) else str(value)
