"""The virtual environment built anew from the lock: beside the one there is, looked at, then put in its place."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tradingbot.errors import UsageError
from tradingbot.ops.doctor.patient import PACKAGE
from tradingbot.ops.doctor.start import DEPENDENCIES, Imports, find_lock_file, locked

__all__ = ["RebuildPlan", "plan_rebuild", "rebuild"]

DEV, RUN = "dev.stamp", "run.stamp"  # which of the two locks an environment was made from, as make leaves it
BUILD_S, IMPORT_S = 1800.0, 60.0
AT_FDCWD, RENAME_EXCHANGE = -100, 2
TAIL = 300


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """Hold which environment is built anew, out of which lock, by which Python; no steps where it cannot be."""

    folder: Path
    lock: Path
    python: Path
    package: Path
    says: str
    steps: tuple[str, ...] = ()
    advice: str = ""

    @property
    def new(self) -> Path:
        """Return where the new one is built."""
        return self.folder.with_name(self.folder.name + ".new")

    @property
    def old(self) -> Path:
        """Return where the one of today is kept."""
        return self.folder.with_name(self.folder.name + ".old")


def plan_rebuild(prefix: str = sys.prefix, base: str = sys.base_prefix) -> RebuildPlan:
    """Return how the environment that this runs in would be built anew, changing nothing."""
    folder, package = Path(prefix), PACKAGE
    name = "requirements-dev.txt" if (folder / DEV).exists() else "requirements.txt"
    lock = find_lock_file(name=name)
    python = Path(base) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not python.exists():
        python = Path(getattr(sys, "_base_executable", "") or sys.executable)
    if prefix == base or not (folder / "pyvenv.cfg").is_file():
        advice = (
            "make one: python3 -m venv .venv, then .venv/bin/python -m pip install --require-hashes -r requirements.txt"
        )
        return RebuildPlan(
            folder, Path(), python, package, f"{folder} is no virtual environment: it is left alone", (), advice
        )
    if lock is None:
        advice = "install it anew as you did before: pip install --force-reinstall tradingbot"
        says = f"there is no {name} beside {package}, or {folder}: nothing says what belongs into it"
        return RebuildPlan(folder, Path(), python, package, says, (), advice)
    plan = RebuildPlan(folder, lock, python, package, f"{folder} built anew from {lock}")
    editable = ", and tradingbot itself from here" if (folder / DEV).exists() else ""
    steps = (
        f"build {plan.new} with {python}",
        f"install {len(locked(lock))} packages of {lock} into it, by their hashes{editable} (pip's own settings hold)",
        "import each of them there; if any fails, all is left as it was",
        f"put it in the place of {folder}, and keep that as {plan.old}"
        + (" (the one that is kept there now goes)" if plan.old.exists() else ""),
        f"remove the caches of compiled code under {package}",
    )
    return RebuildPlan(
        folder,
        lock,
        python,
        package,
        plan.says,
        steps,
        f"to take it back: mv {folder} {folder}.bad && mv {plan.old} {folder}",
    )


def rebuild(plan: RebuildPlan, progress: Callable[[str], None] = lambda _: None) -> tuple[tuple[str, ...], bool]:
    """Do it; return what was done and whether the new environment is in place. Raises UsageError where it cannot be.

    Until the last moment the one there is is not touched: whatever fails, or whoever kills it, leaves that.
    """
    if plan.new.exists():  # of an attempt that was interrupted
        shutil.rmtree(plan.new)
    try:
        progress("building")
        _run([str(plan.python), "-m", "venv", str(plan.new)], plan)
        python = str(plan.new / "bin" / "python")
        progress("installing")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        _run([*pip, "--require-hashes", "-r", str(plan.lock)], plan)
        if (plan.folder / DEV).exists():
            _run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(plan.package.parent)], plan)
        progress("looking at it")
        _look(plan, python)
        for stamp in (DEV, RUN):
            if (plan.folder / stamp).exists():
                (plan.new / stamp).touch()
        _readdress(plan)
    except BaseException:  # Ctrl-C too: half an environment is of no use to anybody
        shutil.rmtree(plan.new, ignore_errors=True)
        raise
    progress("putting it in place")
    _swap(plan)
    cleared = _clear_caches(plan.package)
    return (
        f"{plan.folder} is new; the one before is {plan.old}",
        f"{cleared} folders of compiled code were removed",
    ), True


def _run(words: list[str], plan: RebuildPlan) -> None:
    environ = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(  # noqa: S603  (no shell)
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_S, check=False,
            env=environ, cwd=plan.lock.parent,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{' '.join(words[:4])}: {error}; {plan.folder} is as it was") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-TAIL:]
        raise UsageError(f"{' '.join(words[1:4])} failed: {said}; {plan.folder} is as it was")


def _look(plan: RebuildPlan, python: str) -> None:
    """Import what the lock holds of our dependencies, by the new environment; raise UsageError if any fails."""
    asked = subprocess.run(  # noqa: S603  (no shell)
        [python, "-I", "-c", "import json, sys; print(json.dumps(sys.path))"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=IMPORT_S, check=True,
    )  # fmt: skip
    import json

    there = set(locked(plan.lock))
    names = [name for name in DEPENDENCIES if name in there]
    found = Imports(names, python, json.loads(asked.stdout)).result(IMPORT_S) if names else {}
    bad = {name: says for name, (says, _) in found.items() if says}
    if bad:
        words = "; ".join(f"{name}: {says[:120]}" for name, says in bad.items())
        raise UsageError(f"the new environment cannot import {words}; {plan.folder} is as it was")


def _readdress(plan: RebuildPlan) -> None:
    """Write the address that it will have into what holds the one that it was built under: programs, and activation."""
    before, after = str(plan.new).encode(), str(plan.folder).encode()
    for path in [*(plan.new / "bin").iterdir(), plan.new / "pyvenv.cfg"]:
        if path.is_symlink() or not path.is_file():
            continue
        text = path.read_bytes()
        if before in text and b"\0" not in text:
            path.write_bytes(text.replace(before, after))


def _swap(plan: RebuildPlan) -> None:
    """Put the new environment in the old one's place, at once where the system can; keep the old one.

    Killed anywhere, the old one lies where it was or is kept under its name, and never where the next attempt builds.
    """
    kept = plan.old.with_name(plan.old.name + ".gone")
    if plan.old.exists():
        shutil.rmtree(kept, ignore_errors=True)
        plan.old.rename(kept)
    plan.new.rename(plan.old)  # so that the exchange leaves the old one under the name that it is kept by
    if not _exchange(plan.old, plan.folder):
        plan.old.rename(plan.new)
        plan.folder.rename(plan.old)
        try:
            plan.new.rename(plan.folder)
        except BaseException:  # Ctrl-C too: without an environment nothing starts
            plan.old.rename(plan.folder)
            raise
    shutil.rmtree(kept, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Give two folders each other's names in one step (renameat2); return whether that could be done."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)


def _clear_caches(package: Path) -> int:
    count = 0
    for folder in list(_caches(package)):
        shutil.rmtree(folder, ignore_errors=True)
        count += 1
    return count


def _caches(package: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(package):
        if "__pycache__" in names:
            names.remove("__pycache__")
            yield Path(folder) / "__pycache__"
