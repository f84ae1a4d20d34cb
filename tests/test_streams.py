"""The stream writer: order, trouble that neither stops the engine nor goes unsaid, healing; and housekeeping."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Rejected
from tradingbot.io import stream_writer
from tradingbot.io.jsonl import RotatingJSONLWriter, decode, encode, read_jsonl
from tradingbot.io.lines import to_json
from tradingbot.io.segments import list_segments
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream, input_of, rejection_record, tick_record
from tradingbot.market.ticker import Ticker
from tradingbot.services import housekeeping
from tradingbot.services.housekeeping import Housekeeper

pytestmark = pytest.mark.feature("FEATURE_PERSIST_STREAMS")

T = 1_700_000_000_000


def writer(state: Path, told: list[str | None] | None = None, threaded: bool = False, **options: Any) -> StreamWriter:
    trouble = (lambda _: None) if told is None else told.append
    return StreamWriter(state, "s", 50_000_000, 0.05, 0.05, trouble, threaded=threaded, **options)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, however long that takes here."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def put(target: StreamWriter, stream: Stream, count: int, first: int = 0, series: str = "A") -> None:
    name = JOURNAL.value if stream is JOURNAL else series
    for number in range(first, first + count):
        target.put(stream, name, T + number, to_json({"v": 1, "n": number}))


def numbers(state: Path, stream: Stream) -> list[int | str]:
    """Return the numbers of all records of a stream, and `gap N` for a gap record."""
    found = read_jsonl(segment.path for segment in list_segments(state / FOLDERS[stream]))
    return [f.record["n"] if "n" in f.record else f"{f.record['type']} {f.record['missing']}" for f in found]


@pytest.mark.parametrize("threaded", [True, False])
def test_what_was_put_is_written_in_order(tmp_path: Path, threaded: bool) -> None:
    """Ten thousand records of three series and the journal: each once, in order, and jobs behind what came before."""
    target = writer(tmp_path, threaded=threaded)
    seen: list[int] = []
    for turn in range(100):
        for series in "ABC":
            put(target, Stream.TICKS, 30, turn * 30, series)
        put(target, JOURNAL, 10, turn * 10)
        if turn == 50:
            target.run(lambda: seen.append(len(numbers(tmp_path, JOURNAL))))
    target.close()
    assert numbers(tmp_path, JOURNAL) == list(range(1000))
    assert sorted(numbers(tmp_path, Stream.TICKS), key=int) == sorted([*range(3000)] * 3)
    assert seen == [510]
    assert target.waiting_bytes() == 0


def test_a_tick_is_on_disk_no_later_than_what_it_caused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ticks between two lines of the journal are joined."""
    order: list[str] = []
    plain = RotatingJSONLWriter.write

    def noted(self: RotatingJSONLWriter, ts_ms: int, lines: bytes) -> None:
        order.extend(f"{self._series}{decode(line)['n']}" for line in lines.splitlines())
        plain(self, ts_ms, lines)

    monkeypatch.setattr(RotatingJSONLWriter, "write", noted)
    target = writer(tmp_path)
    put(target, Stream.TICKS, 2)
    put(target, Stream.TICKS, 1, series="B")
    put(target, JOURNAL, 1)
    put(target, Stream.TICKS, 1, 2)
    put(target, JOURNAL, 1, 1)
    target.close()
    assert order == ["A0", "A1", "B0", "journal0", "A2", "journal1"]


def failing(monkeypatch: pytest.MonkeyPatch, series: str) -> dict[str, bool]:
    """Let writes to a series fail while `on`."""
    switch = {"on": True}
    plain = RotatingJSONLWriter.write

    def write(self: RotatingJSONLWriter, ts_ms: int, lines: bytes) -> None:
        if switch["on"] and self._series == series:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, ts_ms, lines)

    monkeypatch.setattr(RotatingJSONLWriter, "write", write)
    return switch


