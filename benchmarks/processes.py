"""Whole processes: how long a start takes, and how much memory a long replay needs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROUNDS = 9


def _seconds(*words: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def start() -> Iterator[str]:
    """Measure `import tradingbot` and `tradingbot --help` against a bare interpreter, in turn."""
    commands = {
        "bare interpreter": ("-c", "pass"),
        "import tradingbot": ("-c", "import tradingbot"),
        "tradingbot --help": ("-m", "tradingbot", "--help"),
        "tradingbot config": ("-m", "tradingbot", "config"),
    }
    rows = [[_seconds(*words) for words in commands.values()] for _ in range(ROUNDS)]
    for column, name in enumerate(commands):
        took = statistics.median(row[column] for row in rows)
        over = statistics.median(row[column] - row[0] for row in rows)
        yield f"{name:31} {took:12.3f} s       {over:+.3f} s over a bare interpreter"


def _until_started(home: str) -> float:
    """Return how long a bot takes from its command until it has chosen its symbols, in seconds."""
    words = [sys.executable, "-m", "tradingbot", "--home", home, "--no-dashboard"]
    began = time.perf_counter()
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " started " in line:
                break
        took = time.perf_counter() - began
        process.kill()
    return took


def live() -> Iterator[str]:
    """Measure the start of a live session on the embedded exchange against importing ccxt.pro, in turn."""
    with tempfile.TemporaryDirectory() as home:
        rows = [(_seconds("-c", "import ccxt.pro"), _until_started(home)) for _ in range(ROUNDS)]
    bare, took = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(started / imported for imported, started in rows)
    yield f"{'import ccxt.pro':31} {bare:12.3f} s"
    yield f"{'live session, until it watches':31} {took:12.3f} s       {ratio:.2f} of it"


def day(hours: int = 24, symbols: int = 20) -> Iterator[str]:
    """Measure a simulated day of 20 symbols in virtual time: the whole bot and the exchange in one process."""
    with tempfile.TemporaryDirectory() as home:
        words = ["-m", "tradingbot", "--home", home, "--virtual", "--no-dashboard", "--duration", str(hours * 3600)]
        began = time.perf_counter()
        command = [sys.executable, *words, "--set", f"EMBEDDED_SYMBOLS={symbols}"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        took = time.perf_counter() - began
    yield f"{f'{hours} h of {symbols} symbols':31} {took:12.0f} s       {hours * 3600 / took:,.0f} times real time"


def _write(path: Path, count: int, shuffled: bool) -> None:
    rng = np.random.default_rng(1)
    chunk, names = 1_000_000, np.array([f"S{i}/USDT" for i in range(20)])
    prices = [(name, pa.float64()) for name in ("last", "bid", "ask")]
    schema = pa.schema([("ts_ms", pa.int64()), ("symbol", pa.string()), *prices])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, count, chunk):
            rows = min(chunk, count - first)
            ts = 1_700_000_000_000 + np.arange(first, first + rows) * 10
            if shuffled:
                rng.shuffle(ts)
            price = 100 * np.exp(np.cumsum(rng.normal(0, 1e-6, rows)))
            symbol = names[rng.integers(0, 20, rows)]
            writer.write_table(pa.table([ts, symbol, price, price * 0.9999, price * 1.0001], schema=schema))


def memory(millions: tuple[int, ...] = (1, 10)) -> Iterator[str]:
    """Measure the peak memory of a replay of one and of ten million ticks from a file, in order and not."""
    code = (
        "import sys; from tradingbot.cli import main; sys.exit(main(['replay', sys.argv[1], '--home', '/', '--json']))"
    )
    for shuffled in (False, True):
        for million in millions:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "ticks.parquet"
                _write(path, million * 1_000_000, shuffled)
                began = time.perf_counter()
                # a child of a child, so that its peak is its own
                probe = (
                    "import resource, subprocess, sys\n"
                    "subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)\n"
                    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
                )
                done = subprocess.run(
                    [sys.executable, "-c", probe, code, str(path)], check=True, capture_output=True, text=True
                )
                took = time.perf_counter() - began
            order = "out of order" if shuffled else "in order"
            name = f"{million} million ticks, {order}"
            peak_mb, rate = int(done.stdout) / 1024, million * 1_000_000 / took
            yield f"{name:31} {peak_mb:12,.0f} MB peak   {rate:,.0f} ticks/s from the file to the summary"
