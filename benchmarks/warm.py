"""The warm start: how long a bot of many symbols takes to be where it was."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.io.saved import CHECKPOINT
from tradingbot.market.ticker import Ticker
from tradingbot.services.memory import Recovered
from tradingbot.services.recording import Recording
from tradingbot.services.warm_start import recover

ROUNDS = 5
TICKS = 300  # a symbol, one a second: a window of WINDOW_LOOKBACK_S
START_MS = 1_795_342_272_000


def warm() -> Iterator[str]:
    """Measure a whole warm start of 50 and 500 symbols with 300 ticks each, from a checkpoint and without one."""
    for count in (50, 500):
        with tempfile.TemporaryDirectory() as name:
            state, symbols = Path(name), [f"S{number}/USDT" for number in range(count)]
            _record(state, symbols)
            yield _figure(state, symbols, "checkpoint")
            (state / CHECKPOINT).unlink()
            yield _figure(state, symbols, "ticks")


def _record(state: Path, symbols: list[str]) -> None:
    """Record two windows of every symbol and leave it as a kill would: the last checkpoint holds no window."""
    settings = make_settings({})
    recovered = Recovered(Engine(settings))
    engine, now_ms = recovered.engine, START_MS
    recording = Recording(
        state, lambda: settings, lambda job: job(), lambda _: None, lambda: now_ms / 1000, threaded=False
    )
    recording.begin("20261122T000000.000", recovered, {}, "embedded", lambda: now_ms)
    for second in range(2 * TICKS + 5):
        for number, symbol in enumerate(symbols):
            now_ms = START_MS + second * 1000 + number
            price = 100.0 + (second * 7919 + number) % 97 / 100
            ticker = Ticker(symbol, now_ms, price, price - 0.01, price + 0.01, 1e8, recv_ms=now_ms + 20)
            recording.take(ticker, engine.process(ticker))
        recording.look()


def _figure(state: Path, symbols: list[str], source: str) -> str:
    runs = []
    for _ in range(ROUNDS):
        found = recover(state, make_settings({"WARMSTART_MAX_S": 60.0}), {}, START_MS + 2 * TICKS * 1000)
        assert (found.source, found.symbols) == (source, len(symbols)), found.line()
        runs.append(found)
    total = statistics.median(sum(run.ms.values()) for run in runs)
    phases = {phase: statistics.median(run.ms[phase] for run in runs) for phase in runs[0].ms}
    told = ", ".join(f"{phase} {ms:.0f}" for phase, ms in phases.items())
    return f"{len(symbols):3} symbols, from {source:10} {total:7.0f} ms ({runs[0].ticks} ticks; {told})"
