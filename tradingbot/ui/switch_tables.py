"""Flags and changes of settings, as text for people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tradingbot.ui.plain import printable

__all__ = ["flags_table", "plan_text", "switched_text"]

Record = Mapping[str, Any]


def flags_table(rows: Sequence[Record]) -> str:
    """Return the flags, as their JSON objects: state, where it comes from, and what off means."""
    lines = []
    for row in rows:
        lines.append(
            f"{row['name']:24} {_on(row['value']):3}  {row['takes_effect']:17}  from {row['source']}{_by(row)}"
        )
        if row["running"] is not None and row["running"] != row["value"]:
            lines.append(f"{'':24}      the running bot still goes by {_on(row['running'])}")
        lines.append(f"{'':24}      off: {row['off_means']}")
        lines.append(f"{'':24}      off keeps: {row['keeps']}")
    return "\n".join(lines)


def plan_text(rows: Sequence[Record], state: str, running: bool, trouble: str) -> str:
    """Return what a change of overrides would do."""
    lines = [f"in {state}, {'where a bot runs' if running else 'where no bot runs'}:"]
    if trouble:
        lines.append(f"  {trouble}: it is set aside, and the last good one counts")
    lines += [f"  {_change(row)}" for row in rows]
    return "\n".join(lines)


def switched_text(rows: Sequence[Record], changed: Sequence[str], adopted: bool | None) -> str:
    """Return what a change of overrides did."""
    if not changed:
        return "nothing had to be changed"
    done = [
        f"{row['key']} = {_value(row['new_value'])} (from {row['source']})" for row in rows if row["key"] in changed
    ]
    late = [row["key"] for row in rows if row["key"] in changed and row["takes_effect"] != "live"]
    if adopted is None:
        done.append("no bot runs: it counts from the next start on")
    elif late:
        done.append(f"at the next start: {', '.join(late)}")
    if adopted and len(late) < len(changed):
        done.append("the running bot goes by it")
    elif adopted is False:
        done.append("the running bot has NOT taken it up: look at its log")
    return "\n".join(done)


def _change(row: Record) -> str:
    before, after = _value(row["value"]), _value(row["new_value"])
    when = row["takes_effect"]
    if row["new_override"] is None:
        if row["override"] is None:
            return f"{row['key']} has no override: nothing changes"
        gone = f"{row['key']}: the override {_value(row['override'])} goes"
        return f"{gone}, {before} becomes {after} ({row['source']}; {when})"
    held = "" if row["new_override"] == row["new_value"] else f", held back by {row['source']}"
    return f"{row['key']}: {before} becomes {after} ({when}{held})"


def _on(value: object) -> str:
    return "on" if value else "off"


def _by(row: Record) -> str:
    if row["since_ms"] is None:
        return ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row["since_ms"] / 1000))
    return f" since {since} UTC, by {printable(row['who'])}: {printable(row['why'])}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return printable(",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
