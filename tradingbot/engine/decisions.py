"""Decisions: a trigger, every check that it met, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tradingbot.engine.entries import EntryFacts, check_entry
from tradingbot.engine.events import AnchorFacts, Decision, Outcome
from tradingbot.engine.portfolio import Portfolio
from tradingbot.engine.state import Rules, SymbolState
from tradingbot.market.anchor_manager import Anchor
from tradingbot.market.drop_triggers import drop_pct
from tradingbot.market.guards import double

__all__ = ["anchor_facts", "decide"]


def anchor_facts(anchor: Anchor) -> AnchorFacts:
    """Return an anchor as records carry it."""
    return AnchorFacts(
        anchor.price,
        anchor.set_ms,
        anchor.set_cause,
        anchor.set_seq,
        anchor.price_ms,
        anchor.clamp,
        anchor.clamp_seq,
        anchor.clamp_ms,
    )


def decide(
    state: SymbolState,
    seq: int,
    now_ms: int,
    quote_volume: object,
    reference: float,
    threshold: float,
    rules: Rules,
    portfolio: Portfolio,
    conditions: Mapping[str, str],
    ordinal: int,
) -> Decision:
    """Return the decision on a trigger that has just fired.

    `now_ms` is engine time, `ordinal` the decision's place in the answer to input `seq`.
    """
    settings, account = rules.settings, portfolio.account
    volume = double(quote_volume)
    if volume is not None and not math.isfinite(volume):
        volume = None
    open_buys = sum(order.side == "buy" for order in portfolio.orders.values())
    facts = EntryFacts(
        killed=conditions.get("killed"),
        degraded=conditions.get("degraded"),
        unreconciled=conditions.get("unreconciled"),
        parked=state.parked,
        restart=conditions.get("restart"),
        holds=state.position is not None or state.order is not None,
        positions=len(portfolio.positions),
        open_buys=open_buys,
        since_exit_ms=None if state.last_exit_ms is None else state.ts_ms - state.last_exit_ms,
        last=state.last,
        bid=state.bid,
        ask=state.ask,
        quote_volume=volume,
        cash=portfolio.free_cash(rules),
        recent_entries=portfolio.recent_entries(now_ms, settings.ENTRY_BURST_S * 1000),
        day_losses=account.day_losses,
        day_equity=account.day_equity,
        losses_in_row=account.losses_in_row,
        since_close_ms=None if account.last_close_ms is None else now_ms - account.last_close_ms,
        day_buys=account.day_buys,
    )
    checks = check_entry(facts, settings)
    reasons = tuple(check.name for check in checks if check.blocks)
    outcome = Outcome.BLOCKED if reasons else Outcome.ENTERED if rules.trading else Outcome.OBSERVED
    high, low = state.window.highs[0], state.window.lows[0]
    return Decision(
        cause=seq,
        k=ordinal,
        decision_id=f"{state.symbol}:{state.ts_ms}:{state.triggers}",
        ts_ms=state.ts_ms,
        symbol=state.symbol,
        last=state.last,
        reference=reference,
        reference_source=rules.source.value,
        threshold=threshold,
        outcome=outcome,
        reasons=reasons,
        drop_pct=drop_pct(state.last, reference),
        bid=state.bid,
        ask=state.ask,
        quote_volume=volume,
        mode=settings.DROP_TRIGGER_MODE,
        window_peak=high[1],
        window_peak_ms=high[0],
        window_trough=low[1],
        session_start=state.session_start,
        session_peak=state.session_peak,
        anchor=anchor_facts(state.anchor) if rules.uses_anchor and state.anchor is not None else None,
        checks=checks,
        fingerprint=rules.fingerprint,
    )
