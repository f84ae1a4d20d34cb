"""`python -m tradingbot` is the command `tradingbot`; a file in the working directory hides no module of Python's."""

from __future__ import annotations

import os
import sys


def _uncover() -> None:
    """Take the working directory out of the search path where a file in it has the name of a module of Python's."""
    at = sys.path[0] if sys.path else ""
    try:
        if os.path.realpath(at) != os.path.realpath(os.getcwd()):  # noqa: PTH109  (nothing more is imported yet)
            return
        names = os.listdir(at or ".")  # noqa: PTH208
    except OSError:
        return
    hidden = sorted(name for name in names if name.endswith(".py") and name[:-3] in sys.stdlib_module_names)
    if hidden:
        del sys.path[0]
        told = f"{hidden[0]} in the working directory has the name of a module of Python's: it is passed over"
        sys.stderr.write(f"tradingbot: {told}; rename it, or start elsewhere\n")


_uncover()

from tradingbot.cli import main  # noqa: E402  (after what could hide its modules)

sys.exit(main())
