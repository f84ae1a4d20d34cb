"""Requests: small files by which a command hands a bot something to do, now or at its next start."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict

import msgspec

from tradingbot.io.audit import user
from tradingbot.io.segments import make_folder, sync_folder
from tradingbot.io.state_files import write_atomic

__all__ = [
    "BadRequest", "DeleteTicks", "Request", "RequestFolder", "Requested", "ResetAnchors", "Restart", "put_request",
    "signature",
]  # fmt: skip

FOLDER = "requests"
MAX_BYTES = 1_000_000


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Say who asks for something, where, when by the wall clock (ms), and why."""

    who: str
    host: str
    time_ms: int
    why: str
    v: Literal[1] = 1


class ResetAnchors(Request, frozen=True, kw_only=True, tag="anchor_reset"):
    """Ask for session, window and anchor of symbols to begin anew."""

    symbols: tuple[str, ...]
    after: str = ""  # the session that is to leave it to a later one


class Restart(Request, frozen=True, kw_only=True, tag="restart"):
    """Ask a session to end, and its process to begin the next one."""

    sid: str


class DeleteTicks(Request, frozen=True, kw_only=True, tag="delete_ticks"):
    """Ask a session to delete sealed segments of ticks, by their file names, once its journal says so."""

    sid: str
    files: tuple[str, ...]


Requested = ResetAnchors | Restart | DeleteTicks  # the union of all kinds that there are


class Signature(TypedDict):
    """Hold the members of a Request that tell who asks."""

    who: str
    host: str
    time_ms: int
    why: str


class BadRequest(msgspec.Struct, frozen=True):
    """Hold a file that is no request, and why."""

    path: Path
    why: str


def signature(why: str) -> Signature:
    """Return who asks, where, when and why: what every request begins with, in text that JSON can hold."""
    spelt = why.encode("utf-8", "backslashreplace").decode()  # a word of a shell may be no UTF-8
    return {"who": user(), "host": socket.gethostname(), "time_ms": int(time.time() * 1000), "why": spelt}


def put_request(state_dir: Path, request: Request) -> Path:
    """Leave a request for the bot of a state directory; when this returns it is on the disk, whole."""
    folder = state_dir / FOLDER
    make_folder(folder)
    path = folder / f"{request.time_ms:013d}-{secrets.token_hex(4)}.json"
    write_atomic(path, msgspec.json.encode(request))
    return path


class RequestFolder:
    """Take the requests of a state directory, each once a session.

    For the bot alone, from one thread. A request goes when it has been handed on, so a kill in between leaves it for
    the next start; a restart goes before it is handed on, for it must not be found by the session that it begins.
    What is none is renamed `.bad`.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER
        self._done: set[str] = set()  # whose file could not be removed

    def take(self, handle: Callable[[Requested | BadRequest], None], sid: str = "") -> None:
        """Hand on what has come for session `sid`, in the order of the names; without any it costs one listing."""
        try:
            with os.scandir(self._folder) as entries:
                found = sorted(
                    (entry.name, entry.is_file(follow_symlinks=False))
                    for entry in entries
                    if entry.name.endswith(".json") and entry.name not in self._done
                )
        except OSError:
            return
        for name, is_file in found:
            path = self._folder / name
            request = _read(path) if is_file else BadRequest(path, "no file")
            if isinstance(request, ResetAnchors) and request.after and sid <= request.after:
                continue
            self._done.add(name)
            if isinstance(request, Restart):
                request = _taken(path, request)
            handle(request)
            with contextlib.suppress(OSError):
                if isinstance(request, BadRequest):
                    path.rename(path.with_suffix(".bad"))
                elif not isinstance(request, Restart):
                    path.unlink()
                self._done.discard(name)


def _taken(path: Path, request: Restart) -> Restart | BadRequest:
    try:
        path.unlink()
        sync_folder(path.parent)
    except OSError as error:
        return BadRequest(path, f"it cannot be removed ({error.strerror}), and would restart the bot for ever")
    return request


def _read(path: Path) -> Requested | BadRequest:
    try:
        with path.open("rb") as file:
            request: Requested = msgspec.json.decode(file.read(MAX_BYTES), type=Requested)
            return request
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        return BadRequest(path, str(error))
