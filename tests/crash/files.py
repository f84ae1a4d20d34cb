"""Drivers of one kind of file each, and what must hold of it after a kill, a failed call or a power loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.crash.rows import Outcome
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.io import jsonl, saved, sealing, state_files
from tradingbot.io.jsonl import DAY_MS, Damage, ReadReport, RotatingJSONLWriter, encode, read_jsonl
from tradingbot.io.segments import list_segments, manifest_path, sync_folder
from tradingbot.market.ticker import Ticker

T0 = 1_795_305_600_000  # 2026-11-22 00:00 UTC
RECORDS, SEGMENT = 32, 400
Acknowledge = Callable[[object], None]


def record(seq: int) -> dict[str, Any]:
    """Return the record of a number; day ends are crossed on the way."""
    return {"v": 1, "sid": "s", "ts_ms": T0 + seq // 12 * DAY_MS, "seq": seq, "text": "x" * (seq % 40)}


def writer(folder: Path, tell: Acknowledge, words: list[str]) -> None:
    """Write, rotate, flush, seal; words: how many records, and "sync" to acknowledge what is durable alone."""
    count = int(words[0]) if words else RECORDS
    is_durable = words[1:] == ["sync"]
    past: list[Path] = []
    stream = RotatingJSONLWriter(folder / "ticks", "x", SEGMENT, past.append)
    durable = 0
    for seq in range(count):
        entry = record(seq)
        try:
            stream.write(entry["ts_ms"], encode(entry))
        except OSError:
            tell(f"failed {seq}")
            stream.write(entry["ts_ms"], encode(entry))
        if not is_durable:
            tell(seq)
        if seq % 5 == 4:
            try:
                stream.sync()
            except OSError:
                tell(f"doubt {durable} {seq}")
            else:
                durable = seq + 1
                if is_durable:
                    tell(seq)
        while past:
            try:
                sealing.seal(past[-1])
            except OSError:
                tell(f"unsealed {past[-1]}")
            past.pop()
    try:
        stream.close()
    except OSError:
        tell(f"doubt {durable} {count}")


def check_writer(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that all that was acknowledged is there once, in order, unaltered; then that writing goes on."""
    acknowledged = max((int(word) + 1 for word in told if word.isdigit()), default=0)
    found = read_records(folder / "ticks", outcome)
    _in_order(found, acknowledged, outcome)
    stream = RotatingJSONLWriter(folder / "ticks", "x")
    more = record(len(found))
    stream.write(more["ts_ms"], encode(more))
    stream.finish()
    for segment in list_segments(folder / "ticks"):
        if not segment.sealed:
            sealing.seal(segment.path)
    again = read_records(folder / "ticks", outcome)
    outcome.holds(again == [*found, more], f"{len(found)} records became {len(again)} when writing went on", "lost")
    for segment in list_segments(folder / "ticks"):
        outcome.holds(
            segment.sealed and manifest_path(segment.path).exists(), f"{segment.path.name} is not sealed well"
        )


def _in_order(found: list[dict[str, Any]], acknowledged: int, outcome: Outcome) -> None:
    for place, entry in enumerate(found):
        if entry != record(place):
            outcome.fail(f"record {place} is {entry}", "gaps" if entry.get("seq") != place else "other")
            break
    outcome.checked += len(found)
    outcome.holds(len(found) >= acknowledged, f"{len(found)} records of {acknowledged} acknowledged", "lost")


def read_records(folder: Path, outcome: Outcome, series: str | None = None) -> list[dict[str, Any]]:
    """Return all records of a folder's segments; what cannot be read and is no torn last line is a violation."""
    report = ReadReport()
    found = [entry.record for entry in read_jsonl((s.path for s in list_segments(folder, series)), report)]
    for place in report.places:
        outcome.holds(place.damage is Damage.TORN, f"unreadable: {place}", "unreadable")
    return found


def atomic(folder: Path, tell: Acknowledge, words: list[str]) -> None:
    """Write one small file whole, again and again, and rest between: settings by a tool, a stamp, a status."""
    for number in range(int(words[0]) if words else 25):
        state_files.write_atomic(folder / "overrides.json", text_of(number))
        tell(number)
        if words[1:]:
            time.sleep(float(words[1]))


