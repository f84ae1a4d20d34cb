"""Comparing: a whole recorded day under two settings, beside two bare engines over the same ticks."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.io.checkpoints import checkpoint_texts
from tradingbot.io.jsonl import RotatingJSONLWriter
from tradingbot.io.lines import close_line
from tradingbot.io.segments import series_of
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream, lead_of, tick_json
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.compare import compare

T = 1_795_305_600_000  # 00:00 UTC
DAY_S, SYMBOLS = 86_400, 50
BATCH_S = 600
OURS = {"DROP_TRIGGER_VALUE": 0.98}


def _ticks() -> Iterator[list[Ticker]]:
    """Make a day of tickers, one a second of each symbol, ten minutes at a time: random walks with a book."""
    rng, names = random.Random(7), [f"S{number}/USDT" for number in range(SYMBOLS)]
    prices = dict.fromkeys(names, 100.0)
    for first in range(0, DAY_S, BATCH_S):
        made = []
        for second in range(first, first + BATCH_S):
            for place, name in enumerate(names):
                prices[name] = last = round(prices[name] * (1 + rng.gauss(0, 2e-4)), 4)
                ts_ms = T + second * 1000 + place * 20
                bid, ask = round(last - 0.01, 4), round(last + 0.01, 4)
                made.append(Ticker(name, ts_ms, last, bid, ask, 1e8, 1234.5, 2345.6, ts_ms + 7, 3))
        yield made


def _record(state: Path) -> None:
    """Record the day as a session: ticks and the journal's beginning, all that a comparison reads."""
    lead, seq = lead_of("s"), 0
    with closing(RotatingJSONLWriter(state / FOLDERS[JOURNAL], JOURNAL.value, 50_000_000)) as writer:
        start = {"version": "", "exchange": "benchmark", "settings": {}, "sources": {}, "start": {}}
        for text in checkpoint_texts("s", T, "session_start", Engine(make_settings({})), **start):
            writer.write(T, close_line(text))
    writers: dict[str, RotatingJSONLWriter] = {}
    for batch in _ticks():
        lines: dict[str, list[bytes]] = {}
        for ticker in batch:
            seq += 1
            lines.setdefault(ticker.symbol, []).append(close_line(tick_json(lead, "s", seq, ticker)))
        for symbol, own in lines.items():
            if symbol not in writers:
                writers[symbol] = RotatingJSONLWriter(state / FOLDERS[Stream.TICKS], series_of(symbol), 50_000_000)
            writers[symbol].write(batch[0].ts_ms, b"".join(own))
    for writer in writers.values():
        writer.close()


def comparing() -> Iterator[str]:
    """Measure a comparison over a day of 50 symbols, one tick a second of each, and two bare engines."""
    bare_s, count = 0.0, 0
    tick, other = Engine(make_settings({})).tick, Engine(make_settings(OURS)).tick
    for batch in _ticks():
        start = time.thread_time()
        for ticker in batch:
            tick(ticker)
            other(ticker)
        bare_s += time.thread_time() - start
        count += len(batch)
    with tempfile.TemporaryDirectory() as name:
        _record(Path(name))
        begun, start = time.perf_counter(), time.thread_time()
        found = compare(Path(name), OURS)
        ours_s, elapsed_s = time.thread_time() - start, time.perf_counter() - begun
    assert found.inputs == count
    yield (
        f"compare, {count:,} ticks        {count / ours_s:10,.0f} ticks/s   {bare_s / ours_s:.2f} of two bare engines "
        f"({count / bare_s:,.0f})"
    )
    triggers = f"{len(found.ours.triggers):,} and {len(found.theirs.triggers):,} triggers"
    yield f"the whole day            {ours_s:10.1f} s of the processor   {elapsed_s:.1f} s on the clock, {triggers}"
