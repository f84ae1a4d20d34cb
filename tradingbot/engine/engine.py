"""The engine: `Engine.process(event) -> records`, a pure function of its numbered inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tradingbot.config import Settings
from tradingbot.engine.decisions import anchor_facts, decide
from tradingbot.engine.events import (
    AnchorMoved,
    AnchorReset,
    Condition,
    Filled,
    Input,
    Outcome,
    Output,
    Parked,
    Rejected,
    SettingsChanged,
    WindowMoved,
)
from tradingbot.engine.gate import Refusal, admit, count_refusal
from tradingbot.engine.portfolio import Portfolio
from tradingbot.engine.state import DAY_MS, Account, Checkpoint, Rules, SymbolMemory, SymbolState
from tradingbot.market.anchor_manager import Anchor, AnchorCause, SavedAnchor
from tradingbot.market.drop_triggers import next_trigger
from tradingbot.market.ticker import Ticker
from tradingbot.market.windows import Point, RollingWindowManager

__all__ = ["Checkpoint", "Engine"]

NOTHING: tuple[Output, ...] = ()


class Engine:
    """Decide, from numbered inputs alone, what to buy and what to sell.

    It opens no file, reads no clock and draws no random number: equal inputs give equal outputs, to the bit.
    `amount_steps` are the markets' amount steps by symbol (1e-8 where unknown).
    """

    __slots__ = (
        "_day_end_ms",
        "_hot",
        "_rules",
        "_states",
        "_windows",
        "conditions",
        "now_ms",
        "portfolio",
        "seq",
    )

    def __init__(self, settings: Settings, amount_steps: Mapping[str, float] | None = None) -> None:
        if not all(math.isfinite(step) and step > 0 for step in (amount_steps or {}).values()):
            raise ValueError(f"an amount step is a finite number above 0: {amount_steps}")
        self.seq = 0
        self.now_ms = -(2**62)
        self.conditions: dict[str, str] = {}
        self.portfolio = Portfolio(Account(cash=settings.PAPER_START_QUOTE))
        self._day_end_ms = -(2**62)
        self._states: dict[str, SymbolState] = {}
        self._windows = RollingWindowManager()
        self._use(Rules(settings, dict(amount_steps or {})))

    @property
    def settings(self) -> Settings:
        """Return the settings in force."""
        return self._rules.settings

    @property
    def rules(self) -> Rules:
        """Return the settings in force, in the units of the tick path."""
        return self._rules

    @property
    def states(self) -> Mapping[str, SymbolState]:
        """Return what is known of each symbol; to be read, never changed."""
        return self._states

    def load_anchors(self, saved: Mapping[str, SavedAnchor], now_ms: int) -> dict[str, str]:
        """Take in persisted anchors at a cold start; return those discarded, by symbol, each with why."""
        loaded, discarded = self._rules.anchors.load(saved, now_ms)
        for symbol, anchor in loaded.items():
            state = self.state(symbol)
            state.anchor, state.loaded = anchor, True
            state.look()
        return discarded

    def process(self, event: Input) -> tuple[Output, ...]:
        """Take in one input; return every output that answers it, the derived ones (anchor, window) last."""
        if type(event) is not Ticker:
            return self._control(event)
        window = self._windows.window(event.symbol)
        peak, trough = window.peak, window.trough
        outputs = list(self.tick(event))
        if outputs and isinstance(outputs[0], Rejected):
            return tuple(outputs)
        filled = [o for o in outputs if isinstance(o, Filled) and o.side == "buy" and self._rules.uses_anchor]
        moved = [self._rules.anchors.filled(self.seq, fill.ts_ms, fill.price) for fill in filled]
        anchor = self._states[event.symbol].anchor
        if anchor is not None and anchor.changed_seq == self.seq and anchor not in moved:
            moved.append(anchor)  # a fill and what moved it further on the same tick are two changes
        for change in moved:
            facts = anchor_facts(change)
            outputs.append(AnchorMoved(self.seq, len(outputs), event.ts_ms, event.symbol, change.cause, facts))
        if window.highs and (window.peak != peak or window.trough != trough):
            high, low = window.highs[0][1], window.lows[0][1]
            outputs.append(WindowMoved(self.seq, len(outputs), event.ts_ms, event.symbol, high, low))
        return tuple(outputs)

    def tick(self, ticker: Ticker) -> tuple[Output, ...]:
        """Take in one ticker; return what answers it, without the derived outputs.

        This is the path that every tick takes, written as one function. Each of its conditions asks whether the rule
        function behind it could have anything to do; the rule functions alone decide.
        """
        try:
            state = self._states[ticker.symbol]
        except KeyError:
            state = self.state(ticker.symbol)
        special = state.special
        jump, floor, lookback_ms, uses_anchor, stale_ms, value, zone = self._hot
        t = ticker.ts_ms
        last = ticker.last
        bid = ticker.bid
        ask = ticker.ask
        if not (
            t > state.ts_ms
            and type(last) is float
            and floor <= last / state.last - 1 <= jump
            and (
                type(bid) is type(ask) is float and bid <= ask and bid / last - 1 >= floor and ask / last - 1 <= jump
                if bid is not None
                else ask is None
            )
            and (ticker.recv_ms is None or self._timely(ticker))
            and ticker.answered_as is None
            and not special
        ):
            prices = admit(state, ticker, self._rules)
            if isinstance(prices, Refusal):
                return (self._reject(state, ticker, prices),)
            last, bid, ask = prices.last, prices.bid, prices.ask
        seq = self.seq = self.seq + 1
        state.ts_ms = t
        state.last = last
        state.bid = bid
        state.ask = ask
        if t > self.now_ms:
            self.now_ms = t
            if t >= self._day_end_ms:
                self.turn_day(t)

        outputs: list[Output] | None = None
        if special:
            if state.order is not None and t >= state.order.due_ms:
                outputs = []
                self.portfolio.fill(state, seq, self.now_ms, self._rules, outputs)
            if state.fresh:
                self._begin_session(state)

        # RollingWindow.push, written out
        point = (t, last)
        lows = state.lows
        if lows[-1][1] >= last:
            lows.pop()
            while lows and lows[-1][1] >= last:
                lows.pop()
        lows.append(point)
        highs = state.highs
        if highs[-1][1] <= last:
            highs.pop()
            while highs and highs[-1][1] <= last:
                highs.pop()
        highs.append(point)
        cut = t - lookback_ms
        if state.oldest_ms <= cut:
            while lows[0][0] <= cut:
                lows.popleft()
            while highs[0][0] <= cut:
                highs.popleft()
            state.oldest_ms = min(lows[0][0], highs[0][0])

        if last > state.session_peak:
            state.session_peak = last
        if uses_anchor:
            anchor = state.anchor
            if anchor is None or last > anchor.price or t - anchor.set_ms > stale_ms or special:
                anchor = self._advance_anchor(state, seq, highs[0])
            reference = anchor.price
        else:
            reference = self._rules.reference(state)

        threshold = reference * value * zone
        if last > threshold:
            state.below = 0
            if not state.armed:
                state.armed = last > threshold * self._rules.rearm_factor
        elif not state.armed:
            state.below += 1
        else:
            outputs = self._below_threshold(state, seq, ticker, reference, threshold, outputs)
        if special:
            if state.position is not None:
                outputs = [] if outputs is None else outputs
                self.portfolio.hold(state, seq, self._rules, outputs)
            state.look()
        return tuple(outputs) if outputs else NOTHING

    def checkpoint(self) -> Checkpoint:
        """Return a complete and exact copy of everything the engine remembers."""
        return msgspec.convert(self.checkpoint_record(), Checkpoint)

    def checkpoint_record(self) -> dict[str, Any]:
        """Return the checkpoint as a JSON object."""
        record: dict[str, Any] = msgspec.to_builtins(self.memory())
        return record

    def memory(self, windows: Iterable[str] | None = None) -> Checkpoint:
        """Return everything the engine remembers, shared with it: to be encoded or copied before the next input.

        With `windows` only the windows of these symbols are in it.
        """
        portfolio = self.portfolio
        return Checkpoint(
            self.seq,
            self.now_ms,
            self._rules.settings,
            dict(self._rules.broker.steps),
            portfolio.account,
            self.conditions,
            list(self._states.values()),
            list(portfolio.positions),
            list(portfolio.orders),
            self._windows.points(self._states if windows is None else windows),
        )

    def restore(self, checkpoint: Checkpoint | Mapping[str, Any]) -> None:
        """Forget everything and go on from a checkpoint, or its JSON object, exactly as the engine that made it."""
        copy = msgspec.convert(msgspec.to_builtins(checkpoint), Checkpoint)
        self.seq, self.now_ms, self.conditions = copy.seq, copy.now_ms, copy.conditions
        self._use(Rules(copy.settings, copy.amount_steps))
        self._windows.load(copy.windows)
        self._states = {
            memory.symbol: SymbolState(self._windows.window(memory.symbol), memory) for memory in copy.symbols
        }
        self.portfolio = Portfolio(copy.account)
        for symbol in copy.positions:
            if (position := self._states[symbol].position) is not None:
                self.portfolio.positions[symbol] = position
        for symbol in copy.orders:
            if (order := self._states[symbol].order) is not None:
                self.portfolio.orders[symbol] = order
        self._day_end_ms = (copy.account.day + 1) * DAY_MS

    def state(self, symbol: str) -> SymbolState:
        """Return what is known of a symbol, from now on also of one that was not known."""
        state = self._states.get(symbol)
        if state is None:
            state = self._states[symbol] = SymbolState(self._windows.window(symbol), SymbolMemory(symbol))
        return state

    def turn_day(self, ts_ms: int) -> None:
        """Begin the UTC day of `ts_ms`."""
        day = ts_ms // DAY_MS
        self._day_end_ms = (day + 1) * DAY_MS
        self.portfolio.turn_day(day, self._rules, self._states)

    def _control(self, event: Input) -> tuple[Output, ...]:
        self.seq += 1
        outputs: list[Output] = []
        if isinstance(event, SettingsChanged):
            self._adopt(event.settings, outputs)
        elif isinstance(event, Condition):
            if event.why is None:
                self.conditions.pop(event.name.value, None)
            else:
                self.conditions[event.name.value] = event.why
        elif isinstance(event, Parked):
            self.state(event.symbol).parked = event.why
        elif isinstance(event, AnchorReset):
            state = self.state(event.symbol)
            state.fresh = state.reset = True
            state.look()
        return tuple(outputs)

    def _adopt(self, settings: Settings, outputs: list[Output]) -> None:
        before = self._rules
        self._use(Rules(settings, before.broker.steps))
        if settings.FEATURE_ANCHOR_ENABLED and not before.settings.FEATURE_ANCHOR_ENABLED:
            for state in self._states.values():
                state.anchor, state.loaded = None, False
        if before.trading and not settings.GLOBAL_TRADING:
            self.portfolio.cancel_orders(self._states, self.seq, self.now_ms, "trading_off", outputs)

    def _reject(self, state: SymbolState, ticker: Ticker, refusal: Refusal) -> Rejected:
        state.look()
        whole = count_refusal(state, ticker, refusal)
        if whole:
            self.seq += 1
        cause, reason = self.seq if whole else 0, refusal.reason.value
        return Rejected(cause, 0, ticker.ts_ms, state.symbol, reason, refusal.detail, whole)

    def _timely(self, ticker: Ticker) -> bool:
        recv_ms, age_ms, rules = ticker.recv_ms, ticker.feed_age_ms, self._rules
        return (
            recv_ms is not None
            and -rules.max_ahead_ms <= recv_ms - ticker.ts_ms <= rules.max_age_ms
            and (age_ms is None or age_ms <= rules.max_age_ms)
        )

    def _begin_session(self, state: SymbolState) -> None:
        if state.reset:
            state.anchor, state.loaded = None, False
        state.window.clear()
        point = (state.ts_ms, state.last)
        state.highs.append(point)
        state.lows.append(point)
        state.fresh = False
        state.first_ms = state.ts_ms
        state.session_start = state.session_peak = state.last
        if not self._rules.uses_anchor:
            state.loaded = state.reset = False

    def _advance_anchor(self, state: SymbolState, seq: int, peak: Point) -> Anchor:
        anchor, stale = self._rules.anchors.advance(
            state.anchor,
            seq,
            state.ts_ms,
            state.last,
            peak[1],
            peak[0],
            state.session_peak,
            AnchorCause.RESET if state.reset else AnchorCause.FIRST,
            state.loaded,
        )
        if stale:
            state.session_start, state.session_peak = state.last, peak[1]
        state.anchor, state.loaded, state.reset = anchor, False, False
        return anchor

    def _below_threshold(
        self,
        state: SymbolState,
        seq: int,
        ticker: Ticker,
        reference: float,
        threshold: float,
        outputs: list[Output] | None,
    ) -> list[Output] | None:
        rules, t = self._rules, state.ts_ms
        state.armed, state.below, fires = next_trigger(
            state.last,
            threshold,
            t,
            state.armed,
            state.below,
            state.last_trigger_ms,
            state.first_ms,
            rules.rearm_factor,
            rules.confirm_ticks,
            rules.debounce_ms,
            rules.warmup_ms,
        )
        if not fires:
            return outputs
        state.triggers += 1
        state.last_trigger_ms = t
        outputs = [] if outputs is None else outputs
        decision = decide(
            state, seq, self.now_ms, ticker.quote_volume, reference, threshold,
            rules, self.portfolio, self.conditions, len(outputs),
        )  # fmt: skip
        outputs.append(decision)
        if decision.outcome is Outcome.ENTERED:
            self.portfolio.enter(state, decision, self.now_ms, rules)
            state.look()
        return outputs

    def _use(self, rules: Rules) -> None:
        self._rules = rules
        self._hot = rules.hot
