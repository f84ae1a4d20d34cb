"""status.json: what the bot is and sees now, for every other process."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tradingbot import __version__
from tradingbot.config import FLAGS, fingerprint
from tradingbot.engine.state import NO_TICK_MS
from tradingbot.io.overrides import Effective
from tradingbot.io.streams import JOURNAL
from tradingbot.market.drop_triggers import drop_pct, threshold
from tradingbot.market.ticker import spread_bps

if TYPE_CHECKING:
    from tradingbot.services.session import Session

LATEST_MS = 4_102_444_800_000  # 2100: what says more is damaged

__all__ = ["LastStatus", "last_status", "make_status"]


@dataclass(frozen=True, slots=True)
class LastStatus:
    """Hold what the last session on a state directory left: its exchange, its time, and until when it was held back."""

    exchange: str = ""
    time_ms: int = 0
    held_back_until_ms: int = 0


def last_status(state_dir: Path) -> LastStatus:
    """Return what status.json holds of the session before; nothing where it cannot be read."""
    try:
        status = orjson.loads((state_dir / "status.json").read_bytes())
        until = status["data"]["held_back_until_ms"]
        last = LastStatus(str(status["bot"]["exchange"]), int(status["time_ms"]), int(until or 0))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return LastStatus()
    return last if 0 <= last.time_ms < LATEST_MS > last.held_back_until_ms >= 0 else LastStatus()


def make_status(session: Session, effective: Effective, now_ms: int) -> dict[str, Any]:
    """Return the status of a session at `now_ms`, the session's own time; ages are real seconds."""
    settings, data, engine = session.settings, session.market_data, session.engine
    loop_s = asyncio.get_running_loop().time()
    watched = [] if data is None else [*data.symbols, *data.dropped]
    symbols = [_symbol(session, symbol, now_ms, loop_s) for symbol in watched]
    ages = [row["age_s"] for row in symbols if row["age_s"] is not None]
    fresh = sum(age <= settings.WATCHDOG_S for age in ages)
    held_s = session.held_back_until_s - loop_s
    return {
        "v": 1,
        "bot": {
            "sid": session.sid,
            "pid": os.getpid(),
            "version": __version__,
            "mode": settings.TRADING_MODE if settings.GLOBAL_TRADING else "observe",
            "exchange": settings.EXCHANGE,
            "speed": session.clock.speed,
            "started_ms": session.started_ms,
            "uptime_s": round(loop_s - session.began_s, 1),
            "state": session.state,
        },
        "time_ms": now_ms,
        "flags": {name: getattr(settings, name) for name in FLAGS},
        "overrides": [
            {"key": key, "value": entry.value, "since_ms": entry.since_ms, "who": entry.who, "why": entry.why}
            for key, entry in effective.overrides.items()
        ],
        "settings_fingerprint": fingerprint(settings),
        "symbols": symbols,
        "data": {
            "mode": "starting" if data is None else data.mode,
            "fresh": fresh,
            "stale": len(symbols) - fresh,
            "oldest_s": max(ages, default=None),
            "ticks": 0 if data is None else data.ticks,
            "rejected": {} if data is None else dict(sorted(data.rejected.items())),
            "withheld": {} if data is None else dict(sorted(data.withheld.items())),
            "held_back_until_ms": now_ms + int(held_s * 1000 * session.clock.speed) if held_s > 0 else None,
        },
        "streams": _streams(session, loop_s),
        "disk": _disk(session, effective.state_dir, loop_s),
        "warm_start": _warm_start(session),
        "positions": [
            {"symbol": p.symbol, "decision_id": p.decision_id, "entry_ms": p.entry_ms, "entry": p.entry, "qty": p.qty}
            for p in (engine.portfolio.positions.values() if engine is not None else ())
        ],
        "decisions": list(session.signals.decisions),
        "errors": list(session.errors),
    }


