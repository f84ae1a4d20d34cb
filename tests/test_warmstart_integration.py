"""The warm start: killed at any write, the bot comes back as one that never stopped."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lives import Death, Killed, Life, Never, decisions_on_disk, essence
from tests.sessions import PAPER_START, SETTINGS, START_MS, STEPS, Steps, lively_settings, random_steps, to_inputs
from tradingbot.config import Settings, make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import AnchorReset, Condition, ConditionName, Decision, Input, SettingsChanged
from tradingbot.errors import StateError
from tradingbot.io.lines import encode
from tradingbot.io.saved import ANCHORS, CHECKPOINT
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.prove import prove
from tradingbot.services.warm_start import recover

pytestmark = pytest.mark.feature("FEATURE_WARMSTART_TICKS")

BTC, ETH = "BTC/USDT", "ETH/USDT"
T = START_MS


def inputs_of(steps: Steps, start: float) -> list[Input]:
    """Return what a bot is told; nobody but a start says `restart`."""
    told = to_inputs(steps, start)
    return [e for e in told if not (isinstance(e, Condition) and e.name is ConditionName.RESTART)]


def live_and_die(state: Path, config: Settings, told: list[Input], after: int, ends: bool, never: Never) -> Settings:
    """Live one life up to its death at the `after`th write, beside the bot that never stopped."""
    life = Life(state, config)
    if life.recovered.kind == "warm":
        assert not life.recovered.troubles
        assert essence(life.engine)["symbols"] == essence(never.engine)["symbols"]
        assert essence(life.engine) == essence(never.engine)
    else:
        never.__init__(config)  # type: ignore[misc]
    try:
        with Death(after):
            life.begin()
            for event in told:
                life.tell(event)
            if ends:
                life.end()
    except Killed:
        pass
    life.release()
    never.take(life)
    never.dies()
    return life.settings


def assert_whole(state: Path, config: Settings, never: Never) -> None:
    """See that engine, journal and proof agree with the bot that never stopped."""
    last = Life(state, config)
    assert essence(last.engine) == essence(never.engine)
    last.begin()
    last.end()
    assert decisions_on_disk(state) == never.decided
    proof = prove(state)
    assert all(session.verdict != "differs" for session in proof.sessions), proof.text()
    assert not proof.report.damaged


@given(SETTINGS, PAPER_START, STEPS, st.lists(st.integers(0, 60), min_size=1, max_size=4), st.data())
@settings(max_examples=120)
def test_killed_at_any_write_it_comes_back_as_one_that_never_stopped(
    chosen: dict[str, Any], start: float, steps: Steps, deaths: list[int], data: st.DataObject
) -> None:
    """Windows, anchors, triggers, orders, positions, cash: equal, but for ticks not on disk and triggers blocked."""
    config = make_settings({**chosen, "PAPER_START_QUOTE": start})
    inputs = inputs_of(steps, start)
    with tempfile.TemporaryDirectory() as folder:
        never = Never(config)
        for after in [*deaths, 10**9]:
            take = len(inputs) if after == 10**9 else data.draw(st.integers(0, len(inputs)))
            told, inputs = inputs[:take], inputs[take:]
            config = live_and_die(Path(folder), config, told, after, data.draw(st.booleans()), never)
        assert_whole(Path(folder), config, never)
        note(f"blocked: {sum('restart' in reasons for reasons in never.decided.values()) > 0}")


def test_killed_at_every_single_write_of_a_session_and_again_while_it_comes_back(tmp_path: Path) -> None:
    """Every death of a lively session, each followed by a death in the first writes of the next start."""
    rng = random.Random(5)
    config = make_settings(lively_settings(rng) | {"GLOBAL_TRADING": True, "DROP_TRIGGER_VALUE": 0.995})
    inputs = inputs_of(random_steps(rng, 60), 1000)
    blocked = 0
    for after in range(200):
        state = tmp_path / str(after)
        state.mkdir()
        never = Never(config)
        then = live_and_die(state, config, inputs, after, False, never)
        then = live_and_die(state, then, [], after % 4, False, never)
        assert_whole(state, then, never)
        blocked += sum("restart" in reasons for reasons in never.decided.values())
        if len(never.decided) == len(decided_without_death(config, inputs)):
            break
    assert blocked > 2
    assert len(never.decided) > 4, "the last death came after the last decision"


def decided_without_death(config: Settings, inputs: list[Input]) -> list[Decision]:
    engine = Engine(config)
    return [output for event in inputs for output in engine.process(event) if isinstance(output, Decision)]


def ticks(*rows: tuple[float, float], symbol: str = BTC) -> list[Input]:
    """Return tickers at (seconds, price)."""
    return [Ticker(symbol, T + int(seconds * 1000), price, price, price) for seconds, price in rows]


def after_a_kill(state: Path, told: list[Input], **chosen: Any) -> Life:
    """Tell a bot all this, kill it when all is written, and return the engine that died."""
    life = Life(state, make_settings(chosen))
    life.begin()
    for event in told:
        life.tell(event)
    life.flush()
    return life


@pytest.mark.parametrize("last_s", [30, 400])
def test_a_window_whose_lookback_grew_under_way_keeps_what_it_held(tmp_path: Path, last_s: float) -> None:
    """A tick that had left the window does not come back with the warm start either, until one lookback after."""
    short, long = make_settings({"WINDOW_LOOKBACK_S": 5}), make_settings({"WINDOW_LOOKBACK_S": 300})
    rows = [(0.0, 120.0), (8.0, 100.0), (9.0, 101.0), (10.0, 100.0)]
    told = [*ticks(*rows), SettingsChanged(long), *ticks((11, 100.5), (last_s, 100.2))]
    state = tmp_path / "state"
    state.mkdir()
    died = after_a_kill(state, told, WINDOW_LOOKBACK_S=short.WINDOW_LOOKBACK_S)
    again = Life(state, long)
    assert again.recovered.source == "checkpoint"
    assert essence(again.engine) == essence(died.engine)
    assert again.engine.states[BTC].window.peak == (101.0 if last_s == 30 else 100.2)


def test_what_is_not_recorded_comes_back_out_of_the_checkpoint(tmp_path: Path) -> None:
    """With the streams off nothing of the ticks is on disk; what was decided stands, at most CHECKPOINT_S are lost."""
    off = {"FEATURE_PERSIST_STREAMS": False, "GLOBAL_TRADING": True, "PAPER_LATENCY_MS": 3000}
    rows = [(float(second), 100.0) for second in range(20)]
    died = after_a_kill(tmp_path, [*ticks(*rows), *ticks((20, 97.0), (20.5, 97.1))], **off)
    assert died.engine.states[BTC].order is not None
    again = Life(tmp_path, died.settings)
    state, before = again.engine.states[BTC], died.engine.states[BTC]
    assert state.order == before.order
    assert (state.armed, state.triggers, state.window.peak) == (False, 1, 100.0)
    again.begin()
    again.tell(*ticks((24, 97.2)))
    assert list(again.engine.portfolio.positions) == [BTC]
    again.flush()
    positions = Life(tmp_path, died.settings).engine.portfolio
    assert positions.positions == again.engine.portfolio.positions
    assert positions.account.cash == again.engine.portfolio.account.cash < 1000


def test_what_the_journal_holds_of_lost_ticks_is_taken_over_as_it_stands(tmp_path: Path) -> None:
    """Ticks are off and the checkpoint never gets there: entry, fill, exit and trade are folded in from the journal."""
    chosen = {"FEATURE_PERSIST_STREAMS": False, "GLOBAL_TRADING": True, "DROP_TRIGGER_VALUE": 0.99}
    life = Life(tmp_path, make_settings(chosen))
    life.begin()
    kept = (tmp_path / CHECKPOINT).read_bytes()
    rows = [(0, 100), (1, 98.5), (2, 98.5), (3, 99.5), (4, 99.5), (5, 99.4), (900, 99.4), (2000, 97), (2001, 97)]
    for event in ticks(*[(float(s), float(p)) for s, p in rows]):
        life.tell(event)
    life.flush()
    (tmp_path / CHECKPOINT).write_bytes(kept)  # as if no later one had come to the disk
    again, before = Life(tmp_path, life.settings), life.engine
    assert before.portfolio.account.losses_in_row == 0
    assert len(before.portfolio.positions) == 1
    assert essence(again.engine)["account"] == essence(before)["account"]
    ours, theirs = again.engine.portfolio.positions[BTC], before.portfolio.positions[BTC]
    assert (ours.entry, ours.qty, ours.fee, ours.entry_ms) == (theirs.entry, theirs.qty, theirs.fee, theirs.entry_ms)
    one, two = again.engine.states[BTC], before.states[BTC]
    assert (one.triggers, one.last_exit_ms, one.order) == (two.triggers, two.last_exit_ms, None)
    assert not one.armed, "the tick that armed it again is lost: it waits for the next one"


def trades_then_stops(state: Path, **chosen: Any) -> Life:
    """Let a bot buy, and stop it cleanly."""
    life = Life(state, make_settings({"GLOBAL_TRADING": True, **chosen}))
    life.begin()
    told = [*ticks((0, 100.0), (1, 101.0), (2, 98.0), (3, 98.1)), *ticks((0, 50.0), (3, 50.5), symbol=ETH)]
    for event in sorted(told, key=lambda event: event.ts_ms):  # type: ignore[union-attr]
        life.tell(event)
    life.end()
    assert list(life.engine.portfolio.positions) == [BTC]
    return life


def test_a_cold_start_keeps_what_was_bought_and_the_anchors(tmp_path: Path) -> None:
    """With the flag off windows, sessions and triggers begin anew; anchors come from anchors.json, and are clamped."""
    before = trades_then_stops(tmp_path).engine
    life = Life(tmp_path, before.settings, T + 10_000, warm=False)
    engine = life.engine
    assert (life.recovered.kind, life.recovered.symbols, life.recovered.ticks) == ("cold", 0, 0)
    assert essence(engine)["account"] == essence(before)["account"]
    assert engine.portfolio.positions == before.portfolio.positions
    state = engine.states[BTC]
    assert (state.fresh, state.armed, state.triggers, state.window.peak) == (True, True, 0, None)
    assert state.anchor is not None
    assert state.anchor.price == before.states[BTC].anchor.price  # type: ignore[union-attr]
    assert state.loaded
    outputs = engine.process(Ticker(BTC, T + 11_000, 80.0))
    anchor = engine.states[BTC].anchor
    assert anchor is not None
    assert anchor.price == pytest.approx(80 * 1.005), "an old anchor far above the market is clamped"
    assert outputs


def test_without_a_checkpoint_the_last_ticks_build_it_and_nothing_fires(tmp_path: Path) -> None:
    """Window, session and anchor from the tails; `armed` is whether the last tick lies above the re-arming price."""
    before = trades_then_stops(tmp_path).engine
    (tmp_path / CHECKPOINT).unlink()
    life = Life(tmp_path, before.settings, T + 10_000)
    engine = life.engine
    assert (life.recovered.kind, life.recovered.source, life.recovered.ticks) == ("warm", "ticks", 6)
    assert engine.portfolio.positions == before.portfolio.positions
    assert essence(engine)["account"] == essence(before)["account"]
    for symbol in (BTC, ETH):
        ours, theirs = engine.states[symbol], before.states[symbol]
        assert (ours.window.points(), ours.ts_ms, ours.last) == (theirs.window.points(), theirs.ts_ms, theirs.last)
        assert (ours.triggers, ours.session_start, ours.session_peak) == (0, theirs.session_start, theirs.session_peak)
        assert ours.armed == (symbol == ETH)


def test_only_so_many_ticks_are_read_as_the_window_needs(tmp_path: Path) -> None:
    """WARMSTART_MAX_TICKS of each symbol, more where the window is longer."""
    chosen = {"WARMSTART_MAX_TICKS": 10, "WINDOW_LOOKBACK_S": 5}
    told = [e for second in range(100) for e in ticks((second, 100.0 + second % 7))]
    told += [e for k in range(100) for e in ticks((99 + k / 100, 50.0), symbol=ETH)]
    after_a_kill(tmp_path, told, **chosen)
    (tmp_path / CHECKPOINT).unlink()
    life = Life(tmp_path, make_settings(chosen), T + 100_000)
    assert life.recovered.ticks == 10 + 100
    assert life.recovered.tick_ranges[BTC] == (
        (life.recovered.tick_ranges[BTC][0][0], 91),
        (life.recovered.tick_ranges[BTC][0][0], 100),
    )


def test_a_symbol_that_was_silent_for_too_long_starts_cold(tmp_path: Path) -> None:
    """And only that one; the line says so."""
    told = [*ticks((0, 50.0), symbol=ETH), *ticks((0, 100.0), (3601, 101.0))]
    died = after_a_kill(tmp_path, told)
    life = Life(tmp_path, died.settings, T + 3_601_000)
    assert list(life.recovered.cold) == [ETH]
    assert (life.engine.states[ETH].fresh, life.engine.states[BTC].fresh) == (True, False)
    assert "cold=1 (ETH/USDT: silent for 1.0 h)" in life.recovered.line()


def test_after_its_time_the_rest_of_a_warm_start_is_cold(tmp_path: Path) -> None:
    """No start takes longer than WARMSTART_MAX_S; what was not read begins anew, and the line says so."""
    died = after_a_kill(tmp_path, [*ticks((0, 100.0), (1, 101.0)), *ticks((0, 50.0), symbol=ETH)])
    died.end()
    clock = iter(range(0, 10_000, 2))
    found = recover(tmp_path, died.settings, {}, T + 5000, lambda: float(next(clock)))
    assert found.cold == {ETH: "WARMSTART_MAX_S are over"}
    assert not found.engine.states[BTC].fresh
    assert found.engine.states[ETH].fresh


def test_damaged_files_are_kept_aside_named_and_got_over(tmp_path: Path) -> None:
    """A changed digit in checkpoint.json and anchors.json: the ticks build it, the anchors before them count."""
    before = trades_then_stops(tmp_path).engine
    for name in (CHECKPOINT, ANCHORS):
        path = tmp_path / name
        path.write_bytes(path.read_bytes().replace(b'_ms":1', b'_ms":2', 1))
    life = Life(tmp_path, before.settings, T + 10_000)
    assert life.recovered.source == "ticks"
    assert len(life.recovered.troubles) == 3
    assert (tmp_path / "checkpoint.json.bad-1").exists()
    assert (tmp_path / "anchors" / "anchors.json.bad-1").exists()
    assert "anchors.last.json" in life.recovered.troubles[-1]
    assert life.engine.portfolio.positions == before.portfolio.positions
    assert life.engine.states[BTC].anchor is not None


def test_anchors_are_found_in_the_stream_where_both_files_are_bad(tmp_path: Path) -> None:
    """The newest change of each symbol counts."""
    before = trades_then_stops(tmp_path).engine
    for name in (ANCHORS, "anchors/anchors.last.json"):
        (tmp_path / name).write_bytes(b"\0" * 100)
    life = Life(tmp_path, before.settings, T + 10_000, warm=False)
    assert "the stream of anchors" in life.recovered.troubles[-1]
    for symbol in (BTC, ETH):
        ours, theirs = life.engine.states[symbol].anchor, before.states[symbol].anchor
        assert ours is not None
        assert theirs is not None
        assert (ours.price, ours.set_ms) == (theirs.price, theirs.set_ms)


def test_anchors_written_by_hand_are_believed_and_old_or_odd_ones_are_not(tmp_path: Path) -> None:
    """No checksum: a person's file. Discarded ones are named with why."""
    path = tmp_path / ANCHORS
    path.parent.mkdir()
    hour = 3_600_000
    anchors = {
        BTC: {"price": 100, "set_ms": T - hour}, ETH: {"price": 50.0, "set_ms": T - 25 * hour},
        "A/USDT": {"price": -1.0, "set_ms": T}, "B/USDT": {"price": 1.0, "set_ms": T + hour},
    }  # fmt: skip
    path.write_text(orjson.dumps({"v": 1, "anchors": anchors}, option=orjson.OPT_INDENT_2).decode())
    life = Life(tmp_path, make_settings({}), T)
    assert {symbol for symbol, state in life.engine.states.items() if state.anchor is not None} == {BTC}
    assert life.recovered.discarded == {
        ETH: "25.0 h old", "A/USDT": "price -1.0 is not a finite positive number", "B/USDT": "set 3600 s in the future"
    }  # fmt: skip


