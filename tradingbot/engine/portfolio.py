"""The portfolio: cash, pending orders and positions; what a fill, an exit rule and a new day do to them."""

from __future__ import annotations

from collections.abc import Mapping

from tradingbot.engine.events import Cancelled, Decision, ExitDecided, Filled, Output, Trade
from tradingbot.engine.exits import exit_reason
from tradingbot.engine.state import DAY_MS, Account, Order, Position, Rules, SymbolState

__all__ = ["Portfolio"]


class Portfolio:
    """Hold one quote account and what was bought with it; times are engine time, in milliseconds."""

    __slots__ = ("account", "orders", "positions")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.positions: dict[str, Position] = {}
        self.orders: dict[str, Order] = {}

    def free_cash(self, rules: Rules) -> float:
        """Return the cash that entries are measured against (quote): while observing, the paper account's start."""
        return self.account.cash if rules.trading else rules.settings.PAPER_START_QUOTE

    def equity(self, states: Mapping[str, SymbolState], cash: float) -> float:
        """Return cash plus the positions at their symbols' last price (quote), in the order of their entries."""
        for symbol, position in self.positions.items():
            cash = cash + position.qty * states[symbol].last
        return cash

    def recent_entries(self, now_ms: int, span_ms: float) -> int:
        """Return how many decisions entered less than `span_ms` ago."""
        return sum(now_ms - entered_ms < span_ms for entered_ms in self.account.entered_ms)

    def turn_day(self, day: int, rules: Rules, states: Mapping[str, SymbolState]) -> None:
        """Begin a UTC day: take its equity, count its losses and buys from nothing."""
        account = self.account
        account.day = day
        account.day_equity = self.equity(states, self.free_cash(rules))
        account.day_losses = 0.0
        account.day_buys = 0

    def enter(self, state: SymbolState, decision: Decision, now_ms: int, rules: Rules) -> None:
        """Place the buy that a decision asks for."""
        entered = self.account.entered_ms
        entered[:] = [ms for ms in entered if now_ms - ms < DAY_MS]  # the longest ENTRY_BURST_S there is
        entered.append(now_ms)
        due_ms = decision.ts_ms + rules.latency_ms
        order = Order("buy", decision.decision_id, decision.ts_ms, due_ms, decision.cause)
        state.order = self.orders[state.symbol] = order

    def hold(self, state: SymbolState, seq: int, rules: Rules, outputs: list[Output]) -> None:
        """Look at a position on its symbol's tick: keep its height, place the sell that an exit rule asks for."""
        position = state.position
        assert position is not None
        price = state.last if state.bid is None else state.bid
        if price > position.height:
            position.height = price
        if state.order is not None or not rules.trading:
            return
        s = rules.settings
        reason = exit_reason(
            price,
            position.entry,
            position.height,
            state.ts_ms - position.entry_ms,
            s.STOP_LOSS_THRESHOLD,
            s.TAKE_PROFIT_THRESHOLD,
            s.USE_TRAILING_STOP,
            s.TRAILING_ACTIVATION,
            s.TRAILING_DISTANCE,
            s.TRADE_TTL_MIN * 60_000,
        )
        if reason is None:
            return
        t, decision_id = state.ts_ms, position.decision_id
        order = Order("sell", decision_id, t, t + rules.latency_ms, seq, reason.value)
        state.order = self.orders[state.symbol] = order
        outputs.append(
            ExitDecided(
                seq, len(outputs), t, state.symbol, decision_id, reason.value, price, position.entry, position.height
            )
        )

    def fill(self, state: SymbolState, seq: int, now_ms: int, rules: Rules, outputs: list[Output]) -> None:
        """Fill the symbol's due paper order on its tick."""
        order = self.orders.pop(state.symbol)
        state.order = None
        if order.side == "buy":
            self._buy(state, order, seq, rules, outputs)
        else:
            self._sell(state, order, seq, now_ms, rules, outputs)

    def _buy(self, state: SymbolState, order: Order, seq: int, rules: Rules, outputs: list[Output]) -> None:
        symbol, t, decision_id = state.symbol, state.ts_ms, order.decision_id
        qty, price, fee = rules.broker.buy(symbol, rules.settings.POSITION_SIZE_QUOTE, state.last, state.ask)
        if qty == 0:
            outputs.append(Cancelled(seq, len(outputs), t, symbol, decision_id, "buy", "quantity is 0"))
            return
        account = self.account
        account.cash = account.cash - (qty * price + fee)
        account.day_buys += 1
        # the height starts below any price: the exit check of this very tick sets it
        state.position = self.positions[symbol] = Position(symbol, decision_id, t, price, qty, fee, height=0.0)
        if rules.uses_anchor:
            state.anchor = rules.anchors.filled(seq, t, price)
        outputs.append(Filled(seq, len(outputs), t, symbol, decision_id, "buy", qty, price, fee, account.cash))

    def _sell(
        self, state: SymbolState, order: Order, seq: int, now_ms: int, rules: Rules, outputs: list[Output]
    ) -> None:
        symbol, t = state.symbol, state.ts_ms
        position = self.positions.pop(symbol)
        state.position = None
        price, fee = rules.broker.sell(position.qty, state.last, state.bid)
        account = self.account
        account.cash = account.cash + (position.qty * price - fee)
        pnl = position.qty * (price - position.entry) - (position.fee + fee)
        if pnl < 0:
            account.day_losses = account.day_losses + -pnl
            account.losses_in_row += 1
        else:
            account.losses_in_row = 0
        account.last_close_ms = now_ms
        state.last_exit_ms = t
        decision_id = position.decision_id
        outputs.append(
            Filled(seq, len(outputs), t, symbol, decision_id, "sell", position.qty, price, fee, account.cash)
        )
        outputs.append(
            Trade(
                seq, len(outputs), symbol, decision_id, position.entry_ms, position.entry, t, price,
                position.qty, pnl, order.reason, position.fee + fee,
            )
        )  # fmt: skip

    def cancel_orders(
        self, states: Mapping[str, SymbolState], seq: int, now_ms: int, reason: str, outputs: list[Output]
    ) -> None:
        """Cancel every pending order."""
        for symbol, order in self.orders.items():
            states[symbol].order = None
            outputs.append(Cancelled(seq, len(outputs), now_ms, symbol, order.decision_id, order.side, reason))
        self.orders.clear()
