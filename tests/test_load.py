"""What is recorded, as DataFrames: every line, with its types, of the symbols and the time that were asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import tradingbot as tb
from tests.damage import edit, make_state, series, signed
from tests.helpers import S, T
from tests.past import Past, records
from tests.sessions import SETTINGS, STEPS, Steps
from tests.test_compare import recorded
from tradingbot.config import make_settings
from tradingbot.engine.events import SettingsChanged
from tradingbot.errors import UsageError
from tradingbot.io.sealing import seal
from tradingbot.io.segments import list_segments
from tradingbot.research import load as module

ETH = "ETH/USDT"
DROP = ((0, 100.0, 99.9, 100.1), (1, 98.4, 98.3, 98.5), (2, 99.0, 98.9, 99.1))


def past(state: Path, **chosen: Any) -> Past:
    """Record a session with one trigger of each of two symbols."""
    made = Past(state, **chosen)
    made.feed(*DROP)
    made.feed(*((seconds + 60, *prices) for seconds, *prices in DROP), symbol=ETH)
    return made


def number(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan  # type: ignore[arg-type]


@settings(max_examples=25)
@given(SETTINGS, STEPS)
def test_every_tick_and_decision_that_was_written_is_there_and_nothing_else(
    chosen: dict[str, Any], steps: Steps
) -> None:
    """Law: the tables equal the lines, read one by one."""
    with recorded(chosen, steps) as state:
        found = tb.load(state=state)
        lines = sorted(records(state, "drop_windows/ticks"), key=lambda line: line["ts_ms"])
        ticks = found.ticks
        assert len(ticks) == len(lines)
        key = ["ts_ms", "symbol", "seq"]
        ours = ticks.assign(ts_ms=ticks.index.asi8, symbol=ticks["symbol"].astype(str)).sort_values(key)
        theirs = sorted(lines, key=lambda line: tuple(line[name] for name in key))
        for name in ("last", "bid", "ask", "bid_size", "ask_size", "quote_volume", "recv_ms"):
            told = [number(line.get(name)) for line in theirs]
            assert list(map(repr, ours[name].tolist())) == list(map(repr, told)), name
        assert ours["seq"].tolist() == [line["seq"] for line in theirs]
        journal = [line for line in records(state, "journal") if line["type"] == "decision"]
        assert found.decisions["decision_id"].tolist() == [line["decision_id"] for line in journal]
        assert found.decisions["threshold"].tolist() == [line["threshold"] for line in journal]
        assert len(found.snapshots) == len(records(state, "drop_windows/snapshots"))
        assert len(found.anchors) == len(records(state, "drop_windows/anchors"))
        assert len(found.windows) == len(records(state, "drop_windows/windows"))
        assert found.damaged == 0


def test_times_are_utc_in_milliseconds_also_where_there_is_no_row(tmp_path: Path) -> None:
    """Every table has its columns and types, whatever it holds."""
    past(tmp_path / "one").close()
    (tmp_path / "none").mkdir()
    for state in (tmp_path / "one", tmp_path / "none"):
        found = tb.load(state=state)
        for name in ("ticks", "snapshots", "windows", "anchors", "decisions", "fills", "exits", "trades", "rejections",
                     "settings_changes", "conditions", "sessions", "gaps"):  # fmt: skip
            frame = getattr(found, name)
            assert str(frame.index.dtype) == "datetime64[ms, UTC]", name
        assert str(found.ticks["last"].dtype) == "float64"
        assert str(found.decisions["window_peak_time"].dtype) == "datetime64[ms, UTC]"
    assert list(tb.load(state=tmp_path / "none").ticks.columns) == list(tb.load(state=tmp_path / "one").ticks.columns)


def test_symbols_and_times_choose_rows_of_streams_and_journal(tmp_path: Path) -> None:
    """`since` is included, `until` is not; a time is text, ms, or minutes back from the newest record."""
    past(tmp_path).close()
    assert set(tb.load(state=tmp_path, symbols=[ETH]).ticks["symbol"]) == {ETH}
    assert tb.load(state=tmp_path, symbols=ETH).decisions["symbol"].tolist() == [ETH]
    assert len(tb.load(state=tmp_path, until=T + 1_000).ticks) == 1
    assert len(tb.load(state=tmp_path, since=T + 1_000, until="2023-11-14T00:01:00").ticks) == 2
    assert len(tb.load(state=tmp_path, since=f"{T + 62_000}").ticks) == 1
    assert len(tb.load(state=tmp_path, since=0.5).ticks) == 3
    assert len(tb.load(state=tmp_path, since="0.5").decisions) == 1
    assert len(tb.load(state=tmp_path, since="2023-11-13", until="20231115").ticks) == 6


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"symbols": ["DOGE/USDT"]}, "'DOGE/USDT' is not recorded under .* BTC/USDT, ETH/USDT"),
        ({"symbols": [7]}, "symbols takes names"),
        ({"since": "yesterday"}, "since is no time: it takes 2026-11-23"),
        ({"until": -1}, "until is no time"),
        ({"since": True}, "since is no time"),
        ({"since": float("nan")}, "since is no time"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "is not before until"),
    ],
)
def test_what_cannot_be_chosen_is_one_line_that_says_what_can(tmp_path: Path, chosen: Any, says: str) -> None:
    """Bad input is a UsageError of one line."""
    past(tmp_path).close()
    with pytest.raises(UsageError, match=says) as caught:
        tb.load(state=tmp_path, **chosen)
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    """Loading makes nothing."""
    with pytest.raises(UsageError, match="there is no state directory"):
        tb.load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_home_and_its_state_directory_are_both_taken(tmp_path: Path) -> None:
    """`home` may be the one or the other; STATE_DIR is asked for."""
    past(tmp_path / "else").close()
    (tmp_path / "tradingbot.toml").write_text('STATE_DIR = "else"\n')
    assert len(tb.load(tmp_path).ticks) == len(tb.load(tmp_path / "else").ticks) == len(tb.load().ticks) == 6


def test_damaged_lines_are_left_out_counted_and_named(tmp_path: Path) -> None:
    """A changed digit and a torn middle are damage; a torn end may be a bot that writes."""
    state = make_state(tmp_path)
    whole = len(tb.load(state=state).ticks)
    first = series(state)[0]
    edit(first, 3, lambda line: line.replace(b'"last":', b'"last":1', 1))
    edit(first, 5, lambda line: line[:20] + b"\n")
    edit(first, 6, lambda line: signed(b'{"v":1,"sid":"x","ts_ms":"late","symbol":"A/B"'))
    with first.open("ab") as file:
        file.write(b'{"v":1,"sid":')
    found = tb.load(state=state)
    assert len(found.ticks) == whole - 3
    assert found.damaged == 3
    assert [place.split(":")[1] for place in found.damage] == ["3", "5", "6"]


def test_one_changed_digit_is_found_by_its_checksum(tmp_path: Path) -> None:
    """Where every line is JSON of the right form the checksum alone tells."""
    past(tmp_path).close()
    edit(series(tmp_path)[0], 2, lambda line: line.replace(b"98.4", b"98.5", 1))
    found = tb.load(state=tmp_path)
    assert len(found.ticks) == 5
    assert found.damaged == 1


def test_sealed_segments_read_as_plain_ones_did(tmp_path: Path) -> None:
    """The tables of a sealed day equal those of the same day before."""
    state = make_state(tmp_path)
    before = tb.load(state=state)
    ticks, snapshots, decisions = before.ticks, before.snapshots, before.decisions
    for folder in (state / "drop_windows").iterdir():
        for segment in list_segments(folder):
            seal(segment.path)
    for segment in list_segments(state / "journal"):
        seal(segment.path)
    after = tb.load(state=state)
    assert len(ticks)
    assert after.ticks.equals(ticks)
    assert after.snapshots.equals(snapshots)
    assert after.decisions.equals(decisions)
    assert len(tb.load(state=state, since="2030-01-01").ticks) == 0


def test_a_symbol_of_any_name_is_read_by_it(tmp_path: Path) -> None:
    """Names that a path, a page or a figure would take for something else; and one too long for a file."""
    hostile = ["../../ETC/X", "<script>/USDT", "$a$_b/USDT", "NUL\x00\x1b[2J/Q", "L" * 300 + "/USDT"]
    made = Past(tmp_path)
    for symbol in hostile:
        made.feed(*DROP, symbol=symbol)
    made.close()
    found = tb.load(state=tmp_path)
    assert set(found.symbols) == set(hostile)
    for symbol in hostile:
        assert len(tb.load(state=tmp_path, symbols=[symbol]).ticks) == 3
        assert len(found.ticks_of(symbol)) == 3


def test_what_was_not_recorded_is_a_row_with_its_reason(tmp_path: Path) -> None:
    """Without streams the journal still tells every decision; the stretch says why."""
    made = Past(tmp_path, FEATURE_PERSIST_STREAMS=False)
    made.recorder.snapshots_ms = None
    made.feed(*DROP)
    made.close()
    found = tb.load(state=tmp_path)
    assert len(found.ticks) == 0
    assert len(found.decisions) == 1
    assert found.gaps["why"].tolist() == ["FEATURE_PERSIST_STREAMS off"]
    assert found.symbols == [S]


def test_settings_that_change_number_the_stretches(tmp_path: Path) -> None:
    """Each decision names the stretch of settings that it came under, and each change stands in a table."""
    made = Past(tmp_path)
    made.feed(*DROP)
    made.control(SettingsChanged(make_settings({"DROP_TRIGGER_VALUE": 0.99})))
    made.feed((10, 100.0), (11, 98.8))
    made.close()
    found = tb.load(state=tmp_path)
    assert found.decisions["stretch"].tolist() == [1, 2]
    assert found.settings_changes[["key", "before", "after"]].values.tolist() == [
        ["DROP_TRIGGER_VALUE", "0.985", "0.99"]
    ]
    assert found.sessions["ended"].tolist() == ["stopped"]


def test_a_session_that_was_killed_is_said_to_be_cut_off(tmp_path: Path) -> None:
    """No end record: killed, or running."""
    past(tmp_path).close(end=False)
    assert tb.load(state=tmp_path).sessions["ended"].tolist() == ["cut off: killed, or running"]


def test_more_rows_than_one_table_can_hold_are_refused_and_read_symbol_by_symbol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is said with what to do."""
    past(tmp_path).close()
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    found = tb.load(state=tmp_path)
    with pytest.raises(UsageError, match=r"more than 3 ticks .* ticks_of"):
        _ = found.ticks
    assert len(found.ticks_of(S)) == 3
