"""The files of a stream: their names, their order, their torn tails and what is known of the sealed ones.

A *series* is one run of records (`snapshots`, or a symbol), a *segment* one file of it: `{series}_{YYYYMMDD}_{NNNN}`
and `.jsonl`, sealed `.jsonl.zst` with `.jsonl.manifest.json` beside it. Order of (day, number) is order of writing. The
day is that of the segment's first record, or the day of the segment before where that is later: so after a clock that
jumped years ahead names keep the far day, numbers go on rising, and order holds.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

import orjson

__all__ = [
    "DAY_MS", "FRAME", "Frame", "Latest", "Name", "Segment", "append_line", "day_of", "latest",
    "list_segments", "load_frames", "load_sessions", "make_folder", "manifest_path", "names_by_series",
    "parse_name", "repair_tail", "segment_name", "series_of", "symbol_of", "sync_folder",
]  # fmt: skip

DAY_MS = 86_400_000
FRAME = 1 << 20  # bytes of text that are compressed on their own: what the tail of a sealed segment costs to read
_LAST_DAY = datetime.date.max.toordinal()
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_NAME = re.compile(r"(.*)_([0-9]{8})_([0-9]{4}|[1-9][0-9]{4,})\.jsonl(\..+)?", re.DOTALL)
_LONGEST = 200  # bytes of a series: with day, number and `.jsonl.manifest.json.tmp` a name stays within 255
_BLOCK = 1 << 16


def series_of(symbol: str) -> str:
    """Return a symbol as the series of its file names: `/` as `_`, all but A-Z a-z 0-9 - . percent-encoded.

    One to one, a single path component, at most 200 bytes: of a longer one the beginning, `%-` (which no encoding
    holds) and its SHA-256. Symbols that differ by case alone differ by case alone here too: they need a file system
    that tells them apart.
    """
    raw = symbol.encode("utf-8", "surrogatepass")
    series = quote(raw, safe="/").replace("_", "%5F").replace("~", "%7E").replace("/", "_")
    if len(series) > _LONGEST:
        series = f"{series[: _LONGEST - 66]}%-{hashlib.sha256(raw).hexdigest()}"
    return series


def symbol_of(series: str) -> str | None:
    """Return the symbol whose series this is; None where it is that of none, or of one too long to be spelt out."""
    try:
        symbol = unquote_to_bytes(series.replace("_", "/")).decode("utf-8", "surrogatepass")
    except UnicodeError:
        return None
    return symbol if series_of(symbol) == series else None


def day_of(ts_ms: int) -> int:
    """Return the UTC day of a time as YYYYMMDD; times before 1970 and after 9999 count as their first and last day."""
    date = datetime.date.fromordinal(min(max(ts_ms // DAY_MS, 0) + _EPOCH, _LAST_DAY))
    return date.year * 10_000 + date.month * 100 + date.day


def segment_name(series: str, day: int, number: int) -> str:
    """Return the file name of an open segment."""
    return f"{series}_{day:08d}_{number:04d}.jsonl"


class Name(NamedTuple):
    """Hold what a file name of a series says."""

    series: str
    day: int
    number: int
    form: str  # what follows .jsonl


def parse_name(name: str) -> Name | None:
    """Return what a file name says, None for a stranger's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    series, day, number, form = match.groups()
    try:
        datetime.date(int(day[:4]), int(day[4:6]), int(day[6:]))
    except ValueError:
        return None
    return Name(series, int(day), int(number), form or "")


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """Say where one file of a series lies; segments sort as they were written."""

    series: str
    day: int
    number: int
    path: Path
    sealed: bool

    @property
    def end_ms(self) -> int:
        """Return when the day of its name ends."""
        date = datetime.date(self.day // 10_000, self.day // 100 % 100, self.day % 100)
        return (date.toordinal() - _EPOCH + 1) * DAY_MS


def list_segments(folder: Path, series: str | None = None) -> list[Segment]:
    """Return the segments of a folder, or of one series in it, as they were written; none where there is no folder.

    Where both the plain and the sealed file are there the plain one counts. Whatever else lies there is ignored.
    """
    found: dict[tuple[str, int, int], Segment] = {}
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with entries:
        for entry in entries:
            if series is not None and not entry.name.startswith(f"{series}_"):
                continue
            name = parse_name(entry.name)
            if name is None or name.form not in {"", ".zst"} or series not in {None, name.series}:
                continue
            key = name[:3]
            if (name.form == "" or key not in found) and entry.is_file():
                found[key] = Segment(*key, Path(entry.path), sealed=name.form == ".zst")
    return sorted(found.values())


def names_by_series(folder: Path) -> dict[str, list[str]]:
    """Return the file names of every series in a folder: one listing for a writer each of 500 symbols."""
    found: dict[str, list[str]] = {}
    for file in _listed(folder):
        name = parse_name(file)
        if name is not None:
            found.setdefault(name.series, []).append(file)
    return found


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  (names, not a Path of each)
    except FileNotFoundError:
        return []


class Latest(NamedTuple):
    """Say which segment of a series is the newest, in whatever form, and whether writing may go on in it."""

    day: int
    number: int
    unsealed: bool


def latest(folder: Path, series: str, names: Iterable[str] | None = None) -> Latest | None:
    """Return the newest segment of a series, None where it has none.

    Every form of a name counts, also what a repair has left of it, so that none is given twice. It may be written on if
    the plain file is there alone: beside a .zst it was full or past.
    """
    names = _listed(folder) if names is None else names
    parsed = [name for file in names if file.startswith(f"{series}_") and (name := parse_name(file)) is not None]
    own = [name for name in parsed if name.series == series]
    if not own:
        return None
    day, number = max((name.day, name.number) for name in own)
    forms = {name.form for name in own if (name.day, name.number) == (day, number)}
    return Latest(day, number, "" in forms and ".zst" not in forms)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, mode 0700 whatever the umask, each entry on the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def repair_tail(path: Path) -> int:
    """Move what follows the last line end of a file, a torn line or NULs, to `{name}.torn`; return the bytes moved.

    It is appended there, and both file and folder flushed, before it is cut off here: a kill in between leaves the torn
    bytes twice in .torn, or in part and then whole, never nowhere. Run again, it does nothing. For the writer alone, or
    when there is none. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        size = os.fstat(descriptor).st_size
        whole = _whole(descriptor, size)
        if whole < size:
            _set_aside(descriptor, whole, path.with_name(path.name + ".torn"))
            os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
        return size - whole
    finally:
        os.close(descriptor)


def _whole(descriptor: int, size: int) -> int:
    """Return how many bytes of a file end with its last line end."""
    if size and os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    end = size
    while end > 0:
        start = max(end - _BLOCK, 0)
        place = os.pread(descriptor, end - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def _set_aside(descriptor: int, start: int, path: Path) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as aside:
        os.fchmod(aside.fileno(), 0o600)
        while block := os.pread(descriptor, _BLOCK, start):
            aside.write(block)
            start += len(block)
        aside.flush()
        os.fsync(aside.fileno())
    sync_folder(path.parent)


class Frame(NamedTuple):
    """Say how long one frame of a sealed segment is, compressed and as text, and how many line ends it holds."""

    packed: int
    text: int
    lines: int


def manifest_path(path: Path) -> Path:
    """Return where the manifest of a segment lies, given the plain file or the sealed one."""
    return path.with_name(path.name.removesuffix(".zst") + ".manifest.json")


def load_frames(path: Path, size: int) -> list[Frame] | None:
    """Return the frames of a sealed segment of `size` bytes, None where no manifest tells them."""
    try:
        frames = [Frame(*map(int, frame)) for frame in orjson.loads(manifest_path(path).read_bytes())["frames"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sane = all(frame.packed > 0 and 0 < frame.text <= 2 * FRAME and frame.lines >= 0 for frame in frames)
    return frames if sane and sum(frame.packed for frame in frames) == size else None


def load_sessions(path: Path) -> dict[str, list[int]]:
    """Return of each session in a sealed segment its least and greatest `seq` (0 without any) and its records.

    In the order in which the segment holds them; none where no manifest tells.
    """
    try:
        sessions = orjson.loads(manifest_path(path).read_bytes())["sessions"]
        return {str(sid): [*map(int, facts["seq"] or (0, 0)), int(facts["records"])] for sid, facts in sessions.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def append_line(path: Path, line: bytes) -> None:
    """Append one line, behind a torn one that is set aside; on return it is on the disk. Raises OSError."""
    is_new = not path.exists()
    if not is_new:
        repair_tail(path)  # a torn line would take this one with it
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)
