"""What runs until it is stopped: the bot, and the embedded exchange alone."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tradingbot.commands.arguments import Add
from tradingbot.commands.shared import print_json, settings_of
from tradingbot.errors import UsageError

__all__ = ["add_to", "exchange", "run"]


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    command = add(
        "exchange",
        exchange,
        "run the embedded exchange alone, for any ccxt program",
        "tradingbot exchange --port 18080 --set EMBEDDED_SPEED=60",
    )
    command.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (0: a free one)")
    command.add_argument("--api-key", default="key", metavar="K", help="the key it accepts (key)")
    command.add_argument("--faults", metavar="FILE", help="a script of faults to play (docs/EXCHANGE.md)")
    text = "let that key withdraw too, as no bot's key should"
    command.add_argument("--can-withdraw", action="store_true", help=text)
    command.add_argument("--api-secret", default="secret", metavar="S", help="the secret it accepts (secret)")


def run(arguments: argparse.Namespace) -> int:
    """Run the bot; with --json its last status is the document."""
    if arguments.virtual and arguments.duration is None:
        raise UsageError("--virtual needs --duration: in virtual time nobody could stop it at the right moment")
    effective = settings_of(arguments, overrides=True)
    os.umask(0o077)  # what it writes is the user's own

    from tradingbot.services.logs import logging_to
    from tradingbot.ui.dashboard import showing_dashboard

    folder = effective.home.path / effective.settings.LOG_DIR
    last: dict[str, Any] = {}
    with showing_dashboard(False if arguments.json else arguments.dashboard) as table:
        show = last.update if arguments.json else table
        stderr = table is None or not sys.stdout.isatty()
        if arguments.virtual:
            from tradingbot.services.virtual import VirtualLoop, run_virtual

            loop = VirtualLoop()
            with logging_to(folder, effective.settings, stderr, loop.wall_s):
                restarts = run_virtual(effective, arguments.duration, loop, show).is_to_restart
        else:
            from tradingbot.services.session import run_session

            with logging_to(folder, effective.settings, stderr):
                restarts = run_session(effective, arguments.duration, show)
    if restarts:
        with logging_to(folder, effective.settings, stderr):
            return _begin_again()
    if arguments.json:
        print_json(last)
    return 0


def _begin_again() -> int:
    """Put this program, with its own arguments and environment, in this process's place; return where that fails."""
    import logging

    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ)  # noqa: S606  (no shell is wanted)
    except (OSError, ValueError, TypeError) as error:  # None where the interpreter cannot tell where it lies
        logging.getLogger(__name__).error("restart failed, the bot has ended: %s", error)  # noqa: TRY400  (one line)
    return 1


def exchange(arguments: argparse.Namespace) -> int:
    """Run the embedded exchange alone."""
    import asyncio
    import logging

    from tradingbot.services.embedded import lock_exchange, make_exchange, serve
    from tradingbot.simulated.faults import Faults, read_faults

    effective = settings_of(arguments, overrides=True)
    os.umask(0o077)
    faults = read_faults(Path(arguments.faults)) if arguments.faults else Faults()
    if not 0 <= arguments.port < 65536:
        raise UsageError(f"--port {arguments.port} is no port: 0 to 65535")
    logging.basicConfig(format="%(message)s")
    with lock_exchange(effective.state_dir):
        server, _ = make_exchange(
            effective.settings, effective.state_dir, arguments.api_key, arguments.api_secret, faults
        )
        server.core.can_withdraw = arguments.can_withdraw

        def say(url: str) -> None:
            print_json({"ready": url}) if arguments.json else print(f"READY {url}", flush=True)

        asyncio.run(serve(server, arguments.port, say))
    return 0
