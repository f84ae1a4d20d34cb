"""Why a bot does not start: Python, packages, versions, settings, lock, state directory; by the standard library."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tradingbot.errors import TradingBotError
from tradingbot.io.home import OVERRIDES_NAME, find_settings_file, read_overrides, read_toml
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.doctor.patient import PACKAGE, Patient

__all__ = [
    "DEPENDENCIES", "ENVIRONMENT", "Imports", "find_lock_file", "locked", "origins", "overrides", "packages",
    "python_version", "settings", "versions",
]  # fmt: skip

DEPENDENCIES = ("msgspec", "orjson", "zstandard", "tenacity", "rich", "numpy", "aiohttp", "pyarrow", "ccxt")
"""What the package itself imports, by name, which is each one's name in the lock too; the slowest comes last."""

ENVIRONMENT = "tradingbot doctor --fix environment"
OLDEST = (3, 11)
LOCKED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\]*))?")
NAMED = 5
PROBE = """
import importlib, json, sys, time
sys.path[:] = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    began = time.perf_counter()
    try:
        where, says = getattr(importlib.import_module(name), "__file__", None) or "", ""
    except BaseException as error:
        where, says = "", f"{type(error).__name__}: {error}"
    print(json.dumps([name, says, where, round(time.perf_counter() - began, 3)]), flush=True)
"""


