"""Restart and rollback: planned first, then done step by step, and seen to have worked."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tradingbot.commands.arguments import Add, add_asking
from tradingbot.commands.code import add_code_arguments, is_code, roll_back_code, undo_code
from tradingbot.commands.shared import answer, ask, complain
from tradingbot.commands.switches import effective_of
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.io.overrides import Effective
    from tradingbot.ops.rollback.plan import Plan
    from tradingbot.ops.rollback.store import Stored

__all__ = ["add_to", "restart", "rollback"]

NO = 2


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "roll features back by their flags: planned first, done step by step, checked; or undo that"
    example = 'tradingbot rollback anchor --why "odd anchors"; tradingbot rollback --undo --why "was the feed"'
    command = add("rollback", rollback, text, example)
    command.add_argument(
        "profile", nargs="?", metavar="PROFILE", help="all, persistence, warmstart, retry, anchor, or code"
    )
    command.add_argument("--restart", action="store_true", help="restart a running bot where something needs it")
    command.add_argument("--from-empty", action="store_true", help="with warmstart --restart: anchors begin anew too")
    command.add_argument("--dry-run", action="store_true", help="show the plan alone")
    command.add_argument("--no-compare", action="store_true", help="do not look at what the last hour would have been")
    command.add_argument("--list", action="store_true", help="show the profiles, and past rollbacks")
    text = "take a rollback back, by default the last one"
    command.add_argument("--undo", nargs="?", const="", metavar="ID", help=text)
    add_code_arguments(command)
    add_asking(command)
    text = "have the running bot stop cleanly and begin anew, in its own process"
    command = add("restart", restart, text, 'tradingbot restart --why "settings that take a restart"')
    add_asking(command)


def restart(arguments: argparse.Namespace) -> int:
    """Have the running bot begin anew in its own process."""
    from tradingbot.ops.rollback.restart import restart as begin_anew
    from tradingbot.ops.rollback.restart import running_bot
    from tradingbot.ui.plain import printable
    from tradingbot.ui.rollback_text import restart_plan_text, restarted_text

    effective = effective_of(arguments)
    bot = running_bot(effective.state_dir)
    document = {"state": str(effective.state_dir), "plan": bot.to_record()}
    if not ask(arguments, printable(restart_plan_text(bot.to_record(), str(effective.state_dir)))):
        if arguments.json:
            answer(arguments, document | {"restarted": None}, "")
        return NO
    done = begin_anew(effective.state_dir, bot, arguments.why, effective.settings.STOP_TIMEOUT_S)
    answer(
        arguments, document | {"restarted": done.to_record()}, "" if done.trouble else restarted_text(done.to_record())
    )
    if done.trouble:
        complain(done.trouble)
        return 1
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    """Roll features back by their flags, undo that, or show which rollbacks there are."""
    if arguments.profile == "code" and arguments.undo is None:
        return roll_back_code(arguments, effective_of(arguments))
    if arguments.to is not None or arguments.files or arguments.deploy:
        raise UsageError("--to, --files and --deploy go with rollback code")
    if [arguments.profile is not None, arguments.list, arguments.undo is not None].count(True) != 1:
        raise UsageError("rollback takes a profile, or --undo, or --list")
    effective = effective_of(arguments)
    if arguments.list:
        return _list(arguments, effective)
    if arguments.undo and is_code(effective, arguments.undo):
        return undo_code(arguments, effective)
    found = _planned(arguments, effective)
    return _carry_out(arguments, effective, found)


def _list(arguments: argparse.Namespace, effective: Effective) -> int:
    from tradingbot.ops.rollback.plan import PROFILES
    from tradingbot.ops.rollback.store import past_rollbacks
    from tradingbot.ops.rollback.text import list_text

    rows = [stored.to_record() for stored in past_rollbacks(effective.state_dir)]
    profiles = {profile.name: {"flags": profile.flags, "off": profile.means} for profile in PROFILES.values()}
    answer(arguments, {"profiles": profiles, "rollbacks": rows}, list_text(rows))
    return 0


def _planned(arguments: argparse.Namespace, effective: Effective) -> Stored | Plan:
    from tradingbot.ops.rollback.rollback import plan_rollback, plan_undo

    why = arguments.why or ""
    if arguments.undo is None:
        compares = not arguments.no_compare
        return plan_rollback(effective, arguments.profile, why, arguments.restart, arguments.from_empty, compares)
    if arguments.from_empty:
        raise UsageError("--from-empty goes with rollback warmstart --restart")
    return plan_undo(effective, arguments.undo, why, arguments.restart)


def _carry_out(arguments: argparse.Namespace, effective: Effective, found: Stored | Plan) -> int:
    from tradingbot.ops.rollback.plan import Plan
    from tradingbot.ops.rollback.rollback import execute
    from tradingbot.ops.rollback.text import nothing_text, plan_text

    state = str(effective.state_dir)
    plan, done = (found, []) if isinstance(found, Plan) else (found.plan, list(found.done))
    record = plan.to_record()
    document: dict[str, Any] = {"state": state, "plan": record, "going_on": not isinstance(found, Plan), "done": done}
    if isinstance(found, Plan) and not plan.is_needed:
        answer(arguments, document | {"report": None}, nothing_text(record, state))
        return 0
    text = plan_text(record, state, done)
    if arguments.dry_run:
        answer(arguments, document | {"report": None}, text)
        return 0
    if not ask(arguments, text):
        if arguments.json:
            answer(arguments, document | {"report": None}, "")
        return NO
    try:
        report = execute(effective, plan)
    except KeyboardInterrupt:
        complain("it may be half done: the same command goes on where this one stopped")
        raise
    answer(arguments, document | {"report": report.to_record()}, report.text())
    return report.exit_code
