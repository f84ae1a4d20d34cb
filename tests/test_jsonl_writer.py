"""The writer of the streams: what is acknowledged is read back once, in order, whatever happens."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.io.jsonl import (
    DAY_MS,
    Damage,
    ReadReport,
    RotatingJSONLWriter,
    encode,
    read_jsonl,
    read_jsonl_tail,
    repair_tail,
)
from tradingbot.io.segments import list_segments, names_by_series

T0 = 1_795_305_600_000  # 2026-11-22 00:00 UTC
Record = dict[str, Any]


pytestmark = pytest.mark.feature("FEATURE_PERSIST_STREAMS")


def tick(seq: int, ts_ms: int = T0) -> Record:
    return {"v": 1, "sid": "s", "ts_ms": ts_ms, "seq": seq, "last": 1.5}


def text(*seqs: int, ts_ms: int = T0) -> bytes:
    return b"".join(encode(tick(seq, ts_ms)) for seq in seqs)


def seqs_of(folder: Path, report: ReadReport | None = None) -> list[int]:
    return [found.record["seq"] for found in read_jsonl([s.path for s in list_segments(folder)], report)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Faults:
    """Let chosen calls of the operating system fail: how many bytes a write may still take, which flushes raise."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.fsync = self.ftruncate = 0

    @contextmanager
    def injected(self) -> Iterator[Faults]:
        write, fsync, ftruncate = os.write, os.fsync, os.ftruncate

        def scarce_write(descriptor: int, data: Any) -> int:
            if self.room is None:
                return write(descriptor, data)
            if self.room == 0:
                self.room = None
                raise OSError(errno.ENOSPC, "no space")
            taken = write(descriptor, bytes(data)[: self.room])
            self.room -= taken
            return taken

        def failing(name: str, real: Callable[..., None]) -> Callable[..., None]:
            def call(*args: int) -> None:
                if getattr(self, name):
                    setattr(self, name, getattr(self, name) - 1)
                    raise OSError(errno.EIO, "failed")
                real(*args)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", scarce_write)
            patch.setattr(os, "fsync", failing("fsync", fsync))
            patch.setattr(os, "ftruncate", failing("ftruncate", ftruncate))
            yield self


ops = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(-3, 6), st.integers(1, 5)),
        st.tuples(st.sampled_from(["short", "uncut"]), st.integers(0, 150), st.integers(1, 5)),
        st.tuples(st.sampled_from(["sync", "bad sync", "release", "close", "finish"]), st.just(0), st.just(1)),
        st.just(("torn kill", 0, 1)),
    ),
    max_size=40,
)


@given(ops, st.sampled_from([1, 100, 300, 10**6]))
def test_what_is_acknowledged_is_read_back_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], max_bytes: int
) -> None:
    """Whatever is written, rotated, reopened, cut short or fails: all that a write acknowledged, and nothing else."""
    folder = tmp_path_factory.mktemp("stream") / "a" / "b"
    told: list[Path] = []
    writer = RotatingJSONLWriter(folder, "x", max_bytes, told.append)
    acknowledged: list[int] = []
    seq = 0
    with Faults().injected() as faults:
        for step, number, count in steps:
            if step in {"write", "short", "uncut"}:
                ts_ms = T0 + number * DAY_MS if step == "write" else T0
                lines = text(*range(seq, seq + count), ts_ms=ts_ms)
                faults.room = None if step == "write" else number
                faults.ftruncate = step == "uncut"
                try:
                    writer.write(ts_ms, lines)
                    acknowledged += range(seq, seq + count)
                except OSError:
                    assert step != "write"
                    if step == "uncut":  # the writer lives on and cuts it off itself
                        faults.room, faults.ftruncate = None, 0
                        writer.write(T0, text(seq + count))
                        acknowledged.append(seq + count)
                faults.room, faults.ftruncate = None, 0
                seq += count + 1
            elif step == "bad sync":
                faults.fsync = 1
                try:
                    writer.sync()
                    assert faults.fsync == 1
                except OSError:
                    pass
                faults.fsync = 0
            elif step == "torn kill":
                writer.release()
                if writer.path is not None:
                    with writer.path.open("ab") as file:
                        file.write(text(seq)[:20])
                writer = RotatingJSONLWriter(folder, "x", max_bytes, told.append)
            else:
                getattr(writer, step)()
                if step == "close":
                    writer = RotatingJSONLWriter(folder, "x", max_bytes, told.append)
        report = ReadReport()
        assert seqs_of(folder, report) == acknowledged
        assert {place.damage for place in report.places} <= {Damage.TORN}
        writer.close()
    tail = read_jsonl_tail(folder, "x", 7)
    assert [record["seq"] for record in tail] == acknowledged[-7:]
    past = sorted(set(told))
    assert told == sorted(told)  # one finished and not yet sealed is open again for the next writer, so told twice
    assert [s.path for s in list_segments(folder)][: len(past)] == past


