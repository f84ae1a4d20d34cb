"""`tradingbot rollback code`: a branch in a worktree of its own, tried, and put to work; git is left as it was."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.code_repos import LOCK, WITH_REV, commit, git, real, small, write
from tests.rollbacks import settings
from tests.test_live import bot, call, command, status_of
from tradingbot.errors import UsageError
from tradingbot.io.state_files import StateLock
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.code import code_rollback
from tradingbot.ops.code import git as code_git
from tradingbot.ops.code.code_rollback import CodeReport, CodeRollbackError, execute_code
from tradingbot.ops.code.deploy import DeployError, Launch, check_reads
from tradingbot.ops.code.deploy import _split as split_command
from tradingbot.ops.code.facts import LeftOut
from tradingbot.ops.code.files import left_out_by
from tradingbot.ops.code.git import candidates, open_checkout
from tradingbot.ops.code.plan import plan_code
from tradingbot.ops.code.trial import _not_built as not_built
from tradingbot.ops.code.trial import try_tests
from tradingbot.ops.jobs import BusyError
from tradingbot.ops.record.prove import prove
from tradingbot.ops.report.process import MARK
from tradingbot.ops.rollback.plan import Plan
from tradingbot.ops.rollback.restart import find_bot
from tradingbot.ops.rollback.store import Stored, past_rollbacks

STEPS = ("begin", "commit", "worktree", "environment", "tests", "observe", "end")


@dataclass
class Place:
    """Hold a home, and a small repository beside it."""

    home: Path
    repo: Path

    def plan(self, rev: str = "v1", *files: str, **options: Any) -> Stored | Plan:
        return plan_code(settings(self.home), rev, "drill", files, repo=self.repo, **options)

    def run(self, rev: str = "v1", *files: str, **options: Any) -> CodeReport:
        found = self.plan(rev, *files, **options)
        return execute_code(settings(self.home), found if isinstance(found, Plan) else found.plan)

    def command(self, *words: str, code: int = 0) -> str:
        done = call(self.home, "rollback", "code", "--repo", str(self.repo), *words)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


def well(name: str) -> Callable[..., Finding]:
    return lambda *_: Finding(name, Verdict.OK, "well")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Give a small repository whose trials are taken to go well: what git is asked to do is what counts here."""
    monkeypatch.setattr(code_rollback, "try_environment", well("environment"))
    monkeypatch.setattr(code_rollback, "try_tests", well("tests"))
    monkeypatch.setattr(code_rollback, "try_observe", lambda *_: (well("observe")(),))
    (tmp_path / "home").mkdir()
    return Place(tmp_path / "home", small(tmp_path / "repo"))


def test_a_revision_comes_back_as_one_commit_on_top_and_nothing_else_changes(place: Place) -> None:
    """The branch's tree is that of the tag; checkout, index, HEAD and what is not committed stay; no hook runs."""
    hook = place.repo / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {place.home}/hooked\n")
    hook.chmod(0o755)
    write(place.repo, {"tradingbot/rule.py": "THRESHOLD = 3\n", "mine": "mine"})
    head, status = git(place.repo, "rev-parse", "HEAD"), git(place.repo, "status", "--porcelain")
    report = place.run()
    branch = f"rollback-{report.plan.code.name}" if report.plan.code else ""
    assert (report.exit_code, report.state, tuple(report.steps)) == (0, "done", STEPS)
    assert git(place.repo, "rev-parse", f"{branch}^{{tree}}") == git(place.repo, "rev-parse", "v1^{tree}")
    assert git(place.repo, "rev-parse", f"{branch}^") == head == git(place.repo, "rev-parse", "HEAD")
    assert git(place.repo, "log", "-1", "--format=%s", branch) == f"Rollback {branch.removeprefix('rollback-')}: drill"
    assert git(place.repo, "status", "--porcelain") == status
    assert not (place.home / "hooked").exists()
    worktree = place.home / ".rollbacks" / branch.removeprefix("rollback-")
    assert (worktree / "tradingbot" / "rule.py").read_text() == "THRESHOLD = 1\n"
    assert not (worktree / "tradingbot" / "newer.py").exists()
    assert report.plan.code is not None
    assert set(report.plan.code.dirty) == {"tradingbot/rule.py", "mine"}


def test_the_worktree_inside_of_the_checkout_is_ignored_by_git(place: Place) -> None:
    """A home in the checkout itself: git status is as before."""
    place.home = place.repo / "bot"
    place.home.mkdir()
    (place.repo / ".git" / "info" / "exclude").write_text("bot/state/\n")
    assert place.run().exit_code == 0
    assert git(place.repo, "status", "--porcelain") == ""
    assert (place.home / ".rollbacks").is_dir()


