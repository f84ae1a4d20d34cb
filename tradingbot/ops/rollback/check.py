"""What a rollback is held to once it is done: what the running bot tells of itself, and its log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradingbot.config import FLAGS
from tradingbot.io.overrides import Effective
from tradingbot.io.streams import Stream
from tradingbot.market.drop_triggers import ReferenceSource
from tradingbot.ops.rollback.plan import ANCHOR, PERSIST, RETRY, WARM, Plan
from tradingbot.ops.rollback.restart import find_bot, status_of

__all__ = ["Check", "check_bot"]

PATIENCE_S = 20.0
WORDS = {RETRY: "retry_state", PERSIST: "jsonl", WARM: "WARMSTART -"}
"""What a line of the log begins with that only a feature writes."""


@dataclass(frozen=True, slots=True)
class Check:
    """Hold what was looked at, whether it is as it should be, and what was found."""

    name: str
    ok: bool
    says: str


def check_bot(effective: Effective, plan: Plan, since_ms: int) -> list[Check]:
    """Return what a running bot shows of a plan that it has adopted at `since_ms` (wall clock)."""
    state_dir = effective.state_dir
    bot = find_bot(state_dir)
    if not bot.is_running:
        says = {"dead": f"dead: process {bot.pid} is gone"}.get(bot.state, bot.state)
        ok = not (plan.bot.is_running and bot.state == "dead")
        return [Check("bot", ok, f"none runs ({says}); the next start goes by it")]
    checks = _watched(state_dir, plan)
    if plan.kind == "rollback":
        status = status_of(state_dir)
        since_ms = max(since_ms, int(status.get("bot", {}).get("started_ms", 0)))
        is_cold = {c.key for c in plan.changes if status.get("flags", {}).get(c.key) is False}
        words = {word for key, word in WORDS.items() if key in is_cold}
        if words:
            checks.append(_silent(effective.home.path / effective.settings.LOG_DIR, words, since_ms))
    return checks


def _watched(state_dir: Path, plan: Plan) -> list[Check]:
    """Wait until the bot shows all that it should; return what it shows then."""
    end_s = time.monotonic() + PATIENCE_S
    first: dict[str, Any] = {}
    stands = plan.kind == "rollback" and any(change.key == PERSIST for change in plan.changes)
    while True:
        status = status_of(state_dir)
        if not first or _moved(first, stands) != _moved(status, stands):
            first = status
        checks = [*_flags(status, plan), *_facts(first, status, plan)]
        if all(check.ok for check in checks) or time.monotonic() > end_s:
            return checks
        time.sleep(0.1)


def _flags(status: dict[str, Any], plan: Plan) -> Iterable[Check]:
    flags = status.get("flags", {})
    for change in plan.changes:
        found = flags.get(change.key)
        word = "on" if found else "off"
        if change.after is None or found == change.new_value:  # what stands below the overrides is the bot's own
            yield Check(change.key, True, f"{word} in the running bot")
        elif FLAGS[change.key].restart and not plan.restart:
            yield Check(change.key, True, f"still {word} in the running bot, until its next start")
        else:
            yield Check(change.key, False, f"still {word} in the running bot")


def _facts(first: dict[str, Any], status: dict[str, Any], plan: Plan) -> Iterable[Check]:
    """Hold two looks against each other: between them ticks came in, and what is off has not moved."""
    bot, data = status.get("bot", {}), status.get("data", {})
    ticks = data.get("ticks", 0) - first.get("data", {}).get("ticks", 0)
    if data.get("held_back_until_ms") is not None:
        yield Check("ticks", True, "held back by the exchange: none are asked for")
    else:
        yield Check("ticks", ticks > 0, f"{ticks} came in while it was watched, process {bot.get('pid')} is alive")
    if plan.kind != "rollback":
        return
    off = {change.key for change in plan.changes}
    if ANCHOR in off:
        anchored = [r["symbol"] for r in status.get("symbols", ()) if r["reference_source"] == ReferenceSource.ANCHOR]
        says = f"measured from the anchor: {', '.join(anchored)}" if anchored else "measured from the window peak"
        yield Check("reference", not anchored, says)
    if PERSIST in off:
        still = ticks > 0 and _moved(first, True) == _moved(status, True)
        yield Check("streams", still, "they stand still" if still else "they are still written to")


def _moved(status: dict[str, Any], stands: bool) -> tuple[Any, ...]:
    """Return what changes where another session runs or, if they are to stand still, one of the streams is written."""
    streams = status.get("streams", {})
    four = [stream for stream in Stream if stands and stream is not Stream.JOURNAL]
    sizes = [streams.get(stream.value, {}).get("bytes") for stream in four]
    return (status.get("bot", {}).get("sid"), *sizes)


def _silent(folder: Path, words: set[str], since_ms: int) -> Check:
    """See that no line of the log since a time begins with any of the words."""
    since = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(since_ms // 1000))}.{since_ms % 1000:03d}Z"
    looked, found = 0, []
    for path in sorted(folder.glob("trading_bot_*.log*")):
        try:
            if path.stat().st_mtime * 1000 < since_ms:
                continue
            with path.open(errors="replace") as file:
                for line in file:
                    when, _, rest = line.partition(" ")
                    if when >= since:
                        looked += 1
                        found += [word for word in words if rest.partition(" ")[2].startswith(word)]
        except OSError:  # rotated away while it was looked at
            continue
    if found:
        return Check("log", False, f"{len(found)} lines since then begin with {', '.join(sorted(set(found)))}")
    return Check("log", True, f"{looked} lines since then, none begins with {', '.join(sorted(words))}")
