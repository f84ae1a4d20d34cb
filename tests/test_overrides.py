"""Overrides: changed all or none, audited first, under a lock; and adopted by a running bot."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_live import bot, call, command, status_of
from tradingbot.config import FLAGS, make_settings, registry
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision
from tradingbot.errors import SettingsError, UsageError
from tradingbot.io import override_file
from tradingbot.io.home import find_home
from tradingbot.io.override_file import CLEAR, Override, change_overrides, peek_entries, read_entries
from tradingbot.io.overrides import Effective, read_settings
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.prove import prove
from tradingbot.ops.rollback.switch import plan_switch, switch
from tradingbot.services.live_settings import LiveSettings

ANCHOR, POLL = "FEATURE_ANCHOR_ENABLED", "POLL_S"


def fine(_: Any) -> None:
    """Let everything pass."""


def effective(home: Path, environ: dict[str, str] | None = None) -> Effective:
    return read_settings(find_home(str(home), {}, home), environ=environ or {})


def audit(state: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (state / "audit.jsonl").read_bytes().splitlines()]


def values(state: Path) -> dict[str, Any]:
    return {key: entry.value for key, entry in read_entries(state).items()}


def test_a_change_says_who_when_why_and_what_was(tmp_path: Path) -> None:
    """In the file and in the audit; what changes nothing leaves no trace."""
    began_ms = int(time.time() * 1000)
    (change,) = change_overrides(tmp_path, {ANCHOR: False}, "odd anchors", fine)
    assert (change.key, change.old) == (ANCHOR, None)
    entry = read_entries(tmp_path)[ANCHOR]
    assert (entry.value, entry.why) == (False, "odd anchors")
    assert entry.who
    assert began_ms <= (entry.since_ms or 0) <= time.time() * 1000
    assert change_overrides(tmp_path, {ANCHOR: False, POLL: CLEAR}, "again", fine) == []
    assert read_entries(tmp_path)[ANCHOR] == entry
    change_overrides(tmp_path, {ANCHOR: CLEAR, POLL: 5}, "well again", fine)
    assert values(tmp_path) == {POLL: 5.0}
    told = [(line["key"], line["old"], line["new"], line["why"]) for line in audit(tmp_path)]
    assert told == [
        (ANCHOR, None, False, "odd anchors"), (ANCHOR, False, None, "well again"), (POLL, None, 5.0, "well again")
    ]  # fmt: skip
    for name in ("overrides.json", "overrides.last.json", "overrides.lock", "audit.jsonl"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_all_or_none(tmp_path: Path) -> None:
    """One value that is not allowed, or a whole that does not fit, and nothing is changed."""
    change_overrides(tmp_path, {POLL: 5}, "first", fine)
    before = (tmp_path / "overrides.json").read_bytes()

    def refuse(_: Any) -> None:
        raise SettingsError("no")

    for changes, check in (({POLL: 6, "RETRY_BASE_S": -1}, fine), ({POLL: 6, "PULL_S": 1}, fine), ({POLL: 6}, refuse),
                           ({"STATE_DIR": "x", POLL: 6}, fine)):  # fmt: skip
        with pytest.raises(SettingsError):
            change_overrides(tmp_path, changes, "no", check)
        assert (tmp_path / "overrides.json").read_bytes() == before


def test_what_somebody_else_changed_since_is_left(tmp_path: Path) -> None:
    """`only` names the override that a change goes by."""
    change_overrides(tmp_path, {POLL: 5, ANCHOR: False}, "mine", fine)
    mine = read_entries(tmp_path)
    change_overrides(tmp_path, {POLL: 7}, "theirs", fine)
    changed = change_overrides(tmp_path, {POLL: CLEAR, ANCHOR: CLEAR}, "undo", fine, only=mine)
    assert [change.key for change in changed] == [ANCHOR]
    assert values(tmp_path) == {POLL: 7.0}
    old = Override(3.0, 12345, "ann", "host", "long ago")
    change_overrides(tmp_path, {POLL: old}, "as it was", fine)
    assert read_entries(tmp_path)[POLL] == old


def test_a_broken_file_is_set_aside_and_the_last_good_one_counts(tmp_path: Path) -> None:
    """A rollback may stand in it: nothing of it is lost."""
    change_overrides(tmp_path, {ANCHOR: False}, "rollback", fine)
    (tmp_path / "overrides.json").write_text('{"v": 1, "overrides": {"FEATURE_AN')
    entries, trouble = peek_entries(tmp_path)
    assert entries[ANCHOR].value is False
    assert "is broken" in trouble
    change_overrides(tmp_path, {POLL: 5}, "go on", fine)
    assert values(tmp_path) == {ANCHOR: False, POLL: 5.0}
    assert (tmp_path / "overrides.json.bad-1").read_text().endswith("FEATURE_AN")


def test_two_writers_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key that either has set is there; the file parses at every moment."""
    monkeypatch.setattr(override_file, "LOCK_S", 600.0)  # on a slow disk the other one has its turn after a long while
    keys = [name for name, setting in registry().items() if setting.kind == "float" and setting.ge is not None][:8]
    stop, broken = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                read_entries(tmp_path)
            except SettingsError as error:
                broken.append(error)

    def write(mine: list[str]) -> None:
        for _ in range(15):
            for key in mine:
                change_overrides(tmp_path, {key: registry()[key].default}, "x", fine)
                change_overrides(tmp_path, {key: CLEAR}, "x", fine)
        change_overrides(tmp_path, {key: registry()[key].default for key in mine}, "x", fine)

    threads = [threading.Thread(target=read)] + [threading.Thread(target=write, args=(keys[k::2],)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    stop.set()
    threads[0].join()
    assert set(values(tmp_path)) == set(keys)
    assert not broken


def test_a_lock_that_is_held_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever."""
    monkeypatch.setattr(override_file, "LOCK_S", 0.1)
    with override_file._locked(tmp_path), pytest.raises(UsageError, match="held by another command"):
        change_overrides(tmp_path, {POLL: 5}, "x", fine)


@pytest.mark.parametrize("failing", ["append_audit", "write_atomic"])
def test_a_disk_that_is_full_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """One line, and the overrides are what they were."""
    change_overrides(tmp_path, {POLL: 5}, "x", fine)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(override_file, failing, full)
        with pytest.raises(UsageError, match="No space left"):
            change_overrides(tmp_path, {POLL: 6, ANCHOR: False}, "x", fine)
    assert values(tmp_path) == {POLL: 5.0}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.dictionaries(
    st.sampled_from([*registry(), "NO_SUCH", "__class__"]),
    st.fixed_dictionaries({"value": JSON | st.booleans() | st.floats(0, 10)}, optional={"since_ms": JSON, "who": JSON})
    | JSON,
    max_size=4,
)


FILES = int(os.environ.get("TRADINGBOT_TEST_FILES", "250"))  # ten thousand now and then
HOW = st.sampled_from(["whole", "cut", "garbled", "bytes"])


@given(ENTRIES, st.integers(0, 400), HOW, st.binary(max_size=60))
@settings(max_examples=FILES)
def test_a_running_bot_keeps_its_last_good_settings_whatever_the_file_holds(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Any], place: int, how: str, noise: bytes
) -> None:
    """Never an exception, never half of a set: adopted whole, or refused whole; and a command can always go on."""
    home = tmp_path_factory.mktemp("home")
    state = home / "state"
    state.mkdir()
    change_overrides(state, {ANCHOR: False}, "good", fine)
    live = LiveSettings(effective(home), fine)
    live.look()
    before = live.settings
    document = {"v": 1, "overrides": entries}
    text = json.dumps(document).encode() if how != "bytes" else noise
    text = text[:place] if how == "cut" else text.replace(b":", noise, 1) if how == "garbled" else text
    path = state / "overrides.json"
    path.with_suffix(".tmp").write_bytes(text)
    path.with_suffix(".tmp").replace(path)
    adopted = live.look()
    now = live.settings
    if not adopted:
        assert now == before
    else:
        given_ = json.loads(text)["overrides"]
        for name, setting in registry().items():
            told = given_.get(name, {}).get("value", setting.default) if not setting.restart else setting.default
            if name != "GLOBAL_TRADING":
                assert getattr(now, name) == (tuple(told) if isinstance(told, list) else told)
    change_overrides(state, {POLL: 5}, "whatever it held", fine)
    assert read_entries(state)[POLL].value == 5.0


@given(st.dictionaries(st.sampled_from([*registry(), "NO_SUCH"]), JSON, max_size=4), st.integers(0, 400), HOW,
       st.binary(max_size=60))  # fmt: skip
@settings(max_examples=FILES)
def test_a_settings_file_of_any_kind_is_adopted_whole_or_refused_whole(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Any], place: int, how: str, noise: bytes
) -> None:
    """tradingbot.toml half written, garbled, of wrong types and names: one line, never an exception."""
    home = tmp_path_factory.mktemp("home")
    live = LiveSettings(effective(home), fine)
    live.look()
    before = live.settings
    lines = (f"{name} = {json.dumps(value)}" for name, value in entries.items() if value is not None)
    text = "\n".join(lines).encode() if how != "bytes" else noise
    text = text[:place] if how == "cut" else text.replace(b"=", noise, 1) if how == "garbled" else text
    path = home / "tradingbot.toml"
    path.with_suffix(".tmp").write_bytes(text)
    path.with_suffix(".tmp").replace(path)
    if not live.look():
        assert live.settings == before
    with suppress(UsageError):
        now = effective(home).settings
        live_names = [name for name, setting in registry().items() if not setting.restart]
        assert all(getattr(live.settings, name) == getattr(now, name) for name in live_names)


def test_a_hundred_thousand_flips_and_no_tick_sees_two_settings() -> None:
    """The engine takes a whole settings object between two ticks: reference and threshold are always of one of them."""
    rng = random.Random(1)
    engine = Engine(make_settings({}))
    one = make_settings({"DROP_TRIGGER_VALUE": 0.99, "DEBOUNCE_S": 0, "WINDOW_LOOKBACK_S": 60})
    two = make_settings({ANCHOR: False, "DROP_TRIGGER_VALUE": 0.98, "DEBOUNCE_S": 0, "WINDOW_LOOKBACK_S": 60})
    pairs = {("anchor", 0.99), ("legacy_peak", 0.98)}
    flipping, done, decided = [one, two], threading.Event(), 0
    flips = 0
    shared = [one]

    def flip() -> None:
        nonlocal flips
        while flips < 100_000:
            flips += 1
            shared[0] = flipping[flips % 2]
        done.set()

    thread = threading.Thread(target=flip)
    thread.start()
    from tradingbot.engine.events import SettingsChanged

    number = 0
    while not done.is_set() or number < 20_000:
        number += 1
        if engine.settings is not (now := shared[0]):
            engine.process(SettingsChanged(now))
        price = 100 * (1 - 0.03 * rng.random())
        for output in engine.process(Ticker("BTC/USDT", 1_700_000_000_000 + number * 250, price)):
            if isinstance(output, Decision):
                decided += 1
                ratio = output.threshold / output.reference
                assert (output.reference_source, round(ratio, 9)) in pairs
    thread.join()
    assert decided > 100


def test_global_trading_off_in_any_layer_is_off(tmp_path: Path) -> None:
    """Whoever says off wins, and the commands say so."""
    (tmp_path / "tradingbot.toml").write_text("GLOBAL_TRADING = false\n")
    change_overrides(tmp_path / "state", {"GLOBAL_TRADING": True}, "on", fine)
    assert effective(tmp_path).settings.GLOBAL_TRADING is False
    assert effective(tmp_path, {"GLOBAL_TRADING": "true"}).settings.GLOBAL_TRADING is False
    (tmp_path / "tradingbot.toml").unlink()
    assert effective(tmp_path).settings.GLOBAL_TRADING is True
    assert effective(tmp_path, {"GLOBAL_TRADING": "false"}).settings.GLOBAL_TRADING is False
    shown = call(tmp_path, "set", "GLOBAL_TRADING=true", "--set", "GLOBAL_TRADING=false")
    assert shown.returncode == 2
    assert "held back by --set" in shown.stdout or "no change" in shown.stdout, shown.stdout


def test_an_override_wins_over_what_the_environment_pins(tmp_path: Path) -> None:
    """A rollback works however a setting was pinned."""
    pinned = effective(tmp_path, {ANCHOR: "true"})
    switch(plan_switch(pinned, {ANCHOR: False}), "rollback")
    assert effective(tmp_path, {ANCHOR: "true"}).settings.FEATURE_ANCHOR_ENABLED is False


def test_a_bot_adopts_a_hundred_flips_and_its_record_is_proved(tmp_path: Path) -> None:
    """By the real command, and by the file; each flip is one journalled input; prove passes over them all."""
    words = ("--set", "EMBEDDED_SPEED=30", "--set", "DROP_TRIGGER_VALUE=0.998", "--set", "EMBEDDED_SYMBOLS=3")
    state = tmp_path / "state"
    with bot(tmp_path, *words) as process:
        done = call(tmp_path, "flags", "set", f"{ANCHOR}=off", "--yes", "--why", "odd anchors", "--json")
        assert done.returncode == 0, done.stderr
        assert orjson.loads(done.stdout)["adopted"] is True
        told = status_of(tmp_path)
        assert told["flags"][ANCHOR] is False
        (row,) = told["overrides"]
        assert (row["key"], row["value"], row["why"]) == (ANCHOR, False, "odd anchors")
        assert row["since_ms"]
        assert all(row["reference_source"] == "legacy_peak" for row in told["symbols"])
        shown = call(tmp_path, "flags")
        assert "by" in shown.stdout
        assert "odd anchors" in shown.stdout
        for number in range(100):
            change_overrides(state, {ANCHOR: bool(number % 2)}, str(number), fine)
            time.sleep(0.02)
        assert call(tmp_path, "clear", "--all", "--yes", "--why", "well again").returncode == 0
        assert status_of(tmp_path)["flags"][ANCHOR] is True
        assert status_of(tmp_path)["overrides"] == []
        process.terminate()
        assert process.wait(120) == 0
    proof = prove(state)
    assert proof.exit_code == 0, proof.text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("flags", "set", "FEATURE_ANKER=off"), "did you mean FEATURE_ANCHOR_ENABLED"),
        (("flags", "set", "POLL_S=5"), "no flag"),
        (("flags", "set", "FEATURE_ANCHOR_ENABLED=perhaps"), "not allowed"),
        (("flags", "set"), "NAME=on"),
        (("set", "POLL_S=2", "--yes"), "say why"),
        (("set", "PULL_S=2", "--yes", "--why", "x"), "POLL_S"),
        (("set", "STATE_DIR=x", "--yes", "--why", "x"), "STATE_DIR"),
        (("set", "MAX_ORDER_QUOTE=1000", "--yes", "--why", "x"), "do not go together"),
        (("clear",), "takes settings"),
        (("clear", "NOPE", "--yes", "--why", "x"), "NOPE"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, words: tuple[str, ...], complaint: str) -> None:
    """Exit 2, and nothing is written."""
    done = call(tmp_path, *words)
    assert done.returncode == 2, done.stdout
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "state" / "overrides.json").exists()


def test_without_a_terminal_and_without_yes_only_the_plan_is_shown(tmp_path: Path) -> None:
    """Exit 2; the plan names what would change."""
    done = subprocess.run(
        command(tmp_path, "set", "POLL_S=9", "--why", "x"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "POLL_S: 2.5 becomes 9.0 (live)" in done.stdout
    assert not (tmp_path / "state" / "overrides.json").exists()


def test_the_registry_names_what_there_is() -> None:
    """Each flag's modules and tests exist; live or at the next start as its setting says; none is a retired name."""
    from tests.conftest import ROOT
    from tradingbot.features import RETIRED

    for name, flag in FLAGS.items():
        assert flag.restart == registry()[name].restart
        assert all((ROOT / "tradingbot" / module).is_file() for module in flag.modules), flag.modules
        assert all((ROOT / "tests" / test).is_file() for test in flag.tests), flag.tests
        assert name not in RETIRED
