"""Fixes: what a doctor can mend, planned and shown first; each may be run twice, and is kept in the audit."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import socket
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tradingbot.errors import UsageError
from tradingbot.io.state_files import lock_owner
from tradingbot.ops.doctor import environment
from tradingbot.ops.doctor.disk import ADVICE, measure
from tradingbot.ops.doctor.past import ANCHORS, BadAnchorsError, absurd_anchors, read_anchors
from tradingbot.ops.doctor.patient import UNMENDED, Patient
from tradingbot.ops.doctor.start import overrides as look_at_overrides
from tradingbot.ops.doctor.state import LOCKS, left_lock

__all__ = ["FIXES", "Fix", "FixResult", "apply_fix", "plan_fix"]


@dataclass(frozen=True, slots=True)
class Fix:
    """Hold what a fix would do: `steps` in words, in order; none where there is nothing to mend.

    `advice` is what a person has to do instead, or beside it.
    """

    name: str
    says: str
    steps: tuple[str, ...] = ()
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the plan in words."""
        lines = [f"{self.name}: {self.says}", *(f"  {number}. {step}" for number, step in enumerate(self.steps, 1))]
        lines += [f"  {line}" for line in self.advice.splitlines()]
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"name": self.name, "says": self.says, "steps": list(self.steps), "advice": self.advice}


@dataclass(frozen=True, slots=True)
class FixResult:
    """Hold what a fix did, in words, and whether that is as it should be."""

    name: str
    ok: bool
    did: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """Return 0 where it is mended, else 1."""
        return 0 if self.ok else 1

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"name": self.name, "ok": self.ok, "did": list(self.did)}


def plan_fix(name: str, patient: Patient) -> Fix:
    """Return what the fix of a name would do, changing nothing; raise UsageError for a name that is none."""
    if name not in FIXES:
        raise UsageError(f"there is no fix {name!r:.60}: there are {', '.join(FIXES)}")
    return FIXES[name][0](patient)


def apply_fix(fix: Fix, patient: Patient, why: str, progress: Callable[[str], None] = lambda _: None) -> FixResult:
    """Do what was planned, the audit first; what is mended already is left. Raises UsageError where it cannot be."""
    if not fix.steps:
        return FixResult(fix.name, True, ("nothing to do",))
    try:
        return FIXES[fix.name][1](fix, patient, why, progress)
    except OSError as error:
        raise UsageError(
            f"{error.filename or patient.state_dir}: {error.strerror or error}: nothing more was changed"
        ) from None


def audit(state_dir: Path, what: str, why: str, **facts: str) -> None:
    """Append a line to the audit, as io.audit does, also while its packages are broken. Raises OSError."""
    try:
        from tradingbot.io.audit import append_audit
    except Exception:  # noqa: BLE001  (whatever is broken)
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        who = str(os.getuid())
        with contextlib.suppress(KeyError, OSError):
            who = getpass.getuser()
        record = {
            "v": 1, "ts_ms": int(time.time() * 1000), "who": who, "host": socket.gethostname(), "pid": os.getpid(),
            "what": what, "why": why, **facts,
        }  # fmt: skip
        body = json.dumps(record, separators=(",", ":")).encode()[:-1]
        path = state_dir / "audit.jsonl"
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                file.write(b"\n")  # a torn line must not take this one with it
            file.write(b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body)))
            file.flush()
            os.fsync(file.fileno())
    else:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        append_audit(state_dir, what, why, **facts)


def put_aside(path: Path) -> Path:
    """Give a file a name of its own beside it that nothing has yet; return it. Raises OSError."""
    for number in range(1, 10_000):
        aside = path.with_name(f"{path.name}.bad-{number}")
        if not os.path.lexists(aside):
            path.rename(aside)
            return aside
    raise OSError(17, "10,000 bad files are kept already", str(path))


# lock


def _plan_lock(patient: Patient) -> Fix:
    steps, facts = [], {}
    for name in LOCKS:
        path = patient.state_dir / name
        if path.is_dir() or path.is_fifo() or (path.is_symlink() and not path.exists()):
            steps.append(f"move {path} aside: it is no file")
            facts[name] = "aside"
        elif lock_owner(patient.state_dir, name) is None:
            with contextlib.suppress(OSError):
                if left_lock(path) is not None:
                    steps.append(f"empty {path}: nobody holds it, and whom it names is gone")
                    facts[name] = "empty"
    held = [name for name in LOCKS if lock_owner(patient.state_dir, name) is not None]
    advice = f"{', '.join(held)}: held by a living process, and left alone" if held else ""
    return Fix("lock", "what a killed bot left over" if steps else "no lock is left over", tuple(steps), advice, facts)


def _fix_lock(fix: Fix, patient: Patient, why: str, _: Callable[[str], None]) -> FixResult:
    did = []
    for name, what in fix.facts.items():
        path = patient.state_dir / name
        audit(patient.state_dir, "doctor lock", why, file=name, how=what)
        if what == "aside":
            did.append(f"{path} is {put_aside(path).name} now")
            continue
        with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                did.append(f"{path} is held now: left alone")
                continue
            file.truncate(0)  # while nobody else can take it
        did.append(f"{path} is empty")
    return FixResult("lock", True, tuple(did))


# overrides


