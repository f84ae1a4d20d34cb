"""Rolling back: a stored plan is carried out in steps that may be interrupted and repeated, then checked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from tradingbot.config import FLAGS
from tradingbot.errors import Unrecoverable, UsageError
from tradingbot.io.audit import append_audit
from tradingbot.io.override_file import CLEAR, Change, Override, change_overrides, peek_entries
from tradingbot.io.overrides import Effective
from tradingbot.io.reserve import with_reserve
from tradingbot.io.saved import ANCHORS, CHECKPOINT
from tradingbot.io.segments import make_folder
from tradingbot.io.state_files import write_atomic
from tradingbot.ops.anchors import plan_reset, request_reset
from tradingbot.ops.jobs import one_at_a_time
from tradingbot.ops.record.history import History
from tradingbot.ops.rollback.check import Check, check_bot
from tradingbot.ops.rollback.plan import PROFILES, Plan, make_plan, make_undo
from tradingbot.ops.rollback.restart import find_bot, restart, status_of
from tradingbot.ops.rollback.store import END, Stored, begin, find, past_rollbacks, unfinished
from tradingbot.ops.rollback.switch import was_adopted

__all__ = ["Report", "RollbackError", "execute", "plan_rollback", "plan_undo"]

TRIES = 5  # where others change the same overrides meanwhile
COPIED = ("overrides.json", "stamp.json", CHECKPOINT)


class RollbackError(Unrecoverable):
    """Say at which step a rollback has stopped, and what becomes of it."""


@dataclass(frozen=True, slots=True)
class Report:
    """Hold what a rollback has done: its plan, what each step recorded, and what the check found."""

    plan: Plan
    state: str
    folder: str
    steps: dict[str, dict[str, Any]]
    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """Return 0 where it is done and checked, else 1."""
        return 0 if self.state == "done" and all(check.ok for check in self.checks) else 1

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "id": self.plan.id, "state": self.state, "exit_code": self.exit_code, "folder": self.folder,
            "plan": self.plan.to_record(), "steps": self.steps, "checks": [asdict(check) for check in self.checks],
        }  # fmt: skip

    def text(self) -> str:
        """Return the report in words."""
        from tradingbot.ops.rollback.text import report_text

        return report_text(self.to_record())


def plan_rollback(
    effective: Effective, profile: str, why: str, restart: bool = False, from_empty: bool = False,
    compares: bool = True,
) -> Stored | Plan:  # fmt: skip
    """Return the rollback of a profile that was begun and goes on, else a plan; raise UsageError for no profile."""
    if profile not in PROFILES:
        near = difflib.get_close_matches(profile.lower(), PROFILES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PROFILES)}; and code, for older code"
        raise UsageError(f"there is no profile {profile}: {hint}")
    going_on = unfinished(effective.state_dir, "rollback", profile)
    if going_on is not None:
        return going_on
    plan = make_plan(effective, PROFILES[profile], why, restart, from_empty, compares)
    return replace(plan, from_empty=from_empty and not _has_begun_empty(effective.state_dir, plan.bot.sid))


def plan_undo(effective: Effective, rollback_id: str, why: str, restart: bool = False) -> Stored | Plan:
    """Return the undoing of a rollback (the last one, where `rollback_id` is empty) that goes on, else its plan."""
    rolled_back = find(effective.state_dir, rollback_id).plan
    going_on = unfinished(effective.state_dir, "undo", rolled_back.profile, rolled_back.id)
    return going_on if going_on is not None else make_undo(effective, rolled_back, why, restart)


def _has_begun_empty(state_dir: Path, sid: str) -> bool:
    """Say whether the session that runs, or the next one, is what a rollback has made to begin from empty."""
    for stored in past_rollbacks(state_dir):
        asked, restarted = stored.done.get("from-empty", {}), stored.done.get("restart", {})
        if asked and (restarted.get("new_sid", "") == sid != "" or Path(str(asked.get("request"))).is_file()):
            return True
    return False


def execute(effective: Effective, plan: Plan) -> Report:
    """Carry out a plan, or go on with the one of its kind that was begun; return what was done.

    Each step may be interrupted, and repeated: whatever is done is not done again. Raises BusyError where another one
    is at work, RollbackError where a step fails, UsageError where not even the plan can be stored.
    """
    with one_at_a_time(effective.state_dir, "rollback"):
        going_on = unfinished(effective.state_dir, plan.kind, plan.profile, plan.undoes)
        return _Run(effective, going_on or begin(effective.state_dir, plan)).run()


class _Run:
    """Carry out one stored plan."""

    def __init__(self, effective: Effective, stored: Stored) -> None:
        self._effective, self._stored = effective, stored
        self._state_dir = effective.state_dir
        self._checks: tuple[Check, ...] = ()

    @property
    def _plan(self) -> Plan:
        return self._stored.plan

    def run(self) -> Report:
        """Do every step that is not done; leave a report, also where a check fails."""
        is_undo = self._plan.kind == "undo"
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "begin": lambda: self._audit("begins"),
            **({} if is_undo else {"backup": self._backup}),
            "overrides": self._overrides,
            "adopted": self._adopted,
            **({"from-empty": self._from_empty} if self._plan.from_empty else {}),
            "restart": self._restart,
            "check": self._check,
            END: lambda: self._audit("done"),
        }
        for name, step in steps.items():
            if name in self._stored.done:
                continue
            try:
                facts = with_reserve(self._state_dir, step)  # each may be done again
                if name == "check" and not all(check.ok for check in self._checks):
                    self._audit("check failed")
                    return self._report()
                with_reserve(self._state_dir, partial(self._stored.record, name, facts))
            except (OSError, Unrecoverable) as error:
                raise RollbackError(self._stopped(name, error)) from None
        found = self._stored.done["check"].get("checks", ())
        self._checks = tuple(Check(**check) for check in found)
        return self._report()

    def _report(self) -> Report:
        report = Report(
            self._plan, self._stored.state, str(self._stored.folder), self._stored.done, self._checks
        )  # fmt: skip
        try:
            text = orjson.dumps(report.to_record(), option=orjson.OPT_INDENT_2)
            write_atomic(self._stored.folder / "report.json", text + b"\n")
            write_atomic(self._stored.folder / "report.txt", report.text().encode() + b"\n")
        except OSError as error:
            raise RollbackError(f"{self._name} is {report.state}, its report cannot be kept: {error}") from None
        return report

    @property
    def _name(self) -> str:
        return f"{self._plan.kind} {self._plan.id}"

    def _stopped(self, step: str, error: Exception) -> str:
        entries, _ = peek_entries(self._state_dir)
        changes = [change for change in self._plan.changes if change.is_change]
        changed = [change.key for change in changes if entries.get(change.key) == change.after]
        what = f"overridden so far: {', '.join(changed)}" if changed else "nothing is changed"
        said = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
        return f"{self._name} stopped at step {step}: {said}; {what}; the same command goes on with it"

    def _audit(self, word: str) -> dict[str, Any]:
        plan = self._plan
        facts = {"undoes": plan.undoes} if plan.undoes else {}
        append_audit(self._state_dir, f"{plan.kind} {word}", plan.why, id=plan.id, profile=plan.profile, **facts)
        return {}

    def _backup(self) -> dict[str, Any]:
        """Copy what says how the bot was set and where it stood; never the streams."""
        folder = self._stored.folder / "backup"
        found = [self._effective.files[0], *(self._state_dir / name for name in COPIED)]
        anchors = (self._state_dir / ANCHORS).parent
        targets = {path: folder / path.name for path in found}
        targets |= {path: folder / "anchors" / path.name for path in sorted(anchors.glob("*"))}
        copied = []
        make_folder(folder / "anchors")
        for path, target in targets.items():
            if path.is_file():
                write_atomic(target, path.read_bytes())
                copied.append(str(target.relative_to(folder)))
        return {"files": copied}

    def _overrides(self) -> dict[str, Any]:
        """Change all overrides together; what others have changed since the plan is seen, and the plan follows."""
        for _ in range(TRIES):
            self._follow(peek_entries(self._state_dir)[0])
            wanted = {change.key: CLEAR if change.after is None else change.after for change in self._plan.changes}
            only = {change.key: change.before for change in self._plan.changes}
            change_overrides(self._state_dir, wanted, self._plan.why, self._validate, only)
            entries, _ = peek_entries(self._state_dir)
            if all(entries.get(change.key) == change.after for change in self._plan.changes):
                changed = [change.key for change in self._plan.changes if change.is_change]
                return {"changed": changed, "left": list(self._plan.foreign)}
        raise UsageError("others change the same overrides again and again")

    def _follow(self, entries: Mapping[str, Override]) -> None:
        """Let the plan begin from the overrides that are there now, if they are others than when it was made."""
        changes, foreign = [], dict(self._plan.foreign)
        for change in self._plan.changes:
            now = entries.get(change.key)
            if now in (change.before, change.after):
                changes.append(change)
            elif self._plan.kind == "undo":
                foreign[change.key] = now
            else:
                is_off = now is not None and now.value is False
                changes.append(replace(change, before=now, after=now if is_off else change.after))
        if tuple(changes) != self._plan.changes:
            self._stored = self._stored.with_plan(replace(self._plan, changes=tuple(changes), foreign=foreign))

    def _validate(self, values: Mapping[str, Any]) -> None:
        assert self._effective.again is not None
        self._effective.again(overrides=dict(values))

    def _adopted(self) -> dict[str, Any]:
        """See that a running bot goes by it."""
        changes = [Change(change.key, change.before, change.after) for change in self._plan.changes]
        adopted = was_adopted(self._state_dir, changes)
        if adopted is False:
            raise UsageError("the running bot has not taken the overrides up: look at its log")
        return {"adopted": adopted}

    def _from_empty(self) -> dict[str, Any]:
        """Have every anchor begin anew, in the session behind the restart."""
        bot = find_bot(self._state_dir)
        try:
            reset = plan_reset(History(self._state_dir), self._effective.settings, (), every=True)
        except UsageError as error:
            return {"symbols": [], "says": str(error)}
        after = self._plan.bot.sid if bot.is_running else ""
        request = request_reset(self._state_dir, reset, self._plan.why, after)
        return {"symbols": list(reset.anchors), "request": str(request)}

    def _restart(self) -> dict[str, Any]:
        """Restart a running bot that needs it, unless that has happened; start nothing."""
        bot = find_bot(self._state_dir)
        if not bot.is_running:
            return {"says": f"no bot runs (it is {bot.state}): nothing was started"}
        running = status_of(self._state_dir).get("flags", {})
        changes = [change for change in self._plan.changes if FLAGS[change.key].restart]
        late = [change.key for change in changes if running.get(change.key) != change.new_value]
        is_needed = bool(late) or (self._plan.from_empty and bot.sid <= self._plan.bot.sid)
        if not self._plan.restart and late:
            return {"says": f"not asked for: {', '.join(late)} at the next start"}
        if not self._plan.restart or not is_needed:
            begun = self._plan.bot.sid < bot.sid and self._plan.restart
            return {"new_sid": bot.sid, "says": "it has begun anew since"} if begun else {"says": "not needed"}
        if not bot.sid:
            raise RollbackError(f"the bot (process {bot.pid}) has said nothing yet")
        done = restart(self._state_dir, bot, self._plan.why, self._effective.settings.STOP_TIMEOUT_S)
        if done.trouble:
            raise RollbackError(done.trouble)
        return done.to_record()

    def _check(self) -> dict[str, Any]:
        """See that it is as planned: overrides, and a running bot."""
        entries, _ = peek_entries(self._state_dir)
        wrong = [change.key for change in self._plan.changes if entries.get(change.key) != change.after]
        says = f"changed since: {', '.join(wrong)}" if wrong else "as planned"
        since_ms = int(self._stored.done["adopted"]["ts_ms"])
        self._checks = (Check("overrides", not wrong, says), *check_bot(self._effective, self._plan, since_ms))
        return {"checks": [asdict(check) for check in self._checks]}
