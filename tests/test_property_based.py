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
    Steps,
    Story,
    assert_same_story,
    feed_reference,
    lively_settings,
    make_engine,
    make_reference,
    random_steps,
    to_inputs,
)
from tests.test_replay import FILES, crash_csv
from tradingbot.cli import main
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Input, Output, Rejected, to_record
from tradingbot.market.ticker import Ticker

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
            assert engine.portfolio.account.day_equity == reference.equity
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
    steps = random_steps(rng, 4000)
    story = compare({**lively_settings(rng), "PAPER_START_QUOTE": 1000}, {}, steps)
    assert len(story.decisions) > 20
    assert len(story.trades) > 3


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
    recorded: list[Input] = []
    outputs: list[Output] = []
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
