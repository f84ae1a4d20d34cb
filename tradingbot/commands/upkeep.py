"""What keeps a state directory in order."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tradingbot.commands.arguments import STATE_HELP, Add, add_asking
from tradingbot.commands.shared import answer, ask, complain, from_here, settings_of, state_named
from tradingbot.errors import SettingsError

__all__ = ["add_to", "fsck", "state_and_limit"]

LOCKS = ("lock", "exchange.lock")  # the bot's, and the embedded exchange's, whose account lies there too


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "look for damage, gaps and left-over files in what is recorded, and how long the disk lasts"
    command = add("fsck", fsck, text, 'tradingbot fsck build/run/state --repair --why "power loss"')
    command.add_argument("folder", nargs="?", metavar="STATE", help=STATE_HELP)
    command.add_argument("--repair", action="store_true", help="show what can be mended, ask, and mend it")
    add_asking(command)


def fsck(arguments: argparse.Namespace) -> int:
    """Look at all that is recorded under a state directory, and mend what can be mended."""
    from contextlib import ExitStack

    from tradingbot.io.state_files import StateLock, lock_owner
    from tradingbot.ops.record.fsck import examine
    from tradingbot.ops.record.fsck_text import report_text
    from tradingbot.ops.record.repair import plan, repair
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


def state_and_limit(arguments: argparse.Namespace) -> tuple[Path, int]:
    """Return the state directory that is named, or set, and STREAMS_MAX_GB in bytes, whatever is wrong with either."""
    if arguments.folder:
        arguments.state = str(state_named(arguments.folder).absolute())
    try:
        effective = settings_of(arguments, overrides=True)
    except SettingsError as error:
        complain(f"warning: {error}; going on with STREAMS_MAX_GB as it is by default")
    else:
        return from_here(effective.state_dir), int(effective.settings.STREAMS_MAX_GB * 1e9)
    from tradingbot.commands.control import target
    from tradingbot.config import registry

    return from_here(target(arguments)[0]), int(registry()["STREAMS_MAX_GB"].default * 1e9)
