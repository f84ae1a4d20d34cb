"""Drop triggers: threshold, arming, confirmation, debounce and warm-up, in every mode."""

from __future__ import annotations

import pytest

from tests.helpers import T, decisions, engine, feed
from tradingbot.engine.engine import Engine


def fired(bot: Engine, *ticks: tuple[float, float]) -> list[float]:
    """Return when it fired, in seconds."""
    return [(decision.ts_ms - T) / 1000 for decision in decisions(feed(bot, *ticks))]


def test_it_fires_at_the_threshold_and_not_above() -> None:
    """A drop of exactly 1.5 % is a drop of 1.5 %."""
    assert fired(engine(), (0, 100.0), (1, 98.5)) == [1]
    assert fired(engine(), (0, 100.0), (1, 98.51)) == []


def test_it_fires_once_until_the_price_has_recovered() -> None:
    """Another trigger needs the price above the threshold by HYSTERESIS_BPS first."""
    assert fired(engine(), (0, 100.0), (1, 98.0), (9, 97.0), (10, 98.52), (19, 98.0)) == [1]
    assert fired(engine(), (0, 100.0), (1, 98.0), (9, 97.0), (10, 98.56), (19, 98.0)) == [1, 19]


def test_debounce_holds_a_second_trigger_back_but_not_for_good() -> None:
    """Within DEBOUNCE_S nothing fires; at its end the armed trigger does."""
    assert fired(engine(), (0, 100.0), (1, 98.0), (2, 99.0), (3, 98.0), (3.999, 98.0), (4, 98.0)) == [1, 4]


def test_confirmation_asks_for_ticks_in_a_row() -> None:
    """CONFIRM_TICKS further ticks must stay at or under the threshold."""
    ticks = ((0, 100.0), (1, 98.0), (2, 99.0), (3, 98.0), (4, 98.0), (5, 98.0))
    assert fired(engine(CONFIRM_TICKS=2), *ticks) == [5]


def test_strict_warm_up_waits_for_one_whole_window() -> None:
    """With WINDOW_STRICT_WARMUP nothing fires before the first tick is WINDOW_LOOKBACK_S old."""
    ticks = ((0, 100.0), (1, 98.0), (59.999, 98.0), (60, 98.0))
    assert fired(engine(WINDOW_STRICT_WARMUP=True, WINDOW_LOOKBACK_S=60), *ticks) == [60]


def test_predictive_mode_lowers_the_threshold() -> None:
    """BUY_MODE PREDICTIVE multiplies the threshold by its zone."""
    (decision,) = decisions(feed(engine(BUY_MODE="PREDICTIVE"), (0, 100.0), (1, 98.1), (2, 98.0)))
    assert decision.last == 98.0
    assert decision.threshold == 100.0 * 0.985 * 0.995


@pytest.mark.parametrize(
    ("settings", "source", "reference"),
    [
        ({"DROP_TRIGGER_MODE": 1}, "session", 110.0),
        ({"DROP_TRIGGER_MODE": 2}, "rolling", 100.0),
        ({"DROP_TRIGGER_MODE": 3}, "hybrid", 110.0),
        ({"DROP_TRIGGER_MODE": 4, "ANCHOR_STALE_MINUTES": 5}, "anchor", 99.0),
        ({"FEATURE_ANCHOR_ENABLED": False}, "legacy_peak", 100.0),
        ({"FEATURE_ANCHOR_ENABLED": False, "DROP_TRIGGER_MODE": 1}, "legacy_peak", 100.0),
    ],
)
def test_each_mode_measures_from_its_own_reference(settings: dict[str, object], source: str, reference: float) -> None:
    """The same prices, five references."""
    ticks = ((0, 110.0), (400, 99.0), (500, 100.0), (800, 97.0)) if source == "anchor" else (
        (0, 110.0), (400, 100.0), (410, 97.0), (411, 100.0), (500, 97.0))  # fmt: skip
    bot = engine(**settings)
    last = decisions(feed(bot, *ticks))[-1]
    assert last.reference_source == source
    if source != "anchor":
        assert last.reference == reference


def test_a_decision_is_named_by_symbol_time_and_count() -> None:
    """The id is unique within a session and says what it is about."""
    outputs = feed(engine(), (0, 100.0), (1, 98.0), (2, 99.0), (5, 98.0))
    assert [d.decision_id for d in decisions(outputs)] == [f"BTC/USDT:{T + 1000}:1", f"BTC/USDT:{T + 5000}:2"]


def test_a_decision_explains_itself_down_to_the_tick_that_set_its_anchor() -> None:
    """Price, reference, threshold, window, anchor with its input, and every check with value and limit."""
    (d,) = decisions(feed(engine(), (0, 99.0), (1, 100.0), (2, 99.5), (3, 98.0, 97.9, 98.1, 5e6)))
    assert d.anchor is not None
    assert (d.anchor.price, d.anchor.set_ms, d.anchor.set_cause, d.anchor.set_seq) == (100.0, T + 1000, "raised", 2)
    assert (d.cause, d.k, d.window_peak, d.window_peak_ms, d.window_trough) == (4, 0, 100.0, T + 1000, 98.0)
    assert d.drop_pct == (98.0 / 100.0 - 1) * 100
    checks = {check.name: check for check in d.checks}
    assert (checks["volume"].value, checks["volume"].limit, checks["volume"].blocks) == (5e6, 100_000, False)
    assert (checks["away"].value, checks["away"].limit) == (98.1, 98.0 * (1 + 30 / 10_000))
    assert len(d.checks) == 16
