"""What a row of the crash test is, and what comes of its cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KEPT = 20  # violations of a case that are told in words; all are counted


@dataclass(slots=True)
class Outcome:
    """Count what was tried and checked in a case, and what was violated, by kind and in words."""

    count: int = 1
    checked: int = 0
    lost: int = 0
    unreadable: int = 0
    gaps: int = 0
    other: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def violations(self) -> int:
        """Return how much was violated."""
        return self.lost + self.unreadable + self.gaps + self.other

    def holds(self, fact: object, text: str, kind: str = "other") -> bool:
        """Check a fact; where it does not hold, count it as `kind` and say so."""
        self.checked += 1
        if not fact:
            self.fail(text, kind)
        return bool(fact)

    def fail(self, text: str, kind: str = "other") -> None:
        """Count a violation: lost, unreadable, gaps or other."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.wrong) < KEPT:
            self.wrong.append(text)

    def add(self, other: Outcome) -> None:
        """Add another outcome's counts to these."""
        for name in ("count", "checked", "lost", "unreadable", "gaps", "other"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong = (self.wrong + other.wrong)[:KEPT]

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def always() -> str:
    """Say that nothing is in the way."""
    return ""


@dataclass(frozen=True, slots=True)
class Row:
    """Describe one row: `cases` names as many cases as asked for, `run` tries one in an empty folder.

    `defects` are defects that are put into the product on purpose, each with a try that must find a violation. `needs`
    says in one line why the row cannot be run here, "" if it can. `full` and `sample` are how many tries `make crash`
    and `make test` make; `per_case` of them are one case.
    """

    name: str
    what: str
    unit: str
    full: int
    sample: int
    cases: Callable[[int, Path], list[str]]
    run: Callable[[str, Path], Outcome]
    defects: Mapping[str, Callable[[Path], Outcome]] = field(default_factory=dict)
    needs: Callable[[], str] = always


def numbered(per_case: int) -> Callable[[int, Path], list[str]]:
    """Return a function that names cases of `per_case` tries each, by number and size: what a seeded row needs."""

    def cases(count: int, _: Path) -> list[str]:
        return [f"{first}+{min(per_case, count - first)}" for first in range(0, count, per_case)]

    return cases


def span(case: str) -> range:
    """Return the numbers that a case of `numbered` stands for."""
    first, _, count = case.partition("+")
    return range(int(first), int(first) + int(count))
