"""The stream writer: one thread that closes and writes what the engine's thread serialised, first in, first out."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tradingbot.io.jsonl import DAY_MS, RotatingJSONLWriter, encode
from tradingbot.io.lines import close_line
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream, event_record

__all__ = ["StreamState", "StreamWriter"]

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64_000_000  # of ticks and derived records; what comes beyond it is counted, not held
MAX_WAITING_JOURNAL_BYTES = 16_000_000
MAX_DESCRIPTORS = 128
SAY_S = 60.0  # between two lines on the same trouble
RETRY_S = 1.0
PAUSE_EVERY, PAUSE_S = 8, 0.0005
BATCH_LINES = 4_096  # written without a thread: the caller is not kept longer than this takes

Key = tuple[Stream, str]
Groups = dict[tuple[Stream, str, int], tuple[int, list[bytes]]]
"""Records of one series and day, with the time of the first."""


class _Text(msgspec.Struct, gc=False):
    """Hold a record as JSON; many wait, and the garbage collector need not look through them."""

    stream: Stream
    series: str
    ts_ms: int
    text: bytes


@dataclass(slots=True)
class _Gap:
    """Hold how many records of a series are missing in one place, and the time of the first of them."""

    stream: Stream
    series: str
    ts_ms: int
    missing: int = 0
    is_taken: bool = False  # by the writer: what is lost from then on is another gap


@dataclass(slots=True)
class StreamState:
    """Hold what became of one stream: `state` is ok, off or degraded."""

    state: str = "ok"
    records: int = 0
    dropped: int = 0
    bytes: int = 0


class StreamWriter:
    """Write records, as lines with their checksums, to the series of five streams under a state directory.

    *Who calls it*: `put` and `run` come from one thread, and never wait for the disk; one thread of its own writes, at
    once where something of the journal waits, else within `flush_s`. With `threaded` false the caller's thread writes,
    for sessions in virtual time.

    *Order*: what was put first is written first, so that a tick is on disk no later than the decision it caused; only
    lines between two of the journal's are joined by series.

    *Trouble*: a line of the four streams that cannot be written is dropped and counted, and the stream is degraded;
    when writing works again, or at the end, a gap record says in its place how many are missing. The journal's lines
    wait, and are written when that works again. `journal_trouble` is called, on the writer's thread, with why the
    journal cannot be written, None when it can. What waits while the disk stands still is bounded: beyond it lines are
    dropped and counted too, the journal's last.
    """

    def __init__(
        self,
        state_dir: Path,
        sid: str,
        max_bytes: int,
        flush_s: float,
        fsync_s: float,
        journal_trouble: Callable[[str | None], None],
        on_full: Callable[[Path], None] | None = None,
        threaded: bool = True,
    ) -> None:
        self._state_dir, self._sid, self._max_bytes = state_dir, sid, max_bytes
        self._flush_s, self._fsync_s = flush_s, fsync_s
        self._journal_trouble, self._on_full = journal_trouble, on_full
        self.states = {stream: StreamState() for stream in Stream}
        self._waiting: deque[_Text | _Gap | Callable[[], None]] = deque()
        self._put_bytes = self._done_bytes = 0
        self._journal: deque[tuple[int, bytes]] = deque()  # what waits for a journal that cannot be written
        self._journal_bytes = 0
        self._writers: dict[Key, RotatingJSONLWriter] = {}
        self._dirty: dict[Key, None] = {}
        self._missing: dict[Key, _Gap] = {}  # the writer's own
        self._overflow: dict[Key, _Gap] = {}  # what is last in line of a series is a gap that may still grow
        self._counting = threading.Lock()  # of what both threads count
        self._said: dict[Stream, float] = {}
        self._synced_s = self._failed_s = time.monotonic()
        self._is_told = False
        self._wake, self._ending = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    def put(self, stream: Stream, series: str, ts_ms: int, text: bytes) -> None:
        """Have a record, as `to_json` gives it, written; where too many wait it is dropped, and counted."""
        waiting = self._put_bytes - self._done_bytes
        if waiting > MAX_WAITING_BYTES and (
            stream is not JOURNAL or waiting > MAX_WAITING_BYTES + MAX_WAITING_JOURNAL_BYTES
        ):
            self._drop(stream, series, ts_ms)
            return
        if self._overflow:
            self._overflow.pop((stream, series), None)
        self._put_bytes += len(text)
        self._waiting.append(_Text(stream, series, ts_ms, text))
        if self._thread is None:
            if len(self._waiting) >= BATCH_LINES:
                self._write_waiting()
        elif stream is JOURNAL:
            self._wake.set()

    def _drop(self, stream: Stream, series: str, ts_ms: int) -> None:
        """Count a line that nobody holds, in its place between those that wait."""
        with self._counting:
            self.states[stream].dropped += 1
            gap = self._overflow.get((stream, series))
            if gap is None or gap.is_taken:
                gap = self._overflow[stream, series] = _Gap(stream, series, ts_ms)
                self._waiting.append(gap)
            gap.missing += 1

    def run(self, job: Callable[[], None]) -> None:
        """Have a job done when all that was put before is written; it handles its own trouble."""
        self._waiting.append(job)
        if self._thread is None:
            self._write_waiting()
        else:
            self._wake.set()

    def finish(self) -> None:
        """Make the open segments of the four streams past ones, to be sealed, behind all that was put before."""
        self.run(self._finish_four)

    def flush(self) -> None:
        """Write all that waits and make it durable, where no thread of its own does; what fails is told as ever."""
        self._write_waiting()
        self._sync()

    def sync_journal(self) -> None:
        """Make durable what is written of the journal: for a job, on the thread that writes. Raises OSError."""
        key = (JOURNAL, JOURNAL.value)
        if key in self._dirty:
            del self._dirty[key]
            self._writers[key].sync()

    def waiting_bytes(self) -> int:
        """Return how many bytes have been put and are not written."""
        return self._put_bytes - self._done_bytes

    def close(self, timeout_s: float = 10.0) -> None:
        """Write and flush all that waits, and end the thread; what cannot be written within `timeout_s` is lost."""
        self._ending = True
        if self._thread is not None:
            self._wake.set()
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                log.error("streams: the disk has not answered for %.0f s: what waited is lost", timeout_s)
                return
        else:
            self._finish()

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            self._write_waiting()
            if time.monotonic() - self._synced_s >= self._fsync_s:
                self._sync()
        self._finish()

    def _finish(self) -> None:
        self._write_waiting()
        for (stream, series), gap in list(self._missing.items()):
            with contextlib.suppress(OSError):  # it has been said already
                self._heal(stream, series, gap.ts_ms)
        self._sync()
        for writer in self._writers.values():
            with contextlib.suppress(OSError):  # what could be flushed is
                writer.close()

    def _finish_four(self) -> None:
        for key, writer in self._writers.items():
            if key[0] is not JOURNAL:
                self._dirty.pop(key, None)
                try:
                    writer.finish()
                except OSError as error:  # it stays open, and a later session goes on in it
                    self._trouble(key[0], error)

    def _write_waiting(self) -> None:
        """Write all that waits now; jobs are done in their place."""
        groups: Groups = {}
        for _ in range(len(self._waiting)):
            item = self._waiting.popleft()
            if callable(item):
                self._write_groups(groups)
                item()
                continue
            if isinstance(item, _Gap):
                self._write_groups(groups)
                with self._counting:
                    item.is_taken = True
                self._miss(item.stream, item.series, item.ts_ms, item.missing)
                with contextlib.suppress(OSError):  # then before the next line, or at the end
                    self._heal(item.stream, item.series, item.ts_ms)
                continue
            stream, series, ts_ms, text = item.stream, item.series, item.ts_ms, item.text
            self._done_bytes += len(text)
            if stream is JOURNAL:
                self._write_groups(groups)
                self._write_journal(ts_ms, close_line(text))
            else:
                group = groups.get((stream, series, ts_ms // DAY_MS))
                if group is None:
                    groups[stream, series, ts_ms // DAY_MS] = (ts_ms, [text])
                else:
                    group[1].append(text)
        self._write_groups(groups)
        if self._journal and time.monotonic() - self._failed_s >= RETRY_S:
            self._write_journal(0, b"")

    def _write_groups(self, groups: Groups) -> None:
        for place, ((stream, series, _), (ts_ms, texts)) in enumerate(groups.items()):
            if place % PAUSE_EVERY == PAUSE_EVERY - 1 and self._thread is not None and not self._ending:
                time.sleep(PAUSE_S)  # 500 series in one go would keep the engine's thread waiting for the interpreter
            try:
                self._heal(stream, series, ts_ms)
                self._append(stream, series, ts_ms, b"".join(map(close_line, texts)))
            except OSError as error:
                self._trouble(stream, error)
                self._lose(stream, series, ts_ms, len(texts))
            else:
                self.states[stream].records += len(texts)
                self._well(stream)
        groups.clear()

    def _write_journal(self, ts_ms: int, line: bytes) -> None:
        """Write what waits for the journal, and this line behind it."""
        if line:
            if self._journal_bytes + len(line) > MAX_WAITING_JOURNAL_BYTES:
                self._lose(JOURNAL, JOURNAL.value, ts_ms, 1)
                return
            self._journal.append((ts_ms, line))
            self._journal_bytes += len(line)
        try:
            while self._journal:
                first_ms, first = self._journal[0]
                self._append(JOURNAL, JOURNAL.value, first_ms, first)
                self._journal.popleft()
                self._journal_bytes -= len(first)
                self.states[JOURNAL].records += 1
            self._heal(JOURNAL, JOURNAL.value, ts_ms)
        except OSError as error:
            self._failed_s = time.monotonic()
            self._trouble(JOURNAL, error)
            if not self._is_told:
                self._is_told = True
                self._journal_trouble(error.strerror or str(error))
            return
        self._well(JOURNAL)
        if self._is_told:
            self._is_told = False
            self._journal_trouble(None)

    def _append(self, stream: Stream, series: str, ts_ms: int, lines: bytes) -> None:
        key = (stream, series)
        writer = self._writers.pop(key, None)
        if writer is None:
            folder = self._state_dir / FOLDERS[stream]
            writer = RotatingJSONLWriter(folder, series, self._max_bytes, self._on_full)
        self._writers[key] = writer  # the last used comes last
        if len(self._writers) > MAX_DESCRIPTORS:
            for older in list(self._writers.values())[: len(self._writers) - MAX_DESCRIPTORS]:
                older.release()
        writer.write(ts_ms, lines)
        self._dirty[key] = None
        self.states[stream].bytes += len(lines)

    def _heal(self, stream: Stream, series: str, ts_ms: int) -> None:
        gap = self._missing.get((stream, series))
        if gap is not None:
            record = event_record(self._sid, gap.ts_ms, "gap", missing=gap.missing)
            self._append(stream, series, ts_ms, encode(record))
            del self._missing[stream, series]

    def _lose(self, stream: Stream, series: str, ts_ms: int, count: int) -> None:
        with self._counting:
            self.states[stream].dropped += count
        self._miss(stream, series, ts_ms, count)

    def _miss(self, stream: Stream, series: str, ts_ms: int, count: int) -> None:
        """Have a gap record say, before the next line of the series, that so many are missing."""
        gap = self._missing.setdefault((stream, series), _Gap(stream, series, ts_ms))
        gap.missing += count

    def _trouble(self, stream: Stream, error: OSError) -> None:
        now = time.monotonic()
        self.states[stream].state = "degraded"
        if now - self._said.get(stream, float("-inf")) >= SAY_S:
            self._said[stream] = now
            dropped = self.states[stream].dropped
            why = error.strerror or error
            log.error("%s degraded: %s (%d records dropped so far)", _named(stream), why, dropped)

    def _well(self, stream: Stream) -> None:
        if self.states[stream].state == "degraded":
            self.states[stream].state = "ok"
            self._said.pop(stream, None)
            log.warning("%s works again (%d records dropped)", _named(stream), self.states[stream].dropped)

    def _sync(self) -> None:
        self._synced_s = time.monotonic()
        for key in list(self._dirty):
            del self._dirty[key]
            try:
                self._writers[key].sync()
            except OSError as error:
                self._trouble(key[0], error)

    def series(self) -> Iterator[tuple[Stream, str]]:
        """Yield the series that have been written to."""
        yield from list(self._writers)


def _named(stream: Stream) -> str:
    """Return a stream under the word of its feature; the journal is none's."""
    return stream.value if stream is JOURNAL else f"jsonl {stream.value}"
