"""What a start finds damaged, clocks that jump, tickers out of order, and a month of growth."""

from __future__ import annotations

import os
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from tests.crash.defects import injected
from tests.crash.files import read_records
from tests.crash.rows import Outcome, Row, numbered, span
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Rejected
from tradingbot.io import jsonl, saved, sealing
from tradingbot.io.jsonl import DAY_MS, encode
from tradingbot.io.lines import close_line
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, Stream
from tradingbot.market.ticker import Ticker
from tradingbot.services import memory as memory_service
from tradingbot.services.warm_start import recover

T0 = 1_795_305_600_000  # 2026-11-22 00:00 UTC
MONTH_DAYS = 30


OTHER_SCHEMAS: list[Any] = [
    {}, [], {"v": 2}, {"v": 1, "anchors": 3}, {"v": 1, "anchors": {"BTC/USDT": {"price": "1"}}},
    {"v": 1, "anchors": {"BTC/USDT": {"price": 1.0, "set_ms": 1.5}}}, {"v": 1, "anchors": {"X": None}},
]  # fmt: skip


def _anchors(price: float) -> bytes:
    facts = {"price": price, "set_ms": T0 - 1000, "set_cause": "raised", "price_ms": T0 - 1000}
    return saved.anchors_line("s", T0, orjson.dumps({"BTC/USDT": facts}))


def _spoil(path: Path, rng: random.Random) -> str:
    """Put something bad in the place of anchors.json; return what."""
    text = path.read_bytes()
    path.unlink()
    place = rng.randrange(len(text) - 20)  # behind it stands the checksum: without that it is a person's, and whole
    kind = rng.choice(("random", "cut", "schema", "empty", "nuls", "huge", "link", "folder", "bit", "deep", "fifo"))
    if kind == "random":
        path.write_bytes(rng.randbytes(rng.randrange(1, 400)))
    elif kind == "cut":
        path.write_bytes(text[:place])
    elif kind == "schema":
        record = orjson.dumps(rng.choice(OTHER_SCHEMAS))
        path.write_bytes(close_line(record) if record.startswith(b'{"') and rng.random() < 0.5 else record)
    elif kind == "empty":
        path.touch()
    elif kind == "nuls":
        path.write_bytes(bytes(rng.randrange(1, 9_000)))
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(100_000_000)
    elif kind == "link":
        path.symlink_to(rng.choice(("nowhere", "/etc/hostname", path.name)))
    elif kind == "folder":
        path.mkdir()
    elif kind == "bit":
        path.write_bytes(text[:place] + bytes([text[place] ^ 1 << rng.randrange(8)]) + text[place + 1 :])
    elif kind == "deep":
        path.write_bytes(b'{"v":1,"anchors":' + b'{"a":' * rng.randrange(300, 3_000))
    else:
        os.mkfifo(path)
    return kind


def anchors(case: str, folder: Path) -> Outcome:
    """Spoil anchors.json, or the one before it too: the last good ones, else the stream's, else none; kept aside."""
    outcome = Outcome(count=0)
    for number in span(case):
        rng = random.Random(number)
        outcome.count += 1
        state = folder / str(number)
        state.mkdir()
        for price in (100.0, 101.0):
            saved.save_anchors(state, _anchors(price), durable=False)
        has_stream = rng.random() < 0.5
        if has_stream:
            stream = jsonl.RotatingJSONLWriter(state / FOLDERS[Stream.ANCHORS], Stream.ANCHORS.value)
            facts = {"price": 102.0, "set_ms": T0, "set_cause": "raised", "price_ms": T0}
            stream.write(T0, encode({"ts_ms": T0, "symbol": "BTC/USDT", "anchor": facts}))
            stream.release()
        spoilt = {saved.ANCHORS: _spoil(state / saved.ANCHORS, rng)}
        if rng.random() < 0.5 and (state / saved.LAST_ANCHORS).exists():
            spoilt[saved.LAST_ANCHORS] = _spoil(state / saved.LAST_ANCHORS, rng)
        wanted = 100.0 if saved.LAST_ANCHORS not in spoilt else 102.0 if has_stream else None
        _recovered(state, spoilt, wanted, f"{number} {spoilt}", outcome)
    return outcome


def _recovered(state: Path, spoilt: dict[str, str], wanted: float | None, what: str, outcome: Outcome) -> None:
    settings = make_settings({})
    try:
        found = recover(state, settings, {}, T0)
    except Exception as error:  # noqa: BLE001  (whatever it is, a start must not fall over it)
        outcome.fail(f"{what}: a start fell over it: {error!r}", "unreadable")
        return
    memory = found.engine.states.get("BTC/USDT")
    price = None if memory is None or memory.anchor is None else memory.anchor.price
    outcome.holds(price == wanted, f"{what}: the anchor is {price}, not {wanted}", "lost")
    for name in spoilt:
        path = state / name
        aside = path.with_name(path.name + ".bad-1")
        outcome.holds(not os.path.lexists(path) and os.path.lexists(aside), f"{what}: {name} is not kept aside")
        named = any(str(path) in trouble and aside.name in trouble for trouble in found.troubles)
        outcome.holds(named, f"{what}: not named: {found.troubles}")
    again = recover(state, settings, {}, T0)
    kept = {name for name in spoilt if os.path.lexists(state / name)}
    outcome.holds(not kept, f"{what}: {kept} again; {again.troubles}")


