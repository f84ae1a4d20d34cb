"""Anchors: what a state directory knows of each symbol's anchor, where it comes from, and asking for a new one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from tradingbot.config import Settings
from tradingbot.errors import UsageError
from tradingbot.io.audit import append_audit
from tradingbot.io.requests import ResetAnchors, put_request, signature
from tradingbot.io.saved import peek_anchors
from tradingbot.io.state_files import lock_owner
from tradingbot.io.streams import Stream
from tradingbot.market.anchor_manager import SavedAnchor, discard_reason
from tradingbot.market.drop_triggers import ReferenceSource
from tradingbot.ops.control import HEARD_S
from tradingbot.ops.record.history import History

__all__ = ["AnchorRow", "ResetPlan", "known_anchors", "plan_reset", "request_reset", "was_taken"]

DAY_MS = 86_400_000
CLAMPS = ("start_clamp", "peak_clamp")


@dataclass(frozen=True, slots=True)
class AnchorRow:
    """Hold one anchor with where it comes from.

    `price` in quote; times in ms; `known_ms` is the time that this was true at, `source` what told it: the saved
    anchors, the stream, or the running bot. `unused` says why a start would not load it, None where it would.
    """

    symbol: str
    price: float
    set_ms: int
    set_cause: str
    price_ms: int | None
    clamp: str | None
    clamp_ms: int | None
    known_ms: int
    source: str
    age_ms: int = 0
    unused: str | None = None


@dataclass(frozen=True, slots=True)
class ResetPlan:
    """Hold what a reset would do: the anchors that go, by symbol (None where none is known), and who would do it."""

    anchors: dict[str, AnchorRow | None]
    running: bool


def known_anchors(history: History, settings: Settings) -> list[AnchorRow]:
    """Return the newest that is known of each symbol's anchor, by symbol."""
    status = _status(history.state_dir)
    found: dict[str, AnchorRow] = {}
    for row in (*_saved(history.state_dir), *_recorded(history), *_shown(history.state_dir, status)):
        before = found.get(row.symbol)
        if before is None or row.known_ms >= before.known_ms:
            found[row.symbol] = _with_provenance(row, before)
    now_ms = _now_ms(history.state_dir, status, max((row.known_ms for row in found.values()), default=0))
    return [_judged(row, settings, now_ms) for _, row in sorted(found.items())]


def _with_provenance(row: AnchorRow, before: AnchorRow | None) -> AnchorRow:
    """Keep what the richer record tells where a newer one shows the same anchor, or has no word of it."""
    if before is not None and row.source == "bot" and row.price == before.price:
        return replace(before, known_ms=row.known_ms)
    return row


def _judged(row: AnchorRow, settings: Settings, now_ms: int) -> AnchorRow:
    if not settings.FEATURE_ANCHOR_ENABLED:
        unused: str | None = "FEATURE_ANCHOR_ENABLED is off"
    elif settings.DROP_TRIGGER_MODE != 4:
        unused = f"DROP_TRIGGER_MODE is {settings.DROP_TRIGGER_MODE}"
    else:
        unused = discard_reason(SavedAnchor(row.price, row.set_ms), now_ms, settings.ANCHOR_MAX_AGE_HOURS)
    return replace(row, age_ms=now_ms - row.set_ms, unused=unused)


def _now_ms(state_dir: Path, status: Mapping[str, Any], newest_ms: int) -> int:
    """Return the time that a bot goes by: the exchange's, where it runs or plays on from the last session."""
    if lock_owner(state_dir) is not None:
        return max(int(status.get("time_ms", 0)), newest_ms)  # the streams are ahead of what it shows once a second
    if status.get("bot", {}).get("exchange") == "embedded":
        return int(status["time_ms"])
    return int(time.time() * 1000)


def _saved(state_dir: Path) -> Iterable[AnchorRow]:
    """Return the anchors that are saved for the next start."""
    anchors, time_ms = peek_anchors(state_dir)
    return [_row(symbol, facts, time_ms, "saved") for symbol, facts in anchors.items()]


def _recorded(history: History) -> Iterable[AnchorRow]:
    """Return the newest change of each anchor in the stream's last day."""
    found: dict[str, AnchorRow] = {}
    newest_ms: int | None = None
    for each in history.newest(Stream.ANCHORS):
        record = each.record
        if record.get("type") != "anchor":
            continue
        newest_ms = record["ts_ms"] if newest_ms is None else newest_ms
        if record["ts_ms"] < newest_ms - DAY_MS:
            break
        if record["symbol"] not in found:
            found[record["symbol"]] = _row(record["symbol"], record["anchor"], record["ts_ms"], "stream")
    return found.values()


def _row(symbol: str, facts: Mapping[str, Any], known_ms: int, source: str) -> AnchorRow:
    return AnchorRow(
        symbol, facts["price"], facts["set_ms"], facts["set_cause"], facts["price_ms"], facts["clamp"],
        facts["clamp_ms"], known_ms, source,
    )  # fmt: skip


def _shown(state_dir: Path, status: Mapping[str, Any]) -> Iterable[AnchorRow]:
    """Return what a running bot shows of its anchors."""
    if lock_owner(state_dir) is None:
        return
    now_ms = status.get("time_ms", 0)
    for row in status.get("symbols", ()):
        if row["reference_source"] != ReferenceSource.ANCHOR or row["anchor_age_s"] is None:
            continue
        set_ms, cause = now_ms - round(row["anchor_age_s"] * 1000), row["anchor_cause"]
        clamp = cause if cause in CLAMPS else None
        cause = "unknown" if clamp else cause
        yield AnchorRow(row["symbol"], row["reference"], set_ms, cause, None, clamp, None, now_ms, "bot")


def _status(state_dir: Path) -> dict[str, Any]:
    try:
        status = orjson.loads((state_dir / "status.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) and status.get("v") == 1 else {}


def plan_reset(history: History, settings: Settings, symbols: Iterable[str], every: bool) -> ResetPlan:
    """Return what a reset of `symbols`, or of `every` one, would do; raise UsageError for one that is not known."""
    state_dir = history.state_dir
    rows = {row.symbol: row for row in known_anchors(history, settings)}
    running = lock_owner(state_dir) is not None
    watched = [row["symbol"] for row in _status(state_dir).get("symbols", ())]
    known = watched if running else sorted({*watched, *rows})
    if not known:
        raise UsageError(f"no symbol is known under {state_dir}: no bot has run there")
    wanted = known if every else list(dict.fromkeys(symbols))
    unknown = [symbol for symbol in wanted if symbol not in known]
    if unknown:
        raise UsageError(f"{', '.join(unknown)} is not watched; known: {', '.join(known)}")
    return ResetPlan({symbol: rows.get(symbol) for symbol in wanted}, running)


def request_reset(state_dir: Path, plan: ResetPlan, why: str, after: str = "") -> Path:
    """Write the audit, then ask for what is planned; return the request, which goes when a bot has taken it.

    The session `after` leaves it to the one that follows.
    """
    symbols = list(plan.anchors)
    append_audit(state_dir, "anchors reset", why, symbols=symbols)
    return put_request(state_dir, ResetAnchors(**signature(why), symbols=tuple(symbols), after=after))


def was_taken(request: Path) -> bool:
    """Wait until the running bot has taken a request; return whether it has."""
    end = time.monotonic() + HEARD_S
    while request.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
