"""A second, brute-force reading of the behaviour contract: what the engine is held against.
It shares no code with the package."""

import csv
import math
from array import array
from bisect import bisect_right
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

DAY_MS = 86_400_000
MINUTE_MS = 60_000
STEP = 1e-8
Tick = namedtuple("Tick", ("t", "p", "bid", "ask", "volume"))


@dataclass
class Symbol:
    """All that is kept of one symbol."""

    times: list[int] = field(default_factory=list)  # every accepted tick, for good
    prices: Any = field(default_factory=lambda: array("d"))
    start: int = 0  # the ticks before this index have left the window
    tick: Tick | None = None  # the last accepted one
    witness: float | None = None  # `last` of the preceding ticker, if that was rejected as a jump
    peak: float | None = None
    trough: float | None = None
    first_ms: int | None = None  # time of the session's first tick
    session_peak: float = 0.0
    anchor: tuple[float, int, str] | None = None
    loaded: bool = False
    reset: bool = False
    armed: bool = True
    below: int = 0
    trigger_ms: int | None = None
    triggers: int = 0
    exit_ms: int | None = None
    parked: bool = False


def as_float(value: object) -> float | None:
    """Make a number a double, leave None as it is, and make NaN of what is no number, as a bool is none."""
    try:
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            return math.nan
        return None if value is None else float(value)
    except OverflowError:
        return math.inf


