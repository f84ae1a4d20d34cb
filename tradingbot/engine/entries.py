"""Entries: every check that a trigger must pass, each with its value and its limit."""

from __future__ import annotations

import msgspec

from tradingbot.config import Settings
from tradingbot.market.ticker import spread_bps

__all__ = ["Check", "EntryFacts", "check_entry"]

LOSSES_PAUSE_MS = 3_600_000  # how long losses in a row hold entries back
MINUTE_MS = 60_000


class Check(msgspec.Struct, frozen=True):
    """Hold one entry check: what was found, what the limit was, and whether it blocks."""

    name: str
    blocks: bool
    value: float | str | bool | None = None
    limit: float | str | None = None


class EntryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the entry checks look at: prices and cash in quote, ages in milliseconds, None where there is none."""

    killed: str | None
    degraded: str | None
    unreconciled: str | None
    parked: str | None
    restart: str | None
    holds: bool
    positions: int
    open_buys: int
    since_exit_ms: int | None
    last: float
    bid: float | None
    ask: float | None
    quote_volume: float | None
    cash: float
    recent_entries: int
    day_losses: float
    day_equity: float
    losses_in_row: int
    since_close_ms: int | None
    day_buys: int


def check_entry(facts: EntryFacts, settings: Settings) -> tuple[Check, ...]:
    """Return every entry check in the order in which its reasons are listed."""
    f, s = facts, settings
    exposed = f.positions + f.open_buys
    spread = None if f.bid is None or f.ask is None else spread_bps(f.bid, f.ask)
    highest_ask = f.last * (1 + s.MAX_ENTRY_AWAY_BPS / 10_000)
    amount = s.POSITION_SIZE_QUOTE * (1 + s.TAKER_FEE_RATE)
    free = f.cash - f.open_buys * amount
    loss_limit = f.day_equity * s.MAX_DAILY_LOSS_PCT / 100
    thin = f.quote_volume is not None and f.quote_volume < s.MIN_24H_QUOTE_VOLUME
    cooling = f.since_exit_ms is not None and f.since_exit_ms < s.COOLDOWN_MIN * MINUTE_MS
    losing = f.since_close_ms is not None and f.since_close_ms < LOSSES_PAUSE_MS
    return (
        Check("killed", f.killed is not None, f.killed),
        Check("degraded", f.degraded is not None, f.degraded),
        Check("unreconciled", f.unreconciled is not None, f.unreconciled),
        Check("parked", f.parked is not None, f.parked),
        Check("restart", f.restart is not None, f.restart),
        Check("held", f.holds, f.holds),
        Check("max_positions", exposed >= s.MAX_CONCURRENT_POSITIONS, exposed, s.MAX_CONCURRENT_POSITIONS),
        Check("cooldown", cooling, _minutes(f.since_exit_ms), s.COOLDOWN_MIN),
        Check("spread", spread is not None and spread > s.MAX_SPREAD_BPS, spread, s.MAX_SPREAD_BPS),
        Check("away", f.ask is not None and f.ask > highest_ask, f.ask, highest_ask),
        Check("volume", thin, f.quote_volume, s.MIN_24H_QUOTE_VOLUME),
        Check("budget", free < amount, free, amount),
        Check("burst", f.recent_entries >= s.ENTRY_BURST_MAX, f.recent_entries, s.ENTRY_BURST_MAX),
        Check("daily_loss", f.day_losses > loss_limit, f.day_losses, loss_limit),
        Check("losses_in_row", losing and f.losses_in_row >= s.MAX_LOSSES_IN_ROW, f.losses_in_row, s.MAX_LOSSES_IN_ROW),
        Check("trades_per_day", f.day_buys >= s.MAX_TRADES_PER_DAY, f.day_buys, s.MAX_TRADES_PER_DAY),
    )


def _minutes(ms: int | None) -> float | None:
    return None if ms is None else ms / MINUTE_MS
