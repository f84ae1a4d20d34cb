"""What the bot recorded, fed through the same engine, gives the same decisions, byte for byte."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import ROOT
from tests.test_live import bot, call, status_of, wait_for
from tradingbot.io.jsonl import decode, encode, read_jsonl
from tradingbot.io.lines import close_line
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import input_of, lead_of, rejection_record, tick_json, tick_record
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.prove import prove

EVENTFUL = ("--set", "DROP_TRIGGER_VALUE=0.996", "--set", "GLOBAL_TRADING=true", "--set", "EMBEDDED_SYMBOLS=3")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the home of a session in virtual time, with triggers, fills and exits in it."""
    home = tmp_path_factory.mktemp("home")
    done = call(home, "--virtual", "--duration", "1800", "--no-dashboard", *EVENTFUL)
    assert done.returncode == 0, done.stderr
    return home


def copy(home: Path, to: Path) -> Path:
    subprocess.run(["cp", "-r", str(home / "state"), str(to / "state")], check=True)
    return to


def records(state: Path, folder: str) -> list[dict[str, Any]]:
    """Return the records of all series of a stream."""
    return [found.record for found in read_jsonl(segment.path for segment in list_segments(state / folder))]


def test_a_session_is_proved(recorded: Path) -> None:
    """Exit 0, every input and output counted, in words and as JSON."""
    done = call(recorded, "prove")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(r"20260101T000000.000: equal, ([\d,]+) inputs, ([\d,]+) outputs\n", done.stdout)
    assert found is not None, done.stdout
    session = orjson.loads(call(recorded, "prove", str(recorded / "state"), "--json").stdout)["sessions"][0]
    kinds = {record.get("type") for record in records(recorded / "state", "journal")}
    assert {"session_start", "session_end", "decision", "fill", "exit", "trade"} <= kinds
    assert session["outputs"] > 20
    assert session["inputs"] == int(found.group(1).replace(",", "")) > 3000
    assert (session["verdict"], session["missing"], session["divergence"]) == ("equal", None, None)


def change(state: Path, place: int, crc: bool) -> str:
    """Change one digit of one tick's price, with its checksum or without; return the line as it was."""
    path = list_segments(state / "drop_windows" / "ticks")[0].path
    lines = path.read_bytes().splitlines(keepends=True)
    before = lines[place]
    record = decode(before)
    record["last"] = record["last"] * 1.0001
    lines[place] = encode(record) if crc else before.replace(b'"last":', b'"last":1', 1)
    path.write_bytes(b"".join(lines))
    return before.decode()


def test_one_changed_tick_is_found_and_named(recorded: Path, tmp_path: Path) -> None:
    """A price that was tampered with, checksum and all, makes other decisions: exit 1, both records side by side."""
    home = copy(recorded, tmp_path)
    state = home / "state"
    decision = next(record for record in records(state, "journal") if record.get("type") == "decision")
    series = decision["symbol"].replace("/", "_")
    path = next(path for path in (state / "drop_windows" / "ticks").iterdir() if path.name.startswith(series))
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(place for place, line in enumerate(lines) if decode(line)["seq"] == decision["cause"])
    record = decode(lines[place])
    record["last"] = round(record["last"] * 0.9999, 6)
    lines[place] = encode(record)
    path.write_bytes(b"".join(lines))
    done = call(home, "prove")
    assert done.returncode == 1, done.stdout
    assert f"first at input {decision['cause']}" in done.stdout
    assert done.stdout.count(decision["decision_id"]) >= 1
    (session,) = prove(state).sessions
    assert session.divergence is not None
    assert session.divergence.found is not None
    assert session.divergence.found["last"] == decision["last"]


def test_a_changed_digit_without_its_checksum_is_damage(recorded: Path, tmp_path: Path) -> None:
    """Exit 1, and the file and line."""
    home = copy(recorded, tmp_path)
    change(home / "state", 5, crc=False)
    done = call(home, "prove")
    assert done.returncode == 1
    assert re.search(r"damaged: .*drop_windows/ticks/.*jsonl:6: wrong checksum", done.stdout), done.stdout


def test_a_record_that_is_gone_cannot_be_proved(recorded: Path, tmp_path: Path) -> None:
    """A line cut out of the middle: what stands before it is equal, what follows nobody can tell; exit 2."""
    home = copy(recorded, tmp_path)
    path = list_segments(home / "state" / "drop_windows" / "ticks")[0].path
    lines = path.read_bytes().splitlines(keepends=True)
    seq = decode(lines.pop(500))["seq"]
    path.write_bytes(b"".join(lines))
    done = call(home, "prove")
    assert done.returncode == 2
    assert f"{seq} is missing" in done.stdout


def test_where_nothing_is_recorded_there_is_nothing_to_prove(tmp_path: Path) -> None:
    """Exit 2, one line."""
    done = call(tmp_path, "prove")
    assert (done.returncode, "nothing is recorded under" in done.stderr) == (2, True)


