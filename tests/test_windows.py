"""Rolling windows against a model that keeps every tick and sorts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradingbot.market.windows import RollingWindow, RollingWindowManager

STEPS = st.lists(st.tuples(st.integers(0, 40), st.floats(0.01, 1e6)), min_size=1, max_size=200)


@given(STEPS, st.integers(1, 100))
def test_peak_and_trough_are_those_of_a_sorted_model(steps: list[tuple[int, float]], lookback_ms: int) -> None:
    """At every tick the window knows the highest and the lowest price in (t - lookback, t]."""
    window, kept, t = RollingWindow(), [], 0
    for step, price in steps:
        t += step
        kept.append((t, price))
        assert window.push(t, price, lookback_ms) == window.peak
        inside = sorted(p for ts, p in kept if t - lookback_ms < ts <= t)
        assert (window.trough, window.peak) == (inside[0], inside[-1])
        assert window.peak_ms == max(ts for ts, p in kept if t - lookback_ms < ts and p == window.peak)


@given(STEPS, st.integers(0, 199))
def test_a_window_made_from_its_points_goes_on_alike(steps: list[tuple[int, float]], cut: int) -> None:
    """What a checkpoint keeps of a window is all there is to it."""
    whole, first, t = RollingWindow(), RollingWindow(), 0
    manager = RollingWindowManager()
    other: RollingWindow | None = None
    for i, (step, price) in enumerate(steps):
        t += step
        whole.push(t, price, 100)
        if i == min(cut, len(steps) - 1):
            first.push(t, price, 100)
            manager.load({"X": first.points()})  # type: ignore[dict-item]
            other = manager.window("X")
        elif other is None:
            first.push(t, price, 100)
        else:
            other.push(t, price, 100)
    assert other is not None
    assert (whole.peak, whole.trough, whole.peak_ms) == (other.peak, other.trough, other.peak_ms)


@given(STEPS)
def test_memory_is_bounded_by_the_ticks_inside(steps: list[tuple[int, float]]) -> None:
    """A window holds no tick that has left it."""
    window, t = RollingWindow(), 0
    for step, price in steps:
        t += step
        window.push(t, price, 50)
        assert all(t - 50 < ts <= t for ts, _ in (*window.highs, *window.lows))


def test_a_tick_that_has_left_never_comes_back() -> None:
    """A longer lookback fills up from now on; it does not remember."""
    window = RollingWindow()
    window.push(0, 10.0, 100)
    window.push(60, 5.0, 50)
    assert window.peak == 5.0
    window.push(70, 4.0, 1000)
    assert window.peak == 5.0
    window.clear()
    assert (window.peak, window.trough, window.peak_ms) == (None, None, None)
