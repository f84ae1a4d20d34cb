"""`tradingbot clean`: archived, verified, told to the journal, then deleted; and put back as it was."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cleanups import YES, archives, clean, cli, copied, data, dying, recorded, sealed, settings, small_files
from tests.crash import machine
from tests.recording import Recorded
from tests.test_archives import entry, hostile
from tests.test_live import call
from tradingbot.io import sealing
from tradingbot.io.jsonl import RotatingJSONLWriter
from tradingbot.io.reserve import with_reserve
from tradingbot.io.segments import list_segments
from tradingbot.io.state_files import StateLock
from tradingbot.ops.cleanup import archives as archives_module
from tradingbot.ops.cleanup import cleanup
from tradingbot.ops.cleanup import restore as cleanup_restore
from tradingbot.ops.cleanup import store as cleanup_store
from tradingbot.ops.cleanup import ticks as cleanup_ticks
from tradingbot.ops.cleanup.archives import ArchiveError
from tradingbot.ops.cleanup.cleanup import CleanError, Plan, execute, plan_clean, plan_restore, restore
from tradingbot.ops.jobs import BusyError
from tradingbot.ops.record.fsck import examine
from tradingbot.ops.record.prove import prove
from tradingbot.ops.report.index import lock_name

STREAMS = ("ticks", "snapshots", "windows", "anchors")
HOSTILE = ("a\nb.html", "\x1b[31mred.html", os.fsdecode(b"\xff\xfe.json"), "ü.html", "-rf.html", "$(id).html")
STRIDE = 17 if "TRADINGBOT_TEST_KILLS" in os.environ else 57  # calls from one kill to the next
REPORT = "prices_20260101T000000Z"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with an ended session, nearly all of it sealed."""
    home = tmp_path_factory.mktemp("original")
    recorded(home)
    return home


@pytest.fixture
def home(original: Path, tmp_path: Path) -> Path:
    return copied(original, tmp_path)


def untouched(home: Path) -> dict[str, bytes]:
    """Return the bytes of all that no cleanup may touch."""
    names = ("checkpoint.json", "stamp.json", "status.json", "anchors/anchors.json", "exchange.json")
    return {name: (home / "state" / name).read_bytes() for name in names if (home / "state" / name).exists()}


def is_well(home: Path) -> bool:
    return prove(home / "state").exit_code == 0 and examine(home / "state", 10**10, False).exit_code == 0


