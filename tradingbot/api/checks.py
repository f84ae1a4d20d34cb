"""Checks made from here: what `tradingbot verify` and `tradingbot doctor` find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tradingbot.api.shown import Place, Shown, effective_at, frame_of, home_at
from tradingbot.ops.checkup import Finding, Verdict, findings_text, worst
from tradingbot.ops.report.page import PAGE_KEY

if TYPE_CHECKING:
    import pandas as pd

    from tradingbot.ops.verify.checklist import VerifyReport

__all__ = ["Checked", "checked_by", "doctor", "findings_html", "not_applicable", "verify"]

GO_OR_NOT = ("GO", "NO-GO")
LONG = 400  # characters of a fact
ORDER = (Verdict.FAILED, Verdict.WARNING, Verdict.OK, Verdict.NOT_APPLICABLE)


@dataclass(frozen=True, slots=True, repr=False)
class Checked(Shown):
    """Hold what checks found; two are equal where the same checks came to the same verdicts and words.

    `verdict` is GO or NO-GO, or the worst of the findings. `report` is what the command would print and keep.
    """

    what: str
    place: str
    verdict: str
    findings: tuple[Finding, ...] = field(compare=False)
    report: Any = field(default=None, compare=False)
    found: tuple[tuple[str, str, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        facts = tuple((each.name, each.verdict.value, each.says) for each in self.findings)
        object.__setattr__(self, "found", facts)

    @property
    def ok(self) -> bool:
        """Say whether no check failed."""
        return all(finding.ok for finding in self.findings)

    @property
    def conclusion(self) -> tuple[Finding, ...]:
        """Return the findings, of a checklist behind one that says GO or NO-GO."""
        if self.verdict not in GO_OR_NOT:
            return self.findings
        verdict = Verdict.OK if self.ok else Verdict.FAILED
        return (
            Finding(self.what, verdict, f"{self.verdict}: of {len(self.findings)} checks {_counts(self.findings)}"),
            *self.findings,
        )

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        findings = [finding.to_record() for finding in self.findings]
        return {"what": self.what, "place": self.place, "verdict": self.verdict, "findings": findings}

    def text(self) -> str:
        """Return it in words."""
        if self.report is not None:
            return str(self.report.text())
        return f"{self.what} {self.place}: {self.verdict}\n{findings_text(self.findings)}"

    def html(self) -> str:
        """Return it as HTML: the verdict, then what failed, then all else, each with what it rests on and its fix."""
        from tradingbot.ui.html_tables import Html

        return Html(self._head() + findings_html(self.findings) + self._kept())

    def _head(self) -> str:
        from tradingbot.ui.html_tables import headline

        return headline(self.verdict, f"{self.what} {self.place}: {_counts(self.findings)}")

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return it for a notebook; the page of a report that begins with these checks does not repeat them."""
        checks = [finding.to_record() for finding in self.findings]
        own = {"checks": checks, "instead": self._head() + _evidence_html(self.findings) + self._kept()}
        return {"text/plain": repr(self), "text/html": self.html()}, {PAGE_KEY: own}

    def _kept(self) -> str:
        from tradingbot.ui.html_tables import paragraphs

        folder, trouble = getattr(self.report, "folder", ""), getattr(self.report, "trouble", "")
        return paragraphs([f"kept in {folder}"] if folder else [trouble] if trouble else [])

    def frame(self) -> pd.DataFrame:
        """Return the findings as a DataFrame, one a row: verdict, words, evidence, fix, seconds."""
        return frame_of((finding.to_record() for finding in self.findings), "name")


def findings_html(findings: Iterable[Finding]) -> str:
    """Return findings as an HTML table, failures first; below it what each rests on."""
    from tradingbot.ui.html_tables import mark, table

    ordered = sorted(findings, key=lambda each: ORDER.index(each.verdict))
    rows = []
    for finding in ordered:
        helps = f"tradingbot rollback {finding.profile}" if finding.profile else ""
        fix = "" if finding.verdict in (Verdict.OK, Verdict.NOT_APPLICABLE) else finding.fix
        to_do = "\n".join(filter(None, (fix, helps)))
        rows.append((mark(finding.verdict.value), finding.name, finding.says, to_do, f"{finding.seconds:.1f}"))
    checks = table(("verdict", "check", "what was found", "what to do", "took (s)"), rows, (4,))
    return checks + _evidence_html(ordered)


def _evidence_html(findings: Iterable[Finding]) -> str:
    from tradingbot.ui.html_tables import details, table

    facts = [(finding.name, name, _spelt(value)) for finding in findings for name, value in finding.evidence.items()]
    title, head = "evidence: what each verdict rests on", ("check", "fact", "value")
    return details(title, table(head, facts)) if facts else ""


def not_applicable(name: str, why: str) -> Checked:
    """Return a check that was not made, and why; that is no failure."""
    return Checked(name, "", Verdict.NOT_APPLICABLE.value, (Finding(name, Verdict.NOT_APPLICABLE, why),))


def _spelt(value: Any) -> str:
    """Return a fact as people read it, cut where it is long; the frame has all of it."""
    text = _words(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(map(_words, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _counts(findings: Iterable[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    return ", ".join(f"{verdicts.count(kind)} {kind.value}" for kind in ORDER if kind in verdicts)


def verify(
    home: Place = None, *, last_minutes: float = 10.0, monitor_s: float = 0.0, tests: bool = False, why: str = "",
    state: Place = None, config: Place = None,
) -> Checked:  # fmt: skip
    """Return the checklist of `tradingbot verify`: GO, or NO-GO with what failed, why, and what to do.

    `last_minutes` of the record are proved; the bot is watched for `monitor_s` seconds; with `tests` the package's own
    tests run too. No running bot is NO-GO. Nothing of the bot is changed.

    >>> import tempfile, tradingbot as tb
    >>> tb.verify(tempfile.mkdtemp()).verdict  # where no bot runs
    'NO-GO'
    """
    from tradingbot.ops.verify.checklist import verify as ops

    effective = effective_at(home, state, config)
    return checked_by(ops(effective, last_min=last_minutes, monitor_s=monitor_s, tests=tests, why=why))


def checked_by(report: VerifyReport) -> Checked:
    """Return a verification as a value that shows itself; one that was interrupted is a failure too."""
    findings = report.findings
    if not report.is_whole:
        says = "it was interrupted: not everything was looked at"
        findings = (*findings, Finding("all was looked at", Verdict.FAILED, says, fix="run it again"))
    return Checked("verify", report.state, report.verdict, findings, report)


def doctor(home: Place = None, *, state: Place = None, config: Place = None) -> Checked:
    """Return what is wrong with the bot of a home, its state, its settings or its surroundings, and what helps.

    It changes nothing, and works where the settings are broken.

    >>> import tempfile, tradingbot as tb
    >>> found = tb.doctor(tempfile.mkdtemp())
    >>> {finding.verdict.value for finding in found.findings} <= {"ok", "not applicable", "warning", "failed"}
    True
    """
    from tradingbot.ops.doctor.diagnose import diagnose

    place = home_at(home)
    report = diagnose(place, config=str(config) if config else None, state=str(state) if state else None)
    findings = tuple(report.findings)
    return Checked("doctor", str(place.path), worst(findings).value, findings, report)
