"""The streams: where each lies, and what one record of it is; facts become records here, and inputs again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
import orjson

from tradingbot.engine.engine import Engine
from tradingbot.engine.events import (
    AnchorFacts,
    AnchorMoved,
    AnchorReset,
    Cancelled,
    ClockStep,
    Condition,
    Decision,
    ExitDecided,
    Filled,
    Input,
    Output,
    Parked,
    Rejected,
    SettingsChanged,
    Trade,
    WindowMoved,
    to_record,
)
from tradingbot.engine.state import SymbolState
from tradingbot.io.lines import plain_number, read_number, to_json
from tradingbot.market.drop_triggers import ReferenceSource, drop_pct, threshold
from tradingbot.market.ticker import Ticker, spread_bps

__all__ = [
    "FOLDERS",
    "JOURNAL",
    "VERSION",
    "Control",
    "Stream",
    "Told",
    "control_record",
    "derived_json",
    "event_record",
    "input_of",
    "lead_of",
    "output_of",
    "output_record",
    "rejection_record",
    "snapshot_json",
    "stream_of",
    "tick_json",
    "tick_record",
]

VERSION = 1

MAX_TEXT = 1_000  # of what an exchange may have put in the place of a number
NAMED = ("NaN", "Infinity", "-Infinity")

Told = Decision | ExitDecided | Filled | Cancelled | Trade
Control = SettingsChanged | Condition | Parked | AnchorReset | ClockStep


class Stream(StrEnum):
    """Name a stream; the journal is never switched off."""

    TICKS = "ticks"
    SNAPSHOTS = "snapshots"
    WINDOWS = "windows"
    ANCHORS = "anchors"
    JOURNAL = "journal"


JOURNAL = Stream.JOURNAL
FOLDERS = {
    Stream.TICKS: "drop_windows/ticks",
    Stream.SNAPSHOTS: "drop_windows/snapshots",
    Stream.WINDOWS: "drop_windows/windows",
    Stream.ANCHORS: "drop_windows/anchors",
    Stream.JOURNAL: "journal",
}
"""Folders under the state directory. Ticks have a series a symbol, every other stream one of its own name."""

_json = msgspec.json.Encoder().encode  # of Structs, in a third of the time that a dict and its encoding take
_PLAIN = {float, type(None)}


# What is written most, in the order of its members; made by position, because by name it takes four times as long.


class _Tick(msgspec.Struct, gc=False, omit_defaults=True):
    """Hold an accepted ticker whose prices are plain."""

    ts_ms: int
    seq: int
    symbol: str
    last: float
    bid: float
    ask: float
    bid_size: float | None = None
    ask_size: float | None = None
    quote_volume: float | None = None
    recv_ms: int | None = None
    feed_age_ms: int | None = None


class _Window(msgspec.Struct, gc=False):
    """Hold a change of a window."""

    ts_ms: int
    type: str
    cause: int
    k: int
    symbol: str
    peak: float
    trough: float


class _Anchor(msgspec.Struct, gc=False):
    """Hold a change of an anchor."""

    ts_ms: int
    type: str
    cause: int
    k: int
    symbol: str
    cause_word: str
    anchor: AnchorFacts


class _Snapshot(msgspec.Struct, gc=False):
    """Hold what is told of a symbol."""

    ts_ms: int
    cause: int
    symbol: str
    last: float
    bid: float | None
    ask: float | None
    spread_bps: float | None
    reference: float
    reference_source: ReferenceSource
    threshold: float
    drop_pct: float
    peak: float
    trough: float
    session_start: float
    session_peak: float
    anchor: float | None
    anchor_set_ms: int | None
    armed: bool
    below: int
    triggers: int


TICKER_FIELDS = tuple(field for field in Ticker.__struct_fields__ if field not in ("symbol", "ts_ms"))


def tick_record(sid: str, seq: int, t: Ticker) -> dict[str, Any]:
    """Return an accepted ticker as a record of the ticks: with all that its guards saw, absent members left out."""
    record: dict[str, Any] = {
        "v": VERSION, "sid": sid, "ts_ms": t.ts_ms, "seq": seq, "symbol": t.symbol,
        "last": t.last if type(t.last) is float else _told(t.last),
        "bid": t.bid if type(t.bid) is float else _told(t.bid),
        "ask": t.ask if type(t.ask) is float else _told(t.ask),
    }  # fmt: skip
    if t.bid_size is not None:
        record["bid_size"] = t.bid_size if type(t.bid_size) is float else _told(t.bid_size)
    if t.ask_size is not None:
        record["ask_size"] = t.ask_size if type(t.ask_size) is float else _told(t.ask_size)
    if t.quote_volume is not None:
        record["quote_volume"] = t.quote_volume if type(t.quote_volume) is float else _told(t.quote_volume)
    if t.recv_ms is not None:
        record["recv_ms"] = t.recv_ms
    if t.feed_age_ms is not None:
        record["feed_age_ms"] = t.feed_age_ms
    return record


def lead_of(sid: str) -> bytes:
    """Return how the text of a session's every record begins."""
    return b'{"v":%d,"sid":%b,' % (VERSION, orjson.dumps(sid))


