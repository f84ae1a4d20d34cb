"""Lines and their readers: any damage is named and passed over, forwards and from the end, in bounded memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_jsonl_writer import T0, Record, seqs_of, text, tick
from tradingbot.errors import DataError
from tradingbot.io.jsonl import (
    Damage,
    Damaged,
    ReadReport,
    RotatingJSONLWriter,
    decode,
    encode,
    plain_number,
    read_jsonl,
    read_jsonl_backwards,
    read_jsonl_tail,
    read_number,
)
from tradingbot.io.lines import MAX_LINE, decode_lines
from tradingbot.io.sealing import seal

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
    b'{"crc":"00000000"}': Damage.NO_CRC,  # the CRC-32 of nothing
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


@pytest.mark.parametrize("sealed", [False, True])
def test_backwards_is_forwards_the_other_way_round(tmp_path: Path, sealed: bool) -> None:
    """Thousands of lines of two files, damaged ones among them: the same records and lines, counted from the end."""
    paths = []
    for day in (22, 23):
        path = tmp_path / f"x_202611{day}_0000.jsonl"
        lines = [text(number) if number % 97 else b"damaged\n" for number in range(1, 9_000)]
        path.write_bytes(b"".join(lines))
        paths.append(seal(path) if sealed else path)
    forwards, backwards = ReadReport(), ReadReport()
    expected = list(read_jsonl(paths, forwards))
    found = list(read_jsonl_backwards(reversed(paths), backwards))
    assert [each.record for each in found] == [each.record for each in reversed(expected)]
    assert [each.line + 9_000 for each in found] == [each.line for each in reversed(expected)]
    assert (backwards.records, backwards.damaged) == (forwards.records, forwards.damaged) == (len(expected), 2 * 92)
    assert list(read_jsonl_backwards([tmp_path / "x_20261124_0000.jsonl"], backwards)) == []
    assert backwards.damaged == 2 * 92 + 1, "a file that is gone is told of"
