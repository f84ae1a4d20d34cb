"""The guards: a ticker is accepted, or rejected with the first reason that holds."""

from __future__ import annotations

import math
from enum import StrEnum
from numbers import Real

import msgspec

__all__ = ["HARMLESS", "Prices", "RejectReason", "check", "double", "normalise"]


class RejectReason(StrEnum):
    """Name why a ticker is rejected, in the order in which the guards look."""

    WRONG_SYMBOL = "wrong_symbol"
    MISSING = "missing"
    NOT_FINITE = "not_finite"
    NOT_POSITIVE = "not_positive"
    CROSSED = "crossed"
    FAR_QUOTE = "far_quote"
    OUT_OF_ORDER = "out_of_order"
    DUPLICATE = "duplicate"
    STALE = "stale"
    FUTURE = "future"
    JUMP = "jump"


HARMLESS = frozenset({RejectReason.OUT_OF_ORDER, RejectReason.DUPLICATE})  # no failure of the feed


class Prices(msgspec.Struct, frozen=True):
    """Hold the prices of a ticker once they are known to be numbers; `last` is the mid where it was absent."""

    last: float
    bid: float | None
    ask: float | None


def normalise(last: object, bid: object, ask: object) -> Prices | RejectReason:
    """Return the prices as finite doubles, or the reason why there are none (`missing`, `not_finite`)."""
    a, b, c = double(last), double(bid), double(ask)
    if a is None:
        if b is None or c is None:
            return RejectReason.MISSING
        a = (b + c) / 2
    finite = math.isfinite(a) and (b is None or math.isfinite(b)) and (c is None or math.isfinite(c))
    return Prices(a, b, c) if finite else RejectReason.NOT_FINITE


def double(price: object) -> float | None:
    """Return `price` as a double: None where it is absent, NaN where it is no number."""
    if price is None or type(price) is float:
        return price
    if isinstance(price, bool) or not isinstance(price, Real):
        return math.nan  # what is no number counts as NaN
    try:
        return float(price)
    except OverflowError:
        return math.nan


def check(
    prices: Prices,
    ts_ms: int,
    recv_ms: int | None,
    feed_age_ms: int | None,
    previous: Prices | None,
    previous_ts_ms: int,
    witness: float | None,
    jump: float,
    max_age_ms: float,
    max_ahead_ms: float,
) -> tuple[RejectReason, str] | None:
    """Return the first reason to reject these prices with the numbers behind it, or None to accept them.

    `previous` and `previous_ts_ms` are the symbol's last accepted tick, None and anything where there is none;
    `witness` is the `last` of its immediately preceding ticker if that was rejected as a jump; `jump` is a share (0.2),
    ages are milliseconds.
    """
    last, bid, ask = prices.last, prices.bid, prices.ask
    for name, price in (("last", last), ("bid", bid), ("ask", ask)):
        if price is not None and price <= 0:
            return RejectReason.NOT_POSITIVE, f"{name} {price!r}"
    if bid is not None and ask is not None and bid > ask:
        return RejectReason.CROSSED, f"bid {bid!r} > ask {ask!r}"
    for name, price in (("bid", bid), ("ask", ask)):
        if price is not None and abs(price / last - 1) > jump:
            return RejectReason.FAR_QUOTE, f"{name} {price!r}, last {last!r}"
    if previous is not None:
        if ts_ms < previous_ts_ms:
            return RejectReason.OUT_OF_ORDER, f"{previous_ts_ms - ts_ms} ms before the last tick"
        if ts_ms == previous_ts_ms and prices == previous:
            return RejectReason.DUPLICATE, f"same as the last tick at {ts_ms}"
    if recv_ms is not None:
        age_ms = max(recv_ms - ts_ms, feed_age_ms or 0)
        if age_ms > max_age_ms:
            return RejectReason.STALE, f"{age_ms} ms old"
        if ts_ms - recv_ms > max_ahead_ms:
            return RejectReason.FUTURE, f"{ts_ms - recv_ms} ms ahead"
    jumps = previous is not None and abs(last / previous.last - 1) > jump
    if jumps and (witness is None or abs(last / witness - 1) > jump):
        return RejectReason.JUMP, f"last {last!r} jumps by more than {jump!r}"
    return None
