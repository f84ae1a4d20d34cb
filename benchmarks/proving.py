"""Recording and proving: inputs a second beside the engine alone, a record's cost, ticks while a disk stands still."""

from __future__ import annotations

import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Output
from tradingbot.io.checkpoints import checkpoint_texts
from tradingbot.io.jsonl import RotatingJSONLWriter
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.prove import prove
from tradingbot.services.recorder import Recorder

ROUNDS = 5
T = 1_795_342_272_000
STALL_S, RATE = 2.0, 2_000


def _ticks(count: int, symbols: int) -> list[Ticker]:
    """Make tickers over symbols in turn, four a second of each, each a random walk with a book."""
    rng, names = random.Random(7), [f"S{number}/USDT" for number in range(symbols)]
    prices = dict.fromkeys(names, 100.0)
    made = []
    for number in range(count):
        name = names[number % symbols]
        prices[name] = last = round(prices[name] * (1 + rng.gauss(0, 1e-4)), 4)
        ts_ms = T + number * 250 // symbols
        bid, ask = round(last - 0.01, 4), round(last + 0.01, 4)
        made.append(Ticker(name, ts_ms, last, bid, ask, 1e8 + number, 1234.5, 2345.6, ts_ms + 7, 3))
    return made


class _Run:
    """Record an engine under a directory."""

    def __init__(self, state: Path, threaded: bool = False) -> None:
        self.now_ms = T
        self.engine = Engine(make_settings({}))
        self.writer = StreamWriter(state, "s", 50_000_000, 0.2, 1.0, lambda _: None, threaded=threaded)
        self.recorder = Recorder(self.writer, "s", self.engine, 500, lambda: self.now_ms)
        self.recorder.begin({}, {}, "benchmark", {})

    def take(self, ticker: Ticker) -> None:
        self.now_ms = ticker.ts_ms
        self.recorder.take(ticker, self.engine.process(ticker))

    def end(self) -> None:
        self.recorder.end()
        self.writer.close()


def _cpu_s(run: Callable[[], object]) -> float:
    """Return the processor's time that this thread needs: other processes are none of it."""
    gc.collect()
    start = time.thread_time()
    run()
    return time.thread_time() - start


def _through(call: Callable[[Ticker], object], ticks: list[Ticker]) -> None:
    for ticker in ticks:
        call(ticker)


def proving(count: int = 300_000) -> Iterator[str]:
    """Measure prove against the engine alone over the same inputs, 50 and 500 symbols."""
    for symbols in (50, 500):
        ticks = _ticks(count, symbols)
        with tempfile.TemporaryDirectory() as name:
            run = _Run(Path(name))
            _through(run.take, ticks)
            run.end()
            rows = []
            for _ in range(ROUNDS):
                live = _cpu_s(lambda ticks=ticks: _through(Engine(make_settings({})).process, ticks))
                bare = _cpu_s(lambda ticks=ticks: _through(Engine(make_settings({})).tick, ticks))
                rows.append((_cpu_s(lambda name=name: prove(Path(name))), live, bare))
            ours, live, bare = (count / statistics.median(column) for column in zip(*rows, strict=True))
            share = [statistics.median(row[side] / row[0] for row in rows) for side in (1, 2)]
            yield (
                f"prove, {symbols:3} symbols             {ours:10,.0f} inputs/s   "
                f"{share[0]:.2f} of Engine.process ({live:,.0f}), {share[1]:.2f} of Engine.tick ({bare:,.0f})"
            )


def recording(count: int = 200_000) -> Iterator[str]:
    """Measure what recording costs the engine's thread, a record and a checkpoint."""
    for symbols in (50, 500):
        ticks, costs = _ticks(count, symbols), []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as name:
                run = _Run(Path(name), threaded=True)
                answered: list[tuple[Ticker, tuple[Output, ...]]] = []
                _through(lambda t, run=run, to=answered: to.append((t, run.engine.process(t))), ticks[:1])
                process, take = run.engine.process, run.recorder.take
                alone = Engine(make_settings({})).process
                both = _cpu_s(lambda ticks=ticks, process=process, take=take: [take(t, process(t)) for t in ticks[1:]])
                bare = _cpu_s(lambda ticks=ticks, alone=alone: [alone(t) for t in ticks])
                run.end()
                records = sum(state.records for state in run.writer.states.values())
                dropped = sum(state.dropped for state in run.writer.states.values())
                costs.append((both - bare) / (records + dropped) * 1e6)
        yield (
            f"recording, {symbols:3} symbols         {statistics.median(costs):10.2f} us a record   "
            f"{(records + dropped) / count:.2f} records an input"
        )
        engine = Engine(make_settings({}))
        _through(engine.process, ticks)
        each = [_cpu_s(lambda engine=engine: checkpoint_texts("s", T, "checkpoint", engine)) for _ in range(9)]
        yield f"checkpoint, {symbols:3} symbols        {statistics.median(each) * 1e3:10.1f} ms"


def stall(seconds: float = 8.0) -> Iterator[str]:
    """Measure how late ticks are while every write to the disk stands still for two seconds."""
    ticks = _ticks(int(seconds * RATE), 500)
    plain, stalled = RotatingJSONLWriter.write, [False]

    def write(self: RotatingJSONLWriter, ts_ms: int, lines: bytes) -> None:
        if stalled[0]:
            stalled[0] = False
            time.sleep(STALL_S)
        plain(self, ts_ms, lines)

    with tempfile.TemporaryDirectory() as name, mock.patch.object(RotatingJSONLWriter, "write", write):
        run = _Run(Path(name), threaded=True)
        late: list[tuple[float, float]] = []
        most = 0
        start = time.perf_counter()
        for number, ticker in enumerate(ticks):
            due = start + number / RATE
            if due > time.perf_counter():
                time.sleep(max(due - time.perf_counter(), 0))
            if number == len(ticks) // 3:
                stalled[0] = True
            run.take(ticker)
            late.append((due - start, time.perf_counter() - due))
            most = max(most, run.writer.waiting_bytes())
        run.end()
        proof = prove(Path(name))
    begins = seconds / 3
    within = [each for at, each in late if begins <= at < begins + STALL_S]
    beside = [each for at, each in late if not begins <= at < begins + STALL_S + 1]
    for what, lags in (("while the disk stands still", within), ("beside that", beside)):
        cuts = statistics.quantiles(lags, n=1000)
        yield f"{what:31} {cuts[989] * 1e3:10.2f} ms p99   {max(lags) * 1e3:.1f} ms at the most, {len(lags):,} ticks"
    yield f"waiting for the disk            {most / 1e6:10.2f} MB at the most   proof: {proof.sessions[0].verdict}"
