"""The audit: who changed what under a state directory, when, and why."""

from __future__ import annotations

import getpass
import os
import socket
import time
from pathlib import Path
from typing import Any

from tradingbot.io.lines import encode
from tradingbot.io.reserve import with_reserve
from tradingbot.io.segments import append_line

__all__ = ["AUDIT_NAME", "append_audit", "user"]

AUDIT_NAME = "audit.jsonl"


def append_audit(state_dir: Path, what: str, why: str, **facts: str | float | list[str] | None) -> None:
    """Append one checked line to a state directory's audit.jsonl; on return it is on the disk. Raises OSError."""
    path = state_dir / AUDIT_NAME
    record = {
        "v": 1, "ts_ms": int(time.time() * 1000), "who": user(), "host": socket.gethostname(), "pid": os.getpid(),
        "what": what, "why": _spelt(why), **{name: _spelt(fact) for name, fact in facts.items()},
    }  # fmt: skip
    line = encode(record)
    with_reserve(state_dir, lambda: append_line(path, line))


def user() -> str:
    """Return the name of the user who acts, or the number of one without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _spelt(value: Any) -> Any:
    """Return text that JSON can hold: a file's name, and a shell's word, may be no UTF-8."""
    if isinstance(value, list):
        return [_spelt(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
