"""The universe: which symbols a session watches."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fnmatch import fnmatchcase

from tradingbot.config import Settings
from tradingbot.errors import UsageError
from tradingbot.exchange.protocol import Exchange, MarketFacts

__all__ = ["choose_symbols"]

log = logging.getLogger(__name__)


async def choose_symbols(exchange: Exchange, markets: Mapping[str, MarketFacts], settings: Settings) -> list[str]:
    """Return the symbols of SYMBOLS that the exchange knows, or the TOP_N by quote volume; raise UsageError for none.

    Each symbol that the exchange does not know, or has halted, is named in one line of the log and left out.
    """
    if settings.SYMBOLS:
        known = []
        for symbol in dict.fromkeys(settings.SYMBOLS):
            if symbol not in markets:
                log.warning("symbol %s is unknown to %s: left out", symbol, exchange.name)
            elif not markets[symbol].active:
                log.warning("symbol %s is halted on %s: left out", symbol, exchange.name)
            else:
                known.append(symbol)
        if not known:
            raise UsageError(f"{exchange.name} knows none of SYMBOLS = {', '.join(settings.SYMBOLS)}")
        return known
    listed = [
        symbol
        for symbol, market in markets.items()
        if market.active
        and market.quote == settings.QUOTE
        and not any(fnmatchcase(symbol, pattern) for pattern in settings.EXCLUDE)
    ]
    if not listed:
        raise UsageError(f"{exchange.name} has no spot market quoted in {settings.QUOTE}")
    volumes = {ticker.symbol: ticker.quote_volume or 0.0 for ticker in await exchange.tickers(listed)}
    return sorted(listed, key=lambda symbol: (-volumes.get(symbol, 0.0), symbol))[: settings.TOP_N]
