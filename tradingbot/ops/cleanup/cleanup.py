"""Cleaning up: a stored plan is archived, verified, told to the journal and carried out; killed anywhere it goes on."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tradingbot import __version__
from tradingbot.errors import Unrecoverable, UsageError
from tradingbot.io.audit import append_audit, user
from tradingbot.io.overrides import Effective
from tradingbot.io.reserve import with_reserve
from tradingbot.io.segments import make_folder, sync_folder
from tradingbot.io.state_files import lock_owner
from tradingbot.ops.cleanup.archive_write import Source, pack_verified
from tradingbot.ops.cleanup.archives import ArchiveError, Contents, Progress, contents_of
from tradingbot.ops.cleanup.plan import KINDS, File, Item, archive_name, consequences, find, folder_of, identity, roots
from tradingbot.ops.cleanup.restore import Restored, Restoring, plan_restore, restore
from tradingbot.ops.cleanup.store import END, Plan, Stored, begin, unfinished
from tradingbot.ops.cleanup.ticks import delete_ticks
from tradingbot.ops.jobs import one_at_a_time

__all__ = [
    "CleanError", "Plan", "Report", "Restored", "Restoring", "Stored", "execute", "plan_clean", "plan_restore",
    "restore",
]  # fmt: skip

MARGIN = 1 << 20  # bytes beside the files themselves
_MEMBER = 2048  # of headers and manifest, for each file


class CleanError(Unrecoverable):
    """Say at which step a cleanup has stopped, and what became of it."""


@dataclass(frozen=True, slots=True)
class Report:
    """Hold what a cleanup has done: what is gone, what was left and why, and where the archive is."""

    plan: Plan
    archive: str
    archived: int
    files: int
    bytes: int
    left: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """Return 0 where all that was planned is gone, else 1."""
        return 1 if self.left else 0

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        facts = {"archive": self.archive or None, "archived_files": self.archived, "files": self.files}
        left = {name.encode("utf-8", "backslashreplace").decode(): why for name, why in self.left.items()}
        return {"id": self.plan.id, "exit_code": self.exit_code, **facts, "bytes": self.bytes, "left": left}

    def text(self) -> str:
        """Return the report in words."""
        from tradingbot.ops.cleanup.text import report_text

        return report_text(self.to_record(), list(self.plan.kinds))


def plan_clean(
    effective: Effective, kinds: Sequence[str], why: str, older_than_s: float = 0.0, archive: bool = False,
    archive_to: Path | None = None, now_ms: int | None = None,
) -> Stored | Plan:  # fmt: skip
    """Return the cleanup of these kinds whose archive is made and which goes on, else a plan.

    Raises UsageError for words that do not go together, a link that leads elsewhere, and too little room for the
    archive.
    """
    kinds = tuple(kind for kind in KINDS if kind in kinds)
    if not kinds:
        raise UsageError(f"clean takes what to clean: {', '.join(KINDS)}; or --restore FILE")
    places = roots(effective)
    archive_dir = _archive_dir(places, kinds, archive, archive_to)
    going_on = unfinished(effective.state_dir, kinds)
    if going_on is not None and Path(going_on.done["archive"]["path"]).is_file():
        return going_on
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    found = {kind: find(effective, kind, older_than_s, now_ms) for kind in kinds}
    items = tuple(item for each in found.values() for item in each.items)
    free_bytes = 0
    if archive_dir is not None:
        free_bytes = _free_bytes(archive_dir)
        _check_room(items, archive_dir, free_bytes)
    stays = {kind: dict(each.stays) for kind, each in found.items()}
    is_running = lock_owner(effective.state_dir) is not None
    says = tuple(consequences(items)) + _low(effective, items, free_bytes, is_running and archive_dir is not None)
    target = "" if archive_dir is None else str(archive_dir)
    return Plan(kinds, older_than_s, target, why, now_ms, items, stays, says, free_bytes, is_running)


def _archive_dir(places: dict[str, Path], kinds: Sequence[str], archive: bool, to: Path | None) -> Path | None:
    """Return the folder of the archive, None where none is wanted; raise UsageError where it would clean itself."""
    if not archive and to is None:
        return None
    if "archives" in kinds:
        raise UsageError("archives are not archived: clean archives takes no --archive")
    if to is not None and not to.is_dir():
        raise UsageError(f"there is no folder {to}: make it, or mount its disk")
    folder = places["archives"] if to is None else to.absolute()
    for kind in KINDS[:-1]:
        cleaned = folder_of(places, kind)[1].resolve()
        if folder.resolve().is_relative_to(cleaned):
            raise UsageError(
                f"the archive would lie in {cleaned}, which is cleaned itself: --archive-to another folder"
            )
    return folder


def _free_bytes(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _check_room(items: Iterable[Item], folder: Path, free_bytes: int) -> None:
    needed = _needed(items)
    if needed > free_bytes:
        raise UsageError(
            f"nothing was changed: the archive may need {needed / 1e6:,.1f} MB, and {folder} has "
            f"{free_bytes / 1e6:,.1f} MB free: --archive-to another disk, a longer --older-than, or no --archive"
        )


def _needed(items: Iterable[Item]) -> int:
    return sum(item.size + len(item.files) * _MEMBER for item in items) + MARGIN


def _low(effective: Effective, items: Iterable[Item], free_bytes: int, matters: bool) -> tuple[str, ...]:
    """Say where the archive would, while it is there beside its files, stop the recording for want of room."""
    least = effective.settings.MIN_FREE_MB * 1_000_000
    if not matters or free_bytes - _needed(items) >= least:
        return ()
    return (
        f"while the archive is made less than MIN_FREE_MB = {least / 1e6:,.0f} MB may be free there: if that is the "
        "disk of the state, the bot records nothing but its journal until there is room again",
    )


def execute(effective: Effective, plan: Plan, progress: Progress | None = None) -> Report:
    """Carry out a plan, or go on with the one of its kinds whose archive is made; return what was done.

    Nothing is deleted before the archive has been read back and every file in it is what the manifest says. Raises
    BusyError where another one is at work, CleanError where a step fails, UsageError where nothing can be stored.
    """
    with one_at_a_time(effective.state_dir, "cleanup"):
        stored = unfinished(effective.state_dir, plan.kinds)
        if stored is None or not Path(stored.done["archive"]["path"]).is_file():
            stored = begin(effective.state_dir, plan)
        stored = replace(stored, plan=replace(stored.plan, why=plan.why or stored.plan.why))
        run = _Run(effective, stored, progress)
        try:
            return run.run()
        except (OSError, ArchiveError) as error:
            said = str(error)
            if isinstance(error, OSError):
                said = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
            raise CleanError(f"clean {stored.plan.id} stopped at step {run.step}: {said}; {run.became()}") from None


class _Run:
    """Carry out one stored plan."""

    def __init__(self, effective: Effective, stored: Stored, progress: Progress | None) -> None:
        self._effective, self._stored, self._progress = effective, stored, progress
        self._plan, self._state_dir, self._places = stored.plan, effective.state_dir, roots(effective)
        self._archive: Path | None = None
        self._archived: set[str] | None = None
        self._gone: list[File] = []
        self._left: dict[str, str] = {}
        self.step = "begin"

    def became(self) -> str:
        """Say what has changed so far, and what the same command does next."""
        if self._gone:
            return f"{len(self._gone)} files are deleted; the same command goes on with it"
        if self._archive is not None:
            return f"nothing is deleted, the archive {self._archive} is whole; the same command goes on with it"
        if "archive" in self._stored.done:
            return "nothing more is deleted; move that archive aside, and the same command begins anew"
        return "nothing is deleted; the same command begins anew"

    def run(self) -> Report:
        """Do every step that is not done."""
        if "begin" not in self._stored.done:
            self._audit("begins")
            self._record("begin")
        if self._plan.archive_dir:
            self.step = "archive"
            self._make_archive()
        self.step = "delete"
        self._delete()
        self.step = END
        archive = "" if self._archive is None else str(self._archive)
        size = sum(file.size for file in self._gone)
        self._audit("done", files=len(self._gone), bytes=size, archive=archive, left=len(self._left))
        if not self._left:
            self._record(END, files=len(self._gone), bytes=size)
        return Report(self._plan, archive, len(self._archived or ()), len(self._gone), size, self._left)

    def _record(self, step: str, **facts: Any) -> None:
        with_reserve(self._state_dir, lambda: self._stored.record(step, **facts))

    def _audit(self, word: str, **facts: Any) -> None:
        plan = self._plan
        data = ",".join(plan.kinds)
        with_reserve(
            self._state_dir,
            lambda: append_audit(
                self._state_dir,
                f"clean {word}",
                plan.why,
                id=plan.id,
                data=data,
                older_than_s=plan.older_than_s,
                **facts,
            ),
        )

    def _path(self, file: File) -> Path:
        root, _, below = file.name.partition("/")
        return self._places[root] / below

    # the archive

    def _make_archive(self) -> None:
        done = self._stored.done.get("archive")
        if done is None:
            self._archive, contents = self._write_archive()
            self._record("archive", path=str(self._archive), files=len(contents.members))
        else:
            contents = contents_of(Path(done["path"]), self._progress)
            self._archive = Path(done["path"])
        self._archived = {member.name for member in contents.members}

    def _write_archive(self) -> tuple[Path, Contents]:
        """Write the archive under another name, read it back, and only then give it its own, which none has."""
        plan, folder = self._plan, Path(self._plan.archive_dir)
        make_folder(folder)
        _check_room(plan.items, folder, _free_bytes(folder))
        for left_over in folder.glob(".*.tar.zst.tmp"):
            if left_over.name.startswith(f".{socket.gethostname()}-") and not _is_alive(left_over.name):
                left_over.unlink(missing_ok=True)
        partial = folder / f".{socket.gethostname()}-{os.getpid()}-{plan.id}.tar.zst.tmp"
        facts = {
            "made_ms": plan.time_ms, "who": user(), "host": socket.gethostname(), "version": __version__,
            "why": plan.why.encode("utf-8", "backslashreplace").decode(), "kinds": plan.kinds,
            "state": str(self._state_dir.absolute()), "id": plan.id,
        }  # fmt: skip
        try:
            written = pack_verified(partial, self._sources(), facts, plan.size, self._progress)
            return _named(partial, folder, plan), written
        finally:
            partial.unlink(missing_ok=True)

    def _sources(self) -> Iterable[Source]:
        files = [file for item in self._plan.items for file in item.files]
        for file in sorted(files, key=lambda file: (not file.name.endswith(".zst"), file.name)):
            seen = (file.size, file.mtime_ns, file.inode)
            yield Source(self._path(file), file.name, lambda status, seen=seen: identity(status) == seen)  # type: ignore[misc]

    # what goes

    def _delete(self) -> None:
        plan = self._plan
        for kind in plan.kinds:
            folder_of(self._places, kind)  # a link may have taken its place
            items = [item for item in plan.items if item.kind == kind and self._is_ready(item)]
            if kind == "ticks":
                gone, left = delete_ticks(
                    self._effective, [item for item in items if self._exists(item)], plan.why, self._progress
                )
                self._left |= left
                self._gone += [file for item in gone for file in item.files]
                continue
            for place, item in enumerate(items):
                self._delete_item(item)
                if self._progress is not None:
                    self._progress(f"deleting {kind}", place + 1, len(items))
            with contextlib.suppress(FileNotFoundError):
                sync_folder(folder_of(self._places, kind)[1])

    def _exists(self, item: Item) -> bool:
        return os.path.lexists(self._path(item.files[0]))

    def _is_ready(self, item: Item) -> bool:
        """Say whether all files of an item that are there are what was planned, and archived where that is wanted."""
        for file in item.files:
            try:
                status = self._path(file).lstat()
            except FileNotFoundError:
                continue
            if identity(status) != (file.size, file.mtime_ns, file.inode):
                self._left[file.name] = "it has changed since it was looked at"
                return False
            if self._archived is not None and file.name not in self._archived:
                self._left[file.name] = "it is not in the archive"
                return False
        return True

    def _delete_item(self, item: Item) -> None:
        for file in reversed(item.files):  # the manifest goes first: what a kill leaves is a segment
            try:
                self._path(file).unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._left[file.name] = error.strerror or str(error)
                return
            self._gone.append(file)


def _named(partial: Path, folder: Path, plan: Plan) -> Path:
    """Give an archive a name that nothing has, whole."""
    day = datetime.datetime.fromtimestamp(plan.time_ms / 1000, datetime.UTC).strftime("%Y%m%d")
    number = 1
    while True:
        ending = "" if number == 1 else f"_{number}"
        path = folder / f"{archive_name(plan.kinds, day)}{ending}.tar.zst"
        number += 1
        try:
            os.link(partial, path)
        except FileExistsError:
            continue
        except OSError:  # a file system without a second name for a file
            if os.path.lexists(path):
                continue
            shutil.move(partial, path)
        sync_folder(folder)
        return path


def _is_alive(name: str) -> bool:
    """Say whether the process that an unfinished archive is named after still runs."""
    pid = name.rsplit("-", 2)[-2]
    return pid.isdigit() and Path(f"/proc/{pid}").exists()
