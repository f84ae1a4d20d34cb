"""What the bot asks of an exchange, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tradingbot.market.ticker import Ticker

__all__ = ["Abilities", "Exchange", "MarketFacts"]


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """Hold what the exchange says of a market: steps and minimums, in base and in quote; None where it says nothing."""

    symbol: str
    market_id: str
    quote: str
    active: bool
    amount_step: float | None
    min_cost: float | None


@dataclass(frozen=True, slots=True)
class Abilities:
    """Hold what an exchange gives: streams of tickers, many tickers in one call, and how that was found out."""

    streams: bool
    batched: bool
    note: str


class Exchange(Protocol):
    """Give markets and tickers; every failure is an error of exchange/errors.py, without secrets."""

    name: str
    abilities: Abilities

    async def load(self) -> dict[str, MarketFacts]:
        """Return the spot markets by symbol; raises ExchangeTroubleError."""

    async def tickers(self, symbols: Sequence[str]) -> list[Ticker]:
        """Return one ticker for each symbol that the exchange answered, in one batched call where it can."""

    async def time_ms(self) -> int | None:
        """Return the exchange's time in milliseconds, None where it tells none."""

    async def watch(self, symbols: Sequence[str], deliver: Callable[[Ticker], None]) -> None:
        """Deliver every update of books and tickers until the connection breaks; then raise ExchangeTroubleError."""

    async def close(self) -> None:
        """Close every connection."""
