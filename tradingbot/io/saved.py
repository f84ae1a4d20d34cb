"""What a bot keeps of itself beside the streams: checkpoint.json and anchors/anchors.json, with what went before."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tradingbot.io.jsonl_read import read_jsonl_tail
from tradingbot.io.lines import Damage, Damaged, close_line, decode
from tradingbot.io.state_files import write_atomic
from tradingbot.io.streams import FOLDERS, Stream

__all__ = [
    "ANCHORS",
    "CHECKPOINT",
    "Kept",
    "anchors_line",
    "checkpoint_line",
    "load_anchors",
    "load_checkpoint",
    "peek_anchors",
    "save_anchors",
    "save_checkpoint",
]

VERSION = 1
CHECKPOINT = "checkpoint.json"
ANCHORS = "anchors/anchors.json"
LAST_ANCHORS = "anchors/anchors.last.json"
MAX_BYTES = 64_000_000  # of a checkpoint of 2,000 symbols with their windows, many times over

Value = TypeVar("Value")
Kept = dict[str, dict[str, Any]]
"""Anchors by symbol: price (quote), set_ms, set_cause, price_ms, clamp, clamp_ms."""


def checkpoint_line(sid: str, seq: int, time_ms: int, engine: bytes) -> bytes:
    """Return the text of checkpoint.json; `engine` is the JSON text of the engine's checkpoint after input `seq`."""
    head = orjson.dumps({"v": VERSION, "sid": sid, "ts_ms": time_ms, "seq": seq})[:-1]
    return close_line(b'%b,"checkpoint":%b}' % (head, engine))


def save_checkpoint(state_dir: Path, text: bytes, durable: bool) -> None:
    """Write checkpoint.json whole; where that fails the old one stays and OSError is raised."""
    _write(state_dir / CHECKPOINT, text, durable)


