"""Statistics of a run, with holding and plain averaging in over the same ticks beside them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Filled, Output, Rejected, Trade

__all__ = ["INSTALMENTS", "Statistics"]

NO_MORE_MS = 2**62
INSTALMENTS = 20  # equal parts, at equal distances of time, in which averaging in spends the same cash


@dataclass(slots=True)
class _Tally:
    """Add up closed trades."""

    trades: int = 0
    wins: int = 0
    pnl: float = 0.0

    def add(self, trade: Trade) -> None:
        self.trades += 1
        self.wins += trade.pnl > 0
        self.pnl += trade.pnl

    def record(self) -> dict[str, Any]:
        return {
            "trades": self.trades,
            "win_rate_pct": self.wins / self.trades * 100 if self.trades else None,
            "pnl_quote": self.pnl,
        }


@dataclass(slots=True)
class _Symbol:
    """Hold what the two yardsticks need of a symbol: its first price, and what instalments have bought per quote."""

    first: float
    instalments: int = 0
    bought_per_quote: float = 0.0
    fees: float = 0.0
    decisions: Counter[str] = field(default_factory=Counter)
    tally: _Tally = field(default_factory=_Tally)


class Statistics:
    """Watch an engine from outside and say what came of it; quote is the unit of money, the tick's time that of time.

    Equity is cash plus open positions at their symbols' last price. Drawdown is the largest fall of equity from its
    highest point so far, seen at every tick with an open position. Exposure is the share of time with a position.
    """

    def __init__(self, engine: Engine, first_ms: int, last_ms: int) -> None:
        self._engine = engine
        self._span_ms = max(last_ms - first_ms, 0)
        self._first_ms = first_ms
        self._instalment = 0
        self.symbols: dict[str, _Symbol] = {}
        self._exits: defaultdict[str, _Tally] = defaultdict(_Tally)
        self._all = _Tally()
        self._rejected: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._blocked: Counter[str] = Counter()
        self._start = engine.portfolio.account.cash
        self._peak = self._start
        self._drawdown = 0.0
        self._drawdown_pct = 0.0
        self._exposed_ms = 0
        self._begun_ms: int | None = None
        self._marked_ms: int | None = None
        self._fees = 0.0
        self.ticks = 0

    def begin(self, symbol: str) -> None:
        """Note the first accepted tick of a symbol."""
        if self._begun_ms is None:
            self._begun_ms = self._engine.now_ms
        self.symbols[symbol] = _Symbol(self._engine.states[symbol].last)

    def buy_instalment(self) -> int:
        """Average in at the latest prices before the next tick; return when the next instalment is due (ms).

        A symbol that has no price yet is bought at its first one.
        """
        states = self._engine.states
        for name, symbol in self.symbols.items():
            symbol.bought_per_quote += 1 / self._paid(states[name].last)
            symbol.instalments += 1
        self._instalment += 1
        last_one = self._instalment >= INSTALMENTS
        step = self._span_ms / INSTALMENTS
        return NO_MORE_MS if last_one else self._first_ms + ceil(self._instalment * step)

    def mark(self) -> None:
        """Value open positions at the tick just processed."""
        engine = self._engine
        portfolio = engine.portfolio
        if self._marked_ms is not None:
            self._exposed_ms += engine.now_ms - self._marked_ms
        self._marked_ms = engine.now_ms if portfolio.positions else None
        equity = portfolio.equity(engine.states, portfolio.account.cash)
        if equity > self._peak:
            self._peak = equity
        elif equity < self._peak:
            self._drawdown = max(self._drawdown, self._peak - equity)
            self._drawdown_pct = max(self._drawdown_pct, (1 - equity / self._peak) * 100)

    def take(self, output: Output) -> None:
        """Count one output."""
        if isinstance(output, Rejected):
            self._rejected[output.reason] += 1
        elif isinstance(output, Decision):
            self._outcomes[output.outcome.value] += 1
            self._blocked.update(output.reasons)
            self.symbols[output.symbol].decisions[output.outcome.value] += 1
        elif isinstance(output, Filled):
            self._fees += output.fee
            self.symbols[output.symbol].fees += output.fee
        elif isinstance(output, Trade):
            self._all.add(output)
            self._exits[output.reason].add(output)
            self.symbols[output.symbol].tally.add(output)

    @property
    def rejected(self) -> dict[str, int]:
        """Return how many tickers were rejected, by reason."""
        return dict(sorted(self._rejected.items()))

    def summary(self) -> dict[str, Any]:
        """Return everything as one JSON object; names carry the units."""
        portfolio = self._engine.portfolio
        cash = portfolio.account.cash
        equity = portfolio.equity(self._engine.states, cash)
        return {
            "ticks": self.ticks,
            "triggers": self._outcomes.total(),
            "trades": self._all.trades,
            "rejected": self.rejected,
            "final_quote": cash,
            "start_quote": self._start,
            "final_equity_quote": equity,
            "return_pct": self._return_pct(equity),
            "first_ms": self._begun_ms,
            "last_ms": self._engine.now_ms,
            "outcomes": dict(sorted(self._outcomes.items())),
            "blocked_reasons": dict(sorted(self._blocked.items())),
            "open_positions": len(portfolio.positions),
            "win_rate_pct": self._all.record()["win_rate_pct"],
            "pnl_quote": self._all.pnl,
            "fees_quote": self._fees,
            "max_drawdown_quote": self._drawdown,
            "max_drawdown_pct": self._drawdown_pct,
            "exposure_pct": self._exposure_pct(),
            "by_exit_reason": {reason: self._exits[reason].record() for reason in sorted(self._exits)},
            "by_symbol": {name: self._symbol_record(name) for name in sorted(self.symbols)},
            "holding": self._yardstick(averaging=False),
            "averaging_in": self._yardstick(averaging=True) | {"instalments": INSTALMENTS},
            "settings_fingerprint": self._engine.rules.fingerprint,
        }

    def _exposure_pct(self) -> float:
        span_ms = 0 if self._begun_ms is None else self._engine.now_ms - self._begun_ms
        return self._exposed_ms / span_ms * 100 if span_ms else 0.0

    def _symbol_record(self, name: str) -> dict[str, Any]:
        symbol = self.symbols[name]
        return {
            "triggers": symbol.decisions.total(),
            "entered": symbol.decisions["entered"],
            **symbol.tally.record(),
            "fees_quote": symbol.fees,
            "holding_pct": (self._value(name, averaging=False) - 1) * 100,
            "averaging_in_pct": (self._value(name, averaging=True) - 1) * 100,
        }

    def _yardstick(self, averaging: bool) -> dict[str, Any]:
        """Spend the start's cash, an equal share for each symbol, fees and slippage included; value it at the end."""
        values = [self._value(name, averaging) for name in self.symbols]
        final = self._start * (sum(values) / len(values)) if values else self._start
        return {"final_equity_quote": final, "return_pct": self._return_pct(final)}

    def _value(self, name: str, averaging: bool) -> float:
        symbol, last = self.symbols[name], self._engine.states[name].last
        per_quote = 1 / self._paid(symbol.first)
        if averaging:
            late = INSTALMENTS - symbol.instalments
            per_quote = (symbol.bought_per_quote + late * per_quote) / INSTALMENTS
        return per_quote * last

    def _paid(self, price: float) -> float:
        settings = self._engine.settings
        return price * (1 + settings.SLIPPAGE_BPS / 10_000) * (1 + settings.TAKER_FEE_RATE)

    def _return_pct(self, equity: float) -> float | None:
        return (equity / self._start - 1) * 100 if self._start else None
