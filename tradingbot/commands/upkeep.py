"""What keeps a state directory in order."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tradingbot.commands.shared import answer, complain, from_here, print_text, settings_of
from tradingbot.errors import SettingsError, UsageError

__all__ = ["ask", "fsck", "state_and_limit"]

LOCKS = ("lock", "exchange.lock")  # the bot's, and the embedded exchange's, whose account lies there too


def fsck(arguments: argparse.Namespace) -> int:
    """Look at all that is recorded under a state directory, and mend what can be mended."""
    from contextlib import ExitStack

    from tradingbot.io.state_files import StateLock, lock_owner
    from tradingbot.ops.fsck import examine
    from tradingbot.ops.fsck_text import report_text
    from tradingbot.ops.repair import plan, repair
    from tradingbot.ui.plain import printable_lines
    from tradingbot.ui.progress import showing_progress

    folder, limit_bytes = state_and_limit(arguments)
    with ExitStack() as stack:
        running = any(lock_owner(folder, name) is not None for name in LOCKS)
        if arguments.repair and folder.is_dir():
            for name in LOCKS:
                stack.enter_context(StateLock(folder, int(time.time() * 1000), name))
        with showing_progress() as progress:
            report = examine(folder, limit_bytes, running, progress)
        steps = plan(report)
        if not arguments.repair or not steps:
            answer(arguments, report.to_record(), printable_lines(report_text(report, len(steps))))
            return report.exit_code
        shown = [f"  {step}" for step in steps]
        planned = printable_lines("\n".join([f"{folder}: a repair would", *shown]))
        if not ask(arguments, planned):
            if arguments.json:
                answer(arguments, report.to_record() | {"plan": [str(step) for step in steps]}, "")
            return 2
        with showing_progress() as progress:
            outcomes = repair(folder, steps, arguments.why, progress)
            after = examine(folder, limit_bytes, False, progress)
        done = printable_lines("\n".join(str(outcome) for outcome in outcomes))
        text = printable_lines(report_text(after, len(plan(after))))
        answer(arguments, after.to_record() | {"repaired": [str(each) for each in outcomes]}, f"{done}\n\n{text}")
        return after.exit_code


def ask(arguments: argparse.Namespace, plan: str) -> bool:
    """Show a plan and return whether to do it: at once with --yes, else as the terminal says; without one, no.

    Raises UsageError where it would be done and --why does not say why.
    """
    if not arguments.json:
        print_text(plan)
    if (arguments.yes or sys.stdin.isatty()) and not arguments.why:
        raise UsageError('nothing was changed: say why, for the audit: --why "..."')
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        complain("nothing was changed: there is no terminal to ask on; --yes does it without asking")
        return False
    print("do it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    complain("nothing was changed")
    return False


def state_and_limit(arguments: argparse.Namespace) -> tuple[Path, int]:
    """Return the state directory that is named, or set, and STREAMS_MAX_GB in bytes, whatever is wrong with either."""
    if arguments.folder:
        arguments.state = str(Path(arguments.folder).absolute())
    try:
        effective = settings_of(arguments, overrides=True)
    except SettingsError as error:
        complain(f"warning: {error}; going on with STREAMS_MAX_GB as it is by default")
    else:
        return from_here(effective.state_dir), int(effective.settings.STREAMS_MAX_GB * 1e9)
    from tradingbot.commands.control import target
    from tradingbot.config import registry

    return from_here(target(arguments)[0]), int(registry()["STREAMS_MAX_GB"].default * 1e9)
