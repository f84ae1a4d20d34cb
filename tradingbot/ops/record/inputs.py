"""What is recorded under a state directory: session after session, journal and ticks in the order of their numbers."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tradingbot.errors import UsageError
from tradingbot.io.checkpoints import PART, joined
from tradingbot.io.jsonl import ReadReport, read_jsonl, read_jsonl_tail
from tradingbot.io.segments import list_segments, load_sessions
from tradingbot.io.streams import FOLDERS, JOURNAL
from tradingbot.io.tick_files import TickFiles, TickRecord, newest_ms, tick_ends

__all__ = [
    "CAUGHT_UP", "INPUTS", "NEVER", "OFF_WHYS", "OUTPUTS", "IsOver", "Numbered", "Progress", "Record", "RecordedInputs",
    "SessionInputs", "newest_input_ms", "rare_collections",
]  # fmt: skip

OUTPUTS = frozenset({"decision", "exit", "fill", "cancelled", "trade"})
INPUTS = frozenset({"rejected", "settings", "condition", "parked", "anchor_reset", "clock_step"})
OFF_WHYS = {"flag": "FEATURE_PERSIST_STREAMS off", "disk low": "disk low"}
CAUGHT_UP = "caught up"  # why a decision that a later start has made up for is blocked
NEVER = 1 << 62

Record = dict[str, Any]
Progress = Callable[[str, int, int], None]
IsOver = Callable[[], bool]
"""Say whether time is over: asked between some ten thousand ticks and the next."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage rarely: ticks hold nothing that it could hide in, and are many."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Numbered:
    """Read the journal of one session in the order of its numbers.

    `at` is the number of the record that comes next, that of its cause for an output, NEVER behind the last one.
    """

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._head: Record | None = None
        self.at = 0
        self.step()

    def step(self) -> Record | None:
        """Go on to the next record; return the one before."""
        before, self._head = self._head, next(self._records, None)
        if self._head is None:
            self.at = NEVER
        elif self._head.get("type") in OUTPUTS:
            self.at = self._head["cause"]
        else:
            self.at = self._head.get("seq", self.at)
        return before

    def before(self, limit: int) -> Iterator[tuple[int, Record]]:
        """Yield the records before a number, each with its own."""
        while self.at < limit:
            seq, record = self.at, self.step()
            assert record is not None
            yield seq, record

    def of(self, seq: int) -> tuple[list[Record], list[Record]]:
        """Return the outputs and the other records that stand at a number."""
        outputs: list[Record] = []
        others: list[Record] = []
        while self.at == seq:
            found = self.step()
            assert found is not None
            (outputs if found.get("type") in OUTPUTS else others).append(found)
        return outputs, others


class SessionInputs(NamedTuple):
    """Hold one session: its name, its journal, its ticks some at a time, and where it is taken up (None: its start)."""

    sid: str
    journal: Iterator[Record]
    ticks: Iterator[list[TickRecord]]
    begins: int | None


class RecordedInputs:
    """Read the sessions under a state directory, one after the other; raise UsageError where nothing is recorded.

    With `last_min` reading begins at the last complete checkpoint before the last so many minutes. A bot may go on
    writing meanwhile. Memory follows neither the records nor the time, but for those minutes of the journal.
    """

    def __init__(self, state_dir: Path, report: ReadReport, last_min: float | None = None) -> None:
        ends = tick_ends(state_dir)  # no tick is read whose answer came after the journal was
        records, order, self._newest = _journal(state_dir, report, last_min)
        first = next(records, None)
        if first is None:
            raise UsageError(f"nothing is recorded under {state_dir}")
        self._report, self._records = report, itertools.chain([first], records)
        self._begins = None if last_min is None or first.get("checkpoint") is None else first["checkpoint"]["seq"]
        after = None if self._begins is None else (first["sid"], self._begins)
        self.ticks = TickFiles(state_dir, order, report, after, ends)

    def sessions(self) -> Iterator[SessionInputs]:
        """Yield the sessions in order; each is to be read before the next one."""
        begins = self._begins
        for (sid, _), journal in itertools.groupby(self._records, _Sessions()):
            yield SessionInputs(sid, journal, self.ticks.session(sid), begins)
            begins = None

    def forgive_torn_end(self) -> None:
        """Take the end of the newest segment, where a bot may be writing, for no damage."""
        self._report.forget_torn(self._newest)


class _Sessions:
    """Tell sessions apart: by their names, and where one of the same name begins anew."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, record: Record) -> tuple[str, int]:
        self._count += record.get("type") == "session_start"
        return record["sid"], self._count


def _journal(
    state_dir: Path, report: ReadReport, last_min: float | None
) -> tuple[Iterator[Record], list[str], Path | None]:
    """Return the journal's records as far back as is asked for, its sessions in order, and its newest segment."""
    folder = state_dir / FOLDERS[JOURNAL]
    segments = list_segments(folder, JOURNAL.value)
    newest = segments[-1].path if segments else None
    records: Iterable[Record]
    if last_min is None:
        sids = (sid for segment in segments for sid in load_sessions(segment.path) or _sids(segment.path))
        records = (found.record for found in read_jsonl((segment.path for segment in segments), report))
    else:
        end_ms = newest_input_ms(state_dir)
        records = read_jsonl_tail(folder, JOURNAL.value, 0, _Start(end_ms - last_min * 60_000), report)
        sids = (record["sid"] for record in records)
    return joined(records), list(dict.fromkeys(sids)), newest


def newest_input_ms(state_dir: Path) -> int:
    """Return the time of the newest record of journal and ticks, in ms; 0 without any."""
    last = read_jsonl_tail(state_dir / FOLDERS[JOURNAL], JOURNAL.value, 1)
    return max([*(int(record["ts_ms"]) for record in last), newest_ms(state_dir) or 0])


def _sids(path: Path) -> Iterator[str]:
    """Yield the sessions of an open segment."""
    return (str(found.record.get("sid")) for found in read_jsonl([path]))


class _Start:
    """Say of records, the newest first, whether a checkpoint is whole and not after a time."""

    def __init__(self, latest_ms: float) -> None:
        self._latest_ms, self._parts = latest_ms, 0

    def __call__(self, record: Record) -> bool:
        if record.get("type") == PART:
            self._parts += 1
            return False
        is_whole = "checkpoint" in record and record.get("parts", 1) == self._parts + 1
        self._parts = 0
        return is_whole and bool(record["ts_ms"] <= self._latest_ms)
