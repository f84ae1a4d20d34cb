"""Run the benchmarks: all of them, or those named."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterator

from benchmarks import (
    archiving,
    comparing,
    engine_speed,
    observing,
    processes,
    proving,
    streams,
    study,
    verifying,
    warm,
    wide,
)

BENCHMARKS: dict[str, Callable[[], Iterator[str]]] = {
    "engine": engine_speed.engine,
    "latency": engine_speed.latency,
    "start": processes.start,
    "memory": processes.memory,
    "live": processes.live,
    "wide": wide.wide,
    "day": processes.day,
    "files": streams.files,
    "warm": warm.warm,
    "proving": proving.proving,
    "recording": proving.recording,
    "stall": proving.stall,
    "compare": comparing.comparing,
    "study": study.study,
    "archive": archiving.archive,
    "verify": verifying.verifying,
    "observe": observing.observe,
}


def main() -> int:
    """Print one line a figure, as it is measured."""
    listed = "; ".join(f"{name}: {(run.__doc__ or '').split('.')[0].lower()}" for name, run in BENCHMARKS.items())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=listed)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}: there are {', '.join(BENCHMARKS)}")
    print(f"Python {platform.python_version()}, {platform.machine()}; medians, ratios round by round", flush=True)
    for name in names:
        print(f"\n{name}", flush=True)
        for line in BENCHMARKS[name]():
            print(f"  {line}", flush=True)
    return 0


sys.exit(main())
