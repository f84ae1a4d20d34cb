"""Fsck finds what was damaged, names it by file and line, and mends it without losing a byte."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.test_replay import crash_csv
from tradingbot.cli import main
from tradingbot.io.jsonl import Damage, Damaged, decode, encode
from tradingbot.io.sealing import seal
from tradingbot.io.segments import load_frames, manifest_path
from tradingbot.io.state_files import StateLock
from tradingbot.io.streams import event_record, tick_record
from tradingbot.market.ticker import Ticker
from tradingbot.ops.findings import Ill, Report
from tradingbot.ops.fsck import examine
from tradingbot.ops.repair import plan, repair

TICKS = "drop_windows/ticks"
LIMIT = 10_000_000_000


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a state directory with a session of four symbols in it."""
    place = tmp_path_factory.mktemp("imported")
    assert main(["import", str(crash_csv(place / "crash.csv", 30)), "--home", str(place)]) == 0
    return place / "state"


@pytest.fixture
def state(imported: Path, tmp_path: Path) -> Path:
    """Give a copy of it to damage."""
    return Path(shutil.copytree(imported, tmp_path / "state"))


def look(state: Path, running: bool = False) -> Report:
    return examine(state, LIMIT, running)


def series(state: Path) -> list[Path]:
    return sorted((state / TICKS).glob("*.jsonl"))


def found(report: Report) -> list[tuple[str, str, int]]:
    return [(problem.kind.value, problem.file, problem.line) for problem in report.problems]


