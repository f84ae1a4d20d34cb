"""Doctor, continued: the exchange, clocks, credentials, anchors, starts, references, and the environment built anew."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec import to_builtins

from tests.conftest import ROOT
from tests.past import Past, records
from tests.patients import (
    FAILED,
    FIX,
    NOT_APPLICABLE,
    NOW_MS,
    OK,
    WARNING,
    by_name,
    one,
    patient,
    report,
    row,
    running,
    status,
)
from tests.test_live import call
from tests.test_restarts import exchange
from tradingbot.engine.events import Decision
from tradingbot.exchange.probe import probe
from tradingbot.io.saved import anchors_line, save_anchors
from tradingbot.ops.doctor import exchange as doctor_exchange
from tradingbot.ops.doctor import past as doctor_past
from tradingbot.ops.doctor.exchange import Probe
from tradingbot.ops.doctor.fixes import audit

FAST = ("--set", "EMBEDDED_SPEED=40", "--set", "EMBEDDED_SYMBOLS=2")
KEYS = {"TRADINGBOT_API_KEY": "key", "TRADINGBOT_API_SECRET": "secret"}


class Asked(Probe):
    """Stand for an exchange that has answered."""

    def __init__(self, name: str, **answer: Any) -> None:
        self.exchange, self.url, self.held_back_s = name, None, 0.0
        self.secrets, self._process = dict(answer.pop("secrets", {})), None
        self._answer = {
            "kind": "answers",
            "says": "",
            "ahead_ms": None,
            "credentials": "none",
            "withdraws": None,
        } | answer


@pytest.fixture(autouse=True)
def _time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each diagnosis the time that it takes here: what it finds counts, not how fast this machine is."""
    if "credentials" in request.node.name:
        monkeypatch.setattr(doctor_exchange, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(doctor_past, "RECOMPUTED_S", 60.0)
    monkeypatch.setattr(doctor_past, "LOOK_S", 60.0)


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of an embedded exchange whose key may withdraw, with a minute of trouble behind it."""
    folder = tmp_path_factory.mktemp("venue")
    with exchange(folder, "--can-withdraw", "--set", "EMBEDDED_SYMBOLS=2") as url:
        yield url


# the exchange


AILING = (
    ('does = "status"\nstatus = 503', "in trouble of its own or in maintenance: it answers 503"),
    ('does = "ban"\nretry_after_s = 77', "asks to be left alone: it answers 418, Retry-After 77 s"),
    ('does = "html"', "answers something that is no answer"),
    ('does = "hang"', "cannot be reached: TimeoutError"),
)


def test_what_ails_the_exchange_is_told_apart(tmp_path: Path) -> None:
    """Maintenance, a ban, garbage, silence: within seconds, one request after the other; then it answers."""
    script = tmp_path / "faults.toml"
    script.write_text("".join(f'[[fault]]\non = "GET time"\ntimes = 1\n{fault}\n' for fault, _ in AILING))
    with exchange(tmp_path / "venue", "--faults", str(script), "--set", "EMBEDDED_SYMBOLS=2") as url:
        seen = patient(tmp_path, f"EMBEDDED_URL={url}")
        for _, says in AILING:
            found = doctor_exchange.exchange(seen, Probe(seen), 2)
            assert (found.verdict, says in found.says) == (FAILED, True), found.says
            assert found.fix
        found = doctor_exchange.exchange(seen, Probe(seen), 2)
        assert found.verdict is OK, found.says


def test_an_exchange_that_cannot_be_reached_is_told_in_time(tmp_path: Path) -> None:
    """Nobody behind EMBEDDED_URL: ports and exchange say so, and the report comes all the same."""
    found = report(tmp_path, "--set", "EMBEDDED_URL=http://127.0.0.1:9", code=1)
    assert found["ports"][0]["verdict"] == found["exchange"][0]["verdict"] == "failed"
    assert "cannot be reached" in found["exchange"][0]["says"]


def test_a_real_exchange_is_asked_by_ccxt_and_holds_nobody_up(tmp_path: Path) -> None:
    """An id that ccxt does not know; an answer that never comes is given up."""
    seen = patient(tmp_path, "EXCHANGE=nonesuch")
    found = doctor_exchange.exchange(seen, Probe(seen), 120)
    assert (found.verdict, "ccxt knows no exchange" in found.says) == (FAILED, True)
    late = Probe(seen)
    found = doctor_exchange.exchange(seen, late, 0.0)
    assert (found.verdict, "no answer in 0.0 s" in found.says) == (FAILED, True)


def test_an_exchange_that_wants_to_be_left_alone_is_not_asked(tmp_path: Path) -> None:
    """While the running bot is held back, no request goes out, and the report says for how long."""
    told = status(data={"held_back_until_ms": NOW_MS + 90_000})
    with running(tmp_path, told):
        seen = patient(tmp_path, "EMBEDDED_URL=http://127.0.0.1:9", **KEYS)
        asked = Probe(seen)
        assert asked.asked(1) == {}
        found = doctor_exchange.exchange(seen, asked, 1)
    assert (found.verdict, "for another 90 s" in found.says) == (FAILED, True)


# clocks


def test_a_clock_that_is_off_is_measured_against_the_exchange(tmp_path: Path) -> None:
    """By the exchange's own time, over ccxt: ahead of it, behind it, and near enough."""
    with exchange(tmp_path / "venue", "--set", "EMBEDDED_SPEED=5000", "--set", "EMBEDDED_SYMBOLS=2") as url:
        while (ahead_ms := probe("binance", url, 60)["ahead_ms"]) < 20_000:  # its time runs away from this machine's
            pass
    found = doctor_exchange.clock(patient(tmp_path), Asked("binance", ahead_ms=ahead_ms), 1)
    assert (found.verdict, "s behind, by binance's time" in found.says) == (FAILED, True)
    assert doctor_exchange.clock(patient(tmp_path), Asked("binance", ahead_ms=-2000), 1).verdict is WARNING
    assert doctor_exchange.clock(patient(tmp_path), Asked("binance", ahead_ms=12), 1).verdict is OK


def test_a_clock_is_judged_by_recorded_ticks_where_the_exchange_tells_no_time(tmp_path: Path) -> None:
    """Receipts that come before, or long after, the exchange's own time of the tick."""
    past = Past(tmp_path / "state")
    for second in range(4):
        past.feed((second, 100 + second / 10))
    past.close()
    path = next((tmp_path / "state" / "drop_windows" / "ticks").glob("*.jsonl"))
    from tradingbot.io.lines import decode, encode

    lines = [decode(line) for line in path.read_bytes().splitlines()]
    path.write_bytes(b"".join(encode(line | {"recv_ms": line["ts_ms"] - 7000}) for line in lines))
    found = doctor_exchange.clock(patient(tmp_path), Asked("binance"), 1)
    assert (found.verdict, "7.0 s behind, by the newest recorded ticks" in found.says) == (FAILED, True)
    path.write_bytes(b"".join(encode(line | {"recv_ms": line["ts_ms"] + 40}) for line in lines))
    assert doctor_exchange.clock(patient(tmp_path), Asked("binance"), 1).verdict is OK


def test_a_clock_that_was_set_is_told(tmp_path: Path) -> None:
    """The bot's own lines about it, of this session."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "trading_bot_20260101.log").write_text(
        "t WARNING clock_step step_s=+7200.0: the clock was set\n"
    )
    found = doctor_exchange.clock(patient(tmp_path), Asked("binance", ahead_ms=1), 1)
    assert (found.verdict, "set 1 times" in found.says) == (WARNING, True)


# credentials


@pytest.mark.parametrize(
    ("secret", "verdict", "says"),
    [("secret", "failed", "can WITHDRAW"), ("wrong-canary-secret", "failed", "embedded refuses them")],
)
def test_credentials_are_tried_over_ccxt(tmp_path: Path, venue: str, secret: str, verdict: str, says: str) -> None:
    """A wrong secret, and a key that could empty the account; neither is shown."""
    seen = patient(tmp_path, f"EMBEDDED_URL={venue}", **(KEYS | {"TRADINGBOT_API_SECRET": secret}))
    found = doctor_exchange.credentials(seen, Probe(seen), 120)
    assert (found.verdict, says in found.says) == (verdict, True), found
    assert "canary" not in str(found.to_record())


def test_credentials_that_can_only_trade_are_fine(tmp_path: Path, venue: str) -> None:
    """Without that permission it is silent; without credentials nothing is asked; half of them are named."""
    with exchange(tmp_path / "venue", "--set", "EMBEDDED_SYMBOLS=2") as url:
        seen = patient(tmp_path, f"EMBEDDED_URL={url}", **KEYS)
        found = doctor_exchange.credentials(seen, Probe(seen), 120)
    assert (found.verdict, "cannot withdraw" in found.says) == (OK, True), found.says
    seen = patient(tmp_path)
    assert doctor_exchange.credentials(seen, Probe(seen), 1).verdict is NOT_APPLICABLE
    seen = patient(tmp_path, TRADINGBOT_API_KEY="key")
    assert doctor_exchange.credentials(seen, Probe(seen), 1).verdict is FAILED
    kraken = Asked("kraken", credentials="ok", secrets={"key": "a", "secret": "b"})
    assert doctor_exchange.credentials(patient(tmp_path), kraken, 1).verdict is WARNING


@pytest.mark.parametrize(("error", "verdict", "says"), [
    (None, WARNING, "kraken takes them; whether they can withdraw cannot be asked there"),
    ("AuthenticationError", FAILED, "kraken refuses them: AuthenticationError: EAPI:Invalid key"),
    ("RequestTimeout", NOT_APPLICABLE, "whether kraken takes them is not known: RequestTimeout"),
])  # fmt: skip
def test_credentials_for_an_exchange_that_does_not_tell_of_withdrawals_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str | None, verdict: object, says: str
) -> None:
    """Another exchange of ccxt's, whose answers are given here: taken, refused, and not known."""
    import ccxt

    def balance(_: object) -> dict[str, Any]:
        if error is not None:
            raise getattr(ccxt, error)("EAPI:Invalid key")
        return {}

    for name, answer in (("fetch_time", lambda _: NOW_MS), ("fetch_status", lambda _: {}), ("fetch_balance", balance)):
        monkeypatch.setattr(ccxt.kraken, name, answer)
    answered = probe("kraken", credentials={"key": "a", "secret": "b"})
    asked = Asked("kraken", secrets={"key": "a", "secret": "b"}, **answered)
    found = doctor_exchange.credentials(patient(tmp_path), asked, 1)
    assert (found.verdict, says in found.says) == (verdict, True), found.says


def test_credentials_are_found_in_the_keyring_and_one_that_waits_for_a_person_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under the service `tradingbot`, where the environment has none; locked, or without an end: there are none."""
    kept, waits = {("tradingbot", name): text for name, text in KEYS.items()}, threading.Event()
    keyring = types.ModuleType("keyring")
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setattr(keyring, "get_password", lambda *words: kept.get(words), raising=False)
    assert doctor_exchange.find_credentials({}) == {"key": "key", "secret": "secret"}
    assert doctor_exchange.find_credentials({"TRADINGBOT_API_KEY": "other"}) == {"key": "other"}

    def locked(*_: str) -> str:
        raise RuntimeError("locked")

    monkeypatch.setattr(keyring, "get_password", locked)
    assert doctor_exchange.find_credentials({}) == {}
    monkeypatch.setattr(doctor_exchange, "KEYRING_S", 0.05)
    monkeypatch.setattr(keyring, "get_password", lambda *_: str(waits.wait(60)))
    assert doctor_exchange.find_credentials({}) == {}
    waits.set()


# what it remembers


def saved(home: Path, **anchors: tuple[Any, Any]) -> Path:
    """Save anchors as a bot does."""
    facts = {f"{name}/USDT": {"price": price, "set_ms": set_ms} for name, (price, set_ms) in anchors.items()}
    (home / "state").mkdir(exist_ok=True)
    save_anchors(home / "state", anchors_line("s1", NOW_MS, orjson.dumps(facts)), durable=False)
    return home / "state" / "anchors" / "anchors.json"


@pytest.mark.parametrize("damage", ["changed", "torn", "nothing", "link", "folder", "schema"])
def test_damaged_anchors_are_found_and_set_aside(tmp_path: Path, damage: str) -> None:
    """Whatever the damage: found, the plan changes nothing, set aside under a name of its own, then silent."""
    path = saved(tmp_path, BTC=(100.0, NOW_MS))
    assert one(doctor_past.anchors(patient(tmp_path))).verdict is OK
    text = path.read_bytes()
    path.unlink()
    if damage == "link":
        path.symlink_to("anchors.last.json")
    elif damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            {
                "changed": text.replace(b"100", b"200"),
                "torn": text[:40],
                "nothing": b"",
                "schema": b'{"v": 1, "anchors": 5}',
            }[damage]
        )
    found = one(doctor_past.anchors(patient(tmp_path)))
    assert (found.verdict, found.profile) == (FAILED, "anchor")
    from tradingbot.ops.doctor.diagnose import apply_fix, plan_fix

    seen = patient(tmp_path)
    plan = plan_fix("anchors", seen)
    assert os.path.lexists(path)
    assert apply_fix(plan, seen, "drill").ok
    assert os.path.lexists(path.with_name("anchors.json.bad-1"))
    left = by_name(doctor_past.anchors(patient(tmp_path)))
    assert (left["anchors"].verdict, left["set aside"].verdict) == (OK, WARNING)
    assert plan_fix("anchors", patient(tmp_path)).steps == ()
    assert "doctor anchors" in (tmp_path / "state" / "audit.jsonl").read_text()


def test_anchors_that_cannot_be_are_told_from_those_that_can(tmp_path: Path) -> None:
    """Far from the last price, in the future, no price at all; by the saved ones where none runs, else by the bot's."""
    saved(tmp_path, BTC=(500.0, NOW_MS), ETH=(100.0, NOW_MS + 10_000_000), ADA=(-1.0, NOW_MS))
    (tmp_path / "state" / "status.json").write_bytes(orjson.dumps(status()))
    found = doctor_past.absurd_anchors(patient(tmp_path))
    assert "+400 % from the last price 100" in found["BTC/USDT"]
    assert "in the future" in found["ETH/USDT"]
    assert "no price" in found["ADA/USDT"]
    with running(tmp_path, status(row(reference=400.0))):
        assert set(doctor_past.absurd_anchors(patient(tmp_path))) == {"BTC/USDT"}
        assert one(doctor_past.anchors(patient(tmp_path))).profile == "anchor"
    with running(tmp_path):
        assert doctor_past.absurd_anchors(patient(tmp_path)) == {}
        rested = one(doctor_past.anchors(patient(tmp_path, "FEATURE_ANCHOR_ENABLED=off")))
        assert (rested.verdict, "rest" in rested.says) == (NOT_APPLICABLE, True)


def test_a_slow_start_names_its_slowest_phase(tmp_path: Path) -> None:
    """Time by phase, and the profile that does without it."""
    with running(tmp_path, status(warm_start={"kind": "warm", "ms": {"checkpoint": 5.0, "ticks": 4000.0}})):
        found = by_name(doctor_past.warm_start(patient(tmp_path)))["warm start"]
    assert (found.verdict, found.profile, "went into ticks" in found.fix) == (WARNING, "warmstart", True)
    with running(tmp_path):
        assert by_name(doctor_past.warm_start(patient(tmp_path)))["warm start"].verdict is OK


def test_windows_that_the_recorded_ticks_do_not_make_are_found(tmp_path: Path) -> None:
    """Starts made anew from copies, snapshots against ticks: a tick that is gone is noticed; begun anew it is well."""
    words = ("--virtual", "--duration", "40", "--no-dashboard", "--set", "EMBEDDED_SYMBOLS=2")
    for _ in range(2):
        assert call(tmp_path, *words).returncode == 0
    found = by_name(doctor_past.warm_start(patient(tmp_path)))["start anew"]
    assert (found.verdict, found.evidence["snapshots"]) == (OK, 2), found.says
    assert "windows by checkpoint and by recorded ticks are the same (2 symbols)" in found.says
    folder = tmp_path / "state" / "drop_windows"
    shown = {record["symbol"]: record for record in records(tmp_path / "state", "drop_windows/snapshots")}
    for path in (folder / "ticks").glob("BTC*.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        peak = f'"last":{shown["BTC/USDT"]["peak"]},'.encode()
        path.write_bytes(b"".join(line for line in lines if peak not in line))
    found = by_name(doctor_past.warm_start(patient(tmp_path)))["start anew"]
    assert (found.verdict, found.profile) == (FAILED, "warmstart")
    assert "1 windows are others than the recorded ticks make them: BTC/USDT" in found.says
    assert "tradingbot rollback warmstart --restart" in found.fix
    done = call(tmp_path, "rollback", "warmstart", "--restart", "--yes", "--why", "as doctor says", "--no-compare")
    assert done.returncode == 0, done.stderr  # no bot runs: it counts from the next start on
    assert call(tmp_path, *words).returncode == 0
    found = by_name(doctor_past.warm_start(patient(tmp_path)))["start anew"]
    assert found.verdict is OK, found.says


def spiked(home: Path, spike: float) -> Decision:
    """Record a session whose anchor was set by one tick, and what it triggered."""
    past = Past(home / "state", DROP_TRIGGER_VALUE=0.99)
    decision = past.trigger(*((second, 100.0) for second in range(8)), (8, spike), *((s, 100.0) for s in range(9, 15)))
    past.close()
    told = status(row(decision.symbol, reference=decision.reference), decisions=[to_builtins(decision)])
    (home / "state" / "status.json").write_bytes(orjson.dumps(told))
    return decision


def test_a_trigger_measured_from_a_tick_that_stands_alone_is_found(tmp_path: Path) -> None:
    """The tick that set the anchor is 3 % from those around it; the profile is named, and what refuses such ticks."""
    decision = spiked(tmp_path, 103.0)
    found = one(doctor_past.unexpected_triggers(patient(tmp_path)))
    assert (found.verdict, found.profile) == (FAILED, "anchor")
    assert "103, +3.0 % from the 10 ticks around it" in found.says
    assert "TICKER_MAX_JUMP_PCT" in found.fix
    assert f"tradingbot anchors reset {decision.symbol}" in found.fix


def test_a_trigger_measured_from_what_the_market_had_seen_is_no_surprise(tmp_path: Path) -> None:
    """A rise and a fall in steps; then an anchor above any price of its session."""
    past = Past(tmp_path / "state", DROP_TRIGGER_VALUE=0.99)
    prices = [100 + step / 5 for step in (*range(10), *range(10, -10, -1))]
    (decision, *_) = [o for o in past.feed(*enumerate(prices)) if isinstance(o, Decision)]
    past.close()
    facts = to_builtins(decision)
    with running(tmp_path, status(decisions=[facts])):
        assert one(doctor_past.unexpected_triggers(patient(tmp_path))).verdict is OK
    for reference, verdict in ((120.0, FAILED), (101.0, WARNING)):  # in force, and no more
        told = status(row(facts["symbol"], reference=reference), decisions=[facts | {"reference": 120.0}])
        with running(tmp_path, told):
            found = one(doctor_past.unexpected_triggers(patient(tmp_path)))
        assert (found.verdict, found.profile) == (verdict, "anchor")
        assert "above any price of its session" in found.says
    assert one(doctor_past.unexpected_triggers(patient(tmp_path / "none"))).verdict is NOT_APPLICABLE


# the environment


def wheel(folder: Path, name: str, text: str) -> str:
    """Make a package of one module; return its SHA-256."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-9.9-py3-none-any.whl"
    info = f"{name}-9.9.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", f"[console_scripts]\nsay = {name}:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a checkout with an environment of its own, out of which the others' packages are seen."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "tradingbot", folder / "tradingbot", ignore=shutil.ignore_patterns("__pycache__"))
    python = Path(sys.base_prefix) / "bin" / "python3"
    subprocess.run([str(python), "-m", "venv", "--without-pip", str(folder / ".venv")], check=True, timeout=300)
    digest = wheel(folder / "wheels", "tenacity", "def main():\n    print('said')\n")
    (folder / "requirements.txt").write_text(f"tenacity==9.9 --hash=sha256:{digest}\n")
    return folder


def fix_environment(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the fix out of the checkout's own environment, which has none of the packages, without a network."""
    environ = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(checkout / "wheels")}
    python = str(checkout / ".venv" / "bin" / "python")
    return subprocess.run(
        [python, "-m", "tradingbot", "--home", str(checkout / "home"), "doctor", *words],
        cwd=checkout, env=environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_environment_is_built_anew_beside_the_old_one(checkout: Path) -> None:
    """Found, planned, then built, looked at, put in place, the old one kept; and taken back by what it prints."""
    found = {each["name"]: each for each in orjson.loads(fix_environment(checkout, "--json").stdout)["findings"]}
    assert "tenacity: ModuleNotFoundError" in found["packages"]["says"]
    assert "tenacity is missing" in found["versions"]["says"]
    plan = fix_environment(checkout, "--fix", "environment")
    assert (plan.returncode, f"build {checkout}/.venv.new" in plan.stdout) == (2, True), plan.stderr
    back = re.search(r"to take it back: (.+)", plan.stdout)
    assert back is not None

    (checkout / ".venv" / "mark").touch()
    (checkout / "tradingbot" / "ops" / "__pycache__").mkdir(exist_ok=True)
    done = fix_environment(checkout, "--fix", "environment", *FIX)
    assert (done.returncode, f"the one before is {checkout}/.venv.old" in done.stdout) == (0, True), done.stderr
    assert (checkout / ".venv.old" / "mark").exists()
    assert not (checkout / ".venv" / "mark").exists()
    said = subprocess.run(
        [str(checkout / ".venv" / "bin" / "say")], capture_output=True, text=True, check=True, timeout=120
    )
    assert said.stdout == "said\n"  # a program whose first line names where it was built would not start
    found = {each["name"]: each for each in orjson.loads(fix_environment(checkout, "--json").stdout)["findings"]}
    assert "tenacity" not in found["packages"]["says"]
    assert found["versions"]["verdict"] == "ok"
    assert "doctor environment" in (checkout / "home" / "state" / "audit.jsonl").read_text()

    subprocess.run(back[1], shell=True, check=True, timeout=60)  # what it prints is for a shell
    assert (checkout / ".venv" / "mark").exists()
    assert not (checkout / ".venv.old").exists()


NO_PIP = """#!/bin/sh
mkdir -p "$3/bin"
printf '#!/bin/sh\necho no hash of it matches >&2\nexit 1\n' >"$3/bin/python"
chmod +x "$3/bin/python"
"""


def test_an_environment_whose_lock_cannot_be_installed_is_as_it_was(tmp_path: Path) -> None:
    """What is built beside it goes again, and why is one line."""
    from tradingbot.errors import UsageError
    from tradingbot.ops.doctor.environment import RebuildPlan, rebuild

    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mark").touch()
    (tmp_path / "python").write_text(NO_PIP)
    (tmp_path / "python").chmod(0o755)
    plan = RebuildPlan(tmp_path / ".venv", tmp_path / "requirements.txt", tmp_path / "python", tmp_path, "")
    with pytest.raises(UsageError, match=r"pip install failed: no hash of it matches; .* is as it was$"):
        rebuild(plan)
    assert [path.name for path in (tmp_path / ".venv").iterdir()] == ["mark"]
    assert not (tmp_path / ".venv.new").exists()


def test_an_environment_is_left_alone_while_a_bot_runs_or_where_it_is_none(checkout: Path) -> None:
    """Refused with one line, and nothing is built."""
    home = checkout / "home"
    home.mkdir(exist_ok=True)
    with running(home):
        done = fix_environment(checkout, "--fix", "environment", *FIX)
    assert (done.returncode, "refused while a bot runs" in done.stdout) == (2, True), done.stdout
    assert not (checkout / ".venv.new").exists()
    from tradingbot.ops.doctor.environment import plan_rebuild

    plan = plan_rebuild("/usr", "/usr")
    assert (plan.steps, "no virtual environment" in plan.says) == ((), True)


SWAP = """
import os, pathlib, sys
from tradingbot.ops.doctor import environment
home, at_once, dies_at = pathlib.Path(sys.argv[1]), sys.argv[2] == "at once", int(sys.argv[3])
plan = environment.RebuildPlan(home / ".venv", home, home, home, "")
left = [dies_at]
def dying(step):
    def done(*words):
        left[0] -= 1
        if left[0] == -1:
            if at_once:
                os._exit(9)
            raise KeyboardInterrupt
        return step(*words)
    return done
pathlib.Path.rename = dying(pathlib.Path.rename)
environment._exchange = dying(environment._exchange) if at_once else lambda *_: False
remove = environment.shutil.rmtree
environment.shutil.rmtree = lambda path, **words: dying(remove)(path) if path.exists() else None
environment._swap(plan)
os._exit(0)
"""


def swapped(home: Path, how: str, dies_at: int) -> int:
    """Swap environments in a process that ends before one of its steps; return its exit code."""
    words = [sys.executable, "-c", SWAP, str(home), how, str(dies_at)]
    return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.parametrize(("how", "dies_at", "in_place"), [
    ("at once", 0, "broken"), ("at once", 1, "broken"), ("at once", 2, "broken"), ("at once", 3, "mended"),
    ("in steps", 1, "broken"), ("in steps", 3, "broken"), ("in steps", 4, "broken"),
])  # fmt: skip
def test_an_environment_is_in_place_whenever_its_swap_is_ended(
    tmp_path: Path, how: str, dies_at: int, in_place: str
) -> None:
    """Killed before any step where the system changes both at once, interrupted where it cannot: one whole is there.

    The one that was replaced is kept as .venv.old, and not where the next attempt begins by removing what lies there.
    """

    def mark(name: str) -> str:
        (file,) = (tmp_path / name).iterdir()
        return file.name

    for name, what in ((".venv", "broken"), (".venv.new", "mended"), (".venv.old", "older")):
        (tmp_path / name).mkdir()
        (tmp_path / name / what).touch()
    assert swapped(tmp_path, how, dies_at) == (9 if how == "at once" else -2)
    assert mark(".venv") == in_place
    assert "broken" in (mark(".venv"), mark(".venv.old") if (tmp_path / ".venv.old").exists() else "")
    shutil.rmtree(tmp_path / ".venv.new", ignore_errors=True)  # as the next attempt does, which builds anew there
    (tmp_path / ".venv.new").mkdir()
    (tmp_path / ".venv.new" / "newest").touch()
    assert swapped(tmp_path, how, 99) == 0
    assert (mark(".venv"), mark(".venv.old")) == ("newest", in_place)
    assert {path.name for path in tmp_path.iterdir()} == {".venv", ".venv.old"}


def test_the_audit_is_the_same_whatever_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by the standard library alone it reads as any other line; a torn one before it takes none with it."""
    from tradingbot.io.jsonl import read_jsonl

    (tmp_path / "audit.jsonl").write_text('{"torn')
    monkeypatch.setitem(sys.modules, "tradingbot.io.audit", None)
    audit(tmp_path, "doctor lock", "why \u00e9", file="lock")
    monkeypatch.undo()
    audit(tmp_path, "doctor lock", "again", file="lock")
    found = [each.record for each in read_jsonl([tmp_path / "audit.jsonl"])]
    assert [(each["what"], each["why"]) for each in found] == [("doctor lock", "why \u00e9"), ("doctor lock", "again")]
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
