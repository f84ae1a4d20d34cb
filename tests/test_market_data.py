"""Market data: fallback and return, backoff symbol by symbol, hold-backs obeyed, reconnects bounded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from tests.helpers import LIMIT_S
from tradingbot.config import make_settings
from tradingbot.exchange.errors import HeldBackError, UnreachableError
from tradingbot.exchange.protocol import Abilities, MarketFacts
from tradingbot.market.ticker import Ticker
from tradingbot.services.market_data import MAX_CONNECTS_A_MINUTE, MINUTE_S, MarketData

pytestmark = pytest.mark.feature("FEATURE_RETRY_BACKOFF")

FAST = {"WATCHDOG_S": 0.3, "POLL_S": 0.05, "RETRY_BASE_S": 0.05, "RETRY_MAX_S": 0.1}


class Scripted:
    """An exchange that does as a test says: each script is called at each request."""

    name = "scripted"

    def __init__(self, stream: Callable[[int], float | None], poll: Callable[[int], Any] | None = None) -> None:
        self.abilities = Abilities(streams=True, batched=True, note="")
        self._stream, self._poll_script = stream, poll
        self.connects = 0
        self.connected_s: list[float] = []
        self.polled: list[tuple[str, ...]] = []

    async def load(self) -> dict[str, MarketFacts]:
        return {}

    async def tickers(self, symbols: Sequence[str]) -> list[Ticker]:
        self.polled.append(tuple(symbols))
        if self._poll_script is not None:
            answer = self._poll_script(len(self.polled))
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                return list(answer)
        return [Ticker(symbol, len(self.polled), 1.0) for symbol in symbols]

    async def watch(self, symbols: Sequence[str], deliver: Callable[[Ticker], None]) -> None:
        """Deliver for as long as the script says, then break; None: connected, and silent."""
        self.connects += 1
        lasts_s = self._stream(self.connects)
        loop = asyncio.get_running_loop()
        self.connected_s.append(loop.time())
        end = None if lasts_s is None else loop.time() + lasts_s
        while end is None or loop.time() < end:
            if end is not None:
                for symbol in symbols:
                    deliver(Ticker(symbol, 1, 1.0))
            await asyncio.sleep(0.01)
        raise UnreachableError("broken")

    async def close(self) -> None:
        return


def run_until(
    holds: Callable[[MarketData], bool],
    exchange: Scripted,
    symbols: Sequence[str] = ("A",),
    judge: Callable[[Ticker], str | None] | None = None,
    then_s: float = 0.0,
    **settings: Any,
) -> MarketData:
    """Run market data until something holds, however long that takes here, and for `then_s` after that."""
    chosen = make_settings({**FAST, **settings})

    async def main() -> MarketData:
        data = MarketData(exchange, symbols, lambda: chosen, judge or (lambda _: None), random.Random(1))
        task = asyncio.create_task(data.run())
        end = asyncio.get_running_loop().time() + LIMIT_S
        while not holds(data):
            assert not task.done(), task.result()
            assert asyncio.get_running_loop().time() < end, "it did not come"
            await asyncio.sleep(0.01)
        await asyncio.sleep(then_s)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return data

    return asyncio.run(main())


def test_a_working_stream_is_not_polled_beside() -> None:
    """One connection, no request."""
    exchange = Scripted(lambda _: 600.0)
    data = run_until(lambda data: data.ticks > 10, exchange, then_s=0.5, WATCHDOG_S=60)
    assert (exchange.connects, data.mode, exchange.polled[1:]) == (1, "stream", [])


def test_a_silent_stream_is_found_and_polling_takes_over() -> None:
    """Connected and silent is as bad as broken: polls bring the prices, and a new connection is tried."""
    exchange = Scripted(lambda _: None)
    data = run_until(lambda _: len(exchange.polled) > 3 and exchange.connects > 1, exchange)
    assert data.ticks > 3


def test_a_stream_that_comes_back_ends_the_polling() -> None:
    """The fallback returns by itself."""
    exchange = Scripted(lambda turn: None if turn == 1 else 600.0)
    run_until(lambda data: exchange.connects > 1 and data.mode == "stream" and data.ticks > 30, exchange)
    assert len(exchange.polled) > 0


def test_reconnects_are_bounded() -> None:
    """A stream that breaks at once is tried ten times a minute at the most, and polls go on."""
    exchange = Scripted(lambda _: 0.0)
    always = {"RETRY_BASE_S": 0.001, "RETRY_MAX_S": 0.001}
    most, times = MAX_CONNECTS_A_MINUTE, exchange.connected_s
    run_until(lambda data: exchange.connects >= most and data.ticks > 5, exchange, then_s=1.0, **always)
    assert all(later - first >= MINUTE_S for first, later in zip(times, times[most:], strict=False))


def test_a_hold_back_is_obeyed_by_everyone() -> None:
    """After a 429 nobody asks before the time is over."""
    exchange = Scripted(lambda _: None, lambda turn: HeldBackError("429", 600.0) if turn == 2 else None)
    run_until(lambda data: data.held_back_until_s > 0, exchange, then_s=1.0, MARKET_DATA="poll")
    assert len(exchange.polled) == 2
    assert exchange.connects == 0


def test_a_symbol_that_fails_waits_alone() -> None:
    """A symbol without an answer backs off; the others are asked at every poll."""
    exchange = Scripted(lambda _: None, lambda turn: [Ticker("A", turn, 1.0)])
    slow = {"MARKET_DATA": "poll", "RETRY_BASE_S": 30, "RETRY_MAX_S": 60}
    data = run_until(lambda _: len(exchange.polled) > 10, exchange, ["A", "B"], **slow)
    assert data.retries["B"].error == "no answer"
    assert sum("B" in asked for asked in exchange.polled) < 4
    assert all("A" in asked for asked in exchange.polled)
    assert data.withheld == {"B": len(exchange.polled) - sum("B" in asked for asked in exchange.polled)}


def test_with_the_flag_off_every_symbol_is_asked_at_every_poll() -> None:
    """FEATURE_RETRY_BACKOFF off: the legacy way."""
    exchange = Scripted(lambda _: None, lambda turn: [Ticker("A", turn, 1.0)])
    slow = {"MARKET_DATA": "poll", "RETRY_BASE_S": 30, "RETRY_MAX_S": 60}
    data = run_until(lambda _: len(exchange.polled) > 10, exchange, ["A", "B"], **slow, FEATURE_RETRY_BACKOFF=False)
    assert all(asked == ("A", "B") for asked in exchange.polled)
    assert data.withheld == {}


@pytest.mark.parametrize(("reason", "fails"), [("duplicate", False), ("crossed", True)])
def test_a_rejection_backs_off_unless_it_is_harmless(reason: str, fails: bool) -> None:
    """A duplicate is no failure; a crossed book is."""
    exchange = Scripted(lambda _: None)
    slow = {"MARKET_DATA": "poll", "RETRY_BASE_S": 30, "RETRY_MAX_S": 60}
    data = run_until(lambda data: data.rejected[reason] > 0, exchange, judge=lambda _: reason, **slow)
    assert bool(data.retries) is fails
    assert data.ticks == 0


def test_a_shorter_hold_back_does_not_end_a_longer_one() -> None:
    """Two answers cross; the later end counts. Who says "at once" again and again is asked less and less often."""

    async def main() -> None:
        data = MarketData(Scripted(lambda _: None), ["A"], lambda: make_settings({}), lambda _: None)
        now = asyncio.get_running_loop().time()
        data.hold_back(HeldBackError("418", 600))
        data.hold_back(HeldBackError("429", 1))
        assert data.held_back_until_s - now > 599
        data.held_back_until_s = 0.0
        for _ in range(8):
            data.hold_back(HeldBackError("429", 1))
        assert data.held_back_until_s - now >= 60

    asyncio.run(main())
