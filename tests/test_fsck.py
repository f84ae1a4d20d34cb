"""Fsck finds what was damaged, and names it by file and line."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.damage import DAMAGES, TICKS, edit, found, look, make_state, run, series, signed, small
from tradingbot.io.jsonl import Damage, Damaged, decode, encode
from tradingbot.io.sealing import seal
from tradingbot.io.segments import manifest_path
from tradingbot.io.streams import event_record, tick_record
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.findings import Ill
from tradingbot.ops.record.repair import plan


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a state directory with a session of four symbols in it."""
    return make_state(tmp_path_factory.mktemp("imported"))


@pytest.fixture
def state(imported: Path, tmp_path: Path) -> Path:
    """Give a copy of it to damage."""
    return Path(shutil.copytree(imported, tmp_path / "state"))


def test_a_clean_directory_is_clean_and_counted(state: Path) -> None:
    """Exit 0; records, sizes and the session are those that lie there."""
    small = ("--set", "STREAMS_MAX_GB=0.1")  # less than is free on any disk
    done = run("fsck", str(state), "--json", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    report = orjson.loads(done.stdout)
    ticks = report["streams"]["ticks"]
    lines = sum(path.read_bytes().count(b"\n") for path in series(state))
    assert (report["clean"], report["problems"], ticks["records"], ticks["series"]) == (True, [], lines, 4)
    assert ticks["bytes"] == sum(path.stat().st_size for path in series(state))
    assert ticks["bytes_per_day"] == pytest.approx(ticks["bytes"] * 86_400_000 / (ticks["last_ms"] - ticks["first_ms"]))
    (session,) = report["sessions"]
    assert (session["inputs"], session["ended"], session["missing"]) == (lines, True, [])
    disk = report["disk"]
    assert disk["days_to_limit"] < disk["days_to_full"]
    text = run("fsck", str(state), *small).stdout
    assert text.splitlines()[0] == f"{state}: clean"
    assert "STREAMS_MAX_GB = 0.1 comes first" in text


@pytest.mark.parametrize("name", DAMAGES)
def test_each_kind_of_damage_is_named_by_file_and_line(state: Path, name: str) -> None:
    """That and nothing else; the number that the line held is no second problem."""
    change, kind = DAMAGES[name]
    path = series(state)[1]
    edit(path, 7, change)
    report = look(state)
    assert found(report) == [(kind.value, f"{TICKS}/{path.name}", 7)]
    assert report.exit_code == 1


@pytest.mark.parametrize(
    "members",
    [
        b'{"v":1,"sid":7,"ts_ms":"x","seq":[1]', b'{"v":1,"sid":{"a":1},"seq":-5', b'{"v":1,"seq":true,"ts_ms":1e400',
        b'{"v":1,"seq":' + b"7" * 5_000, b'{"v":1,"sid":"x","ts_ms":99999999999999999,"seq":4611686018427387903',
        b'{"type":"gap","missing":"many"', b'{"type":"session_start","sid":"x","checkpoint":[1]',
        b'{"type":"session_end","sid":"20260101T000000-import","seq":4611686018427387903',
        b'{"type":"recording","sid":"x","seq":5,"on":"perhaps"', b'{"v":1,"sid":"\\u0007\\n","seq":3',
    ],
)  # fmt: skip
def test_a_record_with_a_right_checksum_and_odd_members_raises_nothing(state: Path, members: bytes) -> None:
    """Whatever was written with a checksum is looked at, and told in words, without a traceback."""
    from tradingbot.ops.record.fsck_text import report_text

    for path in (series(state)[0], state / "journal" / sorted((state / "journal").iterdir())[0].name):
        edit(path, 3, lambda line: signed(members) + line)
    report = look(state)
    assert report_text(report, 0)
    assert orjson.loads(orjson.dumps(report.to_record()))["state"] == str(state)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return [encode(tick_record("s", seq, Ticker("A/B", 1_700_000_000_000 + seq, 100.0 + seq))) for seq in range(1, 6)]


def test_a_file_cut_at_any_byte_has_a_torn_line_or_ends_with_one(tmp_path: Path, lines: list[bytes]) -> None:
    """Whole lines are records; what follows them is torn, unless the bot that writes it runs."""
    text = b"".join(lines)
    for size in range(len(text) + 1):
        small(tmp_path, text[:size])
        whole, is_torn = text[:size].count(b"\n"), not text[:size].endswith(b"\n") and size > 0
        report = look(tmp_path)
        torn = [(Damage.TORN.value, f"{TICKS}/A_B_20231114_0000.jsonl", whole + 1)] if is_torn else []
        assert (found(report), report.streams["ticks"].records) == (torn, whole), size  # type: ignore[index]
        running = look(tmp_path, running=True)
        assert (found(running), len(running.notes)) == ([], int(is_torn)), size


@hypothesis_settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_whatever_bytes_are_written_over_the_lines_those_that_are_none_are_found(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], blows: list[tuple[int, bytes]]
) -> None:
    """Fsck names the lines that, read one by one, are no records, and no others."""
    text = bytearray(b"".join(lines))
    for place, blow in blows:
        text[place : place + len(blow)] = blow
    *complete, rest = bytes(text).split(b"\n")
    expected = []
    for number, line in enumerate(complete, 1):
        try:
            decode(line)
        except Damaged as error:
            expected.append((error.damage.value, number))
    expected += [(Damage.TORN.value, len(complete) + 1)] if rest else []
    place = tmp_path_factory.mktemp("state")
    small(place, bytes(text))
    assert sorted((problem.kind.value, problem.line) for problem in look(place).problems) == sorted(expected)


