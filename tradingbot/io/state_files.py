"""Files of the state directory: written whole or not at all, one bot a directory, stamped with what it belongs to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tradingbot.errors import StateError, Unrecoverable

__all__ = ["LatestFile", "LockHeldError", "StateLock", "check_stamp", "lock_owner", "write_atomic"]

SCHEMA = 1


class LockHeldError(Unrecoverable):
    """Say whose state directory it is."""

    exit_code = 3


def write_atomic(path: Path, text: bytes, durable: bool = True) -> None:
    """Write a file whole: beside it as .tmp, then renamed, mode 0600. After a crash the old or the new one is there.

    With `durable` also after a power loss: file and folder are flushed to the disk.
    """
    partial = path.with_name(path.name + ".tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class LatestFile:
    """Keep a file at the latest text that it is given, and keep whoever gives it from waiting for the disk.

    A thread of its own writes each text whole, flushed before it takes the old one's place: a kill or a power loss
    leaves one or the other. Of what comes while the disk is busy only the last is written. `wrote` is told, on that
    thread, why a text could not be written, None where one was. With `threaded` false the giver's thread writes, and
    flushes nothing, for sessions in virtual time.
    """

    def __init__(self, path: Path, wrote: Callable[[OSError | None], None], threaded: bool = True) -> None:
        self._path, self._wrote, self._threaded = path, wrote, threaded
        self._next: bytes | None = None
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, text: bytes) -> None:
        """Have a text written in place of the one before."""
        if not self._threaded:
            self._write(text, durable=False)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._path.name, daemon=True)
            self._thread.start()
        with self._changed:
            self._next = text
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Write what was given last, and end; after `timeout_s`, in seconds, leave the thread to the disk."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._is_closing)
                text, self._next = self._next, None
            if text is None:
                return
            self._write(text, durable=True)

    def _write(self, text: bytes, durable: bool) -> None:
        try:
            write_atomic(self._path, text, durable)
        except OSError as error:
            self._wrote(error)
        else:
            self._wrote(None)


class StateLock:
    """Hold the lock of a state directory while in use; raise LockHeldError, at once, if another one holds it.

    `name` is the lock's: the bot's own, or that of the embedded exchange, whose account lies there too.
    """

    def __init__(self, state_dir: Path, started_ms: int, name: str = "lock") -> None:
        self._path, self._started_ms = state_dir / name, started_ms
        self._descriptor = -1

    def __enter__(self) -> StateLock:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            owner = lock_owner(self._path.parent, self._path.name) or {}
            who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
            raise LockHeldError(f"{self._path.parent} is in use by {who}: stop it, or name another --state") from None
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "started_ms": self._started_ms}
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(owner).encode(), 0)
        except OSError:  # a full disk: whoever tries again must find it free
            os.close(self._descriptor)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def lock_owner(state_dir: Path, name: str = "lock") -> dict[str, Any] | None:
    """Return who holds the lock of a state directory, None where nobody does."""
    try:
        descriptor = os.open(state_dir / name, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(ValueError):
            owner = json.loads(os.read(descriptor, 4096) or b"{}")
            return owner if isinstance(owner, dict) else {}
        return {}
    else:
        return None
    finally:
        os.close(descriptor)


def check_stamp(state_dir: Path, exchange: str, trading_mode: str, stamp: bool) -> None:
    """Raise StateError where a state directory belongs to another exchange or schema; `stamp` one that has no stamp."""
    path = state_dir / "stamp.json"
    if not path.exists():
        if stamp:
            facts = {"v": SCHEMA, "exchange": exchange, "trading_mode": trading_mode}
            write_atomic(path, json.dumps(facts).encode())
        return
    try:
        facts = json.loads(path.read_bytes())
        found, schema = facts["exchange"], facts["v"]
    except (ValueError, KeyError, TypeError):
        raise StateError(f"{path} is damaged: mend it, or begin with another --state") from None
    if schema != SCHEMA:
        raise StateError(f"{state_dir} is of schema {schema}, this version writes {SCHEMA}")
    if found != exchange:
        raise StateError(f"{state_dir} belongs to {found}, not to {exchange}: name another --state")