def tick_json(lead: bytes, sid: str, seq: int, t: Ticker) -> bytes:
    """Return an accepted ticker as the text of its `tick_record`, to the byte; `lead` is that of the session."""
    last, bid, ask, volume, bid_size, ask_size = t.last, t.bid, t.ask, t.quote_volume, t.bid_size, t.ask_size
    if (
        type(last) is type(bid) is type(ask) is float
        and type(volume) in _PLAIN
        and type(bid_size) in _PLAIN
        and type(ask_size) in _PLAIN
    ):
        tick = _Tick(t.ts_ms, seq, t.symbol, last, bid, ask, bid_size, ask_size, volume, t.recv_ms, t.feed_age_ms)
        return lead + _json(tick)[1:]
    return to_json(tick_record(sid, seq, t))


def derived_json(lead: bytes, output: AnchorMoved | WindowMoved) -> bytes:
    """Return a change of an anchor or a window as the text of its `output_record`, to the byte."""
    o = output
    if isinstance(o, WindowMoved):
        return lead + _json(_Window(o.ts_ms, "window", o.cause, o.k, o.symbol, o.peak, o.trough))[1:]
    return lead + _json(_Anchor(o.ts_ms, "anchor", o.cause, o.k, o.symbol, o.cause_word, o.anchor))[1:]


def rejection_record(sid: str, seq: int, ticker: Ticker, rejected: Rejected) -> dict[str, Any]:
    """Return a rejected ticker as an input of the journal."""
    record = {
        "v": VERSION, "sid": sid, "ts_ms": ticker.ts_ms, "seq": seq, "type": "rejected", "symbol": ticker.symbol,
        "reason": rejected.reason, "detail": rejected.detail,
    }  # fmt: skip
    values = ((name, getattr(ticker, name)) for name in TICKER_FIELDS)
    return record | {name: _told(value) for name, value in values if value is not None}


def control_record(sid: str, seq: int, ts_ms: int, event: Control) -> dict[str, Any]:
    """Return an input that is no ticker as a record of the journal; `ts_ms` is the session's time."""
    return {"v": VERSION, "sid": sid, "ts_ms": ts_ms, "seq": seq, **msgspec.to_builtins(event)}


def event_record(sid: str, ts_ms: int, kind: str, **facts: Any) -> dict[str, Any]:
    """Return a record of the journal that is neither input nor output: session start and end, checkpoints."""
    return {"v": VERSION, "sid": sid, "ts_ms": ts_ms, "type": kind, **facts}


def output_record(sid: str, output: Output) -> dict[str, Any]:
    """Return an output as a record of its stream; `cause` is the input that it answers, `k` its place in the answer."""
    record = to_record(output)
    ts_ms = output.exit_ms if isinstance(output, Trade) else output.ts_ms
    return {"v": VERSION, "sid": sid, "ts_ms": ts_ms, **record}


def stream_of(output: Output) -> Stream:
    """Return the stream that an output belongs to."""
    if isinstance(output, AnchorMoved):
        return Stream.ANCHORS
    return Stream.WINDOWS if isinstance(output, WindowMoved) else Stream.JOURNAL


def snapshot_json(lead: bytes, seq: int, engine: Engine, state: SymbolState) -> bytes:
    """Return what the bot knows of a symbol after input `seq`, its last accepted tick, as a record's text."""
    rules, last, bid, ask, anchor = engine.rules, state.last, state.bid, state.ask, state.anchor
    spread = None if bid is None or ask is None else spread_bps(bid, ask)
    price, set_ms = (None, None) if anchor is None else (anchor.price, anchor.set_ms)
    reference = rules.reference(state)
    limit = threshold(reference, rules.value, rules.zone)
    snapshot = _Snapshot(
        state.ts_ms, seq, state.symbol, last, bid, ask, spread, reference, rules.source, limit,
        drop_pct(last, reference), state.highs[0][1], state.lows[0][1], state.session_start, state.session_peak,
        price, set_ms, state.armed, state.below, state.triggers,
    )  # fmt: skip
    return lead + _json(snapshot)[1:]


def input_of(record: Mapping[str, Any]) -> Input:
    """Return the input that a record of the ticks or of the journal holds; raise ValueError where it holds none."""
    kind = record.get("type")
    if kind in (None, "rejected"):
        if type(record["ts_ms"]) is not int or not isinstance(record["symbol"], str):
            raise ValueError("a ticker without time or symbol is no input")
        values = {name: _value(record[name]) for name in TICKER_FIELDS if name in record}
        return Ticker(record["symbol"], record["ts_ms"], **values)
    try:
        event: Input = msgspec.convert(record, Control)
    except msgspec.ValidationError as error:
        raise ValueError(f"a record of type {kind!r} is no input: {error}") from None
    return event


def output_of(record: Mapping[str, Any]) -> Told:
    """Return the output that a record of the journal holds; raise ValueError where it holds none."""
    try:
        output: Told = msgspec.convert(record, Told)
    except msgspec.ValidationError as error:
        raise ValueError(f"a record of type {record.get('type')!r} is no output: {error}") from None
    return output


def _told(value: Any) -> Any:
    """Return a member of a ticker, which may be anything that an exchange has answered, as a record can hold it.

    Read again it meets the same guards: an int beyond 64 bits becomes the double that they take it for.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**64:
            return value
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    if isinstance(value, float):
        return plain_number(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()[:MAX_TEXT]
    try:
        text = orjson.dumps(value)
    except TypeError:
        text = b""
    return value if 0 < len(text) <= MAX_TEXT else repr(value)[:MAX_TEXT]


def _value(value: Any) -> Any:
    return read_number(value) if value in NAMED else value