def test_anchors_of_a_time_without_them_are_not_taken_up_again(tmp_path: Path) -> None:
    """The flag went off after they were saved: on again, at a later cold start, it is as with no anchor yet."""
    before = trades_then_stops(tmp_path).engine
    off = msgspec.structs.replace(before.settings, FEATURE_ANCHOR_ENABLED=False)
    life = Life(tmp_path, off, T + 10_000)
    life.begin()
    life.end()
    for warm in (False, True):
        again = Life(tmp_path, before.settings, T + 20_000, warm=warm)
        again.begin()
        assert all(state.anchor is None for state in again.engine.states.values())


def test_a_reset_just_before_the_kill_holds(tmp_path: Path) -> None:
    """The next tick begins the symbol's session, window and anchor anew."""
    died = after_a_kill(tmp_path, [*ticks((0, 100.0), (1, 105.0)), AnchorReset(BTC)])
    life = Life(tmp_path, died.settings, T + 2000)
    life.begin()
    life.tell(*ticks((3, 101.0)))
    anchor = life.engine.states[BTC].anchor
    assert anchor is not None
    assert (anchor.price, anchor.set_cause) == (101.0, "reset")


def test_records_that_are_no_ticks_are_got_over(tmp_path: Path) -> None:
    """A right checksum and another schema: that symbol starts cold, and the line says so."""
    died = after_a_kill(tmp_path, ticks((0, 100.0), (1, 101.0)))
    folder = tmp_path / "drop_windows" / "ticks"
    odd = {"v": 1, "sid": "~", "ts_ms": "x", "seq": 3, "symbol": "C/USDT", "last": []}
    records = {"A": {"v": 1, "sid": "s", "ts_ms": 1, "seq": 1}, "B": {"v": 1, "sid": "~", "seq": 1}, "C": odd}
    for name, record in records.items():
        (folder / f"{name}_USDT_20231115_0000.jsonl").write_bytes(encode(record))
    for warm in (True, False):
        life = Life(tmp_path, died.settings, T + 2000, warm=warm)
        assert life.engine.states[BTC].fresh is not warm
    (tmp_path / CHECKPOINT).unlink()
    assert not Life(tmp_path, died.settings, T + 2000).engine.states[BTC].fresh


