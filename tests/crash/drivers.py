"""Drivers: small programs of one thread that write as the bot does, and say on stdout what they have written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.crash.defects import injected

Driver = Callable[[Path, Callable[[object], None], list[str]], None]
"""Write below a folder, tell what is acknowledged, mind further words."""


def acknowledge(what: object) -> None:
    """Say, at once and without a buffer, that something is acknowledged."""
    os.write(1, f"{what}\n".encode())


def main(words: list[str]) -> int:
    """Run the driver that the first word names, in the folder that the second names."""
    name, folder, *rest = words
    module, _, function = name.partition(".")
    found: Driver = getattr(__import__(f"tests.crash.{module}", fromlist=[function]), function)
    with injected(os.environ.get("CRASH_DEFECT", "")):
        found(Path(folder), acknowledge, rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
