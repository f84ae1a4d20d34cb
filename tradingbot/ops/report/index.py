"""The folder of reports: what each run left, as records; the index page; how long reports are kept."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from tradingbot.io.state_files import lock_owner, write_atomic
from tradingbot.ops.report.page import WORDS, given_text, page, took_text, utc_text

__all__ = [
    "ENDINGS",
    "INDEX_NAME",
    "Report",
    "abandoned",
    "forget_old",
    "list_reports",
    "lock_name",
    "read_report",
    "remove_report",
    "write_index",
    "write_record",
]

INDEX_NAME = "index.html"
STEM = re.compile(r"[\w.%-]{1,120}_\d{8}T\d{6}Z(-\d{1,4})?", re.ASCII)
ENDINGS = {
    "notebook": (".ipynb", "_incomplete.ipynb", ".ipynb.partial"),
    "page": (".html", "_incomplete.html"),
}


@dataclass(frozen=True, slots=True)
class Report:
    """Hold what is known of one run: which notebook with which parameters, when, what came of it, and its files.

    `verdict` is passed, failed, incomplete or running; `says` one sentence on it; `exit_code` that of the command,
    `files` the names of `notebook` and `page` beside the record. `settings_fingerprint` is that of the command's own
    settings; `session` is the bot's that had spoken last when the run began, "" without one, and
    `session_fingerprint` that of the settings which it went by.
    """

    stem: str
    notebook: str
    title: str
    path: str
    parameters: dict[str, Any]
    home: str
    state: str
    version: str
    commit: str | None
    settings_fingerprint: str | None
    settings_error: str | None
    started_ms: int
    ended_ms: int | None = None
    verdict: str = "running"
    says: str = ""
    error: str = ""
    exit_code: int | None = None
    cells: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    session: str = ""
    session_fingerprint: str = ""
    v: int = 1

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def read_report(path: Path) -> Report | None:
    """Return the report of a record, None where the file is none of ours."""
    try:
        facts = json.loads(path.read_bytes())
        report = Report(**facts)
        strings = (report.stem, report.notebook, report.title, report.verdict, report.says)
        is_ours = (
            report.v == 1
            and all(isinstance(text, str) for text in strings)
            and report.stem == path.stem
            and STEM.fullmatch(report.stem) is not None
            and report.verdict in WORDS
            and isinstance(report.started_ms, int)
            and isinstance(report.parameters, dict)
            and all(name in [report.stem + ending for ending in ENDINGS[kind]] for kind, name in report.files.items())
        )
        took_text(facts), utc_text(report.started_ms)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    return report if is_ours else None


def list_reports(folder: Path) -> list[Report]:
    """Return the reports of a folder, the newest first; what lies there beside them is passed over."""
    try:
        paths = [path for path in folder.iterdir() if path.suffix == ".json" and STEM.fullmatch(path.stem)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [report for path in paths if (report := read_report(path))]
    return sorted(found, key=lambda report: (report.started_ms, report.stem), reverse=True)


def write_record(folder: Path, report: Report) -> None:
    """Write a report's record beside it."""
    text = json.dumps(report.to_record(), indent=1).encode()
    write_atomic(folder / f"{report.stem}.json", text)


def remove_report(folder: Path, report: Report) -> None:
    """Remove a report's files, its record last, so that what is interrupted is gone on with."""
    for names in ENDINGS.values():
        for ending in names:
            (folder / f"{report.stem}{ending}").unlink(missing_ok=True)
    (folder / f"{report.stem}.json").unlink(missing_ok=True)


def forget_old(folder: Path, keep: int) -> list[Report]:
    """Remove all but the newest `keep` reports of each notebook, never one that is running; return those removed."""
    seen: dict[str, int] = {}
    gone = []
    for report in list_reports(folder):
        if report.verdict == "running":
            continue
        seen[report.notebook] = seen.get(report.notebook, 0) + 1
        if seen[report.notebook] > keep:
            remove_report(folder, report)
            gone.append(report)
    return gone


def write_index(folder: Path) -> Path:
    """Write the page that leads to every report, the newest first; return its path."""
    rows = "".join(_row(folder, report) for report in list_reports(folder))
    head = "".join(
        f"<th>{word}</th>" for word in ("started", "report", "verdict", "took", "parameters given", "executed")
    )
    body = f"<h1>Reports</h1><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    path = folder / INDEX_NAME
    write_atomic(path, page("Reports", body if rows else "<h1>Reports</h1><p>none yet</p>").encode())
    return path


def _row(folder: Path, report: Report) -> str:
    """Return a report's row; a file that somebody has taken away is no link."""
    name, executed = report.files.get("page", ""), report.files.get("notebook", "")
    title = _text(f"{report.notebook}: {report.title}" if report.title else report.notebook)
    if (folder / name).is_file():
        title = f'<a href="{escape(name)}">{title}</a>'
    link = f'<a href="{escape(executed)}">ipynb</a>' if (folder / executed).is_file() else ""
    says = f"<br>{_text(report.says[:300])}" if report.says else ""
    return (
        f'<tr><td class="whole">{utc_text(report.started_ms)}</td><td>{title}</td>'
        f'<td class="{report.verdict}"><strong>{WORDS[report.verdict]}</strong>{says}</td>'
        f'<td class="whole">{took_text(report.to_record())}</td>'
        f'<td>{_text(given_text(report.parameters))}</td><td class="whole">{link}</td></tr>\n'
    )


def _text(value: str) -> str:
    return escape("".join(c if c.isprintable() else "?" for c in value))


def abandoned(folder: Path) -> Iterator[Report]:
    """Yield the reports whose run was killed before it could say so."""
    for report in list_reports(folder):
        if report.verdict == "running" and lock_owner(folder, lock_name(report.stem)) is None:
            with contextlib.suppress(OSError):
                os.unlink(folder / lock_name(report.stem))  # noqa: PTH108
            yield report


def lock_name(stem: str) -> str:
    """Return the name of the lock that a run holds."""
    return f".{stem}.lock"
