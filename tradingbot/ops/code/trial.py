"""A revision tried in its worktree: an environment from its own lock file, its tests, the embedded exchange watched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tradingbot.io.state_files import write_atomic
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.code import keeper
from tradingbot.ops.code.facts import Code

__all__ = ["python_of", "run_bounded", "try_environment", "try_observe", "try_tests"]

PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "TERM",
    "USER",
    "LOGNAME",
    "SHELL",
    "LD_LIBRARY_PATH",
)
ELSEWHERE = (
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_PYTHON",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
)
BUILD_LIMIT_S = 1800.0
NO_NETWORK = re.compile(
    r"name resolution|NewConnectionError|ConnectTimeout|Connection refused|ProxyError|Network is unre"
)
STAMP = "rollback.json"


def python_of(code: Code) -> Path:
    """Return the interpreter of the branch's own environment."""
    return Path(code.worktree) / ".venv" / "bin" / "python"


def _bare(home: Path) -> dict[str, str]:
    """Return an environment of what a program needs to run: no credentials, no settings, no keyring."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("TRADINGBOT_TEST_")}
    return kept | {
        "HOME": str(home),
        "TRADINGBOT_HOME": str(home),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }


def run_bounded(
    words: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path, limit_s: float, nice: int = 10
) -> tuple[int | None, float]:
    """Run a program with its output in `log`; return exit code (None: ended for time) and seconds.

    It ends with this process, also where this one is killed.
    """
    kept = [sys.executable, "-I", "-S", keeper.__file__, str(nice), *words]  # the bot that trades comes first
    began_s = time.monotonic()
    with log.open("ab") as output:
        os.fchmod(output.fileno(), 0o600)
        output.write(f"$ {' '.join(words)}\n".encode(errors="backslashreplace"))
        output.flush()
        process = subprocess.Popen(  # noqa: S603  (no shell)
            kept, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(limit_s), time.monotonic() - began_s
        except subprocess.TimeoutExpired:
            return None, time.monotonic() - began_s
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _tail(log: Path, count: int = 8) -> list[str]:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()][-count:]
    return []


def try_environment(code: Code, folder: Path) -> Finding:
    """Build the environment of the worktree, unless it is there, of this lock file; see what it imports."""
    worktree, log, python = Path(code.worktree), folder / "environment.log", python_of(code)
    digest = hashlib.sha256((worktree / code.lock).read_bytes()).hexdigest()
    stamp = worktree / ".venv" / STAMP
    with contextlib.suppress(OSError, ValueError):
        if json.loads(stamp.read_bytes()) == {"lock": digest} and python.exists():
            return _imports(code, folder, "there already, of the same lock file")
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ELSEWHERE and not name.startswith("TRADINGBOT_API")
    }
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        code.lock,
    ]
    took_s = 0.0
    for words in ([sys.executable, "-m", "venv", "--clear", ".venv"], pip):
        status, seconds = run_bounded(words, worktree, env, log, BUILD_LIMIT_S)
        took_s += seconds
        if status != 0:
            return _not_built(code, log, "venv" if words is not pip else "pip", status)
    site = next((worktree / ".venv" / "lib").glob("python*/site-packages"))
    (site / "tradingbot-rollback.pth").write_text(f"{worktree}\n", encoding="utf-8")
    write_atomic(stamp, json.dumps({"lock": digest}).encode())
    return _imports(code, folder, f"built from {code.lock} in {took_s:.0f} s")


def _not_built(code: Code, log: Path, what: str, status: int | None) -> Finding:
    said = _tail(log, 30)
    fix = f"read {log}; run the same command again"
    if any(NO_NETWORK.search(line) for line in said):
        why, fix = (
            "the package index cannot be reached",
            "without a network only what pip has in its cache can be installed; " + fix,
        )
    elif any("DO NOT MATCH THE HASHES" in line for line in said):
        why = "what the package index gives is not what the lock file names"
    elif any("No space left" in line for line in said):
        why, fix = "the disk is full", f"free some room, or name another disk with --into; {fix}"
    elif any("No module named venv" in line or "ensurepip" in line for line in said):
        why, fix = "the venv module is missing", f"on Debian, apt-get install python3-venv; {fix}"
    else:
        why = (
            "time is over"
            if status is None
            else (next((line for line in said if line.startswith("ERROR")), f"exit {status}"))
        )
    evidence = {"lock": code.lock, "log": str(log), "exit": status, "last": said[-5:]}
    return Finding("environment", Verdict.FAILED, f"{what} could not build it: {why}", evidence, fix)


def _imports(code: Code, folder: Path, says: str) -> Finding:
    """See that the environment imports the package, and from the worktree."""
    log = folder / "environment.log"
    script = "import tradingbot, tradingbot.cli; print('imported', tradingbot.__file__, tradingbot.__version__)"
    status, _ = run_bounded([str(python_of(code)), "-P", "-c", script], folder, _bare(folder), log, 60.0)
    last = (_tail(log, 1) or [""])[0]
    evidence = {"python": str(python_of(code)), "lock": code.lock, "log": str(log)}
    if status != 0 or f"imported {Path(code.worktree).resolve()}" not in last.replace(
        code.worktree, str(Path(code.worktree).resolve())
    ):
        fix = "the branch does not start as it is: roll back more files with it, or the whole revision"
        return Finding("environment", Verdict.FAILED, f"the package cannot be imported there: {last}", evidence, fix)
    return Finding("environment", Verdict.OK, says, evidence | {"version": last.rpartition(" ")[2]})


def test_command(code: Code) -> list[str]:
    """Return the command that runs the branch's tests."""
    lock = (Path(code.worktree) / code.lock).read_text(errors="replace")
    workers = ("-n", "2") if re.search(r"^pytest-xdist==", lock, re.MULTILINE) else ()
    left_out = [f"--ignore={each.path}" for each in code.left_out]
    return [str(python_of(code)), "-m", "pytest", *(code.test_args or workers), *left_out]


