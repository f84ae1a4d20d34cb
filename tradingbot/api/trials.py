"""A bot to try things on: it runs on the embedded exchange, in virtual time, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tradingbot.api.shown import Place
from tradingbot.errors import UsageError

__all__ = ["trial"]


def trial(home: Place = None, duration_s: float = 600.0, **settings: object) -> str:
    """Run a bot on the embedded exchange for `duration_s` seconds of virtual time; return its home.

    What it records is as a live bot records it: status, explain, compare and rollback work on it. Ten minutes take a
    second or two. Without `home` it is a new temporary folder. Keywords are settings; those of this process's
    environment do not count. Raises UsageError where a bot has run there before, or the session fails.

    >>> import tradingbot as tb
    >>> home = tb.trial(duration_s=30, EMBEDDED_SYMBOLS=1)
    >>> tb.status(home, last=True)["data"]["ticks"]
    60
    """
    from tradingbot.config import check_value, registry

    words = [
        word for name, value in settings.items() for word in ("--set", f"{name}={_spelt(check_value(name, value))}")
    ]
    path = Path(home).expanduser().absolute() if home else Path(tempfile.mkdtemp(prefix="tradingbot-"))
    if any(path.glob("*/stamp.json")):
        raise UsageError(f"a bot has run under {path}: a trial needs a home of its own")
    command = [sys.executable, "-m", "tradingbot", "--home", str(path), "--virtual", "--no-dashboard"]
    command += ["--duration", f"{duration_s:g}", *words]
    environ = {name: value for name, value in os.environ.items() if name not in registry()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)  # noqa: S603  (our own)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UsageError(f"the trial under {path} ended with {done.returncode}: {lines[-1]}")
    return str(path)


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
