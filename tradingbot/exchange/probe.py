"""One look at an exchange, for a diagnosis: does it answer, what time is it there, does it know us, what may we do.

It runs in a process of its own (`python -m tradingbot.exchange.probe`: the question as JSON on stdin, one JSON object
out), for ccxt takes a second to import, and an exchange that never answers must hold nobody up.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from tradingbot.exchange.errors import redact

__all__ = ["main", "probe"]


def probe(
    exchange_id: str, url: str | None = None, timeout_s: float = 2.0, credentials: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return what an exchange answers.

    `kind` is answers, unreachable, banned, maintenance, odd or unknown; `ahead_ms` how far its clock is ahead of this
    machine's (None where it tells none); `credentials` is none, ok, wrong or untold, `withdraws` whether the key may
    withdraw, None where that cannot be asked. Texts carry no secret.
    """
    import ccxt

    ccxt_id = "binance" if exchange_id == "embedded" else exchange_id
    if ccxt_id not in ccxt.exchanges:
        return {"kind": "unknown", "says": f"ccxt knows no exchange {ccxt_id!r}"}
    options: dict[str, Any] = {"timeout": int(timeout_s * 1000), "enableRateLimit": False}
    for name, key in (("apiKey", "key"), ("secret", "secret"), ("password", "password")):
        if credentials and credentials.get(key):
            options[name] = credentials[key]
    kind: Any = getattr(ccxt, ccxt_id)
    if ccxt_id == "binance":
        options["options"] = {
            "defaultType": "spot", "fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False,
            "maxRetriesOnFailure": 0,
        }  # fmt: skip
        if url is not None:
            from tradingbot.exchange.ccxt_client import addresses

            options["urls"] = {"api": addresses(kind, url)}
    client = kind(options)
    if url is not None:
        client.get_exceptions_by_url = lambda _, key: client.exceptions["spot"].get(key, {})
    try:
        found = _answers(client, ccxt)
        if found["kind"] == "answers" and credentials and credentials.get("key"):
            found |= _knows(client, ccxt)
    finally:
        client.session.close()
    return found


def _answers(client: Any, ccxt: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": "answers", "says": "", "ahead_ms": None, "credentials": "none", "withdraws": None}
    try:
        if client.has.get("fetchTime"):
            began_s = time.time()
            theirs_ms = client.fetch_time()
            ended_s = time.time()
            if isinstance(theirs_ms, int | float):
                found["ahead_ms"] = round(theirs_ms - (began_s + ended_s) * 500)
                found["took_ms"] = round((ended_s - began_s) * 1000)
        if client.has.get("fetchStatus") is True:
            status = client.fetch_status()
            if status.get("status") not in ("ok", None):
                found |= {"kind": "maintenance", "says": f"it says of itself: {status.get('status')}"}
        elif not client.has.get("fetchTime"):
            client.load_markets()
    except Exception as error:  # noqa: BLE001  (every failure of ccxt, told once)
        found |= {"kind": _kind(error, ccxt), "says": redact(f"{type(error).__name__}: {error}")}
    return found


def _kind(error: Exception, ccxt: Any) -> str:
    if isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
        return "banned"
    if isinstance(error, ccxt.OnMaintenance | ccxt.ExchangeNotAvailable) and not isinstance(error, ccxt.DDoSProtection):
        text = str(error)
        return (
            "maintenance"
            if any(f" {code} " in f" {text} " for code in range(500, 600)) or "aintenance" in text
            else "unreachable"
        )
    if isinstance(error, ccxt.OperationFailed) and not isinstance(error, ccxt.NetworkError):
        return "maintenance"
    return "unreachable" if isinstance(error, ccxt.NetworkError | OSError) else "odd"


def _knows(client: Any, ccxt: Any) -> dict[str, Any]:
    """Ask for the account, then for what the key may do, where the exchange can be asked that."""
    try:
        client.fetch_balance()
    except (ccxt.AuthenticationError, ccxt.PermissionDenied) as error:
        return {"credentials": "wrong", "says": redact(f"{type(error).__name__}: {error}")}
    except Exception as error:  # noqa: BLE001  (a clock that is off, a timeout: nothing is known of the credentials)
        return {"credentials": "untold", "says": redact(f"{type(error).__name__}: {error}")}
    ask = getattr(client, "sapi_get_account_apirestrictions", None)
    if ask is None:
        return {"credentials": "ok"}
    try:
        may = ask().get("enableWithdrawals")
    except Exception as error:  # noqa: BLE001  (same)
        return {"credentials": "ok", "says": redact(f"{type(error).__name__}: {error}")}
    return {"credentials": "ok", "withdraws": may if isinstance(may, bool) else str(may).lower() == "true"}


def main() -> int:
    """Answer the question on stdin."""
    question = json.load(sys.stdin)
    print(json.dumps(probe(**question)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
