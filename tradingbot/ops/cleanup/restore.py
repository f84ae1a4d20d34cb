"""Restoring: what an archive holds goes back where it was, whole, and never over anything or outside the home."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tradingbot.errors import UsageError
from tradingbot.io.audit import append_audit
from tradingbot.io.overrides import Effective
from tradingbot.io.segments import list_segments, make_folder, parse_name, sync_folder
from tradingbot.io.state_files import lock_owner
from tradingbot.io.streams import FOLDERS
from tradingbot.ops.cleanup.archives import ArchiveError, Contents, Member, Progress, contents_of, unpack
from tradingbot.ops.cleanup.plan import LOG_NAME, STREAMS, folder_of, report_of, roots
from tradingbot.ops.jobs import one_at_a_time

__all__ = ["Restored", "Restoring", "plan_restore", "restore"]

PARTIAL = ".tmp"
_ROOM = 1 << 20


@dataclass(frozen=True, slots=True)
class Restoring:
    """Hold what a restore would do: the files that it puts back, and how many are there already, the same."""

    archive: str
    facts: dict[str, Any]
    wanted: tuple[str, ...]
    bytes: int
    there: int
    says: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        record = {name: value for name, value in asdict(self).items() if name != "wanted"}
        return record | {"files": len(self.wanted)}

    def text(self) -> str:
        """Return it in words."""
        from tradingbot.ops.cleanup.text import restoring_text

        return restoring_text(self.to_record())


@dataclass(frozen=True, slots=True)
class Restored:
    """Hold what a restore has put back."""

    archive: str
    files: int
    bytes: int
    there: int

    exit_code = 0

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    def text(self) -> str:
        """Return it in words."""
        from tradingbot.ops.cleanup.text import restored_text

        return restored_text(self.to_record())


def plan_restore(effective: Effective, archive: Path, progress: Progress | None = None) -> Restoring:
    """Read an archive from end to end, hold it against its checksums, and return what of it would be put back.

    Raises ArchiveError for one that is damaged or names what this program never archives, UsageError where a file of
    that name is there and differs, where it would not sort where it belongs, or where there is too little room.
    """
    return _look(effective, archive, progress)[1]


def _look(effective: Effective, archive: Path, progress: Progress | None) -> tuple[Contents, Restoring]:
    if not archive.is_file():
        raise UsageError(f"there is no archive {archive}")
    contents = contents_of(archive, progress)
    targets = _targets(effective)
    newest = {
        kind: {segment.series: segment for segment in list_segments(path)}
        for kind, path in targets.values()
        if kind in STREAMS
    }
    wanted, there, size = [], 0, 0
    for member in contents.members:
        kind, path = _target(targets, member.name)
        if os.path.lexists(path):
            if path.is_symlink() or not path.is_file() or not _is_same(path, member):
                raise UsageError(
                    f"{path} is there, and is not what the archive holds: move it aside; nothing was changed"
                )
            there += 1
            continue
        name = parse_name(path.name) if kind in STREAMS else None
        last = None if name is None else newest[kind].get(name.series)
        if name is not None and last is not None and (name.day, name.number) >= (last.day, last.number):
            raise UsageError(f"{path.name} is no older than {last.path.name}, the newest there: nothing was changed")
        if name is not None and path.with_name(path.name.removesuffix(name.form)).exists():
            raise UsageError(f"{path.with_suffix('')} is there, not sealed: nothing was changed")
        wanted.append(member.name)
        size += member.size
    status = os.statvfs(_nearest(effective.state_dir))
    free_bytes = status.f_bavail * status.f_frsize
    if size + _ROOM > free_bytes:
        raise UsageError(f"nothing was changed: {size / 1e6:,.1f} MB go back, and {free_bytes / 1e6:,.1f} MB are free")
    says = _says(effective, contents, wanted, size)
    return contents, Restoring(str(archive), contents.facts, tuple(wanted), size, there, says)


def _nearest(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


Targets = dict[str, tuple[str, Path]]


def _targets(effective: Effective) -> Targets:
    """Return kind and path of each folder that archived files come from, by its name in an archive."""
    places = roots(effective)
    named = ((kind, folder_of(places, kind)) for kind in (*STREAMS, "logs", "reports"))
    return {name: (kind, path) for kind, (name, path) in named}


def _target(targets: Targets, name: str) -> tuple[str, Path]:
    """Return kind and place of a member; raise ArchiveError for all but what this program archives."""
    folder, _, file = name.rpartition("/")
    if folder in targets and file not in ("", ".", "..") and "\0" not in file:
        kind, path = targets[folder]
        parsed = parse_name(file)
        is_ours = {
            "logs": LOG_NAME.fullmatch(file) is not None,
            "reports": bool(report_of(file)),
        }.get(kind, parsed is not None and parsed.form in (".zst", ".manifest.json"))
        if is_ours:
            return kind, path / file
    raise ArchiveError(f"{name!r} in it is nothing that a cleanup archives: nothing was changed")


def _is_same(path: Path, member: Member) -> bool:
    if path.stat().st_size != member.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == member.sha256


def _says(effective: Effective, contents: Contents, wanted: list[str], size: int) -> tuple[str, ...]:
    said = []
    state, settings = str(effective.state_dir.absolute()), effective.settings
    if contents.facts.get("state") != state:
        said.append(f"it was made of {contents.facts.get('state')}, and goes to {state}")
    streams = [name for name in wanted if name.startswith("state/")]
    if streams:
        there = sum(
            path.stat().st_size for stream in STREAMS.values() for path in _files(effective.state_dir / FOLDERS[stream])
        )
        if there + size > settings.STREAMS_MAX_GB * 1e9:
            said.append(f"with it the streams hold more than STREAMS_MAX_GB = {settings.STREAMS_MAX_GB:g}: raise that "
                        "first, or a running bot deletes the oldest again")  # fmt: skip
        if settings.TICKS_RETENTION_DAYS and any(name.startswith("state/drop_windows/ticks/") for name in streams):
            said.append(f"TICKS_RETENTION_DAYS = {settings.TICKS_RETENTION_DAYS}: set it to 0 first, or a running bot "
                        "deletes what is older again")  # fmt: skip
    return tuple(said)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else iter(())


def restore(effective: Effective, archive: Path, why: str, progress: Progress | None = None) -> Restored:
    """Put back what an archive holds and is not there; return what was put back. Killed anywhere, it can be repeated.

    Every file is written beside its place, held against its checksum, flushed, and then given its name, which nothing
    has. Segments are sealed, and older than the newest of their series, so a bot may run. Raises what `plan_restore`
    raises, BusyError, and OSError.
    """
    with one_at_a_time(effective.state_dir, "cleanup"):
        contents, plan = _look(effective, archive, progress)
        targets, wanted = _targets(effective), set(plan.wanted)
        running = lock_owner(effective.state_dir) is not None
        facts: dict[str, str | float] = {"archive": str(archive), "files": len(wanted)}
        append_audit(effective.state_dir, "clean --restore begins", why, running=str(running), **facts)
        folders = set()

        def writing(member: Member) -> contextlib.AbstractContextManager[IO[bytes]] | None:
            if member.name not in wanted:
                return None
            _, path = _target(targets, member.name)
            make_folder(path.parent)
            folders.add(path.parent)
            return _writing(path, member.mtime_ns)

        unpack(archive, contents, writing, progress)
        for folder in folders:
            sync_folder(folder)
        append_audit(effective.state_dir, "clean --restore done", why, bytes=plan.bytes, **facts)
        return Restored(str(archive), len(wanted), plan.bytes, plan.there)


@contextlib.contextmanager
def _writing(path: Path, mtime_ns: int) -> Iterator[IO[bytes]]:
    """Give a file to write that takes its name when the block ends, if nothing has it; else nothing is left."""
    name = path.name if len(os.fsencode(path.name)) < 250 else hashlib.sha256(os.fsencode(path.name)).hexdigest()
    partial = path.with_name(name + PARTIAL)
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.utime(partial, ns=(time.time_ns(), max(mtime_ns, 0)))
        try:
            os.link(partial, path)
        except FileExistsError:
            raise UsageError(f"{path} has come to be there meanwhile: nothing was put over it") from None
        except OSError:  # a file system without a second name for a file
            if not os.path.lexists(path):
                partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
