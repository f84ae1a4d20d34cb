"""Anchors: the persistent reference price, with the tick and the rule that set it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Anchor", "AnchorCause", "AnchorManager", "SavedAnchor", "next_anchor"]

MAX_FUTURE_MS = 60_000  # a saved anchor set further ahead of now than this is not believed


class AnchorCause(IntEnum):
    """Name what set or clamped an anchor; integers, so that a compiled kernel can share the rule."""

    NONE = 0
    FIRST = 1
    STALE = 2
    RAISED = 3
    START_CLAMP = 4
    PEAK_CLAMP = 5
    FILL = 6
    RESET = 7

    @property
    def word(self) -> str:
        """Return the cause as records spell it."""
        return self.name.lower()


@dataclass(slots=True)
class Anchor:
    """Hold an anchor and where it comes from.

    `set_ms`, `set_cause` and `set_seq` tell when, why and by which input its price was last set; `price_ms` is the time
    of the tick that the price was taken from (the window's peak may be older than the input). `clamp` is the clamp that
    has lowered it since, with its input and time; None where none has.
    """

    price: float
    set_ms: int
    set_cause: str
    set_seq: int
    price_ms: int
    clamp: str | None = None
    clamp_seq: int | None = None
    clamp_ms: int | None = None

    @property
    def cause(self) -> str:
        """Return what last changed the price."""
        return self.clamp or self.set_cause

    @property
    def changed_seq(self) -> int:
        """Return the input that last changed the price."""
        return self.set_seq if self.clamp_seq is None else self.clamp_seq


@dataclass(frozen=True, slots=True)
class SavedAnchor:
    """Hold what is persisted of an anchor: price (quote), when it was set, why, and the time of the price's tick."""

    price: float
    set_ms: int
    cause: str = "loaded"
    price_ms: int | None = None


def next_anchor(
    price: float,
    set_ms: int,
    ts_ms: int,
    last: float,
    peak: float,
    session_peak: float,
    stale_ms: float,
    start_divisor: float,
    clamp_factor: float,
) -> tuple[float, AnchorCause, AnchorCause]:
    """Return the anchor's new price, what set it and what clamped it (AnchorCause.NONE where nothing did).

    `price` is 0 where there is no anchor yet; `peak` is the window's and `session_peak` the session's, both with this
    tick in; `start_divisor` is 1 - ANCHOR_MAX_START_DROP_PCT / 100 at a symbol's first tick after a cold start with a
    loaded anchor, else 0; `clamp_factor` is 1 + ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT / 100. Where the cause is STALE the
    session starts anew at this tick with `session_peak = peak`.
    """
    cause = clamp = AnchorCause.NONE
    if price == 0:
        price, cause = peak, AnchorCause.FIRST
    elif ts_ms - set_ms > stale_ms:
        price, cause = peak, AnchorCause.STALE
        session_peak = peak
    elif last > price:
        price, cause = last, AnchorCause.RAISED
    if start_divisor != 0 and last / start_divisor < price:
        price, clamp = last / start_divisor, AnchorCause.START_CLAMP
    if session_peak * clamp_factor < price:
        price, clamp = session_peak * clamp_factor, AnchorCause.PEAK_CLAMP
    return price, cause, clamp


class AnchorManager:
    """Apply the anchor rules under one set of settings, and keep account of what set each anchor."""

    __slots__ = ("clamp_factor", "max_age_hours", "stale_ms", "start_divisor")

    def __init__(
        self, stale_minutes: float, max_start_drop_pct: float, max_above_peak_pct: float, max_age_hours: float
    ):
        self.stale_ms = stale_minutes * 60_000
        self.start_divisor = 1 - max_start_drop_pct / 100
        self.clamp_factor = 1 + max_above_peak_pct / 100
        self.max_age_hours = max_age_hours

    def advance(
        self,
        anchor: Anchor | None,
        seq: int,
        ts_ms: int,
        last: float,
        peak: float,
        peak_ms: int,
        session_peak: float,
        first_cause: AnchorCause = AnchorCause.FIRST,
        start: bool = False,
    ) -> tuple[Anchor, bool]:
        """Return the anchor after one tick, and whether it was stale (the session starts anew at this tick).

        `peak` and `peak_ms` are the window's peak and its time; `first_cause` is RESET where the operator asked for a
        new anchor; `start` marks a symbol's first tick after a cold start with a loaded anchor.
        """
        price, set_ms = (anchor.price, anchor.set_ms) if anchor else (0.0, 0)
        divisor = self.start_divisor if start else 0.0
        price, cause, clamp = next_anchor(
            price, set_ms, ts_ms, last, peak, session_peak, self.stale_ms, divisor, self.clamp_factor
        )
        if anchor is None or cause is not AnchorCause.NONE:
            word = first_cause.word if cause is AnchorCause.FIRST else cause.word
            anchor = Anchor(price, ts_ms, word, seq, ts_ms if cause is AnchorCause.RAISED else peak_ms)
        if clamp is not AnchorCause.NONE:
            anchor.price = price
            anchor.clamp, anchor.clamp_seq, anchor.clamp_ms = clamp.word, seq, ts_ms
        return anchor, cause is AnchorCause.STALE

    def filled(self, seq: int, ts_ms: int, price: float) -> Anchor:
        """Return the anchor that a filled buy sets."""
        return Anchor(price, ts_ms, AnchorCause.FILL.word, seq, ts_ms)

    def load(self, saved: Mapping[str, SavedAnchor], now_ms: int) -> tuple[dict[str, Anchor], dict[str, str]]:
        """Return the saved anchors that may be believed, and those discarded, by symbol, each with why."""
        loaded: dict[str, Anchor] = {}
        discarded: dict[str, str] = {}
        for symbol, anchor in saved.items():
            why = discard_reason(anchor, now_ms, self.max_age_hours)
            if why:
                discarded[symbol] = why
            else:
                price_ms = anchor.set_ms if anchor.price_ms is None else anchor.price_ms
                loaded[symbol] = Anchor(anchor.price, anchor.set_ms, anchor.cause, 0, price_ms)
        return loaded, discarded


def discard_reason(anchor: SavedAnchor, now_ms: int, max_age_hours: float) -> str | None:
    """Return why a saved anchor is not believed, or None if it is."""
    if not math.isfinite(anchor.price) or anchor.price <= 0:
        return f"price {anchor.price!r} is not a finite positive number"
    if anchor.set_ms - now_ms > MAX_FUTURE_MS:
        return f"set {(anchor.set_ms - now_ms) / 1000:.0f} s in the future"
    if now_ms - anchor.set_ms > max_age_hours * 3_600_000:
        return f"{(now_ms - anchor.set_ms) / 3_600_000:.1f} h old"
    return None
