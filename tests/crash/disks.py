"""Disks that fail, fill, run out of inodes, refuse, or take their time: the engine lives, and says what is missing."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.crash import machine, memory
from tests.crash.files import KINDS
from tests.crash.kills import WORDS, points_of
from tests.crash.machine import Point
from tests.crash.power import check_bot
from tests.crash.rows import Outcome, Row
from tradingbot.engine.events import Condition, ConditionName, Input
from tradingbot.ops.record.prove import prove

ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES", "EDQUOT", "EMFILE")
FAILING = ("writer", "memory")
LAST = str(memory.LENGTH)


def check_memory(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that all that was told is on disk or told to be missing, and that a start goes on from it."""
    inputs: dict[int, Input] = {}
    for line in told:
        if line.startswith("input"):
            _, seq, what = line.split(" ", 2)
            own = Condition(ConditionName.DEGRADED, None if what == "None" else what)
            inputs[int(seq)] = memory.series(memory.LENGTH)[int(what)] if what.isdigit() else own
    outcome.holds(inputs, "the driver told nothing", "lost")
    disk = memory.read_state(folder, outcome)
    never = memory.Never()
    sid = max(disk.inputs, default="")
    found = disk.inputs.get(sid, {})
    never.take(disk, sid, inputs, outcome)
    absent = inputs.keys() - found.keys()
    outcome.holds(len(absent) <= disk.missing, f"{sorted(absent)[:9]} are missing, {disk.missing} are told of", "gaps")
    _blocked(disk, found, outcome)
    if not absent and not disk.missing:
        memory.resume(folder, memory.LENGTH, outcome, never)
    else:
        life = memory.Life(folder, memory.settings_at(memory.LENGTH), memory.now_at(memory.LENGTH))
        life.begin()
        for event in memory.series(memory.LENGTH + 10)[memory.LENGTH :]:
            life.tell(event)
        life.recording.end()
        proof = prove(folder)
        outcome.holds(proof.exit_code != 1, f"prove: {proof.text()}")


def _blocked(disk: memory.OnDisk, inputs: dict[int, dict[str, Any]], outcome: Outcome) -> None:
    """See that nothing was entered while the journal could not be written."""
    since = [seq for seq, entry in inputs.items() if entry.get("name") == "degraded" and entry["why"] is not None]
    until = [seq for seq, entry in inputs.items() if entry.get("name") == "degraded" and entry["why"] is None]
    for entry in disk.journal:
        if entry.get("type") != "decision":
            continue
        before = [seq for seq in since if seq < entry["cause"]]
        if before and not any(max(before) < seq < entry["cause"] for seq in until):
            outcome.holds("degraded" in entry["reasons"], f"entered while degraded: {entry['decision_id']}")


CHECKS: dict[str, Callable[[Path, list[str], Outcome], None]] = {
    "writer": KINDS["writer"].check, "memory": check_memory,
}  # fmt: skip
DRIVERS = {"writer": "files.writer", "memory": "memory.live"}


def _command(name: str, folder: Path) -> list[str]:
    return machine.driver(DRIVERS[name], folder, *WORDS.get(name, ()))


