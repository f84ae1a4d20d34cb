"""What the arguments of several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress

__all__ = ["STATE_HELP", "Add", "Command", "add_asking", "add_common", "count", "minutes", "period_s", "seconds"]

Command = Callable[[argparse.Namespace], int]
Add = Callable[[str, Command, str, str], argparse.ArgumentParser]
"""Takes name, function, summary and example of a command."""

STATE_HELP = "a state directory, as in build/run/state; else the home's own"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def add_asking(command: argparse.ArgumentParser) -> None:
    """Add what every command has that changes something."""
    command.add_argument("--yes", action="store_true", help="do it without asking")
    command.add_argument("--why", metavar="TEXT", help="the reason, for the audit; required where something is changed")


def add_common(parser: argparse.ArgumentParser, prefix: str) -> None:
    """Add what every command has; the names of what is read begin with `prefix`."""
    common = parser.add_argument_group("every command")

    def add(name: str, metavar: str, text: str) -> None:
        common.add_argument(f"--{name}", dest=prefix + name, metavar=metavar, help=text)

    add("home", "DIR", "the bot's folder (TRADINGBOT_HOME, the nearest with a tradingbot.toml, or this one)")
    add("state", "DIR", "state directory, relative to the home")
    add("config", "FILE", "settings file in place of HOME/tradingbot.toml")
    text = "a setting; repeatable"
    common.add_argument("--set", dest=prefix + "set", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "one JSON document on stdout, nothing else there"
    common.add_argument("--json", dest=prefix + "json", action="store_true", default=None, help=text)


def seconds(text: str) -> float:
    """Return a number of seconds."""
    return _number(text, "seconds")


def minutes(text: str) -> float:
    """Return a number of minutes."""
    return _number(text, "minutes")


def period_s(text: str) -> float:
    """Return a period such as 90s, 15m, 1h, 2d or 1w in seconds; a bare number is one of seconds."""
    unit = UNITS_S.get(text[-1:], 0)
    return _number(text[:-1] if unit else text, "seconds, as in 90s, 15m, 1h, 2d") * (unit or 1)


def count(text: str) -> int:
    """Return a whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) < 100_000:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 to 99999")
    return int(text[:9])


def _number(text: str, unit: str) -> float:
    number = -1.0
    with suppress(ValueError):
        number = float(text)
    if not 0 <= number < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of {unit}")
    return number
