"""Archiving: a gigabyte packed, flushed, read back and held against its checksums, beside `tar | zstd`."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.streams import _ticks
from tradingbot.io.jsonl import encode
from tradingbot.io.sealing import seal
from tradingbot.ops.cleanup.archive_write import Source, pack, pack_verified

ROUNDS = 5
FILE_MB = 25  # of a sealed segment; logs are rotated at as much
TOTAL_MB = 1_000


def archive() -> Iterator[str]:
    """Measure an archive of a gigabyte, verified: sealed segments, then plain logs, beside tar | zstd."""
    if shutil.which("zstd") is None:
        yield "zstd is not installed: apt-get install zstd"
        return
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for what, make in (("sealed segments", _sealed), ("plain logs", _plain)):
            folder = top / what.split()[0]
            folder.mkdir()
            make(folder)
            yield from _beside(top, folder, what)
            shutil.rmtree(folder)


def _sealed(folder: Path) -> None:
    """Make segments as they are sealed: one for real, whose bytes no packer makes smaller; the others are as dense."""
    plain = folder / "S_20261122_0000.jsonl"
    plain.write_bytes(b"".join(encode(record) for record in _ticks(50_000)))
    size = seal(plain).stat().st_size
    for number in range(1, TOTAL_MB // FILE_MB + 1):
        dense = random.Random(number).randbytes(FILE_MB * 1_000_000 - size)
        (folder / f"S_20261122_{number:04d}.jsonl.zst").write_bytes((folder / f"{plain.name}.zst").read_bytes() + dense)


def _plain(folder: Path) -> None:
    """Make logs: lines of text with numbers that change."""
    rng = random.Random(7)
    lines = [
        b"2026-11-22T%02d:%02d:%02d.%03dZ INFO HEARTBEAT - Ticker fetched fresh=12/12 oldest_s=%.1f ticks=%d "
        b"triggers=%d\n"
        % (i // 3600 % 24, i // 60 % 60, i % 60, rng.randrange(1000), rng.random(), rng.randrange(10**7), i % 97)
        for i in range(FILE_MB * 1_000_000 // 107)
    ]
    for number in range(TOTAL_MB // FILE_MB):
        rng.shuffle(lines)
        (folder / f"trading_bot_20261122.log.{number}").write_bytes(b"".join(lines))


def _beside(top: Path, folder: Path, what: str) -> Iterator[str]:
    files = sorted(folder.iterdir())
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    ours, bare = top / "ours.tar.zst", top / "bare.tar.zst"
    sources = [Source(path, f"logs/{path.name}", lambda _: True) for path in files]
    whole, flushed, both, packing, cost = [], [], [], [], []
    for _ in range(ROUNDS):
        for path in (ours, bare):
            path.unlink(missing_ok=True)
        os.sync()
        begun_s = _processor_s()
        bare_s = _seconds(lambda: _tar(top, folder, bare))
        bare_cost_s = _processor_s() - begun_s
        sync_s = _seconds(lambda: _flush(bare))
        bare.unlink()
        os.sync()
        pack_s = _seconds(lambda: pack(ours, sources, {}))
        ours.unlink()
        os.sync()
        begun_s = _processor_s()
        verified_s = _seconds(lambda: pack_verified(ours, sources, {}))
        cost.append((_processor_s() - begun_s, bare_cost_s))
        packing.append(bare_s / pack_s)
        whole.append(bare_s / verified_s)
        flushed.append((bare_s + sync_s) / verified_s)
        both.append((verified_s, bare_s))
    mine, theirs = (statistics.median(run[side] for run in both) for side in (0, 1))
    yield (
        f"{what:16} {megabytes:5.0f} MB  {megabytes / mine:5.0f} MB/s verified   {statistics.median(whole):.2f} of "
        f"tar | zstd ({megabytes / theirs:.0f} MB/s), {statistics.median(flushed):.2f} of it flushed; "
        f"not read back {statistics.median(packing):.2f}"
    )
    mine, theirs = (statistics.median(run[side] for run in cost) for side in (0, 1))
    begun_s = _processor_s()
    for path in files:
        with path.open("rb", buffering=0) as file:
            hashlib.file_digest(file, "sha256")
    hashes = 2 * (_processor_s() - begun_s)
    yield f"{'':16} {mine:.1f} s of the processor, {hashes:.1f} s of them SHA-256 twice; tar | zstd {theirs:.1f} s"
    ours.unlink()


def _processor_s() -> float:
    """Return the processor's time that this process has had, with the programs that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _tar(top: Path, folder: Path, target: Path) -> None:
    words = f"tar -C {top} -cf - {folder.name} | zstd -q -o {target}"
    subprocess.run(["sh", "-c", words], check=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
