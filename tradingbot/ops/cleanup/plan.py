"""What a cleanup would take: the files by kind, what of them must stay and why, and what their going means."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tradingbot.errors import UsageError
from tradingbot.io.jsonl_read import read_jsonl_tail
from tradingbot.io.lines import Damaged, decode
from tradingbot.io.overrides import Effective
from tradingbot.io.saved import CHECKPOINT
from tradingbot.io.segments import Segment, list_segments, load_sessions, manifest_path, symbol_of
from tradingbot.io.state_files import lock_owner
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
from tradingbot.ops.report.index import ENDINGS, STEM, lock_name

__all__ = [
    "KINDS", "LOG_NAME", "STREAMS", "File", "Found", "Item", "archive_name", "consequences", "find", "folder_of",
    "identity", "report_of", "roots",
]  # fmt: skip

STREAMS = {"ticks": Stream.TICKS, "snapshots": Stream.SNAPSHOTS, "windows": Stream.WINDOWS, "anchors": Stream.ANCHORS}
KINDS = (*STREAMS, "logs", "reports", "archives")
REPORT_FORMS = tuple(sorted({".json"}.union(*ENDINGS.values()), key=len, reverse=True))  # the longest first
LOG_NAME = re.compile(r"trading_bot_([0-9]{8})\.log(\.[0-9]+)?", re.DOTALL)
ARCHIVE_NAME = re.compile(rf"(?:{'|'.join(KINDS[:-1])})(?:-[a-z-]+)?_[0-9]{{8}}(?:_[0-9]+)?\.tar\.zst", re.DOTALL)
_WRITTEN_S = 3600  # a log that was changed less long ago may still be written
_NEVER_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class File:
    """Name a file (root, then its path below it) and say what it was when it was seen: a file that differs stays."""

    name: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Item:
    """Hold what goes together: a segment with its manifest, a log, the forms of one report.

    `first_ms` and `last_ms` are the times of its first and last record, or of its last change where it has none.
    """

    kind: str
    files: tuple[File, ...]
    first_ms: int
    last_ms: int
    sessions: dict[str, list[int]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return the bytes of its files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Found:
    """Hold the items of a kind that may go, and what stays: counts by reason."""

    items: list[Item]
    stays: Counter[str]


def roots(effective: Effective) -> dict[str, Path]:
    """Return the folders that the names of files begin with; raise UsageError where a link leads out of the home."""
    home, settings = effective.home.path, effective.settings
    named = {"logs": settings.LOG_DIR, "reports": settings.REPORT_DIR, "archives": settings.ARCHIVE_DIR}
    found = {"state": effective.state_dir, **{root: home / Path(name) for root, name in named.items()}}
    for root, folder in found.items():
        is_below = folder.absolute().is_relative_to(home.absolute())
        if is_below and not folder.resolve().is_relative_to(home.resolve()):
            raise UsageError(f"{folder} leads out of the home, to {folder.resolve()}: set {_setting(root)} to that")
    return found


def _setting(root: str) -> str:
    return {"state": "STATE_DIR", "logs": "LOG_DIR", "reports": "REPORT_DIR", "archives": "ARCHIVE_DIR"}[root]


def folder_of(places: dict[str, Path], kind: str) -> tuple[str, Path]:
    """Return the name (root and path below it) and the path of the folder of a kind; raise UsageError for a link."""
    root, below = ("state", FOLDERS[STREAMS[kind]]) if kind in STREAMS else (kind, "")
    folder = places[root] / below
    if not folder.resolve().is_relative_to(places[root].resolve()):
        raise UsageError(
            f"{folder} is a link that leads out of {places[root]}, to {folder.resolve()}: it is not cleaned"
        )
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    return f"{root}/{below}".rstrip("/"), folder


def identity(status: os.stat_result) -> tuple[int, int, int]:
    """Return what tells that a file is the one that was seen."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def archive_name(kinds: Sequence[str], day: str) -> str:
    """Return the name of an archive of these kinds, without its ending."""
    return f"{'-'.join(kinds)}_{day}"


