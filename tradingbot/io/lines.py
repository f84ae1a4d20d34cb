"""One record, one line: JSON with a checksum, so that a changed digit is found and a damaged line never raises anew."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from zlib import crc32

import orjson

from tradingbot.errors import DataError

__all__ = [
    "MAX_LINE", "Damage", "Damaged", "close_line", "decode", "decode_lines", "encode", "plain_number", "read_number",
    "to_json",
]  # fmt: skip

MAX_LINE = 1 << 20  # bytes, line end included: a reader's memory is bounded by it, so a writer must not pass it
_HEAD, _FOOT = b',"crc":"', b'"}'
_CRC = len(_HEAD) + 8 + len(_FOOT)


class Damage(StrEnum):
    """Name what is wrong with a line, or with what should hold lines."""

    TOO_LONG = "longer than 1 MB"
    NULS = "NUL bytes"
    NOT_UTF8 = "not UTF-8"
    NOT_JSON = "no JSON object"
    NO_CRC = "no checksum"
    WRONG_CRC = "wrong checksum"
    TORN = "no line end"
    UNREADABLE = "unreadable"
    SCHEMA = "not of this schema"


class Damaged(DataError):  # noqa: N818  (what is damaged is the line; nothing went wrong)
    """Say why a line is no record; `damage` is the reason as a value."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(damage.value)
        self.damage = damage


def encode(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line: its members, then `crc`, the CRC-32 of all that stands before it, then a line end.

    The record has at least one member and none named `crc`. A float that is not finite would become null: pass it
    through `plain_number`. Raises TypeError for what JSON cannot hold (an int beyond 64 bits, a lone surrogate, nesting
    beyond 254) and ValueError for a record beyond MAX_LINE, which no reader would take.
    """
    return close_line(to_json(record))


def to_json(record: Mapping[str, Any]) -> bytes:
    """Return a record as the JSON text that `close_line` makes a line of; raise as `encode` does."""
    text = orjson.dumps(record)
    if len(text) > MAX_LINE - _CRC:
        raise ValueError(f"a record of {len(text)} bytes, at most {MAX_LINE - _CRC} fit a line")
    return text


def close_line(text: bytes) -> bytes:
    """Return the JSON text of an object that is not empty as a line: with its checksum as the last member."""
    text = text[:-1]
    return b'%b,"crc":"%08x"}\n' % (text, crc32(text))


def decode(line: bytes, max_bytes: int = MAX_LINE) -> dict[str, Any]:
    """Return the record of a line, with or without its line end, less its `crc`; raise Damaged, and nothing else.

    A right checksum means that the line is as `encode` wrote it, so duplicate keys are not looked for beside it.
    """
    line = line.removesuffix(b"\n")
    if len(line) >= max_bytes:
        raise Damaged(Damage.TOO_LONG)
    text, crc = line[:-_CRC], line[-_CRC:]
    if crc != b'%b%08x"}' % (_HEAD, crc32(text)):
        raise Damaged(_why(line))
    record = _parse(line)
    if record is None:
        raise Damaged(Damage.NOT_JSON)
    del record["crc"]
    return record


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _why(line: bytes) -> Damage:
    """Name the reason why a line's checksum does not fit."""
    if b"\0" in line:
        return Damage.NULS
    try:
        line.decode()
    except UnicodeDecodeError:
        return Damage.NOT_UTF8
    if line[-_CRC:].startswith(_HEAD) and line.endswith(_FOOT):
        return Damage.WRONG_CRC
    return Damage.NO_CRC if _parse(line) is not None else Damage.NOT_JSON


def decode_lines(lines: Sequence[bytes]) -> list[dict[str, Any] | Damage]:
    """Return the record, or the damage, of each line; the lines come without their ends.

    All are parsed and all checksums compared at once, which takes 1.2 times as long as to parse them one by one, where
    `decode` for each takes 1.6 times. If anything is wrong with any, it is that.
    """
    try:
        text = b"[%b]" % b",".join(lines)
        if len(text) >= MAX_LINE and max(map(len, lines)) >= MAX_LINE:
            return list(map(_record_or_damage, lines))
        records: list[dict[str, Any]] = orjson.loads(text)
        found = "".join([record.pop("crc") for record in records])
        crcs = struct.pack(f">{len(lines)}I", *[crc32(line[:-_CRC]) for line in lines])
        if len(records) == len(lines) and found == crcs.hex() and all(records):  # the CRC-32 of nothing is 00000000
            return list(records)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return list(map(_record_or_damage, lines))


def _record_or_damage(line: bytes) -> dict[str, Any] | Damage:
    try:
        return decode(line)
    except Damaged as error:
        return error.damage


def plain_number(value: float) -> float | str:
    """Return a number as a record holds it: itself, or the text "NaN", "Infinity" or "-Infinity"."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_number(value: float | str) -> float:
    """Return the number that `plain_number` was given; raise ValueError for any other text."""
    if isinstance(value, str) and value not in {"NaN", "Infinity", "-Infinity"}:
        raise ValueError(f"{value!r} is no number")
    return float(value)
