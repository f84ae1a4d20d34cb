"""Checkpoints in the journal: in one record or in parts, whole again or none."""

from __future__ import annotations

import random

import orjson
import pytest

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.io.checkpoints import checkpoint_texts, join
from tradingbot.io.lines import MAX_LINE
from tradingbot.market.ticker import Ticker

T = 1_700_000_000_000


def run(symbols: list[str], ticks: int, seed: int = 1, **settings: object) -> Engine:
    """Return an engine that has seen a random walk of each symbol."""
    rng = random.Random(seed)
    engine = Engine(make_settings(settings), dict.fromkeys(symbols, 1e-5))
    prices = dict.fromkeys(symbols, 100.0)
    for number in range(ticks):
        for symbol in symbols:
            prices[symbol] *= 1 + rng.gauss(0, 3e-4)
            engine.process(Ticker(symbol, T + number * 250, prices[symbol], recv_ms=T + number * 250 + 7))
    return engine


def plain(engine: Engine) -> object:
    return orjson.loads(orjson.dumps(engine.checkpoint_record()))


def test_a_small_engine_is_one_record() -> None:
    """It says that it is, and holds what the engine's own checkpoint does."""
    engine = run(["BTC/USDT", "ETH/USDT"], 200, GLOBAL_TRADING=True, DROP_TRIGGER_VALUE=0.999, MAX_SPREAD_BPS=5000)
    assert engine.portfolio.account.cash < 1000, "something has been bought"
    (text,) = checkpoint_texts("s", T, "checkpoint", engine, seq=engine.seq)
    record = orjson.loads(text)
    assert (record["type"], record["seq"], record["parts"]) == ("checkpoint", 400, 1)
    assert record["checkpoint"] == plain(engine)
    assert join(record, []) == plain(engine)


def falling(symbol: str, points: int) -> Engine:
    """Return an engine whose window holds so many points: a price that only falls."""
    engine = Engine(make_settings({"WINDOW_LOOKBACK_S": 86_400}), {symbol: 1e-5})
    for number in range(points):
        engine.process(Ticker(symbol, T + number * 250, 100.0 - number / 3e4))
    return engine


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(lambda: run([f"S{number}/USDT" for number in range(500)], 60), id="500 symbols"),
        pytest.param(lambda: run([chr(number) * 10_000 for number in range(1, 25)], 3), id="hostile symbols"),
        pytest.param(lambda: falling("BTC/USDT", 40_000), id="a window of 40,000 points"),
    ],
)
def test_a_large_engine_comes_in_parts_and_is_whole_again(engine: object) -> None:
    """Every line is one that a reader takes; an engine restored from them is the engine that was."""
    made: Engine = engine()  # type: ignore[operator]
    texts = checkpoint_texts("s", T, "session_end", made, seq=made.seq)
    assert len(texts) > 1
    assert max(map(len, texts)) < MAX_LINE / 2
    head, *parts = map(orjson.loads, texts)
    assert head["parts"] == len(texts)
    whole = join(head, parts)
    assert whole == plain(made)
    again = Engine(make_settings({}))
    again.restore(whole)  # type: ignore[arg-type]
    assert again.checkpoint() == made.checkpoint()


def test_an_incomplete_checkpoint_is_none() -> None:
    """Killed between the parts, out of order, or followed by a part of another one."""
    engine = run([f"S{number}/USDT" for number in range(900)], 20)
    head, *parts = map(orjson.loads, checkpoint_texts("s", T, "checkpoint", engine, seq=engine.seq))
    assert len(parts) > 1
    assert join(head, parts) is not None
    assert join(head, parts[:-1]) is None
    assert join(head, []) is None
    assert join(head, parts[::-1]) is None
    assert join(head, [*parts[:-1], {**parts[-1], "seq": 1}]) is None
    assert join(head, [*parts[:-1], {**parts[-1], "sid": "t"}]) is None
    assert join({"type": "settings", "sid": "s"}, []) is None
