"""The command line: words become arguments, errors one line and an exit code; commands/ does the rest."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

from tradingbot import __version__
from tradingbot.commands import (
    anchors,
    cleanup,
    control,
    convert,
    doctor,
    past,
    recorded,
    reports,
    rollback,
    running,
    settings,
    switches,
    upkeep,
    verification,
)
from tradingbot.commands.arguments import Command, add_common, seconds
from tradingbot.commands.shared import complain
from tradingbot.errors import TradingBotError, UsageError

__all__ = ["main"]

INTERRUPTED, TERMINATED = 130, 143

MODULES = (
    recorded,
    settings,
    switches,
    rollback,
    verification,
    past,
    anchors,
    control,
    running,
    upkeep,
    convert,
    cleanup,
    doctor,
    reports,
)
"""Where the commands are, in the order in which --help shows them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  (for as long as the process lives)
    parser = _parser()
    arguments = _join(parser.parse_args(argv))
    command: Command = running.run if arguments.command is None else arguments.run
    try:
        with _terminable():
            code = command(arguments)
            sys.stdout.flush()
            return code
    except TradingBotError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except _Terminated:
        complain("terminated")
        return TERMINATED
    except BrokenPipeError:
        _forget_stdout()  # whoever read us has gone
        return 0
    except OSError as error:
        _forget_stdout()
        complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return UsageError.exit_code


class _Terminated(BaseException):
    """Unwind after SIGTERM, so that what is open is closed and what is temporary goes."""


@contextmanager
def _terminable() -> Iterator[None]:
    def terminate(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit raises no second error."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _join(arguments: argparse.Namespace) -> argparse.Namespace:
    """Let an option stand before or behind the command: behind wins, and every --set counts."""
    for name in ("home", "state", "config", "json"):
        if getattr(arguments, name, None) is None:
            setattr(arguments, name, getattr(arguments, f"early_{name}"))
    arguments.set = [*arguments.early_set, *(getattr(arguments, "set", None) or [])]
    return arguments


class _Parser(argparse.ArgumentParser):
    """Answer an unknown command by the nearest one, where argparse would list them all."""

    commands: Collection[str] = ()

    def error(self, message: str) -> NoReturn:
        found = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if found is None:
            super().error(message)
        near = difflib.get_close_matches(found[1].lower(), self.commands, 1)
        hint = f"did you mean {near[0]}?" if near else "`tradingbot --help` shows them all"
        self.exit(UsageError.exit_code, f"tradingbot: there is no command {found[1]}: {hint}\n")


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    add_common(shared, "")
    parser = _Parser(
        prog="tradingbot",
        allow_abbrev=False,
        description="A spot bot that buys sharp drops, and that its operator can observe, replay, prove and roll back.",
        epilog="Without a command it runs the bot. example: tradingbot --duration 60 --set EMBEDDED_SPEED=20",
    )
    add_common(parser, "early_")
    parser.add_argument("--version", action="version", version=f"tradingbot {__version__}")
    parser.add_argument("--duration", type=seconds, metavar="S", help="run the bot for so many seconds")
    action = argparse.BooleanOptionalAction
    parser.add_argument("--dashboard", action=action, help="show the live table (by default: on a terminal)")
    text = "run in virtual time, in which waiting costs nothing; needs --duration and the embedded exchange"
    parser.add_argument("--virtual", action="store_true", help=text)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=argparse.ArgumentParser)
    parser.commands = commands.choices.keys()

    def add(name: str, run: Command, summary: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            parents=[shared],
            allow_abbrev=False,
            help=summary,
            description=summary,
            epilog=f"example: {example}",
        )
        command.set_defaults(run=run)
        return command

    for module in MODULES:
        module.add_to(add)
    return parser
