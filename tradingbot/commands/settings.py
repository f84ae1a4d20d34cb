"""What is set, and where each value comes from."""

from __future__ import annotations

import argparse

from tradingbot.commands.arguments import Add
from tradingbot.commands.shared import print_json, print_text, settings_of

__all__ = ["add_to", "config"]


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "show every setting, its value, source and meaning"
    command = add("config", config, text, "tradingbot config --json")
    command.add_argument("--schema", action="store_true", help="print the JSON Schema of a settings file")


def config(arguments: argparse.Namespace) -> int:
    """Show every setting, its value, source and meaning."""
    from tradingbot.config import json_schema, registry

    effective = settings_of(arguments, overrides=True)
    if arguments.schema:
        print_json(json_schema())
        return 0
    rows = {
        name: {
            "value": getattr(effective.settings, name),
            "source": effective.sources[name],
            "meaning": setting.meaning,
            "allowed": setting.allowed,
            "default": setting.default,
            "group": setting.group,
            "takes_effect": "restart" if setting.restart else "live",
        }
        for name, setting in registry().items()
    }
    if arguments.json:
        print_json({"home": str(effective.home.path), "home_chosen_by": effective.home.chosen_by, "settings": rows})
        return 0
    from tradingbot.ui.tables import settings_table

    print_text(settings_table(rows))
    return 0
