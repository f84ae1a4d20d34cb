"""The tick path, written out for speed, is the rule functions one after the other."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings

from tests.sessions import ANCHORS, PAPER_START, SETTINGS, START_MS, STEPS, Steps, to_inputs
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Output
from tradingbot.engine.gate import Refusal, admit
from tradingbot.market.anchor_manager import SavedAnchor
from tradingbot.market.drop_triggers import next_trigger, threshold
from tradingbot.market.ticker import Ticker


class PlainEngine(Engine):
    """Ask every rule function at every tick, and skip nothing."""

    __slots__ = ()

    def tick(self, ticker: Ticker) -> tuple[Output, ...]:
        state, rules = self.state(ticker.symbol), self._rules
        prices = admit(state, ticker, rules)
        if isinstance(prices, Refusal):
            return (self._reject(state, ticker, prices),)
        self.seq += 1
        t = ticker.ts_ms
        state.ts_ms, state.last, state.bid, state.ask = t, prices.last, prices.bid, prices.ask
        if t > self.now_ms:
            self.now_ms = t
            if t >= self._day_end_ms:
                self.turn_day(t)
        outputs: list[Output] = []
        if state.order is not None and t >= state.order.due_ms:
            self.portfolio.fill(state, self.seq, self.now_ms, rules, outputs)
        if state.fresh:
            self._begin_session(state)
        state.window.push(t, state.last, rules.lookback_ms)
        state.session_peak = max(state.session_peak, state.last)
        if rules.uses_anchor:
            self._advance_anchor(state, self.seq, state.highs[0])
        reference = rules.reference(state)
        limit = threshold(reference, rules.value, rules.zone)
        armed, below, fires = next_trigger(
            state.last, limit, t, state.armed, state.below, state.last_trigger_ms, state.first_ms, rules.rearm_factor,
            rules.confirm_ticks, rules.debounce_ms, rules.warmup_ms,
        )  # fmt: skip
        if fires:
            self._below_threshold(state, self.seq, ticker, reference, limit, outputs)
        assert (state.armed, state.below) == (armed, below) or not fires
        state.armed, state.below = armed, below
        if state.position is not None:
            self.portfolio.hold(state, self.seq, rules, outputs)
        return tuple(outputs)


@given(SETTINGS, PAPER_START, ANCHORS, STEPS)
@settings(max_examples=300)
def test_the_tick_path_is_the_rule_functions(
    chosen: dict[str, Any], start: float, anchors: dict[str, tuple[float, int]], steps: Steps
) -> None:
    """Every output and everything remembered is the same as when each rule is asked at each tick."""
    engines = [kind(make_settings({**chosen, "PAPER_START_QUOTE": start})) for kind in (Engine, PlainEngine)]
    for bot in engines:
        bot.load_anchors(
            {symbol: SavedAnchor(price, START_MS + age) for symbol, (price, age) in anchors.items()}, START_MS
        )
    for event in to_inputs(steps, start):
        fast, plain = (bot.process(event) for bot in engines)
        assert fast == plain
    assert engines[0].checkpoint_record() == engines[1].checkpoint_record()
