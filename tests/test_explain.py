"""`tradingbot explain`: what it says of a trigger is what was recorded, and where nothing is, it says that."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import ROOT
from tests.helpers import MINUTE, S, T
from tests.lives import Life
from tests.past import Past, records
from tests.test_live import call
from tradingbot.cli import main
from tradingbot.config import make_settings
from tradingbot.engine.events import AnchorReset, Condition, ConditionName, SettingsChanged
from tradingbot.io.lines import decode
from tradingbot.io.saved import checkpoint_line, save_checkpoint
from tradingbot.io.sealing import seal
from tradingbot.io.segments import list_segments, series_of
from tradingbot.io.state_files import StateLock
from tradingbot.market.anchor_manager import SavedAnchor
from tradingbot.ops.record.explain import explain, latest_trigger
from tradingbot.ops.record.history import History
from tradingbot.ui.explanation import explanation_text, span_text, utc_text

EVENTFUL = ("--set", "DROP_TRIGGER_VALUE=0.996", "--set", "GLOBAL_TRADING=true", "--set", "EMBEDDED_SYMBOLS=3")
DAY = 86_400


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the home of a session in virtual time, with triggers of every outcome but observed."""
    home = tmp_path_factory.mktemp("home")
    done = call(home, "--virtual", "--duration", "1800", "--no-dashboard", *EVENTFUL)
    assert done.returncode == 0, done.stderr
    return home


def told(state: Path, decision_id: str) -> tuple[dict[str, Any], str]:
    """Return an explanation as a JSON object, and in words with single spaces."""
    document = explain(History(state), decision_id).to_record()
    return document, re.sub(r" +", " ", explanation_text(document))


def test_every_word_on_a_trigger_is_what_was_recorded(recorded: Path) -> None:
    """Each decision of a session: its prices, tick, anchor, checks, orders and later prices, against the files."""
    state = recorded / "state"
    journal = records(state, "journal")
    decisions = [record for record in journal if record["type"] == "decision"]
    assert {d["outcome"] for d in decisions} == {"blocked", "entered"}
    for d in decisions:
        document, text = told(state, d["decision_id"])
        ticks = records(state, "drop_windows/ticks", series_of(d["symbol"]))
        assert document["decision"] == d
        line = journal[document["place"]["line"] - 1]
        assert line == d
        (tick,) = [tick for tick in ticks if tick["seq"] == d["cause"]]
        assert document["tick"].items() >= tick.items()
        source = state / document["tick"]["file"]
        assert f'"seq":{d["cause"]},' in source.read_text().splitlines()[document["tick"]["line"] - 1]
        anchor = d["anchor"]
        (setting,) = [tick for tick in ticks if tick["seq"] == anchor["set_seq"]]
        if anchor["set_cause"] in ("raised", "fill"):
            assert document["reference_tick"].items() >= setting.items()
        if anchor["set_cause"] != "fill" and anchor["clamp"] is None:
            assert document["reference_tick"]["last"] == d["reference"]
        own = ("fill", "exit", "trade", "cancelled")
        assert document["afterwards"] == [
            record for record in journal if record["type"] in own and record["decision_id"] == d["decision_id"]
        ]
        for story in document["prices"]:
            span = [t for t in ticks if 0 < t["ts_ms"] - d["ts_ms"] <= story["minutes"] * MINUTE]
            assert story["ticks"] == len(span)
            assert story["lowest"] == min(t["last"] for t in span)
            assert story["highest"] == max(t["last"] for t in span)
        numbers = [f"{d[name]:.10g}" for name in ("last", "reference", "threshold", "session_start", "session_peak")]
        times = [utc_text(d["ts_ms"]), utc_text(anchor["set_ms"])]
        for word in (*numbers, *times, f"{d['drop_pct']:+.3f} %", d["fingerprint"], d["outcome"], *d["reasons"]):
            assert word in text
        assert [line.split()[:2] for line in text.splitlines() if line.split()[1:2] in (["ok"], ["BLOCKS"])] == [
            [check["name"], "BLOCKS" if check["blocks"] else "ok"] for check in d["checks"]
        ]
        for record in document["afterwards"]:
            assert utc_text(record["ts_ms"]) in text
            for name in ("price", "qty", "fee", "reason"):
                if name in record:
                    assert (record[name] if name == "reason" else f"{record[name]:.10g}") in text
        assert document["changed"]["DROP_TRIGGER_VALUE"] == {"value": 0.996, "default": 0.985, "source": "--set"}
        assert set(document["changed"]) == {"DROP_TRIGGER_VALUE", "GLOBAL_TRADING"}
        assert "DROP_TRIGGER_VALUE = 0.996 (default 0.985), from --set" in text


