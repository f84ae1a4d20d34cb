"""The recorder: when it writes a checkpoint, what it says of ticks that are not recorded, and what it counts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.recording import Recorded, T, failing
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import SettingsChanged
from tradingbot.io import sealing, state_files
from tradingbot.io.jsonl import RotatingJSONLWriter
from tradingbot.io.segments import list_segments
from tradingbot.io.state_files import LatestFile
from tradingbot.io.streams import FOLDERS, Stream
from tradingbot.market.ticker import Ticker
from tradingbot.services import keeper
from tradingbot.services.housekeeping import Housekeeper
from tradingbot.services.memory import Recovered
from tradingbot.services.recording import Recording


def test_a_checkpoint_is_written_every_quarter_of_an_hour(tmp_path: Path) -> None:
    """Of the session's clock, however often it is looked; each is the engine as it was then."""
    run = Recorded(tmp_path)
    for _ in range(3600):
        run.tick(step_ms=1000)
        run.recorder.look()
    written = run.journal("checkpoint")
    assert [record["ts_ms"] for record in written] == [T + quarter * 900_000 for quarter in (1, 2, 3, 4)]
    assert [record["checkpoint"]["seq"] for record in written] == [900, 1800, 2700, 3600]


def test_ticks_that_are_recorded_again_begin_with_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the disk takes them again, not while it does not, and at most once a minute."""
    switch = failing(monkeypatch, "BTC_USDT", "ETH_USDT")
    run = Recorded(tmp_path)

    def go_on(seconds: int) -> int:
        for _ in range(seconds):
            run.tick(step_ms=1000)
            run.flush()
            run.recorder.look()
        return len(run.journal("recording"))

    assert go_on(100) == 0
    switch["on"] = True
    assert go_on(100) == 0, "as long as ticks are lost nothing could be compared"
    switch["on"] = False
    assert go_on(5) == 1
    (mark,) = run.journal("recording")
    assert (mark["on"], mark["why"], mark["checkpoint"]["seq"]) == (True, "lost", mark["seq"])
    for _ in range(10):
        switch["on"] = True
        go_on(2)
        switch["on"] = False
        assert go_on(3) <= 2
    assert go_on(60) == 2


@pytest.mark.parametrize(("flag", "why"), [(False, "flag"), (True, "disk low")])
def test_why_ticks_are_not_recorded_is_said(tmp_path: Path, flag: bool, why: str) -> None:
    """Switched off by the flag, or for want of room; by the flag, what there is of the four streams is closed off."""
    run = Recorded(tmp_path)
    run.tick(10)
    if not flag:
        run.adopt(make_settings({"FEATURE_PERSIST_STREAMS": False}))
    run.recorder.snapshots_ms = None
    run.tick(10)
    run.adopt(make_settings({}))
    run.recorder.snapshots_ms = 500
    run.tick(10)
    off, on = run.journal("recording")
    assert (off["on"], off["why"], on["on"], on["why"]) == (False, why, True, why)
    for stream in Stream:
        numbers = {segment.number for segment in list_segments(tmp_path / FOLDERS[stream])}
        assert numbers == ({0, 1} if why == "flag" and stream is not Stream.JOURNAL else {0}), stream


def test_rejections_that_are_only_counted_are_in_the_journal(tmp_path: Path) -> None:
    """By symbol and reason since the last such record, with a checkpoint and at the end, and only if there are any."""
    run = Recorded(tmp_path)
    run.tick(10)
    run.recorder.checkpoint()
    assert run.journal("rejections") == []
    run.tick(50, step_ms=1, last=-1.0)
    run.recorder.checkpoint()
    run.tick(8, step_ms=1, last=-1.0)
    run.recorder.end()
    first, second = run.journal("rejections")
    ((reason, whole),) = {r["reason"]: 10 for r in run.journal("rejected")}.items()
    counted = {symbol: {reason: 25 - whole} for symbol in run.symbols}
    assert first["counts"] == counted
    assert second["counts"] == {symbol: {reason: 4} for symbol in run.symbols}
    assert run.journal("session_end")[0]["parts"] == 1


def test_the_journal_tells_of_a_segment_before_it_is_deleted(tmp_path: Path) -> None:
    """What a proof will miss is known, whenever the bot is killed: first the record, then the deletion."""
    run = Recorded(tmp_path)
    run.tick(40)
    run.writer.close()
    folder = tmp_path / FOLDERS[Stream.TICKS]
    sealed = [sealing.seal(segment.path) for segment in list_segments(folder)]
    keeper = Housekeeper(tmp_path, lambda: make_settings({"STREAMS_MAX_GB": 1e-9}), threaded=True)
    keeper.look()
    keeper.look()
    assert all(path.exists() for path in sealed), "nobody has been told yet"
    again = Recorded(tmp_path, "t")
    deleted: list[str] = []
    keeper.delete = lambda told: deleted.extend(p.deletion.path.name for p in told if p.deletion.path.exists())  # type: ignore[method-assign]
    again.recorder.look(keeper)
    records = again.journal("deleted")
    assert sorted(record["file"] for record in records) == sorted(f"ticks/{path.name}" for path in sealed)
    assert sorted(deleted) == sorted(path.name for path in sealed)
    assert sorted(record["sessions"]["s"] for record in records) == [[1, 39, 20], [2, 40, 20]]
    again.recorder.look(keeper)
    assert len(again.journal("deleted")) == 2


def test_what_was_told_is_deleted_by_the_housekeeper(tmp_path: Path) -> None:
    """Its thread does it, and what is no input of a proof goes without a word."""
    run = Recorded(tmp_path)
    run.tick(40)
    run.writer.close()
    for stream in (Stream.TICKS, Stream.SNAPSHOTS):
        for segment in list_segments(tmp_path / FOLDERS[stream]):
            sealing.seal(segment.path)
    keeper = Housekeeper(tmp_path, lambda: make_settings({"STREAMS_MAX_GB": 1e-9}), threaded=True)
    keeper.look()
    assert list_segments(tmp_path / FOLDERS[Stream.SNAPSHOTS]) == []
    assert len(list_segments(tmp_path / FOLDERS[Stream.TICKS])) == 2
    again = Recorded(tmp_path, "t")
    again.recorder.look(keeper)
    again.flush()
    keeper.begin()
    end = time.monotonic() + 60
    while time.monotonic() < end and list_segments(tmp_path / FOLDERS[Stream.TICKS]):
        time.sleep(0.02)
    keeper.close(60)
    assert list_segments(tmp_path / FOLDERS[Stream.TICKS]) == []


def test_a_low_disk_and_the_flag_are_heeded_by_a_recording(tmp_path: Path) -> None:
    """A low disk from the next look on, the flag from the very next tick on; back again likewise."""
    chosen = [make_settings({})]
    now_ms = [T]
    recovered = Recovered(Engine(chosen[0]))
    engine = recovered.engine
    recording = Recording(
        tmp_path, lambda: chosen[0], lambda job: job(), lambda _: None, lambda: now_ms[0] / 1000, threaded=False
    )
    recording.begin("s", recovered, {}, "embedded", lambda: now_ms[0])

    def written(ticks: int = 10) -> int:
        before = recording.states[Stream.TICKS].records
        for number in range(ticks):
            now_ms[0] += 1000
            ticker = Ticker("BTC/USDT", now_ms[0], 100.0 + number / 100)
            recording.take(ticker, engine.process(ticker))
        recording.look()  # a checkpoint goes behind the ticks: all that waits is written
        return recording.states[Stream.TICKS].records - before

    def adopt(is_on: bool) -> None:
        chosen[0] = make_settings({"FEATURE_PERSIST_STREAMS": is_on})
        event = SettingsChanged(chosen[0])
        recording.control(event, engine.process(event))

    assert written() == 10
    adopt(False)
    assert written() == 0
    adopt(True)
    assert written() == 10
    recording._housekeeper.is_low = True
    recording.look()
    assert written() == 0
    recording._housekeeper.is_low = False
    recording.look()
    assert written() == 10
    recording.end()


def test_the_journal_is_durable_before_a_checkpoint_that_knows_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss may take the last second of the journal, but never leave a checkpoint that is ahead of it."""
    run = Recorded(tmp_path)
    told: list[str] = []
    sync = RotatingJSONLWriter.sync

    def noted(writer: RotatingJSONLWriter) -> None:
        told.append(writer._series)
        sync(writer)

    monkeypatch.setattr(RotatingJSONLWriter, "sync", noted)
    monkeypatch.setattr(keeper, "save_checkpoint", lambda *_: told.append("checkpoint"))
    settings = run.engine.settings
    kept = keeper.Keeper(
        tmp_path, "s", run.engine, run.writer, lambda: settings, lambda: True, lambda: run.now_ms, lambda: None,
        durable=True,
    )  # fmt: skip
    run.adopt(settings)
    kept.keep()
    assert told[:2] == ["journal", "checkpoint"]


