"""Rollback by code: the plan shown, the branch built and tried, the report; the command is `rollback code`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.commands.arguments import period_s
from tradingbot.commands.shared import answer, ask, complain
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    from tradingbot.io.overrides import Effective
    from tradingbot.ops.rollback.plan import Plan
    from tradingbot.ops.rollback.store import Stored

__all__ = ["add_code_arguments", "is_code", "roll_back_code", "undo_code"]

NO = 2


def add_code_arguments(command: argparse.ArgumentParser) -> None:
    """Add what `rollback code` takes beside what every rollback does."""
    code = command.add_argument_group("rollback code")
    code.add_argument(
        "--to", metavar="REV", help="a tag, a branch, a commit, or a date: the last commit before it (UTC)"
    )
    code.add_argument("--files", nargs="+", default=[], metavar="PATH", help="only these files or folders go back")
    code.add_argument("--deploy", action="store_true", help="put it to work in the running bot's place, if all is well")
    code.add_argument("--name", default="", metavar="NAME", help="name the branch rollback-NAME (by default from REV)")
    code.add_argument("--into", type=Path, metavar="DIR", help="make the worktree under DIR (HOME/.rollbacks)")
    code.add_argument("--repo", type=Path, metavar="DIR", help="the git checkout (the one this program lies in)")
    code.add_argument(
        "--test-args", default="", metavar="ARGS", help="arguments of pytest, as one word; all tests else"
    )
    text = "end the tests after so long, as a failure (1h)"
    code.add_argument("--test-limit", type=period_s, default=3600.0, metavar="TIME", help=text)
    text = "how long it watches the embedded exchange (20s)"
    code.add_argument("--observe", type=period_s, default=20.0, metavar="TIME", help=text)


def roll_back_code(arguments: argparse.Namespace, effective: Effective) -> int:
    """Roll back by code, or show to what one could."""
    from tradingbot.ops.code.git import candidates
    from tradingbot.ops.code.plan import checkout_of, plan_code
    from tradingbot.ops.code.text import candidates_text

    if arguments.list:
        rows = [asdict(row) for row in candidates(checkout_of(arguments.repo))]
        answer(arguments, {"candidates": rows}, candidates_text(rows))
        return 0
    if arguments.to is None:
        raise UsageError("rollback code takes --to REV; tradingbot rollback code --list shows some")
    if arguments.restart or arguments.from_empty:
        raise UsageError("--restart and --from-empty go with flags; rollback code has --deploy")
    try:
        test_args = shlex.split(arguments.test_args)
    except ValueError as error:
        raise UsageError(f"--test-args cannot be split into words: {error}") from None
    found = plan_code(
        effective, arguments.to, arguments.why or "", arguments.files, arguments.deploy, arguments.name,
        arguments.into, arguments.repo, test_args, arguments.test_limit, arguments.observe,
    )  # fmt: skip
    return _carry_out(arguments, effective, found)


def is_code(effective: Effective, rollback_id: str) -> bool:
    """Say whether an id is that of a rollback by code."""
    from tradingbot.ops.code.code_rollback import find_code

    return find_code(effective.state_dir, rollback_id) is not None


def undo_code(arguments: argparse.Namespace, effective: Effective) -> int:
    """Put the bot of before a deployment to work again; where there was none, say how what is left is removed."""
    from tradingbot.ops.code.code_rollback import leftovers, plan_back
    from tradingbot.ops.code.text import leftovers_text

    left = leftovers(effective, arguments.undo)
    if left is not None:
        rows = [{"command": command, "does": does} for command, does in left]
        document = {"state": str(effective.state_dir), "plan": None, "report": None, "commands": rows}
        answer(arguments, document, leftovers_text(arguments.undo, rows))
        return 0
    return _carry_out(arguments, effective, plan_back(effective, arguments.undo, arguments.why or ""))


def _carry_out(arguments: argparse.Namespace, effective: Effective, found: Stored | Plan) -> int:
    from tradingbot.ops.code.code_rollback import execute_code
    from tradingbot.ops.code.text import back_text, plan_text
    from tradingbot.ops.rollback.plan import Plan

    state = str(effective.state_dir)
    plan, done = (found, []) if isinstance(found, Plan) else (found.plan, list(found.done))
    record = plan.to_record()
    document: dict[str, Any] = {"state": state, "plan": record, "going_on": bool(done), "done": done}
    text = back_text(record, state) if plan.undoes else plan_text(record, state, done)
    files = record["code"]["files"]
    if files and all(file["what"] == "same" for file in files):
        answer(arguments, document | {"report": None}, f"{text}\nnothing to do: all of it is so already")
        return 0
    if arguments.dry_run:
        answer(arguments, document | {"report": None}, text)
        return 0
    if not ask(arguments, text):
        if arguments.json:
            answer(arguments, document | {"report": None}, "")
        return NO
    report = execute_code(effective, plan, _tell)
    answer(arguments, document | {"report": report.to_record()}, report.text())
    if report.exit_code:
        complain(f"NO: {next((each.says for each in report.findings if not each.ok), report.state)}")
    return report.exit_code


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}", file=sys.stderr, flush=True)