def test_a_restart_breaks_no_thread(recorded: Path, tmp_path: Path) -> None:
    """After a warm start: anchors are traced to ticks of the session before, and its entries to exits in the next."""
    subprocess.run(["cp", "-r", str(recorded / "state"), str(tmp_path / "state")], check=True)
    state = tmp_path / "state"
    done = call(tmp_path, "--virtual", "--duration", "900", "--no-dashboard", *EVENTFUL, "--set", "TRADE_TTL_MIN=20")
    assert done.returncode == 0, done.stderr
    journal = records(state, "journal")
    decisions = [record for record in journal if record["type"] == "decision"]
    closed_by = {record["decision_id"]: record["sid"] for record in journal if record["type"] == "trade"}
    entered = [
        d for d in decisions if d["outcome"] == "entered" and closed_by.get(d["decision_id"], d["sid"]) > d["sid"]
    ]
    assert entered, "a position was held over the restart"
    for d in entered:
        document, text = told(state, d["decision_id"])
        assert document["fate"] == "closed"
        assert [record["type"] for record in document["afterwards"]] == ["fill", "exit", "fill", "trade"]
        assert "by ttl, held 20 min" in text
    began_ms = next(record["ts_ms"] for record in reversed(journal) if record["type"] == "session_start")
    older = [d for d in decisions if d["ts_ms"] > began_ms > d["anchor"]["price_ms"]]
    assert older, "an anchor was kept over the restart"
    for d in older:
        document = told(state, d["decision_id"])[0]
        assert document["changed"]["TRADE_TTL_MIN"]["value"] == 20
        tick = document["reference_tick"]
        assert (tick["ts_ms"], tick["sid"] < d["sid"]) == (d["anchor"]["price_ms"], True)
        assert d["anchor"]["set_cause"] == "fill" or d["anchor"]["clamp"] or tick["last"] == d["reference"]


