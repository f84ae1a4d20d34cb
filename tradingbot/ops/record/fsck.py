"""Fsck: every stream, series and state file under a state directory, and what is wrong with any; nothing is changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from tradingbot.errors import UsageError
from tradingbot.io.jsonl import Damage, Damaged, Place, ReadReport, decode
from tradingbot.io.jsonl_read import MISFIT, read_lines
from tradingbot.io.lines import decode_lines
from tradingbot.io.segments import (
    Segment,
    day_of,
    list_segments,
    load_frames,
    manifest_path,
    names_by_series,
    parse_name,
)
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
from tradingbot.ops.record.findings import MAX_NAMED, Ill, Problem, Report, StreamReport
from tradingbot.ops.record.numbering import Session, whole

__all__ = ["STATE_FILES", "examine"]

STATE_FILES = (
    "checkpoint.json", "anchors/anchors.json", "stamp.json", "overrides.json", "status.json", "exchange.json",
)  # fmt: skip
ASIDE = (".torn", ".bad", ".original")
MAX_STATE_BYTES = 256_000_000
_STEP = 500  # lines that are parsed at a time
_NEVER_MS = 1 << 62

Progress = Callable[[str, int, int], None]


def examine(state_dir: Path, limit_bytes: int, running: bool, progress: Progress | None = None) -> Report:
    """Look at all that is recorded under a state directory; raise UsageError if there is no such directory.

    While something runs there, what it has half written is no damage. Never raises on bad data. Time follows the
    records; memory does not, but for a bit for each input.
    """
    if not state_dir.is_dir():
        raise UsageError(f"there is no state directory {state_dir}: name one, as in tradingbot fsck build/run/state")
    report = Report(state_dir, limit_bytes, running)
    report.free_bytes = shutil.disk_usage(state_dir).free
    work = _Work(report, progress)
    for stream in (JOURNAL, *(stream for stream in Stream if stream is not JOURNAL)):
        report.streams[stream] = StreamReport()
        work.stream(stream)
    report.lost = work.lost
    _look_at_numbers(report)
    _look_at_state_files(report)
    return report


class _Tally(ReadReport):
    """Hand on every place that cannot be read."""

    def __init__(self, take: Callable[[Place], None]) -> None:
        super().__init__()
        self._take = take

    def note(self, place: Place) -> None:
        self._take(place)


class _Work:
    """Look at one stream after the other."""

    def __init__(self, report: Report, progress: Progress | None) -> None:
        self._report, self._progress = report, progress
        self.lost = 0  # lines of inputs' streams that are damaged or torn, and that no gap record names

    def stream(self, stream: Stream) -> None:
        """Look at all files of one stream."""
        folder = self._report.state_dir / FOLDERS[stream]
        if not folder.is_dir():
            return
        found = self._report.streams[stream]
        for path in sorted(folder.iterdir()):
            self._file(path, found, stream)
        total = found.bytes // 1_000_000
        done = 0
        for series in sorted(names_by_series(folder)):
            segments = list_segments(folder, series)
            found.series += bool(segments)
            for segment in segments:
                if self._progress is not None:
                    self._progress(f"checking {stream} (MB)", done // 1_000_000, total)
                done += _size(segment.path)
                self._segment(stream, segment, segment is segments[0], segment is segments[-1])
        found.spans = {sid: span for sid, span in found.spans.items() if span[1] >= 0}

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._report.state_dir))

    def _note(self, kind: Damage | Ill, path: Path, line: int = 0, detail: str = "") -> None:
        self._report.note(Problem(kind, self._relative(path), line, detail))

    def _file(self, path: Path, found: StreamReport, stream: Stream) -> None:
        """Look at a file's name, and at what should lie beside it."""
        name = parse_name(path.name)
        if name is None or not path.is_file():
            self._report.notes.append(f"{self._relative(path)}: not one of the stream's files")
            return
        plain = path.with_name(path.name.removesuffix(name.form))
        sealed = plain.with_name(plain.name + ".zst")
        if name.form.endswith(".tmp"):
            if not self._report.running:
                self._note(Ill.LEFT_OVER, path)
            return
        if any(word in name.form for word in ASIDE):
            self._report.aside[self._relative(path)] = _size(path)
            if stream in (Stream.TICKS, JOURNAL) and name.form.startswith(".torn"):
                self.lost += _count_lines(path)
            return
        found.bytes += _size(path)
        if name.form == ".manifest.json":
            if not plain.exists() and not sealed.exists() and not self._report.running:
                self._note(Ill.STRAY_MANIFEST, path)
        elif name.form == "" and sealed.exists() and not self._report.running:
            self._note(Ill.HALF_SEALED, path)
        elif name.form not in ("", ".zst"):
            self._report.notes.append(f"{self._relative(path)}: not one of the stream's files")

    def _segment(self, stream: Stream, segment: Segment, is_first: bool, is_last: bool) -> None:
        found = self._report.streams[stream]
        places: list[Place] = []
        contents = _Contents()
        lowest: dict[str, int] = {}

        def take(place: Place) -> None:
            gone = place.line == 0 and place.damage is Damage.UNREADABLE and not segment.path.exists()
            if gone and self._report.running:  # deleted for its age or size since it was listed
                return
            if place.detail == MISFIT:
                return  # found below, with what differs
            if place.damage is Damage.TORN and is_last and not segment.sealed and self._report.running:
                self._report.notes.append(f"{self._relative(place.path)}:{place.line}: the last line is being written")
                return
            places.append(place)
            found.damaged += 1
            self._note(place.damage, place.path, place.line, place.detail)

        numbered = stream in (Stream.TICKS, JOURNAL)
        before, span, session = None, [0, 0], Session("")
        for record in contents.read(segment.path, _Tally(take)):
            sid = record.get("sid")
            sid = sid if type(sid) is str else ""
            if sid != before:  # seldom: a segment is written by one session after the other
                before, span = sid, found.spans.setdefault(sid, [_NEVER_MS, -1])
                if numbered:
                    session = self._report.sessions.setdefault(sid, Session(sid))
            ts_ms = whole(record.get("ts_ms"))
            if ts_ms is not None:
                if ts_ms < span[0]:
                    span[0] = ts_ms
                if ts_ms > span[1]:
                    span[1] = ts_ms
            if record.get("type") == "gap":
                found.gaps += 1
            if numbered:
                if record.get("type") == "deleted":
                    _take_deletion(self._report, record)
                session.take(record)
                if is_first and sid not in lowest and (seq := whole(record.get("seq"))) is not None:
                    lowest[sid] = seq
        found.segments += 1
        found.sealed += segment.sealed
        found.records += contents.records
        if numbered:
            self.lost += sum(place.lines for place in places)
            for sid, seq in lowest.items():
                session = self._report.sessions[sid]
                began = session.started_ms
                if segment.number > 0 or (began is not None and day_of(began) < segment.day):
                    session.kept_from = max(session.kept_from, seq)
        if segment.sealed and segment.path.exists():
            self._manifest(segment.path, contents, places)

    def _manifest(self, path: Path, contents: _Contents, places: list[Place]) -> None:
        """Hold a sealed segment against its manifest."""
        beside = manifest_path(path)
        if not beside.exists():
            self._note(Ill.NO_MANIFEST, path)
            return
        said: dict[str, Any] = {}
        try:
            document = orjson.loads(beside.read_bytes())
            said = document if isinstance(document, dict) else {}
        except (OSError, ValueError):
            pass
        if any(place.damage in (Damage.UNREADABLE, Damage.TORN, Damage.TOO_LONG) for place in places):
            return  # what is there to compare with is not all there
        differs = [
            name
            for name, value in (("records", contents.records), ("bytes", contents.bytes), ("sha256", contents.sha256()))
            if said.get(name) != value
        ]
        if load_frames(path, _size(path)) is None:
            differs.append("frames")
        if differs:
            self._note(Ill.MISFIT, path, detail=f"{', '.join(differs)}: {beside.name}")


