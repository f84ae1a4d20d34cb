"""The process that executes a notebook: started, listened to, and ended in time together with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradingbot.ops.report.index import Report
from tradingbot.ops.report.notebooks import Notebook, checkout
from tradingbot.ops.report.parameters import is_secret_name

__all__ = ["MARK", "Outcome", "end_marked", "execute"]

MARK = "TRADINGBOT_REPORT"
"""The variable that all processes of a run inherit; one that is to outlive the run takes it out of its environment."""

SAVING_S = 10.0  # that a process has for its last save
ENDING_S = 3.0  # that what it has started has for a clean end
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say how a run ended and where.

    `end` is done, error (a cell raised), dead (the kernel died), broken (no cell did: the machinery failed), unwritten,
    time limit, interrupted, terminated, or abandoned (nobody saw it); `cell` is the index of the cell that was executed
    last, `name` and `says` the error.
    """

    end: str
    cell: int | None = None
    name: str = ""
    says: str = ""
    limit_s: float = 0.0


def execute(
    notebook: Notebook,
    report: Report,
    partial: Path,
    environ: Mapping[str, str],
    timeout_s: float,
    progress: Progress | None,
) -> Outcome:
    """Execute a notebook, saving it to `partial` as it goes; return how that ended, within the time limit and seconds.

    SIGINT and SIGTERM end it. Where it does not end by itself nothing that it started lives on.
    """
    mark = f"{report.stem}-{uuid.uuid4().hex}"
    with _listening() as signals, tempfile.TemporaryDirectory(prefix="tb-report-") as scratch:
        job = Path(scratch, "job.json")
        facts = {
            "notebook": notebook.content,
            "parameters": report.parameters,
            "partial": str(partial),
            "scratch": scratch,
            "runner": os.getpid(),
            "timeout_s": timeout_s,
        }
        job.write_text(json.dumps(facts))
        reading, writing = os.pipe()
        try:
            with Path(scratch, "log").open("wb") as log:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-m", "tradingbot.ops.report.child", str(job), str(writing)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(writing,), start_new_session=True,
                    env=_environ(environ, scratch, mark),
                )  # fmt: skip
            os.close(writing)
            writing = -1
            outcome = None
            try:
                outcome = _follow(process, reading, signals, time.monotonic() + timeout_s, timeout_s, progress)
            finally:
                in_order = outcome is not None and outcome.end in ("done", "error", "unwritten")
                _end(process, mark, in_order)
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
        if outcome.end == "broken" and not outcome.says:
            lines = Path(scratch, "log").read_text(errors="backslashreplace").strip().splitlines()
            outcome = Outcome("broken", outcome.cell, "", lines[-1][:500] if lines else "it ended without a word")
        return outcome


def _environ(environ: Mapping[str, str], scratch: str, mark: str) -> dict[str, str]:
    """Return the environment of a run: without credentials, with this package, and scratch places of its own."""
    kept = {name: value for name, value in environ.items() if not is_secret_name(name)}
    root = checkout()
    if root is not None:
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), kept.get("PYTHONPATH"))))
    places = {"IPYTHONDIR": f"{scratch}/ipython", "JUPYTER_RUNTIME_DIR": f"{scratch}/runtime"}
    return kept | places | {MARK: mark, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


@contextlib.contextmanager
def _listening() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list; from the third on they do again what they did before."""
    got: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield got
        return

    def take(number: int, _: object) -> None:
        got.append(number)
        if len(got) >= 2:
            for each, handler in before.items():
                signal.signal(each, handler)

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(
    process: subprocess.Popen[bytes],
    reading: int,
    signals: list[int],
    end_s: float,
    timeout_s: float,
    progress: Progress | None,
) -> Outcome:
    """Take the process's events until it ends, or is to end."""
    cell: int | None = None
    total = 0
    pending = b""
    ended: dict[str, Any] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while not ended:
            if signals:
                return Outcome("interrupted" if signals[0] == signal.SIGINT else "terminated", cell)
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return Outcome("time limit", cell, limit_s=timeout_s)
            if not selector.select(min(left_s, 0.2)):
                continue
            block = os.read(reading, 65_536)
            if not block:
                break
            *lines, pending = (pending + block).split(b"\n")
            for event in map(json.loads, lines):
                total, cell = event.get("of", total), event.get("cell", cell)
                if progress is not None and total and "end" not in event:
                    progress("cell", 0 if cell is None else cell + 1, total)
                if "end" in event:
                    ended = event
    if ended:
        return Outcome(ended["end"], cell, ended.get("name", ""), ended.get("says", ""))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    return Outcome("broken", cell)


def _end(process: subprocess.Popen[bytes], mark: str, in_order: bool) -> None:
    """End a process: after what it says is its end it has seconds, before that it has them for its last save.

    Unless it ended in order, all that it started goes with it: kernels have sessions of their own, so they are found by
    the mark in their environment.
    """
    if not in_order:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SAVING_S)
    if process.poll() is None:
        process.kill()
        process.wait()
    if not in_order:
        end_marked(mark)


def end_marked(mark: str, spared: int = 0) -> None:
    """End every process that bears a mark, but for one that is spared: asked first, killed after seconds."""
    end_s = time.monotonic() + ENDING_S
    asked: set[int] = set()
    while pids := set(_marked(mark)) - {spared}:
        late = time.monotonic() > end_s
        for pid in pids if late else pids - asked:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= pids
        if late and time.monotonic() > end_s + ENDING_S:
            return  # what cannot be killed waits for a disk
        time.sleep(0.02)


def _marked(mark: str) -> Iterator[int]:
    entry = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if entry in path.read_bytes().split(b"\0") and _lives(path.parent):
                yield int(path.parent.name)


def _lives(process: Path) -> bool:
    """Return whether a process is more than an entry that nobody has collected yet."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