def test_the_whole_way_over_the_command_line(home: Path) -> None:
    """Sizes first; archived, deleted, named as not recorded, cleaned twice; put back to the byte, proved as before."""
    before, kept, proved = data(home), untouched(home), call(home, "prove").stdout
    shown = call(home, "clean", *STREAMS, "--archive")
    assert (shown.returncode, data(home), archives(home)) == (2, before, [])
    assert re.search(r"^ticks +\d+ +\d+ +0\.\d\d  2026-01-01 00:0\d:\d\d  2026-01-01 00:\d\d:\d\d$", shown.stdout, re.M)
    done = call(home, "clean", *STREAMS, "--archive", *YES, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = orjson.loads(done.stdout)
    assert document["report"]["files"] == document["plan"]["by_kind"][0]["files"] + sum(
        row["files"] for row in document["plan"]["by_kind"][1:]
    )
    (archive,) = archives(home)
    assert re.fullmatch(r"ticks-snapshots-windows-anchors_\d{8}\.tar\.zst", archive.name)
    after = data(home)
    assert len(before) - len(after) == document["report"]["files"] > 20
    assert after.items() <= before.items()
    assert untouched(home) == kept
    proof = call(home, "prove")
    assert proof.returncode == 0, proof.stdout
    assert "segments deleted" in proof.stdout
    assert "missing" not in proof.stdout
    checked = call(home, "fsck")
    assert (checked.returncode, "state: clean" in checked.stdout) == (0, True), checked.stdout
    again = call(home, "clean", *STREAMS, "--archive", *YES)
    assert (again.returncode, "nothing to clean" in again.stdout, len(archives(home))) == (0, True, 1)
    back = call(home, "clean", "--restore", str(archive), *YES)
    assert back.returncode == 0, back.stderr
    assert data(home) == before
    assert call(home, "prove").stdout == proved
    assert call(home, "fsck").returncode == 0
    assert call(home, "clean", "--restore", str(archive), *YES).returncode == 0
    assert data(home) == before
    audit = (home / "state" / "audit.jsonl").read_text()
    assert re.findall(r'"what":"(clean[^"]*)"', audit) == [
        "clean begins", "clean done", "clean --restore begins", "clean --restore done",
    ]  # fmt: skip
    assert audit.count('"why":"drill"') == 4


def test_a_next_session_starts_warm_as_if_nothing_had_been_cleaned(original: Path, tmp_path: Path) -> None:
    """The same line of the log: as many symbols and ticks, from the checkpoint, nothing cold."""
    lines = []
    for name in ("as it was", "cleaned"):
        home = copied(original, tmp_path / name)
        if name == "cleaned":
            assert clean(home, *STREAMS, archive=False).files
        done = call(home, "--virtual", "--duration", "30", "--no-dashboard", "--set", "EMBEDDED_SYMBOLS=2")
        (line,) = (line for line in done.stderr.splitlines() if "WARMSTART" in line)
        lines.append(re.sub(r" \w+_ms=[\d.]+", "", line))
        assert is_well(home)
    assert lines[0] == lines[1]
    assert "kind=warm source=checkpoint" in lines[0]
    assert int(re.findall(r"ticks=(\d+)", lines[0])[0]) > 100


def test_killed_at_any_step_nothing_is_lost_and_the_same_command_ends_it(original: Path, tmp_path: Path) -> None:
    """Dead at each write, flush, name and deletion: every file is at its place or in a whole archive."""
    places: list[tuple[Any, str]] = [
        (os, "fsync"), (os, "link"), (os, "unlink"), (os, "open"), (cleanup, "append_audit"),
        (RotatingJSONLWriter, "write"),
        (cleanup_store.Stored, "record"), (cleanup, "contents_of"), (sealing, "manifest_path"), (Path, "unlink"),
    ]  # fmt: skip
    before = data(original)
    kills = at = 0
    while True:
        home = copied(original, tmp_path / str(at))
        died = dying(lambda home=home: clean(home, "ticks", "windows"), at, places)  # type: ignore[misc]
        if not died:
            break
        kills += 1
        whole = [path for path in archives(home) if not path.name.startswith(".")]
        here = data(home)
        for archive in whole:
            names = {member.name: member.sha256 for member in archives_module.contents_of(archive).members}
            here = {name: sha for name, sha in names.items() if name.startswith("state/")} | here
        assert {name: here.get(name) for name in before} == before, f"killed at {at}"
        assert prove(home / "state").exit_code == 0
        clean(home, "ticks", "windows")
        assert not plan_clean(settings(home), ["ticks", "windows"], "x").items  # type: ignore[union-attr]
        assert is_well(home)
        assert not [path for path in archives(home) if path.name.startswith(".")]
        for archive in archives(home):
            restore(settings(home), archive, "back")
        assert data(home) == before
        at += 2 if at < 6 else STRIDE
    assert kills > 6


def test_killed_in_a_restore_it_can_be_repeated(home: Path) -> None:
    """Dead at each step: no half file under a name; the same command puts the rest back."""
    before = data(home)
    clean(home, "ticks", "windows")
    (archive,) = archives(home)
    places: list[tuple[Any, str]] = [(os, "fsync"), (os, "link"), (cleanup_restore, "append_audit"), (os, "utime")]
    died, at = True, 0
    while died:
        died = dying(lambda: restore(settings(home), archive, "back"), at, places)
        found = {name: sha for name, sha in data(home).items() if not name.endswith(".tmp")}
        assert found.items() <= before.items()
        at += 7
    assert data(home) == before
    assert at > 14
    assert is_well(home)


def test_a_full_disk_in_the_middle_leaves_all_and_no_archive(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too small is said before; full all the same (somebody else was faster) ends in one line with nothing deleted."""
    if machine.no_mounts():
        pytest.skip(machine.no_mounts())
    before = data(home)
    with machine.tmpfs(home / "small", "size=100k") as small:
        done = call(home, "clean", "ticks", "--archive-to", str(small), *YES)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "--archive-to another disk" in done.stderr
        monkeypatch.setattr(cleanup, "_check_room", lambda *_: None)
        with pytest.raises(CleanError, match="step archive: No space left on device; nothing is deleted") as caught:
            clean(home, "ticks", archive_to=small)
        assert caught.value.exit_code == 1
        assert list(small.iterdir()) == []
    assert data(home) == before
    assert is_well(home)


def test_an_archive_that_does_not_verify_deletes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that the disk gives back otherwise: one line, no archive under any name."""
    before = data(home)

    def flipping(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.name.endswith(".tar.zst.tmp"):
            text = bytearray(path.read_bytes())
            text[len(text) // 3] ^= 1
            path.write_bytes(text)

    monkeypatch.setattr(os, "fdatasync", flipping)
    with pytest.raises(CleanError, match=r"is no whole archive.*nothing is deleted"):
        clean(home, "ticks")
    assert (data(home), archives(home)) == (before, [])


def test_an_archive_that_is_damaged_later_is_not_gone_on_from(home: Path) -> None:
    """Killed between archive and deletion, then damaged: nothing is deleted on its word; without it, it begins anew."""
    before = data(home)
    places: list[tuple[Any, str]] = [(cleanup, "delete_ticks")]
    assert dying(lambda: clean(home, "ticks"), 0, places)
    (archive,) = archives(home)
    text = archive.read_bytes()
    archive.write_bytes(text[:-1000] + text[-1000:].replace(b"\0", b"\1"))
    archive.write_bytes(text[: len(text) // 2] + b"XX" + text[len(text) // 2 + 2 :])
    done = call(home, "clean", "ticks", "--archive", *YES)
    assert (done.returncode, "is no whole archive" in done.stderr, data(home)) == (1, True, before)
    archive.unlink()
    assert clean(home, "ticks").files
    assert is_well(home)


def test_what_vanishes_or_changes_after_the_plan_is_passed_over(home: Path) -> None:
    """A file that retention took is gone, and no trouble; one that grew stays, and is named, exit 1."""
    effective = settings(home)
    plan = plan_clean(effective, ["snapshots"], "drill", archive=True)
    assert isinstance(plan, Plan)
    first, second, *_ = (home / "state" / item.files[0].name.removeprefix("state/") for item in plan.items)
    sealing.apply_retention([sealing.Deletion(first, 0, "")])
    with second.open("ab") as file:
        file.write(b"more")
    report = execute(effective, plan)
    assert report.exit_code == 1
    assert list(report.left.values()) == ["it has changed since it was looked at"]
    assert second.exists()
    assert sealed(home, "snapshots") == {second.name}
    assert report.files == 2 * (len(plan.items) - 2)


def test_a_file_that_may_not_be_deleted_is_named_and_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1; the archive is whole, and the same command goes on once it may."""
    unlink = Path.unlink

    def refusing(self: Path, missing_ok: bool = False) -> None:
        if self.name.endswith("0003.jsonl.zst"):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    report = clean(home, "ticks", "snapshots")
    assert (report.exit_code, len(report.left), set(report.left.values())) == (1, 3, {"Permission denied"})
    monkeypatch.undo()
    assert clean(home, "ticks", "snapshots").exit_code == 0
    assert len(archives(home)) == 1
    assert is_well(home)


def test_hostile_names_reach_no_terminal_and_stay(home: Path) -> None:
    """Newlines, escapes, bytes that are no UTF-8, beside what goes and comes back: they are no reports."""
    texts = {name: name.encode("utf-8", "surrogateescape") for name in (*HOSTILE, f"{REPORT}.html")}
    list(small_files(home / "reports", texts))
    before = data(home)
    for words in ((), ("--json",)):
        done = call(home, "clean", "reports", "--archive", *YES, *words)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert set(before) - set(data(home)) == {f"reports/{REPORT}.html"}
        back = call(home, "clean", "--restore", str(archives(home)[-1]), *YES)
        assert (back.returncode, "\x1b" in back.stdout, data(home)) == (0, False, before), back.stderr


def test_reports_go_whole_and_the_index_stays(home: Path) -> None:
    """A report is its notebook, page and facts, also unfinished; links, strangers, and one being made stay."""
    other, made = REPORT.replace("prices", "other"), REPORT.replace("prices", "made")
    forms = (".ipynb", "_incomplete.html", ".ipynb.partial", ".json")
    names = [*(REPORT + form for form in forms), f"{other}-2.html", f"{made}.json", "index.html", "mine.html"]
    list(small_files(home / "reports", dict.fromkeys([*names, "mine.ipynb", "notes.txt"], b"x")))
    (home / "reports" / REPORT.replace("prices", "link")).with_suffix(".html").symlink_to(home / "tradingbot.toml")
    stay = ["index.html", f"{REPORT.replace('prices', 'link')}.html", f"{made}.json", "mine.html", "mine.ipynb"]
    with StateLock(home / "reports", 5, lock_name(made)):
        plan = plan_clean(settings(home), ["reports"], "drill")
        assert isinstance(plan, Plan)
        assert plan.stays == {"reports": {"a report that is being made": 1}}
        assert sorted(len(item.files) for item in plan.items) == [1, 4]
        execute(settings(home), plan)
    left = {path.name for path in (home / "reports").iterdir()}
    assert left == {*stay, "notes.txt", lock_name(made)}


@pytest.mark.parametrize("setting", ["REPORT_DIR", "LOG_DIR", "ARCHIVE_DIR"])
def test_a_setting_that_names_the_state_directory_costs_no_state(home: Path, setting: str) -> None:
    """Checkpoint, stamp and status are JSON as a report's facts are: only what a name says to be ours goes."""
    before = {path: path.read_bytes() for path in (home / "state").rglob("*") if path.is_file()}
    kind = {"REPORT_DIR": "reports", "LOG_DIR": "logs", "ARCHIVE_DIR": "archives"}[setting]
    for folder in ("state", "state/journal", "state/anchors", "."):
        assert call(home, "clean", kind, *YES, "--set", f"{setting}={folder}").returncode == 0
    assert {path: path.read_bytes() for path in before} == before


def test_rotated_logs_go_and_the_one_that_is_written_stays(home: Path) -> None:
    """So does one that some process has open, or that was written an hour ago; strangers stay."""
    (newest,) = (home / "logs").iterdir()
    names = (
        "trading_bot_20250101.log",
        "trading_bot_20250102.log",
        newest.name + ".1",
        newest.name + ".2",
        "other.log",
    )
    for path in small_files(home / "logs", dict.fromkeys(names, b"x")):
        os.utime(path, (1, 1))
    (home / "logs" / "trading_bot_20250103.log").write_bytes(b"fresh")
    with (home / "logs" / "trading_bot_20250102.log").open("ab"):
        report = clean(home, "logs")
    assert report.files == 3
    left = {"trading_bot_20250102.log", "trading_bot_20250103.log", newest.name, "other.log"}
    assert {path.name for path in (home / "logs").iterdir()} == left


def test_only_what_is_older_goes_and_its_age_is_that_of_its_last_record(home: Path) -> None:
    """Or of its last change, for a clock may run ahead."""
    for path in (home / "state/drop_windows/snapshots").iterdir():
        os.utime(path, (time.time() - 3 * 86_400,) * 2)
    assert call(home, "clean", "windows", "--older-than", "500w", *YES).stdout.count("younger than asked for") == 1
    plan = plan_clean(
        settings(home), ["snapshots", "ticks"], "x", older_than_s=2 * 86_400, now_ms=int(time.time() * 1000)
    )
    assert isinstance(plan, Plan)
    assert {item.kind for item in plan.items} == {"snapshots", "ticks"}  # recorded in a year that is past
    old_ms = plan.items[0].last_ms
    early = plan_clean(settings(home), ["snapshots", "ticks"], "x", older_than_s=3600, now_ms=old_ms + 60_000)
    assert isinstance(early, Plan)
    assert early.items == ()


def test_no_archive_is_overwritten_and_archives_go_when_asked(home: Path) -> None:
    """The second of a day gets a number; `clean archives` deletes them, and nothing else there."""
    now_ms = int(time.time() * 1000)
    for number in range(3):
        list(small_files(home / "reports", {f"{REPORT}-{number}.html": b"x"}))
        clean(home, "reports", now_ms=now_ms)
    assert [re.sub(r"\d{8}", "DAY", path.name) for path in archives(home)] == [
        "reports_DAY.tar.zst", "reports_DAY_2.tar.zst", "reports_DAY_3.tar.zst",
    ]  # fmt: skip
    (home / "archives" / "mine.tar.zst").write_bytes(b"mine")
    done = call(home, "clean", "archives", *YES)
    assert (done.returncode, [path.name for path in archives(home)]) == (0, ["mine.tar.zst"])
    assert "cannot be restored" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "clean takes what to clean: ticks, snapshots, windows, anchors, logs, reports, archives"),
        (("journal",), "journal is nothing that is cleaned"),
        (("ticks", "--yes"), "say why"),
        (("ticks", "--older-than", "2x"), "is no number of seconds"),
        (("archives", "--archive"), "archives are not archived"),
        (("ticks", "--archive-to", "/nowhere"), "there is no folder /nowhere: make it, or mount its disk"),
        (("ticks", "--restore", "x"), "clean --restore FILE takes nothing else"),
        (("--restore", "/nowhere.tar.zst"), "there is no archive /nowhere.tar.zst"),
        (("ticks", "--archive", "--set", "ARCHIVE_DIR=state/drop_windows/ticks/old"), "which is cleaned itself"),
        (("logs", "--archive", "--set", "ARCHIVE_DIR=logs"), "which is cleaned itself"),
    ],
)
def test_wrong_words_are_exit_2_and_change_nothing(home: Path, words: tuple[str, ...], said: str) -> None:
    """One line that says what would be right."""
    before = data(home)
    done = call(home, "clean", *words)
    assert (done.returncode, said in done.stderr, data(home)) == (2, True, before), done.stderr
    assert "Traceback" not in done.stderr


def test_a_link_in_place_of_a_folder_is_not_followed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Out of the state directory, or out of the home: exit 2, and what it leads to is as it was."""
    outside = tmp_path_factory.mktemp("outside")
    for folder, kind in (("state/drop_windows/ticks", "ticks"), ("logs", "logs"), ("reports", "reports")):
        (home / folder).parent.mkdir(exist_ok=True)
        if (home / folder).exists():
            (home / folder).rename(outside / kind)
        (outside / kind).mkdir(exist_ok=True)
        (outside / kind / "trading_bot_20200101.log.1").write_bytes(b"x")
        (outside / kind / f"{REPORT}.html").write_bytes(b"x")
        (home / folder).symlink_to(outside / kind)
        seen = sorted(path.name for path in (outside / kind).iterdir())
        done = call(home, "clean", kind, *YES)
        assert (done.returncode, "out of" in done.stderr) == (2, True), done.stdout + done.stderr
        assert sorted(path.name for path in (outside / kind).iterdir()) == seen
        (home / folder).unlink()


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/x", "../x.html", "reports/../x.html", "state/checkpoint.json", "state/KILL",
        "state/overrides.json",
        "state/journal/journal_20260101_0000.jsonl.zst", "state/drop_windows/ticks/x", "state/drop_windows/ticks/..",
        "state/drop_windows/ticks/A_B_20260101_0000.jsonl", "logs/x.sh", "reports/", "reports/a/b.html", "x.html",
        "reports/mine.html", "reports/index.html", f"reports/{REPORT}.sh",
    ],
)  # fmt: skip
def test_a_hostile_archive_puts_nothing_anywhere(tmp_path: Path, name: str) -> None:
    """Absolute, upwards, state files, the journal, open segments: refused before anything is written."""
    text = b'{"v":1,"members":[{"name":%b,"size":1,"mtime_ns":0,"sha256":"%b"}]}'
    digest = b"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    path = hostile(
        tmp_path / "x", (entry(name), b"x"), (entry("manifest.json"), text % (orjson.dumps(name), digest))
    )  # fmt: skip
    with pytest.raises(ArchiveError):
        restore(settings(tmp_path), path, "x")
    assert {file.name for file in tmp_path.rglob("*")} <= {"x", "state", "cleanups", "lock"}


def test_a_restore_puts_nothing_over_what_is_there(home: Path) -> None:
    """A file that differs, a segment that is not sealed, one newer than the newest: named, nothing changed."""
    clean(home, "ticks", "reports")
    (archive,) = archives(home)
    effective = settings(home)
    name = plan_restore(effective, archive).wanted[0].removeprefix("state/")
    place = home / "state" / name
    before = data(home)
    place.write_bytes(b"mine")
    with pytest.raises(cleanup.UsageError, match="is not what the archive holds"):
        restore(effective, archive, "x")
    place.unlink()
    plain = place.with_name(place.name.removesuffix(".zst"))
    plain.write_bytes(b"")
    with pytest.raises(cleanup.UsageError, match="is there, not sealed"):
        restore(effective, archive, "x")
    plain.unlink()
    assert data(home) == before
    for segment in list_segments(home / "state/drop_windows/ticks"):
        segment.path.unlink()
    older = home / "state/drop_windows/ticks" / "BTC_USDT_20200101_0000.jsonl"
    older.write_bytes(b"")
    with pytest.raises(cleanup.UsageError, match="is no older than BTC_USDT_20200101_0000"):
        restore(effective, archive, "x")


def test_a_restore_says_what_would_delete_it_again(home: Path) -> None:
    """Bounds that a running bot keeps to, and that it was made of another state directory."""
    clean(home, "ticks")
    (archive,) = archives(home)
    words = ("--set", "STREAMS_MAX_GB=0.0001", "--set", "TICKS_RETENTION_DAYS=3", "--state", "other")
    shown = call(home, "clean", "--restore", str(archive), *words).stdout
    assert "with it the streams hold more than STREAMS_MAX_GB = 0.0001" in shown
    assert "TICKS_RETENTION_DAYS = 3: set it to 0 first" in shown
    assert f"it was made of {home / 'state'}, and goes to {home / 'other'}" in shown


def test_one_cleanup_at_a_time(home: Path) -> None:
    """The second is told so, exit 3."""
    (home / "state/cleanups").mkdir()
    with StateLock(home / "state/cleanups", 5), pytest.raises(BusyError) as caught:
        clean(home, "ticks")
    assert caught.value.exit_code == 3


def test_the_reserve_is_given_up_for_a_cleanup_of_a_full_disk(tmp_path: Path) -> None:
    """Once; without a reserve, and for any other trouble, the error goes on up."""
    (tmp_path / "reserve").write_bytes(b"x")

    def write() -> str:
        if (tmp_path / "reserve").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return "written"

    assert with_reserve(tmp_path, write) == "written"

    def full() -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        with_reserve(tmp_path, full)


SLOW = """
import os, sys, time
from tradingbot.cli import main
fsync = os.fsync
def slow_fsync(descriptor):
    return time.sleep(600) if ".tar.zst" in os.readlink(f"/proc/self/fd/{descriptor}") else fsync(descriptor)
os.fsync = slow_fsync
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_it_with_nothing_lost(home: Path) -> None:
    """Exit 130 in one line, and no file of it left, though the disk never says that it has taken the archive."""
    made = home / "reports" / f"{REPORT}.html"
    list(small_files(made.parent, {made.name: b"x"}))
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    words = [sys.executable, "-c", SLOW, "--home", str(home), "clean", "reports", "--archive", *YES]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, text=True, preexec_fn=heed) as process:  # noqa: PLW1509  (no thread here)
        while not archives(home) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (130, "tradingbot: interrupted\n")
    assert (archives(home), made.exists()) == ([], True)


def test_what_is_no_input_is_no_number_given_twice(tmp_path: Path) -> None:
    """Rejections that were only counted, and deleted segments, stand in the journal at the number of an input."""
    run = Recorded(tmp_path / "state")
    run.tick(10)
    run.tick(50, step_ms=1, last=-1.0)
    run.end()
    assert run.journal("rejections")
    assert examine(tmp_path / "state", 10**10, False).problems == []


def test_the_names_of_the_journal_are_told_once_before_anything_goes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the journal cannot be written no tick is deleted."""
    before = data(home)

    def refusing(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(cleanup_ticks.RotatingJSONLWriter, "write", refusing)
    with pytest.raises(CleanError, match=r"Input/output error; nothing is deleted, the archive .* is whole"):
        clean(home, "ticks")
    assert data(home) == before
    monkeypatch.undo()
    assert clean(home, "ticks").files
    assert len(archives(home)) == 1


def test_what_is_planned_is_what_is_asked_about(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In-process too: sizes, what stays and why, what it means."""
    assert cli(home, "clean", "ticks", "snapshots") == 2
    shown = capsys.readouterr().out
    for words in ("newest of its series", "read by the next warm start", "are not recorded", "explain --near"):
        assert words in shown
