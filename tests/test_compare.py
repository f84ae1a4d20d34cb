"""Two settings over the same recorded inputs: what would have been decided otherwise."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from tests.helpers import S, T
from tests.past import Past, records
from tests.recording import Recorded
from tests.sessions import SETTINGS, STEPS, Steps, to_inputs
from tests.test_live import call
from tests.test_proof_of_gaps import minutes
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import SettingsChanged, Trade, to_record
from tradingbot.errors import SettingsError, UsageError
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, Stream, output_record
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.compare import compare
from tradingbot.ops.record.comparison import Comparison, Side
from tradingbot.ops.record.differences import Kind

ETH = "ETH/USDT"
MIRRORED = {Kind.GAINED: Kind.LOST, Kind.LOST: Kind.GAINED}
OBSERVING = ("--set", "DROP_TRIGGER_VALUE=0.996", "--set", "EMBEDDED_SYMBOLS=3")


def journal(state: Path, kind: str) -> list[dict[str, Any]]:
    """Return the journal's records of a kind, without what the session adds."""
    found = (record for record in records(state, "journal") if record.get("type") == kind)
    return [{name: value for name, value in record.items() if name not in ("v", "sid", "crc")} for record in found]


def as_json(document: Any) -> Any:
    return orjson.loads(orjson.dumps(document))


def decided(side: Side) -> list[dict[str, Any]]:
    """Return what a side decided, as the journal records it."""
    made = (as_json(output_record("", trigger.decision)) for trigger in side.triggers)
    return [{name: value for name, value in record.items() if name not in ("v", "sid")} for record in made]


@contextmanager
def recorded(chosen: dict[str, Any], steps: Steps) -> Iterator[Path]:
    """Give the state directory of a session that was told these steps."""
    with tempfile.TemporaryDirectory() as name:
        past = Past(Path(name), **chosen, PAPER_START_QUOTE=1000)
        for number, event in enumerate(to_inputs(steps, 1000)):
            if isinstance(event, Ticker):
                past.recorder.take(event, past.engine.process(event))
            else:
                past.control(event)
            if number % 150 == 149:
                past.recorder.checkpoint()
        past.close()
        yield Path(name)


@given(SETTINGS, STEPS, SETTINGS)
@settings(max_examples=25)
def test_without_changes_a_side_decides_what_was_recorded(
    chosen: dict[str, Any], steps: Steps, other: dict[str, Any]
) -> None:
    """Decisions and trades to the bit, numbers too, whatever stands beside them; equal settings make no difference."""
    with recorded(chosen, steps) as state:
        found = compare(state, None, other)
        assert decided(found.ours) == journal(state, "decision")
        trades = [{"ts_ms": trade.exit_ms, **to_record(trade)} for trade in found.ours.trades]
        assert trades == journal(state, "trade")
        for same in (compare(state), compare(state, other, other)):
            assert same.is_equal
            assert same.ours == same.theirs
            assert not same.references
            assert "no decision changes" in same.text()


