"""Anchors: shown with where they come from, or asked to begin anew."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from tradingbot.commands.past import tell_damage
from tradingbot.commands.shared import print_json, print_text, settings_of
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.ops.anchors import ResetPlan
    from tradingbot.ops.history import History

__all__ = ["anchors"]

PATIENCE_S = 5.0  # a bot looks for requests once a second
NO = 2


def anchors(arguments: argparse.Namespace) -> int:
    """Show the anchors, or ask for some to begin anew."""
    from tradingbot.ops.anchors import known_anchors, plan_reset
    from tradingbot.ops.history import History

    if arguments.action is None and (arguments.all or arguments.why is not None or arguments.yes):
        raise UsageError("anchors alone shows them; to change some: anchors reset SYMBOL... --why TEXT")
    effective = settings_of(arguments, overrides=True)
    history = History(effective.state_dir)
    if arguments.action == "reset":
        if bool(arguments.symbols) == arguments.all:
            raise UsageError("anchors reset takes symbols, or --all")
        if not (arguments.why or "").strip():
            raise UsageError("anchors reset takes --why TEXT: whoever looks later should know the reason")
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
    from tradingbot.ui.state_tables import reset_plan_text

    records = {symbol: None if row is None else asdict(row) for symbol, row in plan.anchors.items()}
    plan_text = reset_plan_text(records, str(history.state_dir), plan.running)
    document = {"plan": {"symbols": list(records), "anchors": records, "bot_running": plan.running}}
    print_plan = _print_error if arguments.json else print_text
    if not arguments.yes:
        print_plan(plan_text)
        if not _agreed():
            _answer(arguments, document | {"done": False, "taken": False}, "nothing is changed (--yes acts)")
            return NO
    why = arguments.why.encode("utf-8", "backslashreplace").decode()
    request = request_reset(history.state_dir, plan, why)
    taken = plan.running and was_taken(request, PATIENCE_S)
    names = ", ".join(records)
    if taken:
        text = f"{names}: the bot has taken it; session, window and anchor begin anew at the next tick"
    elif plan.running:
        text = f"{names}: asked for, and the bot has not looked yet; it will at its next turn ({request})"
    else:
        text = f"{names}: no bot is running there; the next start does it ({request})"
    _answer(arguments, document | {"done": True, "taken": taken, "request": str(request)}, text)
    return 0


def _agreed() -> bool:
    """Ask on the terminal; without one nobody agrees."""
    if not sys.stdin.isatty():
        return False
    print("do it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _print_error(text: str) -> None:
    print(text, file=sys.stderr)


def _answer(arguments: argparse.Namespace, document: dict[str, object], text: str) -> None:
    if arguments.json:
        print_json(document)
    else:
        from tradingbot.ui.plain import printable

        print_text(printable(text))
