"""The audit: who changed what on a state directory, when and why, one checked line each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tradingbot.io.lines import encode

__all__ = ["AUDIT_NAME", "append_audit"]

AUDIT_NAME = "audit.jsonl"


def append_audit(state_dir: Path, time_ms: int, who: str, host: str, what: str, why: str, **facts: Any) -> None:
    """Append one line; when this returns it is on the disk. Raises OSError."""
    line = encode({"v": 1, "time_ms": time_ms, "who": who, "host": host, "what": what, "why": why, **facts})
    descriptor = os.open(state_dir / AUDIT_NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "rb+", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # behind what a crash has torn
        file.write(line)
        os.fsync(descriptor)
