"""Rolling back by code: a branch in a worktree of its own, built, tried, told of, and put to work where all is well."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from tradingbot.errors import Unrecoverable, UsageError
from tradingbot.io.audit import append_audit, user
from tradingbot.io.overrides import Effective
from tradingbot.io.requests import signature
from tradingbot.io.segments import make_folder
from tradingbot.io.state_files import write_atomic
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.code.commands import commands_of, removing
from tradingbot.ops.code.deploy import DeployError, Launch, check_reads, launch_of, start_bot, stop_bot, swap
from tradingbot.ops.code.facts import Code
from tradingbot.ops.code.files import tree_of
from tradingbot.ops.code.git import Git, open_checkout
from tradingbot.ops.code.plan import KIND, plan_code
from tradingbot.ops.code.trial import python_of, try_environment, try_observe, try_tests
from tradingbot.ops.jobs import one_at_a_time
from tradingbot.ops.rollback.plan import Plan
from tradingbot.ops.rollback.restart import find_bot, running_bot
from tradingbot.ops.rollback.store import END, Stored, begin, past_rollbacks

__all__ = ["CodeReport", "CodeRollbackError", "execute_code", "leftovers", "plan_back", "plan_code"]

BACK = "code-undo"
TRIED = ("environment", "tests", "observe")
Tell = Callable[[str], None]


class CodeRollbackError(Unrecoverable):
    """Say at which step a rollback by code has stopped, and what becomes of it."""


class _NoError(Exception):
    """Leave the steps where a verdict is no."""


@dataclass(frozen=True, slots=True)
class CodeReport:
    """Hold what a rollback by code has done and found; `commands` are for people to run, with what each would do."""

    plan: Plan
    state: str
    folder: str
    steps: dict[str, dict[str, Any]]
    findings: tuple[Finding, ...]
    commands: tuple[tuple[str, str], ...]

    @property
    def exit_code(self) -> int:
        """Return 0 where every step is done and nothing has failed, else 1."""
        return 0 if self.state in ("done", "undone") and all(finding.ok for finding in self.findings) else 1

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "id": self.plan.id, "state": self.state, "exit_code": self.exit_code,
            "verdict": "NO" if self.exit_code else "GO", "folder": self.folder, "plan": self.plan.to_record(),
            "steps": self.steps, "findings": [finding.to_record() for finding in self.findings],
            "commands": [{"command": command, "does": does} for command, does in self.commands],
        }  # fmt: skip

    def text(self) -> str:
        """Return the report in words."""
        from tradingbot.ops.code.text import report_text

        return report_text(self.to_record())


def plan_back(effective: Effective, rollback_id: str, why: str) -> Stored | Plan:
    """Return the plan that gives the bot of before a deployment its place again; raise UsageError for none.

    Also where it has put no bot to work: what there is to remove then, `leftovers` says.
    """
    rolled_back = find_code(effective.state_dir, rollback_id)
    if rolled_back is None or "start" not in rolled_back.done:
        raise UsageError(f"rollback {rollback_id} by code has put no bot to work: there is nothing to undo")
    begun = [
        each
        for each in past_rollbacks(effective.state_dir)
        if (each.plan.kind, each.plan.undoes) == (BACK, rollback_id)
    ]
    if begun and begun[-1].state in ("planned", "half done"):
        return begun[-1]
    if rolled_back.undone_by:
        raise UsageError(f"rollback {rollback_id} is undone already, by {rolled_back.undone_by}")
    asked, bot = signature(why), running_bot(effective.state_dir)
    return Plan(
        BACK, KIND, asked["who"], asked["host"], asked["time_ms"], asked["why"], True, False, (), bot,
        undoes=rollback_id, code=rolled_back.plan.code,
    )  # fmt: skip


def leftovers(effective: Effective, rollback_id: str) -> tuple[tuple[str, str], ...] | None:
    """Return the commands that remove what a rollback has left that put no bot to work; None for one that did.

    Raises UsageError where it stands between the stop of one bot and the start of the other.
    """
    stored = find_code(effective.state_dir, rollback_id)
    if stored is None or stored.plan.code is None or "start" in stored.done:
        return None
    if "stop" in stored.done and "back" not in stored.done:
        raise UsageError(
            f"rollback {rollback_id} by code has stopped the bot, and started none yet: the same command that began it "
            "goes on with it, and can be undone then"
        )
    return tuple(removing(stored.plan.code)) if "commit" in stored.done else ()


def find_code(state_dir: Path, rollback_id: str) -> Stored | None:
    """Return the rollback by code of this id, None where it is none."""
    found = [each for each in past_rollbacks(state_dir) if each.plan.kind == KIND and each.plan.id == rollback_id]
    return found[-1] if found else None


def execute_code(effective: Effective, plan: Plan, tell: Tell | None = None) -> CodeReport:
    """Carry out a plan of plan_code or plan_back, or go on with the one that was begun; return what was done.

    Each step may be interrupted, and repeated. `tell` is given a line when a step begins. Raises BusyError where
    another one is at work, CodeRollbackError where a step cannot be done; what a step finds wrong is in the report.
    """
    assert plan.code is not None
    with one_at_a_time(effective.state_dir, "rollback", "code.lock"):  # flags can be rolled back meanwhile
        stored = next(
            (each for each in past_rollbacks(effective.state_dir) if plan.id and each.plan.id == plan.id), None
        )
        if stored is None:
            with one_at_a_time(effective.state_dir, "rollback"):
                stored = begin(effective.state_dir, plan)
        else:
            stored = stored.with_plan(plan)
        return _Run(effective, stored, tell or (lambda _: None)).run()


class _Run:
    """Carry out one stored plan."""

    def __init__(self, effective: Effective, stored: Stored, tell: Tell) -> None:
        self._effective, self._stored, self._tell = effective, stored, tell
        self._state_dir = effective.state_dir
        assert stored.plan.code is not None
        self._code: Code = stored.plan.code
        self._findings: list[Finding] = []
        self._began_s = time.monotonic()
        self._environ: dict[str, str] | None = None

    @property
    def _plan(self) -> Plan:
        return self._stored.plan

    def run(self) -> CodeReport:
        """Do every step that is not done; leave a report, also where one says no."""
        steps: dict[str, Callable[[], dict[str, Any]]] = {"begin": lambda: self._audit("begins")}
        if self._plan.kind == KIND:
            steps |= {"commit": self._commit, "worktree": self._worktree}
            steps |= {"environment": lambda: self._found(try_environment(self._code, self._stored.folder))}
            steps |= {"tests": lambda: self._found(try_tests(self._code, self._stored.folder))}
            steps |= {"observe": lambda: self._found(*try_observe(self._code, self._stored.folder))}
        if self._plan.kind == BACK or self._code.deploy:
            steps |= {"launch": self._launch, "stop": self._stop, "start": self._start}
        steps[END] = lambda: self._audit("done")
        for name, step in steps.items():
            try:
                if self._is_done(name):
                    self._findings += [_finding(each) for each in self._stored.done[name].get("findings", ())]
                    continue
                self._tell(f"{name}: {_begins(name, self._code)}")
                self._began_s = time.monotonic()
                self._stored.record(name, step())
            except _NoError:
                self._audit(f"says no at {name}")
                return self._report()
            except (OSError, Unrecoverable) as error:
                raise CodeRollbackError(
                    f"{self._plan.kind} {self._plan.id} stopped at step {name}: {_said(error)}; the running bot is "
                    f"{'' if name in ('stop', 'start') else 'un'}touched; the same command goes on with it"
                ) from None
        return self._report()

    def _is_done(self, name: str) -> bool:
        """Say whether a step is done, in this rollback or, of what was tried, in an earlier one of the same branch."""
        done = self._stored.done
        if name == "worktree":
            return False  # looked at each time: somebody may have worked in it
        if name in ("launch", "stop", "start") and "back" in done and name in done:
            return bool(done[name]["ts_ms"] > done["back"]["ts_ms"])  # what was taken back is done anew
        if name not in self._stored.done and name in TRIED and self._plan.kind == KIND:
            for each in past_rollbacks(self._state_dir):
                if self._code.is_same(each.plan.code) and name in each.done and _args(each) == self._code.test_args:
                    facts = {
                        key: value for key, value in each.done[name].items() if key not in ("v", "ts_ms", "step", "crc")
                    }
                    self._stored.record(name, {"from": each.plan.id} | facts)
        return name in self._stored.done

    def _found(self, *findings: Finding) -> dict[str, Any]:
        first = replace(findings[0], seconds=round(time.monotonic() - self._began_s, 1))
        findings = (first, *findings[1:])
        self._findings += findings
        if not all(finding.ok for finding in findings):
            raise _NoError
        return {"findings": [finding.to_record() for finding in findings]}

    def _audit(self, word: str) -> dict[str, Any]:
        plan = self._plan
        append_audit(
            self._state_dir, f"{plan.kind} rollback {word}", plan.why, id=plan.id, rev=self._code.rev,
            branch=self._code.branch, files=[file.path for file in self._code.files],
        )  # fmt: skip
        return {}

    def _commit(self) -> dict[str, Any]:
        """Make the commit and the branch, unless they are there; the checkout's own files and index are left alone."""
        code, git = self._code, open_checkout(Path(self._code.repo))
        changes = [file for file in code.files if file.what != "same"]
        if code.files:
            tree = tree_of(git, code.commit, code.head, changes, self._stored.folder / "index")
        else:
            tree = git.text("rev-parse", f"{code.commit}^{{tree}}")
        ref = f"refs/heads/{code.branch}"
        tip = git.commit_of(ref)
        if tip:
            if git.text("rev-parse", f"{tip}^{{tree}}") != tree:
                raise UsageError(f"the branch {code.branch} has been changed since: name another one with --name")
            return {"commit": tip, "branch": code.branch, "says": "the branch is there already"}
        words = ["commit-tree", tree, "-p", code.head, "-F", "-"]
        message = f"Rollback {code.name}: {' '.join(self._plan.why.split())}\n"
        commit = git.run(*words, stdin=message.encode(errors="replace"), env=_identity(git)).decode().strip()
        git.run("update-ref", "-m", "rollback by code", ref, commit, "0" * len(commit))
        return {"commit": commit, "branch": code.branch}

    def _worktree(self) -> dict[str, Any]:
        """Check the branch out, or see that it is; what a killed run has left half done is moved aside, not deleted."""
        code, git = self._code, open_checkout(Path(self._code.repo))
        commit, worktree = str(self._stored.done["commit"]["commit"]), Path(code.worktree)
        make_folder(worktree.parent)
        ignore = worktree.parent / ".gitignore"
        if not ignore.exists():
            write_atomic(ignore, b"*\n")
        aside = ""
        if worktree.exists():
            past = past_rollbacks(self._state_dir)
            was_whole = any(code.is_same(each.plan.code) and "worktree" in each.done for each in past)
            if (was_whole and (worktree / ".git").is_file()) or self._is_checked_out(commit):
                self._refuse_changed(commit)
                return {"path": code.worktree, "says": "it is there already"}
            target = worktree.with_name(f"{worktree.name}.half-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
            worktree.rename(target)
            aside = str(target)
        git.run("worktree", "add", "--force", "--force", "--quiet", "--", code.worktree, code.branch)
        self._refuse_changed(commit)
        return {"path": code.worktree, **({"aside": aside} if aside else {})}

    def _is_checked_out(self, commit: str) -> bool:
        """Say whether the worktree is a whole one, of this repository and this commit."""
        own = Git(Path(self._code.worktree))
        top = own.text("rev-parse", "--show-toplevel", check=False)
        is_own = bool(top) and Path(top).resolve() == Path(self._code.worktree).resolve()
        return is_own and own.commit_of("HEAD") == commit and not own.paths("status", "--porcelain", "-z", "-uno")

    def _refuse_changed(self, commit: str) -> None:
        own = Git(Path(self._code.worktree))
        changed = own.paths("status", "--porcelain", "-z", "-uno")
        if own.commit_of("HEAD") != commit or changed:
            what = f"{len(changed)} files, such as {changed[0][3:]}" if changed else "its commit"
            raise UsageError(
                f"{self._code.worktree} was changed since the rollback made it ({what}): what is there is not what was "
                "asked for; roll back under another --name, or change it back"
            )

    def _launch(self) -> dict[str, Any]:
        """Look at the running bot, and whether the other revision can take its place; nothing is stopped yet."""
        launch = launch_of(self._state_dir)
        after = self._after(launch)
        self._found(check_reads(self._state_dir, after))
        finding = self._findings[-1].to_record()
        bot = running_bot(self._state_dir)
        return {"sid": bot.sid, "pid": bot.pid, "before": launch.to_record(), "findings": [finding]}

    def _after(self, launch: Launch) -> Launch:
        if self._plan.kind == KIND:
            return swap(launch, python_of(self._code))
        stored = find_code(self._state_dir, self._plan.undoes)
        assert stored is not None
        return _as_before(stored.done["launch"]["before"], launch.environ)

    def _stop(self) -> dict[str, Any]:
        """Stop the bot that runs, unless that has happened; keep its environment in this process for the next one."""
        bot = find_bot(self._state_dir)
        launched = self._stored.done["launch"]
        if not bot.is_running or bot.sid != launched["sid"]:
            return {"says": "it had stopped already"}
        self._environ = launch_of(self._state_dir).environ
        return {"pid": stop_bot(self._state_dir, self._effective.settings.STOP_TIMEOUT_S)}

    def _start(self) -> dict[str, Any]:
        """Start the other bot; where it does not come up, the one of before again."""
        launched = self._stored.done["launch"]
        environ = self._environ if self._environ is not None else _remembered(launched["before"])
        before = _as_before(launched["before"], environ)
        after = self._after(replace(before, environ=environ))
        log = self._stored.folder / "bot.log"
        bot = find_bot(self._state_dir)
        if bot.is_running:
            running = launch_of(self._state_dir)
            if running.python == after.python:
                return self._started({"pid": bot.pid, "sid": bot.sid, "says": "it runs already"}, after)
            raise DeployError(f"process {bot.pid} runs there meanwhile ({running.python}), perhaps a supervisor's")
        try:
            return self._started(start_bot(self._state_dir, after, log), after)
        except DeployError as error:
            says = f"{after.python}: {error}"
        try:
            again = start_bot(self._state_dir, before, log)
            says += f"; the bot of before runs again: process {again['pid']}, session {again['sid']}"
        except DeployError as error:
            says += f"; the bot of before does not come up either: {error}; start it: {_spelt(before)}"
        fix = f"read {log}; the next run of this command tries it from the start"
        self._stored.record("back", {"says": says})
        self._found(Finding("deploy", Verdict.FAILED, says, {"log": str(log)}, fix))
        return {}

    def _started(self, facts: dict[str, Any], after: Launch) -> dict[str, Any]:
        says = f"process {facts['pid']}, session {facts['sid']}, runs from {after.python}"
        return facts | self._found(Finding("deploy", Verdict.OK, says, {"command": list(after.command)}))

    def _report(self) -> CodeReport:
        report = CodeReport(
            self._plan, self._stored.state, str(self._stored.folder), self._stored.done, tuple(self._findings),
            tuple(commands_of(self._stored, self._effective.home.path)),
        )  # fmt: skip
        try:
            text = orjson.dumps(report.to_record(), option=orjson.OPT_INDENT_2)
            write_atomic(self._stored.folder / "report.json", text + b"\n")
            write_atomic(self._stored.folder / "report.txt", report.text().encode() + b"\n")
        except OSError as error:
            raise CodeRollbackError(
                f"rollback {self._plan.id} is {report.state}, its report cannot be kept: {error}"
            ) from None
        return report


def _args(stored: Stored) -> tuple[str, ...]:
    return stored.plan.code.test_args if stored.plan.code else ()


def _finding(record: dict[str, Any]) -> Finding:
    return Finding(**record | {"verdict": Verdict(record["verdict"])})


def _begins(name: str, code: Code) -> str:
    return {
        "worktree": code.worktree, "environment": f"built from {code.lock}, minutes the first time",
        "tests": f"at most {code.test_limit_s:g} s", "observe": f"{code.observe_s:g} s on the embedded exchange",
        "launch": "whether it reads the state", "stop": "the running bot", "start": "the other one",
    }.get(name, code.branch)  # fmt: skip


def _said(error: Exception) -> str:
    return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)


