"""Small ways to bring a bot's home into trouble, and to see a doctor about it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.test_live import call
from tradingbot.config import FLAGS
from tradingbot.io.home import Home
from tradingbot.io.state_files import StateLock
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.doctor.patient import Patient, meet

OK, WARNING, FAILED, NOT_APPLICABLE = Verdict.OK, Verdict.WARNING, Verdict.FAILED, Verdict.NOT_APPLICABLE
FIX = ("--yes", "--why", "drill")
NOW_MS = 1_795_000_000_000


def patient(home: Path, *assignments: str, **environ: str) -> Patient:
    return meet(Home(home, "test"), None, None, assignments, environ)


def report(home: Path, *words: str, code: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return what the real command finds, by name."""
    done = call(home, "doctor", "--json", *words)
    says = [
        (f["name"], f["says"])
        for f in orjson.loads(done.stdout or "{}").get("findings", ())
        if f["verdict"] == "failed"
    ]
    assert done.returncode in ((0, 1) if code is None else (code,)), f"{says} {done.stderr}"
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in orjson.loads(done.stdout)["findings"]:
        found.setdefault(finding["name"], []).append(finding)
    return found


def one(found: Finding | Iterable[Finding]) -> Finding:
    """Return the only finding."""
    (finding,) = [found] if isinstance(found, Finding) else list(found)
    return finding


def by_name(found: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in found}


def row(symbol: str = "BTC/USDT", **facts: Any) -> dict[str, Any]:
    """Return a healthy row of a status."""
    return {
        "symbol": symbol, "last": 100.0, "reference": 100.5, "reference_source": "anchor", "threshold": 99.0,
        "drop_pct": -0.5, "age_s": 0.4, "state": "armed", "retry": None, "triggers": 1, "armed": True,
    } | facts  # fmt: skip


def status(*symbols: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return the status of a healthy bot, with members of its own."""
    shown = list(symbols) or [row(), row("ETH/USDT")]
    bot = {"sid": "s1", "pid": os.getpid(), "exchange": "embedded", "speed": 1.0, "uptime_s": 900.0, "state": "running"}
    data = {
        "mode": "stream",
        "fresh": len(shown),
        "stale": 0,
        "oldest_s": 0.4,
        "ticks": 5,
        "withheld": {},
        "rejected": {},
        "held_back_until_ms": None,
    }
    streams = {name: {"state": "ok", "dropped": 0} for name in ("ticks", "snapshots", "windows", "anchors", "journal")}
    found: dict[str, Any] = {
        "v": 1, "bot": bot, "time_ms": NOW_MS, "flags": dict.fromkeys(FLAGS, True), "symbols": shown, "overrides": [],
        "data": data, "streams": streams, "disk": {"free_mb": 9, "hours_left": None},
        "warm_start": {"kind": "warm", "symbols": 2, "ticks": 9, "ms": {"checkpoint": 1.0}},
        "decisions": [], "errors": [],
    }  # fmt: skip
    for name, value in members.items():
        found[name] = found[name] | value if isinstance(value, dict) else value
    return found


@contextlib.contextmanager
def running(home: Path, told: dict[str, Any] | None = None, age_s: float = 0.0) -> Iterator[None]:
    """Hold the lock as a running bot does, having told of itself so long ago."""
    state = home / "state"
    state.mkdir(exist_ok=True)
    with StateLock(state, 1):
        path = state / "status.json"
        path.write_bytes(orjson.dumps(status() if told is None else told))
        when = time.time() - age_s
        os.utime(path, (when, when))
        yield


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Have a file system of its own at a folder; skip where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
