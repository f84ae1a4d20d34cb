"""What the engine remembers (symbols, orders, positions, the account), and the rules made from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from tradingbot.config import Settings, fingerprint
from tradingbot.engine.paper_broker import PaperBroker, Slippage, TakerFee
from tradingbot.market.anchor_manager import Anchor, AnchorManager
from tradingbot.market.drop_triggers import NEVER_MS, ReferenceSource, reference_source
from tradingbot.market.windows import Point, RollingWindow

__all__ = ["DAY_MS", "NO_TICK_MS", "Account", "Checkpoint", "Order", "Position", "Rules", "SymbolMemory", "SymbolState"]

DAY_MS = 86_400_000
NO_TICK_MS = (
    2**62
)  # the last accepted tick of a symbol without one: no tick is later, so the first one meets every guard


@dataclass(slots=True)
class Order:
    """Hold a pending paper order: it fills on the symbol's first tick at or after `due_ms`."""

    side: str  # buy or sell
    decision_id: str
    decided_ms: int
    due_ms: int
    cause: int
    reason: str = ""  # of a sell: the exit rule


@dataclass(slots=True)
class Position:
    """Hold an open position: quantity in base, prices and fee in quote, `height` the highest exit price since entry."""

    symbol: str
    decision_id: str
    entry_ms: int
    entry: float
    qty: float
    fee: float
    height: float


@dataclass(slots=True)
class SymbolMemory:
    """Hold every scalar of one symbol: what a checkpoint keeps of it."""

    symbol: str
    # the last accepted tick, and the witness of a jump just rejected
    ts_ms: int = NO_TICK_MS
    last: float = 0.0
    bid: float | None = None
    ask: float | None = None
    witness: float | None = None
    # the session; `fresh` until its first tick, `reset` where the operator asked for it
    fresh: bool = True
    reset: bool = False
    first_ms: int = 0
    session_start: float = 0.0
    session_peak: float = 0.0
    # mode 4; `loaded` until the first tick after a cold start with a saved anchor
    anchor: Anchor | None = None
    loaded: bool = False
    # the trigger
    armed: bool = True
    below: int = 0
    last_trigger_ms: int = NEVER_MS
    triggers: int = 0
    # trading
    parked: str | None = None
    order: Order | None = None
    position: Position | None = None
    last_exit_ms: int | None = None
    # rejections written whole, by reason: the minute and how many in it
    rejected: dict[str, tuple[int, int]] = field(default_factory=dict)

    def begun_anew(self) -> SymbolMemory:
        """Return the memory without window, session and trigger: only what was bought of the symbol, and its parking.

        The last price stays for the account's equity; no guard looks at it before the first tick.
        """
        return SymbolMemory(
            self.symbol, last=self.last, parked=self.parked, order=self.order, position=self.position,
            last_exit_ms=self.last_exit_ms,
        )  # fmt: skip


class SymbolState(SymbolMemory):
    """Hold a symbol's memory beside its window, which belongs to the RollingWindowManager.

    `special` says that there may be more to a tick than its price: it is false only where no jump has a witness, there
    is no order, no position, no session to begin and no saved anchor, and the anchor stands at or under the session's
    peak (no clamp can reach it there, and the peak only rises). `look` keeps it so; the tick path asks this one
    question in place of six.
    `highs` and `lows` are the window's own; `oldest_ms` is the time of the oldest end of either, or earlier.
    """

    __slots__ = ("highs", "lows", "oldest_ms", "special", "window")

    def __init__(self, window: RollingWindow, memory: SymbolMemory) -> None:
        super().__init__(**{field.name: getattr(memory, field.name) for field in fields(memory)})
        if not self.fresh and not window.highs:
            window.push(self.ts_ms, self.last, 1)  # a window without its points still holds the last tick
        self.window, self.highs, self.lows = window, window.highs, window.lows
        self.oldest_ms = -(2**62)
        self.look()

    def look(self) -> None:
        """Find out anew whether there may be more to the next tick than its price."""
        self.special = (
            self.fresh
            or self.loaded
            or self.witness is not None
            or self.order is not None
            or self.position is not None
            or (self.anchor is not None and self.anchor.price > self.session_peak)
        )


