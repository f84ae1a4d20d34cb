"""Studying: a million recorded ticks as DataFrames, and as the executed notebook, beside a bare orjson and pandas."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tradingbot.config import make_settings
from tradingbot.io.state_files import StateLock
from tradingbot.services.importing import import_ticks
from tradingbot.services.replay import scan_all

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "drop_triggers.ipynb"
SYMBOLS, TICKS = 20, 1_000_000
T = 1_795_305_600_000  # 00:00 UTC

LOAD = "import sys, tradingbot as tb; ticks = tb.load(state=sys.argv[1]).ticks; assert len(ticks) == int(sys.argv[2])"
BARE = """
import sys, orjson, pandas as pd
from pathlib import Path
rows = []
for path in sorted(Path(sys.argv[1], "drop_windows", "ticks").glob("*.jsonl")):
    with path.open("rb") as file:
        rows += [orjson.loads(line) for line in file]
frame = pd.DataFrame.from_records(rows)
frame.index = pd.to_datetime(frame["ts_ms"], unit="ms", utc=True)
assert len(frame.sort_index(kind="stable")) == int(sys.argv[2])
"""


def _record(folder: Path) -> Path:
    """Record a million ticks, one a second of each symbol: random walks with a book, and a crash every two hours."""
    rng, seconds = np.random.default_rng(7), TICKS // SYMBOLS
    moves = rng.normal(0, 2e-4, (seconds, SYMBOLS))
    for start in range(3_600, seconds, 7_200):
        moves[start : start + 240] -= 1e-4 * rng.uniform(0.5, 2.5, SYMBOLS)
        moves[start + 240 : start + 1_200] += 2e-5 * rng.uniform(0, 2.5, SYMBOLS)
    last = np.round(100 * np.exp(np.cumsum(moves, axis=0)), 4)
    ts_ms = T + np.arange(seconds)[:, None] * 1000 + np.arange(SYMBOLS)[None, :] * 20
    names = np.tile([f"S{number}/USDT" for number in range(SYMBOLS)], seconds)
    columns = {"ts_ms": ts_ms.ravel(), "symbol": names, "last": last.ravel()}
    columns |= {"bid": np.round(last - 0.01, 4).ravel(), "ask": np.round(last + 0.01, 4).ravel()}
    pq.write_table(pa.table(columns), folder / "ticks.parquet")
    state = folder / "state"
    state.mkdir()
    with StateLock(state, T):
        import_ticks(scan_all([folder / "ticks.parquet"]), make_settings({"GLOBAL_TRADING": True}), {}, state, set())
    return state


def _measured(*words: str) -> tuple[float, float]:
    """Run a command; return its seconds on the clock and the peak memory (MB) of the largest process that it ran."""
    log = Path(tempfile.gettempdir()) / f"study-{os.getpid()}.log"
    began_s = time.perf_counter()
    with log.open("wb") as file:
        child = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)})
        peak_kb, family = 0, {child.pid}
        while child.poll() is None:
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        facts = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
                    except OSError:
                        continue
                    if int(facts["PPid"]) in family:
                        family.add(int(entry.name))
                    if int(entry.name) in family:
                        peak_kb = max(peak_kb, int(facts.get("VmHWM", "0 kB").split()[0]))
            time.sleep(0.05)
    if child.returncode:
        raise RuntimeError(log.read_text())
    log.unlink()
    return time.perf_counter() - began_s, peak_kb / 1024


def study() -> Iterator[str]:
    """Measure what a study of a million ticks takes: reading them, and the whole notebook."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = _record(folder)
        bare_s, bare_mb = _measured(sys.executable, "-c", BARE, str(state), str(TICKS))
        load_s, load_mb = _measured(sys.executable, "-c", LOAD, str(state), str(TICKS))
        yield f"tb.load, {TICKS:,} ticks   {load_s:8.1f} s   {load_mb:6.0f} MB   {load_s / bare_s:.2f} of a bare read"
        yield f"bare orjson and pandas      {bare_s:8.1f} s   {bare_mb:6.0f} MB   checksums not looked at"
        words = (
            "-m",
            "papermill",
            "--no-progress-bar",
            "--log-level",
            "ERROR",
            str(NOTEBOOK),
            str(folder / "out.ipynb"),
        )
        whole_s, whole_mb = _measured(sys.executable, *words, "-p", "home", str(state))
        yield f"the whole notebook          {whole_s:8.1f} s   {whole_mb:6.0f} MB"