def test_nothing_is_made_before_the_first_record(tmp_path: Path) -> None:
    """No folder, no file, no listing; sync, release and close of it do nothing."""
    writer = RotatingJSONLWriter(tmp_path / "ticks", "x")
    writer.sync()
    writer.release()
    writer.finish()
    writer.close()
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="line end"):
        writer.write(T0, b"{}")


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Files are 0600 and folders 0700 under a umask of 0 and one of 0777."""
    for umask in (0, 0o777):
        folder = tmp_path / f"{umask}" / "ticks"
        before = os.umask(umask)
        try:
            writer = RotatingJSONLWriter(folder, "x", 1)
            writer.write(T0, text(1))
            writer.write(T0, text(2)[:-1] + b"\n")
            writer.close()
            repaired = folder / "x_20261122_0001.jsonl"
            with repaired.open("ab") as file:
                file.write(b"torn")
            assert repair_tail(repaired) == 4
        finally:
            os.umask(before)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert modes == {0o600}
        assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}


def test_segments_rotate_at_midnight_and_when_full_and_never_backwards(tmp_path: Path) -> None:
    """Year end and leap day are midnights as any; a late record stays where writing is."""
    told: list[Path] = []
    writer = RotatingJSONLWriter(tmp_path, "x", 3 * len(text(0)), told.append)
    leap = 1_835_308_800_000 + 86_399_999  # 2028-02-28 23:59:59.999
    year = 1_830_297_599_999  # 2027-12-31 23:59:59.999
    for seq, ts_ms in enumerate(
        (year, year, year + 1, year, leap, leap + 1, leap + 1 + DAY_MS, leap, leap, leap, leap)
    ):
        writer.write(ts_ms, text(seq, ts_ms=ts_ms))
    writer.close()
    held = {path.name[2:-6]: [f.record["seq"] for f in read_jsonl([path])] for path in sorted(tmp_path.iterdir())}
    assert held == {
        "20271231_0000": [0, 1],
        "20280101_0000": [2, 3],
        "20280228_0000": [4],
        "20280229_0000": [5],
        "20280301_0000": [6, 7, 8],
        "20280301_0001": [9, 10],
    }
    assert [path.name[2:-6] for path in told] == sorted(held)[:-1]


def test_a_clock_that_jumped_far_ahead_does_not_hold_the_series_there(tmp_path: Path) -> None:
    """Names keep the far day and rise, so order holds; from the next segment on midnights count again."""
    writer = RotatingJSONLWriter(tmp_path, "x", 2 * len(text(0)))
    far = T0 + 30_000 * DAY_MS
    times = (T0, far, T0, T0 + 1, T0 + 2, T0 + DAY_MS, 1 << 60, -5, T0)
    for seq, ts_ms in enumerate(times):
        writer.write(ts_ms, text(seq, ts_ms=T0))
    writer.close()
    again = RotatingJSONLWriter(tmp_path, "x")
    again.write(T0, text(len(times)))
    again.close()
    assert seqs_of(tmp_path) == list(range(len(times) + 1))
    held = {path.name[2:-6]: [f.record["seq"] for f in read_jsonl([path])] for path in sorted(tmp_path.iterdir())}
    assert held == {
        "20261122_0000": [0],
        "21090111_0000": [1, 2],
        "21090111_0001": [3, 4],
        "21090111_0002": [5],
        "99991231_0000": [6, 7],
        "99991231_0001": [8, 9],
    }


@pytest.mark.parametrize("form", [".jsonl.zst", ".jsonl.torn", ".jsonl.bad", ".jsonl.manifest.json", ".jsonl.zst.tmp"])
def test_no_name_is_given_twice(tmp_path: Path, form: str) -> None:
    """A number that exists in any form is taken, also beside strangers and with a listing made beforehand."""
    for name in (f"x_20261122_0007{form}", "x_20261122_12.jsonl", "x_20261399_9999.jsonl", "x_y_20261122_0009.jsonl"):
        (tmp_path / name).touch()
    for listed in (None, names_by_series(tmp_path)["x"]):
        writer = RotatingJSONLWriter(tmp_path, "x", names=listed)
        writer.write(T0, text(1))
        writer.close()
        assert writer.path == tmp_path / "x_20261122_0008.jsonl"
        writer.path.unlink()


def test_a_segment_beside_its_sealed_form_is_not_written_on(tmp_path: Path) -> None:
    """It was full or past when sealing began, and sealing will run again."""
    (tmp_path / "x_20261122_0000.jsonl").write_bytes(text(1))
    (tmp_path / "x_20261122_0000.jsonl.zst").touch()
    writer = RotatingJSONLWriter(tmp_path, "x")
    writer.write(T0, text(2))
    writer.close()
    assert seqs_of(tmp_path) == [1, 2]
    assert (tmp_path / "x_20261122_0001.jsonl").exists()


def test_a_segment_that_vanished_is_followed_by_another(tmp_path: Path) -> None:
    """Somebody's rm costs what was in the file, not what comes after, and sync says so once."""
    writer = RotatingJSONLWriter(tmp_path, "x")
    writer.write(T0, text(1))
    writer.release()
    (tmp_path / "x_20261122_0000.jsonl").unlink()
    with pytest.raises(FileNotFoundError):
        writer.sync()
    writer.sync()
    writer.write(T0, text(2))
    writer.close()
    assert names(tmp_path) == ["x_20261122_0001.jsonl"]


