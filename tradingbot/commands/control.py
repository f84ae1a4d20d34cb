"""See, stop, kill and arm: with the standard library alone, so that it works while a package is broken."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tradingbot.commands.arguments import Add
from tradingbot.commands.shared import answer, complain, home_of, print_text

__all__ = ["add_to", "arm", "kill", "status", "stop", "target"]


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    add("status", status, "show what the running bot is and sees", "tradingbot status --json | jq .data")
    text = "switch the kill switch on: no new position"
    commands = (
        add("stop", stop, "stop the running bot cleanly", "tradingbot stop"),
        add("kill", kill, text, 'tradingbot kill --why "exchange odd"'),
        add("arm", arm, "switch the kill switch off", "tradingbot arm"),
    )
    for command in commands:
        command.add_argument("--why", default="operator", metavar="TEXT", help="the reason, for whoever looks later")


def target(arguments: argparse.Namespace) -> tuple[Path, float]:
    """Return state directory and STOP_TIMEOUT_S."""
    from tradingbot.ops.control import find_target

    home = home_of(arguments)
    found = find_target(home, config=arguments.config, state=arguments.state, assignments=arguments.set)
    if found.complaints:
        complain(f"warning: {'; '.join(found.complaints)}; going on with {found.state_dir}")
    return found.state_dir, found.stop_timeout_s


def status(arguments: argparse.Namespace) -> int:
    """Show what the running bot is and sees."""
    from tradingbot.ops.control import read_status
    from tradingbot.ui.plain import json_text

    document = read_status(target(arguments)[0])
    print_text(json_text(document) if arguments.json else _status_text(document))
    return 0


def _status_text(document: dict[str, Any]) -> str:
    try:
        from rich.console import Console

        from tradingbot.ui.dashboard import render

        console = Console(width=None if sys.stdout.isatty() else 140)
        with console.capture() as captured:
            console.print(render(document, console.width))
        return captured.get().rstrip("\n")
    except Exception:  # noqa: BLE001  (a half upgraded package fails in more ways than by its absence)
        from tradingbot.ui.plain import status_text

        return status_text(document)


def stop(arguments: argparse.Namespace) -> int:
    """Stop the running bot cleanly."""
    from tradingbot.ops import control

    folder, timeout_s = target(arguments)
    pid = control.stop(folder, timeout_s)
    _audit(folder, "stop", arguments.why)
    answer(arguments, {"stopped": pid}, f"stopped process {pid}")
    return 0


def kill(arguments: argparse.Namespace) -> int:
    """Switch the kill switch on."""
    from tradingbot.ops import control

    folder = target(arguments)[0]
    control.kill(folder, arguments.why)
    _audit(folder, "kill", arguments.why)
    rest = "" if control.is_running(folder) else " (no bot is running there now: it holds for the next one)"
    answer(arguments, {"killed": True, "why": arguments.why}, f"kill switch on in {folder}: {arguments.why}{rest}")
    return 0


def arm(arguments: argparse.Namespace) -> int:
    """Switch the kill switch off."""
    from tradingbot.ops import control

    folder = target(arguments)[0]
    was_on = control.arm(folder)
    if was_on:
        _audit(folder, "arm", arguments.why)
    answer(arguments, {"killed": False, "was": was_on}, "kill switch off" if was_on else "the kill switch was off")
    return 0


def _audit(folder: Path, what: str, why: str) -> None:
    """Keep what is done already in the audit; a disk that cannot take it, or whatever is broken, undoes nothing."""
    try:
        from tradingbot.ops.doctor.fixes import audit

        audit(folder, what, why)
    except Exception as error:  # noqa: BLE001  (the switch is what counts)
        complain(f"warning: it is done, and not kept in {folder / 'audit.jsonl'}: {error}")
