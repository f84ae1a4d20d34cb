"""`tradingbot rollback`: planned, done in steps that may be interrupted, checked, and undone to what was before."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.rollbacks import (
    ANCHOR,
    PERSIST,
    by_hand,
    carry_out,
    dead,
    holding,
    overrides,
    roll_back,
    run,
    settings,
    undo,
)
from tests.test_live import call
from tradingbot.cli import main
from tradingbot.config import FLAGS
from tradingbot.errors import TradingBotError, UsageError
from tradingbot.io.home import Home
from tradingbot.io.lines import decode
from tradingbot.io.override_file import CLEAR, Override, change_overrides, read_entries
from tradingbot.io.overrides import read_settings
from tradingbot.ops.jobs import BusyError, one_at_a_time
from tradingbot.ops.rollback import rollback, switch
from tradingbot.ops.rollback import store as rollback_store
from tradingbot.ops.rollback.plan import PROFILES, Plan
from tradingbot.ops.rollback.rollback import RollbackError, execute, plan_rollback, plan_undo
from tradingbot.ops.rollback.store import Stored, find, past_rollbacks

STEPS = ("begin", "backup", "overrides", "adopted", "restart", "check", "end")
WRITERS = (
    "tradingbot.ops.jobs.make_folder", "tradingbot.ops.rollback.store.make_folder",
    "tradingbot.ops.rollback.store.write_atomic",
    "tradingbot.ops.rollback.rollback.append_audit", "tradingbot.ops.rollback.rollback.write_atomic",
    "tradingbot.ops.rollback.rollback.make_folder", "tradingbot.io.override_file.append_audit",
    "tradingbot.io.override_file.write_atomic", "tradingbot.ops.rollback.store.Stored.record",
)  # fmt: skip


def test_a_bot_that_does_not_listen_fails_the_rollback_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1 in one line; once it listens the same command goes on."""
    monkeypatch.setattr(switch, "HEARD_S", 0.2)
    with holding(tmp_path), pytest.raises(RollbackError, match="has not taken the overrides up") as caught:
        roll_back(tmp_path, "retry")
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (1, False)
    report = roll_back(tmp_path, "retry")
    assert [check.says for check in report.checks if not check.ok] == [
        "none runs (dead: process 99 is gone); the next start goes by it"
    ]
    dead(tmp_path, state="stopping")
    assert roll_back(tmp_path, "retry").exit_code == 0


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_without_a_bot_it_counts_from_the_next_start(tmp_path: Path, profile: str) -> None:
    """Every flag of the profile is overridden, others are not; nothing is started; undone it is as before."""
    by_hand(tmp_path, HEARTBEAT_S=5.0)
    report = roll_back(tmp_path, profile, restart=True)
    assert (report.exit_code, report.plan.bot.state) == (0, "none")
    assert overrides(tmp_path) == {"HEARTBEAT_S": 5.0} | dict.fromkeys(PROFILES[profile].flags, False)
    assert "nothing was started" in report.steps["restart"]["says"]
    assert undo(tmp_path).exit_code == 0
    assert overrides(tmp_path) == {"HEARTBEAT_S": 5.0}
    assert [each.state for each in past_rollbacks(tmp_path / "state")] == ["undone", "done"]


def test_a_dead_bot_is_called_dead(tmp_path: Path) -> None:
    """With its process and its last sign of life; nothing is started, also with --restart."""
    dead(tmp_path)
    done = call(tmp_path, "rollback", "warmstart", "--restart", "--why", "x", "--yes")
    assert done.returncode == 0, done.stderr
    assert "the bot there is dead: process 99 is gone, without a clean stop, last sign of life 20" in done.stdout
    assert "nothing was started" in done.stdout


