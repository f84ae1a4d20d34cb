"""What a look at a state directory finds: problems by file and line, streams, sessions and room, as values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tradingbot.io.jsonl import Damage
from tradingbot.io.segments import DAY_MS
from tradingbot.io.streams import JOURNAL, Stream
from tradingbot.ops.record.numbering import Missing, Session

__all__ = ["MAX_NAMED", "Ill", "Problem", "Report", "StreamReport", "counted"]

MAX_NAMED = 1_000  # of problems, and of stretches in a session; all are counted


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Ill(StrEnum):
    """Name what is wrong with a file as a whole, or with what the records say together."""

    HALF_SEALED = "sealing did not end"
    NO_MANIFEST = "no manifest"
    MISFIT = "not what its manifest says"
    STRAY_MANIFEST = "manifest of no segment"
    LEFT_OVER = "left over by a kill"
    STATE_FILE = "cannot be read"
    MISSING = "inputs missing"
    TWICE = "number given twice"


@dataclass(frozen=True, slots=True)
class Problem:
    """Say what is wrong, and where: the file under the state directory, its line from 1, 0 for the file as a whole."""

    kind: Damage | Ill
    file: str
    line: int = 0
    detail: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.kind}{f' ({self.detail})' if self.detail else ''}"


@dataclass(slots=True)
class StreamReport:
    """Hold what is there of one stream; `spans` are the first and the last time of each session."""

    series: int = 0
    segments: int = 0
    sealed: int = 0
    records: int = 0
    damaged: int = 0
    bytes: int = 0
    gaps: int = 0
    spans: dict[str, list[int]] = field(default_factory=dict)

    @property
    def bytes_per_day(self) -> float | None:
        """Return how fast it has grown in its records' own time, None where that is less than a second."""
        ms = sum(last - first for first, last in self.spans.values())
        return self.bytes / ms * DAY_MS if ms >= 1000 else None

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        record = {name: getattr(self, name) for name in ("series", "segments", "sealed", "records", "damaged", "bytes")}
        first = min((first for first, _ in self.spans.values()), default=None)
        last = max((last for _, last in self.spans.values()), default=None)
        rest = {"gap_records": self.gaps, "first_ms": first, "last_ms": last, "bytes_per_day": self.bytes_per_day}
        return record | rest | {"open": self.segments - self.sealed}


@dataclass(slots=True)
class Report:
    """Hold what a look at a state directory has found.

    `limit_bytes` is what the four streams may hold, `problems` names the first of them, `kinds` says of every file what
    is wrong with it.
    """

    state_dir: Path
    limit_bytes: int
    running: bool = False
    streams: dict[Stream, StreamReport] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    missing: dict[str, list[Missing]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, set[Damage | Ill]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    aside: dict[str, int] = field(default_factory=dict)
    state_files: dict[str, str] = field(default_factory=dict)
    free_bytes: int = 0
    lost: int = 0  # lines of ticks and journal that are damaged, or torn and set aside

    @property
    def exit_code(self) -> int:
        """Return 0 where all is well, 1 where something is wrong."""
        return 1 if self.counts else 0

    def note(self, problem: Problem) -> None:
        """Count a problem, and name it unless there are too many."""
        self.counts[problem.kind.value] += 1
        self.kinds.setdefault(problem.file, set()).add(problem.kind)
        if len(self.problems) < MAX_NAMED:
            self.problems.append(problem)

    def days_left(self) -> tuple[float | None, float | None]:
        """Return in how many days of recording the disk is full, and the four streams' limit is reached; None: never.

        At the limit the oldest segments go, so from then on only the journal fills the disk.
        """
        journal = self.streams[JOURNAL].bytes_per_day or 0.0
        four = [report for stream, report in self.streams.items() if stream is not JOURNAL]
        rate = sum(report.bytes_per_day or 0.0 for report in four)
        limit = max(self.limit_bytes - sum(report.bytes for report in four), 0) / rate if rate else None
        full = self.free_bytes / (rate + journal) if rate + journal else None
        if full is not None and limit is not None and limit < full:
            full = limit + (self.free_bytes - limit * (rate + journal)) / journal if journal else None
        return full, limit

    def to_record(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        full, limit = self.days_left()
        return {
            "state": str(self.state_dir),
            "running": self.running,
            "clean": not self.counts,
            "problem_counts": dict(self.counts),
            "problems": [asdict(problem) for problem in self.problems],
            "notes": self.notes,
            "streams": {stream.value: report.to_record() for stream, report in self.streams.items()},
            "sessions": [
                {"sid": sid, "inputs": session.inputs, "ended": session.end is not None, "gaps": session.gaps}
                | {"missing": [asdict(stretch) for stretch in self.missing.get(sid, [])]}
                for sid, session in self.sessions.items()
            ],
            "set_aside": self.aside,
            "state_files": self.state_files,
            "disk": {
                "free_bytes": self.free_bytes, "limit_bytes": self.limit_bytes, "days_to_full": full,
                "days_to_limit": limit,
            },
        }  # fmt: skip
