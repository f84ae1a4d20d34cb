"""The streams' files: written beside bare buffered files, their tails beside a bare seek from the end, bytes a tick."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from tradingbot.io.jsonl import RotatingJSONLWriter, encode, read_jsonl_tail
from tradingbot.io.sealing import seal
from tradingbot.io.segments import series_of

ROUNDS = 5
SYMBOLS = [f"S{number}/USDT" for number in range(50)]
BATCH = 5_000  # records between two passes over the files: 200 ms of a busy market
TAIL = 300  # ticks of a symbol that a warm start takes
FILE_MB = 50
Record = dict[str, Any]


def _ticks(count: int) -> list[Record]:
    """Make tick records over 50 symbols in turn, each a random walk."""
    rng, prices = random.Random(7), dict.fromkeys(SYMBOLS, 100.0)
    records = []
    for seq in range(count):
        symbol = SYMBOLS[seq % len(SYMBOLS)]
        prices[symbol] = price = round(prices[symbol] * (1 + rng.gauss(0, 1e-4)), 4)
        ts_ms = 1_795_342_272_000 + seq * 10
        bid, ask = round(price - 0.01, 4), round(price + 0.01, 4)
        records.append(
            {"v": 1, "sid": "20261122T101112Z-1a2b", "ts_ms": ts_ms, "seq": seq, "symbol": symbol, "last": price,
             "bid": bid, "ask": ask, "volume": 1e8 + seq,
             "recv_ms": ts_ms + seq % 40, "age_ms": seq % 40, "market": "spot"}
        )  # fmt: skip
    return records


def _write(folder: Path, records: list[Record]) -> list[Path]:
    """Write records as the bot does, with rotation; return the segments that became full."""
    full: list[Path] = []
    writers = {s: RotatingJSONLWriter(folder, series_of(s), 1_000_000, full.append) for s in SYMBOLS}
    for first in range(0, len(records), BATCH):
        waiting: dict[str, list[bytes]] = {}
        for record in records[first : first + BATCH]:
            symbol = record["symbol"]
            line = encode(record)
            if symbol in waiting:
                waiting[symbol].append(line)
            else:
                waiting[symbol] = [line]
        ts_ms = records[first]["ts_ms"]
        for symbol, lines in waiting.items():
            writers[symbol].write(ts_ms, b"".join(lines))
    for writer in writers.values():
        writer.release()
    return full


def _write_bare(folder: Path, records: list[Record]) -> None:
    """Write records to a buffered file a symbol."""
    folder.mkdir()
    files = {symbol: (folder / series_of(symbol)).open("wb") for symbol in SYMBOLS}
    for record in records:
        files[record["symbol"]].write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    for file in files.values():
        file.close()


def _tail_bare(folder: Path) -> int:
    """Read the last ticks of each symbol: seek from the end in blocks, parse each line."""
    found = 0
    for series in map(series_of, SYMBOLS):
        with (folder / f"{series}_20261122_0000.jsonl").open("rb", buffering=0) as file:
            place, text = file.seek(0, os.SEEK_END), b""
            while place and text.count(b"\n") <= TAIL:
                block = min(place, 1 << 16)
                place = file.seek(place - block)
                text = file.read(block) + text
            found += len([orjson.loads(line) for line in text.splitlines()[-TAIL:]])
    return found


def _tail(folder: Path) -> int:
    """Read the same as the bot does."""
    return sum(len(read_jsonl_tail(folder, series, TAIL)) for series in map(series_of, SYMBOLS))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _ratio(name: str, runs: list[tuple[float, float]], count: int) -> str:
    """Say what one record takes, here and bare, and the ratio round by round."""
    ours, bare = (statistics.median(run[side] for run in runs) / count * 1e6 for side in (0, 1))
    return (
        f"{name:33} {ours:10.2f} us a record   {statistics.median(a / b for a, b in runs):.2f} of bare ({bare:.2f} us)"
    )


def files(count: int = 1_000_000) -> Iterator[str]:
    """Measure writing to rotating files and reading their ends against bare files, and what a tick takes sealed."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        part = _ticks(count // ROUNDS)
        runs = []
        for number in range(ROUNDS):
            ours, bare = top / f"ours{number}", top / f"bare{number}"
            runs.append(
                (_seconds(lambda ours=ours: _write(ours, part)), _seconds(lambda bare=bare: _write_bare(bare, part)))
            )
        yield _ratio("written, 50 symbols, rotating", runs, len(part))

        segments = sorted((top / "ours0").iterdir())
        lines = sum(path.read_bytes().count(b"\n") for path in segments)
        plain = sum(path.stat().st_size for path in segments)
        sealed = sum(seal(path).stat().st_size for path in segments)
        yield f"bytes a tick on disk              {plain / lines:10.1f} open   {sealed / lines:.1f} sealed"

        for megabytes in (FILE_MB, 10 * FILE_MB):
            tails = top / f"tails{megabytes}"
            _make_tails(tails, part[:4_000], megabytes)
            _tail(tails)
            runs = [
                (_seconds(lambda tails=tails: _tail(tails)), _seconds(lambda tails=tails: _tail_bare(tails)))
                for _ in range(3 * ROUNDS)
            ]
            yield _ratio(f"last 300 of 50, {megabytes} MB each", runs, TAIL * len(SYMBOLS))


def _make_tails(folder: Path, records: list[Record], megabytes: int) -> None:
    """Make a file a symbol that ends with records and is so large: what stands before them is a hole."""
    folder.mkdir()
    for symbol in SYMBOLS:
        text = b"".join(encode({**record, "symbol": symbol}) for record in records)
        with (folder / f"{series_of(symbol)}_20261122_0000.jsonl").open("wb") as file:
            file.seek(megabytes * 1_000_000 - len(text))
            file.write(text)
