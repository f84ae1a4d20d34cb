"""What all commands share: home and settings out of the arguments, and words, JSON and complaints on the screen."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.io.home import Home
    from tradingbot.io.overrides import Effective

__all__ = [
    "answer",
    "ask",
    "complain",
    "from_here",
    "home_of",
    "print_json",
    "print_text",
    "settings_of",
    "state_named",
]


def home_of(arguments: argparse.Namespace) -> Home:
    """Return the home, and say on stderr which one where that could surprise."""
    from tradingbot.io.home import CONFIG_NAME, find_home

    cwd = Path.cwd()
    home = find_home(arguments.home, os.environ, cwd)
    found = home.chosen_by == f"{CONFIG_NAME} found"
    if home.path != cwd and (found or (home.chosen_by != "--home" and (cwd / CONFIG_NAME).exists())):
        print(f"home: {home.path} ({home.chosen_by})", file=sys.stderr)
    return home


def settings_of(arguments: argparse.Namespace, overrides: bool) -> Effective:
    """Return the settings in force; `overrides` is false for what runs over recorded data."""
    from tradingbot.io.overrides import read_settings

    home = home_of(arguments)
    return read_settings(
        home, config=arguments.config, state=arguments.state, assignments=arguments.set, overrides=overrides
    )


def state_named(text: str) -> Path:
    """Return the state directory that is named; raise UsageError where it is a home, in which nothing is recorded."""
    folder = Path(text)
    inner = folder / "state"
    if (inner / "journal").is_dir() and not (folder / "journal").is_dir():
        raise UsageError(f"{folder} is a bot's home: did you mean {inner}?")
    return folder


def from_here(path: Path) -> Path:
    """Return a path as seen from the working directory where it lies below, which reads better and names the same."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def complain(text: str) -> None:
    """Print one line on stderr, what no terminal should be sent escaped."""
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    print(f"tradingbot: {printable}", file=sys.stderr)


def print_text(text: str) -> None:
    """Print text on stdout, whatever its encoding can spell."""
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    import orjson

    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def answer(arguments: argparse.Namespace, document: dict[str, Any], text: str) -> None:
    """Print the document with --json, the text without, by means of the standard library alone."""
    from tradingbot.ui.plain import json_text

    print_text(json_text(document) if arguments.json else text)


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
