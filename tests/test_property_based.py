"""Laws: the engine is what the contract says, to the bit; and a restored engine is the one that never stopped."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference as second
from tests.sessions import (
    ANCHORS,
    PAPER_START,
    SETTINGS,
    STEPS,
    Control,
    Move,
    Story,
    assert_same_story,
    feed_reference,
    make_engine,
    make_reference,
    to_inputs,
)
from tests.test_replay import FILES, crash_csv
from tradingbot.cli import main
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Rejected, to_record
from tradingbot.market.ticker import Ticker

Steps = list[Move | Control]
Anchors = dict[str, tuple[float, int]]


def compare(chosen: dict[str, Any], anchors: Anchors, steps: Steps) -> Story:
    """Run both readings over the steps and hold them against each other at every input."""
    engine, reference, story = make_engine(chosen, anchors), make_reference(chosen, anchors), Story()
    for event in to_inputs(steps, chosen["PAPER_START_QUOTE"]):
        outputs = engine.process(event)
        story.take(outputs)
        why = feed_reference(reference, event)
        if isinstance(event, Ticker):
            refused = [output.reason for output in outputs if isinstance(output, Rejected)]
            assert refused == ([] if why is None else [why])
            state, kept = engine.states[event.symbol], state_anchor(engine, event.symbol)
            if not state.fresh:
                assert (state.window.peak, state.window.trough) == reference.window(event.symbol)
            assert kept == reference.anchor(event.symbol)
    assert_same_story(story, reference)
    assert engine.portfolio.account.cash == reference.cash
    return story


def state_anchor(engine: Engine, symbol: str) -> tuple[float, int, str] | None:
    anchor = engine.states[symbol].anchor
    return None if anchor is None else (anchor.price, anchor.set_ms, anchor.cause)


@given(SETTINGS, PAPER_START, ANCHORS, STEPS)
@settings(max_examples=400)
def test_the_engine_agrees_with_a_second_reading_of_the_contract(
    chosen: dict[str, Any], start: float, anchors: Anchors, steps: Steps
) -> None:
    """Every rejection, window, anchor, decision, exit and trade is the same, double for double."""
    story = compare({**chosen, "PAPER_START_QUOTE": start}, anchors, steps)
    note(f"triggers: {min(len(story.decisions), 5)}")
    note(f"trades: {min(len(story.trades), 3)}")


@pytest.mark.parametrize("seed", range(12))
def test_the_engine_agrees_over_long_sessions(seed: int) -> None:
    """Thousands of ticks of several symbols, settings changing under way: deep states that short ones never reach."""
    rng = random.Random(seed)
    symbols = ("BTC/USDT", "ETH/USDT", "X/USDT")
    steps: Steps = []
    for _ in range(4000):
        if rng.random() < 0.002:
            steps.append(Control("settings", long_settings(rng)))
            continue
        book = rng.choice(("none", "tight", "tight", "tight", "wide", "crossed", "mid", "bid"))
        gap = rng.choice((0, 1, 250, 900, 900, 3000, 20_000, -1))
        steps.append(Move(rng.choice(symbols), gap, int(rng.gauss(0, 40)), book, rng.choice((None, 5e6, 10.0))))
    story = compare({**long_settings(rng), "PAPER_START_QUOTE": 1000}, {}, steps)
    assert len(story.decisions) > 20
    assert len(story.trades) > 3


def long_settings(rng: random.Random) -> dict[str, Any]:
    return {
        "GLOBAL_TRADING": rng.random() < 0.9,
        "FEATURE_ANCHOR_ENABLED": rng.random() < 0.8,
        "DROP_TRIGGER_MODE": rng.choice((1, 2, 3, 4, 4)),
        "DROP_TRIGGER_VALUE": rng.choice((0.99, 0.995)),
        "COOLDOWN_MIN": rng.choice((0, 1)),
        "ANCHOR_STALE_MINUTES": rng.choice((2, 60)),
        "USE_TRAILING_STOP": rng.random() < 0.5,
        "MAX_LOSSES_IN_ROW": rng.choice((3, 50)),
        "MAX_ENTRY_AWAY_BPS": 200,
        "MAX_SPREAD_BPS": 250,
        "ENTRY_BURST_MAX": rng.choice((2, 20)),
    }


@given(SETTINGS, PAPER_START, ANCHORS, STEPS, st.data())
@settings(max_examples=200)
def test_a_restored_engine_goes_on_as_the_one_that_never_stopped(
    chosen: dict[str, Any], start: float, anchors: Anchors, steps: Steps, data: st.DataObject
) -> None:
    """At any input: through JSON and back, every later output and the final checkpoint are equal, byte for byte."""
    whole = make_engine({**chosen, "PAPER_START_QUOTE": start}, anchors)
    inputs = to_inputs(steps, start)
    cut = data.draw(st.integers(0, len(inputs)))
    for event in inputs[:cut]:
        whole.process(event)
    restored = Engine(make_settings({}))
    restored.restore(orjson.loads(orjson.dumps(whole.checkpoint_record())))
    assert restored.checkpoint_record() == whole.checkpoint_record()
    for event in inputs[cut:]:
        ours = [orjson.dumps(to_record(output)) for output in restored.process(event)]
        assert ours == [orjson.dumps(to_record(output)) for output in whole.process(event)]
    assert orjson.dumps(restored.checkpoint_record()) == orjson.dumps(whole.checkpoint_record())


@given(SETTINGS, ANCHORS, STEPS)
@settings(max_examples=100)
def test_rejections_that_were_only_counted_change_nothing(
    chosen: dict[str, Any], anchors: Anchors, steps: Steps
) -> None:
    """A replay of what took a number, and of nothing else, gives the same outputs under the same numbers."""
    inputs = to_inputs([step for step in steps for _ in range(3)], 1000)
    live = make_engine(chosen, anchors)
    recorded, outputs = [], []
    for event in inputs:
        before = live.seq
        answer = live.process(event)
        if live.seq > before:
            recorded.append(event)
            outputs += answer
    again = make_engine(chosen, anchors)
    assert [output for event in recorded for output in again.process(event)] == outputs
    assert again.checkpoint_record() == live.checkpoint_record()


@given(SETTINGS, STEPS)
@settings(max_examples=50)
def test_equal_inputs_give_equal_outputs(chosen: dict[str, Any], steps: Steps) -> None:
    """The engine has no memory but its own."""
    inputs = to_inputs(steps, 1000)
    one, two = make_engine(chosen, {}), make_engine(chosen, {})
    assert [one.process(event) for event in inputs] == [two.process(event) for event in inputs]


def replay_both(paths: list[Path], out: Path, chosen: dict[str, Any]) -> None:
    """Hold the command's files against the second reading's own replay of the same data."""
    words = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
    assert main(["replay", *map(str, paths), "--out", str(out), *words]) == 0
    reference = second.replay(paths, msgspec.structs.asdict(make_settings(chosen)))
    for name, expected in (("decisions", reference.decisions), ("trades", reference.trades)):
        lines = [orjson.loads(line) for line in (out / f"{name}.jsonl").read_bytes().splitlines()]
        assert [{key: line[key] for key in row} for line, row in zip(lines, expected, strict=True)] == expected
    summary = orjson.loads((out / "summary.json").read_bytes())
    assert summary["rejected"] == {reason: count for reason, count in reference.rejected.items() if count}
    assert summary["final_quote"] == reference.cash
    assert summary["ticks"] == len(second.foreign_ticks(paths))


VARIANTS: list[dict[str, Any]] = [
    {"GLOBAL_TRADING": True},
    {"DROP_TRIGGER_MODE": 1, "DROP_TRIGGER_VALUE": 0.99, "BUY_MODE": "PREDICTIVE"},
    {"GLOBAL_TRADING": True, "DROP_TRIGGER_MODE": 2, "DROP_TRIGGER_VALUE": 0.995, "USE_TRAILING_STOP": True},
    {"GLOBAL_TRADING": True, "DROP_TRIGGER_MODE": 3, "CONFIRM_TICKS": 1, "HYSTERESIS_BPS": 20},
    {"GLOBAL_TRADING": True, "FEATURE_ANCHOR_ENABLED": False, "DROP_TRIGGER_VALUE": 0.998, "COOLDOWN_MIN": 1},
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_both_readings_agree_on_real_markets(
    market_data: Callable[[str], Path], tmp_path: Path, name: str, variant: int
) -> None:
    """Every decision, threshold and trade over real quotes, trades and candles."""
    replay_both([market_data(name)], tmp_path, VARIANTS[variant])


def test_both_readings_agree_on_several_files_at_once(market_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Files of overlapping times and different bars are one session."""
    paths = [market_data(FILES[1]), market_data(FILES[0]), market_data(FILES[5]), market_data(FILES[6])]
    replay_both(paths, tmp_path, {"GLOBAL_TRADING": True, "DROP_TRIGGER_VALUE": 0.99})


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_both_readings_agree_on_a_synthetic_crash(tmp_path: Path, variant: int) -> None:
    """The same where there is no real data at hand."""
    replay_both([crash_csv(tmp_path / "crash.csv")], tmp_path / "out", VARIANTS[variant])
