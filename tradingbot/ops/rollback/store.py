"""Where rollbacks are kept: under rollbacks/ID the plan, the steps that are done, copies, and the report."""

from __future__ import annotations

import contextlib
import datetime
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from tradingbot.errors import StateError, UsageError
from tradingbot.io.lines import Damaged, decode, encode
from tradingbot.io.reserve import with_reserve
from tradingbot.io.segments import append_line, make_folder
from tradingbot.io.state_files import write_atomic
from tradingbot.ops.jobs import unwritable
from tradingbot.ops.rollback.plan import Plan

__all__ = ["FOLDER", "Stored", "begin", "find", "past_rollbacks", "unfinished"]

FOLDER = "rollbacks"
END = "end"


@dataclass(frozen=True, slots=True)
class Stored:
    """Hold a stored plan, the steps that are done with what each one recorded, and the undoing that took it back."""

    plan: Plan
    folder: Path
    done: dict[str, dict[str, Any]]
    undone_by: str = ""

    @property
    def state(self) -> str:
        """Return how far it has come: planned, half done, done, or undone."""
        if self.undone_by:
            return "undone"
        return "done" if END in self.done else "half done" if self.done else "planned"

    def record(self, step: str, facts: dict[str, Any]) -> None:
        """Keep that a step is done; on return it is on the disk. Raises OSError."""
        line = {"v": 1, "ts_ms": int(time.time() * 1000), "step": step, **facts}
        append_line(self.folder / "done.jsonl", encode(line))
        self.done[step] = line

    def with_plan(self, plan: Plan) -> Stored:
        """Write another plan in this one's place. Raises OSError."""
        write_atomic(self.folder / "plan.json", msgspec.json.format(msgspec.json.encode(plan)) + b"\n")
        return replace(self, plan=plan)

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object for a list."""
        plan = self.plan
        return {
            "id": plan.id, "kind": plan.kind, "profile": plan.profile, "time_ms": plan.time_ms, "who": plan.who,
            "host": plan.host, "why": plan.why, "state": self.state, "undoes": plan.undoes, "undone_by": self.undone_by,
            "done": list(self.done), "rev": plan.code.rev if plan.code else "",
        }  # fmt: skip


def past_rollbacks(state_dir: Path) -> list[Stored]:
    """Return what is stored, the oldest first; raise StateError for a plan that cannot be read."""
    found = []
    for path in sorted((state_dir / FOLDER).glob("*/plan.json")):
        try:
            plan = msgspec.json.decode(path.read_bytes(), type=Plan)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise StateError(f"{path} is damaged ({error}): move its folder aside") from None
        found.append(Stored(plan, path.parent, _done(path.parent / "done.jsonl")))
    undone = {
        each.plan.undoes: each.plan.id
        for each in found
        if each.plan.undoes and each.done.keys() & {"overrides", "start"}
    }
    return [replace(each, undone_by=undone.get(each.plan.id, "")) for each in found]


def _done(path: Path) -> dict[str, dict[str, Any]]:
    """Return the steps that are done; a line that is torn or damaged counts as a step that is not."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(Damaged):
                record = decode(line)
                found[str(record.get("step"))] = record
    return found


def unfinished(state_dir: Path, kind: str, profile: str, undoes: str = "") -> Stored | None:
    """Return the newest of its kind where it was begun and has not come to its end, None otherwise."""
    same = [
        each
        for each in past_rollbacks(state_dir)
        if (each.plan.kind, each.plan.profile, each.plan.undoes) == (kind, profile, undoes)
    ]
    return same[-1] if same and same[-1].state in ("planned", "half done") else None


def find(state_dir: Path, rollback_id: str = "") -> Stored:
    """Return a rollback by its id, the newest one without; raise UsageError where there is none."""
    found = [each for each in past_rollbacks(state_dir) if each.plan.kind == "rollback"]
    if rollback_id:
        found = [each for each in found if each.plan.id == rollback_id]
    if not found:
        what = f"rollback {rollback_id}" if rollback_id else "rollback"
        raise UsageError(f"there is no {what} in {state_dir / FOLDER}: tradingbot rollback --list shows them")
    return found[-1]


def begin(state_dir: Path, plan: Plan) -> Stored:
    """Store a plan under an id that sorts behind all others; raise UsageError where it cannot be written."""
    folder = state_dir / FOLDER
    try:
        last = max((each.name for each in folder.iterdir() if _time_ms(each.name)), default="")
        time_ms = plan.time_ms
        while (rollback_id := _id(time_ms)) <= last:
            time_ms = max(time_ms, _time_ms(last)) + 1
        stored = Stored(replace(plan, id=rollback_id), folder / rollback_id, {})
        make_folder(stored.folder)
        return with_reserve(state_dir, lambda: stored.with_plan(stored.plan))
    except OSError as error:
        raise unwritable(folder, error) from None


def _id(time_ms: int) -> str:
    when = datetime.datetime.fromtimestamp(time_ms // 1000, datetime.UTC)
    return f"{when:%Y%m%dT%H%M%S}-{time_ms % 1000:03d}"


def _time_ms(rollback_id: str) -> int:
    """Return the time of an id, 0 for a stranger's folder."""
    try:
        when = datetime.datetime.strptime(rollback_id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=datetime.UTC)
        return int(when.timestamp()) * 1000 + int(rollback_id[16:19])
    except ValueError:
        return 0