def test_a_sealed_file_cut_at_any_byte_is_found(tmp_path: Path, lines: list[bytes]) -> None:
    """With its manifest it does not fit, without one it has none; never a traceback."""
    sealed = seal(small(tmp_path, b"".join(lines)))
    assert found(look(tmp_path)) == []
    packed, manifest = sealed.read_bytes(), manifest_path(sealed).read_bytes()
    for size in range(len(packed)):
        sealed.write_bytes(packed[:size])
        assert look(tmp_path).exit_code == 1, size
        manifest_path(sealed).unlink()
        assert (Ill.NO_MANIFEST.value, f"{TICKS}/{sealed.name}", 0) in found(look(tmp_path)), size
        manifest_path(sealed).write_bytes(manifest)


def test_a_manifest_that_was_changed_does_not_fit(tmp_path: Path, lines: list[bytes]) -> None:
    """One member after the other, and a manifest that is no JSON."""
    sealed = seal(small(tmp_path, b"".join(lines)))
    manifest = manifest_path(sealed)
    said = orjson.loads(manifest.read_bytes())
    for name, value in (("records", 6), ("bytes", 1), ("sha256", "0" * 64), ("frames", [])):
        manifest.write_bytes(orjson.dumps(said | {name: value}))
        (problem,) = look(tmp_path).problems
        assert problem.kind is Ill.MISFIT
        assert problem.detail.startswith(name)
    for text in (b"", b"[1]", b"{", b'{"records":5}'):
        manifest.write_bytes(text)
        assert [problem.kind for problem in look(tmp_path).problems] == [Ill.MISFIT]


def test_an_input_without_a_record_is_missed(state: Path) -> None:
    """A line that is gone leaves no damage behind, but its number; a gap record explains as many as it names."""
    path = series(state)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    gone = [decode(lines.pop(place))["seq"] for place in (100, 50)]
    path.write_bytes(b"".join(lines))
    report = look(state)
    (problem,) = report.problems
    assert problem.kind is Ill.MISSING
    assert problem.detail == f"2 in 2 stretches, the first {gone[1]} to {gone[1]}"
    sid = decode(lines[0])["sid"]
    lines.insert(60, encode(event_record(sid, decode(lines[59])["ts_ms"], "gap", missing=2)))
    path.write_bytes(b"".join(lines))
    report = look(state)
    assert (found(report), report.streams["ticks"].gaps) == ([], 1)  # type: ignore[index]
    assert sum(stretch.count for stretch in report.missing[sid]) == 2


