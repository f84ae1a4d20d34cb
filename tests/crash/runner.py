"""Run rows case by case, in processes of their own, and keep each result: what was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.crash.rows import Outcome, Row

RESULTS = "results.jsonl"
DEFECT = "defect: "  # begins the name of a case that injects one


@dataclass(slots=True)
class Result:
    """Hold what came of a row: its outcome, which seeded defects were caught, and why it was skipped, if so."""

    row: Row
    outcome: Outcome = field(default_factory=lambda: Outcome(count=0))
    seconds: float = 0.0
    caught: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    skipped: str = ""
    begun_s: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Return whether nothing was violated and every seeded defect was caught."""
        return not self.outcome.violations and not self.missed


def revision() -> str:
    """Return what the code is, as a hash: a result counts for one code alone."""
    digest = hashlib.sha256()
    for folder in ("tradingbot", "tests/crash"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Log:
    """Keep the results of cases in a file, a line each, each on the disk before the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def read(self, code: str, name: str) -> dict[str, dict[str, Any]]:
        """Return what is known of a row's cases of this code, the newest of each."""
        found: dict[str, dict[str, Any]] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:  # the last line of a run that was killed
                continue
            if (record["code"], record["row"]) == (code, name):
                found[record["case"]] = record
        return found

    def note(self, record: dict[str, Any]) -> None:
        """Append a result."""
        with self.path.open("a") as file:
            file.write(f"\n{json.dumps(record)}" if self._is_torn() else json.dumps(record))
            file.write("\n")

    def _is_torn(self) -> bool:
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            return bool(size) and file.read(1) != b"\n"


def run_row(
    row: Row,
    cases: Iterable[str],
    log: Log | None = None,
    code: str = "",
    jobs: int = 1,
    tell: Callable[[int, int, Result], None] | None = None,
    again: bool = False,
) -> Result:
    """Run the cases of a row and its seeded defects, but for those that `log` knows; return what came of all."""
    result = Result(row, begun_s=time.monotonic())
    wanted = [*cases, *(DEFECT + name for name in row.defects)]
    known = {} if log is None or again else log.read(code, row.name)
    left = [case for case in wanted if case not in known]
    for case in wanted:
        if case in known:
            _take(result, case, known[case])
    done = len(wanted) - len(left)
    for case, record in _all(row, left, jobs):
        if log is not None:
            log.note({"code": code, "row": row.name, "case": case, **record})
        _take(result, case, record)
        done += 1
        if tell is not None:
            tell(done, len(wanted), result)
    return result


def _take(result: Result, case: str, record: dict[str, Any]) -> None:
    outcome = Outcome(**record["outcome"])
    result.seconds += record["s"]
    if case.startswith(DEFECT):
        (result.caught if outcome.violations else result.missed).append(case.removeprefix(DEFECT))
    else:
        result.outcome.add(outcome)


def _all(row: Row, cases: list[str], jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what came of each case as it is done, `jobs` at a time, each in a process of its own."""
    if jobs == 1:
        for case in cases:
            yield _one(row, case)
        return
    context = multiprocessing.get_context("fork")
    waiting = cases[::-1]
    running: dict[Connection, tuple[str, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_in_process, args=(row, waiting[-1], sender))
                process.start()
                sender.close()
                running[receiver] = waiting.pop(), process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                case, process = running[ready]
                try:
                    found = ready.recv()
                except EOFError:  # it was killed
                    outcome = Outcome()
                    outcome.fail(f"{case}: its process ended without a word")
                    found = case, {"outcome": outcome.to_record(), "s": 0.0}
                process.join()
                ready.close()
                del running[ready]
                yield found
    finally:
        for _, process in running.values():
            process.terminate()  # what it has started and mounted it puts away
        for _, process in running.values():
            process.join(30)
            process.kill()


def _in_process(row: Row, case: str, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that hands out the work
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sender.send(_one(row, case))


def _one(row: Row, case: str) -> tuple[str, dict[str, Any]]:
    begun_s = time.monotonic()
    with scratch() as folder:
        try:
            if case.startswith(DEFECT):
                outcome = row.defects[case.removeprefix(DEFECT)](folder)
            else:
                outcome = row.run(case, folder)
        except Exception:  # noqa: BLE001  (a check that falls over is a violation, of the harness or of the product)
            outcome = Outcome()
            if not case.startswith(DEFECT):
                outcome.fail(traceback.format_exc(limit=-4).strip()[-800:])
    outcome.wrong = [f"{case}: {text}" for text in outcome.wrong]
    return case, {"outcome": outcome.to_record(), "s": round(time.monotonic() - begun_s, 3)}


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder on a disk, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
