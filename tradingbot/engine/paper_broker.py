"""The paper broker: what a market order would have been filled at, with fee and slippage as objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DEFAULT_AMOUNT_STEP", "PaperBroker", "Slippage", "TakerFee"]

DEFAULT_AMOUNT_STEP = 1e-8


@dataclass(frozen=True, slots=True)
class TakerFee:
    """Charge `rate` of the notional, in quote."""

    rate: float

    def of(self, qty: float, price: float) -> float:
        """Return the fee in quote: qty * price * rate."""
        return qty * price * self.rate


@dataclass(frozen=True, slots=True)
class Slippage:
    """Make a fill worse than the book by `bps` basis points."""

    bps: float

    def buy(self, price: float) -> float:
        """Return price * (1 + bps / 10000)."""
        return price * (1 + self.bps / 10_000)

    def sell(self, price: float) -> float:
        """Return price * (1 - bps / 10000)."""
        return price * (1 - self.bps / 10_000)


@dataclass(frozen=True, slots=True)
class PaperBroker:
    """Fill orders whole, on one tick, from what that tick shows."""

    fee: TakerFee
    slippage: Slippage
    steps: Mapping[str, float]

    def buy(self, symbol: str, quote: float, last: float, ask: float | None) -> tuple[float, float, float]:
        """Return quantity (base), price and fee (quote) of a buy for `quote`; quantity 0 is no fill."""
        price = self.slippage.buy(last if ask is None else ask)
        step = self.steps.get(symbol, DEFAULT_AMOUNT_STEP)
        lots = quote / price / step
        qty = math.floor(lots) * step if math.isfinite(lots) else 0.0  # a price next to 0 buys more than there is
        return qty, price, self.fee.of(qty, price)

    def sell(self, qty: float, last: float, bid: float | None) -> tuple[float, float]:
        """Return price and fee (quote) of a sell of `qty` (base)."""
        price = self.slippage.sell(last if bid is None else bid)
        return price, self.fee.of(qty, price)
