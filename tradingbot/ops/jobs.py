"""Jobs that keep their plans under a state directory: one of a kind at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tradingbot.errors import Unrecoverable, UsageError
from tradingbot.io.reserve import with_reserve
from tradingbot.io.segments import make_folder
from tradingbot.io.state_files import LockHeldError, StateLock

__all__ = ["BusyError", "one_at_a_time", "unwritable"]


class BusyError(Unrecoverable):
    """Say that another job of the kind is at work."""

    exit_code = 3


@contextlib.contextmanager
def one_at_a_time(state_dir: Path, kind: str, name: str = "lock") -> Iterator[None]:
    """Let one job of a kind at a time be at work; raise BusyError where another one is, UsageError where none can be.

    The folder of the kind is made; those that bear locks of different names do not wait for each other.
    """
    folder = state_dir / f"{kind}s"
    with contextlib.ExitStack() as stack:
        try:
            with_reserve(state_dir, lambda: make_folder(folder))
            lock = StateLock(folder, int(time.time() * 1000), name)
            with_reserve(state_dir, lambda: stack.enter_context(lock))
        except LockHeldError:
            raise BusyError(f"another {kind} is at work on {state_dir}: let it end, then try again") from None
        except OSError as error:
            raise unwritable(folder, error) from None
        yield


def unwritable(folder: Path, error: OSError) -> UsageError:
    """Return what a job says that could not even be stored."""
    return UsageError(f"nothing was changed: {folder} cannot be written: {error.strerror or error}")
