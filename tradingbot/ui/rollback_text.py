"""Restarts and rollbacks as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["restart_plan_text", "restarted_text"]

Record = Mapping[str, Any]


def restart_plan_text(bot: Record, state: str) -> str:
    """Return what a restart would do."""
    return (
        f"{state}: the bot (process {bot['pid']}, session {bot['sid']}, {bot['state']}) stops cleanly and begins anew "
        "in the same process, with its own arguments and environment"
    )


def restarted_text(done: Record) -> str:
    """Return what a restart did."""
    return (
        f"process {done['pid']} runs again after {done['took_s']:g} s: session {done['new_sid']}, {done['start']} start"
    )