def test_a_status_is_written_whole_and_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that stands still only the latest waits, and the old one stays until the new one is on the disk."""
    path, told = tmp_path / "status.json", list[OSError | None]()
    stands_still, goes_on = threading.Event(), threading.Event()
    flush = os.fsync

    def stalled(descriptor: int) -> None:
        stands_still.set()
        assert goes_on.wait(120)
        flush(descriptor)

    path.write_bytes(b"before")
    monkeypatch.setattr(state_files.os, "fsync", stalled)
    latest = LatestFile(path, told.append)
    latest.put(b"1")
    assert stands_still.wait(120)
    for text in (b"2", b"3", b"4"):
        latest.put(text)
    assert (path.read_bytes(), told) == (b"before", [])
    goes_on.set()
    latest.close(120)
    assert (path.read_bytes(), told) == (b"4", [None, None])


def test_a_status_that_cannot_be_written_is_told_and_tried_again(tmp_path: Path) -> None:
    """The error comes with the attempt; the next text finds the disk as it is then."""
    told: list[str | None] = []
    path = tmp_path / "there" / "status.json"
    latest = LatestFile(path, lambda error: told.append(error and error.strerror), threaded=False)
    latest.put(b"1")
    path.parent.mkdir()
    latest.put(b"2")
    latest.close(1)
    assert (path.read_bytes(), told) == (b"2", ["No such file or directory", None])
