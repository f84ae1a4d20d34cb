"""What may follow a rollback: past data cleaned up, older code tried out; only planned unless told otherwise."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradingbot.api.shown import Place, Shown, effective_at
from tradingbot.errors import UsageError
from tradingbot.ops.checkup import Finding, Verdict

__all__ = ["Done", "clean", "rollback_code"]

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
    checks: tuple[Finding, ...] = ()

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
        if self.checks:
            return self.checks
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
    from tradingbot.ops.cleanup.cleanup import Plan, execute, plan_clean
    from tradingbot.ops.cleanup.plan import KINDS
    from tradingbot.ops.cleanup.text import nothing_text, plan_text

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


def rollback_code(
    rev: str = "", home: Place = None, *, files: str = "", why: str = "", dry_run: bool = True, test_args: str = "",
    state: Place = None, config: Place = None, repo: Place = None,
) -> Done:  # fmt: skip
    """Return older code tried out on a branch in a worktree of its own, as `tradingbot rollback code` does it.

    `rev` is a tag, a branch, a commit or a date; "" asks for nothing. `files` are the paths, with spaces between, that
    go back alone. With `dry_run=False` the branch is made, its environment is built and its tests are run, which takes
    minutes; no bot is replaced. `repo` is the checkout, by default the one that this package lies in. Raises
    UsageError, CodeRollbackError where a step cannot be done.

    >>> import tempfile, tradingbot as tb
    >>> tb.rollback_code("", tempfile.mkdtemp()).state
    'not asked'
    """
    from tradingbot.ops.code.code_rollback import execute_code
    from tradingbot.ops.code.plan import plan_code
    from tradingbot.ops.code.text import plan_text
    from tradingbot.ops.rollback.plan import Plan

    if not rev:
        return Done("older code", "not asked", "")
    if not dry_run and not why:
        raise UsageError(NO_WHY)
    effective = effective_at(home, state, config)
    checkout = Path(repo).expanduser() if repo else None
    found = plan_code(effective, rev, why, _words(files), repo=checkout, test_args=_words(test_args))
    plan, steps = (found, []) if isinstance(found, Plan) else (found.plan, list(found.done))
    name, record = f"older code: {rev}", plan.to_record()
    text = plan_text(record, str(effective.state_dir), steps)
    changes = record["code"]["files"]
    if changes and all(change["what"] == "same" for change in changes):
        return Done(name, "nothing to do", text, record)
    if dry_run:
        return Done(name, "planned", text, record)
    report = execute_code(effective, plan)
    became = "failed" if report.exit_code else "done"
    return Done(name, became, report.text(), record, report.to_record(), report.findings)


def _words(text: str) -> list[str]:
    """Return the words of a text as a shell would; raise UsageError where a quote is open."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text} cannot be split into words: {error}") from None