@pytest.mark.parametrize("name", [CHECKPOINT, "journal"])
def test_what_is_there_and_cannot_be_read_is_not_taken_for_absent(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start without it could forget what was bought, so there is none: one line, exit 4."""
    died = trades_then_stops(tmp_path)
    real = os.open if name == CHECKPOINT else Path.open

    def failing(path: Any, *rest: Any, **options: Any) -> Any:
        if name in str(path):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "open") if name == CHECKPOINT else (Path, "open")), failing)
        with pytest.raises(StateError, match="could forget what was bought"):
            Life(tmp_path, died.settings, T + 2000)
    assert Life(tmp_path, died.settings, T + 2000).engine.portfolio.positions


def test_ticks_after_the_checkpoint_are_found_behind_a_gap_record(tmp_path: Path) -> None:
    """A gap in the middle of what is caught up hides nothing before it."""
    life = after_a_kill(tmp_path, [*ticks((0, 100.0), (1, 101.0))])
    kept = (tmp_path / CHECKPOINT).read_bytes()
    life.tell(*ticks((2, 102.0)))
    life.flush()
    path = next((tmp_path / "drop_windows" / "ticks").glob("BTC*.jsonl"))
    with path.open("ab") as file:
        file.write(encode({"v": 1, "sid": life.sid, "ts_ms": T + 2500, "type": "gap", "missing": 1}))
    life.tell(*ticks((3, 101.5)))
    life.flush()
    (tmp_path / CHECKPOINT).write_bytes(kept)
    again = Life(tmp_path, life.settings, T + 4000)
    assert again.recovered.caught_up >= 2
    assert essence(again.engine) == essence(life.engine)
