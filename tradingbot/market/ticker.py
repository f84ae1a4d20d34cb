"""The ticker: one observation of one symbol, as the guards see it."""

from __future__ import annotations

import msgspec

__all__ = ["Ticker"]


class Ticker(msgspec.Struct, gc=False, omit_defaults=True):
    """Hold one observation of one symbol.

    Prices are quote per base, sizes base, `quote_volume` quote over 24 h; None is absent. `ts_ms` is the exchange's
    time and `recv_ms` ours, both milliseconds since the Unix epoch, UTC. `feed_age_ms` is the age of the timed feed
    beside a book update that carries no time of its own; `answered_as` is the exchange's own market id where the answer
    named another market than the one asked for.

    >>> Ticker("BTC/USDT", 1_700_000_000_000, last=100.0, bid=99.9, ask=100.1).spread_bps
    19.999999999998863
    """

    symbol: str
    ts_ms: int
    last: float | None = None
    bid: float | None = None
    ask: float | None = None
    quote_volume: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    recv_ms: int | None = None
    feed_age_ms: int | None = None
    answered_as: str | None = None

    @property
    def mid(self) -> float | None:
        """Return (bid + ask) / 2, or None where either is absent."""
        if self.bid is None or self.ask is None:
            return None
        return (self.bid + self.ask) / 2

    @property
    def spread_bps(self) -> float | None:
        """Return (ask - bid) / mid in basis points, or None where either is absent."""
        return None if self.bid is None or self.ask is None else spread_bps(self.bid, self.ask)


def spread_bps(bid: float, ask: float) -> float:
    """Return the spread in basis points of the mid: (ask - bid) / ((bid + ask) / 2) * 10000."""
    return (ask - bid) / ((bid + ask) / 2) * 10_000
