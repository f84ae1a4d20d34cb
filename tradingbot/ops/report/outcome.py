"""What came of a run: the verdict, a banner where it did not end well, and the files under their final names."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from tradingbot.io.state_files import write_atomic
from tradingbot.ops.record.findings import counted
from tradingbot.ops.report.index import ENDINGS, Report, write_record
from tradingbot.ops.report.notebooks import Notebook, import_nbformat
from tradingbot.ops.report.page import (
    BANNER_TAG,
    FINDINGS_TYPE,
    PAGE_KEY,
    VERDICTS,
    WIDGET_TYPE,
    joined,
    plain,
    report_html,
)
from tradingbot.ops.report.process import Outcome

__all__ = ["EXIT_CODES", "conclude_report"]

EXIT_CODES = {"done": 0, "time limit": 124, "interrupted": 130, "terminated": 143}
PAPERMILL_TAG = "papermill-error-cell-tag"
MOST_ERROR_LINES = 24


def conclude_report(folder: Path, report: Report, notebook: Notebook | None, outcome: Outcome) -> Report:
    """Write a run's notebook, page and record under their final names; return its report. Raises OSError.

    `notebook` is the source, for where nothing was saved yet.
    """
    nbformat = import_nbformat()
    partial = folder / report.files["notebook"]
    try:
        executed = nbformat.reads(partial.read_text(encoding="utf-8"), 4)
        if outcome.end == "abandoned":
            outcome = _looked_up(executed)
            report = replace(report, ended_ms=int(partial.stat().st_mtime * 1000))
    except (OSError, ValueError):
        content = (
            {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5} if notebook is None else notebook.content
        )
        executed = nbformat.reads(json.dumps(content), 4)
        outcome = replace(outcome, cell=None)
    executed.cells = [cell for cell in executed.cells if PAPERMILL_TAG not in cell.metadata.get("tags", [])]
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    if not any(WIDGET_TYPE in output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])):
        executed.metadata.pop("widgets", None)  # the state of widgets that have made way for what can be read
    report = _judged(report, executed, outcome)
    tail = "" if report.verdict in ("passed", "failed") else "_incomplete"
    report = replace(report, files={"notebook": f"{report.stem}{tail}.ipynb", "page": f"{report.stem}{tail}.html"})
    executed.metadata["tradingbot"] = report.to_record()
    if report.verdict != "passed":
        _add_banner(executed, report, outcome)
    text = nbformat.writes(executed, 4) + "\n"
    write_atomic(folder / report.files["notebook"], text.encode("utf-8", "backslashreplace"))
    html = report_html(executed, report.to_record())
    write_atomic(folder / report.files["page"], html.encode("utf-8", "backslashreplace"))
    write_record(folder, report)
    for ending in ENDINGS["notebook"]:  # the save, and what an earlier attempt has left
        if report.stem + ending != report.files["notebook"]:
            (folder / f"{report.stem}{ending}").unlink(missing_ok=True)
    return report


def _judged(report: Report, executed: Any, outcome: Outcome) -> Report:
    """Return the report with verdict, words and exit code."""
    findings, answer = _findings(executed)
    ended_ms = report.ended_ms or int(time.time() * 1000)
    report = replace(report, findings=findings, cells=len(executed.cells), ended_ms=ended_ms)
    where = _where(executed, outcome.cell)
    if outcome.end == "done":
        return replace(report, verdict="passed", says=f"{answer}{_counts(findings)}", exit_code=0)
    if outcome.end == "error":
        shown = _error(executed)
        if outcome.name == "CheckFailedError":
            names = [finding["name"] for finding in findings if finding["verdict"] == "failed"]
            says = f"{len(names)} of {len(findings)} checks failed: {', '.join(names)}" if names else outcome.says
            return replace(report, verdict="failed", says=f"{answer}{says}", exit_code=1)
        says = f"{outcome.name}: {outcome.says.splitlines()[0] if outcome.says else ''} in {where}"
        return replace(report, verdict="failed", says=says, error=shown, exit_code=1)
    words = {
        "dead": "the kernel died",
        "broken": "the notebook could not be run",
        "unwritten": "the notebook could not be saved",
        "time limit": f"stopped at the time limit of {outcome.limit_s:g} s",
        "interrupted": "interrupted (SIGINT, Ctrl-C)",
        "terminated": "terminated (SIGTERM)",
        "abandoned": "what ran it was killed, or could not write",
    }[outcome.end]
    says = f"{words} in {where}" if where else f"{words} before the first cell"
    if outcome.says:
        says = f"{says}: {outcome.says}"
    return replace(report, verdict="incomplete", says=says, exit_code=EXIT_CODES.get(outcome.end, 1))


def _looked_up(executed: Any) -> Outcome:
    """Return how a run ended whose end nobody could write down, as its last save says."""
    states = [str(cell.metadata.get("papermill", {}).get("status", "")) for cell in executed.cells]
    if set(states) == {"completed"}:
        return Outcome("done")
    if "failed" in states:
        index = states.index("failed")
        for output in executed.cells[index].get("outputs", []):
            if output.output_type == "error":
                return Outcome("error", index, output.ename, output.evalue)
    return Outcome("abandoned", states.index("running") if "running" in states else None)


def _findings(executed: Any) -> tuple[list[dict[str, Any]], str]:
    """Return the checks that the last cell which concludes with any has shown, and the answer that goes before them."""
    for cell in reversed(executed.cells):
        for output in cell.get("outputs", []):
            records = output.get("data", {}).get(FINDINGS_TYPE)
            if isinstance(records, list):
                answer = str(output.get("metadata", {}).get(PAGE_KEY, {}).get("answer", "")).rstrip(".")
                found = [dict(record) for record in records if {"verdict", "name", "says"} <= set(record)]
                return found, f"{answer}. " if answer else ""
    return [], ""


def _counts(findings: list[dict[str, Any]]) -> str:
    """Return how many checks came to which verdict, the worst first."""
    if not findings:
        return ""
    counts = [(sum(finding["verdict"] == verdict for finding in findings), verdict) for verdict in VERDICTS]
    return f"{counted(len(findings), 'check')}: {', '.join(f'{count} {word}' for count, word in counts if count)}"


def _error(executed: Any) -> str:
    """Return the end of the traceback that stands in the notebook, plain."""
    for cell in reversed(executed.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                lines = plain("\n".join(output.traceback)).splitlines()
                return "\n".join(lines[-MOST_ERROR_LINES:]) if len(lines) > 1 else ""
    return ""


def _where(executed: Any, cell: int | None) -> str:
    """Say which cell it was: its number, the heading that it stands under, how its code begins."""
    if cell is None or cell >= len(executed.cells):
        return ""
    heading = ""
    for each in executed.cells[: cell + 1]:
        if each.cell_type == "markdown":
            heading = next((line.lstrip("# ") for line in each.source.splitlines() if line.startswith("#")), heading)
    code = next((line.strip() for line in executed.cells[cell].source.splitlines() if line.strip()), "")
    under = f" under {heading[:80]!r}" if heading else ""
    return f"cell {cell + 1} of {len(executed.cells)}{under}, which begins with {code[:80]!r}"


def _add_banner(executed: Any, report: Report, outcome: Outcome) -> None:
    """Say at the top of the notebook, and before the cell where it ended, what happened."""
    nbformat = import_nbformat()
    says = f"<pre>{escape(' '.join(report.says.split()))}</pre>"  # in which neither Markdown nor HTML counts
    top = nbformat.v4.new_markdown_cell(f"**{report.verdict.upper()}**\n\n{says}")
    top.metadata["tags"] = [BANNER_TAG]
    if outcome.cell is not None and outcome.cell < len(executed.cells):
        here = nbformat.v4.new_markdown_cell(f"**Here it ended**\n\n{says}")
        here.metadata["tags"] = [BANNER_TAG]
        executed.cells.insert(outcome.cell, here)
    executed.cells.insert(0, top)
