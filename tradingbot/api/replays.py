"""Replays from here: the result of a replay, with a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.errors import UsageError
from tradingbot.services.replay import ReplayResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Replayed", "replay"]


@dataclass(slots=True, repr=False)
class Replayed(ReplayResult):
    """Hold a replay, as ReplayResult does, and picture it."""

    def figure(self) -> Figure:
        """Return triggers counted up by outcome, and the profit of closed trades, over time; UsageError of neither."""
        from tradingbot.api.pictures import outcomes_over_time

        if not self.decisions:
            raise UsageError("there was no trigger: nothing to picture")
        triggers = [(decision["ts_ms"], decision["outcome"]) for decision in self.decisions]
        return outcomes_over_time(triggers, [(trade["exit_ms"], trade["pnl"]) for trade in self.trades])


def replay(source: str | Path | Iterable[Any], /, **settings: object) -> Replayed:
    """Replay recorded market data through the engine and return what it decided.

    `source` is a file or directory, several of them, a DataFrame with the columns of such a file (ts_ms, symbol, and
    last, price or close), or tickers; keywords are settings under their one name. Raises UsageError, SettingsError.

    >>> import tradingbot as tb
    >>> drop = [tb.Ticker("BTC/USDT", 1_700_000_000_000 + i * 1000, last=p) for i, p in enumerate((100.0, 98.4, 99.0))]
    >>> result = tb.replay(drop)
    >>> result.decisions[0]["decision_id"], result.decisions[0]["outcome"]
    ('BTC/USDT:1700000001000:1', 'observed')
    >>> result == tb.replay(drop), len(result.decisions_frame())
    (True, 1)
    """
    from tradingbot.services.replay import replay as services

    found = services(source, **settings)
    return Replayed(found.summary, found.decisions, found.trades, found.complaints)