def _identity(git: Git) -> dict[str, str]:
    """Return who commits, where git has not been told: said to be the rollback, by the user who asked."""
    if git.text("config", "user.name", check=False) and git.text("config", "user.email", check=False):
        return {}
    names = {"NAME": f"{user()} by tradingbot rollback", "EMAIL": "rollback@localhost"}
    return {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in names.items()}


def _as_before(record: dict[str, Any], environ: dict[str, str]) -> Launch:
    """Return a recorded launch, with the variables that it had and those of `environ` that were not to be kept."""
    hidden = {name: environ[name] for name in record["withheld"] if name in environ}
    texts = {name: tuple(record[name]) for name in ("options", "arguments", "command", "withheld")}
    return Launch(record["python"], cwd=record["cwd"], environ=record["environ"] | hidden, **texts)


def _remembered(record: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a bot that is gone; raise DeployError where one is needed that nobody has kept."""
    missing = [name for name in record["withheld"] if name not in os.environ]
    if missing:
        names = ", ".join(missing)
        raise DeployError(f"the stopped bot had variables that are not kept on disk: export {names}, and run it again")
    return dict(record["environ"]) | {name: os.environ[name] for name in record["withheld"]}


def _spelt(launch: Launch) -> str:
    return f"cd {shlex.quote(launch.cwd)} && {shlex.join(launch.command)}"
