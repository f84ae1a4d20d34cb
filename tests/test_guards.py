"""The guards: each reason on its own, their order, and the second witness of a jump."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.config import Settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Rejected
from tradingbot.market.ticker import Ticker

T = 1_700_000_000_000
S = "BTC/USDT"


def verdict(engine: Engine, ts_ms: int, **members: Any) -> str | None:
    """Return why the engine rejects a ticker, None if it takes it."""
    outputs = engine.tick(Ticker(members.pop("symbol", S), ts_ms, **members))
    reasons = [output.reason for output in outputs if isinstance(output, Rejected)]
    return reasons[0] if reasons else None


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"last": 100.0}, None),
        ({"bid": 99.0, "ask": 101.0}, None),
        ({"last": 100}, None),
        ({"answered_as": "ETHUSDT", "last": 100.0}, "wrong_symbol"),
        ({}, "missing"),
        ({"bid": 99.0}, "missing"),
        ({"last": math.nan}, "not_finite"),
        ({"last": math.inf}, "not_finite"),
        ({"last": "100"}, "not_finite"),
        ({"last": True}, "not_finite"),
        ({"last": 10**400}, "not_finite"),
        ({"last": 100.0, "bid": "x"}, "not_finite"),
        ({"bid": True, "ask": 100.0}, "not_finite"),
        ({"bid": 1e308, "ask": 1.7e308}, "not_finite"),
        ({"last": 0.0}, "not_positive"),
        ({"last": -1.0, "bid": 2.0, "ask": 1.0}, "not_positive"),
        ({"last": 100.0, "bid": 0.0}, "not_positive"),
        ({"last": 100.0, "bid": 101.2, "ask": 101.1}, "crossed"),
        ({"last": 100.0, "bid": 79.0, "ask": 100.0}, "far_quote"),
        ({"last": 100.0, "bid": 80.0, "ask": 120.0}, None),
        ({"last": 100.0, "ask": 121.0}, "far_quote"),
        ({"last": 100.0, "recv_ms": T + 30_000}, None),
        ({"last": 100.0, "recv_ms": T + 30_001}, "stale"),
        ({"last": 100.0, "recv_ms": T, "feed_age_ms": 30_001}, "stale"),
        ({"last": 100.0, "recv_ms": T - 5_000}, None),
        ({"last": 100.0, "recv_ms": T - 5_001}, "future"),
    ],
)
def test_a_first_ticker_is_judged_by_what_it_carries(members: dict[str, Any], reason: str | None) -> None:
    """Every reason that needs no history, at its bound and beyond."""
    assert verdict(Engine(Settings()), T, **members) == reason


def test_time_may_stand_still_but_not_run_back() -> None:
    """The same time with another price is news; the same ticker again, or an earlier one, is none."""
    engine = Engine(Settings())
    assert verdict(engine, T, last=100.0, bid=99.0) is None
    assert verdict(engine, T, last=100.0, bid=99.0) == "duplicate"
    assert verdict(engine, T, last=100.0) is None
    assert verdict(engine, T - 1, last=100.0) == "out_of_order"
    assert verdict(engine, T, last=100.1) is None


def test_a_mid_counts_as_the_last_price_given() -> None:
    """A ticker whose mid equals the last accepted price is its duplicate."""
    engine = Engine(Settings())
    assert verdict(engine, T, last=100.0, bid=99.0, ask=101.0) is None
    assert verdict(engine, T, bid=99.0, ask=101.0) == "duplicate"


def test_a_jump_needs_a_second_witness() -> None:
    """One absurd price changes nothing; two that agree are believed."""
    engine = Engine(Settings())
    assert verdict(engine, T, last=100.0) is None
    assert verdict(engine, T + 1, last=50.0) == "jump"
    assert verdict(engine, T + 2, last=51.0) is None
    assert verdict(engine, T + 3, last=100.0) == "jump"
    assert verdict(engine, T + 4, last=200.0) == "jump"  # a new witness
    assert verdict(engine, T + 5, last=199.0) is None


def test_any_ticker_between_breaks_the_witness() -> None:
    """An accepted or otherwise rejected ticker of the symbol in between asks for a new witness."""
    for between in ({"last": 100.0}, {"last": math.nan}, {"answered_as": "X", "last": 1.0}):
        engine = Engine(Settings())
        assert verdict(engine, T, last=100.0) is None
        assert verdict(engine, T + 1, last=50.0) == "jump"
        verdict(engine, T + 2, **between)
        assert verdict(engine, T + 3, last=50.0) == "jump"


def test_another_symbol_between_breaks_nothing() -> None:
    """Witnesses belong to their symbol."""
    engine = Engine(Settings())
    assert verdict(engine, T, last=100.0) is None
    assert verdict(engine, T + 1, last=50.0) == "jump"
    assert verdict(engine, T + 2, symbol="ETH/USDT", last=3.0) is None
    assert verdict(engine, T + 3, last=50.0) is None


def test_a_refusal_says_the_numbers() -> None:
    """A refusal is a value with a reason and what is behind it."""
    (rejected,) = Engine(Settings()).tick(Ticker(S, T, last=101.0, bid=101.2, ask=101.1))
    assert isinstance(rejected, Rejected)
    assert rejected.detail == "bid 101.2 > ask 101.1"


def test_rejections_are_recorded_ten_times_a_minute_then_counted() -> None:
    """A feed of garbage does not fill the journal; only a recorded rejection takes a number."""
    engine = Engine(Settings())
    whole = [engine.tick(Ticker(S, T + i))[0].whole for i in range(15)]  # type: ignore[union-attr]
    assert whole == [True] * 10 + [False] * 5
    assert engine.seq == 10
    (later,) = engine.tick(Ticker(S, T + 60_000))
    assert isinstance(later, Rejected)
    assert later.whole
    assert later.cause == 11


def test_a_jump_and_the_first_rejection_after_it_are_always_recorded() -> None:
    """They change what may witness, so a replay must see them."""
    engine = Engine(Settings())
    engine.tick(Ticker(S, T, last=100.0))
    for i in range(20):
        engine.tick(Ticker(S, T + i))
    for i in range(20):
        outputs = engine.tick(Ticker(S, T + 100 + i, last=200.0 if i % 2 else 50.0))
        assert [output.whole for output in outputs if isinstance(output, Rejected)] == [True]
    (after,) = engine.tick(Ticker(S, T + 200))
    (further,) = engine.tick(Ticker(S, T + 201))
    assert isinstance(after, Rejected)
    assert isinstance(further, Rejected)
    assert (after.whole, further.whole) == (True, False)


NUMBER = st.floats() | st.integers() | st.booleans() | st.text(max_size=3) | st.none()


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(("last", "bid", "ask", "quote_volume"), NUMBER)), max_size=30))
def test_no_ticker_breaks_the_engine(members: list[dict[str, Any]]) -> None:
    """Whatever stands in a ticker, it is accepted with positive finite prices or rejected with a reason."""
    engine = Engine(Settings(DROP_TRIGGER_VALUE=0.999, GLOBAL_TRADING=True, PAPER_LATENCY_MS=0))
    for i, member in enumerate(members):
        reason = verdict(engine, T + i, **member)
        state = engine.states[S]
        if reason is None:
            assert type(state.last) is float
            assert 0 < state.last < math.inf
            assert state.bid is None or 0 < state.bid < math.inf
