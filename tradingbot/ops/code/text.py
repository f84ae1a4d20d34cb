"""Rollbacks by code in words: what one would do, what was found, which revisions there are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tradingbot.ops.checkup import Finding, Verdict, findings_text

__all__ = ["back_text", "candidates_text", "leftovers_text", "plan_text", "report_text"]

Record = Mapping[str, Any]


def plan_text(plan: Record, state: str, done: Sequence[str] = ()) -> str:
    """Return what a rollback by code would do; `done` are the steps of one that goes on."""
    code = plan["code"]
    lines = [f"{state}: roll back by code to {code['rev']}, found as a {code['found_by']}", f"  {_what(code)}"]
    if done:
        lines.append(f"begun {_utc(plan['time_ms'])} UTC, it goes on behind: {', '.join(done)}")
    lines.append(f"checkout   {code['repo']}, on {code['head_branch'] or 'no branch'} at {code['head'][:12]}")
    if code["files"]:
        lines += [f"  {_FATES[file['what']]:22} {file['path']}" for file in code["files"]]
        lines += [f"  left out of its tests  {each['path']}: {each['because']}" for each in code["left_out"]]
        lines += [f"  WARNING, will break    {each}: roll that back too" for each in code["broken"]]
    else:
        commits = "1 commit" if code["behind"] == 1 else f"{code['behind']} commits"
        lines.append(f"  takes back {commits}: {code['difference'] or 'no file differs'}")
    if code["dirty"]:
        lines.append(f"not committed, and so not part of it: {', '.join(code['dirty'])}")
    lines += [
        f"branch     rollback-{code['name']}: one commit on top of {code['head'][:12]}; yours stays as it is",
        f"worktree   {code['worktree']}, with an environment of its own from {code['lock']} (about 1 GB, minutes)",
        f"tests      {' '.join(code['test_args']) or 'all'}, at most {code['test_limit_s']:g} s, without credentials",
        f"observe    {code['observe_s']:g} s against the embedded exchange on a scratch home; then prove",
    ]
    if code["deploy"]:
        bot = plan["bot"]
        lines.append(
            f"deploy     only if all that is well: the bot (process {bot['pid']}, session {bot['sid']}) is stopped,"
        )
        lines.append(
            "           and the branch's started alike on the same home; if it does not run, the old one again"
        )
    else:
        lines.append("deploy     no: the running bot is left alone (--deploy puts the branch to work)")
    return _printable(lines)


_FATES = {"removed": "not there then, goes", "as then": "as it was then", "same": "is so already"}


def back_text(plan: Record, state: str) -> str:
    """Return what the undoing of a deployment would do."""
    bot = plan["bot"]
    return _printable([
        f"{state}: undo the deployment of rollback {plan['undoes']} (to {plan['code']['rev']})",
        f"the bot (process {bot['pid']}, session {bot['sid']}) is stopped, and the one of before started as it was",
        f"branch and worktree stay: {plan['code']['worktree']}",
    ])  # fmt: skip


def report_text(report: Record) -> str:
    """Return what a rollback by code did and found."""
    plan, code = report["plan"], report["plan"]["code"]
    what = f"undo of {plan['undoes']}" if plan["undoes"] else f"rollback {report['id']} by code to {code['rev']}"
    lines = [
        f"{report['verdict']}  {what}: {report['state']}",
        f"  {_what(code)}",
        f"by {plan['who']}@{plan['host']}: {plan['why']}",
    ]
    if "commit" in report["steps"]:
        lines.append(f"branch {report['steps']['commit']['branch']} at {report['steps']['commit']['commit'][:12]}")
    aside = report["steps"].get("worktree", {}).get("aside")
    if aside:
        lines.append(f"what a run that was killed had left half done is kept in {aside}")
    findings = [Finding(**finding | {"verdict": Verdict(finding["verdict"])}) for finding in report["findings"]]
    lines += findings_text(findings).splitlines()
    for finding in report["findings"]:
        lines += [f"  {line}" for line in finding["evidence"].get("failed", ())]
        lines += [f"  left out: {line}" for line in finding["evidence"].get("left_out", ())]
    if report["exit_code"]:
        lines.append("nothing more was done; the same command goes on at the step that failed")
    lines += _commands(report["commands"])
    lines.append(f"kept in {report['folder']}")
    return _printable(lines)


def leftovers_text(rollback_id: str, rows: Sequence[Record]) -> str:
    """Return that nothing is to be undone of a rollback, and how what it left is removed."""
    lines = [f"rollback {rollback_id} by code has put no bot to work: nothing to undo, the running bot is untouched"]
    return _printable([*lines, *(_commands(rows) or ["it has left no branch and no worktree"])])


def _commands(rows: Sequence[Record]) -> list[str]:
    lines = ["what you may run, none of which was run:"] if rows else []
    for row in rows:
        lines += [f"  {row['command']}", f"      {row['does']}"]
    return lines


def candidates_text(rows: Iterable[Record]) -> str:
    """Return the revisions that one could roll back to."""
    lines = []
    for row in rows:
        lines.append(f"{row['kind']:6}  {row['name']:16}  {_utc(row['time_ms'])} UTC  {row['subject']}")
    return _printable(lines or ["no tags, and no commit has changed the package"])


def _what(code: Record) -> str:
    return f"{code['commit'][:12]} of {_utc(code['committed_ms'])} UTC: {code['subject']}"


def _utc(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms / 1000))


def _printable(lines: Iterable[str]) -> str:
    """Return lines without what would command a terminal."""
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
