"""Names, sealing and retention of segments; kills at system calls leave all that was acknowledged."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.test_jsonl_writer import T0, names, seqs_of, text
from tradingbot.errors import DataError
from tradingbot.io import sealing
from tradingbot.io.jsonl import DAY_MS, Damage, ReadReport, RotatingJSONLWriter, read_jsonl, read_jsonl_tail
from tradingbot.io.reserve import RESERVE_BYTES, disk_low, give_up_reserve, keep_reserve
from tradingbot.io.sealing import Store, apply_retention, plan_retention, seal
from tradingbot.io.segments import FRAME, day_of, list_segments, manifest_path, segment_name, series_of, symbol_of

HOSTILE = ["", ".", "..", "../../x", "/", "//", "a\0b", "a\nb", "BTC/USDT:USDT", "A_B/C", "%5F", "_", "~", "btc/usdt",
           "BTC/USDT", "x" * 300, "x" * 301, "é" * 60, "😀", "\ud83d\ude00", "\udc80", "a b",
           "A/20260101/0000.jsonl"]  # fmt: skip
symbols = (
    st.text(st.characters()) | st.text("/_%.-~5Fa", max_size=12) | st.sampled_from(HOSTILE) | st.text(min_size=190)
)


@given(symbols, symbols)
@example("A/B", "A_B")
@example("A/B", "A%2FB")
@example("x" * 300, series_of("x" * 300))
def test_symbols_become_file_names_one_to_one_and_nothing_climbs_out(one: str, other: str) -> None:
    """Two symbols have one series only if they are one; each is a single, short path component that leads back."""
    series = series_of(one)
    assert (series == series_of(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z0-9.%_-]*", series)
    name = segment_name(series, 20261122, 0)
    assert len(f"{name}.manifest.json.tmp") <= 255
    path = Path("/state/ticks", name)
    assert path.parent == Path("/state/ticks")
    assert path.name not in {".", ".."}
    assert symbol_of(series) == (one if "%-" not in series else None)


def test_series_of_known_symbols() -> None:
    """Slash is underscore, all else but letters, digits, - and . is percent-encoded; a stranger's name is no symbol."""
    assert series_of("BTC/USDT") == "BTC_USDT"
    assert series_of("BTC/USDT:USDT-261225") == "BTC_USDT%3AUSDT-261225"
    assert series_of("a_b~.é") == "a%5Fb%7E.%C3%A9"
    assert [symbol_of(series) for series in ("a%5fb", "a b", "%FF", "%")] == [None] * 4


def test_hostile_symbols_have_files_of_their_own(tmp_path: Path) -> None:
    """All at once in one folder: each series holds its own record, and nothing lies outside."""
    folder = tmp_path / "ticks"
    for seq, symbol in enumerate(HOSTILE):
        writer = RotatingJSONLWriter(folder, series_of(symbol))
        writer.write(T0, text(seq))
        writer.close()
    assert names(tmp_path) == ["ticks"]
    assert len(names(folder)) == len(HOSTILE)
    for seq, symbol in enumerate(HOSTILE):
        assert [record["seq"] for record in read_jsonl_tail(folder, series_of(symbol), 5)] == [seq]


def test_segments_are_listed_as_written_and_strangers_ignored(tmp_path: Path) -> None:
    """By day and number, not by text; the plain file counts beside the sealed one; folders and other names do not."""
    listed = ["a_20261122_0002.jsonl", "a_20261122_9999.jsonl.zst", "a_20261122_10000.jsonl",
              "a_20261123_0000.jsonl.zst", "a_b_20250101_0000.jsonl"]  # fmt: skip
    for name in [*listed, "a_20261122_0002.jsonl.zst", "a_20261122_0001.jsonl.torn", "a_20261122_00001.jsonl",
                 "a_20260230_0000.jsonl", "x.jsonl", "a_20261122_0000.jsonl.zst.tmp",
                 "a_٢٠٢٦١١٢٢_0000.jsonl"]:  # fmt: skip
        (tmp_path / name).touch()
    (tmp_path / "a_20261124_0000.jsonl").mkdir()
    found = list_segments(tmp_path)
    assert [segment.path.name for segment in found] == listed
    assert [segment.sealed for segment in found] == [False, True, False, True, False]
    assert [segment.path.name for segment in list_segments(tmp_path, "a")] == listed[:-1]
    assert found[0].end_ms == T0 + DAY_MS
    assert [day_of(ts_ms) for ts_ms in (-1, T0 - 1, T0, 1 << 70)] == [19700101, 20261121, 20261122, 99991231]


