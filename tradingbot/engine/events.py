"""The closed set of the engine's inputs and outputs, to and from records."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from tradingbot.config import Settings
from tradingbot.engine.entries import Check
from tradingbot.market.ticker import Ticker

__all__ = [
    "AnchorMoved",
    "AnchorReset",
    "Cancelled",
    "ClockStep",
    "Condition",
    "ConditionName",
    "Decision",
    "ExitDecided",
    "Filled",
    "Input",
    "Outcome",
    "Output",
    "Parked",
    "Rejected",
    "SettingsChanged",
    "Trade",
    "WindowMoved",
    "to_record",
]


class Outcome(StrEnum):
    """Name what became of a trigger."""

    BLOCKED = "blocked"
    OBSERVED = "observed"
    ENTERED = "entered"


class ConditionName(StrEnum):
    """Name what blocks every entry while it holds."""

    KILLED = "killed"
    DEGRADED = "degraded"
    UNRECONCILED = "unreconciled"
    RESTART = "restart"


# Inputs. Each takes the next `seq`; a ticker too, unless its rejection is only counted.


class SettingsChanged(msgspec.Struct, frozen=True, tag="settings"):
    """Adopt these settings from the next tick on."""

    settings: Settings


class Condition(msgspec.Struct, frozen=True, tag="condition"):
    """Switch a condition that blocks entries on, with why, or off (why None)."""

    name: ConditionName
    why: str | None


class Parked(msgspec.Struct, frozen=True, tag="parked"):
    """Park a symbol, with why, or release it (why None)."""

    symbol: str
    why: str | None


class AnchorReset(msgspec.Struct, frozen=True, tag="anchor_reset"):
    """Start the symbol's session, window and anchor anew at its next tick."""

    symbol: str


class ClockStep(msgspec.Struct, frozen=True, tag="clock_step"):
    """Note that the wall clock was set by `step_ms`; it moves nothing, for the core reads no clock."""

    step_ms: int


Input = Ticker | SettingsChanged | Condition | Parked | AnchorReset | ClockStep


# Outputs. `cause` is the `seq` of the input that they answer, `k` their ordinal in that answer.


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """Say why a ticker was rejected; one that is only counted (`whole` false) took no `seq` and has cause 0."""

    cause: int
    k: int
    ts_ms: int
    symbol: str
    reason: str
    detail: str
    whole: bool


class AnchorFacts(msgspec.Struct, frozen=True):
    """Hold an anchor's price (quote) and provenance, as a record carries it."""

    price: float
    set_ms: int
    set_cause: str
    set_seq: int
    price_ms: int
    clamp: str | None
    clamp_seq: int | None
    clamp_ms: int | None


class Decision(msgspec.Struct, frozen=True, tag="decision"):
    """Hold one trigger and all that explains it."""

    cause: int
    k: int
    decision_id: str
    ts_ms: int
    symbol: str
    last: float
    reference: float
    reference_source: str
    threshold: float
    outcome: Outcome
    reasons: tuple[str, ...]
    drop_pct: float
    bid: float | None
    ask: float | None
    quote_volume: float | None
    mode: int
    window_peak: float
    window_peak_ms: int
    window_trough: float
    session_start: float
    session_peak: float
    anchor: AnchorFacts | None
    checks: tuple[Check, ...]
    fingerprint: str


class ExitDecided(msgspec.Struct, frozen=True, tag="exit"):
    """Say which rule ends a position, at which price (quote) it was seen."""

    cause: int
    k: int
    ts_ms: int
    symbol: str
    decision_id: str
    reason: str
    price: float
    entry: float
    height: float


class Filled(msgspec.Struct, frozen=True, tag="fill"):
    """Hold the fill of an order: quantity in base, price and fee in quote, cash after it."""

    cause: int
    k: int
    ts_ms: int
    symbol: str
    decision_id: str
    side: str
    qty: float
    price: float
    fee: float
    cash: float


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """Say that a pending order ended without a fill, and why."""

    cause: int
    k: int
    ts_ms: int
    symbol: str
    decision_id: str
    side: str
    reason: str


class Trade(msgspec.Struct, frozen=True, tag="trade"):
    """Hold one closed trade: times in ms, quantity in base, prices, fees and profit in quote."""

    cause: int
    k: int
    symbol: str
    decision_id: str
    entry_ms: int
    entry: float
    exit_ms: int
    exit: float
    qty: float
    pnl: float
    reason: str
    fees: float


class AnchorMoved(msgspec.Struct, frozen=True, tag="anchor"):
    """Say that an anchor's price was set or clamped."""

    cause: int
    k: int
    ts_ms: int
    symbol: str
    cause_word: str
    anchor: AnchorFacts


class WindowMoved(msgspec.Struct, frozen=True, tag="window"):
    """Say that peak or trough (quote) of a symbol's window is another one."""

    cause: int
    k: int
    ts_ms: int
    symbol: str
    peak: float
    trough: float


Output = Rejected | Decision | ExitDecided | Filled | Cancelled | Trade | AnchorMoved | WindowMoved


def to_record(output: Output) -> dict[str, Any]:
    """Return an output as a JSON object; `type` names what it is."""
    record: dict[str, Any] = msgspec.to_builtins(output)
    return record
