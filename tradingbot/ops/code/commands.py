"""What people may run behind a rollback by code, and what each command does or would destroy; none is run here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from tradingbot.ops.code.facts import Code
from tradingbot.ops.code.trial import python_of
from tradingbot.ops.rollback.store import Stored

__all__ = ["commands_of", "removing"]


def commands_of(stored: Stored, home: Path) -> list[tuple[str, str]]:
    """Return commands, and what each one does."""
    code = stored.plan.code
    assert code is not None
    rows = list(_bot(stored, code, shlex.quote(str(home))))
    if "commit" in stored.done:
        rows += _branch(code)
    if "commit" in stored.done and not code.files:
        rows += _destroying(code)
    return rows


def _bot(stored: Stored, code: Code, home: str) -> Iterator[tuple[str, str]]:
    if "start" in stored.done and not stored.plan.undoes:
        undo = f"tradingbot --home {home} rollback --undo {stored.plan.id}"
        yield undo, "puts the bot of before to work again"
    elif stored.state == "done" and not stored.plan.undoes:
        own = shlex.quote(str(python_of(code)))
        yield f"{own} -P -m tradingbot --home {home}", "starts the branch's bot by hand, where none runs"


def _branch(code: Code) -> Iterator[tuple[str, str]]:
    git, branch, on = f"git -C {shlex.quote(code.repo)}", shlex.quote(code.branch), _on(code)
    yield f"{git} diff --stat {code.head[:12]} {branch}", "shows what the branch changes"
    merge = f"makes it so on {on}: one commit more, nothing is lost, and git revert takes it back"
    yield f"{git} merge --ff-only {branch}", merge
    yield from removing(code)


def removing(code: Code) -> Iterator[tuple[str, str]]:
    """Yield the commands that remove worktree and branch, and what each one destroys."""
    git, branch = f"git -C {shlex.quote(code.repo)}", shlex.quote(code.branch)
    gone = "destroys the worktree, with its environment and whatever was changed in it"
    yield f"{git} worktree remove --force {shlex.quote(code.worktree)}", gone
    gone = "destroys the branch: its commit is lost once git has collected its garbage"
    yield f"{git} branch -D {branch}", gone


def _destroying(code: Code) -> Iterator[tuple[str, str]]:
    git, commit = f"git -C {shlex.quote(code.repo)}", code.commit[:12]
    dirty = "what is not committed" if code.dirty else "nothing else (all is committed)"
    gone = f"destroys {code.behind} commits of {_on(code)}, and {dirty}; the merge above destroys nothing"
    yield f"{git} reset --hard {commit}", gone
    target = shlex.quote(code.head_branch or "main")
    gone = "destroys the same commits for everybody else; push the merge above instead"
    yield f"{git} push --force-with-lease origin {commit}:{target}", gone


def _on(code: Code) -> str:
    return code.head_branch or "the commit that is checked out"
