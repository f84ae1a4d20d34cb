"""Repair: a plan of steps out of what was found, each of which a kill may interrupt and a second run goes on from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from tradingbot.io.audit import append_audit
from tradingbot.io.jsonl import Damage, Place, ReadReport, encode
from tradingbot.io.jsonl_read import read_lines
from tradingbot.io.lines import decode_lines
from tradingbot.io.sealing import seal
from tradingbot.io.segments import manifest_path, repair_tail, sync_folder
from tradingbot.io.streams import event_record
from tradingbot.ops.record.findings import Ill, Report, counted
from tradingbot.ops.record.numbering import whole

__all__ = ["Outcome", "Step", "Work", "plan", "repair"]

_STEP = 500  # lines that are checked at a time
_AUDITED = 500  # steps in one record of the audit, which is a line, and a line has its bound


class Work(StrEnum):
    """Name what a step does to its file."""

    CUT = "move what follows the last whole line to .torn"
    REWRITE = "write it anew without its damaged lines (these to .bad, the file as it is to .original)"
    SEAL = "seal it again, with a new manifest"
    ASIDE = "keep it aside as .original"
    REMOVE = "remove it"


@dataclass(frozen=True, slots=True)
class Step:
    """Say what is to be done to which file under the state directory."""

    work: Work
    file: str

    def __str__(self) -> str:
        return f"{self.file}: {self.work}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say how a step ended: what it did, or `failed`, why it did nothing."""

    step: Step
    did: str = ""
    failed: str | None = None

    def __str__(self) -> str:
        return f"{self.step.file}: {self.did if self.failed is None else f'not repaired: {self.failed}'}"


WORK_FOR_ILL = {
    Ill.HALF_SEALED: Work.SEAL,
    Ill.NO_MANIFEST: Work.SEAL,
    Ill.MISFIT: Work.SEAL,
    Ill.STRAY_MANIFEST: Work.ASIDE,
    Ill.LEFT_OVER: Work.REMOVE,
}
ORDER = (Work.REMOVE, Work.CUT, Work.REWRITE, Work.SEAL, Work.ASIDE)


def plan(report: Report) -> list[Step]:
    """Return the steps that mend what a report names; what only a person can mend has none."""
    works: dict[str, set[Work]] = {}
    for file, kinds in report.kinds.items():
        wanted = {work for kind in kinds if (work := _work_for(file, kind)) is not None}
        if wanted:
            works[file] = wanted
    for file, wanted in works.items():
        if Work.REWRITE in wanted:  # it cuts, and what was sealed is sealed again
            works[file] = {Work.REWRITE} | ({Work.SEAL} & wanted if not file.endswith(".zst") else set())
    return [Step(work, file) for work in ORDER for file, wanted in works.items() if work in wanted]


def _work_for(file: str, kind: Damage | Ill) -> Work | None:
    if isinstance(kind, Ill):
        return WORK_FOR_ILL.get(kind)
    is_sealed = file.endswith(".zst")
    if kind is Damage.UNREADABLE and not is_sealed:
        return None  # the disk, or a permission: nothing that writing could mend
    return Work.CUT if kind is Damage.TORN and not is_sealed else Work.REWRITE


def repair(
    state_dir: Path, steps: list[Step], why: str, progress: Callable[[str, int, int], None] | None = None
) -> list[Outcome]:
    """Do what a plan says, one step after the other, and return how each ended; for who holds the directory's lock.

    The audit says before what is to be done, and after it what was done. A step that fails leaves its file as it is.
    """
    _audit(state_dir, "fsck --repair: begins", why, "steps", steps)
    outcomes = []
    for place, step in enumerate(steps):
        if progress is not None:
            progress("repairing", place, len(steps))
        try:
            outcomes.append(Outcome(step, _DOING[step.work](state_dir / step.file)))
        except OSError as error:
            outcomes.append(Outcome(step, failed=error.strerror or str(error)))
    _audit(state_dir, "fsck --repair: ended", why, "outcomes", outcomes)
    return outcomes


def _audit(state_dir: Path, what: str, why: str, name: str, items: Sequence[Step | Outcome]) -> None:
    for first in range(0, len(items), _AUDITED):
        append_audit(state_dir, what, why, **{name: [str(item) for item in items[first : first + _AUDITED]]})


def _cut(path: Path) -> str:
    return f"{repair_tail(path)} bytes moved to {path.name}.torn"