def test_flags_flipped_and_a_kill_in_the_middle(tmp_path: Path) -> None:
    """A running bot adopts overrides.json; what it recorded around that, up to a SIGKILL, holds."""
    state = tmp_path / "state"
    overrides = state / "overrides.json"

    def go_on() -> None:
        """Wait until the market has gone on."""
        ticks = status_of(tmp_path)["data"]["ticks"]
        wait_for(lambda: status_of(tmp_path)["data"]["ticks"] > ticks + 50, process)

    def flip(**settings: bool) -> None:
        document = {"v": 1, "overrides": {name: {"value": value} for name, value in settings.items()}}
        overrides.with_suffix(".tmp").write_bytes(orjson.dumps(document))
        overrides.with_suffix(".tmp").replace(overrides)
        wait_for(lambda: status_of(tmp_path)["flags"].items() >= settings.items(), process)
        go_on()

    speed = ("--set", "EMBEDDED_SPEED=30", "--set", "DROP_TRIGGER_VALUE=0.998", "--set", "EMBEDDED_SYMBOLS=3")
    with bot(tmp_path, *speed) as process:
        go_on()
        flip(FEATURE_ANCHOR_ENABLED=False)
        flip(FEATURE_ANCHOR_ENABLED=True)
        flip(FEATURE_PERSIST_STREAMS=False)
        wait_for(lambda: any(r.get("on") is False for r in records(state, "journal")), process)  # behind all ticks
        ticks = len(records(state, "drop_windows/ticks"))
        go_on()
        assert len(records(state, "drop_windows/ticks")) == ticks, "with the flag off nothing is written"
        assert status_of(tmp_path)["streams"]["ticks"]["state"] == "off"
        flip(FEATURE_PERSIST_STREAMS=True)
        overrides.write_text("{broken")
        wait_for(lambda: "settings are refused" in (tmp_path / "stderr").read_text(), process)
        wait_for(lambda: status_of(tmp_path)["decisions"], process)
        assert status_of(tmp_path)["bot"]["state"] == "running"
        process.kill()
        process.wait()
    overrides.unlink()
    with bot(tmp_path, *speed) as process:
        go_on()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    proof = prove(state)
    killed, ended = proof.sessions
    assert (proof.exit_code, proof.report.damaged) == (0, 0), proof.text()
    assert (killed.verdict, killed.ended, len(killed.unrecorded)) == ("equal", False, 1)
    assert (ended.verdict, ended.ended) == ("equal", True)
    assert killed.outputs > 0
    kinds = [record.get("type") for record in records(state, "journal")]
    assert kinds.count("settings") == 5, "four flips, and the settings that the second start came with"


def test_the_schema_page_names_every_member_that_a_run_writes(recorded: Path) -> None:
    """Every record starts with schema, session and time; the examples are records: right checksum, known members."""
    page = (ROOT / "docs" / "SNAPSHOT_SCHEMA.md").read_text()
    sections = dict(re.findall(r"^## (\w+): (.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    common = set(re.findall(r"^\| `(\w+)` \|", page.split("## ")[0], re.MULTILINE)) | {"seq", "cause", "k", "type"}
    for stream, folder in (("ticks", "drop_windows/ticks"), ("snapshots", "drop_windows/snapshots"),
                           ("windows", "drop_windows/windows"), ("anchors", "drop_windows/anchors"),
                           ("journal", "journal")):  # fmt: skip
        text = sections[stream]
        written = records(recorded / "state", folder)
        assert len(written) > 10
        assert {tuple(record)[:3] for record in written} == {("v", "sid", "ts_ms")}
        members = {name for record in written for name in record}
        named = set(re.findall(r"`(\w+)`", text)) | common
        assert members <= named, members - named
        for example in re.findall(r"```json\n(.*?)\n```", text):
            assert set(decode(example.encode())) <= named


@pytest.mark.parametrize("bid", [99.5, None, 99])
@pytest.mark.parametrize("last", [100.0, float("nan"), float("inf"), True, "abc", None, [1]])
def test_a_ticker_comes_back_out_of_its_record(last: Any, bid: Any) -> None:
    """Accepted or rejected, whatever an exchange answered: the engine is told the very same again."""
    from tradingbot.config import make_settings
    from tradingbot.engine.engine import Engine
    from tradingbot.engine.events import Rejected

    ticker = Ticker("BTC/USDT", 1_700_000_000_000, last, bid, bid and 100.5, 1e6, 1.0, 2.0, 1_700_000_000_005, 3, None)
    engine = Engine(make_settings({}))
    outputs = engine.process(ticker)
    if outputs and isinstance(outputs[0], Rejected):
        line = encode(rejection_record("s", 1, ticker, outputs[0]))
    else:
        line = close_line(tick_json(lead_of("s"), "s", 1, ticker))
        assert line == encode(tick_record("s", 1, ticker))
    again = input_of(decode(line))
    assert repr(again) == repr(ticker)
    assert repr(Engine(make_settings({})).process(again)) == repr(outputs)


def test_the_last_minutes_are_proved_alone(recorded: Path) -> None:
    """Fewer inputs, from the last checkpoint before them; a number that is none is wrong usage."""
    whole = orjson.loads(call(recorded, "prove", "--json").stdout)
    part = orjson.loads(call(recorded, "prove", "--last", "5", "--json").stdout)
    assert part["sessions"][0]["verdict"] == "equal"
    assert 0 < part["sessions"][0]["inputs"] < whole["sessions"][0]["inputs"] * 0.6
    wrong = call(recorded, "prove", "--last", "soon")
    assert (wrong.returncode, "soon is no number of minutes" in wrong.stderr) == (2, True)
