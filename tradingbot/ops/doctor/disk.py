"""The disk: full, filling or slow; what takes the room, whether the writer keeps up, and what may go."""

from __future__ import annotations

import heapq
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.doctor.patient import Patient, number

__all__ = ["ADVICE", "Room", "disk", "fsync_ms", "measure", "writer"]

MB = 1_000_000
LEAST_MB = 20.0  # less than this is full: the reserve alone takes 16
LEAST_FILES = 100  # inodes
RESERVE = "reserve"
RESERVE_MB = 17  # that a bot takes back before it goes on: io.sealing.RESERVE_BYTES
SOON_H = 48.0
MOST_FILES, MOST_S = 50_000, 0.8  # that are looked at for the largest
LARGEST = 5
SLOW_MS, SYNCS, SYNC_S = 100.0, 5, 0.8
LAG_S = 10.0  # of the writer: it flushes every STREAM_FLUSH_MS
ADVICE = (
    "see what may go: tradingbot clean ticks --older-than 2d --archive, tradingbot clean logs\n"
    "stop recording at once: tradingbot rollback persistence"
)


class Room:
    """Hold what is free where a folder lies, and what takes the most of it."""

    def __init__(self, folder: Path, roots: tuple[Path, ...]) -> None:
        at = folder
        while not at.exists() and at != at.parent:
            at = at.parent
        usage, facts = shutil.disk_usage(at), os.statvfs(at)
        self.at, self.free_mb, self.total_mb = at, usage.free / MB, usage.total / MB
        self.free_files = facts.f_favail if facts.f_files else None  # some file systems do not count them
        self.bytes: dict[str, int] = {}
        self.is_whole = True
        self.largest: list[tuple[int, str]] = []
        self._look(roots)

    def _look(self, roots: tuple[Path, ...]) -> None:
        """Add up what lies under each root, for so long at most."""
        end_s, count, found = time.monotonic() + MOST_S, 0, []
        for root in roots:
            total = 0
            for folder, _, names in os.walk(root):
                for name in names:
                    count += 1
                    if count > MOST_FILES or time.monotonic() > end_s:
                        self.is_whole = False
                        break
                    try:
                        facts = os.lstat(os.path.join(folder, name))  # noqa: PTH118  (of tens of thousands)
                    except OSError:  # it went meanwhile
                        continue
                    total += facts.st_blocks * 512
                    if name == RESERVE:  # the bot gives it up by itself
                        continue
                    found.append((facts.st_blocks * 512, os.path.join(folder, name)))  # noqa: PTH118
                if not self.is_whole:
                    break
            self.bytes[root.name] = total
        self.largest = heapq.nlargest(LARGEST, found)

    def words(self) -> str:
        """Return where the room went."""
        parts = [f"{name} {size / MB:,.0f} MB" for name, size in self.bytes.items() if size >= MB / 2]
        return ", ".join(parts) or "next to nothing of it is the bot's"


def measure(patient: Patient) -> Room:
    """Return how much room there is and what takes it. Raises OSError."""
    roots = dict.fromkeys((patient.state_dir, patient.log_dir, patient.home.path / str(patient.setting("ARCHIVE_DIR"))))
    return Room(patient.state_dir, tuple(roots))


def disk(patient: Patient) -> Finding:
    """Say whether the disk is full, or will be soon, and what takes its room."""
    room = measure(patient)
    least_mb = number(patient.setting("MIN_FREE_MB"), 0)
    told = patient.status.get("disk") if patient.is_running else None
    hours = number(told.get("hours_left"), -1) if isinstance(told, dict) else -1
    evidence = {
        "free_mb": round(room.free_mb), "total_mb": round(room.total_mb), "free_files": room.free_files,
        "hours_left": hours if hours >= 0 else None, "bytes": room.bytes,
        "largest": [{"file": path, "bytes": size} for size, path in room.largest],
    }  # fmt: skip
    free = f"{room.free_mb:,.0f} MB of {room.total_mb:,.0f} MB are free at {room.at}"
    largest = "".join(f"\nlarge: {size / MB:,.1f} MB {path}" for size, path in room.largest[:3] if size >= MB)
    if room.free_mb < min(LEAST_MB, max(least_mb, 1)):
        says = f"full: {free}; {room.words()}"
        return Finding("disk", Verdict.FAILED, says, evidence, ADVICE + largest, "persistence")
    if room.free_files is not None and room.free_files < LEAST_FILES:
        says = f"no more files can be made: {room.free_files} inodes are left at {room.at}"
        return Finding("disk", Verdict.FAILED, says, evidence, ADVICE + largest, "persistence")
    if room.free_mb < least_mb:
        says = f"{free}, less than MIN_FREE_MB = {least_mb:g}: nothing is recorded but the journal; {room.words()}"
        return Finding("disk", Verdict.FAILED, says, evidence, ADVICE + largest, "persistence")
    if _has_stopped(patient):
        says = (
            f"recording has stopped until {least_mb + RESERVE_MB:g} MB are free (MIN_FREE_MB, and the reserve): {free}"
        )
        return Finding("disk", Verdict.FAILED, f"{says}; {room.words()}", evidence, ADVICE + largest, "persistence")
    if 0 <= hours < SOON_H:
        says = f"filling: {free}, enough for {hours:.1f} h at this pace; {room.words()}"
        return Finding("disk", Verdict.WARNING, says, evidence, ADVICE + largest, "persistence")
    return Finding("disk", Verdict.OK, f"{free}; {room.words()}", evidence)