def _remove(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "removed"


def _set_aside(path: Path) -> str:
    aside = _keep(path)
    path.unlink()
    return f"kept aside as {aside.name}"


def _seal(path: Path) -> str:
    """Seal a plain segment, or a sealed one anew, from its text."""
    if path.suffix == ".zst":
        manifest = manifest_path(path)
        if manifest.exists():
            _keep(manifest)
        plain = path.with_suffix("")
        if not plain.exists():
            with _writing(plain) as file:
                _copy(path, file, None)
        path = plain
    seal(path)
    return "sealed again"


def _rewrite(path: Path) -> str:
    """Replace a segment by its whole lines; a sealed one becomes a plain one beside it, which is sealed.

    In turn: the file as it is gets a second name, the damaged lines their file, and only then the good ones the name.
    """
    is_sealed = path.suffix == ".zst"
    plain = path.with_suffix("") if is_sealed else path
    if not is_sealed:
        repair_tail(path)
        sealed = path.with_name(path.name + ".zst")
        if sealed.exists():  # it was read against the plain file when that was whole, and may be the better of the two
            _keep(sealed)
    if is_sealed and manifest_path(path).exists():
        _keep(manifest_path(path))
    original = _keep(path, plain.name + ".bad")
    bad = plain.with_name(plain.name + ".bad" + original.name.removeprefix(f"{path.name}.original"))
    with _writing(plain) as file, _writing(bad) as refused:  # the second takes its name first
        count = _copy(path, file, refused)
    if not count:
        bad.unlink()
    if is_sealed:
        seal(plain)
    went = f"{counted(count, 'damaged line')} moved to {bad.name}" if count else "what could be read is kept"
    return f"{went}, the file as it was is {original.name}"


def _copy(path: Path, file: IO[bytes], refused: IO[bytes] | None) -> int:
    """Write the good lines of a segment to one file, the damaged ones to the other; return how many these are.

    Where lines are missing from the first a gap record says how many, so that what was lost stays told for good.
    """
    report = _Readable()
    count = missing = 0
    last: dict[str, Any] | None = None
    for batch in read_lines(path, report):
        missing += report.take_lost()
        for first in range(0, len(batch.lines), _STEP):
            lines = batch.lines[first : first + _STEP]
            for line, record in zip(lines, decode_lines(lines), strict=True):
                if not isinstance(record, Damage):
                    if missing:
                        file.write(_gap(missing, last or record))
                        missing = 0
                    last = record
                    file.write(line + b"\n")
                else:
                    count += 1
                    missing += 1
                    if refused is not None:
                        refused.write(line + b"\n")
    missing += report.take_lost()
    if missing and last is not None:
        file.write(_gap(missing, last))
    if count and refused is None:
        raise OSError(0, f"{count} of its lines are damaged since it was looked at: run it again")
    return count


def _gap(missing: int, beside: dict[str, Any]) -> bytes:
    """Return a gap record of the session and time of a record beside it."""
    return encode(event_record(str(beside.get("sid", "")), whole(beside.get("ts_ms")) or 0, "gap", missing=missing))


class _Readable(ReadReport):
    """Go on where what was packed is damaged, for its original is kept; give up where the disk does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0

    def note(self, place: Place) -> None:
        if place.damage is Damage.UNREADABLE and place.path.suffix != ".zst":
            raise OSError(0, place.detail)
        if place.damage is Damage.UNREADABLE and place.line > 0:
            self._lost += place.lines

    def take_lost(self) -> int:
        """Return how many lines could not be unpacked since it was asked last."""
        lost, self._lost = self._lost, 0
        return lost


def _keep(path: Path, partner: str = "") -> Path:
    """Give a file a second name, `.original`, or with a number behind it; one that it has already counts.

    No name is taken whose number a file of the `partner`'s name has: what is kept aside is never overwritten.
    """
    number = 1
    while True:
        ending = "" if number == 1 else f".{number}"
        aside = path.with_name(f"{path.name}.original{ending}")
        number += 1
        if aside.exists():
            if aside.samefile(path):
                return aside
        elif not partner or not path.with_name(partner + ending).exists():
            os.link(path, aside)
            sync_folder(path.parent)
            return aside


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write that takes its name when the block ends, whole and on the disk; else nothing is left."""
    partial = path.with_name(path.name + ".repaired.tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # also an interrupt: what is half written goes, then it goes on up
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    sync_folder(path.parent)


_DOING: dict[Work, Callable[[Path], str]] = {
    Work.CUT: _cut,
    Work.REWRITE: _rewrite,
    Work.SEAL: _seal,
    Work.ASIDE: _set_aside,
    Work.REMOVE: _remove,
}
