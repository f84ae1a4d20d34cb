"""Single files as at another revision: which change, which go, and what on the branch rested on those that go."""

from __future__ import annotations

import ast
import difflib
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from tradingbot.errors import UsageError
from tradingbot.ops.code.facts import FileChange, LeftOut
from tradingbot.ops.code.git import Git

__all__ = ["changes_of", "left_out_by", "tree_of"]

Blobs = Mapping[str, tuple[str, str]]
"""Path to mode and object."""


def changes_of(git: Git, commit: str, paths: Iterable[str]) -> tuple[FileChange, ...]:
    """Return what becomes of files, and of all files in folders; raise UsageError for a path that never was."""
    now, then = _blobs(git, "HEAD"), _blobs(git, commit)
    found: dict[str, FileChange] = {}
    for path in paths:
        name = _spelt(git, path, {*now, *then})
        for each in sorted(key for key in {*now, *then} if name in ("", key) or key.startswith(f"{name}/")):
            what = "removed" if each not in then else "same" if now.get(each) == then[each] else "as then"
            found[each] = FileChange(each, what)
    return tuple(found.values())


def _spelt(git: Git, path: str, known: set[str]) -> str:
    """Return a path as git has it: seen from the checkout, from here, or from the package."""
    if not path or "\0" in path:
        raise UsageError("--files takes paths: an empty one names nothing")
    folders = {parent for name in known for parent in map(str, PurePosixPath(name).parents)}
    here = os.path.relpath(Path.cwd() / path, git.folder)
    for spelling in (os.path.normpath(path), here, os.path.normpath(f"tradingbot/{path}")):
        if spelling in known:
            return spelling
        if spelling in folders:
            return "" if spelling == "." else spelling
    near = difflib.get_close_matches(path, known, 3, 0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UsageError(f"{path} is no file of {git.folder}, neither now nor then{hint}")


def _blobs(git: Git, commit: str) -> dict[str, tuple[str, str]]:
    found = {}
    for line in git.run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0"):
        facts, _, path = line.partition(b"\t")
        if path:
            mode, _, name = facts.decode().split()
            found[path.decode(errors="surrogateescape")] = (mode, name)
    return found


def tree_of(git: Git, commit: str, head: str, files: Iterable[FileChange], index: Path) -> str:
    """Return the tree of `head` with files as at `commit`; `index` is a scratch file."""
    then = _blobs(git, commit)
    env = {"GIT_INDEX_FILE": str(index)}
    index.unlink(missing_ok=True)
    git.run("read-tree", head, env=env)
    lines = []
    for file in files:
        mode, name = then[file.path] if file.what != "removed" else ("0", "0" * len(head))
        lines.append(f"{mode} {name}\t{file.path}".encode(errors="surrogateescape"))
    git.run("update-index", "-z", "--index-info", stdin=b"\0".join([*lines, b""]), env=env)
    return git.run("write-tree", env=env).decode().strip()


def left_out_by(git: Git, commit: str, files: Iterable[FileChange]) -> tuple[tuple[LeftOut, ...], tuple[str, ...]]:
    """Return the tests that rest on files that go, and the modules that import one and stay.

    A test is found by its name (tests/test_NAME.py beside a NAME.py that goes), or by what it imports, itself or by way
    of other modules of the tests.
    """
    files = tuple(files)
    gone = {file.path for file in files if file.what == "removed"}
    modules = {_module(path) for path in gone if path.endswith(".py")}
    if not modules:
        return (), ()
    then = _blobs(git, commit)
    blobs = {path: blob for path, blob in _blobs(git, "HEAD").items() if path not in gone}
    blobs |= {file.path: then[file.path] for file in files if file.what == "as then"}
    imports = _imports(
        git, {p: b for p, b in blobs.items() if p.endswith(".py") and p.startswith(("tradingbot/", "tests/"))}
    )
    because = {path: _why(names & modules) for path, names in imports.items() if names & modules}
    names = {f"tests/test_{PurePosixPath(path).name}": path for path in gone if path.startswith("tradingbot/")}
    because |= {test: f"is named for {names[test]}" for test in imports if test in names and test not in because}
    while True:
        by_way = {_module(path) for path in because if path.startswith("tests/")}
        more = {path: _why(named & by_way) for path, named in imports.items() if path not in because and named & by_way}
        if not more:
            break
        because |= more
    tests = [LeftOut(path, why) for path, why in sorted(because.items()) if _is_test(path)]
    broken = [f"{path} {why}" for path, why in sorted(because.items()) if path.startswith("tradingbot/")]
    broken += [f"{path} {why}" for path, why in sorted(because.items()) if path.endswith("/conftest.py")]
    return tuple(tests), tuple(broken)


def _is_test(path: str) -> bool:
    return path.startswith("tests/") and PurePosixPath(path).name.startswith("test_")


def _why(modules: set[str]) -> str:
    return f"imports {', '.join(sorted(modules))}"


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(git: Git, blobs: Blobs) -> dict[str, set[str]]:
    """Return what each module imports, anywhere in it; one that is no Python imports nothing."""
    asked = "".join(f"{name}\n" for _, name in blobs.values())
    answer, found, at = git.run("cat-file", "--batch", stdin=asked.encode()), {}, 0
    for path in blobs:
        end = answer.index(b"\n", at)
        size = int(answer[at:end].split()[-1])
        found[path] = _imported(answer[end + 1 : end + 1 + size], path)
        at = end + size + 2
    return found


def _imported(text: bytes, path: str) -> set[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    package = _module(path).split(".")[: None if path.endswith("__init__.py") else -1]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names
