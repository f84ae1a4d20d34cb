"""Kill -9 at each system call that a driver makes on its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.crash import machine, memory
from tests.crash.files import KINDS, Kind
from tests.crash.machine import Point
from tests.crash.rows import Outcome, Row

MEMORY = {
    "memory": Kind("memory.live", memory.check, 0.3),
    "again": Kind("memory.live", memory.check_again, 0.15, memory.prepare_again),
}
WORDS = {
    "memory": ("0", str(memory.LENGTH), "end"),
    "again": (str(memory.KILLED_AT + 1), str(memory.KILLED_AT + 1 + memory.AGAIN), "end"),
}
ALL = KINDS | MEMORY


def command(name: str, folder: Path) -> list[str]:
    """Return the command of a kind's driver; what it needs to be there is."""
    return machine.driver(ALL[name].driver, folder, *WORDS.get(name, ()))


def points_of(name: str, folder: Path, kinds: tuple[str, ...] = machine.CALLS) -> list[Point]:
    """Return each call that a kind's driver makes on its files."""
    place = folder / name
    place.mkdir()
    ALL[name].prepare(place)
    return [point for point in machine.points(command(name, place), place, ALL[name].prepare) if point[0] in kinds]


def cases(count: int, folder: Path) -> list[str]:
    """Name `count` kill points, of each kind its share, or every one that there is."""
    found = {name: points_of(name, folder) for name in ALL}
    wanted = shares({name: len(points) for name, points in found.items()}, count)
    return [
        f"{name} {call} {number}"
        for name, points in found.items()
        for call, number in machine.spread(points, wanted[name])
    ]


def shares(there: dict[str, int], count: int) -> dict[str, int]:
    """Return how many of `count` each kind gets: by weight, at least one; what one has not goes to the others."""
    wanted = {name: min(max(round(ALL[name].weight * count), 1), there[name]) for name in there}
    for name in sorted(there, key=lambda name: wanted[name] - there[name]):
        wanted[name] += min(max(count - sum(wanted.values()), 0), there[name] - wanted[name])
    return wanted


def run(case: str, folder: Path) -> Outcome:
    """Kill a driver as it enters one call, and see what it has left."""
    name, call, number = case.split()
    return _killed(name, (call, int(number)), folder)


def _killed(name: str, point: Point, folder: Path, defect: str = "") -> Outcome:
    outcome = Outcome()
    place = folder / "state"
    place.mkdir()
    ALL[name].prepare(place)
    done = machine.killed_at(point, command(name, place), defect)
    if done.returncode not in (-9, 137):
        outcome.holds(done.returncode == 0, f"the driver failed: {done.stderr.decode()[-800:]}")
        outcome.count = 0  # it did not come to that call: nothing was killed
    ALL[name].check(place, machine.lines_of(done.stdout), outcome)
    return outcome


def with_defect(name: str, defect: str) -> Callable[[Path], Outcome]:
    """Return a try that kills a driver with a defect, at up to forty of its calls, until that is found."""

    def found(folder: Path) -> Outcome:
        from tests.crash.defects import injected

        outcome = Outcome(count=0)
        for place, point in enumerate(machine.spread(points_of(name, folder), 40)):
            home = folder / str(place)
            home.mkdir()
            with injected(defect):
                outcome.add(_killed(name, point, home, defect))
            if outcome.violations:
                break
        return outcome

    return found


ROW = Row(
    "kills", "kill -9 at a system call: writer, state files, sealing, retention, the bot's memory", "kills",
    full=2000, sample=16, cases=cases, run=run, needs=machine.no_strace,
    defects={
        "acknowledged before it is written": with_defect("writer", "acknowledged before it is written"),
        "written in place": with_defect("atomic", "written in place"),
        "plain file removed first": with_defect("seal", "plain file removed first"),
        "all that is sealed deleted": with_defect("retain", "all that is sealed deleted"),
        "trigger let through at the restart": with_defect("again", "trigger let through at the restart"),
    },
)  # fmt: skip