def test_a_stream_that_fails_is_counted_and_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped, degraded, said; when there is room again a gap record names how many are missing."""
    switch = failing(monkeypatch, "A")
    target = writer(tmp_path)
    put(target, Stream.TICKS, 7)
    put(target, JOURNAL, 1)
    target.run(lambda: None)
    assert (target.states[Stream.TICKS].state, target.states[Stream.TICKS].dropped) == ("degraded", 7)
    assert target.states[JOURNAL].state == "ok"
    switch["on"] = False
    put(target, Stream.TICKS, 3, 7)
    target.close()
    assert numbers(tmp_path, Stream.TICKS) == ["gap 7", 7, 8, 9]
    assert target.states[Stream.TICKS].state == "ok"


def test_the_journal_waits_and_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is lost; the engine is told when it cannot be written, and when it can."""
    monkeypatch.setattr(stream_writer, "RETRY_S", 0.0)
    switch = failing(monkeypatch, JOURNAL.value)
    told: list[str | None] = []
    target = writer(tmp_path, told)
    put(target, JOURNAL, 5)
    target.run(lambda: None)
    assert told == ["No space left on device"]
    switch["on"] = False
    put(target, JOURNAL, 1, 5)
    target.close()
    assert told == ["No space left on device", None]
    assert numbers(tmp_path, JOURNAL) == [0, 1, 2, 3, 4, 5]


def test_a_disk_that_stands_still_holds_nobody_up_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`put` returns at once; beyond the bound ticks are counted, not held; all that was held is written."""
    monkeypatch.setattr(stream_writer, "MAX_WAITING_BYTES", 10_000)
    plain = RotatingJSONLWriter.write
    gate = {"open": False}

    def slow(self: RotatingJSONLWriter, ts_ms: int, lines: bytes) -> None:
        while not gate["open"]:
            time.sleep(0.01)
        plain(self, ts_ms, lines)

    monkeypatch.setattr(RotatingJSONLWriter, "write", slow)
    target = writer(tmp_path, threaded=True)
    put(target, Stream.TICKS, 5000)
    assert target.waiting_bytes() < 11_000 + 64 * 1024
    assert target.states[Stream.TICKS].dropped > 3000
    gate["open"] = True
    wait_until(lambda: target.waiting_bytes() == 0)
    put(target, Stream.TICKS, 1, 5000)
    target.close()
    written = numbers(tmp_path, Stream.TICKS)
    assert sum(isinstance(item, str) for item in written) >= 1
    following = 0
    for item in written:  # each gap stands where its records are missing
        if isinstance(item, str):
            following += int(item.split()[1])
        else:
            assert item == following
            following += 1
    assert following == 5001


def test_a_gap_that_nothing_follows_is_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was lost of a series that fell silent is counted on the disk too, under the time of the first of it."""
    switch = failing(monkeypatch, "A")
    target = writer(tmp_path)
    put(target, Stream.TICKS, 7)
    target.run(lambda: switch.update(on=False))
    target.close()
    (gap,) = (f.record for f in read_jsonl(s.path for s in list_segments(tmp_path / FOLDERS[Stream.TICKS])))
    assert (gap["type"], gap["missing"], gap["ts_ms"]) == ("gap", 7, T)


def test_full_segments_are_sealed_and_left_over_ones_too(tmp_path: Path) -> None:
    """What rotation leaves behind becomes .zst, in this session or the next; the open one stays as it is."""
    keeper = Housekeeper(tmp_path, lambda: make_settings({}))
    target = StreamWriter(tmp_path, "s", 1000, 0.05, 0.05, lambda _: None, keeper.full)
    keeper.begin()
    put(target, Stream.TICKS, 50)
    target.run(lambda: None)
    put(target, Stream.TICKS, 50, 50)
    target.run(lambda: None)
    put(target, Stream.TICKS, 50, 100)
    target.close()
    wait_until(lambda: all(segment.sealed for segment in list_segments(tmp_path / FOLDERS[Stream.TICKS])[:-1]))
    keeper.close(120)
    segments = list_segments(tmp_path / FOLDERS[Stream.TICKS])
    assert len(segments) > 1
    assert [segment.sealed for segment in segments] == [True] * (len(segments) - 1) + [False]
    assert numbers(tmp_path, Stream.TICKS) == list(range(150))


