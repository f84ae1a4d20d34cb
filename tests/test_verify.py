"""`tradingbot verify`: GO on a bot that is well, whatever it is doing; NO-GO by name for each fault, really caused."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from tests.helpers import S
from tests.past import Past
from tests.rollbacks import by_hand, dead, holding, run, settings
from tests.test_live import bot, call, command, status_of, wait_for
from tests.test_restarts import exchange
from tradingbot.config import FLAGS, make_settings
from tradingbot.engine.events import SettingsChanged
from tradingbot.io.lines import decode, encode
from tradingbot.io.override_file import CLEAR
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.record import inputs
from tradingbot.ops.verify import checklist as verifying
from tradingbot.ops.verify import checks, record
from tradingbot.ops.verify import monitor as monitoring
from tradingbot.ops.verify.checklist import CHECKLIST, VerifyReport, verify
from tradingbot.ops.verify.monitor import Monitor
from tradingbot.ops.verify.own_tests import find_checkout, own_tests
from tradingbot.ops.verify.recompute import recompute
from tradingbot.ops.verify.scene import Look, Scene, look_at
from tradingbot.ops.verify.scratch import Scratch, Tried
from tradingbot.ops.verify.start import STARTED, started

LIVELY = ("--set", "EMBEDDED_SPEED=30", "--set", "EMBEDDED_SYMBOLS=3", "--set", "DROP_TRIGGER_VALUE=0.998")
OK, WARNING, FAILED, NOT_APPLICABLE = Verdict.OK, Verdict.WARNING, Verdict.FAILED, Verdict.NOT_APPLICABLE


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Give the home of a bot that observes, and its process, to whoever leaves it as it was."""
    home = tmp_path_factory.mktemp("running")
    with bot(home, *LIVELY, "--set", "HEARTBEAT_S=1") as process:
        yield home, process


def found(report: VerifyReport) -> dict[str, Verdict]:
    return {finding.name: finding.verdict for finding in report.findings}


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a second for what will not come."""
    for name in ("HEARD_S", "PATIENCE_S", "WATCHED_S"):
        monkeypatch.setattr(checks, name, 1.0)
    monkeypatch.setattr(record, "STREAMS_S", 1.5)
    monkeypatch.setattr(record, "TRIES", 2)


@contextlib.contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """Have a process hang."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def patient_scene(home: Path) -> Scene:
    """Return a scene whose bot may be late with a heartbeat: this machine may be busy with much else."""
    scene = look_at(settings(home))
    scene.settings = msgspec.structs.replace(scene.settings, HEARTBEAT_S=60.0)
    return scene


def assert_go(report: VerifyReport) -> None:
    assert (report.verdict, report.exit_code) == ("GO", 0), report.text()


