"""Comparisons over several sessions, and over what of them is not recorded."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import S, T
from tests.lives import Life, Never
from tests.past import Past, records
from tests.recording import LIVELY, Recorded
from tests.test_compare import decided, journal
from tests.test_proof_of_gaps import minutes
from tests.test_warmstart_integration import live_and_die
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, SettingsChanged, Trade
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.compare import compare

ETH = "ETH/USDT"


def lives(state: Path, *told: list[Any], **chosen: Any) -> None:
    """Record sessions one after the other on one directory, each stopped cleanly."""
    for events in told:
        life = Life(state, make_settings(chosen), events[0].ts_ms)
        life.begin()
        for event in events:
            life.tell(event)
        life.end()


def rows(*points: tuple[float, float], symbol: str = S) -> list[Ticker]:
    return [Ticker(symbol, T + int(second * 1000), last, last, last, 1e9) for second, last in points]


def test_a_later_session_goes_on_with_what_each_side_holds(tmp_path: Path) -> None:
    """A position bought in one session is sold in the next, as by a bot that never stopped."""
    first, second = rows((0, 100.0), (1, 98.9), (2, 98.9)), rows((30, 99.0), (60, 99.6), (61, 99.7), (62, 98.0))
    lives(tmp_path, first, second, DROP_TRIGGER_VALUE=0.99)
    found = compare(tmp_path, {"GLOBAL_TRADING": True})
    alone = Engine(make_settings({"DROP_TRIGGER_VALUE": 0.99, "GLOBAL_TRADING": True}))
    outputs = [output for ticker in [*first, *second] for output in alone.tick(ticker)]
    ids = [output.decision_id for output in outputs if isinstance(output, Decision)]
    assert [trigger.decision.decision_id for trigger in found.ours.triggers] == ids
    (one,), (other,) = found.ours.trades, [output for output in outputs if isinstance(output, Trade)]
    assert (one.decision_id, one.exit_ms, one.pnl) == (other.decision_id, other.exit_ms, other.pnl)
    assert found.ours.final_equity_quote == alone.portfolio.equity(alone.states, alone.portfolio.account.cash)
    assert decided(found.theirs) == journal(tmp_path, "decision")
    assert len(found.sessions) == 2


def test_a_side_that_once_decided_otherwise_keeps_what_it_bought(tmp_path: Path) -> None:
    """Also where the recorded settings have come to be its own meanwhile."""
    chosen = {"DROP_TRIGGER_VALUE": 0.99, "TAKE_PROFIT_THRESHOLD": 2.0}
    trading = SettingsChanged(make_settings({**chosen, "GLOBAL_TRADING": True}))
    first = [*rows((0, 100.0), (1, 98.9), (2, 98.9)), trading, *rows((3, 98.9))]
    lives(tmp_path, first, rows((30, 99.0), (60, 99.6)), **chosen)
    found = compare(tmp_path, {"GLOBAL_TRADING": True})
    assert (found.ours.open_positions, found.theirs.open_positions) == (1, 0)


def test_decisions_bear_the_numbers_of_the_record_also_where_tickers_are_rejected(tmp_path: Path) -> None:
    """What one side rejects and only counts takes no number from those that follow."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.995)
    past.feed((0, 100.0), *((second, 100.0, 99.0, 101.0) for second in range(1, 31)), (40, 99.5))
    past.close()
    found = compare(tmp_path, {"TICKER_MAX_JUMP_PCT": 0.7})
    assert [trigger.decision.cause for trigger in found.ours.triggers] == [32]


def test_a_symbol_that_a_session_began_cold_begins_cold_on_both_sides(tmp_path: Path) -> None:
    """Silent for longer than ANCHOR_STALE_MINUTES: window and session anew; what was bought of it stays."""
    first = [*rows((0, 100.0), (1, 98.9), (2, 98.9)), *rows((3, 50.0), symbol=ETH)]
    second = [*rows((4000, 98.95), (4001, 97.9)), *rows((4002, 49.0), symbol=ETH)]
    lives(tmp_path, first, second, DROP_TRIGGER_VALUE=0.99)
    found = compare(tmp_path, {"GLOBAL_TRADING": True, "TRADE_TTL_MIN": 6000, "STOP_LOSS_THRESHOLD": 0.5})
    assert decided(found.theirs) == journal(tmp_path, "decision")
    assert found.ours.open_positions > 0
    by_time = {trigger.decision.ts_ms - T: trigger.decision for trigger in found.ours.triggers}
    assert by_time[4_001_000].decision_id == f"{S}:{T + 4_001_000}:1", "counted anew"
    assert by_time[4_001_000].reasons == ("held",)


