"""Deleting ticks so that a proof knows: the journal says first which inputs go, then the segments go."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tradingbot.io.jsonl import RotatingJSONLWriter, encode
from tradingbot.io.jsonl_read import read_jsonl_tail
from tradingbot.io.overrides import Effective
from tradingbot.io.requests import DeleteTicks, put_request, signature
from tradingbot.io.reserve import with_reserve
from tradingbot.io.sealing import Deletion, apply_retention
from tradingbot.io.segments import sync_folder
from tradingbot.io.state_files import LockHeldError, StateLock
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream, event_record
from tradingbot.ops.cleanup.archives import Progress
from tradingbot.ops.cleanup.plan import Item
from tradingbot.ops.rollback.restart import find_bot

__all__ = ["delete_ticks"]

HEED_S = 30.0  # in which a running bot has deleted what it was asked to
_AT_ONCE = 1_000  # files in one request
_BEHIND = 1_000  # records of the journal among which the last input's number stands

Done = tuple[list[Item], dict[str, str]]


def delete_ticks(effective: Effective, items: Sequence[Item], why: str, progress: Progress | None = None) -> Done:
    """Delete sealed segments of ticks; return those that are gone, and of the others (by name) why they are not.

    A running bot is asked, for the journal is its own; where none runs this process tells the journal, holding the
    bot's lock. Raises OSError where the journal cannot be written, and then nothing is deleted.
    """
    if not items:
        return [], {}
    lock = StateLock(effective.state_dir, int(time.time() * 1000))
    for _ in range(3):
        try:
            with_reserve(effective.state_dir, lock.__enter__)
        except LockHeldError:
            done = _ask(effective, items, why, progress)
            if done is not None:
                return done
            continue  # it has ended meanwhile
        try:
            return _delete(effective, items)
        finally:
            lock.__exit__()
    return [], {_name(item): "a bot stops and starts there: try again" for item in items}


def _name(item: Item) -> str:
    return item.files[0].name


def _path(effective: Effective, item: Item) -> Path:
    return effective.state_dir / _name(item).partition("/")[2]


def _delete(effective: Effective, items: Sequence[Item]) -> Done:
    """Tell the journal, and delete, while no bot runs."""
    with_reserve(effective.state_dir, lambda: _tell(effective, items))
    gone, left = [], {}
    plan = [Deletion(_path(effective, item), item.size, "") for item in items]
    for item, (_, error) in zip(items, apply_retention(plan), strict=True):
        if error is None:
            gone.append(item)
        else:
            left[_name(item)] = error.strerror or str(error)
    sync_folder(effective.state_dir / FOLDERS[Stream.TICKS])
    return gone, left


def _tell(effective: Effective, items: Sequence[Item]) -> None:
    """Write which inputs go behind the last record of the journal; without a journal there is nothing to tell."""
    folder = effective.state_dir / FOLDERS[JOURNAL]
    last = read_jsonl_tail(folder, JOURNAL.value, _BEHIND)
    if not last:
        return
    sid, ts_ms = str(last[-1].get("sid", "")), int(last[-1].get("ts_ms", 0))
    numbers = [record.get("seq", record.get("cause")) for record in last if record.get("sid") == sid]
    seq = max((number for number in numbers if isinstance(number, int)), default=0)
    lines = [
        encode(event_record(sid, ts_ms, "deleted", seq=seq, file=f"ticks/{_path(effective, item).name}",
                            sessions=item.sessions))
        for item in items
    ]  # fmt: skip
    writer = RotatingJSONLWriter(folder, JOURNAL.value, int(effective.settings.MAX_FILE_MB * 1_000_000))
    writer.write(ts_ms, b"".join(lines))
    writer.close()


def _ask(effective: Effective, items: Sequence[Item], why: str, progress: Progress | None) -> Done | None:
    """Have the running bot delete segments; return None where it has ended and some are still there."""
    bot = find_bot(effective.state_dir)
    if not bot.sid:
        return (
            None
            if not bot.is_running
            else ([], {_name(item): "the bot has said nothing yet: try again" for item in items})
        )
    paths = {_path(effective, item): item for item in items}
    for first in range(0, len(items), _AT_ONCE):
        part = list(paths)[first : first + _AT_ONCE]
        files = tuple(path.name for path in part)
        request = put_request(effective.state_dir, DeleteTicks(**signature(why), sid=bot.sid, files=files))
        end_s = time.monotonic() + HEED_S
        while any(os.path.lexists(path) for path in part) and time.monotonic() < end_s:
            if find_bot(effective.state_dir).sid != bot.sid:
                break
            time.sleep(0.05)
        with suppress(OSError):
            request.unlink(missing_ok=True)  # whatever is not done by now is not wanted any more
        if progress is not None:
            progress("deleting ticks", first + len(part), len(items))
    left = [item for path, item in paths.items() if os.path.lexists(path)]
    if left and find_bot(effective.state_dir).sid != bot.sid:
        return None
    why_left = f"the running bot has not deleted it within {HEED_S:g} s: its log says why"
    return [item for item in items if item not in left], {_name(item): why_left for item in left}
