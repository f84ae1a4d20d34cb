"""Anchors: what sets them, what clamps them, which saved ones are believed, and that each says where it comes from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import MINUTE, S, T, engine, feed
from tradingbot.config import Settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import AnchorMoved, AnchorReset, SettingsChanged
from tradingbot.market.anchor_manager import AnchorCause, AnchorManager, SavedAnchor, next_anchor
from tradingbot.market.ticker import Ticker

pytestmark = pytest.mark.feature("FEATURE_ANCHOR_ENABLED")


def anchor_of(bot: Engine) -> tuple[float, int, str]:
    anchor = bot.states[S].anchor
    assert anchor is not None
    return anchor.price, anchor.set_ms - T, anchor.cause


def test_the_first_tick_sets_the_anchor_and_a_higher_one_raises_it() -> None:
    """An anchor starts at the window's peak and follows the price up, never down."""
    bot = engine()
    feed(bot, (0, 100.0))
    assert anchor_of(bot) == (100.0, 0, "first")
    feed(bot, (1, 101.0), (2, 99.0))
    assert anchor_of(bot) == (101.0, 1000, "raised")


def test_a_stale_anchor_falls_to_the_window_peak_and_starts_the_session_anew() -> None:
    """After ANCHOR_STALE_MINUTES the drop is measured from what the price has been lately."""
    bot = engine(ANCHOR_STALE_MINUTES=10)
    feed(bot, (0, 100.0), (599, 96.0), (600, 95.0))
    assert anchor_of(bot) == (100.0, 0, "first")  # exactly ten minutes is not stale yet
    feed(bot, (600.001, 94.0))
    assert anchor_of(bot) == (96.0, 600_001, "stale")
    state = bot.states[S]
    assert (state.session_start, state.session_peak, state.first_ms) == (94.0, 96.0, T)
    assert state.anchor is not None
    assert state.anchor.price_ms == T + 599_000


def test_a_loaded_anchor_far_above_the_first_price_is_clamped_once() -> None:
    """A crash while the bot was off does not trigger beyond ANCHOR_MAX_START_DROP_PCT; then the session peak clamps."""
    bot = engine(ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT=50)
    assert bot.load_anchors({S: SavedAnchor(200.0, T - MINUTE)}, T) == {}
    feed(bot, (0, 100.0))
    assert anchor_of(bot) == (100.0 / (1 - 8 / 100), -MINUTE, "start_clamp")
    feed(bot, (1, 90.0))
    assert anchor_of(bot)[0] == 100.0 / (1 - 8 / 100)


def test_an_anchor_never_stands_far_above_the_session_peak() -> None:
    """The peak clamp holds at every tick and leaves the time of setting alone."""
    bot = engine()
    bot.load_anchors({S: SavedAnchor(104.0, T - MINUTE, "raised")}, T)
    feed(bot, (0, 100.0))
    assert anchor_of(bot) == (100.0 * (1 + 0.5 / 100), -MINUTE, "peak_clamp")
    anchor = bot.states[S].anchor
    assert anchor is not None
    assert (anchor.set_cause, anchor.clamp_seq, anchor.clamp_ms) == ("raised", 1, T)


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (SavedAnchor(math.nan, T), "not a finite positive number"),
        (SavedAnchor(math.inf, T), "not a finite positive number"),
        (SavedAnchor(0.0, T), "not a finite positive number"),
        (SavedAnchor(-5.0, T), "not a finite positive number"),
        (SavedAnchor(100.0, T + 60_001), "in the future"),
        (SavedAnchor(100.0, T - 24 * 60 * MINUTE - 1), "24.0 h old"),
        (SavedAnchor(100.0, T + 60_000), None),
        (SavedAnchor(100.0, T - 24 * 60 * MINUTE), None),
    ],
)
def test_a_saved_anchor_is_believed_only_if_it_can_be(saved: SavedAnchor, words: str | None) -> None:
    """What is discarded is discarded with a reason, and leaves no trace."""
    bot = engine()
    discarded = bot.load_anchors({S: saved}, T)
    if words is None:
        assert discarded == {}
        assert bot.states[S].anchor is not None
    else:
        assert words in discarded[S]
        assert S not in bot.states