def filled(folder: Path, count: int, max_bytes: int = 50_000_000) -> list[Path]:
    """Write records of two sessions and return the segments, all past."""
    told: list[Path] = []
    writer = RotatingJSONLWriter(folder, "x", max_bytes, told.append)
    for first in range(0, count, 100):
        writer.write(T0, text(*range(first, min(first + 100, count))))
    writer.finish()
    return told


def test_a_sealed_segment_reads_as_the_plain_one(tmp_path: Path) -> None:
    """Forwards and from its end, over several frames; the manifest says what is in it; a second seal does nothing."""
    (path,) = filled(tmp_path, 30_000)
    plain = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"torn")
    sealed = seal(path)
    assert names(tmp_path) == [f"{path.name}.manifest.json", f"{path.name}.torn", f"{path.name}.zst"]
    manifest = orjson.loads(manifest_path(path).read_bytes())
    assert manifest["sessions"] == {"s": {"records": 30_000, "ts_ms": [T0, T0], "seq": [0, 29_999]}}
    assert (manifest["records"], manifest["damaged"], manifest["bytes"]) == (30_000, 0, len(plain))
    assert manifest["sha256"] == hashlib.sha256(plain).hexdigest()
    assert len(manifest["frames"]) == -(-len(plain) // FRAME)
    assert seqs_of(tmp_path) == list(range(30_000))
    before = sealed.stat()
    assert seal(path) == sealed
    assert sealed.stat() == before
    for manifest_there in (True, False):  # without one it is unpacked whole
        if not manifest_there:
            manifest_path(path).unlink()
        assert seqs_of(tmp_path) == list(range(30_000))
        for count in (1, 300, 20_000, 40_000):
            tail = read_jsonl_tail(tmp_path, "x", count)
            assert [record["seq"] for record in tail] == list(range(30_000))[-count:]
    assert next(read_jsonl([path])).path == sealed


def test_the_tail_of_a_sealed_segment_costs_its_last_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 records are one frame, however large the segment."""
    (path,) = filled(tmp_path, 40_000)
    seal(path)
    asked: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, place: asked.append(size) or pread(fd, size, place))
    assert len(read_jsonl_tail(tmp_path, "x", 300)) == 300
    assert asked == [orjson.loads(manifest_path(path).read_bytes())["frames"][-1][0]]


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_damaged_zst_is_named_and_the_rest_read(tmp_path: Path, with_manifest: bool) -> None:
    """A changed byte costs its frame, or without a manifest all from there; nothing is raised unless asked."""
    (path,) = filled(tmp_path, 30_000)
    sealed = seal(path)
    frames = orjson.loads(manifest_path(path).read_bytes())["frames"]
    if not with_manifest:
        manifest_path(path).unlink()
    whole = sealed.read_bytes()
    lines = [frame[2] for frame in frames]
    for place in (0, 5, frames[0][0] + 2000, len(whole) - 2):
        damaged = bytearray(whole)
        damaged[place] ^= 0x5A
        sealed.write_bytes(damaged)
        report = ReadReport()
        read = seqs_of(tmp_path, report)
        assert Damage.UNREADABLE in {p.damage for p in report.places}
        lost = 0 if place < frames[0][0] else 1 if place < frames[0][0] + frames[1][0] else len(frames) - 1
        kept = [*range(sum(lines[:lost])), *(range(sum(lines[: lost + 1]), 30_000) if with_manifest else ())]
        if with_manifest:
            assert read == kept
        else:  # some lines before the place are found whole: their own checksums vouch for them
            assert read[: len(kept)] == kept
            assert len(read) == len(set(read)) < 30_000
        tail = [record["seq"] for record in read_jsonl_tail(tmp_path, "x", 30_000, report=ReadReport())]
        assert tail == read
        with pytest.raises(DataError, match=sealed.name):
            list(read_jsonl([sealed], strict=True))
    for cut in (0, 1, 10, frames[0][0], len(whole) - 1):
        sealed.write_bytes(whole[:cut])
        report = ReadReport()
        assert seqs_of(tmp_path, report) == list(range(report.records))
        assert report.damaged or not with_manifest
        assert len(read_jsonl_tail(tmp_path, "x", 30_000)) == report.records


@pytest.mark.parametrize("manifest", [b"", b"null", b"[]", b'{"frames":7}', b'{"frames":[[1]]}',
                                      b'{"frames":[[-5,1,1]]}', b'{"frames":[[1,1e15,1]]}', b"[" * 9_999])  # fmt: skip
def test_a_broken_manifest_is_as_none(tmp_path: Path, manifest: bytes) -> None:
    """What it says is believed only where it fits the file."""
    (path,) = filled(tmp_path, 100)
    seal(path)
    manifest_path(path).write_bytes(manifest)
    assert seqs_of(tmp_path) == list(range(100))
    assert len(read_jsonl_tail(tmp_path, "x", 30)) == 30


def test_sealing_that_fails_leaves_the_plain_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, or one that gives back something else, raises; the next seal ends as if nothing had been."""
    (path,) = filled(tmp_path, 1_000)

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    for name in ("fsync", "replace", "unlink"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(OSError, match="no space"):
                seal(path)
        assert seqs_of(tmp_path) == list(range(1_000))
    with monkeypatch.context() as patch:
        patch.setattr(sealing._Contents, "add", lambda *_: None)
        with pytest.raises(OSError, match="not what the plain file holds"):
            seal(path)
    seal(path)
    assert names(tmp_path) == [f"{path.name}.manifest.json", f"{path.name}.zst"]
    assert seqs_of(tmp_path) == list(range(1_000))


def test_a_segment_that_is_still_written_on_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that comes while it is sealed stops that, and both are there."""
    (path,) = filled(tmp_path, 100)
    read_again = sealing._Contents.check

    def check(contents: sealing._Contents, plain: Path, sealed: Path) -> None:
        with plain.open("ab") as file:
            file.write(text(100))
        read_again(contents, plain, sealed)

    monkeypatch.setattr(sealing._Contents, "check", check)
    with pytest.raises(OSError, match="not what the plain file holds"):
        seal(path)
    assert seqs_of(tmp_path) == list(range(101))


def test_an_odd_segment_is_sealed_too(tmp_path: Path) -> None:
    """An empty one, one of damage alone and one whose line is longer than a frame come out as they went in."""
    for number, content in enumerate((b"", b"\0" * 20 + b"\n", b"x" * (3 * FRAME) + b"\n" + text(1), b"\n\n")):
        path = tmp_path / segment_name("x", 20261122, number)
        path.write_bytes(content)
        seal(path)
        manifest = orjson.loads(manifest_path(path).read_bytes())
        assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    report = ReadReport()
    assert seqs_of(tmp_path, report) == [1]
    assert [p.damage for p in report.places] == [Damage.NULS, Damage.TOO_LONG, Damage.NOT_JSON, Damage.NOT_JSON]
    assert [record["seq"] for record in read_jsonl_tail(tmp_path, "x", 5)] == [1]


def test_retention_deletes_the_oldest_sealed_and_ticks_last(tmp_path: Path) -> None:
    """A plan is a value with reasons; the open segment stays; applied twice, the second does nothing."""
    ticks, windows = tmp_path / "ticks", tmp_path / "windows"
    for folder in (ticks, windows):
        folder.mkdir()
        for day in (20261120, 20261121, 20261122):
            for form in (".jsonl.zst", ".jsonl.manifest.json"):
                (folder / f"x_{day}_0000{form}").write_bytes(b"x" * 50)
        (folder / "x_20261122_0001.jsonl").write_bytes(b"x" * 100)
    stores = [Store(ticks, rank=1), Store(windows)]
    assert plan_retention(stores, 800) == []
    plan = plan_retention(stores, 401)
    assert [str(d.path.relative_to(tmp_path))[:-10] for d in plan] == [
        "windows/x_20261120_0000", "windows/x_20261121_0000", "windows/x_20261122_0000", "ticks/x_20261120_0000",
    ]  # fmt: skip
    assert {(d.size, d.reason) for d in plan} == {(100, "more than 401 bytes")}
    assert apply_retention(plan) == [(deletion, None) for deletion in plan]
    assert plan_retention(stores, 401) == []
    assert apply_retention(plan) == [(deletion, None) for deletion in plan]
    (old,) = plan_retention([Store(ticks, older_than_ms=T0 + 1)])
    assert (old.path.name, old.reason) == ("x_20261121_0000.jsonl.zst", "too old")
    old.path.unlink()
    old.path.mkdir()
    ((_, error),) = apply_retention([old])
    assert isinstance(error, OSError)
    assert len(plan_retention(stores, 0)) == 1
    assert plan_retention([Store(tmp_path / "none")], 0) == []


def test_a_name_of_a_day_to_come_does_not_keep_a_segment(tmp_path: Path) -> None:
    """After a clock that jumped ahead a segment is as old as its last change."""
    path = tmp_path / "x_29991231_0000.jsonl.zst"
    path.touch()
    os.utime(path, (T0 / 1_000, T0 / 1_000))
    assert plan_retention([Store(tmp_path, older_than_ms=T0)]) == []
    assert [deletion.path for deletion in plan_retention([Store(tmp_path, older_than_ms=T0 + 1)])] == [path]


def test_the_reserve_is_made_once_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MB that are really taken; where there is no room there is none, and nothing is left of it."""
    assert keep_reserve(tmp_path)
    assert keep_reserve(tmp_path)
    status = (tmp_path / "reserve").stat()
    assert (status.st_size, status.st_mode & 0o777) == (RESERVE_BYTES, 0o600)
    assert status.st_blocks * 512 >= RESERVE_BYTES
    assert give_up_reserve(tmp_path)
    assert not give_up_reserve(tmp_path)

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert not keep_reserve(tmp_path)
    assert names(tmp_path) == []


def test_a_disk_is_low_below_its_minimum(tmp_path: Path) -> None:
    """Asked of a folder that is yet to be made, it is the disk that it would lie on."""
    assert not disk_low(tmp_path / "a" / "b", 0)
    assert disk_low(tmp_path / "a" / "b", 1 << 40)


DRIVER = """
import os, sys
from pathlib import Path
from tradingbot.io.jsonl import RotatingJSONLWriter, encode
from tradingbot.io.sealing import seal
past = []
folder = Path(sys.argv[1])
writer = RotatingJSONLWriter(folder / "ticks", "x", 400, past.append)
for seq in range(20):
    writer.write(1_795_305_600_000, encode({"v": 1, "sid": "s", "ts_ms": 1_795_305_600_000, "seq": seq}))
    os.write(1, b"%d\\n" % seq)
    if seq % 4 == 3:
        writer.sync()
    while past:
        seal(past.pop())
writer.close()
"""
CALLS = ("openat", "write", "fsync", "rename", "unlink", "mkdir")


def strace(options: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    python = os.path.realpath(sys.executable)
    env = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, sys.path)])}
    command = ["strace", "-qq", *options, python, "-c", DRIVER, str(folder)]
    return subprocess.run(command, env=env, capture_output=True, check=False, timeout=240)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")
