"""Sessions made by hypothesis: settings, ticks good and bad, control inputs; for the engine and a second reading."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st

from tests.reference import Reference
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import (
    AnchorReset,
    Cancelled,
    Condition,
    ConditionName,
    Decision,
    ExitDecided,
    Input,
    Output,
    Parked,
    Rejected,
    SettingsChanged,
    Trade,
)
from tradingbot.market.anchor_manager import SavedAnchor
from tradingbot.market.ticker import Ticker

SYMBOLS = ("BTC/USDT", "ETH/USDT", "X/USDT")
LAG_MS = {"BTC/USDT": 0, "ETH/USDT": 0, "X/USDT": 2600}  # so that time differs between symbols
START_MS = 1_700_006_300_000  # 90 minutes before midnight UTC

SETTINGS = st.fixed_dictionaries(
    # what makes things happen: with the defaults nine sessions in ten see no trigger
    {
        "GLOBAL_TRADING": st.sampled_from([True, True, True, False]),
        "DROP_TRIGGER_VALUE": st.sampled_from([0.999, 0.995, 0.985]),
        "MAX_SPREAD_BPS": st.sampled_from([5000, 50, 10]),
        "MAX_ENTRY_AWAY_BPS": st.sampled_from([5000, 30, 0]),
        "COOLDOWN_MIN": st.sampled_from([0, 0.05, 15]),
        "ENTRY_BURST_MAX": st.sampled_from([50, 2, 1]),
    },
    optional={
        "FEATURE_ANCHOR_ENABLED": st.booleans(),
        "DROP_TRIGGER_MODE": st.sampled_from([1, 2, 3, 4, 4, 4]),
        "BUY_MODE": st.sampled_from(["RAW", "PREDICTIVE"]),
        "WINDOW_LOOKBACK_S": st.sampled_from([1, 5, 60, 300]),
        "WINDOW_STRICT_WARMUP": st.booleans(),
        "ANCHOR_STALE_MINUTES": st.sampled_from([0.1, 1, 60]),
        "ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT": st.sampled_from([0, 0.5, 20]),
        "ANCHOR_MAX_START_DROP_PCT": st.sampled_from([0, 1, 8]),
        "HYSTERESIS_BPS": st.sampled_from([0, 5, 40]),
        "CONFIRM_TICKS": st.sampled_from([0, 0, 1, 2]),
        "DEBOUNCE_S": st.sampled_from([0, 3]),
        "TICKER_MAX_JUMP_PCT": st.sampled_from([3, 20]),
        "TICKER_MAX_AGE_S": st.sampled_from([1, 30]),
        "POSITION_SIZE_QUOTE": st.sampled_from([25, 90.5]),
        "MAX_CONCURRENT_POSITIONS": st.sampled_from([1, 3]),
        "ENTRY_BURST_S": st.sampled_from([0, 3, 60]),
        "MAX_DAILY_LOSS_PCT": st.sampled_from([0, 0.05, 8]),
        "MAX_LOSSES_IN_ROW": st.sampled_from([1, 2, 5]),
        "MAX_TRADES_PER_DAY": st.sampled_from([0, 2, 120]),
        "TAKE_PROFIT_THRESHOLD": st.sampled_from([1.001, 1.005]),
        "STOP_LOSS_THRESHOLD": st.sampled_from([0.99, 0.999]),
        "USE_TRAILING_STOP": st.booleans(),
        "TRAILING_ACTIVATION": st.sampled_from([1.0005, 1.003]),
        "TRADE_TTL_MIN": st.sampled_from([0.05, 120]),
        "PAPER_LATENCY_MS": st.sampled_from([0, 250, 3000]),
        "SLIPPAGE_BPS": st.sampled_from([0, 2, 7.5]),
        "TAKER_FEE_RATE": st.sampled_from([0, 0.001]),
    },
)
PAPER_START = st.sampled_from([60, 1000])

GAPS = st.sampled_from([1000, 250, 3000, 0, 1, 1000, 3000, 250, 60_000, 400_000, 5_000_000, -1, -500])
MOVES = st.sampled_from([-60, 60, -160, 160, -20, 20, -400, 400, -5, 5, 0, -2500, 2500])  # basis points
BOOKS = st.sampled_from(["tight", "none", "tight", "none", "tight", "wide", "bid", "ask", "mid", "far", "crossed"])
GARBAGE = st.sampled_from([None, math.nan, math.inf, 0.0, -1.0, "100", True, 10**400, 100])
VOLUMES = st.sampled_from([None, None, 5e6, 5e6, math.nan, "x", 10.0])
AGES = st.sampled_from([None, None, None, 0, 900, 1001, 31_000, -5000, -5001])


@dataclass
class Move:
    """Move a symbol's price, or hand in a ticker of garbage."""

    symbol: str
    gap_ms: int
    move_bps: int
    book: str
    volume: object = None
    age_ms: int | None = None
    feed_age_ms: int | None = None
    garbage: tuple[Any, Any, Any] | None = None
    answered_as: str | None = None


