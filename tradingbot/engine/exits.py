"""Exits: which rule, if any, ends a position at this tick."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ExitReason", "exit_reason"]


class ExitReason(StrEnum):
    """Name the rule that ends a position, in the order in which the rules are looked at."""

    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    TRAILING_STOP = "trailing_stop"
    TTL = "ttl"


def exit_reason(
    price: float,
    entry: float,
    height: float,
    age_ms: int,
    stop_loss: float,
    take_profit: float,
    trailing: bool,
    activation: float,
    distance: float,
    ttl_ms: float,
) -> ExitReason | None:
    """Return the first exit rule that holds, or None.

    `price` is bid, or last where there is no bid; `height` the highest such price since entry; thresholds are multiples
    of the average entry price, `distance` of the height.
    """
    if price <= entry * stop_loss:
        return ExitReason.STOP_LOSS
    if price >= entry * take_profit:
        return ExitReason.TAKE_PROFIT
    if trailing and height >= entry * activation and price <= height * distance:
        return ExitReason.TRAILING_STOP
    if age_ms >= ttl_ms:
        return ExitReason.TTL
    return None
