"""Verifying: does it do what it should?"""

from __future__ import annotations

import argparse

from tradingbot.commands.arguments import Add, minutes, period_s
from tradingbot.commands.shared import answer, complain, settings_of

__all__ = ["add_to", "verify"]


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "go through the checklist on the running bot: GO or NO-GO, with what each check rests on"
    command = add("verify", verify, text, 'tradingbot verify --monitor 1h --why "after the rollback"')
    text = "then watch it for so long (90s, 15m, 1h); the first violation ends that"
    command.add_argument("--monitor", type=period_s, default=0.0, metavar="TIME", help=text)
    text = "run the project's own tests too, without those of features that are off"
    command.add_argument("--tests", action="store_true", help=text)
    text = "how many minutes of the record are proved (10)"
    command.add_argument("--last", type=minutes, default=10.0, metavar="MIN", help=text)
    command.add_argument("--why", default="", metavar="TEXT", help="the reason, kept in the report")


def verify(arguments: argparse.Namespace) -> int:
    """Go through the checklist, and print the report."""
    from tradingbot.ops.verify.checklist import verify as check
    from tradingbot.ui.progress import showing_progress

    effective = settings_of(arguments, overrides=True)
    with showing_progress() as progress:
        report = check(
            effective, last_min=arguments.last, monitor_s=arguments.monitor, tests=arguments.tests, why=arguments.why,
            progress=progress,
        )  # fmt: skip
    answer(arguments, report.to_record(), report.text())
    if report.trouble:
        complain(report.trouble)
    return report.exit_code