def edit(path: Path, line: int, change: Callable[[bytes], bytes]) -> None:
    """Change one line, from 1, of a file."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = change(lines[line - 1])
    path.write_bytes(b"".join(lines))


def signed(text: bytes) -> bytes:
    """Return members as a line with a right checksum, whatever they are."""
    from zlib import crc32

    return b'%b,"crc":"%08x"}\n' % (text, crc32(text))


def digests(state: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the locks."""
    files = (path for path in state.rglob("*") if path.is_file() and "lock" not in path.name)
    return {str(path.relative_to(state)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tradingbot", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)


def test_a_clean_directory_is_clean_and_counted(state: Path) -> None:
    """Exit 0; records, sizes and the session are those that lie there."""
    done = run("fsck", str(state), "--json")
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
    text = run("fsck", str(state)).stdout
    assert text.splitlines()[0] == f"{state}: clean"
    assert "STREAMS_MAX_GB = 10 comes first" in text


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], Damage]] = {
    "NUL bytes": (lambda line: b"\0" * (len(line) - 1) + b"\n", Damage.NULS),
    "a NUL in the middle": (lambda line: line[:40] + b"\0" + line[41:], Damage.NULS),
    "not UTF-8": (lambda line: line[:20] + b"\xff\xfe" + line[22:], Damage.NOT_UTF8),
    "duplicate keys": (lambda line: line.replace(b'{"v":1', b'{"v":1,"v":1'), Damage.WRONG_CRC),
    "a changed digit": (lambda line: line.replace(b'"last":', b'"last":1'), Damage.WRONG_CRC),
    "deep nesting": (lambda line: b'{"v":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", Damage.NOT_JSON),
    "deep nesting, right checksum": (
        lambda line: signed(b'{"v":' + b"[" * 100_000 + b"]" * 100_000),
        Damage.NOT_JSON,
    ),
    "5,000 digits": (lambda line: b'{"v":' + b"7" * 5_000 + b"}\n", Damage.NOT_JSON),
    "a list": (lambda line: b"[1,2]\n", Damage.NOT_JSON),
    "an empty line": (lambda line: b"\n", Damage.NOT_JSON),
    "no checksum": (lambda line: b'{"v":1}\n', Damage.NO_CRC),
    "too long": (lambda line: line[:-2] + b" " * (1 << 20) + b"}\n", Damage.TOO_LONG),
}


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
    from tradingbot.ops.fsck_text import report_text

    for path in (series(state)[0], state / "journal" / sorted((state / "journal").iterdir())[0].name):
        edit(path, 3, lambda line: signed(members) + line)
    report = look(state)
    assert report_text(report, 0)
    assert orjson.loads(orjson.dumps(report.to_record()))["state"] == str(state)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return [encode(tick_record("s", seq, Ticker("A/B", 1_700_000_000_000 + seq, 100.0 + seq))) for seq in range(1, 6)]


def small(folder: Path, text: bytes) -> Path:
    """Make a state directory whose ticks are one file."""
    path = folder / TICKS / "A_B_20231114_0000.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return path


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


def break_everything(state: Path) -> dict[str, bytes]:
    """Damage a directory in every way that can be mended; return the damaged lines by file."""
    first, second, third, fourth = series(state)
    for path, line, name in ((first, 5, "a changed digit"), (first, 6, "NUL bytes"), (second, 3, "not UTF-8")):
        edit(path, line, DAMAGES[name][0])
    bad = {
        first.name: b"".join(first.read_bytes().splitlines(keepends=True)[4:6]),
        second.name: second.read_bytes().splitlines(keepends=True)[2],
    }
    second.write_bytes(second.read_bytes() + b'{"v":1,"sid":"torn')
    manifest_path(seal(third)).unlink()
    manifest = manifest_path(seal(fourth))
    manifest.write_bytes(manifest.read_bytes().replace(b'"records":', b'"records":1'))
    (state / "status.json.tmp").write_bytes(b"{")
    (state / TICKS / "X_20260101_0000.jsonl.zst.tmp").write_bytes(b"x")
    (state / TICKS / "X_20260101_0001.jsonl.manifest.json").write_bytes(b"{}")
    (snapshots,) = (state / "drop_windows" / "snapshots").iterdir()
    text = snapshots.read_bytes()
    seal(snapshots)
    snapshots.write_bytes(text)
    return bad


def test_a_repair_mends_everything_and_loses_nothing(state: Path) -> None:
    """Through the real command: exit 0, damaged lines and the files as they were lie beside, the audit says so."""
    bad = break_everything(state)
    before = {path.name: path.read_bytes() for path in (state / TICKS).iterdir()}
    records = look(state).streams["ticks"].records  # type: ignore[index]
    done = run("fsck", str(state), "--repair", "--yes", "--why", "power loss")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{state}: clean" in done.stdout
    for name, lines in bad.items():
        assert (state / TICKS / f"{name}.bad").read_bytes() == lines
        whole = before[name][: before[name].rindex(b"\n") + 1]
        assert (state / TICKS / f"{name}.original").read_bytes() == whole
        before_it = decode(whole[: whole.index(lines)].splitlines()[-1])
        gap = event_record(before_it["sid"], before_it["ts_ms"], "gap", missing=lines.count(b"\n"))
        assert (state / TICKS / name).read_bytes() == whole.replace(lines, encode(gap))
    torn = next(name for name, text in before.items() if not text.endswith(b"\n") and name in bad)
    assert (state / TICKS / f"{torn}.torn").read_bytes() == b'{"v":1,"sid":"torn'
    assert not list(state.rglob("*.tmp"))
    report = look(state)
    assert (report.exit_code, report.streams["ticks"].records) == (0, records + len(bad))  # type: ignore[index]
    for path in [*state.rglob("*.bad"), *state.rglob("*.original"), *state.rglob("*.torn")]:
        path.unlink()
    assert look(state).exit_code == 0, "what was lost stays told when nothing is kept aside any more"
    audit = [decode(line) for line in (state / "audit.jsonl").read_bytes().splitlines()]
    assert [entry["what"] for entry in audit] == ["fsck --repair: begins", "fsck --repair: ended"]
    assert {entry["why"] for entry in audit} == {"power loss"}
    assert len(audit[0]["steps"]) == len(audit[1]["outcomes"]) == 8

    after = digests(state)
    again = run("fsck", str(state), "--repair", "--yes", "--why", "twice")
    assert (again.returncode, digests(state)) == (0, after)


def test_a_second_repair_overwrites_nothing_that_the_first_has_kept(state: Path) -> None:
    """Each repair has names of its own, also where the file kept aside was deleted and the lines were not."""
    path = series(state)[0]
    for line, why in ((5, "first"), (9, "second")):
        edit(path, line, DAMAGES["a changed digit"][0])
        assert main(["fsck", str(state), "--repair", "--yes", "--why", why]) == 0
        path.with_name(path.name + ".original").unlink(missing_ok=True)
    kept = sorted(name.name.removeprefix(path.name) for name in path.parent.glob(f"{path.name}.*"))
    assert kept == [".bad", ".bad.2", ".original.2"]


@pytest.mark.parametrize("moment", range(22))
def test_a_repair_that_is_killed_at_any_moment_is_ended_by_the_next(
    state: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Whatever was renamed, linked or removed last, the good lines and the damaged ones are all there in the end."""
    bad = break_everything(state)
    good = sorted(
        line for path in series(state)[:2] for line in path.read_bytes().splitlines(keepends=True) if is_record(line)
    )
    done = 0

    class Killed(BaseException):
        pass

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done > moment:
                raise Killed
            return call(*arguments, **options)

        return doing

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", dying(os.link))
        for name in ("replace", "unlink"):
            patched.setattr(Path, name, dying(getattr(Path, name)))
        with pytest.raises(Killed):
            repair(state, plan(look(state)), "killed")
    steps = plan(look(state))
    repair(state, steps, "again")
    assert look(state).exit_code == 0
    assert plan(look(state)) == []
    text = b"".join(path.read_bytes() for path in series(state))
    assert [line for line in good if line not in text] == []
    aside = b"".join(path.read_bytes() for path in (state / TICKS).iterdir() if ".bad" in path.name)
    assert not list(state.rglob("*.tmp"))
    assert all(line in aside for lines in bad.values() for line in lines.splitlines(keepends=True))


def is_record(line: bytes) -> bool:
    try:
        decode(line)
    except Damaged:
        return False
    return line.endswith(b"\n")


def test_what_of_a_sealed_file_cannot_be_unpacked_is_kept_and_missed(state: Path) -> None:
    """The packed bytes stay beside for a better tool; that the inputs are missing stays a problem."""
    sealed = seal(series(state)[0])
    packed = bytearray(sealed.read_bytes())
    packed[len(packed) // 2] ^= 0xFF
    sealed.write_bytes(packed)
    assert Damage.UNREADABLE.value in look(state).counts
    assert main(["fsck", str(state), "--repair", "--yes", "--why", "bad sector"]) == 1
    assert sealed.with_name(sealed.name + ".original").read_bytes() == packed
    assert [problem.kind for problem in look(state).problems] == [Ill.MISSING]


def test_one_damaged_frame_costs_its_own_lines_alone(tmp_path: Path) -> None:
    """Of a large sealed segment the others are salvaged, and a gap record tells how many inputs went with it."""
    count = 10_000
    ticks = (tick_record("s", seq, Ticker("A/B", 1_700_000_000_000 + seq, 100.0 + seq)) for seq in range(1, count + 1))
    sealed = seal(small(tmp_path, b"".join(map(encode, ticks))))
    journal = tmp_path / "journal" / "journal_20231114_0000.jsonl"
    journal.parent.mkdir()
    start = event_record("s", 1_700_000_000_000, "session_start", checkpoint={"seq": 0})
    journal.write_bytes(encode(start) + encode(event_record("s", 1_700_000_030_000, "session_end", seq=count)))
    frames = load_frames(sealed, sealed.stat().st_size)
    assert frames is not None
    assert len(frames) == 2
    packed = bytearray(sealed.read_bytes())
    packed[frames[0].packed + 100] ^= 0xFF
    sealed.write_bytes(packed)
    assert found(look(tmp_path)) == [(Damage.UNREADABLE.value, f"{TICKS}/{sealed.name}", frames[0].lines + 1)]
    assert main(["fsck", str(tmp_path), "--repair", "--yes", "--why", "bad sector"]) == 0
    report = look(tmp_path)
    assert report.streams["ticks"].records == frames[0].lines + 1  # type: ignore[index]
    assert report.sessions["s"].gaps == frames[1].lines
    assert [(stretch.first, stretch.last) for stretch in report.missing["s"]] == [(frames[0].lines + 1, count)]


def test_without_a_terminal_only_the_plan_is_shown(state: Path) -> None:
    """Exit 2, every step by its file, and not a byte is changed; with --yes a reason is required."""
    break_everything(state)
    before = digests(state)
    done = run("fsck", str(state), "--repair", "--why", "x")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert sum(".jsonl" in line for line in done.stdout.splitlines()) >= 7
    document = orjson.loads(run("fsck", str(state), "--repair", "--json").stdout)
    assert len(document["plan"]) == 8
    unexplained = run("fsck", str(state), "--repair", "--yes")
    assert (unexplained.returncode, "--why" in unexplained.stderr) == (2, True)
    assert digests(state) == before


class Terminal(io.StringIO):
    """Answer as a person at a terminal would."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_on_a_terminal_it_asks(state: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    """Yes repairs, anything else changes nothing."""
    edit(series(state)[0], 5, DAMAGES["a changed digit"][0])
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["fsck", str(state), "--repair", "--why", "asked"]) == code
    assert (look(state).exit_code == 0) == (code == 0)


@pytest.fixture(params=["lock", "exchange.lock"])
def locked(state: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give a directory that somebody works in."""
    with StateLock(state, 0, request.param):
        yield state


def test_a_directory_in_use_is_looked_at_and_not_repaired(locked: Path) -> None:
    """Exit 3; without --repair what is half written is no problem."""
    (locked / "status.json.tmp").write_bytes(b"{")
    (journal,) = (locked / "journal").iterdir()
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))  # its session has not ended yet
    path = series(locked)[0]
    path.write_bytes(path.read_bytes()[:-5])
    done = run("fsck", str(locked))
    assert (done.returncode, "a bot is running there" in done.stdout) == (0, True), done.stdout
    assert "the last line is being written" in done.stdout
    edit(path, 5, DAMAGES["a changed digit"][0])
    assert run("fsck", str(locked)).returncode == 1
    assert run("fsck", str(locked), "--repair", "--yes", "--why", "x").returncode == 3


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
