"""Near: how close prices came to their thresholds, by hour and symbol, so that silence is explained too."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tradingbot.errors import UsageError
from tradingbot.io.streams import JOURNAL, Stream
from tradingbot.market.drop_triggers import drop_pct
from tradingbot.ops.record.history import History

__all__ = ["Approach", "nearest_approaches"]

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
LATE_MS = MINUTE_MS  # records of symbols whose clocks differ stand in nearly the order of their times


@dataclass(slots=True)
class Approach:
    """Hold the closest approach of a symbol in one hour.

    `to_trigger_pct` is how far the price must still have moved (negative: it stood above its threshold; 0 or more: at
    or under it), `triggers` how many the hour had, `snapshots` how many records this was taken from.
    """

    hour_ms: int
    symbol: str
    ts_ms: int
    last: float
    threshold: float
    to_trigger_pct: float
    reference: float
    reference_source: str
    drop_pct: float
    armed: bool
    triggers: int = 0
    snapshots: int = 0


def nearest_approaches(history: History, hours: int, symbol: str | None = None) -> list[Approach]:
    """Return the closest approaches of the last `hours` recorded hours (UTC), of one symbol or of all.

    Hours stand in order, in each the nearest first. Raises UsageError where no snapshot is recorded.
    """
    found: dict[tuple[int, str], Approach] = {}
    from_ms: int | None = None
    for each in history.newest(Stream.SNAPSHOTS):
        record = each.record
        if from_ms is None:
            from_ms = (record["ts_ms"] // HOUR_MS - hours + 1) * HOUR_MS
        if record["ts_ms"] < from_ms - LATE_MS:
            break
        if record["ts_ms"] >= from_ms and symbol in {None, record["symbol"]}:
            _take(found, record)
    if from_ms is None:
        raise UsageError(
            f"no snapshot is recorded under {history.state_dir}: the bot has not run there, or "
            "FEATURE_PERSIST_STREAMS is off"
        )
    if not found:
        raise UsageError(f"no snapshot of {symbol} is recorded in the last {hours} hours under {history.state_dir}")
    for key, count in _triggers(history, from_ms).items():
        if key in found:
            found[key].triggers = count
    return sorted(found.values(), key=lambda row: (row.hour_ms, -row.to_trigger_pct, row.symbol))


def _take(found: dict[tuple[int, str], Approach], record: dict[str, Any]) -> None:
    key = (record["ts_ms"] // HOUR_MS * HOUR_MS, record["symbol"])
    near = drop_pct(record["threshold"], record["last"])
    best = found.get(key)
    if best is None or near > best.to_trigger_pct:
        count = 0 if best is None else best.snapshots
        best = found[key] = Approach(
            *key, record["ts_ms"], record["last"], record["threshold"], near, record["reference"],
            record["reference_source"], record["drop_pct"], record["armed"], snapshots=count,
        )  # fmt: skip
    best.snapshots += 1


def _triggers(history: History, from_ms: int) -> Counter[tuple[int, str]]:
    counts: Counter[tuple[int, str]] = Counter()
    for each in history.newest(JOURNAL):
        record = each.record
        if record["ts_ms"] < from_ms - LATE_MS:
            break
        if record.get("type") == "decision":
            counts[record["ts_ms"] // HOUR_MS * HOUR_MS, record["symbol"]] += 1
    return counts
