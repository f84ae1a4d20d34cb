"""Run the crash test: every row, or those named; an interrupted run goes on where it was."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.crash.rows import Row
from tests.crash.runner import RESULTS, Log, Result, revision, run_row, scratch
from tests.crash.table import ROWS

HEAD = "row          tries     checked  lost unread.  gaps other  defects       s  what"


def main() -> int:
    """Run what is asked for, print a table of what came of it; 1 where anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(row.name for row in ROWS)} (default: all)"
    )
    parser.add_argument("--out", default="build/crash", help="folder of the results (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times the full number of tries to make")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="tries at a time (default: one a core)")
    parser.add_argument("--again", action="store_true", help="run also what has been run with this code")
    parser.add_argument("--list", action="store_true", help="list the rows, and run nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no row {min(unknown)!r}: there are {', '.join(row.name for row in ROWS)}")
    rows = [row for row in ROWS if not arguments.rows or row.name in arguments.rows]
    if arguments.list:
        for row in rows:
            print(f"{row.name:<10}{row.full:>8,} {row.unit:<10} {row.what}")
        return 0
    log, code = Log(Path(arguments.out) / RESULTS), revision()
    results: list[Result] = []
    try:
        for row in rows:
            results.append(_run(row, log, code, arguments))
    except KeyboardInterrupt:
        _clear()
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        _print(results, code)
    return 0 if all(result.is_clean for result in results) else 1


def _run(row: Row, log: Log, code: str, arguments: argparse.Namespace) -> Result:
    why = row.needs()
    if why:
        print(f"{row.name}: skipped, {why}", file=sys.stderr)
        return Result(row, skipped=why)
    with scratch() as folder:
        cases = row.cases(max(round(row.full * arguments.scale), 1), folder)

    def tell(done: int, total: int, result: Result) -> None:
        if sys.stderr.isatty():
            spent_s = time.monotonic() - result.begun_s
            print(
                f"\r\033[K{row.name} {done:,}/{total:,} cases, {result.outcome.violations} violations, {spent_s:.0f} s",
                end="", file=sys.stderr, flush=True,
            )  # fmt: skip

    result = run_row(row, cases, log, code, arguments.jobs, tell, arguments.again)
    _clear()
    return result


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def _print(results: list[Result], code: str) -> None:
    print(HEAD)
    for result in results:
        outcome, row = result.outcome, result.row
        if result.skipped:
            print(f"{row.name:<10} skipped: {result.skipped}")
            continue
        print(
            f"{row.name:<10}{outcome.count:>8,}{outcome.checked:>12,}{outcome.lost:>6}{outcome.unreadable:>8}"
            f"{outcome.gaps:>6}{outcome.other:>6}{f'{len(result.caught)}/{len(row.defects)}':>9}{result.seconds:>8.0f}"
            f"  {row.unit}: {row.what}"
        )
    print(f"code {code}")
    for result in results:
        for text in result.outcome.wrong:
            print(f"\n{result.row.name}, violated: {text}")
        for name in result.missed:
            print(f"\n{result.row.name}: the seeded defect {name!r} was not caught")


if __name__ == "__main__":
    sys.exit(main())