@pytest.mark.parametrize("after", range(5, 120, 9))
def test_over_kills_and_starts_again_a_side_without_changes_decides_what_was_recorded(
    tmp_path: Path, after: int
) -> None:
    """Also what a start blocked because nobody had recorded it; but for the inputs named as not recorded."""
    chosen = make_settings({**LIVELY, "DEBOUNCE_S": 0, "CHECKPOINT_S": 1})
    inputs = [
        Ticker((S, ETH)[k % 2], T + k * 500, 100 - k * 7919 % 100 / 60, quote_volume=1e9) for k in range(1, 90)
    ]  # fmt: skip
    config, never = chosen, Never(chosen)
    config = live_and_die(tmp_path, config, inputs, after, False, never)
    live_and_die(tmp_path, config, inputs[60:], 10_000, False, never)
    found = compare(tmp_path, None, {"HYSTERESIS_BPS": 30})
    stretches = [(stretch.sid, range(stretch.first, stretch.last + 1)) for stretch in found.unrecorded]
    kept = [
        record for record in records(tmp_path, "journal") if record.get("type") == "decision"
        and not any(record["sid"] == sid and record["cause"] in numbers for sid, numbers in stretches)
    ]  # fmt: skip
    assert len(kept) > 3
    for record in kept:
        del record["v"], record["sid"]
    by_id = itemgetter("decision_id")
    assert sorted(decided(found.ours), key=by_id) == sorted(kept, key=by_id)


def test_behind_what_is_not_recorded_both_go_on_from_the_next_checkpoint(tmp_path: Path) -> None:
    """The stretch is named with its reason; what stands around it is compared."""
    run = Recorded(tmp_path)
    minutes(run, 5)
    run.recorder.snapshots_ms = None
    minutes(run, 20)
    run.recorder.snapshots_ms = 500
    minutes(run, 5)
    run.end()
    found = compare(tmp_path, None, {"GLOBAL_TRADING": False})
    (stretch,) = found.unrecorded
    assert stretch.why == "disk low"
    assert found.inputs == run.engine.seq - (stretch.last - stretch.first + 1)
    inside = [r for r in journal(tmp_path, "decision") if not stretch.first <= r["cause"] <= stretch.last]
    assert decided(found.ours) == inside
    assert found.theirs.final_equity_quote < 1000, "the account recorded there, with its fees"
    assert "not recorded: s, inputs" in found.text()


def test_a_tick_that_is_gone_ends_the_stretch_before_it(tmp_path: Path) -> None:
    """Nothing behind a hole can be told, up to the next checkpoint."""
    run = Recorded(tmp_path)
    minutes(run, 35)
    run.end()
    path = list_segments(tmp_path / FOLDERS[Stream.TICKS])[0].path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:100] + lines[101:]))
    (stretch,) = compare(tmp_path, {"HYSTERESIS_BPS": 1}).unrecorded
    assert stretch.first in (201, 202)
    assert stretch.last == 900


def test_a_running_bot_can_be_compared(tmp_path: Path) -> None:
    """Lines half written are no damage; where some symbols are behind others, it ends at the first that is absent."""
    run = Recorded(tmp_path)
    minutes(run, 5)
    run.flush()
    for stream, kept in ((JOURNAL, 0), (Stream.TICKS, 3)):
        path = list_segments(tmp_path / FOLDERS[stream])[0].path
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: len(lines) - kept]) + lines[-1][:50])
    found = compare(tmp_path, None, {"HYSTERESIS_BPS": 1})
    (stretch,) = found.unrecorded
    assert (found.damaged_lines, found.inputs) == (0, stretch.first - 1)
    assert run.engine.seq - 6 <= stretch.first <= stretch.last <= run.engine.seq
    assert "is running" in stretch.why


def test_the_last_minutes_begin_at_a_checkpoint_and_a_time_limit_ends_them(tmp_path: Path) -> None:
    """The decisions are those recorded behind it; cut off, the result says up to when it reached."""
    run = Recorded(tmp_path)
    minutes(run, 100)
    run.end()
    found = compare(tmp_path, {"HYSTERESIS_BPS": 50}, last_min=5)
    at = [record["checkpoint"]["seq"] for record in records(tmp_path, "journal") if record["type"] == "checkpoint"][-1]
    assert found.inputs == run.engine.seq - at
    assert decided(found.theirs) == [r for r in journal(tmp_path, "decision") if r["cause"] > at]
    assert decided(found.theirs)
    assert (found.is_cut_off, found.last_ms) == (False, run.now_ms)
    cut = compare(tmp_path, {"HYSTERESIS_BPS": 50}, limit_s=0)
    assert cut.is_cut_off
    assert 0 < cut.inputs < run.engine.seq
    assert "cut off" in cut.text()
    assert not compare(tmp_path, {"HYSTERESIS_BPS": 50}, limit_s=1e6).is_cut_off