def test_a_bot_that_is_well_is_go_and_the_report_is_kept(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """Over the real command: every check in its place with words, evidence and its time; JSON and text say the same."""
    home, process = running
    done = call(home, "verify", "--json", "--why", "after \x1b[31m the drill", "--last", "5")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    report = orjson.loads(done.stdout)
    assert [row["name"] for row in report["findings"]] == list(CHECKLIST[:11])
    assert {row["verdict"] for row in report["findings"]} == {"ok", "not applicable"}
    assert all(row["says"] and row["seconds"] >= 0 for row in report["findings"])
    assert (report["verdict"], report["sid"]) == ("GO", status_of(home)["bot"]["sid"])
    assert f"process {process.pid}" in report["bot"]
    assert report["ended_ms"] > report["began_ms"]
    kept = Path(report["folder"])
    assert orjson.loads((kept / "report.json").read_bytes()) == report
    text = (kept / "report.txt").read_text()
    assert "\nGO\n" in text
    assert "after ?[31m the drill" in text
    assert kept.stat().st_mode & 0o777 == 0o700
    assert (kept / "report.json").stat().st_mode & 0o777 == 0o600


def test_a_record_that_is_too_long_to_be_gone_through_in_time_is_said_and_is_no_failure(
    running: tuple[Path, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where time is over at once: what was compared by then is equal, and who takes the time for the rest is named."""
    for name in ("RECOMPUTED_S", "PROVED_S", "ORDERS_S"):
        monkeypatch.setattr(record, name, 0.0)
    scene = look_at(settings(running[0]))
    drop, proof, order = record.calculation(scene), record.proved(scene), record.no_order(scene)
    assert (drop.verdict, "0 s are too short" in drop.says) == (WARNING, True), drop
    assert (proof.verdict, "tradingbot prove --last 10" in proof.fix) == (WARNING, True), proof
    assert "0 s were too short for the rest of the last 10 min" in proof.says
    assert proof.evidence["inputs"] > 0
    assert (order.verdict, "no order in 1 records of its journal since 20" in order.says) == (OK, True), order


def test_what_differs_before_time_is_over_is_no_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is not what the engine makes stays a failure, also where the rest was not looked at."""
    past = Past(tmp_path / "state", DROP_TRIGGER_VALUE=0.99)
    past.trigger(*((second, 100.0) for second in range(5)), (5, 98.0))
    past.close()
    (path,) = (tmp_path / "state" / "journal").glob("*.jsonl")
    lines = [decode(line) for line in path.read_bytes().splitlines()]
    monkeypatch.setattr(record, "PROVED_S", 0.0)
    assert record.proved(look_at(settings(tmp_path))).verdict is WARNING
    forged = [line | {"last": 98.5} if line["type"] == "decision" else line for line in lines]
    path.write_bytes(b"".join(encode({n: v for n, v in line.items() if n != "crc"}) for line in forged))
    assert record.proved(look_at(settings(tmp_path))).verdict is FAILED


SWITCHED = (("FEATURE_ANCHOR_ENABLED",), ("FEATURE_PERSIST_STREAMS",),
            ("FEATURE_RETRY_BACKOFF", "FEATURE_WARMSTART_TICKS", "GLOBAL_TRADING"))  # fmt: skip


@pytest.mark.parametrize("names", SWITCHED)
def test_each_flag_switched_while_it_runs_is_go(
    running: tuple[Path, subprocess.Popen[str]], names: tuple[str, ...]
) -> None:
    """Off, trading, and right after it: what cannot apply says so; a flag that waits for a restart is named."""
    home, _ = running
    assert set().union(*SWITCHED) == {*FLAGS, "GLOBAL_TRADING"}
    by_hand(home, **{name: name == "GLOBAL_TRADING" for name in names})
    try:
        report = verify(settings(home), last_min=1)
        assert_go(report)
        if "FEATURE_WARMSTART_TICKS" in names:
            assert found(report)[checks.FLAGS_AS_INTENDED] is WARNING
            assert "before its next start" in report.text()
        if "FEATURE_PERSIST_STREAMS" in names:
            assert "off, and they stand still" in report.text()
        assert (found(report)[record.NO_ORDER] is NOT_APPLICABLE) == ("GLOBAL_TRADING" in names)
    finally:
        by_hand(home, **dict.fromkeys(names, CLEAR))
    assert checks.flags_as_intended(look_at(settings(home))).verdict is OK


def test_a_flag_that_the_bot_has_not_taken_up_and_a_loop_that_hangs_are_no_go(
    running: tuple[Path, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP: the flag on the disk is named, the loop hangs."""
    home, process = running
    impatient(monkeypatch)
    with stopped(process):
        told_ms = status_of(home)["time_ms"]
        by_hand(home, FEATURE_ANCHOR_ENABLED=False)
        report = verify(settings(home), last_min=1)
        by_hand(home, FEATURE_ANCHOR_ENABLED=CLEAR)
    names = {name for name, verdict in found(report).items() if verdict is FAILED}
    assert (report.exit_code, names) == (1, {checks.FLAGS_AS_INTENDED, checks.DATA}), report.text()
    assert "FEATURE_ANCHOR_ENABLED is off by overrides.json and on in the running bot" in report.text()
    assert "it hangs" in report.text()
    wait_for(lambda: status_of(home)["time_ms"] > told_ms, process)


def test_killed_by_its_switch_is_said_and_is_no_failure(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """The kill switch is somebody's will."""
    home, process = running
    call(home, "kill", "--why", "odd prices")
    wait_for(lambda: status_of(home)["bot"]["state"] == "killed", process)
    finding = started(look_at(settings(home)))
    call(home, "arm")
    wait_for(lambda: status_of(home)["bot"]["state"] == "running", process)
    assert finding.verdict is WARNING
    assert "the kill switch is on (odd prices)" in finding.says


def test_growth_beyond_the_budget_and_a_disk_without_room_are_no_go(
    running: tuple[Path, subprocess.Popen[str]],
) -> None:
    """STREAMS_MAX_GB and MIN_FREE_MB as the running bot has them."""
    home, process = running
    fingers = {"STREAMS_MAX_GB": 1e-6, "MIN_FREE_MB": 1e9}
    says = {}
    for key, value in fingers.items():
        by_hand(home, **{key: value})
        wait_for(lambda: checks.growth(look_at(settings(home))).verdict is FAILED, process)
        says[key] = checks.growth(look_at(settings(home))).says
        by_hand(home, **{key: CLEAR})
        wait_for(lambda: status_of(home)["overrides"] == [], process)
    wait_for(lambda: status_of(home)["streams"]["ticks"]["state"] == "ok", process)  # it may have seen a full disk
    assert "more than STREAMS_MAX_GB" in says["STREAMS_MAX_GB"]
    assert "less than MIN_FREE_MB" in says["MIN_FREE_MB"]


def test_a_watch_without_a_violation_is_go(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """Its heartbeats and ticks are counted."""
    home, _ = running
    monitor = Monitor(patient_scene(home), 5.0)
    seen: list[tuple[str, int, int]] = []
    monitor.run(lambda *words: seen.append(words))
    finding = monitor.finding()
    assert finding.verdict is OK, finding
    assert finding.evidence["heartbeats"] >= 1
    assert finding.evidence["ticks"] > 0
    assert seen[-1][0] == "monitoring"


INTERRUPTED = """
import os, signal
from tradingbot.cli import main
from tradingbot.ops.verify.monitor import Monitor
step = Monitor._step
def interrupted(self):
    step(self)
    os.kill(os.getpid(), signal.SIGINT)
Monitor._step = interrupted
raise SystemExit(main())
"""


def test_ctrl_c_ends_a_watch_with_what_was_found_so_far(running: tuple[Path, subprocess.Popen[str]]) -> None:
    """Exit 130, the whole report on stdout and kept, and no GO: not everything was looked at."""
    home, _ = running
    before = set((home / "state").glob("verifications/*"))
    words = command(home, "verify", "--monitor", "1h", "--last", "1")
    assert words[1:3] == ["-m", "tradingbot"]
    done = subprocess.run(
        [words[0], "-c", INTERRUPTED, *words[3:]], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 130, done.stdout + done.stderr
    assert "\nNO-GO: " in done.stdout
    assert "ended by hand after" in done.stdout
    (kept,) = set((home / "state").glob("verifications/*")) - before
    assert "NO-GO" in (kept / "report.txt").read_text()


def test_a_hanging_bot_an_error_and_a_restart_are_violations(
    running: tuple[Path, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends the watch, and is named."""
    home, process = running
    monkeypatch.setattr(monitoring, "HUNG_S", 1.0)
    monitor = Monitor(patient_scene(home), 120.0)
    with stopped(process):
        monitor.run()
    assert "it hangs" in monitor.finding().says
    assert monitor.finding().verdict is FAILED
    wait_for(lambda: started(look_at(settings(home))).ok, process)
    monkeypatch.setattr(monitoring, "HUNG_S", 10.0)

    monitor = Monitor(patient_scene(home), 120.0)
    (home / "state" / "requests").mkdir(exist_ok=True)
    (home / "state" / "requests" / "1.json").write_text("{")
    monitor.run()
    assert "ERROR at " in monitor.finding().says
    finding = started(look_at(settings(home)))
    assert (finding.verdict, "set aside as .bad" in finding.says) == (FAILED, True)

    monitor = Monitor(patient_scene(home), 120.0)
    assert call(home, "restart", "--yes", "--why", "drill").returncode == 0
    monitor.run()
    assert "it was restarted" in monitor.finding().says
    assert started(look_at(settings(home))).verdict is OK  # another session, without that error


def test_a_disk_that_takes_no_more_is_no_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the bot may grow beyond 20 kB from now on: the streams are degraded, and its log has errors."""
    impatient(monkeypatch)
    with bot(tmp_path, *LIVELY) as process:
        wait_for(lambda: status_of(tmp_path)["data"]["ticks"] > 150, process)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        wait_for(lambda: status_of(tmp_path)["streams"]["ticks"]["dropped"] > 100, process)  # of every symbol
        scene = look_at(settings(tmp_path))
        finding = record.streams(scene)
        assert (finding.verdict, finding.profile) == (FAILED, "persistence")
        assert "cannot be written: ticks" in finding.says
        assert "degraded" in started(scene).says
        process.kill()
        process.wait()
        report = verify(settings(tmp_path), last_min=1)
        assert report.exit_code == 1
        assert f"it died: process {process.pid} is gone" in report.text()
        monitor = Monitor(look_at(settings(tmp_path)), 5.0)
        monitor.run()
        assert "no bot runs" in monitor.finding().says


def test_an_exchange_that_says_no_more_is_no_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs: no symbol is fresh, to the check and to a watch."""
    impatient(monkeypatch)
    monkeypatch.setattr(monitoring, "STALE_S", 1.0)
    with exchange(tmp_path / "exchange", "--set", "EMBEDDED_SYMBOLS=2") as url:
        chosen = ("WATCHDOG_S=1", "REQUEST_TIMEOUT_S=1", f"EMBEDDED_URL={url}")
        with bot(tmp_path, *(word for setting in chosen for word in ("--set", setting))) as process:
            market = int(orjson.loads((tmp_path / "exchange" / "state" / "exchange.lock").read_bytes())["pid"])
            os.kill(market, signal.SIGSTOP)
            try:
                wait_for(lambda: status_of(tmp_path)["data"]["fresh"] == 0, process)
                monitor = Monitor(look_at(settings(tmp_path)), 120.0)
                monitor.run()
                finding = checks.market_data_alive(look_at(settings(tmp_path)))
            finally:
                os.kill(market, signal.SIGCONT)
    assert "0 of 2 symbols fresh" in monitor.finding().says
    assert (finding.verdict, finding.evidence["fresh"]) == (FAILED, 0)


def test_a_bot_that_the_exchange_holds_back_is_go_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Banned at its start: nothing is asked for, as it should be, and no check fails over what is not there."""
    impatient(monkeypatch)
    (tmp_path / "faults.toml").write_text('[[fault]]\non = "GET *"\ndoes = "ban"\nfrom_s = 0.5\nto_s = 600\n')
    with exchange(tmp_path / "exchange", "--faults", str(tmp_path / "faults.toml")) as url:
        time.sleep(1)
        words = command(tmp_path, "--set", f"EMBEDDED_URL={url}")
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(lambda: status_of(tmp_path).get("data", {}).get("held_back_until_ms") is not None, process)
                report = verify(settings(tmp_path), last_min=1)
            finally:
                process.kill()
    assert_go(report)
    assert {found(report)[name] for name in (STARTED, checks.DATA)} == {WARNING}
    assert "the exchange wants to be left alone" in report.text()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the home of a bot that has ended, whose last status is that of its record's end."""
    home = tmp_path_factory.mktemp("recorded")
    done = call(home, "--virtual", "--duration", "90", "--no-dashboard", *LIVELY)
    assert done.returncode == 0, done.stderr
    return home


def test_every_figure_of_a_status_is_recomputed_from_the_ticks(recorded: Path) -> None:
    """As it is, it agrees; another last digit of any figure of any symbol does not, and is named with both values."""
    status = status_of(recorded)
    assert recompute(recorded / "state", status, 60).agrees
    for place, name in enumerate(("reference", "threshold", "drop_pct", "armed", "anchor_age_s", "last")):
        row = dict(status["symbols"][place % 3])
        value = row[name]
        row[name] = (not value) if name == "armed" else value * (1 + 1e-15) if value else 1e-9
        row[name] = row[name] if row[name] != value else value + 0.1
        symbols = [row if one["symbol"] == row["symbol"] else one for one in status["symbols"]]
        again = recompute(recorded / "state", status | {"symbols": symbols}, 60)
        assert set(again.wrong) == {row["symbol"]}
        if name != "last":
            assert again.wrong[row["symbol"]] == {name: (row[name], value)}


def test_a_digit_of_a_tick_that_was_altered_is_found(recorded: Path, tmp_path: Path) -> None:
    """With a checksum that does not fit the record does not prove itself; with one that does, status is another."""
    home = tmp_path / "home"
    for forged in (False, True):
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(recorded, home)
        path = sorted((home / "state" / "drop_windows" / "ticks").glob("*.jsonl"))[0]
        lines = path.read_bytes().splitlines(keepends=True)
        ticks = [decode(line.strip()) for line in lines]
        at = max(n for n in range(1, len(ticks)) if ticks[n]["last"] != ticks[n - 1]["last"])  # the rest repeats it
        if forged:
            for n in range(at, len(ticks)):
                tick = {name: value for name, value in ticks[n].items() if name != "crc"}
                lines[n] = encode(tick | {"last": tick["last"] * 1.0001, "ask": tick["ask"] * 1.001})
        else:
            lines[at] = lines[at].replace(b'"last":', b'"last":1', 1)
        path.write_bytes(b"".join(lines))
        assert not recompute(home / "state", status_of(home), 60).agrees, forged
        if not forged:
            finding = record.proved(look_at(settings(home), 60))
            assert (finding.verdict, "cannot be read" in finding.says) == (FAILED, True), finding


class Played(Scene):
    """Be a scene of chosen looks: the first, and then the second for good."""

    def look(self) -> Look:
        self.then: Look
        before, now = self.first.sizes, self.then
        grows = {stream: {"a": size["a"] + (size != before[stream])} for stream, size in now.sizes.items()}
        self.then = Look(time.monotonic(), now.status, grows)
        return self.then


def played(home: Path, first: dict[str, Any], then: dict[str, Any], sizes: tuple[int, int] = (10, 20)) -> Played:
    """Return a scene between two statuses, with the size of each stream's one segment."""
    with holding(home):
        scene = look_at(settings(home))
    looks = [
        Look(time.monotonic() - 5, status, {stream: {"a": size} for stream in record.FOUR})
        for status, size in zip((first, then), sizes, strict=True)
    ]
    own = Played(scene.effective, scene.bot, looks[0], scene.settings)
    own.then = looks[1]
    return own


def status(ticks: int, on: bool = True, **members: Any) -> dict[str, Any]:
    states = {name: {"state": "ok" if on else "off", "dropped": 0, "bytes": 1} for name in record.FOUR}
    bot = {"sid": "1", "pid": 99, "state": "running", "mode": "observe", "started_ms": 5, "uptime_s": ticks}
    flags = dict.fromkeys(FLAGS, True) | {"FEATURE_PERSIST_STREAMS": on}
    data = {"ticks": ticks, "held_back_until_ms": None}
    return {"bot": bot, "time_ms": 9, "flags": flags, "streams": states, "data": data, "symbols": []} | members


@pytest.mark.parametrize(
    ("on", "sizes", "verdict", "words"),
    [
        (True, (10, 20), OK, "they grow"),
        (True, (10, 10), FAILED, "not written to: snapshots, ticks"),
        (False, (10, 10), OK, "they stand still"),
        (False, (10, 20), FAILED, "switched off, and yet written to"),
    ],
)
def test_streams_that_do_not_do_as_the_flag_says_are_no_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: bool, sizes: tuple[int, int], verdict: Verdict, words: str
) -> None:
    """Held against the files between two looks, not against what the bot says of itself."""
    impatient(monkeypatch)
    finding = record.streams(played(tmp_path, status(1, on), status(5, on), sizes))
    assert (finding.verdict, words in finding.says) == (verdict, True), finding


def test_an_order_of_a_bot_that_observes_is_no_go(tmp_path: Path) -> None:
    """Out of the journal, where its settings say that it observes; and out of the status."""
    past = Past(tmp_path / "state", "1", GLOBAL_TRADING=False)
    past.feed((0, 100.0), (1, 100.0))
    own = played(tmp_path, status(1), status(2))
    past.recorder.checkpoint()
    assert record.no_order(own).verdict is OK
    past.engine.process(SettingsChanged(make_settings({"GLOBAL_TRADING": True})))  # behind the journal's back
    past.engine.seq -= 1
    past.feed((2, 98.0), (3, 98.0), (4, 98.0))
    past.close(end=False)
    finding = record.no_order(own)
    assert (finding.verdict, finding.evidence["orders"][0]["symbol"]) == (FAILED, S)
    entered = {"outcome": "entered", "ts_ms": 10_000_000_000_000, "symbol": "B/C", "decision_id": "B/C:1:1"}
    orders = record.order_in(status(3, decisions=[entered]), 5)
    assert [order["symbol"] for order in orders] == ["B/C"]


def test_an_order_while_a_watched_bot_observes_ends_the_watch(tmp_path: Path) -> None:
    """An entry from before it observed is none; one of while it observes is named."""
    old = {"outcome": "entered", "ts_ms": 1, "symbol": "A/C", "decision_id": "A/C:1:1"}
    new = {"outcome": "entered", "ts_ms": 50, "symbol": "B/C", "decision_id": "B/C:1:2"}
    own = played(tmp_path, status(1, decisions=[old]), status(2, decisions=[old]))
    with holding(tmp_path):
        own.then, then = own.first, own.then
        monitor = Monitor(own, 30.0)
        own.then = then
        monitor._step()
        assert monitor.finding().evidence["violations"] == []
        own.then = Look(time.monotonic(), status(3, decisions=[old, new]), then.sizes)
        monitor.run()
    finding = monitor.finding()
    assert finding.verdict is FAILED
    assert finding.evidence["violations"] == ["an order while it observes: decision of B/C, B/C:1:2"]


def test_what_was_bought_while_it_traded_is_no_order_of_an_observing_bot(tmp_path: Path) -> None:
    """Switched off, pending orders are cancelled and positions rest."""
    past = Past(tmp_path / "state", "1", GLOBAL_TRADING=True)
    past.feed((0, 100.0), (1, 98.0), (2, 98.0), (3, 98.0))
    assert past.engine.portfolio.positions
    past.control(SettingsChanged(make_settings({})))
    past.feed((4, 97.0))
    past.close()
    assert record.no_order(played(tmp_path, status(1), status(2))).verdict is OK


@pytest.mark.parametrize(
    ("lines", "verdict", "words"),
    [
        ("WARNING stream broken: x", OK, "no error"),
        ("ERROR ticks degraded: no room", FAILED, "ticks degraded"),
        ("ERROR jsonl ticks degraded: no room\nWARNING jsonl ticks works again (3 records dropped)", WARNING, "over"),
        ("ERROR jsonl ticks degraded: no room\nWARNING jsonl windows works again (3 dropped)", FAILED, "degraded"),
        ("ERROR streams stop: less than MIN_FREE_MB = 5 MB are free\nWARNING streams go on: there is room on the disk"
         " again", WARNING, "over"),
        ("Traceback (most recent call last):", FAILED, "Traceback"),
    ],
)  # fmt: skip
def test_errors_of_the_log_count_unless_a_later_line_says_that_they_are_over(
    tmp_path: Path, lines: str, verdict: Verdict, words: str
) -> None:
    """Of this session alone; an error of before its start, or before the last rollback, does not count."""
    (tmp_path / "logs").mkdir()
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".000Z "
    old = "1970-01-01T00:00:00.001Z ERROR of an earlier session\n"
    text = "\n".join(line if line.startswith("Trace") else now + line for line in lines.splitlines())
    (tmp_path / "logs" / "trading_bot_19700101.log").write_text(f"{old}{now}INFO x\n{text}\n")
    with holding(tmp_path):
        finding = started(look_at(settings(tmp_path)))
    assert (finding.verdict, words in finding.says) == (verdict, True), finding


def test_an_error_that_only_the_status_tells_counts_too(tmp_path: Path) -> None:
    """Where the log is gone."""
    with holding(tmp_path):
        path = tmp_path / "state" / "status.json"
        told = orjson.loads(path.read_bytes()) | {"errors": [{"time_ms": 1, "level": "ERROR", "text": "no room"}]}
        path.write_bytes(orjson.dumps(told))
        assert "no room" in started(look_at(settings(tmp_path))).says


def test_copies_of_the_last_rollback_are_read(tmp_path: Path) -> None:
    """Whole they are fine; one that is damaged or gone is named; without a rollback there is nothing to see."""
    (tmp_path / "tradingbot.toml").write_text("POLL_S = 3\n")
    scene = look_at(settings(tmp_path))
    assert checks.settings_backed_up(scene).verdict is NOT_APPLICABLE
    folder = Path(run(tmp_path, "anchor")["folder"]) / "backup"
    assert checks.settings_backed_up(scene).verdict is OK
    (folder / "tradingbot.toml").write_text("POLL_S = ")
    assert "tradingbot.toml: is damaged" in checks.settings_backed_up(scene).says
    (folder / "tradingbot.toml").unlink()
    finding = checks.settings_backed_up(scene)
    assert (finding.verdict, "tradingbot.toml: is gone" in finding.says) == (FAILED, True)


SCRATCHED: list[tuple[dict[str, Any], Verdict, str]] = [
    ({"WINDOW_STRICT_WARMUP": True, "CONFIRM_TICKS": 3, "MARKET_DATA": "poll"}, OK, "after 3 s (anchor, observed)"),
    ({"BUY_MODE": "PREDICTIVE", "GLOBAL_TRADING": True, "DROP_TRIGGER_MODE": 1, "TICKER_MAX_JUMP_PCT": 0.2}, OK,
     "(session, entered)"),
    ({"DROP_TRIGGER_MODE": 2, "WINDOW_LOOKBACK_S": 0.001}, FAILED, "gave no trigger"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "verdict", "words"), SCRATCHED)
def test_a_scripted_fall_fires_in_a_scratch_session_under_the_settings_in_force(
    changed: dict[str, Any], verdict: Verdict, words: str
) -> None:
    """What CONFIRM_TICKS, WINDOW_STRICT_WARMUP and TICKER_MAX_JUMP_PCT need is fed; who lets none come fails."""
    with Scratch(make_settings(changed)) as scratch:
        folder = scratch.folder
        finding = record.trigger_fires(scratch.result())
    assert (finding.verdict, words in finding.says) == (verdict, True), finding
    assert not folder.exists()


def test_a_trigger_without_a_fall_or_before_it_is_no_go() -> None:
    """Both are named."""
    decision = dict.fromkeys(record.DECIDED, 0) | {"ts_ms": 5_000}
    tried = Tried("F", "S", {"F": [decision], "S": []}, 5_000, 0.1, 40, {})
    assert record.trigger_fires(tried).verdict is OK
    early = Tried("F", "S", {"F": [decision], "S": []}, 6_000, 0.1, 40, {})
    still = Tried("F", "S", {"F": [decision], "S": [decision]}, 5_000, 0.1, 40, {})
    broken = Tried("F", "S", {}, 5_000, 0.1, 0, {}, "it ended with exit code 2: no room")
    for wrong, word in ((early, "before the fall"), (still, "without the fall"), (broken, "exit code 2: no room")):
        finding = record.trigger_fires(wrong)
        assert (finding.verdict, word in finding.says) == (FAILED, True)


def test_without_a_bot_it_is_no_go_and_nothing_is_made(tmp_path: Path) -> None:
    """Exit 1 with the other checks beside it; no state directory is made; broken settings are exit 2."""
    done = call(tmp_path, "verify")
    assert (done.returncode, "no bot runs (none has run here)" in done.stdout) == (1, True)
    assert not (tmp_path / "state").exists()
    (tmp_path / "tradingbot.toml").write_text("POL_S = 3\n")
    done = call(tmp_path, "verify")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_a_disk_that_cannot_take_the_report_does_not_lose_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says that it is not kept; what is kept is bounded."""
    dead(tmp_path)
    impatient(monkeypatch)
    monkeypatch.setattr(verifying, "KEPT", 2)
    monkeypatch.setattr(verifying, "_findings", lambda *_: iter([Finding(checks.DATA, OK, "x")]))
    folders = [verify(settings(tmp_path)).folder for _ in range(4)]
    kept = sorted((tmp_path / "state" / "verifications").iterdir())
    assert [str(path) for path in kept] == folders[-2:]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verifying, "write_atomic", full)
    report = verify(settings(tmp_path))
    assert (report.verdict, report.folder) == ("GO", "")
    assert "No space left on device" in report.trouble
    assert report.to_record()["trouble"] == report.trouble


def fake_tree(root: Path, recipe: str) -> Path:
    """Make a source tree whose tests are a shell's words."""
    (root / "tests").mkdir(parents=True)
    (root / "tradingbot").mkdir()
    (root / "tests" / "conftest.py").touch()
    (root / "pyproject.toml").write_text('[project]\nname = "tradingbot"\n')
    (root / "Makefile").write_text(f"test:\n\t@{recipe}\n")
    return root


def test_the_own_tests_run_without_secrets_and_without_what_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the source tree alone; a failure is named, a run without end is ended, and an installed program has none."""
    monkeypatch.setenv("TRADINGBOT_API_SECRET", "canary")
    root = fake_tree(tmp_path / "good", "env >env.txt; echo '$(PYTEST_ARGS)' >args.txt; echo '== 9 passed in 1 s =='")
    assert find_checkout(root / "tradingbot") == root
    finding = own_tests(root, ["FEATURE_ANCHOR_ENABLED"])
    assert (finding.verdict, "9 passed in 1 s" in finding.says) == (OK, True), finding
    assert "canary" not in (root / "env.txt").read_text()
    assert (root / "args.txt").read_text().split()[-2:] == ["--without", "FEATURE_ANCHOR_ENABLED"]
    bad = own_tests(fake_tree(tmp_path / "bad", "echo '== 1 failed, 8 passed =='; exit 1"), [])
    assert (bad.verdict, "1 failed, 8 passed" in bad.says) == (FAILED, True)
    unchecked = own_tests(fake_tree(tmp_path / "unchecked", "echo 'x.py:3: error: no type'; exit 1"), [])
    assert (unchecked.verdict, unchecked.says) == (FAILED, "make test ended with 2: x.py:3: error: no type")
    slow = own_tests(fake_tree(tmp_path / "slow", "sleep 60"), [], timeout_s=0.5)
    assert (slow.verdict, "still running after 0.5 s" in slow.says) == (FAILED, True)
    assert find_checkout(tmp_path / "nowhere" / "tradingbot") is None
    assert own_tests(None, []).verdict is NOT_APPLICABLE
    assert find_checkout() == Path(sys.modules["tradingbot"].__file__ or "").parents[1]


def test_what_comes_while_the_journal_is_read_is_another_proofs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger and ticks behind it, recorded between the reading of journal and ticks, are no difference."""
    past = Past(tmp_path / "state")
    past.feed(*((second, 100.0) for second in range(5)))
    past.recorder.checkpoint()
    past.feed(*((second, 100.0) for second in range(5, 10)))
    past.writer.run(lambda: None)
    read = inputs._journal

    def slow(*words: Any) -> Any:
        told = read(*words)
        past.feed((10, 98.0), (11, 98.0), (12, 98.1), (13, 100.0), (14, 98.0), (15, 98.1))
        past.writer.run(lambda: None)
        return told

    monkeypatch.setattr(inputs, "_journal", slow)
    finding = record.proved(look_at(settings(tmp_path), 0.0))
    assert (finding.verdict, finding.evidence["inputs"]) == (OK, 5), finding
    past.close()