def test_a_folder_that_cannot_be_listed_does_not_end_the_housekeeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said in one line, and what is full, or left over in other folders, is sealed all the same."""
    for stream in (Stream.TICKS, JOURNAL):
        target = StreamWriter(tmp_path, "s", 500, 0.05, 0.05, lambda _: None, threaded=False)
        put(target, stream, 30)
        target.close()
    listing = housekeeping.names_by_series

    def failing(folder: Path) -> dict[str, list[str]]:
        if folder == tmp_path / FOLDERS[Stream.TICKS]:
            raise OSError(errno.EIO, "Input/output error", str(folder))
        return listing(folder)

    monkeypatch.setattr(housekeeping, "names_by_series", failing)
    keeper = Housekeeper(tmp_path, lambda: make_settings({}))
    keeper.begin()
    full = list_segments(tmp_path / FOLDERS[Stream.TICKS])[0].path
    keeper.full(full)
    wait_until(lambda: not full.exists())
    keeper.close(120)
    assert all(segment.sealed for segment in list_segments(tmp_path / FOLDERS[JOURNAL])[:-1])
    assert [r.getMessage() for r in caplog.records if "Input/output error" in r.getMessage()] != []


def test_too_much_goes_and_a_full_disk_is_noticed(tmp_path: Path) -> None:
    """The oldest sealed segments first, down to STREAMS_MAX_GB; under MIN_FREE_MB the reserve is given up."""
    values: dict[str, Any] = {}
    keeper = Housekeeper(tmp_path, lambda: make_settings(values), threaded=False)
    target = StreamWriter(tmp_path, "s", 1000, 0.05, 0.05, lambda _: None, threaded=False)
    for turn in range(5):
        put(target, Stream.TICKS, 50, turn * 50)
        target.run(lambda: None)
    target.close()
    keeper._seal_left_over()
    keeper.look()
    assert not keeper.is_low
    assert (tmp_path / "reserve").stat().st_size == 16_000_000 or (tmp_path / "reserve").exists()
    before = numbers(tmp_path, Stream.TICKS)
    values["STREAMS_MAX_GB"] = 0.000003
    keeper.look()
    after = numbers(tmp_path, Stream.TICKS)
    assert after == before[-len(after) :]
    assert 0 < len(after) < len(before)
    values["MIN_FREE_MB"] = 1_000_000_000
    keeper.look()
    assert keeper.is_low
    assert not (tmp_path / "reserve").exists()


def test_a_disk_near_its_minimum_is_not_low_and_well_by_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What giving up the reserve frees is no reason to go on: taking it up again would make the disk low once more."""
    others = {"mb": 400}

    def room(path: Path, least_mb: int) -> bool:
        reserve_mb = 17 if (tmp_path / "reserve").exists() else 0
        return 1000 - others["mb"] - reserve_mb < least_mb

    monkeypatch.setattr("tradingbot.services.housekeeping.disk_low", room)
    keeper = Housekeeper(tmp_path, lambda: make_settings({"MIN_FREE_MB": 500}), threaded=False)
    seen = []
    for mb in (400, 490, 490, 490, 485, 481, 481):
        others["mb"] = mb
        keeper.look()
        seen.append(keeper.is_low)
    assert seen == [False, True, True, True, True, False, False]
    assert (tmp_path / "reserve").exists()


@pytest.mark.parametrize(
    "odd",
    [10**400, -(10**400), 10**20, -(10**20), 10**4000, "\ud800", "9" * 5000, [[1]] * 2000, {"a": "\udfff"}, {1: 2}],
    ids=range(10),
)  # fmt: skip
@pytest.mark.parametrize("place", ["last", "bid", "quote_volume", "bid_size", "answered_as"])
def test_whatever_an_exchange_answers_fits_a_record_and_meets_the_same_guards_again(odd: Any, place: str) -> None:
    """Numbers beyond 64 bits, half characters, lists and tables where a number belongs."""
    ticker = msgspec.structs.replace(Ticker("BTC/USDT", 1_700_000_000_000, 100.0, 99.5, 100.5), **{place: odd})
    outputs = Engine(make_settings({})).process(ticker)
    if outputs and isinstance(outputs[0], Rejected):
        record = rejection_record("s", 1, ticker, outputs[0])
    else:
        record = tick_record("s", 1, ticker)
    again = Engine(make_settings({})).process(input_of(decode(encode(record))))
    assert [type(output) for output in again] == [type(output) for output in outputs]
    if outputs and isinstance(outputs[0], Rejected):
        assert isinstance(again[0], Rejected)
        assert again[0].reason == outputs[0].reason