def _warm_start(session: Session) -> dict[str, Any]:
    found = session.recovered
    if found is None:
        return {"kind": "cold", "symbols": 0, "ticks": 0, "ms": {}}
    return {
        "kind": found.kind, "source": found.source, "symbols": found.symbols, "ticks": found.ticks,
        "caught_up": found.caught_up, "ms": found.ms,
    }  # fmt: skip


def _disk(session: Session, state_dir: Path, loop_s: float) -> dict[str, Any]:
    """Return what is free, and in how many hours recording will stop at the pace so far; None where it will not.

    Where the four streams are off, the journal's pace alone counts.
    """
    free = shutil.disk_usage(state_dir).free
    hours = max(loop_s - session.began_s, 1.0) / 3600
    states, is_on = session.recording.states, session.settings.FEATURE_PERSIST_STREAMS
    per_hour = sum(state.bytes for stream, state in states.items() if is_on or stream is JOURNAL) / hours
    room = free - session.settings.MIN_FREE_MB * 1_000_000
    bounded = room > session.settings.STREAMS_MAX_GB * 1e9  # then the oldest segments go first
    left = None if bounded or per_hour == 0 else round(max(room, 0) / per_hour, 1)
    return {"free_mb": free // 1_000_000, "hours_left": left}


def _streams(session: Session, loop_s: float) -> dict[str, Any]:
    hours = max(loop_s - session.began_s, 1.0) / 3600
    return {
        stream.value: {
            "state": state.state, "records": state.records, "dropped": state.dropped, "bytes": state.bytes,
            "bytes_per_hour": round(state.bytes / hours),
        }
        for stream, state in session.recording.states.items()
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _symbol(session: Session, symbol: str, now_ms: int, loop_s: float) -> dict[str, Any]:
    data, engine = session.market_data, session.engine
    assert data is not None
    assert engine is not None
    heard_s = data.accepted_s.get(symbol)
    retry = data.retries.get(symbol)
    row: dict[str, Any] = {
        "symbol": symbol, "last": None, "bid": None, "ask": None, "spread_pct": None, "drop_pct": None,
        "reference": None, "reference_source": engine.rules.source.value, "anchor_age_s": None, "anchor_cause": None,
        "threshold": None, "to_trigger_pct": None, "armed": True,
        "age_s": None if heard_s is None else round(loop_s - heard_s, 1), "state": "waiting", "retry": None,
        "triggers": session.signals.triggers_by_symbol.get(symbol, 0),
        "ticks_per_min": _rounded(data.ticks_per_min(symbol)),
        "rejected": data.rejected_by_symbol[symbol],
    }  # fmt: skip
    state = engine.states.get(symbol)
    if state is not None and state.ts_ms != NO_TICK_MS:
        rules = engine.rules
        reference = rules.reference(state)
        limit = threshold(reference, rules.value, rules.zone)
        row |= {
            "last": state.last, "bid": state.bid, "ask": state.ask, "reference": reference, "threshold": limit,
            "drop_pct": drop_pct(state.last, reference), "to_trigger_pct": drop_pct(limit, state.last),
            "armed": state.armed, "state": "held" if state.position else "armed" if state.armed else "triggered",
        }  # fmt: skip
        if state.bid is not None and state.ask is not None:
            row["spread_pct"] = spread_bps(state.bid, state.ask) / 100
        if state.anchor is not None and rules.uses_anchor:
            row["anchor_age_s"] = round((now_ms - state.anchor.set_ms) / 1000, 1)
            row["anchor_cause"] = state.anchor.cause
    if retry is not None:
        wait_s = max(retry.next_s - loop_s, 0.0)
        row["retry"] = {"attempts": retry.attempts, "in_s": round(wait_s, 1), "error": retry.error[:120]}
        row["state"] = f"backoff {retry.attempts}"
    if state is not None and state.parked is not None:
        row["state"] = f"parked: {state.parked}"
    return row