def test_a_dry_run_and_a_plan_without_a_terminal_leave_nothing(tmp_path: Path) -> None:
    """Exit 0 and 2, the same plan, no file."""
    for words, code in ((("--dry-run",), 0), ((), 2)):
        done = call(tmp_path, "rollback", "all", *words)
        assert done.returncode == code, done.stderr
        assert "FEATURE_ANCHOR_ENABLED: no override becomes override off; on (from default) becomes off" in done.stdout
        assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "takes a profile, or --undo, or --list"),
        (("nonsense",), "there is no profile nonsense: there are all, persistence, warmstart"),
        (("anchor", "--undo"), "takes a profile, or --undo, or --list"),
        (("anchor", "--from-empty"), "--from-empty goes with rollback warmstart --restart"),
        (("--undo",), "there is no rollback in"),
        (("--undo", "20200101T000000-000"), "tradingbot rollback --list shows them"),
        (("anchor", "--yes"), "say why"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """The line says what would be right, and nothing has changed."""
    done = call(tmp_path, "rollback", *words)
    assert (done.returncode, done.stderr.count("\n"), said in done.stderr) == (2, 1, True), done.stderr
    assert not (tmp_path / "state" / "overrides.json").exists()


def test_run_twice_the_second_does_nothing(tmp_path: Path) -> None:
    """No second plan, no second change, no second line of the audit."""
    roll_back(tmp_path, "retry")
    audit = (tmp_path / "state" / "audit.jsonl").read_bytes()
    found = plan_rollback(settings(tmp_path), "retry", "again")
    assert isinstance(found, Plan)
    assert not found.is_needed
    undo(tmp_path)
    found = plan_undo(settings(tmp_path), "", "again")
    assert isinstance(found, Plan)
    assert not found.is_needed
    whats = [decode(line)["what"] for line in (tmp_path / "state" / "audit.jsonl").read_bytes().splitlines()]
    assert whats == ["rollback begins", "override", "rollback done", "undo begins", "override", "undo done"]
    assert (tmp_path / "state" / "audit.jsonl").read_bytes().startswith(audit)


def test_a_plan_names_what_pins_a_flag_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment and settings file: the override wins, and where it goes they count again."""
    (tmp_path / "tradingbot.toml").write_text("FEATURE_RETRY_BACKOFF = true\n")
    monkeypatch.setenv(ANCHOR, "1")
    plan = call(tmp_path, "rollback", "all", "--dry-run").stdout
    assert "environment sets it too: the override wins" in plan
    assert "tradingbot.toml sets it too: the override wins" in plan
    run(tmp_path, "all")
    effective = read_settings(Home(tmp_path, "test"))
    assert not any(getattr(effective.settings, name) for name in FLAGS)
    assert {effective.sources[name] for name in FLAGS} == {"overrides.json"}


def test_the_undoing_brings_overrides_back_just_as_they_were(tmp_path: Path) -> None:
    """Value, time, person and reason; one that was off before the rollback stays off, and its own."""
    by_hand(tmp_path, FEATURE_ANCHOR_ENABLED=True, FEATURE_RETRY_BACKOFF=False)
    before = read_entries(tmp_path / "state")
    roll_back(tmp_path)
    assert read_entries(tmp_path / "state")["FEATURE_RETRY_BACKOFF"] == before["FEATURE_RETRY_BACKOFF"]
    assert undo(tmp_path).exit_code == 0
    assert read_entries(tmp_path / "state") == before


def test_what_somebody_else_has_changed_since_is_named_and_left(tmp_path: Path) -> None:
    """Switched on again, switched off again anew, or cleared: the undoing touches neither of the three."""
    roll_back(tmp_path)
    by_hand(tmp_path, FEATURE_ANCHOR_ENABLED=True, FEATURE_RETRY_BACKOFF=CLEAR, FEATURE_PERSIST_STREAMS=CLEAR)
    by_hand(tmp_path, FEATURE_PERSIST_STREAMS=False)
    report = undo(tmp_path)
    assert report.exit_code == 0
    assert overrides(tmp_path) == {ANCHOR: True, PERSIST: False}
    assert report.plan.foreign.keys() == {ANCHOR, PERSIST}
    assert "FEATURE_ANCHOR_ENABLED: changed since to on by" in report.text()
    assert "(by hand): it is left so" in report.text()


def test_what_somebody_else_changes_between_plan_and_deed_is_what_the_undoing_brings_back(tmp_path: Path) -> None:
    """The plan follows: the override of the moment before is the one that is kept."""
    found = plan_rollback(settings(tmp_path), "anchor", "drill")
    by_hand(tmp_path, FEATURE_ANCHOR_ENABLED=True)
    between = read_entries(tmp_path / "state")
    carry_out(tmp_path, found)
    assert overrides(tmp_path) == {ANCHOR: False}
    undo(tmp_path)
    assert read_entries(tmp_path / "state") == between


def test_what_somebody_else_changes_at_the_very_moment_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look and the change itself: what was put there then is what the undoing brings back."""
    betweens: list[dict[str, Override]] = []

    def change(*arguments: Any) -> Any:
        if not betweens:
            by_hand(tmp_path, FEATURE_ANCHOR_ENABLED=True)
            betweens.append(read_entries(tmp_path / "state"))
        return change_overrides(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rollback, "change_overrides", change)
        assert roll_back(tmp_path, "anchor").exit_code == 0
    assert overrides(tmp_path) == {ANCHOR: False}
    undo(tmp_path)
    assert read_entries(tmp_path / "state") == betweens[0]


@pytest.mark.parametrize("step", STEPS)
def test_interrupted_behind_any_step_the_same_command_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before the step is recorded, and after: the same overrides, the same report, one rollback."""
    record = Stored.record

    def interrupted(before: bool) -> Any:
        def stop(self: Stored, name: str, facts: dict[str, Any]) -> None:
            if name != step or not before:
                record(self, name, facts)
            if name == step:
                raise KeyboardInterrupt

        return stop

    by_hand(tmp_path, FEATURE_ANCHOR_ENABLED=True)
    first, text = read_entries(tmp_path / "state"), (tmp_path / "state" / "overrides.json").read_bytes()
    for before in (True, False):
        monkeypatch.setattr(Stored, "record", interrupted(before))
        with pytest.raises(KeyboardInterrupt):
            roll_back(tmp_path)
    monkeypatch.setattr(Stored, "record", record)
    if step != "end":
        report = roll_back(tmp_path)
        assert (report.exit_code, tuple(report.steps)) == (0, STEPS)
    assert overrides(tmp_path) == dict.fromkeys(FLAGS, False)
    (stored,) = past_rollbacks(tmp_path / "state")
    assert stored.state == "done"
    assert (stored.folder / "backup" / "overrides.json").read_bytes() == text
    undo(tmp_path)
    assert read_entries(tmp_path / "state") == first


def test_an_interrupted_undoing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its overrides are changed and nothing says so yet: the second run sees that, and names nobody else."""
    roll_back(tmp_path)
    record = Stored.record

    def stop(self: Stored, name: str, facts: dict[str, Any]) -> None:
        if name == "overrides":
            raise KeyboardInterrupt
        record(self, name, facts)

    monkeypatch.setattr(Stored, "record", stop)
    with pytest.raises(KeyboardInterrupt):
        undo(tmp_path)
    monkeypatch.setattr(Stored, "record", record)
    report = undo(tmp_path)
    assert (report.exit_code, report.plan.foreign, overrides(tmp_path)) == (0, {}, {})
    assert [each.state for each in past_rollbacks(tmp_path / "state")] == ["undone", "done"]


def test_a_half_done_rollback_can_be_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not gone on with after that: the next one is another."""
    with monkeypatch.context() as patch:
        patch.setattr(rollback, "was_adopted", lambda *_: False)
        with pytest.raises(RollbackError):
            roll_back(tmp_path, "anchor")
    assert undo(tmp_path).exit_code == 0
    assert overrides(tmp_path) == {}
    assert isinstance(plan_rollback(settings(tmp_path), "anchor", "again"), Plan)


def test_of_two_at_once_one_does_it(tmp_path: Path) -> None:
    """The other one is refused in one line, or finds it done."""
    found, barrier = plan_rollback(settings(tmp_path), "all", "drill"), threading.Barrier(4)
    assert isinstance(found, Plan)
    outcomes: list[Any] = []

    def work() -> None:
        barrier.wait()
        try:
            outcomes.append(execute(settings(tmp_path), found).exit_code)
        except BusyError as error:
            outcomes.append(error.exit_code)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 in outcomes
    assert set(outcomes) <= {0, 3}
    assert overrides(tmp_path) == dict.fromkeys(FLAGS, False)
    first = past_rollbacks(tmp_path / "state")[0].plan.id
    undo(tmp_path, first)
    assert overrides(tmp_path) == {}


def test_while_one_is_at_work_another_is_refused(tmp_path: Path) -> None:
    """Exit 3, and nothing is stored."""
    with one_at_a_time(tmp_path / "state", "rollback"):
        done = call(tmp_path, "rollback", "anchor", "--why", "x", "--yes")
    assert (done.returncode, "another rollback is at work" in done.stderr) == (3, True), done.stderr
    assert past_rollbacks(tmp_path / "state") == []


@pytest.mark.parametrize("writer", WRITERS, ids=lambda name: name.partition("tradingbot.")[2])
def test_on_a_full_disk_nothing_is_half_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    """At its first, second, ... call: one line, all overrides or none, and once there is room it comes to its end."""
    by_hand(tmp_path, FEATURE_ANCHOR_ENABLED=True)
    (tmp_path / "state" / "stamp.json").write_text("{}")
    first = read_entries(tmp_path / "state")
    for turn in range(1, 20):
        if not _fails_at(tmp_path, monkeypatch, writer, turn):
            break
        assert set(overrides(tmp_path).items()) in ({(ANCHOR, True)}, {(flag, False) for flag in FLAGS})
        roll_back(tmp_path)
        assert overrides(tmp_path) == dict.fromkeys(FLAGS, False)
        for each in past_rollbacks(tmp_path / "state"):
            if each.plan.kind == "rollback" and each.state != "undone":
                undo(tmp_path, each.plan.id)
        assert read_entries(tmp_path / "state") == first
    assert 1 < turn < 19


def _fails_at(home: Path, monkeypatch: pytest.MonkeyPatch, writer: str, turn: int) -> bool:
    """Let the disk be full at one call of a writer; return whether a rollback came to it."""
    module, _, name = writer.rpartition(".")
    owner: Any = Stored if module.endswith("Stored") else sys.modules[module]
    calls, write = [0], getattr(owner, name)

    def full(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == turn:
            raise OSError(28, "No space left on device", "state")
        return write(*arguments, **more)

    found: TradingBotError | None = None
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        try:
            roll_back(home)
        except TradingBotError as error:
            found = error
    if found is not None:
        assert "No space left on device" in str(found)
        assert "\n" not in str(found)
        assert found.exit_code in (1, 2)
    return calls[0] >= turn


def test_ids_sort_by_time_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back, and a stranger's folder, do not put a later one before an earlier one."""
    roll_back(tmp_path, "anchor")
    (tmp_path / "state" / "rollbacks" / "zzz").mkdir()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    roll_back(tmp_path, "retry")
    profiles = [each.plan.profile for each in past_rollbacks(tmp_path / "state")]
    assert profiles == ["anchor", "retry"]
    assert find(tmp_path / "state").plan.profile == "retry"


def test_a_broken_overrides_file_is_set_aside_and_the_last_good_one_counts(tmp_path: Path) -> None:
    """Also where nothing else changes: what was in force stays, and stands in a file again."""
    roll_back(tmp_path)
    (tmp_path / "state" / "overrides.json").write_text("{")
    done = call(tmp_path, "rollback", "anchor", "--why", "x", "--yes")
    assert (done.returncode, "the last good one counts" in done.stdout) == (0, True), done.stderr
    assert overrides(tmp_path) == dict.fromkeys(FLAGS, False)
    assert (tmp_path / "state" / "overrides.json.bad-1").read_text() == "{"


def test_copies_and_a_report_are_kept(tmp_path: Path) -> None:
    """Settings, overrides, checkpoint and anchors as they were; never the streams; text and JSON of what was done."""
    state = tmp_path / "state"
    by_hand(tmp_path, FEATURE_ANCHOR_ENABLED=True)
    before = (state / "overrides.json").read_bytes()
    (tmp_path / "tradingbot.toml").write_text("POLL_S = 3\n")
    for name in ("checkpoint.json", "stamp.json", "anchors/anchors.json", "drop_windows/ticks/X_20260101_0000.jsonl"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(name)
    report = roll_back(tmp_path)
    folder = Path(report.folder)
    kept = {str(path.relative_to(folder / "backup")) for path in folder.glob("backup/**/*") if path.is_file()}
    assert kept == {"tradingbot.toml", "overrides.json", "stamp.json", "checkpoint.json", "anchors/anchors.json"}
    assert (folder / "backup" / "overrides.json").read_bytes() == before
    assert (folder / "report.txt").read_text() == report.text() + "\n"
    assert orjson.loads((folder / "report.json").read_bytes()) == report.to_record()
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*"))
    assert [(left.path, left.bytes) for left in report.plan.left_behind] == [
        (str(state / "drop_windows/ticks"), 40), (str(state / "checkpoint.json"), 15), (str(state / "anchors"), 20),
    ]  # fmt: skip


def test_a_word_of_the_feature_in_the_log_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1, half done, told in the report; a reason that names the word does not."""
    from tradingbot.ops.rollback.check import _silent

    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "trading_bot_20260101.log"
    lines = [
        "1999-01-01T00:00:00.000Z WARNING retry_state symbol=A",
        "2100-01-01T00:00:00.000Z WARNING why=retry_state",
    ]
    path.write_text("\n".join(lines) + "\n")
    assert _silent(tmp_path / "logs", {"retry_state"}, 1_600_000_000_000).ok
    path.write_text("2100-01-01T00:00:00.000Z WARNING retry_state symbol=A\n")
    found = _silent(tmp_path / "logs", {"retry_state"}, 1_600_000_000_000)
    assert (found.ok, found.says) == (False, "1 lines since then begin with retry_state")
    monkeypatch.setattr(rollback, "check_bot", lambda *_: [found])
    report = roll_back(tmp_path, "retry")
    assert (report.exit_code, report.state) == (1, "half done")
    assert "FAILED log" in report.text()
    monkeypatch.undo()
    assert roll_back(tmp_path, "retry").exit_code == 0


def test_the_list_shows_profiles_and_what_became_of_each_rollback(tmp_path: Path) -> None:
    """Who, why, and whether it was undone."""
    roll_back(tmp_path, "retry")
    undo(tmp_path)
    text = call(tmp_path, "rollback", "--list").stdout
    assert "retry: undone, by 20" in text
    assert ": drill" in text
    document = orjson.loads(call(tmp_path, "rollback", "--list", "--json").stdout)
    assert list(document["profiles"]) == list(PROFILES)
    assert [row["state"] for row in document["rollbacks"]] == ["undone", "done"]


def test_a_damaged_plan_is_refused_in_one_line(tmp_path: Path) -> None:
    """Exit 4: it is not guessed at; a torn line of its steps counts as a step that is not done."""
    folder = Path(roll_back(tmp_path, "retry").folder)
    (folder / "done.jsonl").write_bytes((folder / "done.jsonl").read_bytes()[:-10])
    assert past_rollbacks(tmp_path / "state")[0].state == "half done"
    assert roll_back(tmp_path, "retry").exit_code == 0
    (folder / "plan.json").write_text("{")
    done = call(tmp_path, "rollback", "--list")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr


def test_the_plan_tells_what_the_last_hour_would_have_been(tmp_path: Path) -> None:
    """Triggers with and without anchors from what is recorded; polls that backoff withheld from the running bot."""
    words = ("--virtual", "--duration", "1800", "--set", "DROP_TRIGGER_VALUE=0.996", "--set", "EMBEDDED_SYMBOLS=2")
    assert call(tmp_path, *words).returncode == 0
    found = orjson.loads(call(tmp_path, "rollback", "anchor", "--dry-run", "--json").stdout)["plan"]["foresight"]
    decisions = found["decisions"]
    assert decisions["inputs"] > 1000
    assert decisions["theirs"]["triggers"] != decisions["ours"]["triggers"]
    told = call(tmp_path, "rollback", "anchor", "--dry-run").stdout
    assert f"triggers {decisions['ours']['triggers']:,} instead of {decisions['theirs']['triggers']:,}" in told
    assert "instead of" not in call(tmp_path, "rollback", "anchor", "--dry-run", "--no-compare").stdout
    with holding(tmp_path):
        status = orjson.loads((tmp_path / "state" / "status.json").read_bytes())
        status["data"] = {"withheld": {"BTC/USDT": 17}}
        (tmp_path / "state" / "status.json").write_bytes(orjson.dumps(status))
        assert "would be asked: BTC/USDT 17" in call(tmp_path, "rollback", "retry", "--dry-run").stdout
    assert "no decision changes" in call(tmp_path, "rollback", "persistence", "--dry-run").stdout


def test_no_plan_is_stored_where_the_folder_cannot_be_made(tmp_path: Path) -> None:
    """One line and nothing changed."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "rollbacks").write_text("")
    with pytest.raises(UsageError, match="nothing was changed"):
        roll_back(tmp_path)
    assert overrides(tmp_path) == {}


def test_an_override_is_what_it_was_after_a_turn_through_a_stored_plan(tmp_path: Path) -> None:
    """Also one without a time or a person, as a file written by hand has."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "overrides.json").write_text('{"overrides": {"FEATURE_ANCHOR_ENABLED": {"value": true}}}')
    assert read_entries(state) == {ANCHOR: Override(True)}
    roll_back(tmp_path, "anchor")
    undo(tmp_path)
    assert read_entries(state) == {ANCHOR: Override(True)}
    assert rollback_store.find(state).state == "undone"


def test_whoever_interrupts_a_rollback_is_told_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is exit 130, and what may be half done is not left unsaid."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rollback, "execute", stop)
    assert main(["--home", str(tmp_path), "rollback", "anchor", "--no-compare", "--yes", "--why", "odd"]) == 130
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "tradingbot: it may be half done: the same command goes on where this one stopped",
        "tradingbot: interrupted",
    ]
