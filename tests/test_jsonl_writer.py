"""The writer and the readers of the streams: what is acknowledged is read back once, in order, whatever happens."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.errors import DataError
from tradingbot.io.jsonl import (
    DAY_MS,
    Damage,
    Damaged,
    ReadReport,
    RotatingJSONLWriter,
    decode,
    encode,
    plain_number,
    read_jsonl,
    read_jsonl_tail,
    read_number,
    repair_tail,
)
from tradingbot.io.lines import MAX_LINE, decode_lines
from tradingbot.io.segments import list_segments, names_by_series

T0 = 1_795_305_600_000  # 2026-11-22 00:00 UTC
Record = dict[str, Any]


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
        st.tuples(st.just("short"), st.integers(0, 150), st.integers(1, 5)),
        st.tuples(st.just("uncut"), st.integers(0, 150), st.integers(1, 5)),
        st.tuples(
            st.sampled_from(["sync", "bad sync", "release", "close", "finish", "torn kill"]), st.just(0), st.just(1)
        ),
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
    assert told == sorted(set(told))
    assert [s.path for s in list_segments(folder)][: len(told)] == told


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


GOOD = encode(tick(1))
BAD = {
    b"": Damage.NOT_JSON,
    b"\0" * 50: Damage.NULS,
    GOOD[:30] + b"\0" + GOOD[31:-1]: Damage.NULS,
    b'{"a":"\xff\xfe"}': Damage.NOT_UTF8,
    b"[" * 100_000: Damage.NOT_JSON,
    b"[" * 100_000 + b"]" * 100_000: Damage.NOT_JSON,
    b'{"a":' * 1_100 + b"1" + b"}" * 1_100: Damage.NOT_JSON,
    b'{"ts_ms":' + b"9" * 5_000 + b"}": Damage.NOT_JSON,
    b'{"a":1,"a":2}': Damage.NO_CRC,
    GOOD[:-1].replace(b'"seq":1', b'"seq":1,"seq":2'): Damage.WRONG_CRC,
    GOOD[:-1].replace(b"1.5", b"1.6"): Damage.WRONG_CRC,
    GOOD[:-1].replace(b'"crc":"', b'"crc":"0')[:-3] + b'"}': Damage.WRONG_CRC,
    GOOD[:40] + GOOD[:-1]: Damage.WRONG_CRC,
    b'{"v":1}': Damage.NO_CRC,
    b"[1]": Damage.NOT_JSON,
    b"null": Damage.NOT_JSON,
    b'{"a":NaN}': Damage.NOT_JSON,
    b"\xef\xbb\xbf" + GOOD[:-1]: Damage.WRONG_CRC,
    b'"' + b"x" * MAX_LINE + b'"': Damage.TOO_LONG,
    b'{"a":1},{"b":2}': Damage.NOT_JSON,
}  # fmt: skip


def test_bad_lines_inside_are_counted_named_and_passed_over(tmp_path: Path) -> None:
    """Each kind of damage, forwards and backwards: the records around it are read, nothing is raised unless asked."""
    path = tmp_path / "x_20261122_0000.jsonl"
    lines: list[bytes] = []
    for number, bad in enumerate(BAD):
        lines += [text(number), bad + b"\n"]
    path.write_bytes(b"".join(lines) + b"torn")
    report = ReadReport()
    assert seqs_of(tmp_path, report) == list(range(len(BAD)))
    assert [(place.line, place.damage) for place in report.places] == [
        *((2 * number + 2, damage) for number, damage in enumerate(BAD.values())),
        (2 * len(BAD) + 1, Damage.TORN),
    ]
    assert (report.records, report.damaged) == (len(BAD), len(BAD) + 1)
    for count in (1, 2, len(BAD), 1_000):
        backwards = ReadReport()
        tail = read_jsonl_tail(tmp_path, "x", count, report=backwards)
        assert [record["seq"] for record in tail] == list(range(len(BAD)))[-count:]
    assert sorted(p.damage for p in backwards.places) == sorted(p.damage for p in report.places)
    assert backwards.places[1].line == -1
    with pytest.raises(DataError, match=r"0000.jsonl:2: no JSON object"):
        list(read_jsonl([path], strict=True))


@pytest.mark.parametrize(("line", "damage"), BAD.items())
def test_decode_raises_damaged_and_nothing_else(line: bytes, damage: Damage) -> None:
    """A line alone and a line among others are judged alike."""
    with pytest.raises(Damaged) as caught:
        decode(line)
    assert caught.value.damage is damage
    assert decode_lines([GOOD[:-1], line, GOOD[:-1]]) == [tick(1), damage, tick(1)]


@given(st.binary(max_size=300), st.integers(0, len(GOOD) - 2), st.integers(0, 255))
def test_random_bytes_and_a_changed_byte_are_never_a_record(junk: bytes, place: int, byte: int) -> None:
    """Whatever bytes come: Damaged, or the record that was written."""
    changed = bytearray(GOOD)
    changed[place] = byte
    for line in (junk, GOOD[:place] + junk, bytes(changed)):
        try:
            assert decode(line) == tick(1)
            assert line.strip(b"\n") == GOOD.strip(b"\n")
        except Damaged:
            assert line != GOOD


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
keys = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda key: key != "crc")


@given(st.lists(st.dictionaries(keys, json_values, min_size=1, max_size=5), max_size=5))
def test_what_is_encoded_is_decoded(records: list[Record]) -> None:
    """Any record makes one line, and that line makes it again, alone and among others."""
    lines = [encode(record) for record in records]
    assert all(line.count(b"\n") == 1 and line.endswith(b'"}\n') for line in lines)
    assert [decode(line) for line in lines] == records
    assert decode_lines([line[:-1] for line in lines]) == records


def test_numbers_that_json_has_not_are_text() -> None:
    """NaN and the infinities come back; a record too long for a reader is refused where it is made."""
    for number in (1.5, math.inf, -math.inf):
        assert read_number(decode(encode({"x": plain_number(number)}))["x"]) == number
    assert plain_number(math.nan) == "NaN"
    assert math.isnan(read_number("NaN"))
    with pytest.raises(ValueError, match="no number"):
        read_number("nan ")
    assert decode(encode({"x": "y" * (MAX_LINE - 30)}))["x"]
    with pytest.raises(ValueError, match="at most"):
        encode({"x": "y" * (MAX_LINE - 20)})


def test_a_line_of_100_mb_costs_neither_memory_nor_its_neighbours(tmp_path: Path) -> None:
    """The line is passed over in blocks, forwards and backwards, in less than 16 MB."""
    import tracemalloc

    with (tmp_path / "x_20261122_0000.jsonl").open("wb") as file:
        file.write(text(1))
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + text(2))
    tracemalloc.start()
    try:
        report = ReadReport()
        assert seqs_of(tmp_path, report) == [1, 2]
        assert [record["seq"] for record in read_jsonl_tail(tmp_path, "x", 2, report=report)] == [1, 2]
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert [(place.line, place.damage) for place in report.places] == [(2, Damage.TOO_LONG), (-2, Damage.TOO_LONG)]


def test_the_tail_goes_on_until_there_is_enough(tmp_path: Path) -> None:
    """Across rotations: at least the count, and with `enough` as far back as it asks for."""
    writer = RotatingJSONLWriter(tmp_path, "x", 30 * len(text(100)))
    for seq in range(1_000):
        writer.write(T0, text(seq))
    writer.close()

    def tail(count: int, oldest: int | None = None) -> list[int]:
        enough = None if oldest is None else lambda record: record["seq"] <= oldest
        return [record["seq"] for record in read_jsonl_tail(tmp_path, "x", count, enough)]

    assert tail(0) == []
    assert tail(1) == [999]
    assert tail(100) == list(range(900, 1_000))
    assert tail(2_000) == tail(0, -1) == list(range(1_000))
    assert tail(0, 600) == tail(7, 600) == list(range(600, 1_000))
    assert tail(500, 600) == list(range(500, 1_000))
    assert read_jsonl_tail(tmp_path, "y", 5) == read_jsonl_tail(tmp_path / "none", "x", 5) == []


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A missing file and a folder in a file's place are counted; strict raises."""
    folder = tmp_path / "x_20261122_0000.jsonl"
    folder.mkdir()
    report = ReadReport()
    assert list(read_jsonl([folder, tmp_path / "none.jsonl", tmp_path / "none.jsonl.zst"], report)) == []
    assert [(place.line, place.damage) for place in report.places] == [(0, Damage.UNREADABLE)] * 3
    with pytest.raises(DataError):
        list(read_jsonl([folder], strict=True))