def test_the_newest_one_is_a_word_away(recorded: Path) -> None:
    """--last, --last of a symbol, a symbol's list, and an ID by itself, in words and as JSON."""
    decisions = [record for record in records(recorded / "state", "journal") if record["type"] == "decision"]
    newest = decisions[-1]["decision_id"]
    shown = call(recorded, "explain", "--last")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"{newest}: ")
    assert call(recorded, "explain", newest).stdout == shown.stdout
    assert orjson.loads(call(recorded, "explain", newest, "--json").stdout)["decision"] == decisions[-1]
    of_eth = [d for d in decisions if d["symbol"] == "ETH/USDT"]
    shown = call(recorded, "explain", "--symbol", "ETH/USDT", "--last")
    assert shown.stdout.startswith(f"{of_eth[-1]['decision_id']}: ")
    listed = call(recorded, "explain", "--symbol", "ETH/USDT").stdout.splitlines()
    assert [line.split()[-1] for line in listed[1:]] == [d["decision_id"] for d in of_eth][-10:]
    document = orjson.loads(call(recorded, "explain", "--symbol", "ETH/USDT", "--json").stdout)
    assert document["triggers"] == of_eth[-10:]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("BTC/USDT:1767225600000:9",), r"there is no trigger .*; the nearest: BTC/USDT:\d+:\d, BTC/USDT:"),
        (("ETH/USDT:99:1",), r"there is no trigger .*; the nearest: ETH/USDT:\d+:\d"),
        (("x",), r"there is no trigger x; the nearest: \w+/USDT:"),
        (("--symbol", "NO/PE"), r"no trigger of NO/PE is recorded .*; there are of BTC/USDT, ETH/USDT, SOL/USDT"),
        ((), "takes one of"),
        (("x", "--last"), "takes one of"),
        (("--near", "--hours", "0"), "no number from 1"),
    ],
)
def test_what_is_not_there_is_one_line(recorded: Path, words: tuple[str, ...], complaint: str) -> None:
    """Exit 2; an id that does not exist is answered by those nearest to it."""
    done = call(recorded, "explain", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(complaint, done.stderr), done.stderr


@pytest.mark.parametrize("words", [("--last",), ("--near",), ("BTC/USDT:1:1",), ("--symbol", S)])
def test_where_nothing_is_recorded_it_says_so(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Exit 2, one line."""
    done = call(tmp_path, "explain", *words)
    assert done.returncode == 2
    assert re.fullmatch(r"tradingbot: no (trigger|snapshot).* is recorded under .*\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("settings", "source", "seconds"),
    [
        ({"DROP_TRIGGER_MODE": 1}, "session", 0),
        ({"DROP_TRIGGER_MODE": 2}, "rolling", 400),
        ({"DROP_TRIGGER_MODE": 3}, "hybrid", 0),
        ({"FEATURE_ANCHOR_ENABLED": False}, "legacy_peak", 400),
    ],
)
def test_a_peak_is_traced_to_its_tick(tmp_path: Path, settings: dict[str, Any], source: str, seconds: int) -> None:
    """The modes without an anchor: the tick that made the session's peak, or the window's."""
    recording = Past(tmp_path, **settings)
    peak = (0, 101.0) if seconds == 0 else (0, 100.0)
    d = recording.trigger(peak, (200, 100.0), (400, 100.5), (401, 100.2), (402, 90.0))
    recording.close()
    document, text = told(tmp_path, d.decision_id)
    assert (d.reference_source, document["reference_tick"]["ts_ms"]) == (source, T + seconds * 1000)
    assert document["reference_tick"]["last"] == d.reference
    assert f"reached {utc_text(T + seconds * 1000)}, {span_text((402 - seconds) * 1000)} before" in text
    assert "set by" not in text


def stale(recording: Past) -> Any:
    return recording.trigger((0, 110.0), (3500, 109.0, 108.9, 109.0), (3601, 108.5), (3602, 105.0))


def raised(recording: Past) -> Any:
    return recording.trigger((0, 100.0), (60, 104.0, 103.9, 104.0), (61, 103.0), (62, 100.0))


def first(recording: Past) -> Any:
    return recording.trigger((0, 100.0, 99.9, 100.0), (0, 99.9), (1, 95.0))


def reset(recording: Past) -> Any:
    recording.feed((0, 110.0))
    recording.control(AnchorReset(S))
    return recording.trigger((10, 100.0, 99.9, 100.0), (11, 95.0))


def filled(recording: Past) -> Any:
    recording.trigger((0, 100.0), (1, 98.0, 97.95, 98.0))
    return recording.trigger((2, 98.1, 98.0, 98.1), (2, 98.11), (9, 96.0))


@pytest.mark.parametrize(
    ("make", "cause", "seconds"),
    [(first, "first", 0), (stale, "stale", 3500), (raised, "raised", 60), (reset, "reset", 10), (filled, "fill", 2)],
)
def test_an_anchor_is_traced_to_its_tick_and_cause(tmp_path: Path, make: Any, cause: str, seconds: int) -> None:
    """Each cause: the tick whose price it is, also among two of one millisecond, with bid, ask, time, file and line."""
    recording = Past(tmp_path, GLOBAL_TRADING=True, MAX_CONCURRENT_POSITIONS=1)
    d = make(recording)
    recording.close()
    document, text = told(tmp_path, d.decision_id)
    tick = document["reference_tick"]
    assert (d.anchor.set_cause, tick["ts_ms"]) == (cause, T + seconds * 1000)
    assert (tick["last"] == d.reference) == (cause != "fill")
    assert f"{cause}: " in text
    assert f"bid {tick['bid']:.10g}, ask {tick['ask']:.10g}" in text
    lines = (tmp_path / tick["file"]).read_text().splitlines()
    found = decode(lines[tick["line"] - 1].encode())
    assert (found["ts_ms"], found["seq"]) == (tick["ts_ms"], tick["seq"])
    assert f"\n {tick['file']}:{tick['line']}\n" in text


@pytest.mark.parametrize(
    ("saved", "clamp"),
    [(SavedAnchor(130.0, T - 60_000), "start_clamp"), (SavedAnchor(102.0, T - 60_000), "peak_clamp")],
)
def test_a_clamp_is_named_with_its_tick(tmp_path: Path, saved: SavedAnchor, clamp: str) -> None:
    """A loaded anchor far above the first price: which clamp lowered it, when, and at which tick."""
    settings = {"ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT": 20} if clamp == "start_clamp" else {}
    recording = Past(tmp_path, saved={S: saved}, **settings)
    d = recording.trigger((5, 100.0), (5, 100.1), (6, 98.0), (7, 97.0))
    recording.close()
    document, text = told(tmp_path, d.decision_id)
    assert d.anchor is not None
    assert (d.anchor.clamp, d.anchor.clamp_ms) == (clamp, T + 5000)
    assert (document["clamp_tick"]["seq"], document["clamp_tick"]["last"]) == (d.anchor.clamp_seq, 100.0)
    assert f"{clamp.replace('_', ' ')}: lowered" in text
    assert (
        "ANCHOR_MAX_START_DROP_PCT = 8 % under" if clamp == "start_clamp" else "MAX_ABOVE_PEAK_PCT = 0.5 % above"
    ) in text
    assert f"clamped {utc_text(T + 5000)}, " in text
    assert "by a tick that is not recorded (any more)" in text, "the saved anchor is older than the record"


def test_the_predictive_zone_is_part_of_the_threshold(tmp_path: Path) -> None:
    """Both factors stand in the words, as the settings in force had them, also after a change in between."""
    recording = Past(tmp_path, BUY_MODE="PREDICTIVE")
    recording.feed((0, 100.0))
    recording.control(SettingsChanged(make_settings({"BUY_MODE": "PREDICTIVE", "DROP_TRIGGER_VALUE": 0.98})))
    d = recording.trigger((1, 97.0))
    recording.close()
    document, text = told(tmp_path, d.decision_id)
    assert d.threshold == 100.0 * 0.98 * 0.995
    assert "reference x 0.98 (DROP_TRIGGER_VALUE) x 0.995 (PREDICTIVE_BUY_ZONE_PCT" in text
    assert document["changed"]["DROP_TRIGGER_VALUE"] == {"value": 0.98, "default": 0.985, "source": None}


def test_an_observed_trigger_says_why_nothing_was_ordered(tmp_path: Path) -> None:
    """And settings that are the defaults are called that."""
    recording = Past(tmp_path)
    d = recording.trigger((0, 100.0), (1, 98.0))
    recording.close()
    document, text = told(tmp_path, d.decision_id)
    assert "outcome observed: nothing blocked it, but GLOBAL_TRADING is off" in text
    assert "all that decisions depend on are the defaults" in text
    assert "after 5 min no price is recorded" in text
    assert document["fate"] is None


def test_a_trigger_of_a_restart_is_explained(tmp_path: Path) -> None:
    """What `restart` means stands beside it; so does the text of a switch that is on."""
    recording = Past(tmp_path, GLOBAL_TRADING=True)
    recording.control(Condition(ConditionName.RESTART, "catching up"))
    d = recording.trigger((0, 100.0), (1, 98.0))
    recording.close()
    _, text = told(tmp_path, d.decision_id)
    assert d.reasons == ("restart",)
    assert "restart BLOCKS on: catching up off" in text
    assert "while the bot was down or catching up after a start" in text


def test_a_trigger_that_a_kill_swallowed_is_explained(tmp_path: Path) -> None:
    """Killed between a tick and its decision: the next start puts it on record as blocked, and it is explained."""
    settings = {"GLOBAL_TRADING": True}
    recording = Past(tmp_path, "20231114T000000.000", **settings)
    recording.feed((0, 100.0))
    engine = orjson.dumps(recording.engine.checkpoint_record())
    save_checkpoint(tmp_path, checkpoint_line("20231114T000000.000", 1, T, engine), durable=False)
    d = recording.trigger((1, 98.0))
    recording.close(end=False)
    (journal,) = list_segments(tmp_path / "journal")
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(line for line in lines if b'"type":"decision"' not in line))
    life = Life(tmp_path, make_settings(settings), T + 5000)
    life.begin()
    life.end()
    document, text = told(tmp_path, d.decision_id)
    assert (document["decision"]["reasons"], document["fate"]) == (["restart"], None)
    assert document["decision"]["sid"] == "20231114T000000.000"
    assert (document["tick"]["last"], document["reference_tick"]["last"]) == (98.0, 100.0)
    assert document["changed"]["GLOBAL_TRADING"]["source"] == "--set", "the settings of its own session"
    assert "so the trigger is on record and was never ordered" in " ".join(text.split())


def closed(recording: Past) -> None:
    recording.feed((2, 98.0, 97.9, 98.0), (3, 90.0, 89.9, 90.0), (4, 90.0, 89.9, 90.0))
    recording.close()


def held(recording: Past) -> None:
    recording.feed((2, 98.0, 97.9, 98.0))
    recording.close(end=False)


def lost(recording: Past) -> None:
    held(recording)
    Past(recording.state, "s2").close()


def switched_off(recording: Past) -> None:
    recording.control(SettingsChanged(make_settings({"GLOBAL_TRADING": False})))
    recording.close()


@pytest.mark.parametrize(
    ("then", "fate", "words"),
    [
        (closed, "closed", "by stop_loss, held 2 s"),
        (held, "open", "the position is still open"),
        (lost, "lost", "the session ended before it was closed"),
        (switched_off, "cancelled", "the buy was cancelled: trading_off"),
        (Past.close, "pending", "no fill is recorded"),
    ],
)
def test_an_entry_is_followed_to_its_end(tmp_path: Path, then: Any, fate: str, words: str) -> None:
    """Bought and sold, still open, lost with its session, cancelled, or still pending."""
    recording = Past(tmp_path, GLOBAL_TRADING=True)
    d = recording.trigger((0, 100.0), (1, 98.0))
    then(recording)
    document, text = told(tmp_path, d.decision_id)
    assert (document["fate"], d.outcome) == (fate, "entered")
    assert words in text


def test_a_tick_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    """The oldest ticks go first; what explains a trigger is then told without them."""
    recording = Past(tmp_path)
    d = recording.trigger((DAY - 30, 100.0), (DAY + 1, 98.0), (DAY + 2, 97.5))
    recording.close()
    document, _ = told(tmp_path, d.decision_id)
    assert document["reference_tick"]["ts_ms"] == T + (DAY - 30) * 1000
    assert document["prices"][0]["lowest"] == 97.5
    segments = list_segments(tmp_path / "drop_windows" / "ticks")
    segments[0].path.unlink()
    document, text = told(tmp_path, d.decision_id)
    assert (document["reference_tick"], document["tick"]["last"]) == (None, 98.0)
    assert "by a tick that is not recorded (any more)" in text
    segments[1].path.unlink()
    assert "its tick is not recorded (any more)" in told(tmp_path, d.decision_id)[1]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_trigger_is_found_by_its_day(tmp_path: Path, sealed: bool) -> None:
    """Of twenty days of journal a trigger's own is read, plain or sealed, and the same words come out."""
    recording = Past(tmp_path)
    found = []
    for day in range(20):
        start = day * DAY + 100
        ticks = [(start + second, 100.0) for second in range(0, 60, 2)]
        found.append(recording.trigger(*ticks, (start + 70, 98.0)))
        for number in range(50):
            recording.control(Condition(ConditionName.KILLED, f"n{number}"))
        recording.control(Condition(ConditionName.KILLED, None))
    recording.close()
    plain = [told(tmp_path, d.decision_id)[0] for d in found]
    paths = [segment.path for segment in list_segments(tmp_path / "journal")]
    assert len(paths) == 20
    if sealed:
        for path in (*paths[:-1], *(s.path for s in list_segments(tmp_path / "drop_windows" / "ticks")[:-1])):
            seal(path)
    for before, d in zip(plain, found, strict=True):
        after = told(tmp_path, d.decision_id)[0]
        assert {**after, "place": None, "tick": None, "reference_tick": None} == {
            **before, "place": None, "tick": None, "reference_tick": None,
        }  # fmt: skip
        for name in ("place", "tick", "reference_tick"):
            assert after[name]["line"] == before[name]["line"]
            assert after[name]["file"].removesuffix(".zst") == before[name]["file"]
    history = History(tmp_path)
    assert latest_trigger(history, None).record["decision_id"] == found[-1].decision_id
    assert history.report.records == 53, "the session's end, 51 inputs and the trigger: no further"
    history = History(tmp_path)
    explain(history, found[10].decision_id)
    assert history.report.records < 4 * 83, "its own day's journal and ticks, hardly more"


def test_damage_is_passed_over_and_counted(tmp_path: Path) -> None:
    """One line on stderr with the first place; a line that a running bot is about to end is none."""
    recording = Past(tmp_path / "state")
    recording.trigger((0, 100.0), (1, 98.0), (2, 97.0))
    recording.close(end=False)
    (journal,) = list_segments(tmp_path / "state" / "journal")
    with journal.path.open("ab") as file:
        file.write(b'{"torn"')
    with StateLock(tmp_path / "state", T):
        assert call(tmp_path, "explain", "--last").stderr == ""
    done = call(tmp_path, "explain", "--last")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "1 place could not be read, the first: " in done.stderr
    (ticks,) = list_segments(tmp_path / "state" / "drop_windows" / "ticks")
    ticks.path.write_bytes(ticks.path.read_bytes().replace(b'"last":97.0', b'"last":96.0'))
    done = call(tmp_path, "explain", "--last")
    assert done.returncode == 0
    assert "2 places could not be read" in done.stderr, "each once, however often it was met"
    assert "after 5 min   no price is recorded" in done.stdout


def test_no_name_of_a_market_commands_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes in a symbol, or in a reason, come out as plain text."""
    symbol = "A\x1b[31m\n/USDT"
    recording = Past(tmp_path / "state", GLOBAL_TRADING=True)
    recording.control(Condition(ConditionName.KILLED, "odd\x1b[2J\nwords"))
    recording.trigger((0, 100.0), (1, 98.0), symbol=symbol)
    recording.close()
    for words in (["--last"], ["--symbol", symbol], ["--near"], ["x"]):
        main(["--home", str(tmp_path), "explain", *words])
        out, err = capsys.readouterr()
        assert out or err
        assert "\x1b" not in out + err
        assert "A?[31m?/USDT" in out or "A\\x1b[31m" in err


def test_the_closest_approaches_are_those_of_the_snapshots(recorded: Path) -> None:
    """Per symbol and hour the highest last against its threshold, the nearest first, with the hour's triggers."""
    snapshots = records(recorded / "state", "drop_windows/snapshots")
    best: dict[str, float] = {}
    for record in snapshots:
        near = (record["threshold"] / record["last"] - 1) * 100
        best[record["symbol"]] = max(near, best.get(record["symbol"], near))
    decisions = [record for record in records(recorded / "state", "journal") if record["type"] == "decision"]
    rows = orjson.loads(call(recorded, "explain", "--near", "--json").stdout)["approaches"]
    assert [(row["symbol"], row["to_trigger_pct"]) for row in rows] == sorted(best.items(), key=lambda each: -each[1])
    for row in rows:
        assert row["triggers"] == sum(d["symbol"] == row["symbol"] for d in decisions)
        assert row["snapshots"] == sum(record["symbol"] == row["symbol"] for record in snapshots)
    text = call(recorded, "explain", "--near").stdout
    assert [line.split()[-10:] and re.search(r"\w+/USDT", line).group() for line in text.splitlines()[1:]] == [  # type: ignore[union-attr]
        row["symbol"] for row in rows
    ]


def test_hours_without_a_trigger_say_how_close_it_came(tmp_path: Path) -> None:
    """Three hours of two symbols, the last two asked for: in each the nearest first, and how far above it stayed."""
    recording = Past(tmp_path / "state")
    for hour, (one, other) in enumerate([(99.0, 99.5), (99.2, 98.7), (98.9, 99.4)]):
        at = hour * 3600
        for symbol, low in (("A/USDT", one), ("B/USDT", other)):
            recording.feed((at, 100.0), (at + 10, low), (at + 20, 99.9), symbol=symbol)
    recording.close()
    done = call(tmp_path, "explain", "--near", "--hours", "2")
    lines = done.stdout.splitlines()[1:]
    assert [line[18:24] for line in lines] == ["B/USDT", "A/USDT", "A/USDT", "B/USDT"]
    assert [line.split(" % above the threshold")[0].rsplit(" ", 1)[1] for line in lines] == [
        f"{-(98.5 / low - 1) * 100:.2f}" for low in (98.7, 99.2, 98.9, 99.4)
    ]
    assert utc_text(T + 3600_000, "%Y-%m-%d %H:%M") in lines[0]
    assert call(tmp_path, "explain", "--near", "--symbol", "B/USDT").stdout.count("B/USDT") == 3
    assert "no snapshot of C is recorded" in call(tmp_path, "explain", "--near", "--symbol", "C").stderr


def test_a_symbol_that_stays_under_its_threshold_triggered_in_an_hour_before(tmp_path: Path) -> None:
    """An hour without a trigger of its own does not say that there was one."""
    recording = Past(tmp_path / "state")
    recording.feed((3590, 100.0), (3595, 97.0), (3601, 96.9))
    recording.close()
    says = [line.rsplit("  ", 1)[1].strip() for line in call(tmp_path, "explain", "--near").stdout.splitlines()[1:]]
    assert says == ["under it, and triggered", "under it, and triggered before"]


def test_a_reader_of_the_words_knows_every_check_and_cause(tmp_path: Path) -> None:
    """No check is shown as a bare number, and no cause of the engine is without its words."""
    from tradingbot.market.anchor_manager import AnchorCause
    from tradingbot.ui import explanation as ui

    recording = Past(tmp_path)
    d = recording.trigger((0, 100.0), (1, 98.0))
    recording.close()
    assert {check.name for check in d.checks} == {*ui.SWITCHES, "held", *ui.CHECKS}
    assert {cause.word for cause in AnchorCause} - {"none"} <= {*ui.CAUSES, *ui.CLAMPS}


def test_the_page_shows_what_the_commands_print(recorded: Path) -> None:
    """Real output of this very session, but for lines, numbers and fingerprint, which follow the version."""

    def plain(text: str) -> str:
        return re.sub(r"jsonl:\d+|input \d+|fingerprint \w+", "*", text)

    page = (ROOT / "docs" / "OPERATING.md").read_text()
    blocks = [plain(block) for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL)]
    for words in (("explain", "ETH/USDT:1767225711904:1"), ("explain", "--near"), ("anchors",)):
        assert plain(call(recorded, *words).stdout) in blocks
