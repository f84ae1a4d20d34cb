"""The gate: a ticker meets the guards with what is known of its symbol; a refusal is a value with a reason."""

from __future__ import annotations

from dataclasses import dataclass

from tradingbot.engine.state import NO_TICK_MS, Rules, SymbolState
from tradingbot.market.guards import Prices, RejectReason, check, normalise
from tradingbot.market.ticker import Ticker

__all__ = ["WHOLE_REJECTIONS", "Refusal", "admit", "count_refusal"]

MINUTE_MS = 60_000
WHOLE_REJECTIONS = 10  # a symbol, reason and minute; further ones are only counted


@dataclass(frozen=True, slots=True)
class Refusal:
    """Hold why a ticker is refused.

    It `witnesses` if it is the witness of a jump, or the first refusal after one: then it is always recorded whole.
    """

    reason: RejectReason
    detail: str
    witnesses: bool


def admit(state: SymbolState, ticker: Ticker, rules: Rules) -> Prices | Refusal:
    """Return the ticker's prices if every guard lets it pass, else the refusal; keep the witness of a jump."""
    prices, verdict = _judge(state, ticker, rules)
    had_witness = state.witness is not None
    jumped = verdict is not None and verdict[0] is RejectReason.JUMP
    state.witness = prices.last if jumped and prices is not None else None
    if prices is not None and verdict is None:
        return prices
    assert verdict is not None
    return Refusal(*verdict, witnesses=jumped or had_witness)


def _judge(state: SymbolState, ticker: Ticker, rules: Rules) -> tuple[Prices | None, tuple[RejectReason, str] | None]:
    if ticker.answered_as is not None:
        return None, (RejectReason.WRONG_SYMBOL, f"the answer is about {ticker.answered_as!r:.40}")
    prices = normalise(ticker.last, ticker.bid, ticker.ask)
    if isinstance(prices, RejectReason):
        return None, (prices, f"last {ticker.last!r:.40}, bid {ticker.bid!r:.40}, ask {ticker.ask!r:.40}")
    previous = None if state.ts_ms == NO_TICK_MS else Prices(state.last, state.bid, state.ask)
    return prices, check(
        prices,
        ticker.ts_ms,
        ticker.recv_ms,
        ticker.feed_age_ms,
        previous,
        state.ts_ms,
        state.witness,
        rules.jump,
        rules.max_age_ms,
        rules.max_ahead_ms,
    )


def count_refusal(state: SymbolState, ticker: Ticker, refusal: Refusal) -> bool:
    """Count a refusal; return whether it is recorded whole (and takes a `seq`), or only counted."""
    minute = (ticker.ts_ms if ticker.recv_ms is None else ticker.recv_ms) // MINUTE_MS
    last_minute, count = state.rejected.get(refusal.reason.value, (minute, 0))
    if minute > last_minute:
        count = 0
    minute = max(minute, last_minute)  # what comes late counts in the minute that has come
    whole = refusal.witnesses or count < WHOLE_REJECTIONS
    if whole:  # the count stops at the bound, so that a replay of what was recorded ends at the same one
        state.rejected[refusal.reason.value] = (minute, min(count + 1, WHOLE_REJECTIONS))
    return whole