def try_tests(code: Code, folder: Path) -> Finding:
    """Run the tests of the branch in its worktree, within a limit, without credentials."""
    log, words = folder / "tests.log", test_command(code)
    with tempfile.TemporaryDirectory(prefix="rollback-tests-") as home:
        status, took_s = run_bounded(words, Path(code.worktree), _bare(Path(home)), log, code.test_limit_s)
    lines = _tail(log, 60)
    summary = next((line.strip("= ") for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "")
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    evidence = {
        "command": words, "exit": status, "summary": summary, "failed": failed[:20], "log": str(log),
        "left_out": [f"{each.path}: {each.because}" for each in code.left_out], "seconds": round(took_s, 1),
    }  # fmt: skip
    out = f"; {len(code.left_out)} files of tests left out" if code.left_out else ""
    if status == 0 and re.search(r"\d+ passed", summary):
        return Finding("tests", Verdict.OK, f"{summary}{out}", evidence)
    fix = f"read {log}; another revision may be better: tradingbot rollback code --list"
    if status is None:
        says = f"not over within {code.test_limit_s:g} s (--test-limit), and ended{out}"
    else:
        says = f"{summary or (lines or ['it said nothing'])[-1]}, exit {status}{out}"
    return Finding("tests", Verdict.FAILED, says, evidence, fix)


def try_observe(code: Code, folder: Path) -> tuple[Finding, ...]:
    """Let the branch watch the embedded exchange for a while on a home of its own, then prove what it recorded."""
    log = folder / "observe.log"
    with tempfile.TemporaryDirectory(prefix="rollback-observe-") as name:
        home = Path(name)
        env = _bare(home) | {
            "EXCHANGE": "embedded", "GLOBAL_TRADING": "false", "EMBEDDED_SPEED": "10", "EMBEDDED_SYMBOLS": "3",
        }  # fmt: skip
        program = [str(python_of(code)), "-P", "-m", "tradingbot", "--home", name]
        words = [*program, "--duration", f"{code.observe_s:g}", "--no-dashboard"]
        began = log.stat().st_size if log.exists() else 0
        status, took_s = run_bounded(words, home, env, log, code.observe_s + 60.0)
        said = log.read_bytes()[began:].decode(errors="replace").splitlines()
        told: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            told = json.loads((home / "state" / "status.json").read_bytes())
        yields = [_observed(code, log, status, took_s, said, told)]
        if yields[0].ok:
            yields.append(_proved(program, home, env, log))
    return tuple(yields)


def _observed(
    code: Code, log: Path, status: int | None, took_s: float, said: list[str], told: dict[str, Any]
) -> Finding:  # fmt: skip
    data = told.get("data") if isinstance(told.get("data"), dict) else {}
    ticks, fresh = int((data or {}).get("ticks", 0)), int((data or {}).get("fresh", 0))
    beats = sum("HEARTBEAT - Ticker fetched" in line for line in said)
    errors = [line for line in said if re.search(r" ERROR |^Traceback|^\w*Error\b", line)]
    mode = str((told.get("bot") or {}).get("mode", ""))
    evidence = {
        "exit": status, "ticks": ticks, "fresh": fresh, "heartbeats": beats, "mode": mode, "errors": errors[:5],
        "last": said[-3:], "log": str(log), "seconds": round(took_s, 1),
    }  # fmt: skip
    wrong = [
        *([f"exit {status}: {(said or [''])[-1]}"] if status else []),
        *([f"not over {60:g} s after its time"] if status is None else []),
        *(["no ticker came in"] if not ticks else []), *(["no HEARTBEAT"] if not beats else []),
        *([f"{len(errors)} lines of errors"] if errors else []),
        *([f"it did not observe, but was in mode {mode}"] if mode not in ("", "observe") else []),
    ]  # fmt: skip
    if wrong:
        fix = f"read {log}; another revision may be better: tradingbot rollback code --list"
        return Finding("observe", Verdict.FAILED, "; ".join(wrong), evidence, fix)
    says = f"{ticks:,} tickers of {fresh} symbols in {code.observe_s:g} s, {beats} heartbeats, no error, no order"
    return Finding("observe", Verdict.OK, says, evidence)


def _proved(program: list[str], home: Path, env: Mapping[str, str], log: Path) -> Finding:
    status, took_s = run_bounded([*program, "prove", str(home / "state")], home, env, log, 120.0)
    evidence = {"exit": status, "log": str(log), "seconds": round(took_s, 1)}
    if status == 0:
        return Finding("prove", Verdict.OK, "what it recorded is what it decided", evidence)
    if any("invalid choice" in line for line in _tail(log, 5)):
        return Finding("prove", Verdict.NOT_APPLICABLE, "this revision has no command that proves", evidence)
    says = f"what it recorded is not what it decided (exit {status})"
    return Finding("prove", Verdict.FAILED, says, evidence, f"read {log}")
