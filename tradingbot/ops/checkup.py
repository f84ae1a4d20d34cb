"""Checks as values, with the standard library alone: a verdict, what it rests on, what to do, how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from tradingbot.errors import TradingBotError

__all__ = ["Finding", "Verdict", "findings_text", "run_checks", "worst"]


class Verdict(StrEnum):
    """Say what came of a check; FAILED alone is a failure."""

    OK = "ok"
    NOT_APPLICABLE = "not applicable"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold what a check found.

    `says` is one sentence for people; `evidence` the facts that it rests on, as JSON; `fix` what to do, commands
    included; `profile` the rollback that helps, if one does; `seconds` how long the look took.
    """

    name: str
    verdict: Verdict
    says: str
    evidence: dict[str, Any] = field(default_factory=dict)
    fix: str = ""
    profile: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Return whether this is no failure."""
        return self.verdict is not Verdict.FAILED

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


Check = Callable[[], Finding | Iterable[Finding]]


def run_checks(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Make check after check; yield what each found as it ends. One that itself fails is a failure by its name."""
    for name, check in checks:
        began_s = time.perf_counter()
        try:
            found = check()
            findings = [found] if isinstance(found, Finding) else list(found)
        except (TradingBotError, OSError) as error:
            findings = [Finding(name, Verdict.FAILED, f"cannot be checked: {error}")]
        except Exception as error:  # noqa: BLE001  (whatever is broken must not keep the other checks from being made)
            findings = [Finding(name, Verdict.FAILED, f"cannot be checked: {type(error).__name__}: {error}")]
        took_s = round(time.perf_counter() - began_s, 3)
        for index, finding in enumerate(findings):
            yield replace(finding, seconds=took_s if index == 0 else 0.0)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict of all: failed, warning, not applicable, ok."""
    order = (Verdict.OK, Verdict.NOT_APPLICABLE, Verdict.WARNING, Verdict.FAILED)
    return max((finding.verdict for finding in findings), key=order.index, default=Verdict.OK)


def findings_text(findings: Iterable[Finding]) -> str:
    """Return findings in words: a line each, below it what to do where something is not as it should be."""
    rows = list(findings)
    width = max((len(row.name) for row in rows), default=0)
    lines = []
    for row in rows:
        lines.append(f"{row.verdict.value.upper():14} {row.name:{width}}  {row.says}  ({row.seconds:.1f} s)")
        if row.verdict in (Verdict.FAILED, Verdict.WARNING):
            lines += [f"{'':14} {'':{width}}  fix: {line}" for line in row.fix.splitlines()]
            if row.profile:
                lines.append(f"{'':14} {'':{width}}  rollback that helps: tradingbot rollback {row.profile}")
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
