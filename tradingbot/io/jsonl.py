"""Rotating JSONL: a writer appends whole lines to a series of segments; what a crash tears is cut off and set aside."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tradingbot.io.jsonl_read import Found, Place, ReadReport, read_jsonl, read_jsonl_backwards, read_jsonl_tail
from tradingbot.io.lines import Damage, Damaged, decode, encode, plain_number, read_number
from tradingbot.io.segments import DAY_MS, day_of, latest, make_folder, repair_tail, segment_name, sync_folder

__all__ = [
    "DAY_MS", "Damage", "Damaged", "Found", "Place", "ReadReport", "RotatingJSONLWriter", "decode", "encode",
    "plain_number", "read_jsonl", "read_jsonl_backwards", "read_jsonl_tail", "read_number", "repair_tail",
]  # fmt: skip

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class RotatingJSONLWriter:
    """Append whole lines to one series of segments in a folder.

    *Who calls it*: one thread at a time, and one writer a series; every call may wait for the disk. Nothing is opened,
    made or listed before the first record.

    *Acknowledged* is what a `write` that returned was given: a kill loses none of it. *Durable*, also after a power
    loss, it is when a later `sync` has returned. A `write` that raises OSError has written nothing that stays: what
    part of its lines reached the file is cut off, at once or, if that fails too, before the next write; so the caller
    may write the same lines again.

    *A crash* leaves at most the lines of the one `write` under way, in part: whole lines of it are read as any, the
    torn one is set aside as `.torn` when the next writer opens the segment, which is the newest unless that is sealed.

    *Rotation*: before lines that would take the segment beyond `max_bytes` (lines given together stay together, so one
    call of more than that makes one larger segment), and at 00:00 UTC of the records' own `ts_ms`. A late record goes
    into the open segment. A clock that jumps ahead rotates once; when it has come back, records go on in that segment,
    and in the ones after it, whose names keep the far day while their numbers rise; midnights count again from the next
    segment on. So names always sort as written, and no name is given twice.

    `on_full` is told the path of each segment that has become full or past, and must not raise. Files are 0600 and
    folders 0700, whatever the umask. `names` is what stands in the folder under this series, for a caller that has
    listed it for many; None: list it when the first record comes.
    """

    def __init__(
        self,
        folder: Path,
        series: str,
        max_bytes: int = 50_000_000,
        on_full: Callable[[Path], None] | None = None,
        names: Iterable[str] | None = None,
    ) -> None:
        self._folder, self._series, self._max_bytes, self._on_full = folder, series, max_bytes, on_full
        self._names = names
        self._resumed = False
        self._path: Path | None = None  # of the open segment
        self._name_day, self._number = 0, -1  # of the newest name
        self._day = 0  # whose midnight is the next rotation
        self._size = 0  # what of the open segment is acknowledged
        self._descriptor = -1
        self._doubtful = False  # a flush of the open segment failed: what the disk holds is to be looked at
        self._unsynced = self._unsynced_folder = False
        self._past: list[int] = []  # descriptors of segments that rotation left behind unsynced

    @property
    def path(self) -> Path | None:
        """Return the open segment, None before the first record and after `finish`."""
        return self._path

    def write(self, ts_ms: int, lines: bytes) -> None:
        """Append whole lines whose first record is of `ts_ms`; raise OSError, and then none of them is written.

        Lines of two days are two calls, or the later ones stand in the segment of the day before.
        """
        if not lines.endswith(b"\n"):
            raise ValueError("lines end with a line end")
        day = day_of(ts_ms)
        if self._descriptor < 0:
            self._open(day)
        if day > self._day or (self._size and self._size + len(lines) > self._max_bytes):
            self._rotate(day)
        try:
            _write(self._descriptor, lines)
            self._size += len(lines)
        except BaseException:  # also an interrupt: what is half written is cut off, then it goes on up
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            self.release()
            raise
        self._unsynced = True

    def sync(self) -> None:
        """Make all that is acknowledged durable; raise OSError where some of it may not be.

        After a failed flush pages count as clean although they are not on the disk, so a second one of the same
        descriptor would claim what is not true. So it is closed, the next write looks at the file's end first, and the
        next `sync` speaks of what was written since: what lies between the last good one and this is in doubt for good.
        """
        failed: OSError | None = None
        while self._past:
            descriptor = self._past.pop(0)  # the oldest first: power lost meanwhile leaves no gap before what stays
            failed = _flush(descriptor) or failed
            os.close(descriptor)
        failed = self._sync_open() or failed
        if self._unsynced_folder:
            sync_folder(self._folder)
            self._unsynced_folder = False
        if failed is not None:
            raise failed

    def _sync_open(self) -> OSError | None:
        if not self._unsynced or self._path is None:
            return None
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, _APPEND)
            except OSError as error:  # nothing is in doubt: the next sync tries again, unless the file is gone
                self._unsynced = not isinstance(error, FileNotFoundError)
                return error
        self._unsynced = False
        failed = _flush(self._descriptor)
        if failed is not None:
            self._doubtful = True
            self.release()
        return failed

    def release(self) -> None:
        """Give the descriptor back; the next write opens the segment again without a look at the folder.

        What is acknowledged and not yet durable stays for `sync`, which opens the file for it.
        """
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # what it could report, the next flush of the file reports
                os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Make all durable and give all descriptors back; raise as `sync` does. The segment stays open for the next."""
        try:
            self.sync()
        finally:
            self.release()

    def finish(self) -> None:
        """Make all durable, and the open segment a past one: `on_full` is told, the next write begins another.

        Nothing on the disk says so until it is sealed: another writer, made before, would go on in it.
        """
        self.close()
        path, self._path = self._path, None
        if path is not None and self._on_full is not None:
            self._on_full(path)

    def _open(self, day: int) -> None:
        """Open the segment to go on in, and cut off what of it was never acknowledged."""
        if not self._resumed:
            self._resume()
        if self._path is None:
            self._create(day)
            return
        try:
            self._descriptor = os.open(self._path, _APPEND)
        except FileNotFoundError:  # somebody has removed it
            self._create(day)
            return
        try:
            size = os.fstat(self._descriptor).st_size
            if size > self._size:
                os.ftruncate(self._descriptor, self._size)
            if self._doubtful or size < self._size:  # somebody has cut it, or a lost flush has
                repair_tail(self._path)
                self._size = os.fstat(self._descriptor).st_size
            self._doubtful = False
        except BaseException:  # also an interrupt: what is half written is cut off, then it goes on up
            self.release()
            raise

    def _resume(self) -> None:
        """Find the segment in which the last writer of the series stopped, if it may be gone on in."""
        newest = latest(self._folder, self._series, self._names)
        if newest is not None:
            self._name_day, self._number = newest.day, newest.number
            path = self._folder / segment_name(self._series, newest.day, newest.number)
            if newest.unsealed and path.is_file():
                repair_tail(path)
                self._path, self._size, self._day = path, path.stat().st_size, newest.day
        self._resumed, self._names = True, None

    def _create(self, day: int) -> None:
        """Open a segment under the next name that is free."""
        make_folder(self._folder)
        name_day = max(self._name_day, day)
        number = self._number + 1 if name_day == self._name_day else 0
        path = self._folder / segment_name(self._series, name_day, number)
        while os.path.lexists(path):  # somebody has made it since the folder was listed
            number += 1
            path = self._folder / segment_name(self._series, name_day, number)
        self._descriptor = os.open(path, _APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._path, self._name_day, self._number, self._day = path, name_day, number, day
        self._size, self._doubtful, self._unsynced, self._unsynced_folder = 0, False, False, True
        with contextlib.suppress(OSError):  # a umask may have taken bits away; without them the file is no less private
            os.fchmod(self._descriptor, 0o600)

    def _rotate(self, day: int) -> None:
        """Leave the open segment for a new one; where none can be made, all stays as it is."""
        path, descriptor, unsynced = self._path, self._descriptor, self._unsynced
        self._create(day)
        if unsynced:
            self._past.append(descriptor)
        else:
            os.close(descriptor)
        if path is not None and self._on_full is not None:
            self._on_full(path)


def _write(descriptor: int, lines: bytes) -> None:
    done = os.write(descriptor, lines)
    while done < len(lines):
        more = os.write(descriptor, memoryview(lines)[done:])
        if more == 0:  # no error, and no end
            raise OSError(errno.EIO, "nothing was written")
        done += more


def _flush(descriptor: int) -> OSError | None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        return error
    return None