@dataclass
class Control:
    """Change something that is no ticker."""

    kind: str
    value: Any


Steps = list[Move | Control]

MOVE = st.builds(Move, st.sampled_from(SYMBOLS), GAPS, MOVES, BOOKS, VOLUMES)
BAD = st.builds(
    Move, st.sampled_from(SYMBOLS), GAPS, MOVES, BOOKS, VOLUMES, AGES, st.sampled_from([None, 5, 31_000]),
    st.none() | st.tuples(GARBAGE, GARBAGE, GARBAGE), st.sampled_from([None, None, None, "OTHER"]),
)  # fmt: skip
CONTROL = st.one_of(
    st.builds(Control, st.just("settings"), SETTINGS),
    st.builds(Control, st.just("condition"), st.tuples(st.sampled_from(list(ConditionName)), st.booleans())),
    st.builds(Control, st.just("parked"), st.tuples(st.sampled_from(SYMBOLS), st.booleans())),
    st.builds(Control, st.just("reset"), st.sampled_from(SYMBOLS)),
)
FEW_STEPS = st.lists(st.one_of(*[MOVE] * 12, BAD, CONTROL), min_size=1, max_size=120)
ANCHORS = st.dictionaries(
    st.sampled_from(SYMBOLS),
    st.tuples(st.sampled_from([80.0, 100.0, 103.0, 130.0]), st.sampled_from([0, -1000, -7_200_000])),
    max_size=2,
)


def lively_settings(rng: random.Random) -> dict[str, Any]:
    """Return settings under which much happens."""
    return {
        "GLOBAL_TRADING": rng.random() < 0.9,
        "FEATURE_ANCHOR_ENABLED": rng.random() < 0.8,
        "DROP_TRIGGER_MODE": rng.choice((1, 2, 3, 4, 4)),
        "DROP_TRIGGER_VALUE": rng.choice((0.99, 0.995)),
        "COOLDOWN_MIN": rng.choice((0, 1)),
        "ANCHOR_STALE_MINUTES": rng.choice((2, 60)),
        "ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT": rng.choice((0, 0.5, 3)),
        "USE_TRAILING_STOP": rng.random() < 0.5,
        "MAX_LOSSES_IN_ROW": rng.choice((3, 50)),
        "MAX_DAILY_LOSS_PCT": rng.choice((0.05, 8)),
        "MAX_ENTRY_AWAY_BPS": 200,
        "MAX_SPREAD_BPS": 250,
        "ENTRY_BURST_MAX": rng.choice((2, 20)),
        "DEBOUNCE_S": rng.choice((0, 1, 3)),
    }


def random_steps(rng: random.Random, length: int) -> Steps:
    """Return steps that lead deep: drops, recoveries, jumps with or without a witness, bad tickers, other settings."""
    steps: Steps = []
    for _ in range(length):
        if rng.random() < 0.004:
            steps.append(Control("settings", lively_settings(rng)))
            # then at once a ticker that is rejected: it must not hide that the settings are others
            steps.append(Move(rng.choice(SYMBOLS), 0, 0, "none", garbage=(None, None, None)))
            continue
        symbol = rng.choice(SYMBOLS)
        book = rng.choice(("none", "tight", "tight", "tight", "wide", "crossed", "mid", "bid"))
        gap = rng.choice((0, 250, 250, 1000, 1000, 3000, 15_000, 60_000, -250))  # whole ones meet bounds exactly
        move = rng.choice((2200, -2200)) if rng.random() < 0.03 else int(rng.gauss(0, 40))
        steps.append(Move(symbol, gap, move, book, rng.choice((None, 5e6, 5e6, 10.0))))
        if abs(move) > 1000 and rng.random() < 0.7:  # a witness, sometimes with a ticker in between
            if rng.random() < 0.5:
                steps.append(Move(symbol, 250, 0, "none", garbage=(None, None, None)))
            steps.append(Move(symbol, 250, move + 10, book))
    return steps


MANY_STEPS = st.builds(
    lambda seed, n: random_steps(random.Random(seed), n), st.integers(0, 2**32), st.integers(150, 400)
)
STEPS = st.one_of(FEW_STEPS, MANY_STEPS, MANY_STEPS)


def to_inputs(steps: Steps, start_quote: float) -> list[Input]:
    """Return the inputs that the steps stand for."""
    now, prices = START_MS, dict.fromkeys(SYMBOLS, 100.0)
    inputs: list[Input] = []
    for step in steps:
        if isinstance(step, Move):
            now += step.gap_ms
            price = prices[step.symbol] * (1 + step.move_bps / 10_000)
            if step.garbage is None and abs(step.move_bps) <= 400:
                prices[step.symbol] = price
            inputs.append(_ticker(step, now - LAG_MS[step.symbol], price))
        elif step.kind == "settings":
            inputs.append(SettingsChanged(make_settings({**step.value, "PAPER_START_QUOTE": start_quote})))
        elif step.kind == "condition":
            name, on = step.value
            inputs.append(Condition(name, "because" if on else None))
        elif step.kind == "parked":
            symbol, on = step.value
            inputs.append(Parked(symbol, "because" if on else None))
        else:
            inputs.append(AnchorReset(step.value))
    return inputs