def find(effective: Effective, kind: str, older_than_s: float, now_ms: int) -> Found:
    """Return what of a kind may go that is older than so many seconds; nothing where there is no folder.

    A file is as old as its last record, or its last change where that is longer ago. Raises UsageError where a link
    leads elsewhere, and OSError.
    """
    places = roots(effective)
    name, folder = folder_of(places, kind)
    if not folder.is_dir():
        return Found([], Counter())
    if kind in STREAMS:
        found = _segments(effective, kind, name, folder)
    elif kind == "logs":
        found = _logs(name, folder, now_ms)
    else:
        found = _reports(name, folder) if kind == "reports" else _archives(name, folder)
    old, stays = [], found.stays
    for item in found.items:
        age_ms = min(item.last_ms, max(file.mtime_ns for file in item.files) // 1_000_000)
        if now_ms - age_ms < older_than_s * 1000:
            stays["younger than asked for"] += 1
        else:
            old.append(item)
    return Found(sorted(old, key=lambda item: (item.last_ms, item.files[0].name)), stays)


def _segments(effective: Effective, kind: str, name: str, folder: Path) -> Found:
    stays: Counter[str] = Counter()
    items = []
    by_series: dict[str, list[Segment]] = {}
    for segment in list_segments(folder):
        by_series.setdefault(segment.series, []).append(segment)
    needed = _Needed(effective, folder, [group[-1] for group in by_series.values()]) if kind == "ticks" else None
    for series, segments in by_series.items():
        stays["newest of its series, which a session goes on in"] += 1
        for segment in segments[:-1]:
            if not segment.sealed:
                stays["full and not sealed yet: a running bot does that, or the next one"] += 1
                continue
            files = [file for path in (segment.path, manifest_path(segment.path)) if (file := _file(name, path))]
            if not files or not files[0].name.endswith(".zst"):
                continue  # gone meanwhile
            first_ms, last_ms = _times(segment)
            sessions = load_sessions(segment.path) if needed is not None else {}
            if needed is not None and not sessions:
                stays["without a manifest: tradingbot fsck --repair makes one"] += 1
            elif needed is not None and needed.is_needed(series, last_ms, sessions):
                stays["read by the next warm start, or by a proof from the last checkpoint on"] += 1
            else:
                items.append(Item(kind, tuple(files), first_ms, last_ms, sessions))
    return Found(items, stays)


def _times(segment: Segment) -> tuple[int, int]:
    """Return the times of the first and the last record of a sealed segment; those of its day where none tells."""
    first_ms, last_ms = _NEVER_MS, -1
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        for facts in orjson.loads(manifest_path(segment.path).read_bytes())["sessions"].values():
            low, high = map(int, facts["ts_ms"])
            first_ms, last_ms = min(first_ms, low), max(last_ms, high)
    return (first_ms, last_ms) if last_ms >= 0 else (segment.end_ms - 86_400_000, segment.end_ms)


class _Needed:
    """Tell which ticks are read again.

    The next warm start reads those behind checkpoint.json and a lookback before it, a proof those behind the journal's
    last checkpoint that ticks follow: without them there would be nothing to prove.
    """

    def __init__(self, effective: Effective, folder: Path, newest: Sequence[Segment]) -> None:
        last = {one.series: read_jsonl_tail(folder, one.series, 1, segments=[one]) for one in newest}
        self._cut_ms: dict[str, int] = {}
        lookback_s, told, bases = effective.settings.WINDOW_LOOKBACK_S, {}, []
        with contextlib.suppress(OSError, Damaged, KeyError, TypeError, ValueError):
            record = decode((effective.state_dir / CHECKPOINT).read_bytes())
            engine: dict[str, Any] = record["checkpoint"]
            told = {str(one["symbol"]): int(one["ts_ms"]) for one in engine["symbols"]}
            lookback_s = max(lookback_s, float(engine["settings"]["WINDOW_LOOKBACK_S"]))
            bases.append((str(record["sid"]), int(engine["seq"])))
        positions = []
        for series, records in last.items():
            times = [int(record["ts_ms"]) for record in records if isinstance(record.get("ts_ms"), int)]
            told_ms = told.get(symbol_of(series) or "", 0)
            self._cut_ms[series] = min([*times, *([told_ms] if told_ms > 0 else [])], default=0) - int(
                lookback_s * 1000
            )
            positions += [(str(r["sid"]), int(r["seq"])) for r in records if "sid" in r and "seq" in r]
        bases += _proof_begins(effective.state_dir, max(positions, default=("", 0)))
        self._base = min(bases, default=None)

    def is_needed(self, series: str, last_ms: int, sessions: dict[str, list[int]]) -> bool:
        """Say whether a segment holds any of them."""
        if last_ms > self._cut_ms[series]:
            return True
        return self._base is not None and any((sid, span[1]) > self._base for sid, span in sessions.items())


def _proof_begins(state_dir: Path, last: tuple[str, int]) -> list[tuple[str, int]]:
    """Return the input behind which the journal's last checkpoint that ticks follow stands; nothing without one."""
    found: list[tuple[str, int]] = []

    def is_it(record: dict[str, Any]) -> bool:
        checkpoint = record.get("checkpoint")
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get("seq"), int):
            position = (str(record.get("sid")), int(checkpoint["seq"]))
            if position < last:
                found.append(position)
        return bool(found)

    read_jsonl_tail(state_dir / FOLDERS[JOURNAL], JOURNAL.value, 0, is_it)
    return found


