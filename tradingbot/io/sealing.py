"""What becomes of segments that are full or past: sealed to .zst, deleted by age and by size; and room on the disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import zstandard

from tradingbot.io.lines import Damage, decode_lines
from tradingbot.io.segments import FRAME, Frame, Segment, list_segments, manifest_path, repair_tail, sync_folder
from tradingbot.io.state_files import write_atomic

__all__ = [
    "Deletion", "Store", "apply_retention", "plan_retention", "seal",
]  # fmt: skip


SCHEMA = 1
_LEVEL = 1  # of ticks 32 bytes each in 2 ms per MB; level 9 makes it 31 in 19 ms
_STEP = 500  # lines that are parsed at a time: 1 ms in which no other thread runs


def seal(path: Path) -> Path:
    """Turn a segment that is no longer written on into .zst and manifest; return the path of the .zst.

    In turn: its tail is repaired, it is flushed and compressed in frames of 1 MB of text to .zst.tmp; this is flushed,
    read again, renamed and described by the manifest; only then is the plain file removed. Killed anywhere and run
    again it ends the same; run on a sealed segment it does nothing. Raises OSError, also where the plain file has grown
    meanwhile, and then it is still there. One thread at a time for a segment.
    """
    sealed = path.with_name(path.name + ".zst")
    partial = path.with_name(path.name + ".zst.tmp")
    if not path.exists() and sealed.exists():
        return sealed
    repair_tail(path)
    contents = _Contents()
    with path.open("rb") as plain, _private(partial) as file:
        os.fsync(plain.fileno())
        for text in _frames(plain.read):
            packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(text)
            file.write(packed)
            contents.add(text, len(packed))
        file.flush()
        os.fsync(file.fileno())
    contents.check(path, partial)
    partial.replace(sealed)
    sync_folder(path.parent)
    write_atomic(manifest_path(path), contents.manifest())
    path.unlink()
    sync_folder(path.parent)
    return sealed


def _private(path: Path) -> Any:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def _frames(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield a file's text in pieces of about FRAME bytes, whole lines each, unless a line is longer."""
    rest = b""
    while block := read(FRAME - len(rest)):
        text = rest + block
        end = text.rfind(b"\n") + 1 or len(text)
        rest = text[end:]
        yield text[:end]
    if rest:
        yield rest


class _Contents:
    """Gather what a manifest says of a segment, frame by frame."""

    def __init__(self) -> None:
        self._records = self._damaged = self._bytes = 0
        self._sha256 = hashlib.sha256()
        self._sessions: dict[str, dict[str, Any]] = {}
        self._of_frames: list[Frame] = []

    def add(self, text: bytes, packed: int) -> None:
        """Take in one frame's text; `packed` is its length in the .zst."""
        self._sha256.update(text)
        self._bytes += len(text)
        lines = text.removesuffix(b"\n").split(b"\n")
        self._of_frames.append(Frame(packed, len(text), text.count(b"\n")))
        for first in range(0, len(lines), _STEP):
            for record in decode_lines(lines[first : first + _STEP]):
                if isinstance(record, Damage):
                    self._damaged += 1
                else:
                    self._note(record)

    def _note(self, record: dict[str, Any]) -> None:
        self._records += 1
        sid = str(record.get("sid", ""))
        session = self._sessions.get(sid)
        if session is None:
            session = self._sessions[sid] = {"records": 0, "ts_ms": None, "seq": None}
        session["records"] += 1
        for name in ("ts_ms", "seq"):
            value = record.get(name)
            if isinstance(value, int):
                span = session[name]
                if span is None:
                    session[name] = [value, value]
                elif value > span[1]:
                    span[1] = value
                elif value < span[0]:
                    span[0] = value

    def check(self, plain: Path, sealed: Path) -> None:
        """Read a .zst again; raise OSError, and remove it, where it does not hold all that the plain file does."""
        again = hashlib.sha256()
        with sealed.open("rb") as file, contextlib.suppress(zstandard.ZstdError):
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while text := reader.read(FRAME):
                again.update(text)
        if again.digest() != self._sha256.digest() or plain.stat().st_size != self._bytes:
            sealed.unlink()
            raise OSError(errno.EIO, "not what the plain file holds", str(sealed))

    def manifest(self) -> bytes:
        """Return it as JSON; `ts_ms` and `seq` of a session are its least and its greatest, None where it has none."""
        return orjson.dumps(
            {
                "v": SCHEMA,
                "records": self._records,
                "damaged": self._damaged,
                "bytes": self._bytes,
                "sha256": self._sha256.hexdigest(),
                "sessions": self._sessions,
                "frames": [list(frame) for frame in self._of_frames],
            }
        )


class Store(NamedTuple):
    """Say by which rules the segments of a folder go.

    Where all stores together are too large, those of the lowest `rank` go first. Segments older than `older_than_ms` go
    whatever the size, None: none do.
    """

    folder: Path
    rank: int = 0
    older_than_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """Name a sealed segment to delete, the bytes that it and its manifest hold, and why."""

    path: Path
    size: int
    reason: str


def plan_retention(stores: Sequence[Store], max_bytes: int | None = None) -> list[Deletion]:
    """Return which sealed segments to delete, in order, so that each store keeps to its age and all to `max_bytes`.

    All that lies in the folders counts, but only sealed segments go: by rank, then the oldest first. A segment is as
    old as the end of the day in its name, or its last change if that is earlier, for a clock that jumped ahead names
    days to come.
    """
    total = 0
    planned: list[Deletion] = []
    waiting: list[tuple[int, int, Segment, int]] = []
    for store in stores:
        sizes, changed_ms = _sizes(store.folder)
        total += sum(sizes.values())
        for segment in list_segments(store.folder):
            if not segment.sealed or segment.path.name not in sizes:
                continue
            age_ms = min(segment.end_ms, changed_ms[segment.path.name])
            size = sizes[segment.path.name] + sizes.get(manifest_path(segment.path).name, 0)
            if store.older_than_ms is not None and age_ms < store.older_than_ms:
                planned.append(Deletion(segment.path, size, "too old"))
                total -= size
            else:
                waiting.append((store.rank, age_ms, segment, size))
    if max_bytes is not None:
        for _, _, segment, size in sorted(waiting):
            if total <= max_bytes:
                break
            planned.append(Deletion(segment.path, size, f"more than {max_bytes} bytes"))
            total -= size
    return planned


def _sizes(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return the size and the time of the last change, in ms, of each file of a folder."""
    sizes: dict[str, int] = {}
    changed_ms: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # sealed or deleted meanwhile
                status = entry.stat(follow_symlinks=False)
                sizes[entry.name], changed_ms[entry.name] = status.st_size, status.st_mtime_ns // 1_000_000
    return sizes, changed_ms


def apply_retention(plan: Iterable[Deletion]) -> list[tuple[Deletion, OSError | None]]:
    """Delete what a plan names, in order; return each with None, or why it is still there, for the log.

    The manifest goes first: what a kill leaves is a sealed segment, which the next plan names again. What is gone
    already counts as deleted. Never raises OSError.
    """
    done: list[tuple[Deletion, OSError | None]] = []
    for deletion in plan:
        try:
            manifest_path(deletion.path).unlink(missing_ok=True)
            deletion.path.unlink(missing_ok=True)
        except OSError as error:
            done.append((deletion, error))
        else:
            done.append((deletion, None))
    return done