def test_a_reset_starts_session_window_and_anchor_anew() -> None:
    """`anchors reset` acts at the symbol's next tick, and the anchor says so."""
    bot = engine()
    feed(bot, (0, 100.0), (1, 99.0))
    bot.process(AnchorReset(S))
    assert anchor_of(bot) == (100.0, 0, "first")
    feed(bot, (2, 98.0))
    assert anchor_of(bot) == (98.0, 2000, "reset")
    state = bot.states[S]
    assert (state.session_start, state.session_peak, state.window.peak) == (98.0, 98.0, 98.0)
    feed(bot, (3, 99.0))
    assert anchor_of(bot) == (99.0, 3000, "raised")


def test_a_filled_buy_sets_the_anchor_to_its_price() -> None:
    """After a buy a further drop is measured from where it was bought."""
    bot = engine(GLOBAL_TRADING=True)
    feed(bot, (0, 100.0), (1, 98.0), (2, 98.1))
    assert anchor_of(bot) == (98.1 * (1 + 2 / 10_000), 2000, "fill")


def test_with_the_flag_off_anchors_rest_and_come_back_as_none() -> None:
    """The legacy bot measures from the window peak; switched on again, a symbol is as with no anchor yet."""
    bot = engine()
    feed(bot, (0, 100.0))
    off = Settings(FEATURE_ANCHOR_ENABLED=False, WINDOW_LOOKBACK_S=10)
    bot.process(SettingsChanged(off))
    feed(bot, (1, 102.0), (2, 101.0))
    assert anchor_of(bot) == (100.0, 0, "first")
    assert bot.rules.reference(bot.states[S]) == 102.0
    bot.process(SettingsChanged(Settings(WINDOW_LOOKBACK_S=10)))
    feed(bot, (13, 99.0))
    assert anchor_of(bot) == (99.0, 13_000, "first")


def test_each_change_comes_out_as_a_record_that_names_its_input() -> None:
    """`process` tells every change of an anchor, with the input that made it."""
    bot = engine()
    seen = [
        (output.cause, output.cause_word, output.anchor.price)
        for second, last in enumerate((100.0, 99.0, 101.0))
        for output in bot.process(Ticker(S, T + second, last))
        if isinstance(output, AnchorMoved)
    ]
    assert seen == [(1, "first", 100.0), (3, "raised", 101.0)]


PRICE = st.floats(1e-3, 1e6)


@given(PRICE | st.just(0.0), PRICE, PRICE, st.integers(0, 100), st.sampled_from([0.0, 0.92]), st.floats(1, 1.1))
def test_after_a_tick_the_clamps_hold(
    price: float, last: float, session_peak: float, age: int, divisor: float, factor: float
) -> None:
    """However an anchor came about, it ends at or below both clamps, and at or above the price unless clamped."""
    session_peak = max(session_peak, last)
    new, cause, clamp = next_anchor(price, 0, age, last, session_peak, session_peak, 50.0, divisor, factor)
    assert new <= session_peak * factor
    assert divisor == 0 or new <= last / divisor
    assert clamp is not AnchorCause.NONE or new >= last
    assert (cause is AnchorCause.STALE) == (price != 0 and age > 50)
    assert (cause is AnchorCause.FIRST) == (price == 0)


def test_loading_keeps_the_good_ones_beside_the_bad() -> None:
    """One broken anchor costs no other."""
    manager = AnchorManager(60, 8, 0.5, 24)
    loaded, discarded = manager.load({"A": SavedAnchor(1.0, T), "B": SavedAnchor(-1.0, T)}, T)
    assert sorted(loaded) == ["A"]
    assert sorted(discarded) == ["B"]
