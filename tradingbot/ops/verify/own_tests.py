"""The project's own tests, run in the source tree that this program comes from, where it is one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.verify.scratch import bare_environment

__all__ = ["TESTS", "find_checkout", "own_tests"]

TESTS = "tests pass"
TIMEOUT_S = 3600.0
KEPT_LINES = 30


def find_checkout(place: Path | None = None) -> Path | None:
    """Return the source tree that a package of ours (by default this one) lies in, None where it is installed."""
    root = (place or Path(__file__).resolve().parents[2]).parent
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    marks = (root / "Makefile", root / "tests" / "conftest.py")
    return root if project == "tradingbot" and all(mark.is_file() for mark in marks) else None


def own_tests(root: Path | None, off: Sequence[str], timeout_s: float = TIMEOUT_S) -> Finding:
    """Run `make test` in a source tree, without the tests of the flags that are off, and with no secret at hand."""
    if root is None:
        says = "this program is installed, without its tests: they lie in the source tree"
        return Finding(TESTS, Verdict.NOT_APPLICABLE, says)
    wanted = " ".join(["-n 2", *(f"--without {flag}" for flag in off)])
    words = ["make", "test", f"PYTEST_ARGS={wanted}"]
    evidence: dict[str, object] = {"command": " ".join([*words[:2], f"PYTEST_ARGS='{wanted}'"]), "without": list(off)}
    with tempfile.TemporaryFile() as said:
        try:
            with subprocess.Popen(  # noqa: S603  (make out of PATH, no shell of ours)
                words, cwd=root, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                env=bare_environment(), start_new_session=True,
            ) as process:  # fmt: skip
                try:
                    code: int | None = process.wait(timeout_s)
                except subprocess.TimeoutExpired:
                    code = None
                finally:
                    if process.poll() is None:
                        _end(process.pid)
        except FileNotFoundError:
            says = "make is missing: the tests cannot be run"
            return Finding(TESTS, Verdict.FAILED, says, evidence, "apt-get install make, or python -m pytest by hand")
        said.seek(max(said.seek(0, os.SEEK_END) - 100_000, 0))
        lines = said.read().decode(errors="replace").splitlines()[-KEPT_LINES:]
    summary = next((line.strip("= ") for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "")
    evidence |= {"exit_code": code, "summary": summary, "last_lines": lines}
    left_out = f", without those of {', '.join(off)}" if off else ""
    if code == 0:
        return Finding(TESTS, Verdict.OK, f"{summary or 'passed'}{left_out}", evidence)
    how = f"still running after {timeout_s:g} s" if code is None else f"make test ended with {code}"
    last = next((line for line in reversed(lines) if line.strip() and not line.startswith("make:")), "it said nothing")
    says = f"{how}: {summary or last}{left_out}"
    return Finding(TESTS, Verdict.FAILED, says[:400], evidence, f"cd {root} && {evidence['command']}")


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
