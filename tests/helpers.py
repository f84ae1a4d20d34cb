"""Small ways to run an engine over prices, and how long anything is waited for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Output, Trade
from tradingbot.market.ticker import Ticker

T = 1_700_000_000_000 - 1_700_000_000_000 % 86_400_000  # 00:00 UTC
S = "BTC/USDT"
MINUTE = 60_000
LIMIT_S = 120.0  # of whatever is waited for: a machine may be busy with much else


def commands_of(text: str) -> set[str]:
    """Return the commands that the program's own help names."""
    return set(re.findall(r"^    (\w+)(?: |$)", text, re.MULTILINE))


def engine(**settings: Any) -> Engine:
    return Engine(make_settings(settings))


def feed(bot: Engine, *ticks: tuple[Any, ...], symbol: str = S) -> list[Output]:
    """Feed (seconds after T, last[, bid, ask[, volume]]) and return what came out."""
    outputs: list[Output] = []
    for seconds, *prices in ticks:
        outputs += bot.tick(Ticker(symbol, T + int(seconds * 1000), *prices))
    return outputs


def decisions(outputs: Iterable[Output]) -> list[Decision]:
    return [output for output in outputs if isinstance(output, Decision)]


def trades(outputs: Iterable[Output]) -> list[Trade]:
    return [output for output in outputs if isinstance(output, Trade)]
