"""The embedded exchange put together from the settings: market, clock and memory."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from tradingbot.config import Settings
from tradingbot.errors import StateError, UsageError
from tradingbot.services.clock import Clock
from tradingbot.simulated.core import Core
from tradingbot.simulated.market import SyntheticMarket
from tradingbot.simulated.server import ExchangeServer

__all__ = ["make_exchange", "serve"]


def make_exchange(settings: Settings, state_dir: Path, api_key: str, api_secret: str) -> ExchangeServer:
    """Return the embedded exchange that the settings describe, not yet started.

    Its account and time are kept in `state_dir`, so that neither runs back over a restart. Raises UsageError for a
    market that is none, StateError where the file is damaged.
    """
    if settings.EMBEDDED_MARKET != "synthetic":
        raise UsageError("EMBEDDED_MARKET plays only 'synthetic' in this version")
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    memory = state_dir / "exchange.json"
    core = Core(SyntheticMarket(settings.EMBEDDED_SEED, settings.EMBEDDED_SYMBOLS), api_key, api_secret)
    start_ms = int(time.time() * 1000)
    if memory.exists():
        try:
            record = orjson.loads(memory.read_bytes())
            core.account.restore(record["account"])
            start_ms = max(start_ms, record["now_ms"])
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            why = f"{type(error).__name__}: {error}"
            raise StateError(f"{memory} is damaged ({why}): move it aside to begin with a new account") from None
    return ExchangeServer(core, Clock(settings.EMBEDDED_SPEED, start_ms).now_ms, memory)


async def serve(server: ExchangeServer, port: int, ready: Callable[[str], None]) -> None:
    """Run an exchange until SIGINT or SIGTERM; tell its address when it listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.start(port)
    try:
        ready(server.url)
        await stop.wait()
    finally:
        await server.stop()
