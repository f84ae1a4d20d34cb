"""Restart and rollback: planned first, then done step by step, and seen to have worked."""

from __future__ import annotations

import argparse

from tradingbot.commands.shared import answer, complain
from tradingbot.commands.switches import effective_of
from tradingbot.commands.upkeep import ask

__all__ = ["restart"]

NO = 2


def restart(arguments: argparse.Namespace) -> int:
    """Have the running bot begin anew in its own process."""
    from tradingbot.ops.restart import restart as begin_anew
    from tradingbot.ops.restart import running_bot
    from tradingbot.ui.plain import printable
    from tradingbot.ui.rollback_text import restart_plan_text, restarted_text

    effective = effective_of(arguments)
    bot = running_bot(effective.state_dir)
    document = {"state": str(effective.state_dir), "plan": bot.to_record()}
    if not ask(arguments, printable(restart_plan_text(bot.to_record(), str(effective.state_dir)))):
        if arguments.json:
            answer(arguments, document | {"restarted": None}, "")
        return NO
    done = begin_anew(effective.state_dir, bot, arguments.why, effective.settings.STOP_TIMEOUT_S)
    answer(
        arguments, document | {"restarted": done.to_record()}, "" if done.trouble else restarted_text(done.to_record())
    )
    if done.trouble:
        complain(done.trouble)
        return 1
    return 0
