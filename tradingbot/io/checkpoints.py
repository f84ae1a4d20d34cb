"""Checkpoints in the journal: an engine as one record and, where it is too large for that, the parts that follow it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from tradingbot.engine.engine import Engine
from tradingbot.io.lines import to_json
from tradingbot.io.streams import event_record

__all__ = ["PART", "checkpoint_texts", "join", "joined"]

PART = "checkpoint_part"

_PART_BYTES = 1 << 18  # of what is spread over parts; the head holds settings beside it
_PIECE_POINTS = 4_000  # of a window: a point is at most 48 bytes
_LISTS, _TABLES = ("symbols", "positions", "orders"), ("amount_steps", "windows")

_json = msgspec.json.Encoder().encode


def checkpoint_texts(sid: str, ts_ms: int, kind: str, engine: Engine, **facts: Any) -> list[bytes]:
    """Return a record that carries a checkpoint of an engine, and the parts that follow it at once, as JSON.

    `facts` are the record's further members. The record says in `parts` how many lines it is in all; as many symbols
    with their windows as fit stand in it, further ones in the parts. A line is less than half of MAX_LINE for symbols
    of up to 10,000 characters, whatever they are, and windows of any length.
    """
    first, *rest = _parts(engine)
    checkpoint = {
        "seq": engine.seq, "now_ms": engine.now_ms, "settings": _raw(engine.settings),
        "amount_steps": first["amount_steps"], "account": _raw(engine.portfolio.account),
        "conditions": engine.conditions, "symbols": first["symbols"], "positions": first["positions"],
        "orders": first["orders"], "windows": first["windows"],
    }  # fmt: skip
    texts = [to_json(event_record(sid, ts_ms, kind, **facts, parts=1 + len(rest), checkpoint=checkpoint))]
    for number, part in enumerate(rest, 1):
        filled = {member: entries for member, entries in part.items() if entries}
        texts.append(to_json(event_record(sid, ts_ms, PART, seq=engine.seq, part=number, **filled)))
    return texts


def join(head: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the whole checkpoint of a record and the parts that follow it, None where one is missing or a stranger."""
    checkpoint = head.get("checkpoint")
    if checkpoint is None or len(parts) != head.get("parts", 1) - 1:
        return None
    whole: dict[str, Any] = {
        **checkpoint,
        **{member: list(checkpoint[member]) for member in _LISTS},
        **{member: dict(checkpoint[member]) for member in _TABLES},
    }
    for number, part in enumerate(parts, 1):
        found = (part.get("type"), part.get("sid"), part.get("seq"), part.get("part"))
        if found != (PART, head["sid"], checkpoint["seq"], number):
            return None
        for member in _LISTS:
            whole[member] += part.get(member, ())
        whole["amount_steps"].update(part.get("amount_steps", {}))
        for symbol, piece in part.get("windows", {}).items():
            before = whole["windows"].get(symbol, {"highs": [], "lows": []})
            whole["windows"][symbol] = {end: before[end] + piece[end] for end in ("highs", "lows")}
    return whole


def joined(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the records of a journal, each checkpoint whole in its record (None where it is incomplete), no parts."""
    head: dict[str, Any] | None = None
    parts: list[dict[str, Any]] = []
    for record in records:
        is_part = record.get("type") == PART
        if head is not None:
            parts += [record] * is_part
            if not is_part or len(parts) == head["parts"] - 1:
                yield head | {"checkpoint": join(head, parts)}
                head = None
        if not is_part:
            if record.get("parts", 1) == 1:
                yield record
            else:
                head, parts = record, []
    if head is not None:
        yield head | {"checkpoint": join(head, parts)}


def _raw(value: Any) -> orjson.Fragment:
    return orjson.Fragment(_json(value))


def _parts(engine: Engine) -> list[dict[str, Any]]:
    """Return what is spread over parts, filled one after the other; there is always a first one."""
    part, size = _part(), 0
    parts = [part]
    for member, key, text in _entries(engine):
        size += len(text)
        if key is not None:
            size += len(key) * 6  # no character takes more
        if size > _PART_BYTES or (key is not None and key in part[member]):  # the next piece of a window
            size = len(text)
            part = _part()
            parts.append(part)
        if key is None:
            part[member].append(orjson.Fragment(text))
        else:
            part[member][key] = orjson.Fragment(text)
    return parts


def _part() -> dict[str, Any]:
    return {member: [] for member in _LISTS} | {member: {} for member in _TABLES}


def _entries(engine: Engine) -> Iterator[tuple[str, str | None, bytes]]:
    """Yield what is spread over parts: member, key in it or None for a list, the entry as JSON."""
    for symbol, step in engine.rules.broker.steps.items():
        yield "amount_steps", symbol, _json(step)
    for symbol in engine.portfolio.positions:
        yield "positions", None, _json(symbol)
    for symbol in engine.portfolio.orders:
        yield "orders", None, _json(symbol)
    for symbol, state in engine.states.items():
        yield "symbols", None, _json(state)
        highs, lows = list(state.highs), list(state.lows)
        if len(highs) + len(lows) <= _PIECE_POINTS:
            yield "windows", symbol, _json({"highs": highs, "lows": lows})
            continue
        for first in range(0, len(highs), _PIECE_POINTS):
            yield "windows", symbol, _json({"highs": highs[first : first + _PIECE_POINTS], "lows": []})
        for first in range(0, len(lows), _PIECE_POINTS):
            yield "windows", symbol, _json({"highs": [], "lows": lows[first : first + _PIECE_POINTS]})
