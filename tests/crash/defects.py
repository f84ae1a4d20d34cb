"""Defects that are put into the product on purpose: a row that does not find the one meant for it is worth nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import zstandard

from tradingbot.io import jsonl, jsonl_read, saved, sealing, segments, state_files, stream_writer
from tradingbot.services import housekeeping, recorder, warm_start


def _flush_unless(is_left_out: Callable[[int], bool]) -> Any:
    fsync = os.fsync

    def flush(descriptor: int) -> None:
        if not is_left_out(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    return patch.object(os, "fsync", flush)


def _written_in_place(path: Path, text: bytes, durable: bool = True) -> None:
    with path.open("wb") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _late_write() -> Any:
    held: dict[int, bytes] = {}

    def write(descriptor: int, lines: bytes) -> None:
        text = held.pop(descriptor, b"") + lines
        if text.count(b"\n") < 4:
            held[descriptor] = text
        else:
            os.write(descriptor, text)

    return patch.object(jsonl, "_write", write)


def _retried_flush(descriptor: int) -> OSError | None:
    for _ in range(2):
        try:
            os.fsync(descriptor)
        except OSError:
            continue
        return None
    return OSError(5, "failed twice")


def _half_write(descriptor: int, lines: bytes) -> None:
    os.write(descriptor, lines)


def _hasty_seal(path: Path) -> Path:
    if not path.exists():
        return path
    text = path.read_bytes()
    path.unlink()
    sealed = path.with_name(path.name + ".zst")
    sealed.write_bytes(zstandard.ZstdCompressor().compress(text))
    return sealed


def _unchecked(lines: Any) -> list[Any]:
    found: list[Any] = []
    for line in lines:
        try:
            record = orjson.loads(line)
            record.pop("crc", None)
            found.append(record)
        except (ValueError, AttributeError, TypeError):
            found.append(jsonl_read.Damage.NOT_JSON)
    return found


def _overwriting_create(writer: Any, day: int) -> None:
    segments.make_folder(writer._folder)
    writer._path = writer._folder / segments.segment_name(writer._series, day, 0)
    writer._descriptor = os.open(writer._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    writer._name_day, writer._number, writer._day, writer._size = day, 0, day, 0


def _without_last(state_dir: Path, text: bytes, durable: bool) -> None:
    path = state_dir / saved.ANCHORS
    path.parent.mkdir(exist_ok=True)
    state_files.write_atomic(path, text, durable)


def _removed(path: Path) -> Path:
    path.unlink()
    return path


def _writing_put(writer: Any, *item: Any) -> None:
    writer._waiting.append(item)
    writer._write_waiting()


@contextmanager
def _open_to_all() -> Iterator[None]:
    real = os.open
    with ExitStack() as stack:
        stack.enter_context(patch.object(os, "umask", lambda _: 0))
        stack.enter_context(patch.object(os, "fchmod", lambda *_: None))
        stack.enter_context(
            patch.object(os, "open", lambda path, flags, mode=0o777, **more: real(path, flags, mode | 0o666, **more))
        )
        yield


def _everywhere(name: str, substitute: Any, *modules: Any) -> Callable[[], list[Any]]:
    return lambda: [patch.object(module, name, substitute) for module in modules]


DEFECTS: dict[str, Callable[[], list[Any]]] = {
    "file not flushed": lambda: [_flush_unless(stat.S_ISREG)],
    "folder not flushed": lambda: [_flush_unless(stat.S_ISDIR)],
    "append on a torn tail": _everywhere("repair_tail", lambda _: 0, jsonl, sealing),
    "flush retried": _everywhere("_flush", _retried_flush, jsonl),
    "no lock": lambda: [patch.object(fcntl, "flock", lambda *_: None)],
    "guard skipped": lambda: [patch("tradingbot.engine.gate.check", lambda *_: None)],
    "written in place": _everywhere("write_atomic", _written_in_place, saved, sealing, state_files),
    "acknowledged before it is written": lambda: [_late_write()],
    "rest of a short write forgotten": _everywhere("_write", _half_write, jsonl),
    "plain file removed first": _everywhere("seal", _hasty_seal, sealing, housekeeping),
    "all that is sealed deleted": lambda: [
        patch.object(sealing, "plan_retention", lambda stores, _=None: _all_sealed(stores))
    ],
    "nothing deleted": _everywhere("plan_retention", lambda *_: [], sealing, housekeeping),
    "trigger let through at the restart": lambda: [patch.object(warm_start, "CAUGHT_UP", None)],
    "checkpoint before its ticks": lambda: [patch.object(stream_writer.StreamWriter, "run", lambda writer, job: job())],
    "lost records not told": lambda: [
        patch.object(stream_writer.StreamWriter, "_heal", lambda writer, stream, series, _: None)
    ],
    "checksum not compared": _everywhere("decode_lines", _unchecked, jsonl_read),
    "segment overwritten": lambda: [patch.object(jsonl.RotatingJSONLWriter, "_create", _overwriting_create)],
    "one before not kept": _everywhere("save_anchors", _without_last, saved),
    "bad file removed": _everywhere("_put_aside", _removed, saved),
    "engine's thread writes": lambda: [patch.object(stream_writer.StreamWriter, "put", _writing_put)],
    "open to all": lambda: [_open_to_all()],
    "names not encoded": _everywhere(
        "series_of",
        lambda symbol: symbol.replace("/", "_").replace("\0", "").encode(errors="replace").decode()[:200],
        segments,
        recorder,
    ),
    "next session sorts before": lambda: [
        patch(f"tradingbot.services.{module}.next_sid", lambda _, now_ms: _plain_sid(now_ms))
        for module in ("memory", "session")
    ],
}
"""Name and make each defect, as patches."""


def _all_sealed(stores: Any) -> list[sealing.Deletion]:
    return [
        sealing.Deletion(segment.path, 1, "a defect")
        for store in stores
        for segment in segments.list_segments(store.folder)
        if segment.sealed
    ]


def _plain_sid(now_ms: int) -> str:
    return f"{now_ms:020d}"


@contextmanager
def injected(name: str) -> Iterator[None]:
    """Have a defect in the product while in use; "" is none."""
    with contextlib.ExitStack() as stack:
        for patcher in DEFECTS[name]() if name else ():
            stack.enter_context(patcher)
        yield