LEAP = 1_835_395_200_000 - 2_000  # 2028-02-28 23:59:58
YEAR = 1_830_297_600_000 - 2_000  # 2027-12-31 23:59:58


def clocks(case: str, folder: Path) -> Outcome:
    """Write while the clock is set forth and back, over leap days and year ends, by one session after the other."""
    outcome = Outcome(count=0)
    for number in span(case):
        outcome.count += 1
        _one_clock(number, folder / str(number), outcome)
    return outcome


def _one_clock(number: int, folder: Path, outcome: Outcome) -> None:
    rng = random.Random(number)
    now_ms = rng.choice((T0, LEAP, YEAR, T0 - 1))
    sid, seq, last_ms = "", 0, -1
    engine = Engine(make_settings({"GLOBAL_TRADING": True, "WINDOW_LOOKBACK_S": 3}))
    for _ in range(rng.randrange(2, 5)):
        newer = memory_service.next_sid(sid, now_ms)
        outcome.holds(newer > sid and newer.isprintable(), f"clock {number}: session {newer} behind {sid}")
        sid = newer
        writer = jsonl.RotatingJSONLWriter(folder / "ticks", "x", rng.choice((150, 10**6)))
        for _ in range(rng.randrange(2, 12)):
            now_ms += rng.choice(
                (1, 700, 1500, 86_400_000, -3_600_000, 3_600_000, -86_400_000 * 400, 40 * 86_400_000, 0)
            )
            before = {path.name: path.read_bytes() for path in (folder / "ticks").glob("*")}
            writer.write(now_ms, encode({"sid": sid, "ts_ms": now_ms, "seq": seq}))
            seq += 1
            changed = [
                name for name, text in before.items() if not (folder / "ticks" / name).read_bytes().startswith(text)
            ]
            outcome.holds(not changed, f"clock {number}: {changed} overwritten", "lost")
            outputs = engine.process(Ticker("X/USDT", now_ms, 100.0))
            window = engine.states["X/USDT"].window
            if outputs and isinstance(outputs[0], Rejected):
                outcome.holds(now_ms <= last_ms, f"clock {number}: {outputs[0].reason} though time went on")
            else:
                outcome.holds(now_ms > last_ms, f"clock {number}: taken though time went back")
                last_ms = max(now_ms, last_ms)
            ends = [ts_ms for ts_ms, _ in (*window.highs, *window.lows)]
            inside = all(last_ms - 3_000 < ts_ms <= last_ms for ts_ms in ends)
            outcome.holds(ends and inside, f"clock {number}: the window holds {ends} at {last_ms}")
        writer.release()
    found = [entry["seq"] for entry in read_records(folder / "ticks", outcome)]
    outcome.holds(
        found == list(range(seq)), f"clock {number}: {len(found)} records of {seq}, or in another order", "lost"
    )


def tickers(case: str, folder: Path) -> Outcome:
    """Feed duplicates, late, stale and early tickers: the window holds what a sorted model does, and nothing fires."""
    outcome = Outcome(count=0)
    for number in span(case):
        outcome.count += 1
        _one_feed(number, outcome)
    return outcome


def _one_feed(number: int, outcome: Outcome) -> None:
    rng = random.Random(number)
    lookback_ms = rng.choice((500, 2_000, 10_000))
    engine = Engine(
        make_settings({"WINDOW_LOOKBACK_S": lookback_ms / 1000, "TICKER_MAX_AGE_S": 5, "TICKER_MAX_AHEAD_S": 2})
    )
    now_ms = T0
    model: list[tuple[int, float]] = []
    sent: list[Ticker] = []
    for _ in range(rng.randrange(5, 40)):
        now_ms += rng.choice((0, 1, 100, 400, 1_000, 3_000))
        if sent and rng.random() < 0.2:
            ticker = rng.choice(sent)
        else:
            ts_ms = now_ms + rng.choice((0, 0, 0, -1, -300, -4_999, -5_001, 1_999, 2_001))
            ticker = Ticker("X/USDT", ts_ms, round(100 + rng.randrange(-5, 6) / 10, 1), recv_ms=now_ms)
        sent.append(ticker)
        last = model[-1] if model else (-1, 0.0)
        assert ticker.recv_ms is not None
        age_ms = ticker.recv_ms - ticker.ts_ms
        fits = -2_000 <= age_ms <= 5_000 and ticker.ts_ms >= last[0] and (ticker.ts_ms, ticker.last) != last
        outputs = engine.process(ticker)
        rejected = bool(outputs) and isinstance(outputs[0], Rejected)
        outcome.holds(
            rejected != fits, f"feed {number}: {ticker} after {last} was {'rejected' if rejected else 'taken'}"
        )
        if fits:
            assert ticker.last is not None
            model.append((ticker.ts_ms, ticker.last))
        if model:
            inside = sorted(price for ts_ms, price in model if ts_ms > model[-1][0] - lookback_ms)
            window = engine.states["X/USDT"].window
            wanted = inside[-1], inside[0]
            found = window.peak, window.trough
            outcome.holds(found == wanted, f"feed {number}: the window's ends are {found}, not {wanted}")