def text_of(number: int) -> bytes:
    """Return the text of a file's version, of many sizes."""
    return orjson.dumps({"number": number, "text": "y" * (number * 997 % 20_000)})


def check_atomic(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that the last version that was acknowledged, or the one after it, is there whole."""
    last, most = _last(told), _most_of(told)
    path = folder / "overrides.json"
    text = path.read_bytes() if path.exists() else None
    versions = {None} if last < 0 else set()
    versions |= {text_of(number) for number in range(max(last, 0), most + 2)}
    if text not in versions:
        kind = "unreadable" if text is not None and not _is_json(text) else "lost"
        outcome.fail(f"after {last} there is {text!r:.80}", kind)
    outcome.checked += 1
    state_files.write_atomic(path, b"{}")
    outcome.holds(path.read_bytes() == b"{}", "it cannot be written again")


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def _last(told: Iterable[str]) -> int:
    return max((int(word) for word in told if word.isdigit()), default=-1)


def _most_of(told: list[str]) -> int:
    """Return the last that may have been acknowledged: what came in while the power was cut is "late"."""
    return _last([word.removeprefix("late ") for word in told])


def checkpoint(folder: Path, tell: Acknowledge, words: list[str]) -> None:
    """Keep the checkpoint of an engine that sees one tick after the other."""
    engine = Engine(make_settings({}))
    for number in range(int(words[0]) if words else 20):
        engine.process(Ticker("BTC/USDT", T0 + number * 1000, 100.0 + number))
        text = orjson.dumps(engine.checkpoint_record())
        saved.save_checkpoint(folder, saved.checkpoint_line("s", engine.seq, T0, text), durable=True)
        tell(number)


def check_checkpoint(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that the last checkpoint acknowledged, or the one after it, is there, and an engine goes on from it."""
    last, most = _last(told), _most_of(told)
    found, troubles = saved.load_checkpoint(folder)
    outcome.holds(not troubles, f"after {last}: {troubles}", "unreadable")
    if found is None:
        outcome.holds(last < 0, f"after {last} there is none", "lost")
        return
    outcome.holds(last < found["seq"] <= most + 2, f"after {last} there is {found['seq'] - 1}", "lost")
    engine = Engine(make_settings({}))
    engine.restore(found["checkpoint"])
    outcome.holds(engine.states["BTC/USDT"].last == 99.0 + found["seq"], "it is another engine's")


def anchors(folder: Path, tell: Acknowledge, words: list[str]) -> None:
    """Keep anchors that move, and those before."""
    for number in range(int(words[0]) if words else 20):
        saved.save_anchors(folder, anchors_of(number), durable=True)
        tell(number)


def anchors_of(number: int) -> bytes:
    """Return the text of one version of anchors.json."""
    kept = {"BTC/USDT": {"price": 100.0 + number, "set_ms": T0 + number, "set_cause": "raised", "price_ms": T0}}
    return saved.anchors_line("s", T0, orjson.dumps(kept))


def check_anchors(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that the last anchors that were acknowledged, or those after them, are there, and the ones before too."""
    last, most = _last(told), _most_of(told)
    found, where, troubles = saved.load_anchors(folder, 0)
    outcome.holds(not troubles, f"after {last}: {troubles}", "unreadable")
    if not found:
        outcome.holds(last < 0, f"after {last} there are none", "lost")
        return
    number = round(found["BTC/USDT"]["price"] - 100)
    is_there = last <= number <= most + 1 and where == saved.ANCHORS
    outcome.holds(is_there, f"after {last} there is {number}", "lost")
    (folder / saved.ANCHORS).unlink()
    before, _, _ = saved.load_anchors(folder, 0)
    price = before["BTC/USDT"]["price"] - 100 if before else -1
    outcome.holds(price in {number - 1, number}, f"before {number} there was {price}", "lost")


SEGMENTS = 6


def filled(folder: Path, store: str = "ticks", size: int = 40) -> list[Path]:
    """Write segments that are past, durable, and return them."""
    past: list[Path] = []
    stream = RotatingJSONLWriter(folder / store, "x", 10**6, past.append)
    for place in range(SEGMENTS):
        lines = b"".join(encode(record(12 * place + seq) | {"ts_ms": T0 + place * DAY_MS}) for seq in range(size))
        stream.write(T0 + place * DAY_MS, lines)
    stream.finish()
    return past


def seal(folder: Path, tell: Acknowledge, words: list[str]) -> None:
    """Seal segments, one after the other."""
    for path in sorted((folder / "ticks").glob("*.jsonl")):
        try:
            sealing.seal(path)
        except OSError:
            tell("failed")
            sealing.seal(path)
        tell(path.name)


def check_seal(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that every record is there once, before and after sealing is run again."""
    wanted = sorted(
        encode(record(12 * p + seq) | {"ts_ms": T0 + p * DAY_MS}) for p in range(SEGMENTS) for seq in range(40)
    )
    for _ in range(2):
        found = sorted(encode(entry) for entry in read_records(folder / "ticks", outcome))
        outcome.holds(found == wanted, f"{len(found)} records of {len(wanted)}", "lost")
        for segment in list_segments(folder / "ticks"):
            if not segment.sealed:
                sealing.seal(segment.path)
    names = sorted(path.name for path in (folder / "ticks").iterdir())
    outcome.holds(
        len(names) == 2 * SEGMENTS and all(name.endswith((".zst", ".json")) for name in names), f"left over: {names}"
    )


def retain(folder: Path, tell: Acknowledge, words: list[str]) -> None:
    """Delete the oldest segments until what is left is small enough."""
    for deletion in sealing.plan_retention(_stores(folder), _most(folder)):
        ((_, error),) = sealing.apply_retention([deletion])
        tell(deletion.path.relative_to(folder) if error is None else "failed")


def _stores(folder: Path) -> list[sealing.Store]:
    return [sealing.Store(folder / "ticks", rank=1), sealing.Store(folder / "windows")]


def _most(folder: Path) -> int:
    return int((folder / "most").read_text())


def prepare_seal(folder: Path) -> None:
    """Make what is to be sealed."""
    filled(folder)


def prepare_retain(folder: Path) -> None:
    """Make twelve sealed segments, of which nine are too many."""
    for store in ("ticks", "windows"):
        for path in filled(folder, store):
            jsonl.repair_tail(path)
            sealing.seal(path)
    size = sum(path.stat().st_size for path in folder.rglob("*.*"))
    (folder / "most").write_text(str(size // 3))
    for path in (folder, folder / "ticks", folder / "windows"):
        sync_folder(path)


def check_retain(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that what was deleted is gone, what was not planned is there, and that it can be finished."""
    for word in told:
        if word != "failed":
            outcome.holds(not (folder / word).exists(), f"{word} is there again")
    read_records(folder / "ticks", outcome)
    sealing.apply_retention(sealing.plan_retention(_stores(folder), _most(folder)))
    outcome.holds(not sealing.plan_retention(_stores(folder), _most(folder)), "it does not come to an end")
    left = {store: [s.day for s in list_segments(folder / store)] for store in ("ticks", "windows")}
    kept = [20261125, 20261126, 20261127]  # one more may stay: of a segment that a kill has left its manifest is gone
    outcome.holds(left["ticks"][-3:] == kept and not left["windows"], f"left: {left}", "lost")
    records = read_records(folder / "ticks", outcome)
    outcome.holds(len(records) == 40 * len(left["ticks"]), f"{len(records)} records", "lost")


def nothing(folder: Path) -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Tie a driver to what is there before it, and to what must hold after it."""

    driver: str
    check: Callable[[Path, list[str], Outcome], None]
    weight: float
    prepare: Callable[[Path], None] = nothing


KINDS = {
    "writer": Kind("files.writer", check_writer, 0.25),
    "atomic": Kind("files.atomic", check_atomic, 0.1),
    "checkpoint": Kind("files.checkpoint", check_checkpoint, 0.1),
    "anchors": Kind("files.anchors", check_anchors, 0.15),
    "seal": Kind("files.seal", check_seal, 0.1, prepare_seal),
    "retain": Kind("files.retain", check_retain, 0.05, prepare_retain),
}
