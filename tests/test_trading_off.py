"""GLOBAL_TRADING: whichever layer says off, no order of any kind comes to the exchange's socket."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import pytest

from tradingbot.config import Settings
from tradingbot.exchange.ccxt_client import CcxtExchange
from tradingbot.io.home import find_home
from tradingbot.io.override_file import change_overrides
from tradingbot.io.overrides import read_settings
from tradingbot.services.clock import Clock
from tradingbot.services.connect import Surroundings
from tradingbot.services.session import Session
from tradingbot.simulated.core import Core
from tradingbot.simulated.market import SyntheticMarket
from tradingbot.simulated.server import ExchangeServer

LAYERS = ("tradingbot.toml", "environment", "--set", "overrides.json")
SPEED = 60


def session_of(home: Path, off: str, core: Core) -> Session:
    """Return a bot that every layer lets trade, but for one, on an exchange behind a real socket."""
    says = {layer: "false" if layer == off else "true" for layer in LAYERS}
    (home / "tradingbot.toml").write_text(f"GLOBAL_TRADING = {says['tradingbot.toml']}\n")
    change_overrides(home / "state", {"GLOBAL_TRADING": off != "overrides.json"}, "test", lambda _: None)
    effective = read_settings(
        find_home(str(home), {}, home),
        assignments=[f"GLOBAL_TRADING={says['--set']}", "DROP_TRIGGER_VALUE=0.9995", "ENTRY_BURST_MAX=50"],
        environ={"GLOBAL_TRADING": says["environment"]},
    )
    clock = Clock(SPEED, 1_767_225_600_000)

    async def connect(settings: Settings, _: Path, __: int, stack: contextlib.AsyncExitStack) -> Surroundings:
        core.speed = SPEED
        server = await stack.enter_async_context(ExchangeServer(core, clock.now_ms))
        exchange = CcxtExchange("embedded", clock.now_ms, settings.REQUEST_TIMEOUT_S, server.url)
        stack.push_async_callback(exchange.close)
        return Surroundings(exchange, clock)

    return Session(effective, connect=connect)


async def run_until_it_has_triggered(session: Session) -> None:
    """Run a bot until more triggers have come than a moment brings, however long that takes here; stop it."""
    end_s = time.monotonic() + 120
    running = asyncio.create_task(session.run(None))
    while session.signals.triggers <= 5:
        assert time.monotonic() < end_s, "no triggers come"
        assert not running.done(), running
        await asyncio.sleep(0.05)
    signal.raise_signal(signal.SIGTERM)
    await running


@pytest.mark.parametrize("off", LAYERS)
def test_off_in_any_layer_no_order_reaches_the_exchange(tmp_path: Path, off: str) -> None:
    """Every trigger is observed or blocked, none entered; the exchange has seen no order."""
    core = Core(SyntheticMarket(7, 4))
    session = session_of(tmp_path, off, core)
    asyncio.run(run_until_it_has_triggered(session))
    assert session.settings.GLOBAL_TRADING is False
    assert {decision["outcome"] for decision in session.signals.decisions} <= {"observed", "blocked"}
    assert core.orders_seen == 0
