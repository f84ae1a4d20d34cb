"""Where cleanups are kept: under cleanups/ID the plan, and the steps that are done."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tradingbot.io.reserve import with_reserve
from tradingbot.io.segments import append_line, make_folder
from tradingbot.io.state_files import write_atomic
from tradingbot.ops.cleanup.plan import File, Item
from tradingbot.ops.jobs import unwritable

__all__ = ["Plan", "Stored", "begin", "unfinished"]

FOLDER = "cleanups"
END = "end"


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold what a cleanup is to take, and where it is archived before: `archive_dir` is "" where it is not.

    `stays` counts what is left, by kind and reason; `free_bytes` is the room where the archive goes.
    """

    kinds: tuple[str, ...]
    older_than_s: float
    archive_dir: str
    why: str
    time_ms: int
    items: tuple[Item, ...]
    stays: dict[str, dict[str, int]]
    says: tuple[str, ...] = ()
    free_bytes: int = 0
    is_running: bool = False
    id: str = ""

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(item.size for item in self.items)

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object; without the files, of which there may be many."""
        record = {name: value for name, value in asdict(replace(self, items=())).items() if name != "items"}
        return record | {"bytes": self.size, "by_kind": self.by_kind()}

    def by_kind(self) -> list[dict[str, Any]]:
        """Return of each kind how many items and files go, their bytes, the oldest and the newest time."""
        rows = []
        for kind in self.kinds:
            items = [item for item in self.items if item.kind == kind]
            rows.append(
                {
                    "kind": kind, "items": len(items), "files": sum(len(item.files) for item in items),
                    "bytes": sum(item.size for item in items),
                    "oldest_ms": min((item.first_ms for item in items), default=None),
                    "newest_ms": max((item.last_ms for item in items), default=None),
                    "stays": self.stays.get(kind, {}),
                }
            )  # fmt: skip
        return rows


@dataclass(frozen=True, slots=True)
class Stored:
    """Hold a stored plan, and the steps that are done with what each one recorded."""

    plan: Plan
    folder: Path
    done: dict[str, dict[str, Any]]

    def record(self, step: str, **facts: Any) -> None:
        """Keep that a step is done; on return it is on the disk. Raises OSError."""
        line = {"v": 1, "ts_ms": int(time.time() * 1000), "step": step, **facts}
        append_line(self.folder / "done.jsonl", json.dumps(line).encode() + b"\n")
        self.done[step] = line


def unfinished(state_dir: Path, kinds: tuple[str, ...]) -> Stored | None:
    """Return the newest cleanup of these kinds whose archive is made, and what it holds not yet deleted; else None."""
    for path in sorted((state_dir / FOLDER).glob("*/plan.json"), reverse=True):
        try:
            record = json.loads(path.read_bytes())
            items = tuple(
                Item(**{**item, "files": tuple(File(**file) for file in item["files"])}) for item in record["items"]
            )
            sets = {"kinds": tuple(record["kinds"]), "says": tuple(record["says"]), "items": items}
            plan = Plan(**{**record, **sets})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # cut off, or of another version: what it meant is planned anew
        if plan.kinds != kinds:
            continue
        done = _done(path.parent / "done.jsonl")
        return Stored(plan, path.parent, done) if "archive" in done and END not in done else None
    return None


def _done(path: Path) -> dict[str, dict[str, Any]]:
    """Return the steps that are done; a torn line counts as a step that is not."""
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                found[str(record["step"])] = record
    return found


def begin(state_dir: Path, plan: Plan) -> Stored:
    """Store a plan under an id that sorts behind all others; raise UsageError where it cannot be written."""
    folder = state_dir / FOLDER
    try:
        number, last = plan.time_ms, max((each.name for each in folder.iterdir() if each.is_dir()), default="")
        while (clean_id := f"{number:013d}") <= last and number < plan.time_ms + 1_000_000:
            number = max(number, int(last)) + 1 if last.isdigit() else number + 1
        stored = Stored(replace(plan, id=clean_id), folder / clean_id, {})
        make_folder(stored.folder)
        text = json.dumps(asdict(stored.plan)).encode()
        with_reserve(state_dir, lambda: write_atomic(stored.folder / "plan.json", text))
    except OSError as error:
        raise unwritable(folder, error) from None
    return stored
