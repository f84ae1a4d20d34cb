"""Writing archives: with checksums, in frames of zstd, and read back from the disk while the rest is written.

The manifest is the last member, because it tells what was read while the others were written. Whatever is packed
already (`.zst`) stands in a frame of its own at the fastest level, which stores it as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from tradingbot.ops.cleanup.archives import (
    BLOCK,
    END,
    MANIFEST,
    SCHEMA,
    ArchiveError,
    Contents,
    Hashes,
    Member,
    Progress,
    Unpacked,
    naming,
    read_contents,
)

__all__ = ["Source", "pack", "pack_verified"]

_FAST, _LEVEL = 1, 3
_STRETCH = 1 << 25  # bytes of an archive that are flushed and read back at a time
_TOLD = 1 << 22  # bytes between two words on how far the writing has come


@dataclass(frozen=True, slots=True)
class Source:
    """Name a file to pack, and the member that it becomes; `check` is asked about the open file, and may refuse it."""

    path: Path
    name: str
    check: Callable[[os.stat_result], bool]


class _Packed:
    """Write frames of zstd to a file, a new one where the level changes."""

    def __init__(self, file: IO[bytes], grown: Callable[[int], None]) -> None:
        self._file, self._level, self._grown = file, 0, grown
        self._frame: Any = None
        self.size = 0
        self._out = self._told = 0

    def write(self, data: bytes, level: int) -> None:
        """Write bytes at a level."""
        if level != self._level:
            self.end()
            self._level = level
            threads = 2 if level == _LEVEL else 0
            packer = zstandard.ZstdCompressor(level=level, write_checksum=True, threads=threads)
            self._frame = packer.compressobj()
        self._put(self._frame.compress(data))
        self.size += len(data)

    def end(self) -> None:
        """End the frame under way."""
        if self._frame is not None:
            self._put(self._frame.flush())
            self._frame, self._level = None, 0

    def _put(self, block: bytes) -> None:
        self._file.write(block)
        self._out += len(block)
        if self._out - self._told >= _TOLD:
            self._file.flush()
            self._told = self._out
            self._grown(self._out)


def pack(
    path: Path,
    sources: Iterable[Source],
    facts: dict[str, Any],
    total: int = 0,
    progress: Progress | None = None,
    grown: Callable[[int], None] = lambda _: None,
) -> Contents:
    """Write an archive, and return what it holds; on return it is on the disk. Raises OSError, and leaves what it has.

    A source that is gone, or is refused, is left out. One that changes while it is read raises OSError. `total` is the
    size of all, for the progress; `grown` is told how large the archive has become.
    """
    members: list[Member] = []
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        packed = _Packed(file, grown)
        with Hashes() as hashes:
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
        file.write(END)
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # what is read back is to come from the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return Contents(tuple(members), facts)


def pack_verified(
    path: Path, sources: Iterable[Source], facts: dict[str, Any], total: int = 0, progress: Progress | None = None
) -> Contents:
    """Write an archive as `pack` does, and read it back from the disk while the rest of it is still being written.

    Raises ArchiveError where what is read back is not what was written, and OSError.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="verifying") as pool, _Written(path) as written:
        reading: Future[Contents] | None = None

        def grown(size: int) -> None:
            nonlocal reading
            written.grow(size)
            if reading is None:
                reading = pool.submit(_read_back, written, path)
            elif reading.done():
                reading.result()  # it has failed: there is no sense in writing on

        contents = pack(path, sources, facts, total, progress, grown)
        grown(path.stat().st_size)
        written.end()
        assert reading is not None
        with path.open("rb") as file:
            file.seek(-len(END), os.SEEK_END)
            if reading.result().members != contents.members or file.read() != END:
                raise ArchiveError(f"{path} is not what was written to it")
        return contents


class _Written:
    """Give what has been written of a file so far, stretch by stretch, each flushed to the disk and read from there."""

    def __init__(self, path: Path) -> None:
        self._path, self._changed = path, threading.Condition()
        self._file: IO[bytes] | None = None
        self._size = self._safe = self._place = 0
        self._is_whole = self._is_over = False

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def grow(self, size: int) -> None:
        """Say that so many bytes have been written."""
        with self._changed:
            self._size = size
            self._changed.notify()

    def end(self) -> None:
        """Say that no more will be."""
        with self._changed:
            self._is_whole = True
            self._changed.notify()

    def read(self, size: int) -> bytes:
        """Return the next bytes, waiting for them; none at the end."""
        if self._file is None:
            self._file = self._path.open("rb", buffering=0)
        if self._place == self._safe:
            self._flush(self._file.fileno())
        block = self._file.read(min(size, self._safe - self._place))
        self._place += len(block)
        return block

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def _flush(self, descriptor: int) -> None:
        with self._changed:
            while not (self._is_whole or self._is_over or self._size - self._safe >= _STRETCH):
                self._changed.wait()
            if self._is_over:
                raise ArchiveError("its writing has ended before")
            size = self._size
        if size > self._safe:
            os.fdatasync(descriptor)
            with contextlib.suppress(OSError):  # what is read back is to come from the disk
                os.posix_fadvise(descriptor, self._safe, size - self._safe, os.POSIX_FADV_DONTNEED)
            self._safe = size


def _read_back(written: _Written, path: Path) -> Contents:
    try:
        with naming(path):
            return read_contents(Unpacked(written), 0, None)
    finally:
        written.close()


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