def _has_stopped(patient: Patient) -> bool:
    """Say whether a running bot that is to record does not."""
    flags, streams = patient.status.get("flags"), patient.status.get("streams")
    if not (patient.is_running and isinstance(flags, dict) and isinstance(streams, dict)):
        return False
    ticks = streams.get("ticks")
    return flags.get("FEATURE_PERSIST_STREAMS") is True and isinstance(ticks, dict) and ticks.get("state") == "off"


def fsync_ms(folder: Path, fsync: Callable[[int], None] = os.fsync) -> list[float]:
    """Return how many ms it takes to have a small file on the disk, a few times over. Raises OSError."""
    path = folder / f".doctor-{os.getpid()}.tmp"
    found: list[float] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        path.unlink()
        end_s = time.monotonic() + SYNC_S
        while len(found) < SYNCS and (not found or time.monotonic() < end_s):
            os.write(descriptor, b"x" * 4096)
            began_s = time.perf_counter()
            fsync(descriptor)
            found.append((time.perf_counter() - began_s) * 1000)
    finally:
        os.close(descriptor)
    return found


def writer(patient: Patient, fsync: Callable[[int], None] = os.fsync) -> Iterator[Finding]:
    """Say how long the disk takes to keep something, and whether what the bot records gets there."""
    if patient.state_dir.is_dir():
        yield _speed(patient.state_dir, fsync)
    streams = patient.status.get("streams") if patient.is_running else None
    if not isinstance(streams, dict):
        yield Finding("writer", Verdict.NOT_APPLICABLE, "no bot runs that writes")
        return
    states = {name: row for name, row in streams.items() if isinstance(row, dict)}
    bad = {name: row.get("state") for name, row in states.items() if row.get("state") not in ("ok", "off", None)}
    dropped = {name: int(number(row.get("dropped"), 0)) for name, row in states.items()}
    lost = {name: count for name, count in dropped.items() if count > 0}
    lag_s = _lag_s(patient)
    evidence = {"states": {name: row.get("state") for name, row in states.items()}, "dropped": lost, "lag_s": lag_s}
    words = ", ".join(f"{name} {count:,}" for name, count in lost.items())
    if bad:
        names = ", ".join(f"{name} {state}" for name, state in bad.items())
        says = f"does not keep what it is given: {names}" + (f"; lost {words}" if words else "")
        yield Finding(
            "writer",
            Verdict.FAILED,
            says,
            evidence,
            "free some room, or mend the disk: it heals by itself\n" + ADVICE,
            "persistence",
        )
    elif lag_s is not None and lag_s > LAG_S:
        says = f"the newest tick on the disk is {lag_s:.0f} s old, while ticks come in: it cannot keep up"
        yield Finding("writer", Verdict.FAILED, says, evidence, ADVICE, "persistence")
    elif lost:
        says = f"works again; this session lost {words} records, and gap records say where"
        yield Finding("writer", Verdict.WARNING, says, evidence, "nothing needs to be done; tradingbot fsck shows them")
    else:
        says = "nothing was lost" + ("" if lag_s is None else f", the newest tick was written {lag_s:.1f} s ago")
        yield Finding("writer", Verdict.OK, says, evidence)


def _speed(folder: Path, fsync: Callable[[int], None]) -> Finding:
    try:
        found = fsync_ms(folder, fsync)
    except OSError as error:
        fix = "free some room, or mend the disk: mount | grep ' ro,' shows what is read-only\n" + ADVICE
        says = f"nothing can be written to {folder}: {error.strerror}"
        return Finding("disk speed", Verdict.FAILED, says, fix=fix, profile="persistence")
    middle = statistics.median(found)
    evidence = {"fsync_ms": [round(ms, 2) for ms in found]}
    if middle > SLOW_MS:
        says = f"slow: {middle:.0f} ms to have 4 kB on the disk"
        fix = "see what else writes to it (iostat -x 1), or move the state to another disk\n" + ADVICE
        return Finding("disk speed", Verdict.WARNING, says, evidence, fix, "persistence")
    return Finding("disk speed", Verdict.OK, f"{middle:.1f} ms to have 4 kB on the disk", evidence)


def _lag_s(patient: Patient) -> float | None:
    """Return how old the newest written tick is (s), None where none need be written."""
    flags = patient.status.get("flags")
    is_on = isinstance(flags, dict) and flags.get("FEATURE_PERSIST_STREAMS") is True
    oldest = number(patient.data.get("oldest_s"), 1e9)
    if not is_on or not number(patient.data.get("fresh"), 0) or oldest > LAG_S:
        return None
    newest = 0.0
    try:
        with os.scandir(patient.state_dir / "drop_windows" / "ticks") as entries:
            newest = max((entry.stat().st_mtime for entry in entries if entry.name.endswith(".jsonl")), default=0.0)
    except OSError:
        return None
    return max(time.time() - newest, 0.0) if newest else None
