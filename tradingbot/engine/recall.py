"""Recall: an answer that was recorded is taken over as it stands, where the input that it answered is not to be had."""

from __future__ import annotations

from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Cancelled, Decision, ExitDecided, Filled, Outcome, Output, Trade
from tradingbot.engine.state import DAY_MS, Order, Position, SymbolState
from tradingbot.market.anchor_manager import Anchor

__all__ = ["recall"]


def recall(engine: Engine, output: Output) -> None:
    """Take over what a recorded decision, exit, fill, cancellation or trade did to symbol and portfolio."""
    if isinstance(output, Trade):
        _trade(engine, output)
    elif isinstance(output, Decision | ExitDecided | Filled | Cancelled):
        state = engine.state(output.symbol)
        _come_to(engine, output.ts_ms)
        if isinstance(output, Decision):
            _decision(engine, state, output)
        elif isinstance(output, ExitDecided):
            due_ms = output.ts_ms + engine.rules.latency_ms
            order = Order("sell", output.decision_id, output.ts_ms, due_ms, output.cause, output.reason)
            state.order = engine.portfolio.orders[output.symbol] = order
        else:
            engine.portfolio.orders.pop(output.symbol, None)
            state.order = None
            if isinstance(output, Filled):
                _fill(engine, state, output)
        state.look()


def _come_to(engine: Engine, ts_ms: int) -> None:
    """Let engine time be at least `ts_ms`; a day may have begun."""
    engine.now_ms = max(engine.now_ms, ts_ms)
    if engine.now_ms // DAY_MS > engine.portfolio.account.day:
        engine.turn_day(engine.now_ms)


def _decision(engine: Engine, state: SymbolState, decision: Decision) -> None:
    """Take over the tick that triggered, as far as the decision tells of it, and what it decided."""
    t, last, seen_ms = decision.ts_ms, decision.last, state.ts_ms
    if state.fresh:
        seen_ms = -1
        state.window.clear()
        state.first_ms, state.fresh, state.reset, state.loaded = t, False, False, False
    state.ts_ms, state.last, state.bid, state.ask, state.witness = t, last, decision.bid, decision.ask, None
    state.session_start, state.session_peak = decision.session_start, decision.session_peak
    if decision.window_peak_ms > seen_ms:  # it was among the inputs that are gone
        state.window.push(decision.window_peak_ms, decision.window_peak, engine.rules.lookback_ms)
    state.window.push(t, last, engine.rules.lookback_ms)
    state.oldest_ms = -(2**62)
    facts = decision.anchor
    if facts is not None:
        state.anchor = Anchor(
            facts.price, facts.set_ms, facts.set_cause, facts.set_seq, facts.price_ms, facts.clamp, facts.clamp_seq,
            facts.clamp_ms,
        )  # fmt: skip
    state.armed, state.last_trigger_ms = False, t
    state.below = max(state.below, 1)
    state.triggers = int(decision.decision_id.rpartition(":")[2])
    if decision.outcome is Outcome.ENTERED:
        engine.portfolio.enter(state, decision, engine.now_ms, engine.rules)


def _fill(engine: Engine, state: SymbolState, fill: Filled) -> None:
    portfolio, symbol, t = engine.portfolio, fill.symbol, fill.ts_ms
    portfolio.account.cash = fill.cash
    if fill.side == "sell":
        portfolio.positions.pop(symbol, None)
        state.position, state.last_exit_ms = None, t
        portfolio.account.last_close_ms = engine.now_ms
        return
    portfolio.account.day_buys += 1
    state.position = portfolio.positions[symbol] = Position(
        symbol, fill.decision_id, t, fill.price, fill.qty, fill.fee, height=0.0
    )
    if engine.rules.uses_anchor:
        state.anchor = engine.rules.anchors.filled(fill.cause, t, fill.price)


def _trade(engine: Engine, trade: Trade) -> None:
    account = engine.portfolio.account
    if trade.pnl < 0:
        account.day_losses = account.day_losses + -trade.pnl
        account.losses_in_row += 1
    else:
        account.losses_in_row = 0