def test_single_files_go_back_and_one_that_was_not_there_goes_with_its_tests_left_out(place: Place) -> None:
    """On the branch only; by name, by import and by way of a helper, each with how it was found."""
    report = place.run("v1", "rule.py", "tradingbot/newer.py")
    code = report.plan.code
    assert code is not None
    assert {file.path: file.what for file in code.files} == {
        "tradingbot/rule.py": "as then", "tradingbot/newer.py": "removed",
    }  # fmt: skip
    assert {each.path: each.because for each in code.left_out} == {
        "tests/test_newer.py": "is named for tradingbot/newer.py",
        "tests/test_direct.py": "imports tradingbot.newer",
        "tests/test_by_way.py": "imports tests.helper",
    }
    changed = git(place.repo, "diff", "--name-status", "HEAD", code.branch).split()
    assert changed == ["D", "tradingbot/newer.py", "M", "tradingbot/rule.py"]
    assert (place.repo / "tradingbot" / "newer.py").exists()


def test_a_module_that_stays_and_imports_one_that_goes_is_named(place: Place) -> None:
    """Before anything is done: the branch would not start."""
    commit(place.repo, {"tradingbot/user.py": "from .newer import NEWER\n"}, "Uses it")
    said = place.command("--to", "v1", "--files", "newer.py", "--dry-run")
    assert "WARNING, will break    tradingbot/user.py imports tradingbot.newer: roll that back too" in said


