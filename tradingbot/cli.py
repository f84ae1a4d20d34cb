"""The command line: words become arguments, errors one line and an exit code; commands/ does the rest."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tradingbot import __version__
from tradingbot.commands import (
    anchors,
    control,
    convert,
    past,
    recorded,
    rollback,
    running,
    settings,
    switches,
    upkeep,
)
from tradingbot.commands.shared import complain
from tradingbot.errors import TradingBotError, UsageError

__all__ = ["main"]

INTERRUPTED, TERMINATED = 130, 143

Command = Callable[[argparse.Namespace], int]
Add = Callable[[str, Command, str, str], argparse.ArgumentParser]
"""Takes name, function, summary and example of a command."""


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


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    _add_common(shared, "")
    parser = argparse.ArgumentParser(
        prog="tradingbot",
        allow_abbrev=False,
        description="A spot bot that buys sharp drops, and that its operator can observe, replay, prove and roll back.",
        epilog="Without a command it runs the bot. example: tradingbot --duration 60 --set EMBEDDED_SPEED=20",
    )
    _add_common(parser, "early_")
    parser.add_argument("--version", action="version", version=f"tradingbot {__version__}")
    parser.add_argument("--duration", type=_seconds, metavar="S", help="run the bot for so many seconds")
    action = argparse.BooleanOptionalAction
    parser.add_argument("--dashboard", action=action, help="show the live table (by default: on a terminal)")
    text = "run in virtual time, in which waiting costs nothing; needs --duration and the embedded exchange"
    parser.add_argument("--virtual", action="store_true", help=text)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

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

    _add_recorded(add)
    _add_settings(add)
    _add_switches(add)
    _add_rollback(add)
    _add_past(add)
    _add_anchors(add)
    _add_control(add)
    _add_running(add)
    _add_upkeep(add)
    return parser


def _add_recorded(add: Add) -> None:
    command = add(
        "replay",
        recorded.replay,
        "run the engine over recorded market data",
        "tradingbot replay trades.parquet --set DROP_TRIGGER_VALUE=0.99 --set GLOBAL_TRADING=true --out result",
    )
    command.add_argument("data", nargs="+", metavar="FILE_OR_DIRECTORY", help="Parquet, CSV or JSONL")
    command.add_argument("--out", metavar="DIR", help="write decisions.jsonl, trades.jsonl and summary.json there")
    text = "run what was recorded through the engine again: equal?"
    command = add("prove", recorded.prove, text, "tradingbot prove build/run/state")
    command.add_argument("folder", nargs="?", metavar="STATE")
    text = "only the last minutes, from the last checkpoint before them"
    command.add_argument("--last", type=_minutes, metavar="MIN", help=text)
    summary = "run what was recorded under two settings: what would have been decided otherwise?"
    example = "tradingbot compare build/run/state --set FEATURE_ANCHOR_ENABLED=false --last 60"
    command = add("compare", recorded.compare, summary, example)
    command.add_argument("folder", nargs="?", metavar="STATE")
    command.add_argument("--last", type=_minutes, metavar="MIN", help=text)
    text = "a setting of theirs, the other side; repeatable (--set is ours; a side without any is as recorded)"
    command.add_argument("--against", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "write compare.json there, and each side's decisions.jsonl and trades.jsonl"
    command.add_argument("--out", metavar="DIR", help=text)


def _add_settings(add: Add) -> None:
    text = "show every setting, its value, source and meaning"
    command = add("config", settings.config, text, "tradingbot config --json")
    command.add_argument("--schema", action="store_true", help="print the JSON Schema of a settings file")


def _add_switches(add: Add) -> None:
    text = "show the feature flags, or switch some, on a running bot or for the next start"
    example = 'tradingbot flags; tradingbot flags set FEATURE_ANCHOR_ENABLED=off --why "odd anchors"'
    command = add("flags", switches.flags, text, example)
    command.add_argument("action", nargs="?", choices=["set"], help="switch flags")
    command.add_argument("assignments", nargs="*", metavar="NAME=on/off", help="which, and how")
    _add_asking(command)
    text = "override settings, on a running bot or for the next start"
    command = add("set", switches.set_, text, 'tradingbot set MAX_CONCURRENT_POSITIONS=1 --why "thin market"')
    command.add_argument("assignments", nargs="+", metavar="KEY=VALUE", help="a setting and its value")
    _add_asking(command)
    text = "take overrides back"
    command = add("clear", switches.clear, text, 'tradingbot clear MAX_CONCURRENT_POSITIONS --why "market is back"')
    command.add_argument("keys", nargs="*", metavar="KEY", help="which")
    command.add_argument("--all", action="store_true", help="every override")
    _add_asking(command)


def _add_rollback(add: Add) -> None:
    text = "roll features back by their flags: planned first, done step by step, checked; or undo that"
    example = 'tradingbot rollback anchor --why "odd anchors"; tradingbot rollback --undo --why "was the feed"'
    command = add("rollback", rollback.rollback, text, example)
    command.add_argument("profile", nargs="?", metavar="PROFILE", help="all, persistence, warmstart, retry or anchor")
    command.add_argument("--restart", action="store_true", help="restart a running bot where something needs it")
    command.add_argument("--from-empty", action="store_true", help="with warmstart --restart: anchors begin anew too")
    command.add_argument("--dry-run", action="store_true", help="show the plan alone")
    command.add_argument("--no-compare", action="store_true", help="do not look at what the last hour would have been")
    command.add_argument("--list", action="store_true", help="show the profiles, and past rollbacks")
    text = "take a rollback back, by default the last one"
    command.add_argument("--undo", nargs="?", const="", metavar="ID", help=text)
    _add_asking(command)
    text = "have the running bot stop cleanly and begin anew, in its own process"
    command = add("restart", rollback.restart, text, 'tradingbot restart --why "settings that take a restart"')
    _add_asking(command)


def _add_past(add: Add) -> None:
    text = "say in words why a trigger came, what became of it, or why none came"
    command = add("explain", past.explain, text, "tradingbot explain --last; tradingbot explain --near")
    command.add_argument("id", nargs="?", metavar="ID", help="a trigger, as log and table name it")
    command.add_argument("--last", action="store_true", help="the newest trigger (with --symbol: of that symbol)")
    command.add_argument("--symbol", metavar="S", help="the newest triggers of a symbol, as a list")
    command.add_argument("--near", action="store_true", help="how close prices came to their thresholds, by the hour")
    command.add_argument("--hours", type=_count, default=6, metavar="N", help="how many hours --near looks at (6)")


def _add_anchors(add: Add) -> None:
    text = "show the anchors with where they come from, or have some begin anew"
    example = 'tradingbot anchors; tradingbot anchors reset BTC/USDT --why "set by a spike"'
    command = add("anchors", anchors.anchors, text, example)
    command.add_argument("action", nargs="?", choices=["reset"], help="start the symbols' session and anchor anew")
    command.add_argument("symbols", nargs="*", metavar="SYMBOL", help="which")
    command.add_argument("--all", action="store_true", help="every symbol")
    _add_asking(command)


def _add_control(add: Add) -> None:
    add("status", control.status, "show what the running bot is and sees", "tradingbot status --json | jq .data")
    add("stop", control.stop, "stop the running bot cleanly", "tradingbot stop")
    text = "switch the kill switch on: no new position"
    kill = add("kill", control.kill, text, 'tradingbot kill --why "exchange odd"')
    for command in (kill, add("arm", control.arm, "switch the kill switch off", "tradingbot arm")):
        command.add_argument("--why", default="operator", metavar="TEXT", help="the reason, for whoever looks later")


def _add_running(add: Add) -> None:
    command = add(
        "exchange",
        running.exchange,
        "run the embedded exchange alone, for any ccxt program",
        "tradingbot exchange --port 18080 --set EMBEDDED_SPEED=60",
    )
    command.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (0: a free one)")
    command.add_argument("--api-key", default="key", metavar="K", help="the key it accepts (key)")
    command.add_argument("--faults", metavar="FILE", help="a script of faults to play (docs/EXCHANGE.md)")
    command.add_argument("--api-secret", default="secret", metavar="S", help="the secret it accepts (secret)")


def _add_upkeep(add: Add) -> None:
    text = "look for damage, gaps and left-over files in what is recorded, and how long the disk lasts"
    command = add("fsck", upkeep.fsck, text, 'tradingbot fsck build/run/state --repair --why "power loss"')
    command.add_argument("folder", nargs="?", metavar="STATE")
    command.add_argument("--repair", action="store_true", help="show what can be mended, ask, and mend it")
    _add_asking(command)
    text = "write what is recorded as tables, a file a stream"
    command = add("export", convert.export, text, "tradingbot export build/run/state --to parquet --stream ticks")
    command.add_argument("folder", nargs="?", metavar="STATE")
    command.add_argument("--to", choices=("parquet", "csv"), required=True, help="what to write")
    command.add_argument("--out", default="export", metavar="DIR", help="folder of the tables (export)")
    names = ("ticks", "snapshots", "windows", "anchors", "journal")
    text = "this stream alone; repeatable"
    command.add_argument("--stream", action="append", choices=names, metavar="NAME", help=f"{text}: {', '.join(names)}")
    command.add_argument("--symbol", action="append", metavar="S", help="this symbol alone; repeatable")
    text = "records from this time on: 2026-11-23, 2026-11-23T02:30 (UTC), or ms"
    command.add_argument("--since", type=convert.moment_ms, metavar="TIME", help=text)
    command.add_argument("--until", type=convert.moment_ms, metavar="TIME", help="records before this time")
    text = "record market data of others as a session, as if the bot had watched it"
    command = add("import", convert.import_, text, "tradingbot import candles.parquet --state research")
    command.add_argument("data", nargs="+", metavar="FILE_OR_DIRECTORY", help="Parquet, CSV or JSONL")
    _add_asking(command)


def _add_asking(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do it without asking")
    command.add_argument("--why", metavar="TEXT", help="the reason, for the audit; required where something is changed")


def _add_common(parser: argparse.ArgumentParser, prefix: str) -> None:
    common = parser.add_argument_group("every command")

    def add(name: str, metavar: str, text: str) -> None:
        common.add_argument(f"--{name}", dest=prefix + name, metavar=metavar, help=text)

    add("home", "DIR", "folder that everything lives under")
    add("state", "DIR", "state directory, relative to the home")
    add("config", "FILE", "settings file in place of HOME/tradingbot.toml")
    text = "a setting; repeatable"
    common.add_argument("--set", dest=prefix + "set", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "one JSON document on stdout, nothing else there"
    common.add_argument("--json", dest=prefix + "json", action="store_true", default=None, help=text)


def _seconds(text: str) -> float:
    return _number(text, "seconds")


def _minutes(text: str) -> float:
    return _number(text, "minutes")


def _number(text: str, unit: str) -> float:
    number = -1.0
    with suppress(ValueError):
        number = float(text)
    if not 0 <= number < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of {unit}")
    return number


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) < 100_000:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 to 99999")
    return int(text[:9])