def test_a_segment_that_came_since_the_listing_is_passed_over(tmp_path: Path) -> None:
    """A name that somebody has taken meanwhile is not written on, and does not stop the series."""
    writer = RotatingJSONLWriter(tmp_path, "x", 1)
    writer.write(T0, text(1))
    (tmp_path / "x_20261122_0001.jsonl").symlink_to("nowhere")
    (tmp_path / "x_20261122_0002.jsonl").write_bytes(text(2))
    writer.write(T0, text(3))
    writer.close()
    assert names(tmp_path)[-1] == "x_20261122_0003.jsonl"
    assert seqs_of(tmp_path) == [1, 2, 3]


def test_after_a_failed_flush_the_descriptor_is_not_flushed_again(tmp_path: Path) -> None:
    """Sync raises once, and the next write opens the file anew and looks at its end before it appends."""
    writer = RotatingJSONLWriter(tmp_path, "x")
    writer.write(T0, text(1))
    with Faults().injected() as faults:
        faults.fsync = 1
        with pytest.raises(OSError, match="failed"):
            writer.sync()
        writer.sync()
        path = tmp_path / "x_20261122_0000.jsonl"
        with path.open("r+b") as file:  # what a disk may hold after it: the page, but not its end
            file.seek(-5, os.SEEK_END)
            file.write(bytes(5))
        writer.write(T0, text(2))
    writer.close()
    assert seqs_of(tmp_path) == [2]
    assert path.with_name(path.name + ".torn").read_bytes() == text(1)[:-5] + bytes(5)


def test_a_rotation_that_fails_leaves_the_open_segment_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor or an inode for the next segment nothing is written and nothing lost."""
    writer = RotatingJSONLWriter(tmp_path, "x", 1)
    writer.write(T0, text(1))
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> int:
            raise OSError(errno.EMFILE, "too many open files")

        patch.setattr(os, "open", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="too many"):
                writer.write(T0, text(2))
        with pytest.raises(OSError, match="too many"):
            writer.close()
    writer.write(T0, text(3))
    writer.close()
    assert seqs_of(tmp_path) == [1, 3]


def test_a_file_cut_at_any_byte_is_repaired_once(tmp_path: Path) -> None:
    """At every byte of 50 lines: whole lines stay, the torn rest goes aside, the next record is read."""
    whole = text(*range(50))
    path = tmp_path / "x_20261122_0000.jsonl"
    torn = tmp_path / "x_20261122_0000.jsonl.torn"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        torn.unlink(missing_ok=True)
        writer = RotatingJSONLWriter(tmp_path, "x")
        writer.write(T0, text(99))
        writer.release()
        lines = whole[:cut].count(b"\n")
        assert path.read_bytes() == text(*range(lines)) + text(99)
        rest = whole[:cut].rpartition(b"\n")[2]
        assert (torn.read_bytes() if torn.exists() else b"") == rest
        assert repair_tail(path) == 0


@pytest.mark.parametrize("tail", [b"", b"\0" * 10, b"torn" + b"\0" * 200_000, b"x" * 200_000])
def test_a_tail_of_nuls_goes_aside_too(tmp_path: Path, tail: bytes) -> None:
    """What a power loss leaves at the end of a file, however long, is moved and not dropped."""
    for head in (b"", text(1, 2)):
        path = tmp_path / f"{len(head)}.jsonl"
        path.write_bytes(head + tail)
        assert repair_tail(path) == len(tail)
        assert path.read_bytes() == head
        assert path.with_name(path.name + ".torn").exists() == bool(tail)
