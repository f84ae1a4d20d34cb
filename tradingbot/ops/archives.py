"""Archives: a tar inside zstd with a manifest of checksums, written, read back and unpacked in bounded memory.

The manifest is the last member, because it tells what was read while the others were written. Whatever is packed
already (`.zst`) stands in a frame of its own at the fastest level, which stores it as it is. Behind all stands a frame
that readers skip, for no reader of zstd tells that the end of the last frame is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from tradingbot.errors import UsageError

__all__ = ["MANIFEST", "ArchiveError", "Contents", "Member", "Source", "contents_of", "pack", "unpack"]

MANIFEST = "manifest.json"
SCHEMA = 1
BLOCK = 1 << 20
_AHEAD = 8  # blocks that may wait for their checksum
_ASIDE = 1 << 21  # bytes of headers that may stand between two members: what tarfile reads whole
_MAX_MANIFEST = 1 << 28
_MAX_WINDOW = 1 << 27
_FAST, _LEVEL = 1, 3
_END_TEXT = b"the end of an archive of tradingbot\n"
_END = b"\x50\x2a\x4d\x18" + len(_END_TEXT).to_bytes(4, "little") + _END_TEXT
_DAMAGES = (
    tarfile.TarError, zstandard.ZstdError, ValueError, KeyError, TypeError, OverflowError, EOFError, RecursionError,
)  # fmt: skip

Progress = Callable[[str, int, int], None]


class ArchiveError(UsageError):
    """Say why a file is no archive of this program, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Source:
    """Name a file to pack, and the member that it becomes; `check` is asked about the open file, and may refuse it."""

    path: Path
    name: str
    check: Callable[[os.stat_result], bool]


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


class _Hashes:
    """Make SHA-256 on a thread of its own, some blocks behind whoever hands them in."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checksums")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> _Hashes:
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


class _Packed:
    """Write frames of zstd to a file, a new one where the level changes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._level = file, 0
        self._frame: Any = None
        self.size = 0

    def write(self, data: bytes, level: int) -> None:
        """Write bytes at a level."""
        if level != self._level:
            self.end()
            self._level = level
            threads = 2 if level == _LEVEL else 0
            packer = zstandard.ZstdCompressor(level=level, write_checksum=True, threads=threads)
            self._frame = packer.compressobj()
        self._file.write(self._frame.compress(data))
        self.size += len(data)

    def end(self) -> None:
        """End the frame under way."""
        if self._frame is not None:
            self._file.write(self._frame.flush())
            self._frame, self._level = None, 0


def pack(
    path: Path, sources: Iterable[Source], facts: dict[str, Any], total: int = 0, progress: Progress | None = None
) -> Contents:
    """Write an archive, and return what it holds; on return it is on the disk. Raises OSError, and leaves what it has.

    A source that is gone, or is refused, is left out. One that changes while it is read raises OSError. `total` is the
    size of all, for the progress.
    """
    members: list[Member] = []
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        packed = _Packed(file)
        with _Hashes() as hashes:
            sums: list[tuple[str, int, int, Any]] = []
            for source in sources:
                with contextlib.ExitStack() as opened:
                    try:
                        descriptor = os.open(source.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                    except FileNotFoundError:
                        continue
                    plain = opened.enter_context(os.fdopen(descriptor, "rb", buffering=0))
                    status = os.fstat(descriptor)
                    if not source.check(status):
                        continue
                    sha256 = hashlib.sha256()
                    _copy(plain, source, status, packed, lambda block, to=sha256: hashes.add(to, block))  # type: ignore[misc]
                    sums.append((source.name, status.st_size, status.st_mtime_ns, sha256))
                if progress is not None:
                    progress("archiving (MB)", packed.size // 1_000_000, total // 1_000_000)
            hashes.settle()
            members = [Member(name, size, mtime_ns, sha.hexdigest()) for name, size, mtime_ns, sha in sums]
        document = {"v": SCHEMA, **facts, "members": [asdict(member) for member in members]}
        text = json.dumps(document, indent=1).encode()  # ASCII: also of names that are no UTF-8
        packed.write(_header(MANIFEST, len(text), 0) + text + b"\0" * (-len(text) % tarfile.BLOCKSIZE), _LEVEL)
        end = 2 * tarfile.BLOCKSIZE
        packed.write(b"\0" * (end + -(packed.size + end) % tarfile.RECORDSIZE), _LEVEL)
        packed.end()
        file.write(_END)
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # what is read back is to come from the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return Contents(tuple(members), facts)


def _copy(
    plain: IO[bytes], source: Source, status: os.stat_result, packed: _Packed, take: Callable[[bytes], None]
) -> None:
    """Write one file as a member; raise OSError where it is not what it was when it was opened."""
    level = _FAST if source.path.suffix == ".zst" else _LEVEL
    packed.write(_header(source.name, status.st_size, status.st_mtime_ns), level)
    left = status.st_size
    while left:
        block = plain.read(min(left, BLOCK))
        if not block:
            break
        left -= len(block)
        take(block)
        packed.write(block, level)
    after = os.fstat(plain.fileno())
    if left or (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
        raise OSError(0, "it changed while it was read", str(source.path))
    packed.write(b"\0" * (-status.st_size % tarfile.BLOCKSIZE), level)


def _header(name: str, size: int, mtime_ns: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, max(mtime_ns, 0) // 1_000_000_000, 0o600
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Unpacked:
    """Give tarfile an archive's bytes, and no more of them than members and their headers may take."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(max(file.seek(0, os.SEEK_END) - len(_END), 0))
        if file.read() != _END:
            raise ArchiveError("its end is missing")
        file.seek(0)
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


def _members(unpacked: _Unpacked) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
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
            file = tar.extractfile(info)
            assert file is not None
            yield info, file
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
def _reading(path: Path) -> Iterator[_Unpacked]:
    try:
        with path.open("rb") as file:
            yield _Unpacked(file)
    except ArchiveError as error:
        raise ArchiveError(f"{path} is no whole archive: {error}") from None
    except _DAMAGES as error:
        raise ArchiveError(f"{path} is no whole archive: {str(error) or type(error).__name__}") from None


def contents_of(path: Path, progress: Progress | None = None) -> Contents:
    """Read an archive from end to end and hold every file in it against its checksum; return what it holds.

    Raises ArchiveError where one of them, or the manifest, is not what was written, and OSError.
    """
    total = path.stat().st_size
    with _reading(path) as unpacked, _Hashes() as hashes:
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
