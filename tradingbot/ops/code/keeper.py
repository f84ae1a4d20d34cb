"""A program kept: at a lower priority, and ended with its group when whoever asked for it is gone, however that went.

It is run as a file by any interpreter, with nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

__all__ = ["keep"]

NOT_STARTED = 127


def keep(nice: int, words: list[str]) -> int:
    """Run a program until it ends, or nobody holds our stdin any more; return its exit code (128 more of a signal)."""
    os.nice(nice)
    try:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL)  # noqa: S603  (no shell)
    except OSError as error:
        print(f"{words[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return NOT_STARTED

    def end_all_when_alone() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=end_all_when_alone, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    raise SystemExit(keep(int(sys.argv[1]), sys.argv[2:]))
