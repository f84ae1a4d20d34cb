"""Room on the disk: how much is left, and a file that holds some of it for what must be written on a full one.

With the standard library alone, for the kill switch is such a thing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["RESERVE_BYTES", "disk_low", "give_up_reserve", "keep_reserve", "with_reserve"]

RESERVE_BYTES = 16 << 20  # enough for a journal, a rollback and a kill switch on a full disk
Value = TypeVar("Value")


def disk_low(path: Path, min_free_mb: int) -> bool:
    """Say whether the disk that `path` lies on, or would, has less than `min_free_mb` MB for us; raise OSError."""
    while not path.exists() and path != path.parent:
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize < min_free_mb * 1_000_000


def keep_reserve(state_dir: Path) -> bool:
    """Make the file that holds 16 MB of the disk until they are needed; return False where there is no room for it."""
    path = state_dir / "reserve"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        give_up_reserve(state_dir)
        return False
    return True


def give_up_reserve(state_dir: Path) -> bool:
    """Give the reserve's room back to the disk; return whether there was one. Raises no OSError."""
    try:
        (state_dir / "reserve").unlink()
    except OSError:
        return False
    return True


def with_reserve(state_dir: Path, write: Callable[[], Value]) -> Value:
    """Return what a write returns; on a full disk the reserve is given up for it. Raises OSError."""
    try:
        return write()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not give_up_reserve(state_dir):
            raise
        return write()
