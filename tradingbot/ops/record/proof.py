"""What a proof found, session by session, as values and in words; and what explains the inputs that are absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from tradingbot.io.jsonl import ReadReport, encode

__all__ = ["Absences", "Divergence", "Explanation", "Proof", "SessionProof", "first_difference"]


@dataclass(frozen=True, slots=True)
class Divergence:
    """Hold the first place where engine and record part: the record found and the one made again, None for neither."""

    seq: int
    found: dict[str, Any] | None
    made: dict[str, Any] | None


@dataclass(slots=True)
class SessionProof:
    """Hold what was compared of one session.

    `unrecorded` are stretches (first, last seq, why) that could not be compared, for a reason that is recorded;
    `missing` is the first seq that is absent for none. Of a session without an end that is where it was cut off,
    `cut`, if nothing follows.
    """

    sid: str
    inputs: int = 0
    outputs: int = 0
    unrecorded: list[tuple[int, int, str]] = field(default_factory=list)
    missing: int | None = None
    cut: int | None = None
    ended: bool = False
    divergence: Divergence | None = None

    @property
    def verdict(self) -> str:
        """Return equal, differs, cannot tell, or nothing compared."""
        if self.divergence is not None:
            return "differs"
        if self.missing is not None:
            return "cannot tell"
        return "equal" if self.inputs else "nothing compared"


@dataclass(slots=True)
class Proof:
    """Hold the proofs of all sessions and what could not be read.

    `strangers` counts ticks of sessions that the journal does not know, `disordered` those out of their order.
    `is_whole` is false where time was over before all was read: nothing is known of what comes behind.
    """

    sessions: list[SessionProof] = field(default_factory=list)
    report: ReadReport = field(default_factory=ReadReport)
    strangers: Counter[str] = field(default_factory=Counter)
    disordered: Counter[str] = field(default_factory=Counter)
    is_whole: bool = True

    @property
    def exit_code(self) -> int:
        """Return 0 where all that is recorded is equal, 1 where it differs or is damaged, 2 where nobody can tell.

        Nobody can where an input is absent for no recorded reason, where nothing could be compared at all, or where
        time was over too early.
        """
        verdicts = {session.verdict for session in self.sessions}
        if "differs" in verdicts or self.report.damaged or self.disordered:
            return 1
        is_open = "cannot tell" in verdicts or "equal" not in verdicts or self.strangers or not self.is_whole
        return 2 if is_open else 0

    def to_record(self) -> dict[str, Any]:
        """Return the proof as a JSON object."""
        read = {"records": self.report.records, "damaged": self.report.damaged}
        ticks = {"strangers": dict(self.strangers), "disordered": dict(self.disordered)}
        return {
            "sessions": [asdict(session) | {"verdict": session.verdict} for session in self.sessions],
            **read,
            **ticks,
        }

    def text(self) -> str:
        """Return the proof in words."""
        lines = []
        for session in self.sessions:
            lines.append(
                f"{session.sid}: {session.verdict}, {session.inputs:,} inputs, {session.outputs:,} outputs"
                + ("" if session.ended else ", without an end")
                + "".join(f"; not recorded: {first} to {last}, {why}" for first, last, why in session.unrecorded)
                + ("" if session.missing is None else f"; {session.missing} is missing")
                + ("" if session.cut is None else f"; cut off before {session.cut}")
            )
            if session.divergence is not None:
                lines.append(f"  first at input {session.divergence.seq}")
                lines.append(f"  recorded: {_line(session.divergence.found)}")
                lines.append(f"  again:    {_line(session.divergence.made)}")
        lines += [f"{sid}: {count:,} ticks, nothing in the journal" for sid, count in self.strangers.items()]
        lines += [f"{sid}: {count:,} ticks out of their order" for sid, count in self.disordered.items()]
        lines += [f"damaged: {place}" for place in self.report.places]
        return "\n".join(lines)


def _line(record: dict[str, Any] | None) -> str:
    return "nothing" if record is None else encode(record).decode().rstrip()


@dataclass(slots=True)
class Explanation:
    """Say why up to `count` inputs between two numbers, exclusive, are absent."""

    why: str
    after: int
    before: int
    count: int


@dataclass(slots=True)
class Absences:
    """Hold a stretch in which nothing could be compared: `spans` of numbers are absent, `whys` were said beforehand.

    `compared` is how many inputs of the session had been compared when it ended.
    """

    first: int
    last: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)
    whys: list[str] = field(default_factory=list)
    compared: int = 0

    def explain(self, explanations: Iterable[Explanation]) -> int | None:
        """Use up explanations for what is absent, adding their reasons; return the first number without one."""
        unexplained = None
        by_end = sorted(explanations, key=lambda explanation: explanation.before)
        for first, last in self.spans:
            left = last - first + 1
            for one in by_end:
                within = min(last, one.before - 1) - max(first, one.after + 1) + 1
                used = min(left, one.count, max(within, 0))
                if used:
                    left -= used
                    one.count -= used
                    self.whys += [one.why] * (one.why not in self.whys)
            if left and unexplained is None:
                unexplained = first
        return unexplained


def first_difference(found: Any, made: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """Return the first place in which what was found is not what was made, with both; None where it is.

    What was made may have members that were not thought of when the other was recorded.
    """
    if isinstance(found, dict) and isinstance(made, dict):
        pairs = [(f"{place}.{name}".lstrip("."), value, made.get(name)) for name, value in found.items()]
    elif isinstance(found, list) and isinstance(made, list) and len(found) == len(made):
        pairs = [(f"{place}[{index}]", *pair) for index, pair in enumerate(zip(found, made, strict=True))]
    else:
        return None if found == made else (place, found, made)
    differences = (first_difference(one, other, name) for name, one, other in pairs)
    return next((difference for difference in differences if difference is not None), None)
