"""What a rollback by code is, as it is stored: which revision, which files, where it is tried, what was found there."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Candidate", "Code", "FileChange", "LeftOut"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Name a revision that one could roll back to; `kind` is tag or commit."""

    kind: str
    name: str
    commit: str
    time_ms: int
    subject: str


@dataclass(frozen=True, slots=True)
class FileChange:
    """Say what becomes of a file on the branch: `as then`, `removed` (it was not there then), or `same`."""

    path: str
    what: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Name a file of tests that is not run on the branch, and how it was found."""

    path: str
    because: str


@dataclass(frozen=True, slots=True)
class Code:
    """Hold what is rolled back: a whole revision, or single files of it where `files` names some.

    `rev` is what was asked for, `found_by` how it was found (tag, branch, commit or date), `commit` what it is; `head`
    what the branch begins from. `behind` counts the commits that are taken back. `broken` names modules that import one
    that is removed; `dirty` what is changed and not committed in the checkout, which a rollback leaves out.
    """

    repo: str
    rev: str
    found_by: str
    commit: str
    subject: str
    committed_ms: int
    head: str
    head_branch: str
    name: str
    worktree: str
    lock: str
    behind: int
    difference: str
    files: tuple[FileChange, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    broken: tuple[str, ...] = ()
    dirty: tuple[str, ...] = ()
    test_args: tuple[str, ...] = ()
    test_limit_s: float = 3600.0
    observe_s: float = 20.0
    deploy: bool = False

    @property
    def branch(self) -> str:
        """Return the name of the branch."""
        return f"rollback-{self.name}"

    def is_same(self, other: Code | None) -> bool:
        """Say whether the other one is of the same revision and files, on the same branch."""
        mine = (self.repo, self.name, self.worktree, self.commit, self.head, self.files)
        return other is not None and mine == (
            other.repo, other.name, other.worktree, other.commit, other.head, other.files,
        )  # fmt: skip
