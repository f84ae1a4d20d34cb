"""Run a notebook and leave a report: the executed notebook and one HTML page, stamped, listed, kept within bounds.

papermill runs it in a process of its own, with a time limit outside: a kernel may die, hang or run for ever. Whatever
happens, what was executed until then is kept, and says what happened where.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tradingbot
from tradingbot.errors import Unrecoverable, UsageError
from tradingbot.io.segments import make_folder
from tradingbot.io.state_files import LockHeldError, StateLock
from tradingbot.ops.report.index import (
    ENDINGS,
    Report,
    abandoned,
    forget_old,
    list_reports,
    lock_name,
    write_index,
    write_record,
)
from tradingbot.ops.report.notebooks import Notebook, checkout, find_notebook
from tradingbot.ops.report.outcome import conclude_report
from tradingbot.ops.report.parameters import give
from tradingbot.ops.report.process import Outcome, execute
from tradingbot.ops.rollback.restart import status_of

__all__ = ["Finished", "Place", "UnwrittenReportError", "reports_in", "run_report"]

WAIT_S = 30.0  # for another run that writes the index
MIN_FREE_BYTES = 20_000_000  # below this nothing is run: its report might not fit
Progress = Callable[[str, int, int], None]


class UnwrittenReportError(Unrecoverable):
    """Say that a report could not be written, and what became of the run."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Hold where a notebook is to look and its report to go, and what is stamped on it.

    `fingerprint` is that of the settings, `error` why they cannot be read, `environ` what the notebook's own settings
    are read from; `state` the state directory where one was named apart from the settings.
    """

    home: Path
    state_dir: Path
    report_dir: Path
    fingerprint: str | None
    error: str | None
    environ: Mapping[str, str]
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """Hold a report that was made, where it lies, and which older ones went for it."""

    report: Report
    folder: Path
    removed: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return what the command ends with."""
        return 1 if self.report.exit_code is None else self.report.exit_code

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        paths = {kind: str(self.folder / name) for kind, name in self.report.files.items()}
        return self.report.to_record() | {"folder": str(self.folder), "paths": paths, "removed": list(self.removed)}


def run_report(
    name: str,
    assignments: Iterable[str],
    place: Place,
    *,
    timeout_s: float,
    keep: int,
    progress: Progress | None = None,
) -> Finished:
    """Run the notebook of a name or path with parameters given as name=text, and leave its report in `report_dir`.

    Raises UsageError, before anything is run, for a notebook or parameter that is none. The source stays as it is.
    """
    notebook = find_notebook(name)
    given = give(notebook.parameters, assignments, os.environ)
    for parameter, value in (("home", str(place.home)), ("state", place.state)):
        if value is not None and parameter in notebook.parameters and parameter not in given:
            given[parameter] = value
    folder = place.report_dir
    make_folder(folder)
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise UsageError(
            f"only {free / 1e6:.1f} MB are free for {folder}: nothing was run; make room, or set REPORT_DIR"
        )
    report = _begin(notebook, given, place)
    with StateLock(folder, report.started_ms, lock_name(report.stem)):
        try:
            return _run(notebook, report, place, timeout_s, keep, progress)
        finally:
            with contextlib.suppress(OSError):
                (folder / lock_name(report.stem)).unlink()
                record = folder / f"{report.stem}.json"
                if record.stat().st_size == 0:  # taken as a name, and never written
                    record.unlink()


def _run(
    notebook: Notebook, report: Report, place: Place, timeout_s: float, keep: int, progress: Progress | None
) -> Finished:
    folder, begun = place.report_dir, report
    partial = folder / report.files["notebook"]
    try:
        write_record(folder, report)
        tidy(folder, None)
        outcome = execute(notebook, report, partial, place.environ, timeout_s, progress)
        ended_ms = max(int(time.time() * 1000), report.started_ms)
        report = conclude_report(folder, replace(report, ended_ms=ended_ms), notebook, outcome)
        removed = tidy(folder, keep)
    except OSError as error:
        left = _left(folder, begun)
        raise UnwrittenReportError(
            f"{error.strerror or error}: the report in {folder} could not be written; {left}"
        ) from None
    return Finished(report, folder, removed)


def _left(folder: Path, report: Report) -> str:
    """Remove what a full disk has torn, and say what is left of a run; its record has it concluded later."""
    for ending in (".json", *ENDINGS["notebook"], *ENDINGS["page"]):
        (folder / f"{report.stem}{ending}.tmp").unlink(missing_ok=True)
    partial = folder / report.files["notebook"]
    if not partial.exists():
        return "nothing of the run is kept"
    return f"what was executed until then is in {partial}, and the next report, or report --list, makes its page"


def _begin(notebook: Notebook, given: Mapping[str, Any], place: Place) -> Report:
    """Return the record of a run that begins now, under a name that no other has."""
    started_ms = int(time.time() * 1000)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in notebook.name)[:80] or "notebook"
    first = f"{name.lstrip('.')}_{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(started_ms / 1000))}"
    stem, number = first, 1
    while True:
        try:
            os.close(os.open(place.report_dir / f"{stem}.json", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError:
            number += 1
            stem = f"{first}-{number}"
    status = status_of(place.state_dir)
    return Report(
        stem=stem, notebook=notebook.name, title=notebook.title, path=str(notebook.path.absolute()),
        parameters=dict(given), home=str(place.home), state=str(place.state_dir), version=tradingbot.__version__,
        commit=_commit(), settings_fingerprint=place.fingerprint, settings_error=place.error, started_ms=started_ms,
        cells=len(notebook.content["cells"]), files={"notebook": f"{stem}.ipynb.partial"},
        session=str(status.get("bot", {}).get("sid", "")),
        session_fingerprint=str(status.get("settings_fingerprint", "")),
    )  # fmt: skip


def _commit() -> str | None:
    """Return the commit of the checkout that this runs from, marked where files differ from it; None without one."""
    import subprocess

    root = checkout()
    if root is None or not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()  # noqa: S603

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}, with changes" if changed else commit


def reports_in(folder: Path) -> list[Report]:
    """Return the reports of a folder, the newest first, after what was killed outright is concluded."""
    if folder.is_dir():
        tidy(folder, None)
    return list_reports(folder)


def tidy(folder: Path, keep: int | None) -> tuple[str, ...]:
    """Bring a folder of reports in order: killed runs concluded, old reports removed, the index written anew."""
    with _locked(folder):
        for report in abandoned(folder):
            with contextlib.suppress(OSError):
                conclude_report(folder, report, None, Outcome("abandoned"))
        removed = () if keep is None else tuple(report.stem for report in forget_old(folder, keep))
        write_index(folder)
    return removed


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's index: each holds it for moments, so that it is waited for."""
    end_s = time.monotonic() + WAIT_S
    while True:
        try:
            lock = StateLock(folder, int(time.time() * 1000), ".index.lock")
            lock.__enter__()
            break
        except LockHeldError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.__exit__()
