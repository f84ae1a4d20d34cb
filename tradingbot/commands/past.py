"""What the record tells: why a trigger came, or why none came."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tradingbot.commands.arguments import Add, count
from tradingbot.commands.control import target
from tradingbot.commands.shared import complain, print_json, print_text
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.ops.record.history import History

__all__ = ["add_to", "explain", "tell_damage"]

LISTED = 10  # triggers of a symbol


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "say in words why a trigger came, what became of it, or why none came"
    command = add("explain", explain, text, "tradingbot explain --last; tradingbot explain --near")
    command.add_argument("id", nargs="?", metavar="ID", help="a trigger, as log and table name it")
    command.add_argument("--last", action="store_true", help="the newest trigger (with --symbol: of that symbol)")
    command.add_argument("--symbol", metavar="S", help="the newest triggers of a symbol, as a list")
    command.add_argument("--near", action="store_true", help="how close prices came to their thresholds, by the hour")
    command.add_argument("--hours", type=count, default=6, metavar="N", help="how many hours --near looks at (6)")


def tell_damage(history: History) -> None:
    """Say on stderr what could not be read."""
    places = history.damage()
    if places:
        s = "" if len(places) == 1 else "s"
        complain(f"warning: {len(places)} place{s} could not be read, the first: {places[0]} (prove names them all)")


def explain(arguments: argparse.Namespace) -> int:
    """Explain a trigger, list a symbol's, or show how close prices came."""
    from tradingbot.ops.record import explain as ops
    from tradingbot.ops.record.history import History

    chosen = [arguments.id is not None, arguments.last, arguments.near]
    if sum(chosen) > 1 or (arguments.id is not None and arguments.symbol) or not (any(chosen) or arguments.symbol):
        raise UsageError("explain takes one of: an ID, --last, --symbol S, --symbol S --last, --near")
    history = History(target(arguments)[0])
    try:
        if arguments.near:
            _near(arguments, history)
        elif arguments.symbol and not arguments.last:
            decisions = ops.latest_triggers(history, arguments.symbol, LISTED)
            _show_list(arguments, decisions)
        else:
            wanted = arguments.id if arguments.id is not None else ops.latest_trigger(history, arguments.symbol)
            document = ops.explain(history, wanted).to_record()
            if arguments.json:
                print_json(document)
            else:
                from tradingbot.ui.explanation import explanation_text

                print_text(explanation_text(document))
    finally:
        tell_damage(history)
    return 0


def _near(arguments: argparse.Namespace, history: History) -> None:
    from tradingbot.ops.record.near import nearest_approaches

    rows = [asdict(row) for row in nearest_approaches(history, arguments.hours, arguments.symbol)]
    if arguments.json:
        print_json({"approaches": rows})
        return
    from tradingbot.ui.state_tables import near_table

    print_text(near_table(rows))


def _show_list(arguments: argparse.Namespace, decisions: list[dict[str, Any]]) -> None:
    if arguments.json:
        print_json({"triggers": decisions})
        return
    from tradingbot.ui.explanation import trigger_list

    print_text(trigger_list(decisions))