def test_a_kill_at_any_system_call_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Kill -9 at opens, writes, flushes, renames and removals: what was acknowledged is read, the next run goes on."""
    log = tmp_path / "log"
    strace(["-o", os.devnull, "-e", "trace=none"], tmp_path / "warm")  # so that all byte code is there
    dry = strace(["-o", str(log), "-e", f"trace={','.join(CALLS)}"], tmp_path / "dry")
    if b"PTRACE" in dry.stderr or b"ptrace" in dry.stderr:
        pytest.skip("strace may not trace here")
    assert dry.stdout.split()[-1] == b"19", dry.stderr
    counts = dict.fromkeys(CALLS, 0)
    begun = False
    points: list[tuple[str, int]] = []
    for line in log.read_text().splitlines():
        call = line.partition("(")[0]
        if call in counts:
            counts[call] += 1
            begun = begun or str(tmp_path / "dry") in line
            if begun:
                points.append((call, counts[call]))
    step = max(len(points) // 40, 1)
    killed = 0
    for call, number in points[::step]:
        home = tmp_path / f"{call}{number}"
        run = strace(["-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"], home)
        killed += run.returncode != 0
        acknowledged = len(run.stdout.splitlines())
        folder = home / "ticks"
        read = seqs_of(folder)
        assert read == list(range(len(read))), (call, number)
        assert acknowledged <= len(read) <= acknowledged + 1
        writer = RotatingJSONLWriter(folder, "x")
        writer.write(T0, text(len(read)))
        writer.finish()
        for segment in list_segments(folder):
            if not segment.sealed:
                seal(segment.path)
        assert seqs_of(folder) == list(range(len(read) + 1)), (call, number)
        for segment in list_segments(folder):
            manifest = orjson.loads(manifest_path(segment.path).read_bytes())
            plain = b"".join(text_of(segment.path))
            assert manifest["sha256"] == hashlib.sha256(plain).hexdigest()
        assert all(name.endswith((".zst", ".manifest.json")) for name in names(folder)), names(folder)
    assert killed >= 20


def text_of(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return [sealing.zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()]