def _ticker(step: Move, now: int, price: float) -> Ticker:
    half = {"wide": 0.01, "far": 0.3}.get(step.book, 0.0005)
    bid: Any = price * (1 - half)
    ask: Any = price * (1 + half)
    last: Any = price
    if step.book == "crossed":
        bid, ask = ask, bid
    elif step.book == "none":
        bid = ask = None
    elif step.book == "bid":
        ask = None
    elif step.book == "ask":
        bid = None
    elif step.book == "mid":
        last = None
    if step.garbage is not None:
        last, bid, ask = step.garbage
    recv_ms = None if step.age_ms is None else now + step.age_ms
    return Ticker(
        step.symbol, now, last, bid, ask, step.volume, recv_ms=recv_ms,  # type: ignore[arg-type]
        feed_age_ms=step.feed_age_ms, answered_as=step.answered_as,
    )  # fmt: skip


def make_engine(settings: dict[str, Any], anchors: dict[str, tuple[float, int]]) -> Engine:
    """Return an engine after a cold start with these anchors."""
    bot = Engine(make_settings(settings))
    saved = {symbol: SavedAnchor(price, START_MS + age) for symbol, (price, age) in anchors.items()}
    assert bot.load_anchors(saved, START_MS) == {}
    return bot


def make_reference(settings: dict[str, Any], anchors: dict[str, tuple[float, int]]) -> Reference:
    """Return the second reading after the same start."""
    reference = Reference(msgspec.structs.asdict(make_settings(settings)))
    for symbol, (price, age) in anchors.items():
        reference.load_anchor(symbol, price, START_MS + age)
    return reference


def feed_reference(reference: Reference, event: Input) -> str | None:
    """Hand one input to the second reading; return why it rejects a ticker."""
    if isinstance(event, Ticker):
        e = event
        return reference.feed(
            e.symbol, e.ts_ms, e.last, e.bid, e.ask, e.quote_volume, e.recv_ms, e.feed_age_ms, e.answered_as
        )
    if isinstance(event, SettingsChanged):
        reference.change_settings(msgspec.structs.asdict(event.settings))
    elif isinstance(event, Condition):
        reference.condition(event.name.value, event.why is not None)
    elif isinstance(event, Parked):
        reference.park(event.symbol, event.why is not None)
    elif isinstance(event, AnchorReset):
        reference.reset(event.symbol)
    return None


class Story:
    """Collect an engine's outputs under the names that the second reading uses."""

    def __init__(self) -> None:
        self.decisions: list[dict[str, Any]] = []
        self.trades: list[dict[str, Any]] = []
        self.exits: list[dict[str, Any]] = []
        self.cancelled: list[dict[str, Any]] = []
        self.rejected: dict[str, int] = {}

    def take(self, outputs: tuple[Output, ...]) -> None:
        for output in outputs:
            if isinstance(output, Rejected):
                self.rejected[output.reason] = self.rejected.get(output.reason, 0) + 1
            elif isinstance(output, Decision):
                self.decisions.append(_pick(output, DECISION))
            elif isinstance(output, Trade):
                self.trades.append(_pick(output, TRADE))
            elif isinstance(output, ExitDecided):
                self.exits.append(_pick(output, ("symbol", "ts_ms", "decision_id", "reason")))
            elif isinstance(output, Cancelled):
                self.cancelled.append(_pick(output, ("symbol", "decision_id", "side")))


DECISION = (
    "decision_id", "ts_ms", "symbol", "last", "reference", "reference_source", "threshold", "outcome", "reasons",
    "drop_pct", "window_peak", "window_trough",
)  # fmt: skip
TRADE = ("symbol", "decision_id", "entry_ms", "entry", "exit_ms", "exit", "qty", "pnl", "reason")


def _pick(output: Output, names: tuple[str, ...]) -> dict[str, Any]:
    record = {name: getattr(output, name) for name in names}
    if "reasons" in record:
        record["reasons"] = list(record["reasons"])
        record["outcome"] = record["outcome"].value
    return record


def assert_same_story(story: Story, reference: Reference) -> None:
    """Hold everything that was decided against the second reading, double for double."""
    assert story.decisions == reference.decisions
    assert story.exits == reference.exits
    assert story.trades == reference.trades
    assert story.cancelled == reference.cancelled
    assert story.rejected == {reason: count for reason, count in reference.rejected.items() if count}