class Imports:
    """Import packages in a process of their own, begun at once and looked at later: one that hangs holds nobody up."""

    def __init__(self, names: Sequence[str], python: str = sys.executable, path: Sequence[str] | None = None) -> None:
        self._names, self._python = list(names), python
        self._path = json.dumps(list(sys.path if path is None else path))
        self._begin(self._names)

    def _begin(self, names: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (read when it has ended; a pipe could fill)
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter, no shell)
            [self._python, "-c", PROBE, self._path, *names],
            stdin=subprocess.DEVNULL, stdout=self._said, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def result(self, timeout_s: float) -> dict[str, tuple[str, float]]:
        """Return by name what went wrong ("" for nothing) and the seconds; wait so long for it at most."""
        found: dict[str, tuple[str, float]] = {}
        end_s = time.monotonic() + max(timeout_s, 0.0)
        left = self._names
        while left:
            try:
                code: int | None = self._process.wait(max(end_s - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                code = None
                self._process.kill()
                self._process.wait()
            self._said.seek(0)
            for line in self._said.read().splitlines():
                try:
                    name, says, _, took_s = json.loads(line)
                except (ValueError, TypeError):  # what a package prints while it is imported
                    continue
                found[name] = (says, took_s)
            self._said.close()
            left = [name for name in self._names if name not in found]
            if not left:
                break
            if code is None:
                found |= dict.fromkeys(left, ("not imported in time", timeout_s))
                break
            how = f"signal {-code}" if code < 0 else f"exit {code}"
            found[left[0]] = (f"the interpreter ended on it ({how})", 0.0)
            left = left[1:]
            if left:
                self._begin(left)
        return found


def python_version(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Say whether Python is new enough."""
    word = ".".join(map(str, version[:3]))
    if tuple(version[:2]) >= OLDEST:
        return Finding("python", Verdict.OK, f"Python {word}", {"version": word, "executable": sys.executable})
    fix = "run it with Python 3.11 or newer: python3.11 -m venv .venv, or make run PYTHON=/path/to/python3.11"
    return Finding("python", Verdict.FAILED, f"Python {word} is older than 3.11", {"version": word}, fix)


def packages(imports: Imports, timeout_s: float) -> Finding:
    """Say which dependency cannot be imported, and how it fails."""
    found = imports.result(timeout_s)
    evidence = {name: says or f"{took_s:.2f} s" for name, (says, took_s) in found.items()}
    late = [name for name, (says, _) in found.items() if says == "not imported in time"]
    broken = {name: says for name, (says, _) in found.items() if says and name not in late}
    if broken:
        text = "; ".join(f"{name}: {says[:160]}" for name, says in broken.items())
        return Finding("packages", Verdict.FAILED, f"cannot be imported: {text}", evidence, ENVIRONMENT)
    if late:
        fix = "a slow or a busy disk: look again; if it stays so, " + ENVIRONMENT
        return Finding(
            "packages", Verdict.WARNING, f"not imported in {timeout_s:.1f} s: {', '.join(late)}", evidence, fix
        )
    return Finding("packages", Verdict.OK, f"all {len(found)} dependencies can be imported", evidence)


def find_lock_file(package: Path | None = None, name: str = "requirements.txt") -> Path | None:
    """Return the lock file beside the package, else beside the virtual environment; None where there is none."""
    beside = PACKAGE.parent if package is None else package
    for folder in (beside, Path(sys.prefix).parent):
        if (folder / name).is_file():
            return folder / name
    return None


def locked(path: Path) -> dict[str, str]:
    """Return the versions that a lock file names for this machine, by package. Raises OSError."""
    found = {}
    for line in path.read_text(errors="replace").splitlines():
        match = LOCKED.match(line)
        if match is not None and _applies(match[3] or ""):
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


def _applies(marker: str) -> bool:
    if not marker.strip():
        return True
    try:
        from packaging.markers import Marker

        return bool(Marker(marker.strip()).evaluate())
    except Exception:  # noqa: BLE001  (without the library that knows: what is only for some is not asked for)
        return False


def versions(path: Path | None, installed: Mapping[str, str] | None = None) -> Finding:
    """Hold what is installed against the lock file."""
    name = "versions"
    if path is None:
        return Finding(name, Verdict.NOT_APPLICABLE, "no lock file (requirements.txt) beside the package")
    wanted = locked(path)
    there = _installed(wanted) if installed is None else installed
    missing = {package: version for package, version in wanted.items() if package not in there}
    other = {p: (there[p], version) for p, version in wanted.items() if p in there and there[p] != version}
    evidence = {"lock": str(path), "missing": missing, "other": {p: list(pair) for p, pair in other.items()}}
    if not missing and not other:
        return Finding(name, Verdict.OK, f"all {len(wanted)} packages are those of {path.name}", evidence)
    words = [f"{package} is missing" for package in missing]
    words += [f"{package} {found}, locked {version}" for package, (found, version) in other.items()]
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    verdict = Verdict.FAILED if missing else Verdict.WARNING
    return Finding(name, verdict, f"not as in {path.name}: {'; '.join(words[:NAMED])}{more}", evidence, ENVIRONMENT)


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = str(importlib.metadata.version(name))
        except Exception:  # noqa: BLE001, S112  (absent, or with metadata that cannot be read)
            continue
    return found


def origins(names: Sequence[str] = DEPENDENCIES, cwd: Path | None = None) -> Finding:
    """Say which package is imported from elsewhere than where it is installed: by a file of its name in the way."""
    shadows = {}
    for name in names:
        found, home = _found_at(name), _installed_at(name)
        if found is not None and home is not None and not found.is_relative_to(home):
            shadows[name] = str(found)
    first = Path(sys.path[0] or ".") if cwd is None else cwd
    for each in _listed(first):
        if each.stem in sys.stdlib_module_names and each.suffix == ".py" and not _is_standard(first):
            shadows[each.stem] = str(each)
    package = PACKAGE
    evidence: dict[str, Any] = {"tradingbot": str(package), "shadowed": shadows}
    if shadows:
        words = "; ".join(f"{name} is imported from {where}" for name, where in shadows.items())
        fix = "move or rename that file, or start from another folder (python -P leaves the working directory out)"
        return Finding("imported from", Verdict.FAILED, f"{words}, which hides the package", evidence, fix)
    elsewhere = _elsewhere(package, Path.cwd() if cwd is None else cwd)
    if elsewhere is not None:
        says = f"tradingbot is imported from {package}, while {elsewhere[1]} {elsewhere[0]}"
        fix = "if that is the one you mean: start from its folder, with the environment that belongs to it"
        return Finding("imported from", Verdict.WARNING, says, evidence, fix)
    return Finding(
        "imported from", Verdict.OK, f"tradingbot from {package}, packages from where they are installed", evidence
    )


def _found_at(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve()


def _installed_at(name: str) -> Path | None:
    try:
        return Path(str(importlib.metadata.distribution(name).locate_file(""))).resolve()
    except Exception:  # noqa: BLE001  (absent, or with metadata that cannot be read: the other diagnoses say so)
        return None


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_standard(folder: Path) -> bool:
    return folder.resolve() == Path(os.__file__).resolve().parent


def _elsewhere(package: Path, cwd: Path) -> tuple[str, Path] | None:
    """Return another tradingbot that somebody could take for the one that runs, and how: in `cwd`, or installed."""
    here = cwd / "tradingbot"
    if (here / "__init__.py").is_file() and here.resolve() != package:
        return "lies in the working directory", here.resolve()
    try:
        found = importlib.metadata.distribution("tradingbot")
        text = found.read_text("direct_url.json")
        url = urlsplit(json.loads(text)["url"]) if text else None
        folder = Path(url2pathname(url.path)) if url is not None and url.scheme == "file" else None
        is_editable = bool(text and json.loads(text).get("dir_info", {}).get("editable"))
        installed = folder if is_editable and folder else Path(str(found.locate_file("")))
    except Exception:  # noqa: BLE001  (not installed: run from its folder)
        return None
    there = installed / "tradingbot"
    return ("is installed", there) if there.is_dir() and there.resolve() != package else None


def settings(patient: Patient) -> Finding:
    """Say what is wrong with a layer of settings."""
    name = "settings"
    try:
        path = find_settings_file(patient.home, patient.config)
        read_toml(path)
    except (TradingBotError, OSError) as error:
        return Finding(
            name,
            Verdict.FAILED,
            str(error),
            fix="mend that file: a bot does not start with it; a running one keeps what it has",
        )
    if patient.effective is not None:
        changed = {key: where for key, where in patient.effective.sources.items() if where != "default"}
        says = f"{len(changed)} differ from the defaults" if changed else "all are the defaults"
        return Finding(name, Verdict.OK, says, {"file": str(path), "sources": changed})
    if patient.is_unmended:
        return Finding(name, Verdict.NOT_APPLICABLE, f"they parse; their values {_unmended(patient)}")
    if OVERRIDES_NAME in patient.trouble and overrides(patient).verdict is Verdict.FAILED:
        return Finding(name, Verdict.NOT_APPLICABLE, f"cannot be told while {OVERRIDES_NAME} is broken")
    fix = "change that value where it stands: tradingbot.toml, the environment, --set, or tradingbot clear KEY"
    return Finding(name, Verdict.FAILED, patient.trouble, fix=fix)


def _unmended(patient: Patient) -> str:
    from tradingbot.ops.doctor.patient import UNMENDED

    return f"{UNMENDED} ({patient.trouble[:120]})"


def overrides(patient: Patient) -> Finding:
    """Say whether the overrides can be read."""
    try:
        found = read_overrides(patient.state_dir)
    except (TradingBotError, OSError) as error:
        fix = "tradingbot doctor --fix overrides (sets it aside; the last good one counts)"
        return Finding("overrides", Verdict.FAILED, str(error), fix=fix)
    keys = ", ".join(sorted(found))[:200]
    return Finding("overrides", Verdict.OK, keys or "none", {"keys": sorted(found)})
