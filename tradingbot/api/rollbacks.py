"""Rolling back from here: planned unless told otherwise, done as the command does it, and looked at afterwards."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.api.checks import Checked, checked_by, findings_html, not_applicable
from tradingbot.api.past import Compared
from tradingbot.api.shown import Place, Shown, effective_at, frame_of
from tradingbot.errors import TradingBotError, UsageError
from tradingbot.ops.checkup import Finding, Verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tradingbot.ops.rollback.plan import Plan

__all__ = ["Foreseen", "Rollbacks", "RolledBack", "rollback", "rollbacks"]

HOUR_MIN = 60.0
LAST = "last"
NO_WHY = 'nothing was changed: say why, for the audit: why="..."'


@dataclass(frozen=True, slots=True, repr=False)
class RolledBack(Shown):
    """Hold a rollback that was planned, or done: its plan and, where it was carried out, its report (a JSON object).

    `going_on` says that it was begun before, `done` which of its steps are done; `held` that it was to be carried out
    and was not, for it was dry, or in force already.
    """

    state_dir: str
    planned: Plan
    going_on: bool = False
    done: tuple[str, ...] = ()
    report: dict[str, Any] | None = None
    held: bool = False
    where: tuple[Place, Place, Place] = field(default=(None, None, None), compare=False)

    @property
    def plan(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return self.planned.to_record()

    @property
    def state(self) -> str:
        """Return planned, nothing to do, done, or how far it has come."""
        if self.report is not None:
            return str(self.report["state"])
        return "planned" if self.going_on or self.planned.is_needed else "nothing to do"

    @property
    def exit_code(self) -> int:
        """Return 0 where no check failed, as the command does."""
        return 0 if self.report is None else int(self.report["exit_code"])

    @property
    def settings(self) -> dict[str, bool]:
        """Return the flags that it is about, with the values that they are to have."""
        return {change["key"]: change["new_value"] for change in self.plan["changes"]}

    @property
    def answer(self) -> str:
        """Return in one sentence what came of it."""
        if self.state == "planned":
            return f"{self._what()}: only planned, nothing was changed"
        word = self.state if self.exit_code == 0 else "failed"
        return f"{self._what()}: {word}"

    def _what(self) -> str:
        plan = self.plan
        if plan["undoes"]:
            return f"undo of rollback {plan['undoes']} ({plan['profile']})"
        return f"roll back {plan['profile']}"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return what is to be concluded from it: each check, or that nothing was done."""
        if self.report is None:
            is_plan = self.state == "planned"
            verdict = Verdict.NOT_APPLICABLE if is_plan else Verdict.OK
            says = "only planned: nothing was changed" if is_plan else "nothing to do: all of it is so already"
            return (Finding("rollback", verdict, says),)
        return tuple(
            Finding(
                f"rolled back: {check['name']}" if self.plan["kind"] == "rollback" else f"undone: {check['name']}",
                Verdict.OK if check["ok"] else Verdict.FAILED, check["says"],
                fix="look at the bot's log; the same again checks again, undo takes it back",
            )
            for check in self.report["checks"]
        )  # fmt: skip

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object, as `tradingbot rollback --json` does."""
        return {
            "state": self.state_dir, "plan": self.plan, "going_on": self.going_on, "done": list(self.done),
            "report": self.report,
        }  # fmt: skip

    def text(self) -> str:
        """Return it in words."""
        from tradingbot.ops.rollback.text import nothing_text, plan_text, report_text

        if self.report is not None:
            return report_text(self.report)
        if self.held and self.state == "planned":
            return f"{self.state_dir}: {self.plan['kind']} {self.plan['profile']}: dry_run is True, nothing was changed"
        if self.state == "planned":
            return plan_text(self.plan, self.state_dir, self.done)
        return nothing_text(self.plan, self.state_dir)

    def html(self) -> str:
        """Return it as HTML: what came of it, the flags, each step, each check."""
        from tradingbot.ops.rollback.text import notes_ahead, notes_behind
        from tradingbot.ui.html_tables import Html, headline, paragraphs

        plan, what = self.plan, self._what()
        if self.held:
            why = "dry_run is True, nothing was changed" if self.state == "planned" else "all of it is so already"
            return headline(self.state, f"{what}: {why}")
        if self.state == "nothing to do":
            body = paragraphs(self.text().splitlines())
            return Html(headline(self.state, f"{what}: all of it is so already") + body + self._changes())
        if self.report is None:
            body = paragraphs([f"state directory {self.state_dir}", *notes_ahead(plan, self.done)])
            head = headline(self.state, f"{what}: only a plan, it changes nothing")
            return Html(head + body + self._changes() + paragraphs(notes_behind(plan)))
        word = self.state if self.exit_code == 0 else "failed"
        return Html(
            headline(word, f"{what}, kept as {self.report['id']}")
            + paragraphs([f"by {plan['who']}@{plan['host']}: {plan['why']}", f"state directory {self.state_dir}"])
            + self._changes() + self._steps() + findings_html(self.findings)
            + paragraphs([f"plan, copies, steps and report are kept in {self.report['folder']}"])
        )  # fmt: skip

    def _changes(self) -> str:
        from tradingbot.ops.rollback.text import when_text
        from tradingbot.ui.html_tables import mark, table

        names = ("flag", "value", "becomes", "takes effect", "override", "off means", "works on")
        rows = [
            (
                change["key"], mark(_on(change["value"])), mark(_on(change["new_value"])), when_text(change),
                f"{_override(change['before'])} becomes {_override(change['after'])}", change["off_means"],
                change["keeps"],
            )
            for change in self.plan["changes"]
        ]  # fmt: skip
        return table(names, rows)

    def _steps(self) -> str:
        from tradingbot.ops.rollback.text import step_text
        from tradingbot.ui.explanation import utc_text
        from tradingbot.ui.html_tables import table

        steps = (self.report or {}).get("steps", {})
        rows = [
            (utc_text(step["ts_ms"], "%Y-%m-%d %H:%M:%S"), name, step_text(name, step, self.plan))
            for name, step in steps.items()
        ]
        return table(("done (UTC)", "step", "what"), rows)

    def frame(self) -> pd.DataFrame:
        """Return the flags as a DataFrame, one a row: override and value before and after."""
        return frame_of(self.plan["changes"], "key")

    def carry_out(self, dry_run: bool = False) -> RolledBack:
        """Return this rollback as done, or with `dry_run` as it is; done already, or in force already, it stays so.

        Raises as `rollback` does.
        """
        from tradingbot.ops.rollback.rollback import execute

        if dry_run or self.report is not None or self.state != "planned":
            return replace(self, held=True)
        if not self.planned.why:
            raise UsageError(NO_WHY)
        made = execute(effective_at(*self.where), self.planned)
        return replace(self, planned=made.plan, report=made.to_record())

    def foresee(self, last_minutes: float = HOUR_MIN) -> Foreseen:
        """Return what the last minutes would have looked like under the flags as they are to be, as far as recorded."""
        from tradingbot.ops.record.compare import compare

        try:
            found = compare(Path(self.state_dir), self.settings, {}, last_minutes)
        except (TradingBotError, OSError) as error:
            return Foreseen(f"the last {last_minutes:g} minutes cannot be compared: {error}")
        return Foreseen(f"the last {last_minutes:g} minutes, as far as recorded", Compared(self.state_dir, found))

    def verify(self, monitor_s: float = 0.0) -> Checked:
        """Return the checklist of `tradingbot verify` for a bot that was rolled back; else why there is none."""
        if self.report is None:
            return not_applicable("verify", f"{self.state}: nothing was done that could be verified")
        if not self.plan["bot"]["is_running"]:
            return not_applicable("verify", "no bot runs there: the next start goes by it; verify it then")
        from tradingbot.ops.verify.checklist import verify as ops

        return checked_by(ops(effective_at(*self.where), monitor_s=monitor_s, why=self.plan["why"]))


@dataclass(frozen=True, slots=True, repr=False)
class Foreseen(Shown):
    """Hold what the past would have looked like, or say why that cannot be told."""

    says: str
    compared: Compared | None = None

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"says": self.says, "compared": None if self.compared is None else self.compared.to_record()}

    def text(self) -> str:
        """Return it in words."""
        return self.says if self.compared is None else f"{self.says}\n{self.compared.text()}"

    def html(self) -> str:
        """Return it as HTML, with the picture."""
        from tradingbot.ui.html_tables import Html, paragraphs, picture

        if self.compared is None:
            return paragraphs([self.says])
        return Html(paragraphs([self.says]) + self.compared.html(picture(self.figure(), "triggers over time")))

    def figure(self) -> Figure:
        """Return the picture of the comparison; raise UsageError where nothing could be compared."""
        if self.compared is None:
            raise UsageError(self.says)
        return self.compared.figure()


def rollback(
    profile: str = "", home: Place = None, *, why: str = "", dry_run: bool = True, undo: str | bool = False,
    restart: bool = False, from_empty: bool = False, compares: bool = True, state: Place = None,
    config: Place = None,
) -> RolledBack:  # fmt: skip
    """Return a rollback of a profile, or with `undo` (an id, or "last") the undoing of one; only planned by default.

    With `dry_run=False` it is done as `tradingbot rollback --yes` does it: stored, step by step, checked, audited, and
    gone on with where an earlier one was interrupted; `why` is then required. `profile` is not looked at for an
    undoing. `restart` restarts a running bot where a flag needs it. Raises UsageError, RollbackError where a step
    fails, BusyError where another one is at work.

    >>> import tempfile, tradingbot as tb
    >>> home = tempfile.mkdtemp()
    >>> planned = tb.rollback("anchor", home)
    >>> planned.state, planned.settings
    ('planned', {'FEATURE_ANCHOR_ENABLED': False})
    >>> tb.rollback("anchor", home, why="odd anchors", dry_run=False).exit_code
    0
    >>> tb.rollback(home=home, undo="last", why="was the feed", dry_run=False).state
    'done'
    >>> tb.flags(home)["FEATURE_ANCHOR_ENABLED"]
    True
    """
    from tradingbot.ops.code.code_rollback import find_code
    from tradingbot.ops.rollback.plan import PROFILES, Plan
    from tradingbot.ops.rollback.rollback import plan_rollback, plan_undo

    effective = effective_at(home, state, config)
    if not dry_run and not why:
        raise UsageError(NO_WHY)
    if undo:
        wanted = "" if undo is True or undo == LAST else undo
        if wanted and find_code(effective.state_dir, wanted) is not None:
            raise UsageError(f"rollback {wanted} is one by code: tradingbot rollback --undo {wanted} takes it back")
        found = plan_undo(effective, wanted, why, restart)
    elif profile:
        found = plan_rollback(effective, profile, why, restart, from_empty, compares)
    else:
        raise UsageError(f"name a profile ({', '.join(PROFILES)}), or an undo: its id, or {LAST}")
    place, where = str(effective.state_dir), (home, state, config)
    if isinstance(found, Plan):
        planned = RolledBack(place, found, where=where)
    else:
        planned = RolledBack(place, found.plan, True, tuple(found.done), where=where)
    return planned if dry_run else planned.carry_out()


@dataclass(frozen=True, slots=True, repr=False)
class Rollbacks(Shown):
    """Hold the profiles, and what was rolled back so far, as JSON objects."""

    state_dir: str
    profiles: dict[str, dict[str, Any]]
    rows: tuple[dict[str, Any], ...]

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    def text(self) -> str:
        """Return it in words."""
        from tradingbot.ops.rollback.text import list_text

        return list_text(self.rows)

    def html(self) -> str:
        """Return it as HTML: the newest first."""
        from tradingbot.ui.explanation import utc_text
        from tradingbot.ui.html_tables import Html, paragraphs, table

        profiles = [(name, "\n".join(each["flags"]), each["off"]) for name, each in self.profiles.items()]
        rows = [
            (
                row["id"], utc_text(row["time_ms"], "%Y-%m-%d %H:%M:%S"),
                f"undo of {row['undoes']}" if row["undoes"] else row["profile"], row["state"],
                f"{row['who']}@{row['host']}", row["why"],
            )
            for row in self.rows[::-1]
        ]  # fmt: skip
        names = ("id", "planned (UTC)", "what", "state", "by", "why")
        past = table(names, rows, (), "rollbacks so far") or paragraphs(["no rollback so far"])
        return Html(table(("profile", "flags", "off"), profiles) + past)

    def frame(self) -> pd.DataFrame:
        """Return the rollbacks so far as a DataFrame, one a row."""
        return frame_of(self.rows, "id")


def rollbacks(home: Place = None, *, state: Place = None, config: Place = None) -> Rollbacks:
    """Return the profiles, and what was rolled back so far.

    >>> import tempfile, tradingbot as tb
    >>> list(tb.rollbacks(tempfile.mkdtemp()).profiles)
    ['all', 'persistence', 'warmstart', 'retry', 'anchor']
    """
    from tradingbot.ops.rollback.plan import PROFILES
    from tradingbot.ops.rollback.store import past_rollbacks

    folder = effective_at(home, state, config).state_dir
    profiles = {each.name: {"flags": list(each.flags), "off": each.means} for each in PROFILES.values()}
    return Rollbacks(str(folder), profiles, tuple(stored.to_record() for stored in past_rollbacks(folder)))


def _override(entry: dict[str, Any] | None) -> str:
    return "none" if entry is None else _on(entry["value"])


def _on(value: object) -> str:
    return "on" if value else "off"
