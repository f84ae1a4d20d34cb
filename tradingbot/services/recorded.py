"""A recorded market out of a data file: whatever can be replayed can be played by the embedded exchange."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tradingbot.errors import UsageError
from tradingbot.io.market_files import DataFile, read_ticks
from tradingbot.market.guards import Prices, normalise
from tradingbot.market.ticker import Ticker
from tradingbot.services.replay import scan_all
from tradingbot.simulated.recorded import RecordedMarket, Row

__all__ = ["read_market"]

log = logging.getLogger(__name__)

LEAST, MOST = 1e-15, 1e15  # prices that an exchange could state
NAMED = 10  # of the symbols that are left out


def read_market(path: Path) -> RecordedMarket:
    """Return the market that a file, or all files of a directory, recorded; raise UsageError where nothing is usable.

    Rows are those of a replay, in its order. A price that no exchange could state is no update: such rows are left out,
    as are symbols that it could not name. One warning in the log says what was left out.
    """
    files = scan_all([path])
    source = _Source(files)
    market = RecordedMarket(source.rows())
    complaints = [complaint for file in files if (complaint := file.complaint)]
    if source.unusable:
        complaints.append(f"{source.unusable} rows without a usable price")
    if market.left_out:
        names = ", ".join(f"{symbol!r:.40}" for symbol in market.left_out[:NAMED])
        more = f" and {len(market.left_out) - NAMED} more" if len(market.left_out) > NAMED else ""
        complaints.append(f"symbols that are no plain BASE/QUOTE: {names}{more}")
    if not market.symbols:
        raise UsageError(f"nothing usable in {path}: {'; '.join(complaints) or 'no rows'}")
    if complaints:
        log.warning("recorded market %s, left out: %s", path, "; ".join(complaints))
    return market


@dataclass(slots=True)
class _Source:
    files: list[DataFile]
    unusable: int = 0

    def rows(self) -> Iterator[Row]:
        for tick in read_ticks(self.files):
            prices = normalise(tick.last, tick.bid, tick.ask)
            if isinstance(prices, Prices) and all(
                price is None or LEAST <= price <= MOST for price in (prices.last, prices.bid, prices.ask)
            ):
                yield _row(tick, prices)
            else:
                self.unusable += 1


def _row(tick: Ticker, prices: Prices) -> Row:
    bid, ask, *rest = (
        math.nan if value is None else value
        for value in (prices.bid, prices.ask, tick.bid_size, tick.ask_size, tick.quote_volume)
    )
    return (tick.symbol, tick.ts_ms, prices.last, bid, ask, rest[0], rest[1], rest[2])
