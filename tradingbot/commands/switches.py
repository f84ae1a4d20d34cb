"""Flags and overrides: shown, set and cleared on a running bot or for the next start."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tradingbot.commands.arguments import Add, add_asking
from tradingbot.commands.shared import answer, ask, settings_of
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.io.overrides import Effective

__all__ = ["add_to", "clear", "effective_of", "flags", "set_"]


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "show the feature flags, or switch some, on a running bot or for the next start"
    example = 'tradingbot flags; tradingbot flags set FEATURE_ANCHOR_ENABLED=off --why "odd anchors"'
    command = add("flags", flags, text, example)
    command.add_argument("action", nargs="?", choices=["set"], help="switch flags")
    command.add_argument("assignments", nargs="*", metavar="NAME=on/off", help="which, and how")
    add_asking(command)
    text = "override settings, on a running bot or for the next start"
    command = add("set", set_, text, 'tradingbot set MAX_CONCURRENT_POSITIONS=1 --why "thin market"')
    command.add_argument("assignments", nargs="+", metavar="KEY=VALUE", help="a setting and its value")
    add_asking(command)
    text = "take overrides back"
    command = add("clear", clear, text, 'tradingbot clear MAX_CONCURRENT_POSITIONS --why "market is back"')
    command.add_argument("keys", nargs="*", metavar="KEY", help="which")
    command.add_argument("--all", action="store_true", help="every override")
    add_asking(command)


def flags(arguments: argparse.Namespace) -> int:
    """Show the flags, or switch some."""
    from tradingbot.config import FLAGS

    if arguments.action == "set":
        if not arguments.assignments:
            raise UsageError("flags set takes NAME=on or NAME=off")
        changes = _changes(arguments.assignments)
        strangers = [key for key in changes if key not in FLAGS]
        if strangers:
            raise UsageError(f"{strangers[0]} is no flag; the flags: {', '.join(FLAGS)}")
        return _switch(arguments, changes)
    from tradingbot.ops.rollback.switch import flag_rows
    from tradingbot.ui.switch_tables import flags_table

    rows = [asdict(row) for row in flag_rows(settings_of(arguments, overrides=True))]
    answer(arguments, {"flags": rows}, flags_table(rows))
    return 0


def set_(arguments: argparse.Namespace) -> int:
    """Override settings."""
    return _switch(arguments, _changes(arguments.assignments))


def clear(arguments: argparse.Namespace) -> int:
    """Take overrides back."""
    from tradingbot.io.override_file import CLEAR, peek_entries

    below = settings_of(arguments, overrides=False)
    there = peek_entries(below.state_dir)[0]
    keys = list(there) if arguments.all else [key.strip() for key in arguments.keys]
    if bool(arguments.keys) == arguments.all:
        raise UsageError("clear takes settings, or --all")
    if arguments.all and not keys:
        answer(arguments, {"changed": []}, f"there are no overrides in {below.state_dir}")
        return 0
    return _switch(arguments, dict.fromkeys(keys, CLEAR), below)


def effective_of(arguments: argparse.Namespace) -> Effective:
    """Return the settings in force, also where overrides.json is broken: as the last good one leaves them."""
    from tradingbot.io.overrides import in_force

    return in_force(settings_of(arguments, overrides=False))


def _changes(assignments: list[str]) -> dict[str, Any]:
    from tradingbot.config import parse_text
    from tradingbot.io.home import split_assignment

    pairs = [split_assignment(text) for text in assignments]
    return {name: parse_text(name, text) for name, text in pairs}


def _switch(arguments: argparse.Namespace, changes: dict[str, Any], below: Effective | None = None) -> int:
    from tradingbot.ops.rollback.switch import plan_switch, switch, was_adopted
    from tradingbot.ui.plain import printable_lines
    from tradingbot.ui.switch_tables import plan_text, switched_text

    plan = plan_switch(below or settings_of(arguments, overrides=False), changes)
    document: dict[str, Any] = {"state": str(plan.state_dir), "running": plan.running, "plan": plan.rows()}
    if not ask(arguments, printable_lines(plan_text(plan.rows(), str(plan.state_dir), plan.running, plan.trouble))):
        if arguments.json:
            answer(arguments, document | {"changed": []}, "")
        return 2
    changed = switch(plan, arguments.why)
    adopted = was_adopted(plan.state_dir, changed) if plan.running else None
    document |= {"changed": [asdict(change) for change in changed], "adopted": adopted}
    answer(arguments, document, printable_lines(switched_text(plan.rows(), [c.key for c in changed], adopted)))
    return 1 if adopted is False else 0