def load_checkpoint(state_dir: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the record of checkpoint.json and what was wrong with it, in words; a bad file is kept aside.

    Raises OSError where it is there and cannot be read: who took it for absent would forget what was bought.
    """
    troubles: list[str] = []
    return _load(state_dir / CHECKPOINT, _checkpoint_of, troubles, must=True), troubles


def anchors_line(sid: str, time_ms: int, anchors: bytes) -> bytes:
    """Return the text of anchors.json; `anchors` is the JSON text of what is kept of each."""
    head = orjson.dumps({"v": VERSION, "sid": sid, "time_ms": time_ms})[:-1]
    return close_line(b'%b,"anchors":%b}' % (head, anchors))


def save_anchors(state_dir: Path, text: bytes, durable: bool) -> None:
    """Write anchors.json whole, and keep the one before; where that fails the old one stays and OSError is raised."""
    path, last = state_dir / ANCHORS, state_dir / LAST_ANCHORS
    path.parent.mkdir(mode=0o700, exist_ok=True)
    partial = last.with_name(last.name + ".tmp")
    partial.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.link(path, partial)
        partial.replace(last)
    _write(path, text, durable)


def load_anchors(state_dir: Path, since_ms: int) -> tuple[Kept, str, list[str]]:
    """Return the persisted anchors, where they were found, and what was wrong, in words; bad files are kept aside.

    A file without any `crc` was written by a person, and is believed where it parses. Where anchors.json is bad the
    one before it counts, else the newest change of each symbol since `since_ms` in the stream of anchors. Where there
    is no anchors.json at all there are none.
    """
    troubles: list[str] = []
    for name in (ANCHORS, LAST_ANCHORS):
        found = _load(state_dir / name, _anchors_of, troubles, by_hand=True)
        if found is not None:
            return found, name, troubles
    if not troubles:
        return {}, "nothing", troubles
    return _anchors_from_stream(state_dir, since_ms), "the stream of anchors", troubles


def peek_anchors(state_dir: Path) -> tuple[Kept, int]:
    """Return the persisted anchors and the time (ms) of their file, touching nothing; none where it cannot be read."""
    try:
        record = _decode(_read_whole(state_dir / ANCHORS), by_hand=True)
        kept = _anchors_of(record)
    except (OSError, Damaged):
        return {}, 0
    time_ms = record.get("time_ms")
    newest_ms = max((facts["set_ms"] for facts in kept.values()), default=0)
    return kept, time_ms if isinstance(time_ms, int) else newest_ms


def _anchors_from_stream(state_dir: Path, since_ms: int) -> Kept:
    folder = state_dir / FOLDERS[Stream.ANCHORS]
    anchors: Kept = {}
    if folder.is_dir():
        for record in read_jsonl_tail(folder, Stream.ANCHORS.value, 0, lambda record: _is_before(record, since_ms)):
            with contextlib.suppress(Damaged, KeyError):
                symbol, facts = record["symbol"], record["anchor"]
                anchors |= _anchors_of({"v": VERSION, "anchors": {symbol: facts}})
    return anchors


def _is_before(record: Mapping[str, Any], since_ms: int) -> bool:
    ts_ms = record.get("ts_ms")
    return isinstance(ts_ms, int) and ts_ms < since_ms


def _load(
    path: Path,
    read: Callable[[Mapping[str, Any]], Value],
    troubles: list[str],
    by_hand: bool = False,
    must: bool = False,
) -> Value | None:
    """Return what a file holds, None where there is none or it is bad: then it is kept aside, and that is told."""
    try:
        return read(_decode(_read_whole(path), by_hand))
    except FileNotFoundError:
        return None
    except Damaged as error:
        why = str(error)
    except OSError as error:
        if must:
            raise
        troubles.append(f"{path} cannot be read: {error.strerror}")
        return None
    try:
        troubles.append(f"{path} is damaged ({why}): kept aside as {_put_aside(path).name}")
    except OSError as error:
        troubles.append(f"{path} is damaged ({why}), and cannot be put aside: {error.strerror}")
    return None


def _decode(text: bytes, by_hand: bool) -> dict[str, Any]:
    try:
        return decode(text, MAX_BYTES)
    except Damaged as error:
        if by_hand and error.damage is Damage.NO_CRC:
            record: dict[str, Any] = orjson.loads(text)
            return record
        raise


def _read_whole(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise Damaged(Damage.UNREADABLE) from error
        raise
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):  # looked at before it is opened as a file: a folder cannot be
            raise Damaged(Damage.UNREADABLE)
        if facts.st_size > MAX_BYTES:
            raise Damaged(Damage.TOO_LONG)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


def _put_aside(path: Path) -> Path:
    """Give a file a name of its own beside it, that nothing has yet."""
    for number in range(1, 10_000):
        aside = path.with_name(f"{path.name}.bad-{number}")
        if not aside.exists() and not aside.is_symlink():
            path.rename(aside)
            return aside
    raise OSError(0, "10,000 bad files are kept already")


def _checkpoint_of(record: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"v": int, "sid": str, "seq": int, "ts_ms": int, "checkpoint": dict}
    if not all(type(record.get(name)) is kind for name, kind in kinds.items()) or record["v"] != VERSION:
        raise Damaged(Damage.SCHEMA)
    return dict(record)


def _anchors_of(record: Mapping[str, Any]) -> Kept:
    anchors = record.get("anchors")
    if record.get("v") != VERSION or not isinstance(anchors, dict):
        raise Damaged(Damage.SCHEMA)
    kept: Kept = {}
    for symbol, facts in anchors.items():
        if not isinstance(facts, dict) or not {"price", "set_ms"} <= facts.keys():
            raise Damaged(Damage.SCHEMA)
        price, set_ms, price_ms = facts["price"], facts["set_ms"], facts.get("price_ms", facts["set_ms"])
        if type(price) not in (int, float) or type(set_ms) is not int or type(price_ms) is not int:
            raise Damaged(Damage.SCHEMA)
        word, clamp, clamp_ms = facts.get("set_cause", "loaded"), facts.get("clamp"), facts.get("clamp_ms")
        kept[symbol] = {
            "price": float(price), "set_ms": set_ms, "set_cause": str(word), "price_ms": price_ms,
            "clamp": clamp if isinstance(clamp, str) else None,
            "clamp_ms": clamp_ms if isinstance(clamp_ms, int) else None,
        }  # fmt: skip
    return kept


def _write(path: Path, text: bytes, durable: bool) -> None:
    try:
        write_atomic(path, text, durable)
    except OSError:
        with contextlib.suppress(OSError):
            path.with_name(path.name + ".tmp").unlink(missing_ok=True)
        raise
