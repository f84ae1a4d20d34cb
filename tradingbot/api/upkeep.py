"""What may follow a rollback, from here: past data cleaned up, older code tried out; planned unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tradingbot.api.shown import Place, Shown, effective_at
from tradingbot.errors import UsageError
from tradingbot.ops.checkup import Finding, Verdict

__all__ = ["Done", "clean"]

NO_WHY = 'nothing was changed: say why, for the audit: why="..."'


@dataclass(frozen=True, slots=True, repr=False)
class Done(Shown):
    """Hold what was planned, done, or not asked for: `state` is one of planned, nothing to do, done, failed, not asked.

    `words` say it; `plan` and `report` are JSON objects, None where there is none.
    """

    what: str
    state: str
    words: str
    plan: dict[str, Any] | None = None
    report: dict[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """Return 0 where nothing failed."""
        return 1 if self.state == "failed" else 0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return what is to be concluded from it."""
        verdicts = {"done": Verdict.OK, "nothing to do": Verdict.OK, "failed": Verdict.FAILED}
        says = {
            "not asked": "not asked for", "planned": "only planned: nothing was changed", "done": "done as planned",
            "nothing to do": "there was nothing to do", "failed": "not all of it was done: its report says why",
        }  # fmt: skip
        return (Finding(self.what, verdicts.get(self.state, Verdict.NOT_APPLICABLE), says[self.state]),)

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"what": self.what, "state": self.state, "plan": self.plan, "report": self.report}

    def text(self) -> str:
        """Return it in words."""
        return f"{self.what}: {self.state}\n{self.words}" if self.words else f"{self.what}: {self.state}"

    def html(self) -> str:
        """Return it as HTML."""
        from tradingbot.ui.html_tables import Html, headline, preformatted

        head = headline(self.state, self.what)
        return Html(head + preformatted(self.words)) if self.words else head


def clean(
    what: str = "", home: Place = None, *, why: str = "", older_than_s: float = 0.0, archive: bool = False,
    dry_run: bool = True, state: Place = None, config: Place = None,
) -> Done:  # fmt: skip
    """Return a cleanup of recorded data that is past, as `tradingbot clean` does it; planned unless told to do it.

    `what` names kinds, with spaces between: ticks, snapshots, windows, anchors, logs, reports, archives; "" asks for
    nothing. With `archive` it is archived and read back before it goes. With `dry_run=False` it is done, and `why` is
    required. Raises UsageError, CleanError where a step fails.

    >>> import tempfile, tradingbot as tb
    >>> home = tempfile.mkdtemp()
    >>> tb.clean("ticks logs", home).state
    'nothing to do'
    >>> tb.clean("", home).state
    'not asked'
    """
    from tradingbot.ops.cleanup import Plan, execute, plan_clean
    from tradingbot.ops.cleanup_plan import KINDS
    from tradingbot.ops.cleanup_text import nothing_text, plan_text

    kinds = what.replace(",", " ").split()
    if not kinds:
        return Done("cleanup", "not asked", "")
    strangers = [kind for kind in kinds if kind not in KINDS]
    if strangers:
        raise UsageError(f"{strangers[0]} is nothing that is cleaned; there are: {', '.join(KINDS)}")
    if not dry_run and not why:
        raise UsageError(NO_WHY)
    effective = effective_at(home, state, config)
    found = plan_clean(effective, kinds, why, older_than_s, archive)
    plan, archived = (found, "") if isinstance(found, Plan) else (found.plan, str(found.done["archive"]["path"]))
    name, record, place = f"cleanup of {', '.join(kinds)}", plan.to_record(), str(effective.state_dir)
    if not plan.items:
        return Done(name, "nothing to do", nothing_text(record, place), record)
    if dry_run:
        return Done(name, "planned", plan_text(record, place, archived), record)
    report = execute(effective, plan)
    return Done(name, "failed" if report.exit_code else "done", report.text(), record, report.to_record())
