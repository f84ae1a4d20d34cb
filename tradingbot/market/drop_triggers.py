"""Drop triggers: the threshold under a reference; arming, confirmation and debounce."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["NEVER_MS", "ReferenceSource", "next_trigger", "reference_source", "threshold"]

NEVER_MS = -(2**62)  # longer ago than any debounce


class ReferenceSource(StrEnum):
    """Name the price that drops are measured from."""

    SESSION = "session"
    ROLLING = "rolling"
    HYBRID = "hybrid"
    ANCHOR = "anchor"
    LEGACY_PEAK = "legacy_peak"


def reference_source(anchor_enabled: bool, mode: int) -> ReferenceSource:
    """Return which reference FEATURE_ANCHOR_ENABLED and DROP_TRIGGER_MODE (1 to 4) choose."""
    if not anchor_enabled:
        return ReferenceSource.LEGACY_PEAK
    by_mode = (ReferenceSource.SESSION, ReferenceSource.ROLLING, ReferenceSource.HYBRID, ReferenceSource.ANCHOR)
    return by_mode[mode - 1]


def threshold(reference: float, value: float, zone: float) -> float:
    """Return the price at or under which a drop counts: reference * DROP_TRIGGER_VALUE * zone.

    `zone` is PREDICTIVE_BUY_ZONE_PCT in BUY_MODE PREDICTIVE, else 1 (which changes no bit).
    """
    return reference * value * zone


def drop_pct(last: float, reference: float) -> float:
    """Return how far `last` stands from the reference, in % (negative: below it)."""
    return (last / reference - 1) * 100


def next_trigger(
    last: float,
    threshold: float,
    ts_ms: int,
    armed: bool,
    below: int,
    last_trigger_ms: int,
    first_ms: int,
    rearm_factor: float,
    confirm_ticks: int,
    debounce_ms: float,
    warmup_ms: float,
) -> tuple[bool, int, bool]:
    """Return armed, below and whether the trigger fires, after one tick.

    `rearm_factor` is 1 + HYSTERESIS_BPS / 10000, `last_trigger_ms` NEVER_MS where there was none, `first_ms` the time
    of the session's first tick, `warmup_ms` the lookback under WINDOW_STRICT_WARMUP, else 0.
    """
    below = below + 1 if last <= threshold else 0
    if not armed and last > threshold * rearm_factor:
        armed = True
    fires = (
        armed
        and below > confirm_ticks
        and ts_ms - last_trigger_ms >= debounce_ms
        and (warmup_ms == 0 or ts_ms - first_ms >= warmup_ms)
    )
    return armed and not fires, below, fires