def _plan_overrides(patient: Patient) -> Fix:
    if look_at_overrides(patient).ok:
        return Fix("overrides", "overrides.json can be read: nothing to mend")
    if patient.is_unmended:
        return Fix(
            "overrides", f"what the last good copy says {UNMENDED}", advice="tradingbot doctor --fix environment"
        )
    from tradingbot.io.override_file import peek_entries

    entries, trouble = peek_entries(patient.state_dir)
    last = ", ".join(f"{key} = {entry.value}" for key, entry in entries.items()) or "no overrides at all"
    steps = (
        f"set {patient.state_dir / 'overrides.json'} aside as overrides.json.bad-N",
        f"write the last good one anew: {last}",
    )
    return Fix("overrides", trouble, steps, "a running bot goes on by what it has, which is the last good one too")


def _fix_overrides(fix: Fix, patient: Patient, why: str, _: Callable[[str], None]) -> FixResult:
    from tradingbot.io.override_file import change_overrides, peek_entries
    from tradingbot.io.overrides import read_settings

    below = read_settings(
        patient.home, config=patient.config, state=patient.state, assignments=patient.assignments,
        environ=patient.environ, overrides=False,
    )  # fmt: skip
    assert below.again is not None
    again = below.again

    def check(values: Mapping[str, Any]) -> None:
        again(overrides=values)

    audit(patient.state_dir, "doctor overrides", why)
    change_overrides(patient.state_dir, {}, why, check)
    entries, trouble = peek_entries(patient.state_dir)
    return FixResult(fix.name, not trouble, (trouble or f"{len(entries)} overrides are in force",))


# anchors


def _plan_anchors(patient: Patient) -> Fix:
    path, steps = patient.state_dir / ANCHORS, []
    facts: dict[str, Any] = {"aside": False, "symbols": []}
    try:
        read_anchors(path)
    except FileNotFoundError:
        pass
    except (OSError, BadAnchorsError) as error:
        steps.append(
            f"move {path} aside as {path.name}.bad-N ({error}); the file before it, or the stream, takes its place"
        )
        facts["aside"] = True
    absurd = absurd_anchors(patient)
    if absurd:
        facts["symbols"] = list(absurd)
        when = "at the next tick" if patient.is_running else "at the next start"
        steps += [f"have {symbol} begin anew {when}: {why}" for symbol, why in absurd.items()]
    advice = "session, window and anchor of those symbols begin anew; positions stay" if absurd else ""
    if absurd and patient.is_unmended:
        return Fix("anchors", f"anchors {UNMENDED}", advice="tradingbot doctor --fix environment")
    return Fix("anchors", "anchors that cannot be" if steps else "no anchor is wrong", tuple(steps), advice, facts)


def _fix_anchors(fix: Fix, patient: Patient, why: str, _: Callable[[str], None]) -> FixResult:
    did, ok, path = [], True, patient.state_dir / ANCHORS
    if fix.facts["aside"] and os.path.lexists(path):
        audit(patient.state_dir, "doctor anchors", why, file=ANCHORS)
        did.append(f"{path} is {put_aside(path).name} now")
    if fix.facts["symbols"]:
        from tradingbot.ops.anchors import plan_reset, request_reset, was_taken
        from tradingbot.ops.record.history import History

        if patient.effective is None:
            raise UsageError(f"the settings are broken: {patient.trouble}")
        plan = plan_reset(History(patient.state_dir), patient.effective.settings, fix.facts["symbols"], every=False)
        request = request_reset(patient.state_dir, plan, why)
        names = ", ".join(plan.anchors)
        ok = not plan.running or was_taken(request)
        taken = "the bot has taken it" if ok else f"the bot has not looked yet ({request})"
        did.append(f"{names}: {taken if plan.running else 'the next start does it'}")
    return FixResult(fix.name, ok, tuple(did))


# disk


def _plan_disk(patient: Patient) -> Fix:
    room = measure(patient)
    lines = [f"{size / 1e6:,.1f} MB {path}" for size, path in room.largest]
    says = f"{room.free_mb:,.0f} MB are free at {room.at}; {room.words()}. Nothing is deleted unless you name it"
    return Fix("disk", says, (), "\n".join([*lines, ADVICE]))


# environment


def _plan_environment(patient: Patient) -> Fix:
    plan = environment.plan_rebuild()
    if patient.is_running and plan.steps:
        pid = (patient.owner or {}).get("pid", "?")
        advice = f"process {pid} runs out of it, perhaps: tradingbot stop first"
        return Fix("environment", "refused while a bot runs", (), advice, {})
    return Fix("environment", plan.says, plan.steps, plan.advice, {"plan": plan})


def _fix_environment(fix: Fix, patient: Patient, why: str, progress: Callable[[str], None]) -> FixResult:
    plan: environment.RebuildPlan = fix.facts["plan"]
    audit(patient.state_dir, "doctor environment", why, environment=str(plan.folder), lock=str(plan.lock))
    did, ok = environment.rebuild(plan, progress)
    return FixResult(fix.name, ok, did)


def _nothing(fix: Fix, _: Patient, __: str, ___: Callable[[str], None]) -> FixResult:
    return FixResult(fix.name, True, ("nothing to do",))


Planner = Callable[[Patient], Fix]
Doer = Callable[[Fix, Patient, str, Callable[[str], None]], FixResult]

FIXES: dict[str, tuple[Planner, Doer]] = {
    "environment": (_plan_environment, _fix_environment),
    "overrides": (_plan_overrides, _fix_overrides),
    "lock": (_plan_lock, _fix_lock),
    "anchors": (_plan_anchors, _fix_anchors),
    "disk": (_plan_disk, _nothing),
}
"""What can be mended, by name: how it is planned, and how it is done."""