class Reference:
    """The contract, section by section."""

    def __init__(self, settings: dict[str, object]) -> None:
        """Begin a session with no symbol, no position and the starting cash."""
        self.settings: dict[str, Any] = dict(settings)
        self.start_quote = self.cash = float(self.settings["PAPER_START_QUOTE"])
        self.decisions: list[dict[str, Any]] = []
        self.trades: list[dict[str, Any]] = []
        self.exits: list[dict[str, Any]] = []
        self.cancelled: list[dict[str, Any]] = []
        self.rejected: dict[str, int] = {}
        self.symbols: dict[str, Symbol] = {}
        self.orders: dict[str, dict[str, Any]] = {}  # by symbol, in the order of their decisions
        self.positions: dict[str, dict[str, Any]] = {}  # by symbol, in the order of their entry fills
        self.conditions: set[str] = set()
        self.now = self.day = -math.inf  # engine time (the highest accepted ts_ms so far) and its day
        self.equity = 0.0
        self.entered: list[int] = []  # engine times of the `entered` decisions
        self.bought: list[int] = []  # engine times of the buy fills
        self.closed: list[tuple[int, float]] = []  # engine times and pnl of the closed trades

    def state(self, symbol: str) -> Symbol:
        """Find what is kept of a symbol."""
        return self.symbols.setdefault(symbol, Symbol())

    def load_anchor(self, symbol: str, price: float, set_ms: int) -> None:
        """Take in a persisted anchor before the symbol's first tick."""
        self.state(symbol).anchor = (float(price), set_ms, "loaded")
        self.state(symbol).loaded = True

    def change_settings(self, settings: dict[str, object]) -> None:
        """Change settings between two ticks."""
        before, self.settings = self.settings, dict(settings)
        if self.settings["FEATURE_ANCHOR_ENABLED"] and not before["FEATURE_ANCHOR_ENABLED"]:
            for state in self.symbols.values():
                state.anchor, state.loaded = None, False
        if before["GLOBAL_TRADING"] and not self.settings["GLOBAL_TRADING"]:
            for symbol in list(self.orders):
                self.cancel(symbol)

    def condition(self, name: str, on: bool) -> None:
        """Switch a condition of the whole engine."""
        (self.conditions.add if on else self.conditions.discard)(name)

    def park(self, symbol: str, on: bool) -> None:
        """Park a symbol, or let it go on."""
        self.state(symbol).parked = on

    def reset(self, symbol: str) -> None:
        """Start session, window and anchor anew at the symbol's next tick."""
        self.state(symbol).reset = True

    def anchor(self, symbol: str) -> tuple[float, int, str] | None:
        """Tell a symbol's anchor: price, time it was set, cause of the last change of its price."""
        return self.state(symbol).anchor

    def window(self, symbol: str) -> tuple[float, float] | None:
        """Tell the peak and trough of the window as of the symbol's last accepted tick."""
        state = self.state(symbol)
        return None if state.peak is None else (state.peak, state.trough)

    def feed(
        self, symbol: str, ts_ms: int, last: Any = None, bid: Any = None, ask: Any = None, quote_volume: Any = None,
        recv_ms: int | None = None, feed_age_ms: int | None = None, answered_as: str | None = None
    ) -> str | None:  # fmt: skip
        """Section 1: take in one ticker and return why it was rejected, or None."""
        state = self.state(symbol)
        last, bid, ask, volume = [as_float(value) for value in (last, bid, ask, quote_volume)]
        if last is None and bid is not None and ask is not None:
            last = (bid + ask) / 2
        tick = Tick(ts_ms, last, bid, ask, None if volume is None or math.isnan(volume) else volume)
        reason = self.guard(state, tick, recv_ms, feed_age_ms) if answered_as is None else "wrong_symbol"
        state.witness = last if reason == "jump" else None
        if reason is None:
            state.tick = tick
            self.accept(symbol, state, tick)
        else:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
        return reason

    def guard(self, state: Symbol, tick: Tick, recv_ms: int | None, feed_age_ms: int | None) -> str | None:
        """Name the first guard behind `wrong_symbol` that fails."""
        t, p, bid, ask, _ = tick
        bound = self.settings["TICKER_MAX_JUMP_PCT"] / 100
        max_age_ms = self.settings["TICKER_MAX_AGE_S"] * 1000
        if p is None and (bid is None or ask is None):
            return "missing"
        prices = [price for price in (p, bid, ask) if price is not None]
        if any(not math.isfinite(price) for price in prices):
            return "not_finite"
        if any(price <= 0 for price in prices):
            return "not_positive"
        if bid is not None and ask is not None and bid > ask:
            return "crossed"
        if any(price is not None and abs(price / p - 1) > bound for price in (bid, ask)):
            return "far_quote"
        before = state.tick
        if before is not None and t < before.t:
            return "out_of_order"
        if before is not None and (t, bid, ask, p) == (before.t, before.bid, before.ask, before.p):
            return "duplicate"
        if recv_ms is not None and (recv_ms - t > max_age_ms or (feed_age_ms is not None and feed_age_ms > max_age_ms)):
            return "stale"
        if recv_ms is not None and t - recv_ms > self.settings["TICKER_MAX_AHEAD_S"] * 1000:
            return "future"
        if before is not None and abs(p / before.p - 1) > bound:
            return None if state.witness is not None and abs(p / state.witness - 1) <= bound else "jump"
        return None

    def accept(self, symbol: str, state: Symbol, tick: Tick) -> None:
        """Take one accepted tick through fill, window, reference, trigger and exits."""
        self.now = max(self.now, tick.t)
        if self.now // DAY_MS > self.day:
            self.day = self.now // DAY_MS
            self.equity = self.cash if self.settings["GLOBAL_TRADING"] else self.start_quote
            for held, position in self.positions.items():
                self.equity = self.equity + position["qty"] * self.symbols[held].tick.p
        if symbol in self.orders and tick.t >= self.orders[symbol]["due_ms"]:
            (self.buy if self.orders[symbol]["side"] == "buy" else self.sell)(symbol, state, tick)
        anew, state.reset = state.reset, False
        self.look_at_window(state, tick, anew)
        reference, source = self.find_reference(state, tick, anew)
        self.look_for_trigger(symbol, state, tick, reference, source)
        self.look_for_exit(symbol, tick)

    def look_at_window(self, state: Symbol, tick: Tick, anew: bool) -> None:
        """Section 2: find the highest and the lowest price of the window by looking at all of it."""
        if anew:
            state.start = len(state.times)
            state.first_ms, state.anchor, state.loaded = None, None, False
        state.times.append(tick.t)
        state.prices.append(tick.p)
        state.start = max(state.start, bisect_right(state.times, tick.t - self.settings["WINDOW_LOOKBACK_S"] * 1000))
        inside = np.frombuffer(state.prices)[state.start :]
        state.peak, state.trough = float(inside.max()), float(inside.min())

    def find_reference(self, state: Symbol, tick: Tick, anew: bool) -> tuple[float, str]:
        """Section 3: find the reference and say which it is."""
        first = state.first_ms is None  # the page's `session_start` is this tick's price, and nothing reads it
        if first:
            state.first_ms, state.session_peak = tick.t, tick.p
        state.session_peak = max(state.session_peak, tick.p)
        if not self.settings["FEATURE_ANCHOR_ENABLED"]:
            return state.peak, "legacy_peak"
        if self.settings["DROP_TRIGGER_MODE"] == 4:
            return self.move_anchor(state, tick.t, tick.p, first, anew), "anchor"
        hybrid = max(state.session_peak, state.peak)
        modes = {1: (state.session_peak, "session"), 2: (state.peak, "rolling"), 3: (hybrid, "hybrid")}
        return modes[self.settings["DROP_TRIGGER_MODE"]]

    def move_anchor(self, state: Symbol, t: int, p: float, first: bool, anew: bool) -> float:
        """Move the anchor in the five steps of mode 4."""
        if state.anchor is None:
            state.anchor = (state.peak, t, "reset" if anew else "first")
        elif t - state.anchor[1] > self.settings["ANCHOR_STALE_MINUTES"] * 60000:
            state.anchor = (state.peak, t, "stale")
            state.session_peak = state.peak
        elif p > state.anchor[0]:
            state.anchor = (p, t, "raised")
        if first and state.loaded:
            limit = p / (1 - self.settings["ANCHOR_MAX_START_DROP_PCT"] / 100)
            if limit < state.anchor[0]:
                state.anchor = (limit, state.anchor[1], "start_clamp")
        limit = state.session_peak * (1 + self.settings["ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT"] / 100)
        if limit < state.anchor[0]:
            state.anchor = (limit, state.anchor[1], "peak_clamp")
        return state.anchor[0]

    def look_for_trigger(self, symbol: str, state: Symbol, tick: Tick, reference: float, source: str) -> None:
        """Section 4: fire if the price has dropped far enough, and decide."""
        s, t, p = self.settings, tick.t, tick.p
        threshold = reference * s["DROP_TRIGGER_VALUE"]
        if s["BUY_MODE"] == "PREDICTIVE":
            threshold = threshold * s["PREDICTIVE_BUY_ZONE_PCT"]
        state.below = state.below + 1 if p <= threshold else 0
        if not state.armed and p > threshold * (1 + s["HYSTERESIS_BPS"] / 10000):
            state.armed = True
        rested = state.trigger_ms is None or t - state.trigger_ms >= s["DEBOUNCE_S"] * 1000
        warm = not s["WINDOW_STRICT_WARMUP"] or t - state.first_ms >= s["WINDOW_LOOKBACK_S"] * 1000
        if not (state.armed and state.below > s["CONFIRM_TICKS"] and rested and warm):
            return
        state.armed, state.trigger_ms, state.triggers = False, t, state.triggers + 1
        decision_id = f"{symbol}:{t}:{state.triggers}"
        reasons = self.reasons(symbol, state, tick)
        outcome = "blocked" if reasons else "entered" if s["GLOBAL_TRADING"] else "observed"
        self.decisions.append(
            {"decision_id": decision_id, "ts_ms": t, "symbol": symbol, "last": p, "reference": reference,
             "reference_source": source, "threshold": threshold, "outcome": outcome, "reasons": reasons,
             "drop_pct": (p / reference - 1) * 100, "window_peak": state.peak, "window_trough": state.trough}
        )  # fmt: skip
        if outcome == "entered":
            self.entered.append(self.now)
            due_ms = t + s["PAPER_LATENCY_MS"]
            self.orders[symbol] = {"side": "buy", "due_ms": due_ms, "decision_id": decision_id}

    def reasons(self, symbol: str, state: Symbol, tick: Tick) -> list[str]:
        """Section 5: name every reason that blocks an entry, in the order of the page."""
        s = self.settings
        t, p, bid, ask, volume = tick
        buys = len([order for order in self.orders.values() if order["side"] == "buy"])
        amount = s["POSITION_SIZE_QUOTE"] * (1 + s["TAKER_FEE_RATE"])
        cash = self.cash if s["GLOBAL_TRADING"] else self.start_quote
        lost = 0.0
        for pnl in [pnl for ms, pnl in self.closed if ms // DAY_MS == self.day and pnl < 0]:
            lost = lost - pnl
        row = max(1, s["MAX_LOSSES_IN_ROW"])
        all_lost = len(self.closed) >= row and all(pnl < 0 for _, pnl in self.closed[-row:])
        bursts = len([ms for ms in self.entered if self.now - ms < s["ENTRY_BURST_S"] * 1000])
        holds = {
            "killed": "killed" in self.conditions,
            "degraded": "degraded" in self.conditions,
            "unreconciled": "unreconciled" in self.conditions,
            "parked": state.parked,
            "restart": "restart" in self.conditions,
            "held": symbol in self.positions or symbol in self.orders,
            "max_positions": len(self.positions) + buys >= s["MAX_CONCURRENT_POSITIONS"],
            "cooldown": state.exit_ms is not None and t - state.exit_ms < s["COOLDOWN_MIN"] * MINUTE_MS,
            "spread": None not in (bid, ask) and (ask - bid) / ((bid + ask) / 2) * 10000 > s["MAX_SPREAD_BPS"],
            "away": ask is not None and ask > p * (1 + s["MAX_ENTRY_AWAY_BPS"] / 10000),
            "volume": volume is not None and volume < s["MIN_24H_QUOTE_VOLUME"],
            "budget": cash - buys * amount < amount,
            "burst": bursts >= s["ENTRY_BURST_MAX"],
            "daily_loss": lost > self.equity * s["MAX_DAILY_LOSS_PCT"] / 100,
            "losses_in_row": all_lost and self.now - self.closed[-1][0] < 60 * MINUTE_MS,
            "trades_per_day": len([ms for ms in self.bought if ms // DAY_MS == self.day]) >= s["MAX_TRADES_PER_DAY"],
        }
        return [reason for reason, it_holds in holds.items() if it_holds]

    def look_for_exit(self, symbol: str, tick: Tick) -> None:
        """Decide the first exit that holds for a held symbol."""
        if symbol not in self.positions:
            return
        s, position = self.settings, self.positions[symbol]
        x, e = tick.bid if tick.bid is not None else tick.p, position["entry"]
        position["xs"].append(x)
        if symbol in self.orders or not s["GLOBAL_TRADING"]:
            return
        h = float(np.frombuffer(position["xs"]).max())
        holds = {
            "stop_loss": x <= e * s["STOP_LOSS_THRESHOLD"],
            "take_profit": x >= e * s["TAKE_PROFIT_THRESHOLD"],
            "trailing_stop": s["USE_TRAILING_STOP"] and h >= e * s["TRAILING_ACTIVATION"]
            and x <= h * s["TRAILING_DISTANCE"],
            "ttl": tick.t - position["entry_ms"] >= s["TRADE_TTL_MIN"] * MINUTE_MS,
        }  # fmt: skip
        for reason in [reason for reason, it_holds in holds.items() if it_holds][:1]:
            decision_id = position["decision_id"]
            self.exits.append({"symbol": symbol, "ts_ms": tick.t, "decision_id": decision_id, "reason": reason})
            due_ms = tick.t + s["PAPER_LATENCY_MS"]
            self.orders[symbol] = {"side": "sell", "due_ms": due_ms, "decision_id": decision_id, "reason": reason}

    def cancel(self, symbol: str) -> None:
        """Cancel the symbol's pending paper order."""
        order = self.orders.pop(symbol)
        self.cancelled.append({"symbol": symbol, "decision_id": order["decision_id"], "side": order["side"]})

    def buy(self, symbol: str, state: Symbol, tick: Tick) -> None:
        """Buy, or cancel where the quantity is 0."""
        s, t, decision_id = self.settings, tick.t, self.orders[symbol]["decision_id"]
        price = (tick.ask if tick.ask is not None else tick.p) * (1 + s["SLIPPAGE_BPS"] / 10000)
        steps = s["POSITION_SIZE_QUOTE"] / price / STEP
        qty = math.floor(steps) * STEP if math.isfinite(steps) else 0.0
        if qty == 0 or not math.isfinite(qty):
            self.cancel(symbol)
            return
        del self.orders[symbol]
        fee = qty * price * s["TAKER_FEE_RATE"]
        self.cash = self.cash - (qty * price + fee)
        position = {"decision_id": decision_id, "entry_ms": t, "entry": price, "qty": qty, "fee": fee, "xs": array("d")}
        self.positions[symbol] = position
        self.bought.append(self.now)
        if s["FEATURE_ANCHOR_ENABLED"] and s["DROP_TRIGGER_MODE"] == 4:
            state.anchor = (price, t, "fill")

    def sell(self, symbol: str, state: Symbol, tick: Tick) -> None:
        """Sell the position and close the trade."""
        price = (tick.bid if tick.bid is not None else tick.p) * (1 - self.settings["SLIPPAGE_BPS"] / 10000)
        order, position = self.orders.pop(symbol), self.positions.pop(symbol)
        qty, entry = position["qty"], position["entry"]
        fee = qty * price * self.settings["TAKER_FEE_RATE"]
        self.cash = self.cash + (qty * price - fee)
        pnl = qty * (price - entry) - (position["fee"] + fee)
        state.exit_ms = tick.t
        self.closed.append((self.now, pnl))
        bought = {name: position[name] for name in ("decision_id", "entry_ms", "entry")}
        sold = {"exit_ms": tick.t, "exit": price, "qty": qty, "pnl": pnl, "reason": order["reason"]}
        self.trades.append({"symbol": symbol, **bought, **sold})


def clean(name: str, value: Any) -> Any:
    """Make a table's cell a time, a symbol, a number or None."""
    if isinstance(value, str) and name != "symbol":
        try:
            value = float(value) if value.strip().lower() not in {"", "null"} else None
        except ValueError:
            return value
    if name == "ts_ms":
        return int(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def read_table(path: Path) -> dict[str, list[Any]]:
    """Read a file as columns, with None where a value is absent."""
    if path.suffix.lower() == ".parquet":
        columns = pq.read_table(path).to_pydict()
    else:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        columns = {name: [row[name] for row in rows] for name in reader.fieldnames or []}
    wanted = ("ts_ms", "symbol", "last", "bid", "ask", "quote_volume", "price", "close")
    return {name: [clean(name, value) for value in columns[name]] for name in wanted if name in columns}


def bar_length(times: list[int], symbols: list[str]) -> int:
    """Find the smallest step > 0 between rows of the same symbol, or 0."""
    steps: list[int] = []
    for symbol in set(symbols):
        own = sorted({ms for ms, name in zip(times, symbols, strict=True) if name == symbol})
        steps += [own[i + 1] - own[i] for i in range(len(own) - 1)]
    return min(steps, default=0)


def foreign_ticks(paths: list[Path]) -> list[tuple]:
    """Section 6: make ticks of foreign files, in the order of (ts_ms, input order)."""
    ticks: list[tuple] = []
    files = [file for path in map(Path, paths) for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    for table in [read_table(file) for file in files if file.suffix.lower() in {".parquet", ".csv"}]:
        times, symbols = table["ts_ms"], table["symbol"]
        absent = [None] * len(times)
        kind = next(name for name in ("last", "price", "close") if name in table)
        bar = bar_length(times, symbols) if kind == "close" else 0
        quotes = [table.get(name, absent) if kind == "last" else absent for name in ("bid", "ask", "quote_volume")]
        ticks += zip(symbols, [ms + bar for ms in times], table[kind], *quotes, strict=True)
    return sorted(ticks, key=lambda tick: tick[1])


def replay(paths: list[Path], settings: dict[str, object]) -> Reference:
    """Feed foreign files to a new reference."""
    reference = Reference(settings)
    for tick in foreign_ticks(paths):
        reference.feed(*tick)
    return reference
