"""Archives: a tar inside zstd whose last member is a manifest of checksums, read back and unpacked in bounded memory.

Behind all stands a frame that readers skip, for no reader of zstd tells that the end of the last frame is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from tradingbot.errors import UsageError

__all__ = [
    "BLOCK", "END", "MANIFEST", "SCHEMA", "ArchiveError", "Contents", "Hashes", "Member", "Progress", "Unpacked",
    "contents_of", "naming", "read_contents", "unpack",
]  # fmt: skip

MANIFEST = "manifest.json"
SCHEMA = 1
BLOCK = 1 << 18  # which stays in a processor's cache
_AHEAD = 16  # blocks that may wait for their checksum
_ASIDE = 1 << 21  # bytes of headers that may stand between two members: what tarfile reads whole
_MAX_MANIFEST = 1 << 28
_MAX_WINDOW = 1 << 27
_TEXT = b"the end of an archive of tradingbot\n"
END = b"\x50\x2a\x4d\x18" + len(_TEXT).to_bytes(4, "little") + _TEXT
_DAMAGES = (
    tarfile.TarError, zstandard.ZstdError, ValueError, KeyError, TypeError, OverflowError, EOFError, RecursionError,
)  # fmt: skip

Progress = Callable[[str, int, int], None]


class ArchiveError(UsageError):
    """Say why a file is no archive of this program, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Member:
    """Hold what the manifest says of a file: its name, its size in bytes, when it was changed, its SHA-256."""

    name: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Contents:
    """Hold what an archive holds: its members in order, and the facts that were written with them."""

    members: tuple[Member, ...]
    facts: dict[str, Any]


class Hashes:
    """Make SHA-256 on a thread of its own, some blocks behind whoever hands them in."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checksums")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, to: Any, block: bytes) -> None:
        """Take in a block; waits where too many wait."""
        self._waiting.append(self._pool.submit(to.update, block))
        while len(self._waiting) > _AHEAD:
            self._waiting.popleft().result()

    def settle(self) -> None:
        """Wait until all blocks are taken in."""
        while self._waiting:
            self._waiting.popleft().result()


class Unpacked:
    """Give tarfile an archive's bytes, and no more of them than members and their headers may take."""

    def __init__(self, file: Any) -> None:
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._stream: Any = reader.stream_reader(file, read_across_frames=True, read_size=BLOCK)
        self.budget = 0
        self.taken = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes; raise ArchiveError where a header asks for too many."""
        if self.budget < 0:
            raise ArchiveError("a header of it is larger than any that this program writes")
        block: bytes = self._stream.read(size)
        self.budget -= len(block)
        self.taken += len(block)
        return block

    def drain(self) -> None:
        """Read what follows the tar, so that every checksum of a frame is compared; it may be nothing but NULs."""
        while block := self._stream.read(BLOCK):
            if block.count(0) != len(block):
                raise ArchiveError("something follows its end")


def _members(unpacked: Unpacked) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the members of an archive, each to be read before the next one."""
    unpacked.budget = _ASIDE
    with tarfile.open(
        fileobj=unpacked, mode="r|", bufsize=BLOCK, encoding="utf-8", errors="surrogateescape"  # type: ignore[call-overload]
    ) as tar:  # fmt: skip
        while (info := tar.next()) is not None:
            tar.members.clear()  # it would keep them all
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
                raise ArchiveError(f"{info.name!r} in it is no plain file")
            unpacked.budget = info.size + _ASIDE
            stream: Any = tar.fileobj  # stands at the member's first byte; extractfile would copy each block twice more
            yield info, stream
            unpacked.budget = _ASIDE


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        block = file.read(min(left, BLOCK))
        if not block:
            raise ArchiveError("it ends in the middle of a file")
        left -= len(block)
        yield block


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Unpacked]:
    with naming(path), path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - len(END), 0))
        if file.read() != END:
            raise ArchiveError("its end is missing")
        file.seek(0)
        yield Unpacked(file)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say of which file it is that something is wrong."""
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{path} is no whole archive: {error}") from None
    except _DAMAGES as error:
        raise ArchiveError(f"{path} is no whole archive: {str(error) or type(error).__name__}") from None


def contents_of(path: Path, progress: Progress | None = None) -> Contents:
    """Read an archive from end to end and hold every file in it against its checksum; return what it holds.

    Raises ArchiveError where one of them, or the manifest, is not what was written, and OSError.
    """
    with _reading(path) as unpacked:
        return read_contents(unpacked, path.stat().st_size, progress)


def read_contents(unpacked: Unpacked, total: int, progress: Progress | None) -> Contents:
    """Return what is read, held against its checksums and its manifest, as `contents_of` does; `total` is its size."""
    with Hashes() as hashes:
        found: list[tuple[str, int, Any]] = []
        document: dict[str, Any] | None = None
        for info, file in _members(unpacked):
            if document is not None:
                raise ArchiveError("something follows its manifest")
            if info.name == MANIFEST:
                if info.size > _MAX_MANIFEST:
                    raise ArchiveError("its manifest is too large")
                document = json.loads(b"".join(_blocks(file, info.size)))
                continue
            sha256 = hashlib.sha256()
            for block in _blocks(file, info.size):
                hashes.add(sha256, block)
            found.append((info.name, info.size, sha256))
            if progress is not None:
                progress("verifying (MB)", min(unpacked.taken, total) // 1_000_000, total // 1_000_000)
        unpacked.drain()
        hashes.settle()
        return _held_against(document, [(name, size, sha.hexdigest()) for name, size, sha in found])


def _held_against(document: dict[str, Any] | None, found: list[tuple[str, int, str]]) -> Contents:
    if document is None:
        raise ArchiveError("it has no manifest")
    if document["v"] != SCHEMA:
        raise ArchiveError(f"it is of schema {document['v']}, this version reads {SCHEMA}")
    members = tuple(
        Member(str(one["name"]), int(one["size"]), int(one["mtime_ns"]), str(one["sha256"]))
        for one in document["members"]
    )
    if len({member.name for member in members}) != len(members):
        raise ArchiveError("it holds a name twice")
    for member, one in zip(members, found, strict=False):
        if (member.name, member.size, member.sha256) != one:
            raise ArchiveError(f"{member.name!r} is not what its manifest says")
    if len(members) != len(found):
        raise ArchiveError("its manifest names other files")
    facts = {name: value for name, value in document.items() if name not in ("v", "members")}
    return Contents(members, facts)


def unpack(path: Path, contents: Contents, writing: Callable[[Member], contextlib.AbstractContextManager[Any] | None],
           progress: Progress | None = None) -> None:  # fmt: skip
    """Write out the members of an archive that `writing` gives a file for, each held against its checksum once more.

    The block of a file ends with an ArchiveError where it is not what `contents` says. Raises OSError too.
    """
    total = sum(member.size for member in contents.members)
    done = 0
    with _reading(path) as unpacked:
        for member, (info, file) in zip(contents.members, _members(unpacked), strict=False):
            if (info.name, info.size) != (member.name, member.size):
                raise ArchiveError("it has changed since it was looked at")
            target = writing(member)
            sha256 = hashlib.sha256()
            with contextlib.nullcontext() if target is None else target as out:
                for block in _blocks(file, info.size):
                    sha256.update(block)
                    if out is not None:
                        out.write(block)
                if sha256.hexdigest() != member.sha256:
                    raise ArchiveError("it has changed since it was looked at")
            done += member.size
            if progress is not None:
                progress("restoring (MB)", done // 1_000_000, total // 1_000_000)
