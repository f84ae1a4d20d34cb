"""The command line: argument parsing and printing, nothing else."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot import __version__
from tradingbot.errors import TradingBotError, UsageError

if TYPE_CHECKING:
    from tradingbot.io.overrides import Effective

__all__ = ["main"]

INTERRUPTED = 130

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_usage(sys.stderr)
        _complain("this version has no live bot yet: try `tradingbot replay`, or `tradingbot --help`")
        return UsageError.exit_code
    command: Command = arguments.run
    try:
        return command(arguments)
    except TradingBotError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone: no second error
        return 0


def _complain(text: str) -> None:
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    print(f"tradingbot: {printable}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    common = shared.add_argument_group("every command")
    common.add_argument("--home", metavar="DIR", help="folder that everything lives under")
    common.add_argument("--state", metavar="DIR", help="state directory, relative to the home")
    common.add_argument("--config", metavar="FILE", help="settings file in place of HOME/tradingbot.toml")
    common.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting; repeatable")
    common.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else there")
    parser = argparse.ArgumentParser(
        prog="tradingbot",
        description="A spot bot that buys sharp drops, and that its operator can observe, replay, prove and roll back.",
        epilog="example: tradingbot replay crash.csv --set GLOBAL_TRADING=true --out result",
    )
    parser.add_argument("--version", action="version", version=f"tradingbot {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, run: Command, summary: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, parents=[shared], help=summary, description=summary, epilog=f"example: {example}"
        )
        command.set_defaults(run=run)
        return command

    replay = add(
        "replay",
        _replay,
        "run the engine over recorded market data",
        "tradingbot replay trades.parquet --set DROP_TRIGGER_VALUE=0.99 --set GLOBAL_TRADING=true --out result",
    )
    replay.add_argument("data", nargs="+", metavar="FILE_OR_DIRECTORY", help="Parquet, CSV or JSONL")
    replay.add_argument("--out", metavar="DIR", help="write decisions.jsonl, trades.jsonl and summary.json there")
    config = add("config", _config, "show every setting, its value, source and meaning", "tradingbot config --json")
    config.add_argument("--schema", action="store_true", help="print the JSON Schema of a settings file")
    return parser


def _settings(arguments: argparse.Namespace, overrides: bool) -> Effective:
    from tradingbot.io.overrides import CONFIG_NAME, find_home, read_settings

    cwd = Path.cwd()
    home = find_home(arguments.home, os.environ, cwd)
    found = home.chosen_by == f"{CONFIG_NAME} found"
    if home.path != cwd and (found or (home.chosen_by != "--home" and (cwd / CONFIG_NAME).exists())):
        print(f"home: {home.path} ({home.chosen_by})", file=sys.stderr)
    return read_settings(
        home, config=arguments.config, state=arguments.state, assignments=arguments.set, overrides=overrides
    )


def _print_json(document: Any) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def _config(arguments: argparse.Namespace) -> int:
    from tradingbot.config import json_schema, registry

    if arguments.schema:
        _print_json(json_schema())
        return 0
    effective = _settings(arguments, overrides=True)
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
        _print_json({"home": str(effective.home.path), "home_chosen_by": effective.home.chosen_by, "settings": rows})
        return 0
    from tradingbot.ui.tables import settings_table

    print(settings_table(rows))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from tradingbot.services.replay import FileSink, NullSink, run_files, scan_all
    from tradingbot.ui.progress import showing_progress

    settings = _settings(arguments, overrides=False).settings
    try:
        sink = FileSink(Path(arguments.out)) if arguments.out else NullSink()
    except OSError as error:
        raise UsageError(f"cannot write to {arguments.out}: {error.strerror}") from None
    try:
        with showing_progress() as progress:
            files = scan_all(arguments.data, progress)
            for file in files:
                if file.complaint:
                    _complain(f"warning: {file.complaint}")
            summary = run_files(files, settings, sink, progress)
    except UsageError:
        sink.discard()
        raise
    sink.finish(summary)
    if arguments.json:
        _print_json(summary)
        return 0
    from tradingbot.ui.tables import summary_text

    print(summary_text(summary, settings))
    if arguments.out:
        print(f"\n{Path(arguments.out) / 'summary.json'}, with decisions.jsonl and trades.jsonl beside it")
    return 0
