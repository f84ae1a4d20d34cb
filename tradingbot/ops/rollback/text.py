"""Rollbacks in words: what one would do, what it did, and which there are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tradingbot.ops.rollback.plan import LIVE, PROFILES

__all__ = [
    "list_text", "notes_ahead", "notes_behind", "nothing_text", "plan_text", "report_text", "step_text", "when_text",
]  # fmt: skip

Record = Mapping[str, Any]


def plan_text(plan: Record, state: str, done: Sequence[str] = ()) -> str:
    """Return what a rollback would do; `done` are the steps of one that goes on."""
    lines = [_headline(plan, state), *notes_ahead(plan, done)]
    for change in plan["changes"]:
        lines += _change(change, plan["kind"])
    return _printable([*lines, *notes_behind(plan)])


def notes_ahead(plan: Record, done: Sequence[str] = ()) -> list[str]:
    """Return what is to be known before a plan's changes: the bot, what was begun, what is broken."""
    lines = [_bot(plan)]
    if done:
        how = "with" if plan["restart"] else "without"
        lines.append(f"begun {_utc(plan['time_ms'])} UTC {how} --restart, it goes on behind: {', '.join(done)}")
    if plan["trouble"]:
        lines.append(f"{plan['trouble']}: it is set aside, and the last good one counts")
    return lines


def notes_behind(plan: Record) -> list[str]:
    """Return what else a plan does and leaves, and what the last hour would have looked like."""
    lines = [_left(key, entry) for key, entry in plan["foreign"].items()]
    lines += _restart(plan)
    lines += _foresight(plan["foresight"])
    for data in plan["left_behind"]:
        lines.append(f"stays where it is: {data['path']} ({data['bytes'] / 1e6:,.1f} MB)")
    lines.append("positions, orders and cash stay as they are; nothing is deleted")
    return lines


def nothing_text(plan: Record, state: str) -> str:
    """Return why there is nothing to do."""
    lines = [_headline(plan, state), _bot(plan), "nothing to do: all of it is so already"]
    lines[2:2] = [_left(key, entry) for key, entry in plan["foreign"].items()]
    late = [change["key"] for change in plan["changes"] if change["running"] not in (None, change["new_value"])]
    if late:
        lines.append(f"the running bot goes by it at its next start: {', '.join(late)} (--restart does it now)")
    return _printable(lines)


def report_text(report: Record) -> str:
    """Return what a rollback did."""
    plan, steps = report["plan"], report["steps"]
    lines = [f"{plan['kind']} {report['id']} ({plan['profile']}): {report['state']}"]
    if plan["undoes"]:
        lines[0] = f"undo {report['id']} of rollback {plan['undoes']} ({plan['profile']}): {report['state']}"
    lines.append(f"by {plan['who']}@{plan['host']}: {plan['why']}")
    lines += [
        f"{_utc(step['ts_ms'])}  {name:10} {step_text(name, step, plan)}".rstrip() for name, step in steps.items()
    ]
    lines += [_left(key, entry) for key, entry in plan["foreign"].items()]
    for check in report["checks"]:
        lines.append(f"{'ok' if check['ok'] else 'FAILED':6} {check['name']}: {check['says']}")
    if report["exit_code"]:
        lines.append("a check failed: look at the bot's log; the same command checks again, --undo takes it back")
    lines.append(f"kept in {report['folder']}")
    return _printable(lines)


def list_text(rows: Iterable[Record]) -> str:
    """Return the profiles, and what was rolled back so far."""
    lines = ["profiles"]
    for profile in PROFILES.values():
        lines.append(f"  {profile.name:12} {' '.join(profile.flags)}")
        lines.append(f"  {'':12} off: {profile.means}")
    lines.append("rollbacks")
    for row in rows:
        what = f"undo of {row['undoes']}" if row["undoes"] else f"{row['profile']} {row['rev']}".strip()
        by = f", by {row['undone_by']}" if row["undone_by"] else ""
        lines.append(f"  {row['id']}  {what}: {row['state']}{by}; {row['who']}@{row['host']}: {row['why']}")
    return _printable(lines if len(lines) > 2 * len(PROFILES) + 2 else [*lines, "  none so far"])


def _headline(plan: Record, state: str) -> str:
    if plan["undoes"]:
        return f"{state}: undo rollback {plan['undoes']} ({plan['profile']})"
    return f"{state}: roll back {plan['profile']}"