@dataclass(slots=True)
class Account:
    """Hold cash and the counters that the rules across symbols need; all in quote."""

    cash: float
    day: int = -(2**62)  # UTC days since the epoch; it only moves forward
    day_equity: float = 0.0
    day_losses: float = 0.0
    day_buys: int = 0
    losses_in_row: int = 0
    last_close_ms: int | None = None
    entered_ms: list[int] = field(default_factory=list)  # entries of the last day, oldest first


@dataclass(slots=True)
class Checkpoint:
    """Hold all that the engine remembers between two inputs."""

    seq: int
    now_ms: int
    settings: Settings
    amount_steps: dict[str, float]
    account: Account
    conditions: dict[str, str]
    symbols: list[SymbolMemory]
    positions: list[str]  # in the order of their entries
    orders: list[str]  # in the order of their decisions
    windows: dict[str, dict[str, list[Point]]]


def _whole(ms: float) -> float:
    return int(ms) if ms.is_integer() else ms  # the same number: two integers are compared twice as fast


class Rules:
    """Hold the engine's settings in the units that a tick is measured in."""

    __slots__ = (
        "anchors",
        "broker",
        "confirm_ticks",
        "debounce_ms",
        "fingerprint",
        "hot",
        "jump",
        "latency_ms",
        "lookback_ms",
        "max_age_ms",
        "max_ahead_ms",
        "rearm_factor",
        "settings",
        "source",
        "stale_ms",
        "trading",
        "uses_anchor",
        "value",
        "warmup_ms",
        "zone",
    )

    def __init__(self, settings: Settings, amount_steps: Mapping[str, float]) -> None:
        s = settings
        self.settings = s
        self.fingerprint = fingerprint(s)
        self.broker = PaperBroker(TakerFee(s.TAKER_FEE_RATE), Slippage(s.SLIPPAGE_BPS), amount_steps)
        self.trading = s.GLOBAL_TRADING
        self.source: ReferenceSource = reference_source(s.FEATURE_ANCHOR_ENABLED, s.DROP_TRIGGER_MODE)
        self.uses_anchor = self.source is ReferenceSource.ANCHOR
        self.anchors = AnchorManager(
            s.ANCHOR_STALE_MINUTES,
            s.ANCHOR_MAX_START_DROP_PCT,
            s.ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT,
            s.ANCHOR_MAX_AGE_HOURS,
        )
        self.stale_ms = self.anchors.stale_ms
        self.jump = s.TICKER_MAX_JUMP_PCT / 100
        self.max_age_ms = s.TICKER_MAX_AGE_S * 1000
        self.max_ahead_ms = s.TICKER_MAX_AHEAD_S * 1000
        self.lookback_ms = s.WINDOW_LOOKBACK_S * 1000
        self.warmup_ms = self.lookback_ms if s.WINDOW_STRICT_WARMUP else 0.0
        self.value = s.DROP_TRIGGER_VALUE
        self.zone = s.PREDICTIVE_BUY_ZONE_PCT if s.BUY_MODE == "PREDICTIVE" else 1.0
        self.rearm_factor = 1 + s.HYSTERESIS_BPS / 10_000
        self.confirm_ticks = s.CONFIRM_TICKS
        self.debounce_ms = s.DEBOUNCE_S * 1000
        self.latency_ms = s.PAPER_LATENCY_MS

        # what the tick path reads at every tick, unpacked at once: cheaper than one attribute after the other
        self.hot = (
            self.jump,
            -min(self.jump, 0.5),  # who keeps above half of a positive price is positive
            _whole(self.lookback_ms),
            self.uses_anchor,
            _whole(self.stale_ms),
            self.value,
            self.zone,
        )

    def reference(self, state: SymbolState) -> float:
        """Return the reference price (quote) of a symbol that has had a tick."""
        if self.uses_anchor and state.anchor is not None:
            return state.anchor.price
        peak = state.window.highs[0][1]
        if self.source is ReferenceSource.SESSION:
            return state.session_peak
        if self.source is ReferenceSource.HYBRID:
            return max(state.session_peak, peak)
        return peak
