"""The command line: argument parsing and printing, nothing else."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot import __version__
from tradingbot.errors import TradingBotError, UsageError

if TYPE_CHECKING:
    from tradingbot.io.home import Home
    from tradingbot.io.overrides import Effective

__all__ = ["main"]

INTERRUPTED, TERMINATED = 130, 143

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  (for as long as the process lives)
    parser = _parser()
    arguments = _join(parser.parse_args(argv))
    command: Command = _run if arguments.command is None else arguments.run
    try:
        with _terminable():
            code = command(arguments)
            sys.stdout.flush()
            return code
    except TradingBotError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except _Terminated:
        _complain("terminated")
        return TERMINATED
    except BrokenPipeError:
        _forget_stdout()  # whoever read us has gone
        return 0
    except OSError as error:
        _forget_stdout()
        _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
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


def _complain(text: str) -> None:
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    print(f"tradingbot: {printable}", file=sys.stderr)


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
    add("status", _status, "show what the running bot is and sees", "tradingbot status --json | jq .data")
    add("stop", _stop, "stop the running bot cleanly", "tradingbot stop")
    kill = add("kill", _kill, "switch the kill switch on: no new position", 'tradingbot kill --why "exchange odd"')
    for command in (kill, add("arm", _arm, "switch the kill switch off", "tradingbot arm")):
        command.add_argument("--why", default="operator", metavar="TEXT", help="the reason, for whoever looks later")
    text = "run what was recorded through the engine again: equal?"
    add("prove", _prove, text, "tradingbot prove build/run/state").add_argument("folder", nargs="?", metavar="STATE")
    exchange = add(
        "exchange",
        _exchange,
        "run the embedded exchange alone, for any ccxt program",
        "tradingbot exchange --port 18080 --set EMBEDDED_SPEED=60",
    )
    exchange.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (0: a free one)")
    exchange.add_argument("--api-key", default="key", metavar="K", help="the key it accepts (key)")
    exchange.add_argument("--faults", metavar="FILE", help="a script of faults to play (docs/EXCHANGE.md)")
    exchange.add_argument("--api-secret", default="secret", metavar="S", help="the secret it accepts (secret)")
    return parser


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


def _home(arguments: argparse.Namespace) -> Home:
    from tradingbot.io.home import CONFIG_NAME, find_home

    cwd = Path.cwd()
    home = find_home(arguments.home, os.environ, cwd)
    found = home.chosen_by == f"{CONFIG_NAME} found"
    if home.path != cwd and (found or (home.chosen_by != "--home" and (cwd / CONFIG_NAME).exists())):
        print(f"home: {home.path} ({home.chosen_by})", file=sys.stderr)
    return home


def _settings(arguments: argparse.Namespace, overrides: bool) -> Effective:
    from tradingbot.io.overrides import read_settings

    home = _home(arguments)
    return read_settings(
        home, config=arguments.config, state=arguments.state, assignments=arguments.set, overrides=overrides
    )


def _print_json(document: Any) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _config(arguments: argparse.Namespace) -> int:
    from tradingbot.config import json_schema, registry

    effective = _settings(arguments, overrides=True)
    if arguments.schema:
        _print_json(json_schema())
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
        _print_json({"home": str(effective.home.path), "home_chosen_by": effective.home.chosen_by, "settings": rows})
        return 0
    from tradingbot.ui.tables import settings_table

    _print(settings_table(rows))
    return 0


def _seconds(text: str) -> float:
    seconds = -1.0
    with suppress(ValueError):
        seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds


def _run(arguments: argparse.Namespace) -> int:
    if arguments.virtual and arguments.duration is None:
        raise UsageError("--virtual needs --duration: in virtual time nobody could stop it at the right moment")
    effective = _settings(arguments, overrides=True)
    os.umask(0o077)  # what it writes is the user's own

    from tradingbot.services.logs import logging_to
    from tradingbot.ui.dashboard import showing_dashboard

    folder = effective.home.path / effective.settings.LOG_DIR
    with showing_dashboard(arguments.dashboard) as show:
        stderr = show is None or not sys.stdout.isatty()
        if arguments.virtual:
            from tradingbot.services.virtual import VirtualLoop, run_virtual

            loop = VirtualLoop()
            with logging_to(folder, effective.settings, stderr, loop.wall_s):
                run_virtual(effective, arguments.duration, loop, show)
        else:
            from tradingbot.services.session import run_session

            with logging_to(folder, effective.settings, stderr):
                run_session(effective, arguments.duration, show)
    return 0


def _control(arguments: argparse.Namespace) -> tuple[Path, float]:
    """Return state directory and STOP_TIMEOUT_S.

    From here to _answer the standard library is enough: a bot can be seen and stopped while a package is broken.
    """
    from tradingbot.ops.control import find_target

    home = _home(arguments)
    target = find_target(home, config=arguments.config, state=arguments.state, assignments=arguments.set)
    if target.complaints:
        _complain(f"warning: {'; '.join(target.complaints)}; going on with {target.state_dir}")
    return target.state_dir, target.stop_timeout_s


def _status(arguments: argparse.Namespace) -> int:
    from tradingbot.ops.control import read_status
    from tradingbot.ui.plain import json_text

    status = read_status(_control(arguments)[0])
    _print(json_text(status) if arguments.json else _status_text(status))
    return 0


def _status_text(status: dict[str, Any]) -> str:
    try:
        from rich.console import Console

        from tradingbot.ui.dashboard import render

        console = Console(width=None if sys.stdout.isatty() else 140)
        with console.capture() as captured:
            console.print(render(status, console.width))
        return captured.get().rstrip("\n")
    except Exception:  # noqa: BLE001  (a half upgraded package fails in more ways than by its absence)
        from tradingbot.ui.plain import status_text

        return status_text(status)


def _stop(arguments: argparse.Namespace) -> int:
    from tradingbot.ops.control import stop

    pid = stop(*_control(arguments))
    _answer(arguments, {"stopped": pid}, f"stopped process {pid}")
    return 0


def _kill(arguments: argparse.Namespace) -> int:
    from tradingbot.ops.control import is_running, kill

    folder = _control(arguments)[0]
    kill(folder, arguments.why)
    rest = "" if is_running(folder) else " (no bot is running there now: it holds for the next one)"
    _answer(arguments, {"killed": True, "why": arguments.why}, f"kill switch on in {folder}: {arguments.why}{rest}")
    return 0


def _arm(arguments: argparse.Namespace) -> int:
    from tradingbot.ops.control import arm

    was_on = arm(_control(arguments)[0])
    _answer(arguments, {"killed": False, "was": was_on}, "kill switch off" if was_on else "the kill switch was off")
    return 0


def _answer(arguments: argparse.Namespace, document: dict[str, Any], text: str) -> None:
    from tradingbot.ui.plain import json_text

    _print(json_text(document) if arguments.json else text)


def _prove(arguments: argparse.Namespace) -> int:
    from tradingbot.ops.prove import prove
    from tradingbot.ui.progress import showing_progress

    folder = Path(arguments.folder) if arguments.folder else _settings(arguments, overrides=False).state_dir
    with showing_progress() as progress:
        proof = prove(folder, progress)
    _answer(arguments, proof.to_record(), proof.text())
    return proof.exit_code


def _exchange(arguments: argparse.Namespace) -> int:
    import asyncio
    import logging

    from tradingbot.services.embedded import lock_exchange, make_exchange, serve
    from tradingbot.simulated.faults import Faults, read_faults

    effective = _settings(arguments, overrides=True)
    os.umask(0o077)
    faults = read_faults(Path(arguments.faults)) if arguments.faults else Faults()
    if not 0 <= arguments.port < 65536:
        raise UsageError(f"--port {arguments.port} is no port: 0 to 65535")
    logging.basicConfig(format="%(message)s")
    with lock_exchange(effective.state_dir):
        server, _ = make_exchange(
            effective.settings, effective.state_dir, arguments.api_key, arguments.api_secret, faults
        )
        asyncio.run(serve(server, arguments.port, lambda url: print(f"READY {url}", flush=True)))
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
                if file.complaint and any(other.rows for other in files):  # else the error says it
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

    _print(summary_text(summary, settings))
    if arguments.out:
        print(f"\n{Path(arguments.out) / 'summary.json'}, with decisions.jsonl and trades.jsonl beside it")
    return 0