def month(case: str, folder: Path) -> Outcome:
    """Record thirty days with clock changes, seal, and keep to a budget: the oldest goes, all else is there."""
    outcome = Outcome(count=MONTH_DAYS)
    rng = random.Random(case)
    start_ms = T0 - 400 * DAY_MS
    past: list[Path] = []
    writers = {
        (store, series): jsonl.RotatingJSONLWriter(folder / store, series, 60_000, past.append)
        for store, series in (("ticks", "A"), ("ticks", "B"), ("windows", "windows"))
    }
    stores = [sealing.Store(folder / "ticks", rank=1), sealing.Store(folder / "windows")]
    budget, largest = 300_000, 0
    written: dict[tuple[str, str], list[int]] = {key: [] for key in writers}
    deleted: dict[str, int] = {}
    unbounded = 0
    for day in range(MONTH_DAYS):
        for hour in range(24):
            now_ms = (
                start_ms
                + day * DAY_MS
                + hour * 3_600_000
                + (0 if day not in (10, 20) else rng.choice((-5, 5)) * 600_000)
            )
            for key, writer in writers.items():
                for _ in range(rng.randrange(20, 40)):
                    seq = len(written[key])
                    text = "".join(rng.choices(string.ascii_letters, k=60))  # what does not shrink much
                    writer.write(now_ms, encode({"sid": "s", "ts_ms": now_ms, "seq": seq, "text": text}))
                    written[key].append(seq)
            while past:
                sealed = sealing.seal(past.pop())
                size = sealed.stat().st_size
                largest, unbounded = max(largest, size), unbounded + size
            for deletion, error in sealing.apply_retention(sealing.plan_retention(stores, budget)):
                outcome.holds(error is None, f"{deletion.path.name}: {error}")
                deleted[deletion.path.parent.name] = deleted.get(deletion.path.parent.name, 0) + 1
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if unbounded > 2 * budget:
            full = 0.95 * budget - largest <= total <= 1.05 * budget
            outcome.holds(full, f"day {day}: {total:,} bytes, the budget is {budget:,}")
    for writer in writers.values():
        writer.close()
    for (store, series), seqs in written.items():
        found = [entry["seq"] for entry in read_records(folder / store, outcome, series)]
        outcome.holds(found == seqs[len(seqs) - len(found) :], f"{store} {series}: not the newest, or a gap", "lost")
        outcome.holds(found, f"{store} {series}: nothing is left", "lost")
    outcome.holds(deleted.get("windows") and deleted.get("ticks"), f"deleted: {deleted}")
    open_segments = [segment for store in stores for segment in list_segments(store.folder) if not segment.sealed]
    outcome.holds(len(open_segments) == len(writers), f"{len(open_segments)} segments are open")
    return outcome


def _defect(run: Callable[[str, Path], Outcome], case: str, name: str) -> Callable[[Path], Outcome]:
    def found(folder: Path) -> Outcome:
        with injected(name):
            return run(case, folder)

    return found


ROWS = (
    Row(
        "anchors", "anchors.json random, cut, of another schema, empty, 100 MB, a link, a folder: kept aside", "files",
        full=10_000, sample=60, cases=numbered(250), run=anchors,
        defects={
            "one before not kept": _defect(anchors, "0+20", "one before not kept"),
            "bad file removed": _defect(anchors, "0+20", "bad file removed"),
        },
    ),
    Row(
        "clocks", "the clock set forth and back, leap days, year ends: nothing overwritten, sessions sort", "clocks",
        full=1_000, sample=40, cases=numbered(50), run=clocks,
        defects={
            "segment overwritten": _defect(clocks, "0+20", "segment overwritten"),
            "next session sorts before": _defect(clocks, "0+40", "next session sorts before"),
        },
    ),
    Row(
        "tickers", "duplicate, late, stale and early tickers: the window is a sorted model's", "feeds",
        full=5_000, sample=100, cases=numbered(250), run=tickers,
        defects={"guard skipped": _defect(tickers, "0+50", "guard skipped")},
    ),
    Row(
        "month", "thirty days of recording on a budget, with midnights and clock changes: nothing lost", "days",
        full=10 * MONTH_DAYS, sample=MONTH_DAYS, cases=numbered(MONTH_DAYS), run=month,
        defects={
            "nothing deleted": _defect(month, "0+30", "nothing deleted"),
            "all that is sealed deleted": _defect(month, "0+30", "all that is sealed deleted"),
        },
    ),
)  # fmt: skip
