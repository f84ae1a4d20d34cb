"""See, stop, kill and arm a running bot, with the standard library alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tradingbot.errors import Unrecoverable

__all__ = ["NoBotError", "arm", "kill", "read_status", "stop"]


class NoBotError(Unrecoverable):
    """Say that no bot is running where one is needed."""

    exit_code = 3


def _owner(state_dir: Path) -> dict[str, Any]:
    from tradingbot.io.state_files import lock_owner

    owner = lock_owner(state_dir)
    if owner is None:
        raise NoBotError(f"no bot is running on {state_dir}")
    return owner


def read_status(state_dir: Path) -> dict[str, Any]:
    """Return the status of the bot that runs on `state_dir`; raise NoBotError if none does."""
    _owner(state_dir)
    try:
        status = json.loads((state_dir / "status.json").read_bytes())
    except (OSError, ValueError):
        raise NoBotError(f"the bot on {state_dir} has said nothing yet: try again in a second") from None
    if not isinstance(status, dict):
        raise NoBotError(f"{state_dir / 'status.json'} is no status")
    return status


def stop(state_dir: Path, timeout_s: float) -> int:
    """Ask the bot to stop and wait until it has; return its pid. Raises NoBotError if none runs, or it stays."""
    from tradingbot.io.state_files import lock_owner

    pid = int(_owner(state_dir).get("pid", 0))
    if pid > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end_s = time.monotonic() + timeout_s
    while lock_owner(state_dir) is not None:
        if time.monotonic() > end_s:
            raise NoBotError(f"process {pid} has not stopped within {timeout_s:g} s")
        time.sleep(0.05)
    return pid


def kill(state_dir: Path, why: str) -> None:
    """Switch the kill switch on; a bot that runs, or starts later, opens no position while it is."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state_dir / "KILL", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(why + "\n")
        file.flush()
        os.fsync(file.fileno())


def arm(state_dir: Path) -> bool:
    """Switch the kill switch off; return whether it was on."""
    try:
        (state_dir / "KILL").unlink()
    except FileNotFoundError:
        return False
    return True