def test_a_number_given_twice_is_told(state: Path) -> None:
    """A line that was copied is found, though each of the two is whole."""
    path = series(state)[0]
    edit(path, 9, lambda line: line + line)
    assert [problem.kind for problem in look(state).problems] == [Ill.TWICE]


def test_what_was_switched_off_or_lost_at_a_kill_is_no_problem(state: Path) -> None:
    """The journal says from when to when nothing was recorded; a session without an end lost its last moments."""
    (journal,) = (state / "journal").iterdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    start, end = decode(lines[0]), decode(lines[-1])
    keep: dict[Path, list[bytes]] = {path: path.read_bytes().splitlines(keepends=True) for path in series(state)}
    for path, ticks in keep.items():
        path.write_bytes(b"".join(line for line in ticks if not 300 < decode(line)["seq"] <= 400))
    assert look(state).exit_code == 1
    marks = [
        encode(event_record(start["sid"], start["ts_ms"], "recording", seq=seq, on=on))
        for seq, on in ((300, False), (400, True))
    ]
    journal.write_bytes(b"".join([*lines[:-1], *marks, lines[-1]]))
    report = look(state)
    assert found(report) == []
    assert [(stretch.first, stretch.last) for stretch in report.missing[start["sid"]]] == [(301, 400)]
    for path, ticks in keep.items():
        path.write_bytes(b"".join(line for line in ticks if decode(line)["seq"] != end["seq"] - 3))
    journal.write_bytes(b"".join(lines))
    assert look(state).exit_code == 1
    journal.write_bytes(b"".join(lines[:-1]))
    assert found(look(state)) == []


@pytest.mark.parametrize(
    ("name", "text", "is_well"),
    [
        ("overrides.json", b'{"v":1,"overrides":{}}', True),
        ("overrides.json", b'{"v":1', False),
        ("checkpoint.json", b"\0" * 100, False),
        ("checkpoint.json", encode({"v": 1, "seq": 5}), True),
        ("checkpoint.json", encode({"v": 1, "seq": 5}).replace(b"5,", b"6,"), False),
        ("anchors/anchors.json", b"[]", False),
        ("anchors/anchors.json", b'{"a":' + b"[" * 100_000, False),
        ("anchors/anchors.json", b'{"a":' + b"9" * 5_000 + b"}", False),
        ("stamp.json", b"\xff\xfe", False),
    ],
)
def test_state_files_parse_or_are_named(state: Path, name: str, text: bytes, is_well: bool) -> None:
    """What cannot be read is a problem, with a checksum where the file has one; a repair leaves it alone."""
    (state / "anchors").mkdir(exist_ok=True)
    (state / name).write_bytes(text)
    report = look(state)
    assert found(report) == ([] if is_well else [(Ill.STATE_FILE.value, name, 0)])
    assert plan(report) == []


def test_broken_settings_and_overrides_do_not_keep_it_from_looking(state: Path) -> None:
    """A warning, and the report."""
    (state / "overrides.json").write_bytes(b"{broken")
    done = run("fsck", str(state))
    assert done.returncode == 1
    assert "warning: " in done.stderr
    assert "overrides.json: cannot be read (no JSON object)" in done.stdout


def test_no_directory_and_an_empty_one(tmp_path: Path) -> None:
    """Exit 2 and 0, one line each that matters."""
    missing = run("fsck", str(tmp_path / "none"))
    assert (missing.returncode, "there is no state directory" in missing.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    empty = run("fsck", str(tmp_path / "empty"))
    assert (empty.returncode, "nothing is recorded" in empty.stdout) == (0, True)