@given(SETTINGS, STEPS, SETTINGS, SETTINGS)
@settings(max_examples=25)
def test_exchanging_the_sides_exchanges_gained_and_lost(
    chosen: dict[str, Any], steps: Steps, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Everything else stays as it is, and on each side every trigger and trade is of one kind."""
    with recorded(chosen, steps) as state:
        found, mirror = compare(state, one, other), compare(state, other, one)
    assert (found.ours, found.theirs) == (mirror.theirs, mirror.ours)
    assert [
        (MIRRORED.get(d.kind, d.kind), d.symbol, d.cause, d.theirs, d.ours) for d in found.triggers
    ] == [(d.kind, d.symbol, d.cause, d.ours, d.theirs) for d in mirror.triggers]  # fmt: skip
    assert [(MIRRORED.get(d.kind, d.kind), d.symbol, d.theirs, d.ours) for d in found.trades] == [
        (d.kind, d.symbol, d.ours, d.theirs) for d in mirror.trades
    ]
    for sides, kinds, differences in (
        ((found.ours.triggers, found.theirs.triggers), found.trigger_kinds, found.triggers),
        ((found.ours.trades, found.theirs.trades), found.trade_kinds, found.trades),
    ):
        for side, alone in zip(sides, (Kind.GAINED, Kind.LOST), strict=True):
            assert len(side) == sum(kinds.get(kind, 0) for kind in Kind if kind is not MIRRORED.get(alone))
        told = Counter(difference.kind for difference in differences)
        assert told == Counter({kind: count for kind, count in kinds.items() if kind is not Kind.SAME})
    record = found.to_record()
    for key in ("by_symbol", "by_cause"):
        total: Counter[str] = Counter()
        for kinds in record["triggers"][key].values():
            total.update(kinds)
        assert total == Counter(difference.kind.value for difference in found.triggers)
    assert as_json(record) == record


FALL = [(0, 100.0), (1, 98.9), (2, 98.8), (3, 98.7), (4, 99.2), (5, 98.9), (6, 98.0)]


@pytest.mark.parametrize(
    ("changes", "kinds", "causes"),
    [
        ({"DROP_TRIGGER_VALUE": 0.98}, {"moved": 1, "lost": 1}, {"threshold"}),
        ({"CONFIRM_TICKS": 2}, {"moved": 1, "lost": 1}, {"timing"}),
        ({"HYSTERESIS_BPS": 100}, {"same": 1, "lost": 1}, {"arming"}),
        ({"DEBOUNCE_S": 60}, {"same": 1, "lost": 1}, {"timing"}),
        ({"TICKER_MAX_JUMP_PCT": 0.5}, {"moved": 1, "lost": 1}, {"guards", "arming"}),
        ({"GLOBAL_TRADING": True}, {"changed": 1, "moved": 1}, {"outcome", "reference"}),
        ({"MAX_SPREAD_BPS": 0}, {"changed": 2}, {"outcome"}),
        ({"WINDOW_LOOKBACK_S": 2, "DROP_TRIGGER_MODE": 2}, {"same": 1, "lost": 1}, {"reference_source"}),
    ],
)
def test_a_difference_says_what_made_it(
    tmp_path: Path, changes: dict[str, Any], kinds: dict[str, int], causes: set[str]
) -> None:
    """Why the side that did not trigger did not, at the tick at which the other one did."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.99, COOLDOWN_MIN=0)
    past.feed(*((second, last, last, last + 0.01, 1e9) for second, last in FALL))
    past.close()
    found = compare(tmp_path, changes)
    assert [d.decision.ts_ms - T for d in found.theirs.triggers] == [1000, 5000]
    assert {kind.value: count for kind, count in found.trigger_kinds.items()} == kinds
    assert {difference.cause.value for difference in found.triggers} == causes


def test_both_references_stand_side_by_side(tmp_path: Path) -> None:
    """Where anchor or peak are others; a row for each trigger of either side."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.99, WINDOW_LOOKBACK_S=60)
    past.feed((0, 100.0), (100, 99.5), (110, 98.9))
    past.close()
    found = compare(tmp_path, {"FEATURE_ANCHOR_ENABLED": False})
    (row,) = found.references
    assert (row["ts_ms"], row["triggered"], row["last"]) == (T + 110_000, "theirs", 98.9)
    assert row["theirs"] == {
        "reference_source": "anchor", "reference": 100.0, "anchor": 100.0, "session_peak": 100.0, "window_peak": 99.5,
    }  # fmt: skip
    assert row["ours"] == {
        "reference_source": "legacy_peak", "reference": 99.5, "anchor": None, "session_peak": 100.0,
        "window_peak": 99.5,
    }  # fmt: skip
    assert found.triggers[0].cause.value == "reference_source"
    assert "1 trigger at which the references differ" in found.text()


@pytest.mark.parametrize("seconds", [60, 61])
def test_a_minute_apart_a_trigger_has_moved_and_later_it_is_another(tmp_path: Path, seconds: int) -> None:
    """Of one symbol alone: the one that theirs has elsewhere is lost."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.99)
    past.feed((0, 100.0), (1, 98.9))
    past.feed((1, 50.0), (2, 49.4), symbol=ETH)
    past.feed((1 + seconds, 97.9))
    past.close()
    found = compare(tmp_path, {"DROP_TRIGGER_VALUE": 0.98})
    moved = {"moved": 1, "lost": 1} if seconds == 60 else {"gained": 1, "lost": 2}
    assert {kind.value: count for kind, count in found.trigger_kinds.items()} == moved
    assert {difference.symbol for difference in found.triggers if difference.kind is Kind.MOVED} <= {S}


def test_an_observed_session_is_compared_with_paper_orders(tmp_path: Path) -> None:
    """Trades are those of an engine that was told the same under these settings from the start."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.99)
    rows = [(0, 100.0), (1, 98.9), (2, 98.9), (60, 99.6), (61, 99.7), (62, 99.7)]
    past.feed(*((second, last, last, last, 1e9) for second, last in rows))
    past.close()
    found = compare(tmp_path, {"GLOBAL_TRADING": True})
    alone = Engine(make_settings({"DROP_TRIGGER_VALUE": 0.99, "GLOBAL_TRADING": True}))
    outputs = [o for s, p in rows for o in alone.tick(Ticker(S, T + s * 1000, p, p, p, 1e9))]
    (trade,) = found.ours.trades
    assert [trade] == [output for output in outputs if isinstance(output, Trade)]
    assert found.ours.final_equity_quote == alone.portfolio.account.cash
    assert found.trade_kinds == {Kind.GAINED: 1}
    assert found.trade_pnl(Kind.GAINED) == trade.pnl == found.ours.pnl_quote
    assert (found.theirs.final_equity_quote, found.theirs.max_drawdown_quote) == (1000.0, 0.0)
    assert 0 < found.ours.max_drawdown_quote < 1


def test_a_trade_that_ends_elsewhere_has_moved(tmp_path: Path) -> None:
    """With the profit that it makes more; entered at the same tick."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.99, GLOBAL_TRADING=True)
    rows = [(0, 100.0), (1, 98.9), (2, 98.9), (60, 99.6), (61, 99.6), (62, 100.9), (63, 100.9)]
    past.feed(*((second, last, last, last, 1e9) for second, last in rows))
    past.close()
    found = compare(tmp_path, {"TAKE_PROFIT_THRESHOLD": 1.02})
    (difference,) = found.trades
    assert difference.kind is Kind.MOVED
    assert difference.ours is not None
    assert difference.theirs is not None
    assert difference.ours.exit_ms > difference.theirs.exit_ms
    assert difference.pnl_quote == difference.ours.pnl - difference.theirs.pnl > 0.2
    assert not found.triggers


def test_settings_of_no_engine_change_nothing_and_it_is_said(tmp_path: Path) -> None:
    """Those that take effect at a start alone neither."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.99)
    past.feed(*FALL)
    past.close()
    found = compare(tmp_path, {"HEARTBEAT_S": 5, "TOP_N": 3}, {"PAPER_START_QUOTE": 1.0})
    assert found.is_equal
    assert found.ours.idle == {"HEARTBEAT_S": 5.0, "TOP_N": 3}
    text = found.text()
    assert "TOP_N = 3 changes no decision" in text
    assert "PAPER_START_QUOTE = 1 changes no decision" in text


def test_a_recorded_change_of_settings_is_adopted_below_the_changes(tmp_path: Path) -> None:
    """What the operator changed meanwhile holds on both sides, but for the settings that are compared."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.99)
    past.feed((0, 100.0), (1, 99.5))
    past.control(SettingsChanged(make_settings({"DROP_TRIGGER_VALUE": 0.996, "HYSTERESIS_BPS": 0})))
    past.feed((2, 99.5), (3, 99.8), (6, 99.55))
    past.close()
    found = compare(tmp_path, {"DROP_TRIGGER_VALUE": 0.9})
    assert ([t.decision.ts_ms - T for t in found.theirs.triggers], found.ours.triggers) == ([2000, 6000], ())
    found = compare(tmp_path, {"HYSTERESIS_BPS": 50})
    assert [trigger.decision.ts_ms - T for trigger in found.ours.triggers] == [2000]


def test_rejected_tickers_that_looser_guards_accept_are_run(tmp_path: Path) -> None:
    """Those recorded whole; of those that were only counted it is said how many there are."""
    past = Past(tmp_path, DROP_TRIGGER_VALUE=0.5)
    past.feed((0, 100.0), *((1, 100.0) for _ in range(14)), (2, 40.0), (3, 100.0))
    past.recorder.checkpoint()
    past.close()
    found = compare(tmp_path, {"TICKER_MAX_JUMP_PCT": 70})
    assert [trigger.decision.last for trigger in found.ours.triggers] == [40.0]
    assert found.theirs.triggers == ()
    assert found.triggers[0].cause.value == "guards"
    assert found.only_counted > 0
    assert f"{found.only_counted} rejected tickers were only counted" in found.text()


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """An empty directory, a session without ticks, a setting that there is not, a pair that does not go together."""
    with pytest.raises(UsageError, match="nothing is recorded"):
        compare(tmp_path, {"HYSTERESIS_BPS": 1})
    past = Past(tmp_path)
    past.close()
    with pytest.raises(UsageError, match="no input is recorded"):
        compare(tmp_path, {"HYSTERESIS_BPS": 1})
    with pytest.raises(SettingsError, match="did you mean HYSTERESIS_BPS"):
        compare(tmp_path, {"HYSTERESIS": 1})
    with pytest.raises(SettingsError, match="do not go together"):
        compare(tmp_path, {"POSITION_SIZE_QUOTE": 1e6})


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the home of a session in virtual time that observed."""
    home = tmp_path_factory.mktemp("home")
    done = call(home, "--virtual", "--duration", "1200", "--no-dashboard", *OBSERVING)
    assert done.returncode == 0, done.stderr
    return home


def test_a_flag_switched_off_in_a_comparison_is_a_session_without_it(observed: Path, tmp_path: Path) -> None:
    """The legacy bot over the same market decides what the comparison says that it would have."""
    off = ("--set", "FEATURE_ANCHOR_ENABLED=false")
    done = call(tmp_path, "--virtual", "--duration", "1200", "--no-dashboard", *OBSERVING, *off)
    assert done.returncode == 0, done.stderr
    found: Comparison = compare(observed / "state", {"FEATURE_ANCHOR_ENABLED": False})
    assert decided(found.ours) == journal(tmp_path / "state", "decision")
    assert decided(found.theirs) == journal(observed / "state", "decision")
    assert found.triggers


def test_the_command_tells_writes_and_overwrites_nothing_of_others(observed: Path, tmp_path: Path) -> None:
    """Exit 0 also where they differ; compare.json and both sides' files; a foreign file in their place: exit 2."""
    words = ("compare", "--set", "GLOBAL_TRADING=true", "--against", "HYSTERESIS_BPS=40", "--out")
    ours = str(tmp_path / "out")
    for _ in range(2):
        done = call(observed, *words, ours)
        assert done.returncode == 0, done.stderr
        assert "ours    GLOBAL_TRADING = true (recorded: false)" in done.stdout
        assert "theirs  HYSTERESIS_BPS = 40 (recorded: 5)" in done.stdout
    document = orjson.loads((tmp_path / "out" / "compare.json").read_bytes())
    assert orjson.loads(call(observed, *words, ours, "--json").stdout) == document
    found = compare(observed / "state", {"GLOBAL_TRADING": True}, {"HYSTERESIS_BPS": 40})
    assert found.to_record() == document
    for name, side in (("ours", found.ours), ("theirs", found.theirs)):
        lines = (tmp_path / "out" / name / "decisions.jsonl").read_bytes().splitlines()
        made = [as_json(to_record(trigger.decision)) for trigger in side.triggers]
        assert [orjson.loads(line) for line in lines] == made
        trades = (tmp_path / "out" / name / "trades.jsonl").read_bytes().splitlines()
        assert len(trades) == len(side.trades)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "compare.json").write_text("{}")
    done = call(observed, *words, str(tmp_path / "foreign"))
    assert (done.returncode, "is of no earlier compare" in done.stderr) == (2, True)
    assert (tmp_path / "foreign" / "compare.json").read_text() == "{}"
    done = call(observed, *words, str(tmp_path / "foreign" / "compare.json"))
    assert (done.returncode, "cannot write to" in done.stderr) == (2, True)


def test_wrong_words_are_answered_in_one_line(observed: Path, tmp_path: Path) -> None:
    """Exit 2, and nothing on stdout."""
    for words, said in (
        ((), "nothing to compare"),
        (("--against", "HYSTERESIS_BPS"), "--against HYSTERESIS_BPS is not KEY=VALUE"),
        (("--against", "HYSTERESIS_BPS=-1"), "(from --against) is not allowed"),
        ((str(tmp_path), "--set", "HYSTERESIS_BPS=1"), "nothing is recorded"),
    ):
        done = call(observed, "compare", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_damaged_lines_are_named_on_stderr(tmp_path: Path) -> None:
    """Counted in the result; what stands behind them goes on at the next checkpoint."""
    run = Recorded(tmp_path / "state")
    minutes(run, 35)
    run.end()
    path = list_segments(tmp_path / "state" / FOLDERS[Stream.TICKS])[0].path
    text = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*text[:5], text[5].replace(b'"last":', b'"last":1', 1), *text[6:]]))
    done = call(tmp_path, "compare", "--set", "HYSTERESIS_BPS=1", "--json")
    assert done.returncode == 0
    assert "jsonl:6: wrong checksum" in done.stderr
    assert orjson.loads(done.stdout)["damaged"] == 1
