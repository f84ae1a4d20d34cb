"""Anchors: shown with where they come from, or asked to begin anew."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from tradingbot.commands.arguments import Add, add_asking
from tradingbot.commands.past import tell_damage
from tradingbot.commands.shared import ask, print_json, print_text, settings_of
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.ops.anchors import ResetPlan
    from tradingbot.ops.record.history import History

__all__ = ["add_to", "anchors"]

NO = 2


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "show the anchors with where they come from, or have some begin anew"
    example = 'tradingbot anchors; tradingbot anchors reset BTC/USDT --why "set by a spike"'
    command = add("anchors", anchors, text, example)
    command.add_argument("action", nargs="?", choices=["reset"], help="start the symbols' session and anchor anew")
    command.add_argument("symbols", nargs="*", metavar="SYMBOL", help="which")
    command.add_argument("--all", action="store_true", help="every symbol")
    add_asking(command)


def anchors(arguments: argparse.Namespace) -> int:
    """Show the anchors, or ask for some to begin anew."""
    from tradingbot.ops.anchors import known_anchors, plan_reset
    from tradingbot.ops.record.history import History

    if arguments.action is None and (arguments.all or arguments.why is not None or arguments.yes):
        raise UsageError("anchors alone shows them; to change some: anchors reset SYMBOL... --why TEXT")
    effective = settings_of(arguments, overrides=True)
    history = History(effective.state_dir)
    if arguments.action == "reset":
        if bool(arguments.symbols) == arguments.all:
            raise UsageError("anchors reset takes symbols, or --all")
        plan = plan_reset(history, effective.settings, arguments.symbols, arguments.all)
        return _reset(arguments, history, plan)
    rows = [asdict(row) for row in known_anchors(history, effective.settings)]
    tell_damage(history)
    if arguments.json:
        print_json({"anchors": rows})
    elif not rows:
        print_text(f"no anchor is known under {history.state_dir}: no bot has run there, or none with anchors")
    else:
        from tradingbot.ui.state_tables import anchors_table

        print_text(anchors_table(rows))
    return 0


def _reset(arguments: argparse.Namespace, history: History, plan: ResetPlan) -> int:
    from tradingbot.ops.anchors import request_reset, was_taken
    from tradingbot.ui.plain import printable
    from tradingbot.ui.state_tables import reset_plan_text

    records = {symbol: None if row is None else asdict(row) for symbol, row in plan.anchors.items()}
    document: dict[str, object] = {"plan": {"anchors": records, "bot_running": plan.running}}
    if not ask(arguments, reset_plan_text(records, str(history.state_dir), plan.running)):
        if arguments.json:
            print_json(document | {"done": False})
        return NO
    request = request_reset(history.state_dir, plan, arguments.why)
    taken = plan.running and was_taken(request)
    if taken:
        text = "the bot has taken it; session, window and anchor begin anew at the next tick"
    elif plan.running:
        text = f"asked for; the bot has not looked yet, and will ({request})"
    else:
        text = f"no bot is running there; the next start does it ({request})"
    if arguments.json:
        print_json(document | {"done": True, "taken": taken, "request": str(request)})
    else:
        print_text(printable(f"{', '.join(records)}: {text}"))
    return 0
