"""Doctor and bundle: what is wrong and how to mend it, and all of it in one archive; the standard library is enough."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from tradingbot.commands.arguments import Add, add_asking
from tradingbot.commands.shared import answer, ask, complain, home_of

__all__ = ["add_to", "bundle", "doctor"]

NO = 2


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "look for everything that is known to go wrong, in seconds, and say how to mend it"
    command = add(
        "doctor", doctor, text, 'tradingbot doctor; tradingbot doctor --fix environment --why "will not start"'
    )
    names = "environment, overrides, lock, anchors, disk"
    command.add_argument("--fix", metavar="NAME", help=f"mend something, its plan first: {names}")
    add_asking(command)
    text = "put what a bug report needs into one archive, without secrets"
    command = add("bundle", bundle, text, "tradingbot bundle --out trouble.tar.gz")
    command.add_argument(
        "--out", metavar="FILE", help="the archive (tradingbot-bundle-TIME.tar.gz in the working directory)"
    )


def doctor(arguments: argparse.Namespace) -> int:
    """Look for what is wrong, or mend something."""
    if arguments.fix is not None:
        return _mend(arguments)
    from tradingbot.errors import UsageError
    from tradingbot.ops.doctor.diagnose import diagnose

    if arguments.yes or arguments.why is not None:
        raise UsageError("doctor alone changes nothing; to mend something: doctor --fix NAME --why TEXT")
    home = home_of(arguments)
    with _saying() as progress:
        report = diagnose(
            home, config=arguments.config, state=arguments.state, assignments=arguments.set, progress=progress
        )  # fmt: skip
    answer(arguments, report.to_record(), report.text())
    return report.exit_code


@contextlib.contextmanager
def _saying() -> Any:
    """Show on a terminal's stderr what is being looked at; wipe it out at the end."""
    if not sys.stderr.isatty():
        yield None
        return

    def say(name: str) -> None:
        print(f"\r\033[K{name} ...", end="", file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _mend(arguments: argparse.Namespace) -> int:
    import os

    from tradingbot.ops.doctor.diagnose import apply_fix, plan_fix
    from tradingbot.ops.doctor.patient import meet

    patient = meet(home_of(arguments), arguments.config, arguments.state, arguments.set, os.environ)
    fix = plan_fix(arguments.fix, patient)
    document: dict[str, Any] = {"plan": fix.to_record()}
    if not fix.steps:
        answer(arguments, document | {"done": False}, fix.text())
        return NO if fix.advice else 0
    if not ask(arguments, fix.text()):
        if arguments.json:
            answer(arguments, document | {"done": False}, "")
        return NO
    result = apply_fix(fix, patient, arguments.why, lambda step: complain(f"{step} ..."))
    text = "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in result.did)
    answer(arguments, document | {"done": result.ok, "result": result.to_record()}, text)
    return result.exit_code


def bundle(arguments: argparse.Namespace) -> int:
    """Write the archive; say where it is and what is inside."""
    from tradingbot.ops.doctor.bundle import make_bundle

    home = home_of(arguments)
    with _saying() as progress:
        made = make_bundle(
            home, Path(arguments.out) if arguments.out else None, config=arguments.config, state=arguments.state,
            assignments=arguments.set, progress=progress,
        )  # fmt: skip
    answer(arguments, made.to_record(), made.text())
    return 0
