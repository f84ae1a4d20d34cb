"""Faults of the embedded exchange, from a script: from when to when, which requests or streams, which misbehaviour."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tradingbot.errors import UsageError

__all__ = ["VALUES", "WHOLE", "Delivery", "Fault", "Faults", "Manner", "alter", "read_faults"]

FOREVER_S = math.inf


class Manner(StrEnum):
    """Name how an answer is handed over."""

    WHOLE = "whole"
    DELAY = "delay"  # after `seconds`
    HANG = "hang"  # not before the fault is over, and then the connection is reset
    DRIP = "drip"  # a byte each `seconds`
    SHORT = "short"  # less than Content-Length says, then closed
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Hold how an answer is handed over; `seconds` are real ones."""

    manner: Manner = Manner.WHOLE
    seconds: float = 0.0


WHOLE = Delivery()

ANSWERS = frozenset({"status", "ban", "html", "garbage", "empty", "list", "truncated"})
VALUES = frozenset({"value", "crossed", "foreign"})
DELIVERIES = frozenset({"delay", "hang", "drip", "short", "reset"})
STREAMS = frozenset({"silent", "stale", "garbage"}) | VALUES
SOCKETS = frozenset({"close", "reset", "freeze", "refuse"})
MARKETS = frozenset({"gone", "halted", "renamed", "redenominated"})
# what a price is called in the answers and in the events
NAMES = {
    "last": ("lastPrice", "c"), "bid": ("bidPrice", "b"), "ask": ("askPrice", "a"), "time": ("closeTime", "E"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """Hold one misbehaviour.

    `on` names what misbehaves: requests ("GET ticker/24hr", "GET *"), streams ("stream *@ticker"), the sockets of all
    streams ("sockets"), the port ("port") or a market ("market BTC/USDT"); `does` how. Times are seconds of the
    exchange's clock since it started; `seconds` of a delay are real ones.
    """

    on: str
    does: str
    from_s: float = 0.0
    to_s: float = FOREVER_S
    times: int = 0  # so many requests at the most; 0: all
    status: int = 503
    retry_after_s: float = 0.0  # 0: until the fault is over
    seconds: float = 1.0
    field: str = "last"
    value: Any = None
    symbol: str = ""  # of `foreign` (as BTCUSDT) and `renamed` (as NEW/USDT)
    factor: float = 1.0

    @property
    def label(self) -> str:
        """Return what misbehaves and how, in a few words."""
        return f"{self.does}{f' {self.status}' if self.does == 'status' else ''} on {self.on}"

    def check(self) -> None:
        """Raise UsageError for what cannot be played."""
        kind = self.on.split(" ", 1)[0]
        allowed = {"stream": STREAMS, "sockets": SOCKETS, "port": {"refuse"}, "market": MARKETS}.get(
            kind, ANSWERS | VALUES | DELIVERIES
        )
        if kind not in ("stream", "sockets", "port", "market", "GET", "POST", "DELETE"):
            raise UsageError(f"on = {self.on!r}: it is METHOD NAME, as in 'GET ticker/24hr', or stream, sockets, "
                             "port or market")  # fmt: skip
        if self.does not in allowed:
            raise UsageError(f"does = {self.does!r} is nothing that {kind} can do: {', '.join(sorted(allowed))}")
        if not 0 <= self.from_s < self.to_s:
            raise UsageError(f"from_s = {self.from_s:g} and to_s = {self.to_s:g}: 0 <= from_s < to_s")
        if self.field not in NAMES:
            raise UsageError(f"field = {self.field!r}: {', '.join(NAMES)}")
        if not (math.isfinite(self.factor) and self.factor > 0 and 0 <= self.seconds < 1e6 and self.times >= 0):
            raise UsageError(f"{self.label}: factor, seconds or times cannot be used")
        if self.does in ("foreign", "renamed") and not self.symbol:
            raise UsageError(f"{self.label} needs a symbol")


class Faults:
    """Play a list of faults; `began_ms` is the exchange's time at its start.

    `met` counts, fault by fault, what met it.
    """

    def __init__(self, faults: Sequence[Fault] = (), began_ms: int = 0) -> None:
        self.faults, self.began_ms = tuple(faults), began_ms
        self.met = [0] * len(self.faults)

    def __bool__(self) -> bool:
        return bool(self.faults)

    def active(self, target: str, now: int) -> Iterator[tuple[int, Fault]]:
        """Yield the faults, with their places, that `target` meets at `now`."""
        since_s = (now - self.began_ms) / 1000
        for place, fault in enumerate(self.faults):
            if fault.from_s <= since_s < fault.to_s and fnmatchcase(target, fault.on):
                yield place, fault

    def meets(self, target: str, now: int) -> Fault | None:
        """Return the first fault that `target` meets at `now`, and count it."""
        for place, fault in self.active(target, now):
            if not fault.times or self.met[place] < fault.times:
                self.met[place] += 1
                return fault
        return None

    def is_over(self, fault: Fault, now: int) -> bool:
        """Return whether a fault's time is over."""
        return (now - self.began_ms) / 1000 >= fault.to_s

    def left_s(self, fault: Fault, now: int) -> float:
        """Return how long a fault still lasts, in seconds of the exchange's clock; a minute where it has no end."""
        left_s = fault.to_s - (now - self.began_ms) / 1000
        return left_s if math.isfinite(left_s) else 60.0

    def market_state(self, symbol: str, now: int) -> str:
        """Return whether a market is `trading`, `halted` or `gone` at `now`; a new name is gone until it comes."""
        since_s = (now - self.began_ms) / 1000
        for fault in self.faults:
            is_on = fault.from_s <= since_s < fault.to_s
            if fault.does == "renamed" and fault.symbol == symbol:
                return "trading" if is_on else "gone"
            if fault.on.startswith("market ") and is_on and fnmatchcase(f"market {symbol}", fault.on):
                if fault.does in ("gone", "renamed"):
                    return "gone"
                if fault.does == "halted":
                    return "halted"
        return "trading"

    def begins_ms(self, fault: Fault) -> int:
        """Return when a fault begins."""
        return self.began_ms + int(fault.from_s * 1000)

    def answer(
        self, fault: Fault, status: int, body: bytes, now: int, speed: float
    ) -> tuple[int, bytes, dict[str, str], Delivery]:
        """Return what is answered in place of `status` and `body`: also further headers, and how it is handed over.

        `speed` is that of the exchange's clock: Retry-After is for whoever waits, in real seconds.
        """
        if fault.does in ("status", "ban"):
            wait_s = fault.retry_after_s or self.left_s(fault, now) / speed
            code = 418 if fault.does == "ban" else fault.status
            headers = {"Retry-After": str(math.ceil(wait_s))} if code in (418, 429, 503) else {}
            said = (-1003, "Too much request weight used; please wait.") if code in (418, 429) else (-1000, "Internal.")
            return code, json.dumps(dict(zip(("code", "msg"), said, strict=True))).encode(), headers, WHOLE
        if fault.does in DELIVERIES:
            return status, body, {}, Delivery(Manner(fault.does), fault.seconds)
        if fault.does in VALUES:
            return status, json.dumps(alter(fault, json.loads(body))).encode(), {}, WHOLE
        bodies = {
            "html": b"<html><body><h1>Please wait</h1></body></html>", "garbage": bytes(range(128, 255)), "empty": b"",
            "list": b"[]", "truncated": body[: len(body) // 2],
        }  # fmt: skip
        return status, bodies[fault.does], {"Content-Type": "text/html"} if fault.does == "html" else {}, WHOLE


def alter(fault: Fault, document: Any) -> Any:
    """Return rows or an event with a value changed as the fault says."""
    for row in document if isinstance(document, list) else [document]:
        if not isinstance(row, dict):
            continue
        bid, ask = ("b", "a") if "e" in row or "u" in row else ("bidPrice", "askPrice")
        if fault.does == "foreign":
            row["s" if "s" in row else "symbol"] = fault.symbol
        elif fault.does == "crossed" and bid in row:
            row[bid], row[ask] = str(float(row[ask]) * 1.001), row[bid]
        elif fault.does == "value":
            for name in NAMES[fault.field]:
                if name in row:
                    row[name] = fault.value
    return document


def read_faults(path: Path) -> Faults:
    """Return the faults of a script (TOML, a [[fault]] each); raise UsageError naming what cannot be played."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from None
    rows = document.get("fault")
    if not isinstance(rows, list) or not rows or set(document) != {"fault"}:
        raise UsageError(f"{path} has no [[fault]], or something beside it")
    return Faults([_fault(row, f"{path}: fault {place}") for place, row in enumerate(rows, 1)])


def _fault(row: Mapping[str, Any], where: str) -> Fault:
    known = {item.name: item for item in fields(Fault)}
    for name, value in row.items():
        if name not in known:
            raise UsageError(f"{where}: {name} is unknown: {', '.join(known)}")
        number = name in ("from_s", "to_s", "times", "status", "retry_after_s", "seconds", "factor")
        if (number and (isinstance(value, bool) or not isinstance(value, int | float))) or (
            not number and name != "value" and not isinstance(value, str)
        ):
            raise UsageError(f"{where}: {name} = {value!r} is no {'number' if number else 'text'}")
    missing = {"on", "does"} - set(row)
    if missing:
        raise UsageError(f"{where}: {' and '.join(sorted(missing))} missing")
    fault = Fault(**row)
    try:
        fault.check()
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return fault
