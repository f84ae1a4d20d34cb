"""A spot bot that buys sharp drops, and that its operator can observe, replay, prove and roll back."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tradingbot.api.notebook import conclude, prepare_notebook
    from tradingbot.api.observe import observe
    from tradingbot.config import Settings
    from tradingbot.engine.engine import Engine
    from tradingbot.errors import Recoverable, SettingsError, TradingBotError, Unrecoverable, UsageError
    from tradingbot.market.ticker import Ticker
    from tradingbot.services.replay import ReplayResult, replay

_HOMES = {
    "Engine": "tradingbot.engine.engine",
    "Recoverable": "tradingbot.errors",
    "ReplayResult": "tradingbot.services.replay",
    "Settings": "tradingbot.config",
    "SettingsError": "tradingbot.errors",
    "Ticker": "tradingbot.market.ticker",
    "TradingBotError": "tradingbot.errors",
    "Unrecoverable": "tradingbot.errors",
    "UsageError": "tradingbot.errors",
    "conclude": "tradingbot.api.notebook",
    "observe": "tradingbot.api.observe",
    "prepare_notebook": "tradingbot.api.notebook",
    "replay": "tradingbot.services.replay",
}

__all__ = [
    "Engine",
    "Recoverable",
    "ReplayResult",
    "Settings",
    "SettingsError",
    "Ticker",
    "TradingBotError",
    "Unrecoverable",
    "UsageError",
    "__version__",
    "conclude",
    "observe",
    "prepare_notebook",
    "replay",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import tradingbot` costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
