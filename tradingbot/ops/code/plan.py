"""The plan of a rollback by code: the baseline found, the branch named, the place chosen, all of it looked at first."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tradingbot
from tradingbot.errors import UsageError
from tradingbot.io.overrides import Effective
from tradingbot.io.requests import signature
from tradingbot.ops.code.facts import Code
from tradingbot.ops.code.files import changes_of, left_out_by
from tradingbot.ops.code.git import Git, find_revision, open_checkout
from tradingbot.ops.rollback.plan import Plan
from tradingbot.ops.rollback.restart import find_bot, running_bot
from tradingbot.ops.rollback.store import Stored, past_rollbacks

__all__ = ["KIND", "PLACE", "checkout_of", "plan_code"]

KIND = "code"
PLACE = ".rollbacks"
LOCKS = ("requirements-dev.txt", "requirements.txt")
ROOM_MB = 2000  # an environment with everything that tests need takes about half of it
SHOWN = 20


def checkout_of(repo: Path | None) -> Git:
    """Return git in the checkout that is rolled back: the one named, else the one that this program lies in."""
    return open_checkout(Path(tradingbot.__file__).resolve().parent.parent if repo is None else repo.absolute())


def plan_code(
    effective: Effective, rev: str, why: str = "", files: Sequence[str] = (), deploy: bool = False, name: str = "",
    place: Path | None = None, repo: Path | None = None, test_args: Sequence[str] = (), test_limit_s: float = 3600.0,
    observe_s: float = 20.0,
) -> Stored | Plan:  # fmt: skip
    """Return the rollback to a revision that was begun, and goes on, else its plan; nothing is changed.

    `files` names single files, or folders, that go back alone; `place` is the folder that the worktree is made in (by
    default .rollbacks in the home), `repo` the checkout (by default the one that this program lies in). Raises
    UsageError for a revision, a file or a place that will not do, NoBotError where no bot runs that could be replaced.
    """
    git = checkout_of(repo)
    found_by, commit = find_revision(git, rev)
    head = git.commit_of("HEAD")
    changes = changes_of(git, commit, files)
    left_out, broken = left_out_by(git, commit, changes)
    base = "HEAD" if files else commit
    lock = next((lock for lock in LOCKS if _lies(git, base, commit, changes, lock)), "")
    if not _lies(git, base, commit, changes, "tradingbot/__main__.py"):
        raise UsageError(f"{rev} has no tradingbot/__main__.py: it is of another layout, and cannot be tried here")
    if not lock:
        raise UsageError(f"{rev} has no {' and no '.join(LOCKS)}: without a lock file its environment cannot be built")
    subject, _, time_s = git.text("log", "-1", "--format=%s%x00%ct", commit, "--").partition("\0")
    name = name or _name(rev, commit, head, files)
    if not _is_name(name):
        raise UsageError(f"{name!r} is no name of a branch: take letters, digits, dots and dashes")
    bot = running_bot(effective.state_dir) if deploy else find_bot(effective.state_dir)
    code = Code(
        repo=str(git.folder), rev=rev, found_by=found_by, commit=commit, subject=subject,
        committed_ms=int(time_s) * 1000, head=head,
        head_branch=git.text("symbolic-ref", "--quiet", "--short", "HEAD", check=False), name=name,
        worktree=str(_place(git, effective, place) / name), lock=lock,
        behind=int(git.text("rev-list", "--count", f"{commit}..{head}", "--")),
        difference=git.text("diff", "--shortstat", commit, head, "--").strip(), files=changes, left_out=left_out,
        broken=broken, dirty=tuple(_dirty(git)), test_args=tuple(test_args), test_limit_s=test_limit_s,
        observe_s=observe_s, deploy=deploy,
    )  # fmt: skip
    asked = signature(why)
    plan = Plan(
        KIND, KIND, asked["who"], asked["host"], asked["time_ms"], asked["why"], deploy, False, (), bot, code=code
    )
    begun = [
        each for each in past_rollbacks(effective.state_dir) if each.plan.kind == KIND and code.is_same(each.plan.code)
    ]
    if begun and begun[-1].state in ("planned", "half done"):
        return replace(begun[-1], plan=replace(plan, id=begun[-1].plan.id, time_ms=begun[-1].plan.time_ms))
    if not begun:
        _refuse_taken(git, code)
    return plan


def _lies(git: Git, base: str, commit: str, changes: Sequence[object], path: str) -> bool:
    """Say whether a path is there on the branch that is planned."""
    for change in changes:
        if getattr(change, "path", "") == path:
            return getattr(change, "what", "") != "removed"
    return git.has(base, path)


def _is_name(name: str) -> bool:
    is_plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None
    return is_plain and ".." not in name and not name.endswith((".", ".lock"))  # as git has it


def _name(rev: str, commit: str, head: str, files: Sequence[str]) -> str:
    """Return a name that says the revision, and is another one for other files or another beginning."""
    word = re.sub(r"[^A-Za-z0-9._-]+|\.{2,}", "-", rev).strip("-.")[:40] or commit[:12]
    if not files:
        return word if commit.startswith(word) and len(word) > 6 else f"{word}-{commit[:8]}"
    mark = hashlib.sha256("\0".join([commit, head, *sorted(files)]).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{word}-files-{mark}"


def _place(git: Git, effective: Effective, place: Path | None) -> Path:
    """Return the folder that worktrees are made in; raise UsageError for one that will not do."""
    place = (effective.home.path / PLACE if place is None else place).absolute()
    if not str(place).isprintable():
        raise UsageError(f"{str(place)!r} cannot hold a worktree: its name is not printable")
    real = place.resolve()
    top = git.folder.resolve()
    if real == top or ".git" in real.relative_to(top).parts if real.is_relative_to(top) else False:
        raise UsageError(f"{place} is the checkout itself: name a folder of its own with --into")
    if real.is_relative_to(top):
        tracked = git.paths("ls-files", "-z", "--", str(real.relative_to(top)))
        if tracked:
            raise UsageError(f"{place} holds files that git tracks ({tracked[0]}): name another folder with --into")
    above = next(each for each in (real, *real.parents) if each.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"{place} cannot be made: {above} is no folder that you may write: name another with --into")
    free_mb = shutil.disk_usage(above).free // 1_000_000
    need_mb = ROOM_MB + effective.settings.MIN_FREE_MB
    if free_mb < need_mb:
        text = f"{above} has {free_mb:,} MB free, and an environment beside a bot that records needs {need_mb:,.0f} MB"
        raise UsageError(f"{text}: name a folder on another disk with --into")
    return place


def _dirty(git: Git) -> list[str]:
    """Return what is changed and not committed in the checkout."""
    found = [path[3:] for path in git.paths("status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")]
    return [*found[:SHOWN], *([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])]


def _refuse_taken(git: Git, code: Code) -> None:
    tip = git.commit_of(f"refs/heads/{code.branch}")
    if tip and (
        code.files or git.text("rev-parse", f"{tip}^{{tree}}") != git.text("rev-parse", f"{code.commit}^{{tree}}")
    ):
        raise UsageError(f"a branch {code.branch} is there, and is something else: name another one with --name")
    if not tip and Path(code.worktree).exists():
        raise UsageError(f"{code.worktree} is there, and is no worktree of {code.branch}: name another one with --name")