def error_cases(count: int, folder: Path) -> list[str]:
    """Name failures of each call that a driver makes on its files once it has begun, every kind of error in turn."""
    found: list[str] = []
    for name in FAILING:
        points = machine.spread(points_of(name, folder), max(count // len(FAILING), 1))
        found += [
            f"{name} {call} {number} {ERRORS[place % len(ERRORS)]}" for place, (call, number) in enumerate(points)
        ]
    return found


def errors(case: str, folder: Path) -> Outcome:
    """Let one call fail, and see that nothing falls over, is lost or goes untold."""
    name, call, number, error = case.split()
    return _failing(name, (call, int(number)), error, folder)


def _failing(name: str, point: Point, error: str, folder: Path, defect: str = "") -> Outcome:
    outcome = Outcome()
    state = folder / "state"
    state.mkdir()
    done = machine.failing_at(point, error, _command(name, state), defect=defect)
    told = machine.lines_of(done.stdout)
    why = done.stderr.decode()[-900:]
    if (
        name == "memory" and "begun" not in told and ("OSError" in why or "StateError" in why)
    ):  # a start that refuses has forgotten nothing
        memory.check(state, told, outcome)
        return outcome
    if not outcome.holds(done.returncode == 0, f"the driver ended with {done.returncode}: {why}"):
        return outcome
    if name == "writer" and point[0] == "fsync":
        said = any(word.startswith(("doubt", "failed", "unsealed")) for word in told)
        outcome.holds(said, "a flush that failed was not told", "lost")
    CHECKS[name](state, told, outcome)
    return outcome


def _failing_somewhere(name: str, call: str, error: str, defect: str) -> Callable[[Path], Outcome]:
    def found(folder: Path) -> Outcome:
        outcome = Outcome(count=0)
        points = points_of(name, folder, (call,))
        for place, point in enumerate(machine.spread(points, 30)):
            home = folder / str(place)
            home.mkdir()
            outcome.add(_failing(name, point, error, home, defect))
            if outcome.violations:
                break
        return outcome

    return found


def full_cases(count: int, _: Path) -> list[str]:
    """Name shortages of space and of inodes, from one input to another."""
    kinds = ("space", "inodes")
    return [f"{kinds[n % 2]} {1 + n * 7 % 50} {1 + n * 7 % 50 + 5 + n * 5 % 30}" for n in range(count)]


def full(case: str, folder: Path, defect: str = "") -> Outcome:
    """Live while the disk, or its inodes, run out and come back."""
    kind, first, last = case.split()
    options = "size=1m,mode=700" if kind == "space" else "size=8m,nr_inodes=60,mode=700"
    with machine.tmpfs(folder / "small", options) as small:
        return _short(small / "state", [kind, first, last], defect)


def handle_cases(count: int, _: Path) -> list[str]:
    """Name limits of open files, from 4 to 64."""
    return [f"{4 + n % 61} {5 + n * 7 % 40} {5 + n * 7 % 40 + 10 + n % 20}" for n in range(count)]


def handles(case: str, folder: Path, defect: str = "") -> Outcome:
    """Live while no file can be opened."""
    most, first, last = case.split()
    return _short(folder / "state", ["descriptors", first, last, most], defect)


def _short(state: Path, words: list[str], defect: str = "") -> Outcome:
    outcome = Outcome()
    state.mkdir()
    done = machine.run(machine.driver("memory.live", state, "0", LAST, "end", *words), defect=defect)
    if outcome.holds(done.returncode == 0, f"it ended with {done.returncode}: {done.stderr.decode()[-900:]}"):
        check_memory(state, machine.lines_of(done.stdout), outcome)
    return outcome


def slow_cases(count: int, _: Path) -> list[str]:
    """Name calls that take two seconds."""
    calls = ("fsync", "write", "rename", "link")
    return [f"{calls[n % len(calls)]} {5 + 3 * (n // len(calls))}" for n in range(count)]


def slow(case: str, folder: Path, defect: str = "") -> Outcome:
    """Let calls of the threads that write take two seconds: all is there, and the engine's thread touches no file."""
    call, number = case.split()
    outcome = Outcome()
    state = folder / "state"
    state.mkdir()
    command = machine.driver("power.bot", state, "600")
    with tempfile.NamedTemporaryFile(prefix="strace-") as log:
        options = ["-f", "-y", "-o", log.name, "-e", "trace=write,fsync,openat,rename,link,unlink,mkdir"]
        options += ["-e", f"inject={call}:delay_enter=2000000:when={number}"]  # of each thread
        done = machine.run(machine.traced(options, command), defect=defect)
        lines = Path(log.name).read_text(errors="replace").splitlines()
    outcome.holds(done.returncode == 0, f"it ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    engine = lines[0].split()[0]
    began = next((n for n, line in enumerate(lines) if re.match(rf"{engine} +write\(1<", line)), 0)
    own = [line for line in lines[began:] if line.startswith(f"{engine} ") and str(state) in line]
    outcome.holds(began and not own, f"the engine's thread waits for the disk: {own[:3]}")
    outcome.holds(any(not line.startswith(f"{engine} ") and str(state) in line for line in lines), "nobody wrote")
    check_bot(state, machine.lines_of(done.stdout), outcome)
    disk = memory.read_state(state, outcome)
    first = min(disk.inputs, default="")
    held = len([seq for seq in disk.inputs.get(first, {}) if seq <= 600])
    outcome.holds(held == 600, f"{held} inputs of 600", "lost")
    return outcome


def _defect(run: Callable[..., Outcome], case: str, name: str) -> Callable[[Path], Outcome]:
    return lambda folder: run(case, folder, name)


ROWS = (
    Row(
        "errors", "each call fails once (no space, I/O error, read-only, no access, quota, no descriptor)", "failures",
        full=1_100, sample=16, cases=error_cases, run=errors, needs=machine.no_strace,
        defects={
            "flush retried": _failing_somewhere("writer", "fsync", "EIO", "flush retried"),
            "lost records not told": _failing_somewhere("memory", "write", "ENOSPC", "lost records not told"),
        },
    ),
    Row(
        "full", "a disk that fills, or runs out of inodes, and has room again", "disks",
        full=60, sample=4, cases=full_cases, run=full, needs=machine.no_mounts,
        defects={"lost records not told": _defect(full, "space 10 60", "lost records not told")},
    ),
    Row(
        "handles", "no descriptors for a while, limits of 4 to 64", "limits",
        full=61, sample=4, cases=handle_cases, run=handles,
        defects={"lost records not told": _defect(handles, "4 5 45", "lost records not told")},
    ),
    Row(
        "slow", "calls that take two seconds: nothing lost, the engine's thread touches no file", "calls",
        full=12, sample=1, cases=slow_cases, run=slow, needs=machine.no_strace,
        defects={"engine's thread writes": _defect(slow, "fsync 5", "engine's thread writes")},
    ),
)  # fmt: skip