@pytest.mark.parametrize("name", ["-dash.py", "a\nb.py", "sp ace;$(x).py", "ü.py", "*.py"])
def test_hostile_file_names_go_back_as_any(place: Place, name: str) -> None:
    """A leading dash, a line's end, a pattern: each is that one file."""
    commit(place.repo, {name: "then\n"}, "Then")
    git(place.repo, "tag", "then")
    commit(place.repo, {name: "now\n", "other.py": ""}, "Now")
    report = place.run("then", name)
    assert report.exit_code == 0
    assert report.plan.code is not None
    assert (Path(report.plan.code.worktree) / name).read_text() == "then\n"
    assert len(report.plan.code.files) == 1
    assert all(line.isprintable() for line in report.text().split("\n"))


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_same_command_goes_on(place: Place, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One branch, one commit, one rollback, whichever step was done and not recorded."""
    record = Stored.record

    class Killed(BaseException):
        pass

    def dying(self: Stored, name: str, facts: dict[str, Any]) -> None:
        if name == step:
            raise Killed
        record(self, name, facts)

    monkeypatch.setattr(Stored, "record", dying)
    with pytest.raises(Killed):
        place.run()
    monkeypatch.setattr(Stored, "record", record)
    assert isinstance(place.plan(), Stored)
    report = place.run()
    assert (report.exit_code, report.state, len(past_rollbacks(place.home / "state"))) == (0, "done", 1)
    branch = report.plan.code.branch if report.plan.code else ""
    assert git(place.repo, "rev-list", "--count", f"HEAD..{branch}") == "1"
    assert git(place.repo, "worktree", "list").count("rollback-") == 1


def test_a_worktree_that_was_left_half_made_is_moved_aside(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is deleted, and the branch is checked out whole."""
    run = code_git.Git.run

    def dying(self: code_git.Git, *words: str, **options: Any) -> bytes:
        if words[:2] == ("worktree", "add"):
            run(self, *words, **options)
            (Path(words[-2]) / "tradingbot" / "rule.py").unlink()
            raise KeyboardInterrupt
        return run(self, *words, **options)

    monkeypatch.setattr(code_git.Git, "run", dying)
    with pytest.raises(KeyboardInterrupt):
        place.run()
    monkeypatch.setattr(code_git.Git, "run", run)
    report = place.run()
    assert report.exit_code == 0
    assert (Path(report.steps["worktree"]["aside"]) / "tradingbot" / "__init__.py").exists()
    assert report.plan.code is not None
    assert (Path(report.plan.code.worktree) / "tradingbot" / "rule.py").exists()


def test_a_worktree_that_somebody_has_worked_in_is_left_alone(place: Place) -> None:
    """What would be tried is not what was asked for; it is said, and what was written stays."""
    report = place.run()
    assert report.plan.code is not None
    changed = Path(report.plan.code.worktree) / "tradingbot" / "rule.py"
    changed.write_text("MINE = 1\n")
    with pytest.raises(CodeRollbackError, match="was changed since the rollback made it"):
        place.run()
    assert changed.read_text() == "MINE = 1\n"


@pytest.mark.parametrize("step", ["environment", "tests", "observe"])
def test_what_fails_ends_it_with_a_no_and_is_tried_again(
    place: Place, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, a report that says which step; the same command begins there."""
    bad = Finding(step, Verdict.FAILED, "2 failed", {"log": "x"}, "read x")
    monkeypatch.setattr(code_rollback, f"try_{step}", lambda *_: (bad,) if step == "observe" else bad)
    report = place.run()
    assert (report.exit_code, report.state, report.findings[-1].name) == (1, "half done", step)
    assert report.to_record()["verdict"] == "NO"
    assert report.text().startswith("NO  rollback")
    assert STEPS[STEPS.index(step) - 1] in report.steps
    monkeypatch.setattr(code_rollback, f"try_{step}", lambda *_: (well(step)(),) if step == "observe" else well(step)())
    assert place.run().exit_code == 0


def test_a_second_run_tries_nothing_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found of the same branch counts, and is said to be from the first."""
    first = place.run()
    monkeypatch.setattr(code_rollback, "try_tests", lambda *_: pytest.fail("tried again"))
    second = place.run()
    assert (second.exit_code, second.steps["tests"]["from"]) == (0, first.plan.id)


def test_a_date_is_the_last_commit_before_it(place: Place) -> None:
    """In UTC; one before all history is said with the first."""
    found = place.plan("2026-01-15")
    assert isinstance(found, Plan)
    assert found.code is not None
    assert (found.code.found_by, found.code.commit) == ("date", git(place.repo, "rev-parse", "v1"))
    with pytest.raises(UsageError, match="no commit before 2020-01-01 00:00 UTC"):
        place.plan("2020-01-01")


def test_candidates_are_tags_and_what_changed_the_package(place: Place) -> None:
    """A commit that changed other files alone is none."""
    commit(place.repo, {"README.md": "words"}, "Words")
    rows = candidates(open_checkout(place.repo))
    assert [(row.kind, row.subject) for row in rows] == [
        ("tag", "The first one"), ("commit", "A newer one"), ("commit", "The first one"),
    ]  # fmt: skip
    assert "v1" in place.command("--list")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--to", "v2"), 2, "there is no revision v2"), (("--to", "mian"), 2, "did you mean main?"),
        (("--to=--exec=x",), 2, "is no revision"), (("--to", ""), 2, "is no revision"), ((), 2, "takes --to REV"),
        (("--to", "v1", "--files", "rul.py"), 2, "did you mean tradingbot/rule.py"),
        (("--to", "v1", "--name", "../x"), 2, "is no name of a branch"),
        (("--to", "v1", "--name", "x.lock"), 2, "is no name of a branch"),
        (("--to", "v1", "--into", "/dev/null"), 2, "is no folder that you may write"),
        (("--to", "v1", "--deploy"), 3, "no bot is running on"),
        (("--to", "v1", "--test-args", "'"), 2, "--test-args cannot be split"),
        (("--to", "v1", "--into", "{repo}"), 2, "is the checkout itself"),
        (("--to", "v1", "--into", "{repo}/tests"), 2, "holds files that git tracks"),
        (("--to", "v1", "--restart"), 2, "rollback code has --deploy"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_line(place: Place, words: tuple[str, ...], code: int, said: str) -> None:
    """The line says what would be right, and nothing was done."""
    text = place.command(*(word.replace("{repo}", str(place.repo)) for word in words), code=code)
    assert said in text
    assert text.count("\n") == 1
    assert not (place.home / ".rollbacks").exists()


def test_what_is_no_baseline_is_refused_in_one_line(place: Place, tmp_path: Path) -> None:
    """No checkout, no history, no package, a shallow one, no lock file, an older layout, a branch that is taken."""
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="in no git checkout"):
        plan_code(settings(place.home), "v1", repo=tmp_path / "none")
    git(tmp_path / "none", "init", "--quiet")
    with pytest.raises(UsageError, match="has no history"):
        plan_code(settings(place.home), "v1", repo=tmp_path / "none")
    commit(tmp_path / "none", {"x": ""}, "x")
    with pytest.raises(UsageError, match="is no checkout of tradingbot"):
        plan_code(settings(place.home), "v1", repo=tmp_path / "none")
    git(tmp_path, "clone", "--quiet", "--depth", "1", "--no-tags", place.repo.as_uri(), "shallow")
    with pytest.raises(UsageError, match="git fetch --unshallow"):
        plan_code(settings(place.home), "v1", repo=tmp_path / "shallow")
    git(place.repo, "branch", "rollback-x")
    with pytest.raises(UsageError, match="and is something else"):
        place.plan(name="x")
    bare = commit(place.repo, {"requirements-dev.txt": None}, "Without a lock")
    old = commit(place.repo, {"requirements-dev.txt": LOCK, "tradingbot/__main__.py": None}, "Old")
    with pytest.raises(UsageError, match="without a lock file"):
        place.plan(bare)
    with pytest.raises(UsageError, match="another layout"):
        place.plan(old)


def test_without_git_it_says_what_to_install(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the environment's GIT_ variables lead it nowhere else."""
    monkeypatch.setenv("GIT_DIR", str(place.home))
    assert isinstance(place.plan(), Plan)
    monkeypatch.setenv("PATH", str(place.home))
    with pytest.raises(UsageError, match="git is not installed"):
        place.plan()


def test_where_git_knows_nobody_the_commit_says_who_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nobody ever committed can roll back."""
    monkeypatch.setenv("HOME", str(place.home))
    monkeypatch.setattr(code_git, "QUIET", (*code_git.QUIET, "-c", "user.name=", "-c", "user.email="))
    report = place.run()
    branch = report.plan.code.branch if report.plan.code else ""
    assert git(place.repo, "log", "-1", "--format=%an %ae", branch).endswith(
        "by tradingbot rollback rollback@localhost"
    )


def test_a_terminal_and_a_file_are_asked_for_nothing_they_cannot_show(place: Place) -> None:
    """A subject with escapes is shown without them."""
    commit(place.repo, {"tradingbot/rule.py": "X = 1\n"}, "Red \x1b[31m subject")
    for words in (("--list",), ("--to", "HEAD", "--dry-run")):
        assert "\x1b" not in place.command(*words)


def test_a_second_one_waits_for_nobody_and_flags_can_be_rolled_back_meanwhile(place: Place) -> None:
    """A rollback by code takes minutes; that of a flag must not wait for it."""
    folder = place.home / "state" / "rollbacks"
    folder.mkdir(parents=True)
    with StateLock(folder, 1, "code.lock"):
        with pytest.raises(BusyError):
            place.run()
        assert call(place.home, "rollback", "retry", "--yes", "--why", "x").returncode == 0
    listed = place.command("--to", "v1", "--dry-run")
    assert "found as a tag" in listed


def test_tests_that_rest_on_nothing_that_goes_are_all_run(place: Place) -> None:
    """A file that is only changed leaves no test out: they are to judge it."""
    found = place.plan("v1", "tradingbot/rule.py")
    assert isinstance(found, Plan)
    assert found.code is not None
    assert left_out_by(open_checkout(place.repo), found.code.commit, found.code.files) == ((), ())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a repository of this very package."""
    return real(tmp_path_factory.mktemp("package") / "repo")


def test_this_package_goes_back_is_put_to_work_and_comes_back(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the page's commands: built from its lock, tested, watched; in the bot's place, and the old one again."""
    monkeypatch.setenv("TRADINGBOT_API_KEY", "secret-key")
    monkeypatch.setenv(MARK, "prices")  # as in a notebook that runs into a report, which may be cut off
    sids, done_ids, dry, home = [""], [""], 0, tmp_path
    with bot(home, "--set", "EMBEDDED_SYMBOLS=2", "--set", "HEARTBEAT_S=1") as process:
        sids.append(status_of(home)["bot"]["sid"])
        try:
            for line in WITH_REV:
                words = [word.replace("REV", "v1") for word in shlex.split(line)]
                if words[1] == "code":
                    words += ["--repo", str(package), "--test-args", "tests", "--observe", "4"]
                words = [word if word != "ID" else done_ids[-1] for word in words]
                report = call_long(home, *words, "--yes", "--json")["report"]
                bot_now = find_bot(home / "state")
                if report is None:
                    dry += 1
                    assert past_rollbacks(home / "state") == []
                    continue
                assert report["verdict"] == "GO", report
                done_ids.append(report["id"])
                changes = "--deploy" in words or "--undo" in words
                assert (bot_now.is_running, bot_now.sid > sids[-1]) == (True, changes)
                sids.append(bot_now.sid)
                if changes:
                    process.wait(120)  # the first one, which bears the mark
                environ, command_line = facts_of(bot_now.pid)
                assert b"secret-key" in environ
                assert (f"{MARK}=".encode() in environ) == (process.poll() is None)
                assert (b".rollbacks" in command_line) == ("--deploy" in words)
                if "--undo" in words:
                    continue
                verdicts = {each["name"]: each["verdict"] for each in report["findings"]}
                tried = ("environment", "tests", "observe", "prove")
                assert verdicts == dict.fromkeys((*tried, *(("schema", "deploy") if changes else ())), "ok")
                if "--deploy" in words:
                    assert report["steps"]["tests"]["from"] == done_ids[-2]
                    assert process.returncode == 0
                    assert status_of(home)["warm_start"]["kind"] == "warm"
                    worktree = Path(report["plan"]["code"]["worktree"])
                    assert not (worktree / "tradingbot/market/newer.py").exists()
            for path in (home / "state" / "rollbacks").rglob("*.json*"):
                assert b"secret-key" not in path.read_bytes()
        finally:
            call(home, "stop")
    assert prove(home / "state").exit_code == 0
    assert (dry, [each.state for each in past_rollbacks(home / "state")]) == (1, ["done", "undone", "done", "done"])


def facts_of(pid: int) -> tuple[bytes, bytes]:
    """Return environment and command line of a process."""
    return Path(f"/proc/{pid}/environ").read_bytes(), Path(f"/proc/{pid}/cmdline").read_bytes()


def call_long(home: Path, *words: str) -> dict[str, Any]:
    """Run what takes longer than other commands may."""
    done = subprocess.run(command(home, *words), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found


def test_what_is_tried_ends_with_the_command_that_tries_it_however_that_ends(tmp_path: Path) -> None:
    """By SIGKILL too: its program, and what that has started, do not run on without bound."""
    script = f"""
from pathlib import Path
from tradingbot.ops.code.trial import run_bounded
words = ["sh", "-c", "echo $$ > pid.new; mv pid.new pid; sleep 600 & wait"]
run_bounded(words, Path({str(tmp_path)!r}), {{"PATH": {os.environ["PATH"]!r}}}, Path({str(tmp_path / "log")!r}), 600)
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while not (tmp_path / "pid").exists():
            assert process.poll() is None
            time.sleep(0.02)
        group = os.getpgid(int((tmp_path / "pid").read_text()))
        process.kill()
    end_s = time.monotonic() + 60
    while is_there(group) and time.monotonic() < end_s:
        time.sleep(0.02)
    assert not is_there(group)


def is_there(group: int) -> bool:
    """Say whether a group of processes has one that is more than an entry that nobody has collected."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def test_one_that_put_nothing_to_work_is_removed_by_the_commands_that_its_undoing_names(place: Place) -> None:
    """Exit 0, and nothing was run; run by hand they leave no worktree and no branch."""
    report = place.run()
    done = call(place.home, "rollback", "--undo", report.plan.id, "--json")
    assert done.returncode == 0, done.stderr
    said = call(place.home, "rollback", "--undo", report.plan.id).stdout
    assert "has put no bot to work: nothing to undo" in said
    commands = [row["command"] for row in orjson.loads(done.stdout)["commands"]]
    assert len(commands) == 2
    assert git(place.repo, "worktree", "list").count("rollback-") == 1
    for words in map(shlex.split, commands):
        subprocess.run(words, check=True, capture_output=True)
    assert "rollback-" not in git(place.repo, "worktree", "list") + git(place.repo, "branch")


def test_one_that_was_killed_between_two_bots_is_not_said_to_have_changed_nothing(place: Place) -> None:
    """The old one is stopped, the other not started: its undoing says to go on."""
    report = place.run()
    past_rollbacks(place.home / "state")[-1].record("stop", {"pid": 1})
    done = call(place.home, "rollback", "--undo", report.plan.id)
    assert (done.returncode, "has stopped the bot, and started none yet" in done.stderr) == (2, True)


def test_a_revision_that_does_not_come_up_leaves_the_bot_of_before_running(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, the old one again with its arguments, and the next run tries it from the start."""
    monkeypatch.setattr(code_rollback, "check_reads", lambda *_: Finding("schema", Verdict.OK, "well"))
    with bot(place.home, "--set", "EMBEDDED_SYMBOLS=2", "--set", "HEARTBEAT_S=2") as process:
        before = find_bot(place.home / "state")
        try:
            report = place.run(deploy=True)  # its interpreter is not there
            after = find_bot(place.home / "state")
            assert (report.exit_code, report.state, report.findings[-1].name) == (1, "half done", "deploy")
            assert "the bot of before runs again" in report.findings[-1].says
            assert process.wait(120) == 0
            assert after.is_running
            assert after.sid > before.sid
            assert b"HEARTBEAT_S=2" in Path(f"/proc/{after.pid}/cmdline").read_bytes()
            assert isinstance(place.plan(deploy=True), Stored)
            again = place.run(deploy=True)
            assert (again.exit_code, find_bot(place.home / "state").sid > after.sid) == (1, True)
        finally:
            call(place.home, "stop")


def test_a_state_of_another_schema_is_refused_before_anything_is_stopped(tmp_path: Path) -> None:
    """As is a setting that the other revision does not know; both say what."""
    (tmp_path / "stamp.json").write_text('{"v": 2, "exchange": "embedded"}')
    command_line = (sys.executable, "-P", "-m", "tradingbot", "--home", str(tmp_path))
    launch = Launch(sys.executable, ("-P",), command_line[4:], str(tmp_path), command_line, dict(os.environ))
    found = check_reads(tmp_path, launch)
    assert (found.ok, found.says) == (False, "stamp.json is of schema 2, it reads 1")
    (tmp_path / "stamp.json").write_text('{"v": 1, "exchange": "embedded"}')
    assert check_reads(tmp_path, launch).ok
    (tmp_path / "tradingbot.toml").write_text("NEWER_SETTING = 1\n")
    found = check_reads(tmp_path, launch)
    assert not found.ok
    assert "NEWER_SETTING" in found.says


@pytest.mark.parametrize(
    ("command_line", "arguments"),
    [
        (["python", "-X", "dev", "-m", "tradingbot", "--home", "a b"], ("--home", "a b")),
        (["python", "/x/.venv/bin/tradingbot", "--set", "A=1"], ("--set", "A=1")),
        (["python", "-c", "import x"], None),
    ],
)
def test_how_a_bot_was_started_is_read_from_its_command_line(
    command_line: list[str], arguments: tuple[str, ...] | None
) -> None:
    """By module, by script; anything else is refused, for it could not be started again."""
    if arguments is None:
        with pytest.raises(DeployError, match="not understood"):
            split_command(command_line)
    else:
        assert split_command(command_line)[1] == arguments


def test_tests_that_fail_or_do_not_end_are_a_no_with_their_names(place: Place, tmp_path: Path) -> None:
    """Through pytest itself, in an environment without credentials; what runs on is ended, what is left out not run."""
    python = place.home / ".rollbacks" / "x" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = place.plan(name="y", test_args=["-p", "no:cacheprovider", "."], test_limit_s=300.0)
    assert isinstance(found, Plan)
    assert found.code is not None
    worktree = place.home / ".rollbacks" / "x"
    code = replace(found.code, worktree=str(worktree), left_out=(LeftOut("test_out.py", "imports what is gone"),))
    write(worktree, {"requirements-dev.txt": LOCK, "test_it.py": "def test_a():\n    assert 1 == 2\n"})
    write(worktree, {"test_out.py": "import what_is_gone\n"})
    failed = try_tests(code, tmp_path)
    assert (failed.ok, "1 failed" in failed.says, "error" in failed.says) == (False, True, False)
    assert failed.evidence["left_out"] == ["test_out.py: imports what is gone"]
    assert failed.evidence["failed"][0].startswith("FAILED test_it.py::test_a")
    write(worktree, {"test_it.py": "import time\ndef test_a():\n    time.sleep(60)\n"})
    ended = try_tests(replace(code, test_limit_s=2.0), tmp_path)
    assert (ended.ok, "not over within 2 s" in ended.says) == (False, True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(...)'",
            "the package index cannot be reached",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "is not what the lock file names",
        ),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for x==1", "ERROR: No matching distribution found for x==1"),
    ],
)
def test_an_environment_that_cannot_be_built_is_told_with_its_reason(
    place: Place, tmp_path: Path, line: str, said: str
) -> None:
    """From what pip has said; with the log, and what to do."""
    found = place.plan(name="x")
    assert isinstance(found, Plan)
    assert found.code is not None
    (tmp_path / "environment.log").write_text(f"Collecting x\n{line}\n")
    finding = not_built(found.code, tmp_path / "environment.log", "pip", 1)
    assert said in finding.says
    assert "environment.log" in finding.fix
