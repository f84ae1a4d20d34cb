"""git, called so that nothing is run, asked or changed by surprise: no shell, no hooks, no prompts, no pager."""

from __future__ import annotations

import datetime
import difflib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tradingbot.errors import Unrecoverable, UsageError
from tradingbot.ops.code.facts import Candidate

__all__ = ["Git", "GitError", "candidates", "find_revision", "open_checkout"]

QUIET = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false",
    "-c", "submodule.recurse=false", "-c", "advice.detachedHead=false", "-c", "gc.auto=0",
)  # fmt: skip
IDENTITY = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
LIMIT_S = 300.0
DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?Z?")
LATEST = 20
PACKAGE = ("tradingbot", "requirements.txt", "requirements-dev.txt", "pyproject.toml")


class GitError(Unrecoverable):
    """Say what git would not do, in its own words."""


class Git:
    """Call git in one checkout; the environment's GIT_ variables do not lead it elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = shutil.which("git")
        if found is None:
            raise UsageError("git is not installed, and a rollback by code needs it: on Debian, apt-get install git")
        self._git = found

    def run(self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, check: bool = True) -> bytes:
        """Run one command and return its stdout; raise GitError where it fails, return nothing then without `check`."""
        clean = {name: value for name, value in os.environ.items() if name in IDENTITY or not name.startswith("GIT_")}
        clean |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1", "LC_ALL": "C"}
        try:
            done = subprocess.run(  # noqa: S603  (no shell; what is not ours stands behind -- or --end-of-options)
                [self._git, *QUIET, "-C", str(self.folder), *words], input=stdin, capture_output=True, check=False,
                env=clean | dict(env or {}), timeout=LIMIT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise GitError(f"git {words[0]} has not ended within {LIMIT_S:g} s in {self.folder}") from None
        except ValueError as error:  # a NUL in a word
            raise UsageError(f"that is no word for git: {error}") from None
        if done.returncode and check:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            worst = [line for line in said if line.startswith(("fatal:", "error:"))] or said
            raise GitError(f"git {words[0]}: {worst[0] if worst else f'exit {done.returncode}'}")
        return b"" if done.returncode else done.stdout

    def text(self, *words: str, check: bool = True) -> str:
        """Return stdout as text without the last line's end."""
        return self.run(*words, check=check).decode(errors="backslashreplace").removesuffix("\n")

    def paths(self, *words: str) -> list[str]:
        """Return the paths that a command with -z prints; one that is no UTF-8 has its bytes spelt out."""
        found = self.run(*words).split(b"\0")
        return [path.decode(errors="backslashreplace") for path in found if path]

    def commit_of(self, rev: str) -> str:
        """Return the commit that a revision names, nothing where it names none."""
        return self.text("rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}", check=False)

    def has(self, commit: str, path: str) -> bool:
        """Say whether a path is there at a commit."""
        return bool(self.run("ls-tree", "-z", commit, "--", path))


def open_checkout(folder: Path) -> Git:
    """Return git in the checkout of tradingbot that a folder lies in; raise UsageError for what is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name a git checkout of tradingbot with --repo")
    try:
        top = Git(folder).text("rev-parse", "--show-toplevel")
    except GitError as error:
        if "dubious ownership" in str(error):
            raise UsageError(
                f"{folder} belongs to another user, and git refuses it: git config safe.directory"
            ) from None
        raise UsageError(f"{folder} is in no git checkout: name one of tradingbot with --repo ({error})") from None
    git = Git(Path(top))
    if not git.commit_of("HEAD"):
        raise UsageError(f"{top} has no history: nothing was ever committed there, so there is nothing to go back to")
    if not git.has("HEAD", "tradingbot/__init__.py"):
        raise UsageError(
            f"{top} is no checkout of tradingbot (no tradingbot/__init__.py at HEAD): name one with --repo"
        )
    return git


def find_revision(git: Git, rev: str) -> tuple[str, str]:
    """Return how a revision was found (tag, branch, commit or date) and its commit; raise UsageError for none."""
    if not rev or rev.startswith("-") or not rev.isprintable() or len(rev) > 200:
        raise UsageError(f"{rev[:200]!r} is no revision: name a tag, a branch, a commit or a date such as 2026-11-20")
    for found_by, name in (("tag", f"refs/tags/{rev}"), ("branch", f"refs/heads/{rev}"), ("commit", rev)):
        commit = git.commit_of(name)
        if commit:
            return found_by, commit
    if DATE.fullmatch(rev):
        return "date", _before(git, rev)
    names = git.text(
        "for-each-ref", "--format=%(refname:short)", "refs/tags", "refs/heads", "refs/remotes"
    ).splitlines()
    near = difflib.get_close_matches(rev, names, 3, 0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    if git.text("rev-parse", "--is-shallow-repository") == "true":
        hint += "; this checkout is shallow, its older history is not there: git fetch --unshallow --tags"
    raise UsageError(f"there is no revision {rev} in {git.folder}{hint}; tradingbot rollback code --list shows some")


def _before(git: Git, text: str) -> str:
    """Return the last commit before a time in UTC."""
    try:
        when = datetime.datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=datetime.UTC)
    except ValueError:
        raise UsageError(f"{text} is no date: one is 2026-11-20, or 2026-11-20T03:00, in UTC") from None
    commit = git.text("rev-list", "-1", f"--before={int(when.timestamp())}", "HEAD", "--")
    if not commit:
        first = git.text("log", "--reverse", "--format=%cI", "HEAD", "--").partition("\n")[0]
        raise UsageError(
            f"there is no commit before {when:%Y-%m-%d %H:%M} UTC in {git.folder}: the first is of {first}"
        )
    return commit


def candidates(git: Git) -> list[Candidate]:
    """Return the tags, the newest first, and the last commits that changed the package or what it is built of."""
    tags = git.run(
        "for-each-ref", "--sort=-creatordate", "refs/tags",
        "--format=%(refname:short)%00%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)%00"
        "%(creatordate:unix)%00%(contents:subject)",
    )  # fmt: skip
    log = git.run("log", f"-{LATEST}", "--format=%h%x00%H%x00%ct%x00%s", "HEAD", "--", *PACKAGE)
    return [*_candidates("tag", tags), *_candidates("commit", log)]


def _candidates(kind: str, text: bytes) -> Iterable[Candidate]:
    for line in text.decode(errors="backslashreplace").splitlines():
        fields = line.split("\0")
        if len(fields) == 4 and fields[2].isdigit():
            yield Candidate(kind, fields[0], fields[1], int(fields[2]) * 1000, fields[3])
