"""What can go wrong with an exchange, mapped once from ccxt's errors, with secrets kept out.

TradingBotError
├── Recoverable
│   └── ExchangeTroubleError        this request failed
│       ├── UnreachableError        no answer: timeout, reset, name not found
│       ├── BadAnswerError          an answer that is none: HTML, garbage, a 5xx
│       ├── HeldBackError           429 or 418: nobody may ask before `until_ms`
│       └── UnknownSymbolError      the exchange does not know the symbol
└── Unrecoverable
    └── RefusedByExchangeError      credentials or permissions          exit 5
"""

from __future__ import annotations

import re

from tradingbot.errors import Recoverable, Unrecoverable

__all__ = [
    "BadAnswerError",
    "ExchangeTroubleError",
    "HeldBackError",
    "NoExchangeError",
    "RefusedByExchangeError",
    "UnknownSymbolError",
    "UnreachableError",
    "redact",
]


class ExchangeTroubleError(Recoverable):
    """Say in one line why a request failed; the text carries no secret."""


class UnreachableError(ExchangeTroubleError):
    """Say that no answer came."""


class BadAnswerError(ExchangeTroubleError):
    """Say that the answer was none."""


class HeldBackError(ExchangeTroubleError):
    """Say that the exchange wants to be left alone for `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownSymbolError(ExchangeTroubleError):
    """Say that the exchange does not know a symbol."""


class RefusedByExchangeError(Unrecoverable):
    """Say that the exchange refuses us: credentials, permissions."""

    exit_code = 5


class NoExchangeError(Unrecoverable):
    """Say that the exchange cannot be reached at start."""

    exit_code = 5


SECRETS = re.compile(r"(?i)\b(signature|apikey|api_key|secret|x-mbx-apikey|timestamp|passphrase)=?[\"': ]*[\w%+/=.-]+")


def redact(text: str) -> str:
    """Return `text` on one line, at most 200 characters, without anything that looks like a secret."""
    line = " ".join(SECRETS.sub(lambda found: f"{found.group(1)}=***", text).split())
    printable = "".join(c for c in line if c.isprintable())
    return printable if len(printable) <= 200 else printable[:197] + "..."
