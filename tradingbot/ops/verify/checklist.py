"""Verification: the checklist after a rollback, or at any time, as one report with a verdict."""

from __future__ import annotations

import contextlib
import datetime
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from tradingbot import __version__
from tradingbot.config import FLAGS
from tradingbot.io.audit import user
from tradingbot.io.overrides import Effective
from tradingbot.io.segments import make_folder
from tradingbot.io.state_files import write_atomic
from tradingbot.ops.checkup import Finding, Verdict, findings_text, run_checks
from tradingbot.ops.record.inputs import Progress
from tradingbot.ops.verify import checks, record
from tradingbot.ops.verify.log_lines import iso
from tradingbot.ops.verify.monitor import MONITORED, Monitor
from tradingbot.ops.verify.own_tests import TESTS, find_checkout, own_tests
from tradingbot.ops.verify.scene import Scene, look_at
from tradingbot.ops.verify.scratch import Scratch
from tradingbot.ops.verify.start import STARTED, started

__all__ = ["CHECKLIST", "FOLDER", "VerifyReport", "verify"]

FOLDER = "verifications"
KEPT = 500  # reports
GO, NO_GO = "GO", "NO-GO"
INTERRUPTED = 130
CHECKLIST = (
    checks.SETTINGS_BACKED_UP, checks.FLAGS_AS_INTENDED, STARTED, checks.DATA, record.CALCULATION,
    record.TRIGGER, record.NO_ORDER, record.STREAMS, record.PROVED, checks.GROWTH, checks.LEFT_BEHIND, TESTS, MONITORED,
)  # fmt: skip
"""The checks in the order of the report; the last two where they are asked for."""
ID = re.compile(r"\d{8}T\d{6}-\d{3}$")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Hold what a verification found; times are the wall clock's, in ms.

    `state` is the state directory, `sid` the session that ran (empty without one), `folder` where the report is kept,
    `trouble` why it is not. `is_whole` is false where it was interrupted: then it is no GO.
    """

    findings: tuple[Finding, ...]
    state: str
    sid: str
    bot: str
    began_ms: int
    ended_ms: int
    why: str = ""
    who: str = ""
    version: str = __version__
    is_whole: bool = True
    folder: str = ""
    trouble: str = ""

    @property
    def verdict(self) -> str:
        """Return GO where everything was looked at and nothing failed, else NO-GO."""
        return GO if self.is_whole and all(finding.ok for finding in self.findings) else NO_GO

    @property
    def exit_code(self) -> int:
        """Return 0 for GO, 1 for NO-GO, 130 where it was interrupted."""
        if not self.is_whole:
            return INTERRUPTED
        return 0 if self.verdict == GO else 1

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "v": 1, "verdict": self.verdict, "exit_code": self.exit_code, "state": self.state, "sid": self.sid,
            "bot": self.bot, "began_ms": self.began_ms, "ended_ms": self.ended_ms, "why": self.why, "who": self.who,
            "version": self.version, "is_whole": self.is_whole, "folder": self.folder, "trouble": self.trouble,
            "findings": [finding.to_record() for finding in self.findings],
        }  # fmt: skip

    def text(self) -> str:
        """Return the report in words, the verdict last."""
        failed = [finding.name for finding in self.findings if not finding.ok]
        warned = [finding.name for finding in self.findings if finding.verdict is Verdict.WARNING]
        because = (
            f": {', '.join(failed)}"
            if failed
            else ""
            if self.is_whole
            else ": interrupted, not everything was looked at"
        )
        aside = f" (look at: {', '.join(warned)})" if warned else ""
        head = f"{self.state}, session {self.sid or 'none'} ({self.bot}), version {self.version}"
        when = f"{iso(self.began_ms)}, {(self.ended_ms - self.began_ms) / 1000:.1f} s, by {self.who}"
        why = f": {self.why}" if self.why else ""
        lines = [
            _plain(head),
            _plain(when + why),
            "",
            findings_text(self.findings),
            "",
            f"{self.verdict}{because}{aside}",
        ]
        if self.folder:
            lines.append(_plain(f"kept in {self.folder}"))
        return "\n".join(lines)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def verify(
    effective: Effective,
    *,
    last_min: float = 10.0,
    monitor_s: float = 0.0,
    tests: bool = False,
    why: str = "",
    progress: Progress | None = None,
) -> VerifyReport:
    """Go through the checklist; keep the report under the state directory, and return it.

    `last_min` minutes of the exchange's time are proved; with `monitor_s` the bot is then watched for so many seconds,
    with `tests` the project's own tests are run. Ctrl-C ends it with what was found so far. It changes nothing but its
    own report; a disk that cannot take that is told in `trouble`.
    """
    began_ms, began_s = int(time.time() * 1000), time.monotonic()
    found: list[Finding] = []
    scene: Scene | None = None
    is_whole = False
    sid = bot = ""
    try:
        scene = look_at(effective, last_min)
        sid = scene.bot.sid if scene.bot.is_running else ""
        bot = f"process {scene.bot.pid}, {scene.bot.state}" if scene.bot.pid else scene.bot.state
        for finding in _findings(scene, tests, monitor_s, progress):
            found.append(finding)
            if progress is not None:
                progress("verifying", len(found), len(CHECKLIST) - 2 + tests + (monitor_s > 0))
        is_whole = True
    except KeyboardInterrupt:
        pass
    finally:
        findings = tuple(sorted(found, key=lambda one: CHECKLIST.index(one.name)))
        ended_ms = began_ms + int((time.monotonic() - began_s) * 1000)
        report = _kept(
            VerifyReport(
                findings, str(effective.state_dir), sid, bot, began_ms, ended_ms, why, user(), is_whole=is_whole
            ),
            effective.state_dir,
        )
    return report


def _findings(scene: Scene, tests: bool, monitor_s: float, progress: Progress | None) -> Iterator[Finding]:
    """Yield what each check finds, in an order in which nothing waits for what could go on meanwhile."""
    with contextlib.ExitStack() as stack:
        scratch: list[Scratch] = []
        trouble: list[OSError] = []
        try:
            scratch.append(stack.enter_context(Scratch(scene.settings)))
        except OSError as error:
            trouble.append(error)

        def trigger() -> Finding:
            for error in trouble:
                raise error
            return record.trigger_fires(scratch[0].result())

        made: list[tuple[str, Callable[[], Finding]]] = [
            (checks.SETTINGS_BACKED_UP, lambda: checks.settings_backed_up(scene)),
            (checks.FLAGS_AS_INTENDED, lambda: checks.flags_as_intended(scene)),
            (checks.DATA, lambda: checks.market_data_alive(scene)),
            (record.STREAMS, lambda: record.streams(scene)),
            (record.CALCULATION, lambda: record.calculation(scene)),
            (record.PROVED, lambda: record.proved(scene, progress)),
            (record.NO_ORDER, lambda: record.no_order(scene)),
            (checks.GROWTH, lambda: checks.growth(scene)),
            (checks.LEFT_BEHIND, lambda: checks.what_is_left(scene)),
            (record.TRIGGER, trigger),
            (STARTED, lambda: started(scene)),
        ]
        yield from run_checks(made)
    if tests:
        off = [name for name in FLAGS if not checks.intended(scene, name)[0]]
        yield from run_checks([(TESTS, lambda: own_tests(find_checkout(), off))])
    if monitor_s > 0:
        yield from _monitored(scene, monitor_s, progress)


def _monitored(scene: Scene, monitor_s: float, progress: Progress | None) -> Iterator[Finding]:
    monitor = Monitor(scene, monitor_s)
    try:
        yield from run_checks([(MONITORED, lambda: _watch(monitor, progress))])
    except KeyboardInterrupt:
        yield monitor.finding()
        raise


def _watch(monitor: Monitor, progress: Progress | None) -> Finding:
    monitor.run(progress)
    return monitor.finding()


def _kept(report: VerifyReport, state_dir: Path) -> VerifyReport:
    """Keep a report as report.json and report.txt under an id of its own; where that fails, say so in it."""
    if not state_dir.is_dir():
        return replace(report, trouble=f"the report is not kept: there is no {state_dir}")
    folder = state_dir / FOLDER
    try:
        make_folder(folder)
        own = _new_folder(folder, report.began_ms)
        kept = replace(report, folder=str(own))
        write_atomic(
            own / "report.json", orjson.dumps(kept.to_record(), option=orjson.OPT_INDENT_2, default=str) + b"\n"
        )
        write_atomic(own / "report.txt", kept.text().encode("utf-8", "backslashreplace") + b"\n")
        _forget_oldest(folder)
    except OSError as error:
        return replace(report, trouble=f"the report is not kept: {error.strerror or error}")
    return kept


def _new_folder(folder: Path, time_ms: int) -> Path:
    while True:
        when = datetime.datetime.fromtimestamp(time_ms // 1000, datetime.UTC)
        own = folder / f"{when:%Y%m%dT%H%M%S}-{time_ms % 1000:03d}"
        try:
            own.mkdir(mode=0o700)
        except FileExistsError:
            time_ms += 1
        else:
            return own


def _forget_oldest(folder: Path) -> None:
    """Keep the newest reports alone: who verifies once a minute is not to fill the disk by it."""
    old = sorted(path for path in folder.iterdir() if ID.fullmatch(path.name))[:-KEPT]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
