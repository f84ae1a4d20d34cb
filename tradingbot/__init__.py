"""A spot bot that buys sharp drops, and that its operator can observe, replay, prove and roll back."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tradingbot.api.bot import flags, status
    from tradingbot.api.checks import doctor, verify
    from tradingbot.api.drop_triggers import DropTriggerStudy, drop_triggers
    from tradingbot.api.notebook import CheckFailedError, conclude, prepare_notebook
    from tradingbot.api.observe import observe
    from tradingbot.api.past import compare, explain
    from tradingbot.api.replays import replay
    from tradingbot.api.rollbacks import rollback, rollbacks
    from tradingbot.api.trials import trial
    from tradingbot.api.upkeep import clean, rollback_code
    from tradingbot.config import Settings
    from tradingbot.engine.engine import Engine
    from tradingbot.errors import Recoverable, SettingsError, TradingBotError, Unrecoverable, UsageError
    from tradingbot.market.ticker import Ticker
    from tradingbot.research.load import Recorded, load
    from tradingbot.services.replay import ReplayResult

_HOMES = {
    "CheckFailedError": "tradingbot.api.notebook",
    "DropTriggerStudy": "tradingbot.api.drop_triggers",
    "Engine": "tradingbot.engine.engine",
    "Recorded": "tradingbot.research.load",
    "Recoverable": "tradingbot.errors",
    "ReplayResult": "tradingbot.services.replay",
    "Settings": "tradingbot.config",
    "SettingsError": "tradingbot.errors",
    "Ticker": "tradingbot.market.ticker",
    "TradingBotError": "tradingbot.errors",
    "Unrecoverable": "tradingbot.errors",
    "UsageError": "tradingbot.errors",
    "clean": "tradingbot.api.upkeep",
    "compare": "tradingbot.api.past",
    "conclude": "tradingbot.api.notebook",
    "doctor": "tradingbot.api.checks",
    "drop_triggers": "tradingbot.api.drop_triggers",
    "explain": "tradingbot.api.past",
    "flags": "tradingbot.api.bot",
    "load": "tradingbot.research.load",
    "observe": "tradingbot.api.observe",
    "prepare_notebook": "tradingbot.api.notebook",
    "replay": "tradingbot.api.replays",
    "rollback": "tradingbot.api.rollbacks",
    "rollback_code": "tradingbot.api.upkeep",
    "rollbacks": "tradingbot.api.rollbacks",
    "status": "tradingbot.api.bot",
    "trial": "tradingbot.api.trials",
    "verify": "tradingbot.api.checks",
}

__all__ = [
    "CheckFailedError",
    "DropTriggerStudy",
    "Engine",
    "Recorded",
    "Recoverable",
    "ReplayResult",
    "Settings",
    "SettingsError",
    "Ticker",
    "TradingBotError",
    "Unrecoverable",
    "UsageError",
    "__version__",
    "clean",
    "compare",
    "conclude",
    "doctor",
    "drop_triggers",
    "explain",
    "flags",
    "load",
    "observe",
    "prepare_notebook",
    "replay",
    "rollback",
    "rollback_code",
    "rollbacks",
    "status",
    "trial",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import tradingbot` costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