class _Contents:
    """Read one segment, and gather what a manifest would say of it."""

    def __init__(self) -> None:
        self.records = self.bytes = 0
        self._sha256 = hashlib.sha256()

    def read(self, path: Path, tally: ReadReport) -> Iterator[dict[str, Any]]:
        """Yield every record."""
        for batch in read_lines(path, tally):
            for first in range(0, len(batch.lines), _STEP):
                lines = batch.lines[first : first + _STEP]
                text = b"\n".join(lines) + b"\n"
                self._sha256.update(text)
                self.bytes += len(text)
                for line, record in enumerate(decode_lines(lines), batch.first + first):
                    if isinstance(record, Damage):
                        tally.note(Place(batch.path, line, record))
                    else:
                        self.records += 1
                        yield record

    def sha256(self) -> str:
        """Return the SHA-256 of the text read."""
        return self._sha256.hexdigest()


def _take_deletion(report: Report, record: dict[str, Any]) -> None:
    """Take note of the inputs that the journal says were in a segment that was deleted."""
    sessions = record.get("sessions")
    for sid, facts in sessions.items() if isinstance(sessions, dict) else ():
        first, last = (whole(each) for each in (*facts, None, None)[:2]) if isinstance(facts, list) else (None, None)
        if first is not None and last is not None:
            report.sessions.setdefault(sid, Session(sid)).deleted.append((first, last))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _count_lines(path: Path) -> int:
    """Return how many lines a file holds, the last with or without its end."""
    count, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 18):
                count += block.count(b"\n")
                last = block[-1:]
    except OSError:
        pass
    return count + (last != b"\n")