def _logs(name: str, folder: Path, now_ms: int) -> Found:
    stays: Counter[str] = Counter()
    seen = [(match, file) for path in _listed(folder) if (match := LOG_NAME.fullmatch(path.name))
            and (file := _file(name, path))]  # fmt: skip
    newest = max((match[1] for match, _ in seen if match[2] is None), default="")
    opened = _open_files()
    items = []
    for match, file in seen:
        is_written = match[2] is None and (
            match[1] == newest or now_ms - file.mtime_ns // 1_000_000 < _WRITTEN_S * 1000 or file.inode in opened
        )
        if is_written:
            stays["the log that is written, or may be"] += 1
        else:
            items.append(_dated("logs", (file,)))
    return Found(items, stays)


def _open_files() -> set[int]:
    """Return the inodes of the files that processes have open, as far as this one may see them."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            status = link.stat()
            if stat.S_ISREG(status.st_mode):
                found.add(status.st_ino)
    return found


def _reports(name: str, folder: Path) -> Found:
    """Return the reports that `tradingbot report` has made; whatever else lies there is a stranger's, and stays."""
    by_stem: dict[str, list[File]] = {}
    for path in sorted(_listed(folder), key=lambda path: path.suffix != ".json"):  # what goes last stands first
        stem = report_of(path.name)
        if stem and (file := _file(name, path)):
            by_stem.setdefault(stem, []).append(file)
    made = [stem for stem in by_stem if lock_owner(folder, lock_name(stem)) is not None]
    items = [_dated("reports", tuple(files)) for stem, files in by_stem.items() if stem not in made]
    return Found(items, Counter({"a report that is being made": len(made)} if made else {}))


def report_of(name: str) -> str:
    """Return which report a file belongs to by its name, nothing for a stranger's."""
    stem = next((name.removesuffix(form) for form in REPORT_FORMS if name.endswith(form)), "")
    return stem if STEM.fullmatch(stem) else ""


def _archives(name: str, folder: Path) -> Found:
    seen = [file for path in _listed(folder) if ARCHIVE_NAME.fullmatch(path.name) and (file := _file(name, path))]
    return Found([_dated("archives", (file,)) for file in seen], Counter())


def _dated(kind: str, files: tuple[File, ...]) -> Item:
    times = [file.mtime_ns // 1_000_000 for file in files]
    return Item(kind, files, min(times), max(times))


def _listed(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.iterdir()))


def _file(name: str, path: Path) -> File | None:
    """Return a plain file as it is now, None for anything else."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return File(f"{name}/{path.name}", *identity(status)) if stat.S_ISREG(status.st_mode) else None


def consequences(items: Iterable[Item]) -> list[str]:
    """Return what it means that these items go, a sentence each."""
    said = []
    spans: dict[str, list[int]] = {}
    kinds = dict.fromkeys(item.kind for item in items)
    for item in items:
        for sid, (first, last, count) in item.sessions.items():
            span = spans.setdefault(sid, [first, last, 0])
            spans[sid] = [min(span[0], first), max(span[1], last), span[2] + count]
    for sid, (first, last, count) in list(spans.items())[-5:]:
        said.append(
            f"prove, compare: of session {sid} {count:,} ticks between inputs {first:,} and {last:,} are not recorded"
        )
    if len(spans) > 5:
        said.append(f"the same holds for {len(spans) - 5} earlier sessions")
    if "ticks" in kinds:
        said.append(
            "proofs go on at the next checkpoint behind them (the journal has one every 15 minutes); it says so itself"
        )
    if "snapshots" in kinds:
        said.append("explain --near knows nothing of that time")
    if "windows" in kinds or "anchors" in kinds:
        said.append("windows and anchors in use are not touched: these streams are for looking back")
    if "archives" in kinds:
        said.append("what the archives hold cannot be restored any more")
    return said