def _bot(plan: Record) -> str:
    bot = plan["bot"]
    if bot["is_running"]:
        return f"a bot runs there: process {bot['pid']}, session {bot['sid'] or '(starting)'}, {bot['state']}"
    seen = f", last sign of life {_utc(bot['seen_ms'])} UTC" if bot["seen_ms"] else ""
    if bot["state"] == "none":
        return "no bot has run there"
    if bot["state"] == "dead":
        return f"the bot there is dead: process {bot['pid']} is gone, without a clean stop{seen}"
    return f"the bot there is stopped{seen}"


def _change(change: Record, kind: str) -> list[str]:
    key, before, after = change["key"], change["before"], change["after"]
    value = f"{_word(change['value'])} (from {change['source']})"
    if before == after:
        return [f"{key}: overridden as {_word(before['value'])} already, by {before['who']}: {before['why']}"]
    held = "no override" if before is None else f"override {_word(before['value'])}"
    made = "no override" if after is None else f"override {_word(after['value'])}"
    lines = [f"{key}: {held} becomes {made}; {value} becomes {_word(change['new_value'])}, {when_text(change)}"]
    if change["pinned"]:
        wins = "the override wins" if after is not None else "which counts again"
        lines.append(f"  {change['pinned']} sets it too: {wins}")
    if kind == "rollback":
        lines += [f"  off: {change['off_means']}", f"  works on: {change['keeps']}"]
    return lines


def when_text(change: Record) -> str:
    """Return when a running bot, or the next one, goes by a change."""
    return "live, within 2 s" if change["takes_effect"] == LIVE else str(change["takes_effect"])


def _restart(plan: Record) -> list[str]:
    lines = []
    if plan["needs_restart"]:
        lines.append("the bot is restarted, in its own process")
    elif plan["restart"]:
        needed = "nothing of it needs one" if plan["bot"]["is_running"] else "no bot runs, and none is started"
        lines.append(f"no restart: {needed}")
    if plan["from_empty"]:
        lines.append("session, window and anchor of every symbol begin anew then")
    return lines


def _foresight(found: Record) -> list[str]:
    lines = []
    hour = found.get("decisions")
    if hour is not None and "trouble" in hour:
        lines.append(f"the last hour cannot be compared: {hour['trouble']}")
    elif hour is not None and "inputs" not in hour:
        lines.append("no decision changes, but for windows and triggers that a cold start begins anew")
    elif hour is not None:
        cut = ", cut off by the time limit" if hour["cut_off"] else ""
        lines.append(f"the last hour ({hour['inputs']:,} inputs{cut}), without anchors and as it was:")
        for name in ("triggers", "entries", "trades"):
            lines.append(f"  {name:8} {hour['ours'][name]:,} instead of {hour['theirs'][name]:,}")
        lines.append(f"  profit   {hour['ours']['pnl_quote']:+.2f} instead of {hour['theirs']['pnl_quote']:+.2f} quote")
    withheld = found.get("withheld")
    if withheld:
        counts = ", ".join(f"{symbol} {count:,}" for symbol, count in withheld.items())
        lines.append(f"polls that backoff has withheld since the bot began, which would be asked: {counts}")
    elif withheld is not None:
        lines.append("backoff has withheld no poll since the bot began")
    return lines


def step_text(name: str, step: Record, plan: Record) -> str:
    """Return what a step has done."""
    if "says" in step:
        return str(step["says"])
    match name:
        case "begin":
            return f"planned {_utc(plan['time_ms'])}"
        case "backup":
            return f"copied {', '.join(step['files']) or 'nothing: there was nothing'}"
        case "overrides":
            return f"changed {', '.join(step['changed']) or 'nothing'}"
        case "adopted":
            return "a running bot has read it" if step["adopted"] else "no bot runs"
        case "from-empty":
            return f"anchors begin anew: {', '.join(step['symbols'])}"
        case "restart":
            return f"process {step['pid']}, session {step['new_sid']}, {step['start']} start"
    return ""


def _left(key: str, entry: Record | None) -> str:
    if entry is None:
        return f"{key}: the override is gone, somebody else has cleared it since: it is left so"
    when = "" if entry["since_ms"] is None else f", {_utc(entry['since_ms'])} UTC"
    value = _word(entry["value"])
    return f"{key}: changed since to {value} by {entry['who'] or '?'}{when} ({entry['why']}): it is left so"


def _word(value: object) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _utc(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms / 1000))


def _printable(lines: Iterable[str]) -> str:
    """Return lines without what would command a terminal."""
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