def _look_at_numbers(report: Report) -> None:
    """Find the inputs that no record holds; what gap records and damaged or torn lines explain is no new problem."""
    for sid, session in sorted(report.sessions.items()):
        if session.twice:
            report.note(Problem(Ill.TWICE, f"session {sid}", detail=f"{session.twice:,} inputs"))
        stretches = session.missing()
        if not stretches:
            continue
        report.missing[sid] = stretches[:MAX_NAMED]
        if session.before is None:
            continue  # its start is gone, and with it what the numbers began from
        unsaid = [stretch for stretch in stretches if stretch.why is None]
        count = sum(stretch.count for stretch in unsaid)
        explained = session.gaps + report.lost
        if count > explained:
            first, rest = unsaid[0], f" in {len(unsaid):,} stretches" if len(unsaid) > 1 else ""
            detail = f"{count - explained:,}{rest}, the first {first.first} to {first.last}"
            report.note(Problem(Ill.MISSING, f"session {sid}", detail=detail))


def _look_at_state_files(report: Report) -> None:
    for name in STATE_FILES:
        path = report.state_dir / name
        if os.path.lexists(path):
            why = _why_unreadable(path)
            report.state_files[name] = why or "ok"
            if why is not None:
                report.note(Problem(Ill.STATE_FILE, name, detail=why))
    if not report.running:
        for folder in (report.state_dir, report.state_dir / "anchors"):
            for path in sorted(folder.glob("*.tmp")) if folder.is_dir() else ():
                if path.is_dir():
                    continue
                report.note(Problem(Ill.LEFT_OVER, str(path.relative_to(report.state_dir))))


def _why_unreadable(path: Path) -> str | None:
    """Return why a state file is no JSON object, or not the one that was written; None where all is well."""
    try:
        if not path.is_file():
            return "no file"
        if path.stat().st_size > MAX_STATE_BYTES:
            return f"larger than {MAX_STATE_BYTES // 1_000_000} MB"
        text = path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    if b',"crc":"' in text[-32:]:
        try:
            decode(text)
        except Damaged as error:
            return None if error.damage is Damage.TOO_LONG and _is_object(text) else error.damage.value
        return None
    return None if _is_object(text) else "no JSON object"


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
