"""Verifying: how long the checklist takes on a running bot, whose record is long or of many symbols."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

ROUNDS = 5
BOTS = {"12 symbols, x1": ("12", "1", 20), "12 symbols, x30": ("12", "30", 60), "50 symbols, x10": ("50", "10", 60)}


def verifying() -> Iterator[str]:
    """Measure `tradingbot verify` as a process beside its bot, and the check that takes longest."""
    for name, (symbols, speed, warm_s) in BOTS.items():
        with tempfile.TemporaryDirectory() as home:
            words = [sys.executable, "-m", "tradingbot", "--home", home]
            chosen = [f"EMBEDDED_SYMBOLS={symbols}", f"TOP_N={symbols}", f"EMBEDDED_SPEED={speed}"]
            options = [word for setting in chosen for word in ("--set", setting)]
            with subprocess.Popen([*words, *options, "--no-dashboard"], stderr=subprocess.DEVNULL) as bot:
                try:
                    time.sleep(warm_s)
                    yield _figure(name, words, Path(home))
                finally:
                    bot.kill()


def _figure(name: str, words: list[str], home: Path) -> str:
    took, longest = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        done = subprocess.run([*words, "verify", "--json"], stdout=subprocess.PIPE, check=False)
        took.append(time.perf_counter() - began)
        report = orjson.loads(done.stdout)
        assert report["verdict"] == "GO", report
        longest.append(max((row["seconds"], row["name"]) for row in report["findings"]))
    seconds, check = max(longest)
    ticks = orjson.loads((home / "state" / "status.json").read_bytes())["data"]["ticks"]
    most = f"{max(took):.1f} s at the most; {check} {seconds:.1f} s; {ticks:,} ticks"
    return f"{name:31} {statistics.median(took):12.1f} s       {most}"
