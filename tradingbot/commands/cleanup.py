"""What is too much goes, archived first where that is wanted; and comes back."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.commands.arguments import Add, add_asking, period_s
from tradingbot.commands.shared import answer, ask
from tradingbot.commands.switches import effective_of
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.io.overrides import Effective

__all__ = ["add_to", "clean"]

NO = 2


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "delete recorded data that is past, archived and verified first where that is wanted; or bring it back"
    example = 'tradingbot clean ticks snapshots --older-than 2d --archive --why "disk fills"'
    command = add("clean", clean, text, example)
    what = "ticks, snapshots, windows, anchors (the four streams' sealed segments), logs, reports, archives"
    command.add_argument("what", nargs="*", metavar="WHAT", help=what)
    text = "only what is older, by its last record: 90s, 15m, 1h, 2d, 1w"
    command.add_argument("--older-than", type=period_s, default=0.0, metavar="PERIOD", help=text)
    command.add_argument("--archive", action="store_true", help="keep it in ARCHIVE_DIR, as NAME_DATE.tar.zst")
    command.add_argument("--archive-to", metavar="DIR", help="keep it in this folder, on another disk for one")
    command.add_argument("--restore", metavar="FILE", help="put back what an archive holds, over nothing")
    add_asking(command)


def clean(arguments: argparse.Namespace) -> int:
    """Clean, or restore what a cleanup has archived."""
    from tradingbot.ops.cleanup.plan import KINDS

    strangers = [what for what in arguments.what if what not in KINDS]
    if strangers:
        raise UsageError(f"{strangers[0]} is nothing that is cleaned; there are: {', '.join(KINDS)}")
    effective = effective_of(arguments)
    if arguments.restore is not None:
        if arguments.what or arguments.archive or arguments.archive_to or arguments.older_than:
            raise UsageError("clean --restore FILE takes nothing else")
        return _restore(arguments, effective)
    return _clean(arguments, effective)


def _clean(arguments: argparse.Namespace, effective: Effective) -> int:
    from tradingbot.ops.cleanup.cleanup import Plan, execute, plan_clean
    from tradingbot.ops.cleanup.text import nothing_text, plan_text
    from tradingbot.ui.progress import showing_progress

    to = None if arguments.archive_to is None else Path(arguments.archive_to)
    found = plan_clean(
        effective, arguments.what, arguments.why or "", arguments.older_than, arguments.archive, to
    )  # fmt: skip
    plan, archived = (found, "") if isinstance(found, Plan) else (found.plan, str(found.done["archive"]["path"]))
    plan = replace(plan, why=arguments.why or plan.why)
    record, state = plan.to_record(), str(effective.state_dir)
    document: dict[str, Any] = {"state": state, "plan": record, "going_on": bool(archived)}
    if not plan.items:
        answer(arguments, document | {"report": None}, nothing_text(record, state))
        return 0
    if not ask(arguments, plan_text(record, state, archived)):
        if arguments.json:
            answer(arguments, document | {"report": None}, "")
        return NO
    with showing_progress() as progress:
        report = execute(effective, plan, progress)
    answer(arguments, document | {"report": report.to_record()}, report.text())
    return report.exit_code


def _restore(arguments: argparse.Namespace, effective: Effective) -> int:
    from tradingbot.ops.cleanup.cleanup import plan_restore, restore
    from tradingbot.ui.progress import showing_progress

    archive = Path(arguments.restore)
    with showing_progress() as progress:
        plan = plan_restore(effective, archive, progress)
    document: dict[str, Any] = {"state": str(effective.state_dir), "plan": plan.to_record()}
    if not plan.wanted:
        answer(arguments, document | {"restored": None}, plan.text())
        return 0
    if not ask(arguments, plan.text()):
        if arguments.json:
            answer(arguments, document | {"restored": None}, "")
        return NO
    with showing_progress() as progress:
        done = restore(effective, archive, arguments.why, progress)
    answer(arguments, document | {"restored": done.to_record()}, done.text())
    return done.exit_code
