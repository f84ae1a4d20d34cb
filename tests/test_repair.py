"""A repair mends what fsck finds, loses no byte, and may be killed at any moment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.damage import DAMAGES, TICKS, Terminal, digests, edit, found, look, make_state, run, series, small
from tradingbot.cli import main
from tradingbot.io.jsonl import Damage, Damaged, decode, encode
from tradingbot.io.sealing import seal
from tradingbot.io.segments import load_frames, manifest_path
from tradingbot.io.state_files import StateLock
from tradingbot.io.streams import event_record, tick_record
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.findings import Ill
from tradingbot.ops.record.repair import Step, Work, plan, repair


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a state directory with a session of four symbols in it."""
    return make_state(tmp_path_factory.mktemp("imported"))


@pytest.fixture
def state(imported: Path, tmp_path: Path) -> Path:
    """Give a copy of it to damage."""
    return Path(shutil.copytree(imported, tmp_path / "state"))


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


def test_a_sealed_copy_beside_a_damaged_file_is_kept(state: Path) -> None:
    """What a kill within sealing left may be the better of the two, so no repair writes over it."""
    path = series(state)[0]
    text = path.read_bytes()
    sealed = seal(path)
    packed = sealed.read_bytes()
    path.write_bytes(text)
    edit(path, 5, DAMAGES["a changed digit"][0])
    assert main(["fsck", str(state), "--repair", "--yes", "--why", "killed, then a bad sector"]) == 0
    assert sealed.with_name(sealed.name + ".original").read_bytes() == packed


def test_an_audit_of_thousands_of_steps_is_told_in_lines_that_can_be_read(state: Path) -> None:
    """No record of it is longer than a line may be, and together they name every step."""
    steps = [Step(Work.REMOVE, f"{'x' * 200}{number}.tmp") for number in range(6_000)]
    repair(state, steps, "many")
    audit = [decode(line) for line in (state / "audit.jsonl").read_bytes().splitlines()]
    assert [step for entry in audit for step in entry.get("steps", [])] == [str(step) for step in steps]
    assert sum(len(entry.get("outcomes", [])) for entry in audit) == len(steps)
