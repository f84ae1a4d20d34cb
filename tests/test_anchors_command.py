"""`tradingbot anchors`: where anchors come from, and how an operator has one begin anew, running bot or not."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.helpers import S, T
from tests.past import Past, records
from tests.test_live import bot, call, command, status_of, wait_for
from tradingbot.config import make_settings
from tradingbot.engine.events import AnchorReset
from tradingbot.io.jsonl import decode, encode
from tradingbot.io.requests import BadRequest, Requested, RequestFolder, ResetAnchors, put_request
from tradingbot.io.state_files import StateLock
from tradingbot.ops.anchors import known_anchors
from tradingbot.ops.record.history import History
from tradingbot.ops.record.prove import prove
from tradingbot.services.operator import OperatorRequests


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give a state directory with anchors of two symbols, and what its bot last said."""
    recording = Past(tmp_path / "state")
    recording.feed((0, 100.0), (5, 101.0), (6, 100.5))
    recording.feed((1, 10.0), (2, 9.99), symbol="ETH/USDT")
    recording.close()
    status(tmp_path / "state", T + 60_000)
    return tmp_path / "state"


def status(state: Path, time_ms: int, **row: Any) -> None:
    """Write a status.json with one symbol's anchor, or two symbols without one."""
    anchored = {"reference_source": "anchor", "anchor_age_s": None}
    rows = [anchored | {"symbol": symbol} for symbol in (S, "ETH/USDT")]
    rows[0] |= row
    document = {"v": 1, "time_ms": time_ms, "bot": {"exchange": "embedded"}, "symbols": rows}
    (state / "status.json").write_bytes(orjson.dumps(document))


def anchors(state: Path, **settings: Any) -> dict[str, Any]:
    return {row.symbol: row for row in known_anchors(History(state), make_settings(settings))}


def test_anchors_come_with_where_they_come_from(state: Path) -> None:
    """Price, time, cause and age of each symbol's newest record, and that a start would load it."""
    done = call(state.parent, "anchors", "--json")
    rows = {row["symbol"]: row for row in orjson.loads(done.stdout)["anchors"]}
    for symbol in (S, "ETH/USDT"):
        facts = [r["anchor"] for r in records(state, "drop_windows/anchors") if r["symbol"] == symbol][-1]
        for name in ("price", "set_ms", "set_cause", "price_ms", "clamp", "clamp_ms"):
            assert rows[symbol][name] == facts[name]
        assert rows[symbol]["age_ms"] == T + 60_000 - facts["set_ms"]
        assert rows[symbol]["unused"] is None
    shown = call(state.parent, "anchors").stdout.splitlines()
    assert re.fullmatch(r"BTC/USDT +101 +2023-11-14 00:00:05 +55 s +raised +loaded", shown[1]), shown
    assert re.fullmatch(r"ETH/USDT +10 +2023-11-14 00:00:01 +59 s +first +loaded", shown[2]), shown


@pytest.mark.parametrize(
    ("settings", "later_ms", "why"),
    [
        ({"FEATURE_ANCHOR_ENABLED": False}, 0, "FEATURE_ANCHOR_ENABLED is off"),
        ({"DROP_TRIGGER_MODE": 2}, 0, "DROP_TRIGGER_MODE is 2"),
        ({}, 25 * 3_600_000, "25.0 h old"),
        ({}, -100_000, "s in the future"),
    ],
)
def test_an_anchor_that_a_start_would_not_load_says_why(
    state: Path, settings: dict[str, Any], later_ms: int, why: str
) -> None:
    """Switched off, of no use in this mode, too old, or from the future."""
    status(state, T + later_ms)
    assert why in anchors(state, **settings)[S].unused


def saved(state: Path, time_ms: int, price: float) -> None:
    """Write anchors.json with one anchor."""
    facts = {"price": price, "set_ms": time_ms - 5, "set_cause": "raised", "price_ms": time_ms - 5, "clamp": None}
    record = {"v": 1, "sid": "s0", "time_ms": time_ms, "anchors": {S: facts | {"clamp_ms": None}}}
    (state / "anchors").mkdir(exist_ok=True)
    (state / "anchors" / "anchors.json").write_bytes(encode(record))


def test_the_newest_word_on_an_anchor_counts(state: Path) -> None:
    """The saved file, the stream, or a running bot's status; a damaged file is no word at all."""
    saved(state, T + 1000, 90.0)
    assert (anchors(state)[S].price, anchors(state)[S].source) == (101.0, "stream")
    saved(state, T + 9000, 102.0)
    assert (anchors(state)[S].price, anchors(state)[S].source) == (102.0, "saved")
    status(state, T + 20_000, reference=103.0, anchor_age_s=2.0, anchor_cause="raised")
    assert anchors(state)[S].price == 102.0, "nobody runs: the status is an old one"
    with StateLock(state, T):
        row = anchors(state)[S]
        assert (row.price, row.set_ms, row.set_cause, row.source) == (103.0, T + 18_000, "raised", "bot")
        status(state, T + 20_000, reference=102.0, anchor_age_s=11.0, anchor_cause="raised")
        assert (anchors(state)[S].source, anchors(state)[S].price_ms) == ("saved", T + 8995)
    path = state / "anchors" / "anchors.json"
    path.write_bytes(path.read_bytes().replace(b"102", b"109"))
    assert anchors(state)[S].price == 101.0


def test_without_anchors_it_says_so(tmp_path: Path) -> None:
    """Exit 0 and a sentence; as JSON an empty list."""
    done = call(tmp_path, "anchors")
    assert (done.returncode, done.stdout.startswith("no anchor is known under ")) == (0, True)
    assert orjson.loads(call(tmp_path, "anchors", "--json").stdout) == {"anchors": []}


def untouched(state: Path) -> bool:
    return not (state / "audit.jsonl").exists() and not (state / "requests").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("reset", "--why", "x"), "takes symbols, or --all"),
        (("reset", S, "--all", "--why", "x"), "takes symbols, or --all"),
        (("reset", "NO/PE", S, "--why", "x", "--yes"), "NO/PE is not watched; known: BTC/USDT, ETH/USDT"),
        (("--all",), "anchors alone shows them"),
    ],
)
def test_a_wrong_reset_is_one_line(state: Path, words: tuple[str, ...], complaint: str) -> None:
    """Exit 2, what is known, and nothing asked for."""
    done = call(state.parent, "anchors", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert complaint in done.stderr
    assert untouched(state)


def test_a_reset_says_why(state: Path) -> None:
    """The plan may be seen without a reason; acting without one is exit 2."""
    done = call(state.parent, "anchors", "reset", S, "--yes")
    assert (done.returncode, "say why" in done.stderr) == (2, True)
    assert untouched(state)


def test_where_no_bot_has_run_there_is_nothing_to_reset(tmp_path: Path) -> None:
    """Exit 2, one line."""
    done = call(tmp_path, "anchors", "reset", "--all", "--why", "x", "--yes")
    assert (done.returncode, "no bot has run there" in done.stderr) == (2, True)


def test_without_a_terminal_only_the_plan_is_shown(state: Path) -> None:
    """Exit 2 and the anchors that would go, as a text or as one document."""
    words = command(state.parent, "anchors", "reset", S, "--why", "spike")
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 2
    assert "  BTC/USDT: anchor 101, raised, 55 s old\n" in done.stdout
    assert "--yes does it without asking" in done.stderr
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    document = orjson.loads(done.stdout)
    assert (done.returncode, document["done"], list(document["plan"]["anchors"])) == (2, False, [S])
    assert document["plan"]["anchors"][S]["price"] == 101
    assert untouched(state)


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 2), (b"no\n", 2), (b"\x04", 2)])
def test_on_a_terminal_it_asks(state: Path, answer: bytes, code: int) -> None:
    """Yes acts; anything else, and an end of input, does not."""
    ours, theirs = pty.openpty()
    words = command(state.parent, "anchors", "reset", S, "--why", "spike")
    with subprocess.Popen(words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(ours, answer)
        out, err = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, untouched(state)) == (code, code == 2), out + err
    assert b"do it? [y/N]" in err


def test_a_request_waits_for_the_next_start(tmp_path: Path) -> None:
    """No bot running: exit 0, it says so, the audit has it; the next session takes it, once."""
    words = ("--virtual", "--duration", "30", "--no-dashboard", "--set", "EMBEDDED_SYMBOLS=2")
    assert call(tmp_path, *words).returncode == 0
    state = tmp_path / "state"
    done = call(tmp_path, "anchors", "reset", S, "--why", "a spike\x1b[2J set it", "--yes")
    assert done.returncode == 0, done.stderr
    assert "no bot is running there; the next start does it" in done.stdout
    (request,) = (state / "requests").iterdir()
    (line,) = (state / "audit.jsonl").read_bytes().splitlines()
    record = decode(line)
    assert (record["what"], record["why"], record["symbols"]) == ("anchors reset", "a spike\x1b[2J set it", [S])
    assert record["who"]
    assert abs(record["ts_ms"] - time.time() * 1000) < 3_600_000
    for path in (request, state / "audit.jsonl"):
        assert path.stat().st_mode & 0o777 == 0o600
    before = len(records(state, "journal"))
    again = call(tmp_path, *words)
    assert "anchor_reset symbols=BTC/USDT who=" in again.stderr
    assert "why=a spike?[2J set it" in again.stderr
    assert list((state / "requests").iterdir()) == []
    inputs = [record for record in records(state, "journal")[before:] if record["type"] == "anchor_reset"]
    assert [record["symbol"] for record in inputs] == [S]
    begun = [r["symbol"] for r in records(state, "drop_windows/anchors") if r["cause_word"] == "reset"]
    assert begun == [S]


def begun_anew(state: Path) -> dict[str, dict[str, Any]]:
    """Return the first anchor of each symbol that a reset has set."""
    found: dict[str, dict[str, Any]] = {}
    for record in records(state, "drop_windows/anchors"):
        if record["cause_word"] == "reset":
            found.setdefault(record["symbol"], record)
    return found


def test_a_running_bot_takes_it_at_once(tmp_path: Path) -> None:
    """Anchors and triggers are seen while it runs; a reset is an input, a line of the log, and a new anchor."""
    speed = ("--set", "EMBEDDED_SPEED=30", "--set", "DROP_TRIGGER_VALUE=0.9985", "--set", "EMBEDDED_SYMBOLS=3")
    state = tmp_path / "state"
    with bot(tmp_path, *speed) as process:
        wait_for(lambda: all(row["anchor_age_s"] is not None for row in status_of(tmp_path)["symbols"]), process, 120)
        wait_for(lambda: any(record["type"] == "decision" for record in records(state, "journal")), process, 120)
        shown = call(tmp_path, "explain", "--last")
        assert (shown.returncode, shown.stderr) == (0, "")
        trigger = shown.stdout.split(": ")[0]
        assert any(record.get("decision_id") == trigger for record in records(state, "journal"))
        assert "USDT" in call(tmp_path, "explain", "--near").stdout
        rows = orjson.loads(call(tmp_path, "anchors", "--json").stdout)["anchors"]
        watched = {row["symbol"] for row in status_of(tmp_path)["symbols"]}
        assert {row["symbol"] for row in rows} == watched
        assert all(0 <= row["age_ms"] < 3_600_000 and row["unused"] is None for row in rows)
        done = call(tmp_path, "anchors", "reset", "--all", "--why", "test", "--yes", "--json")
        document = orjson.loads(done.stdout)
        assert (done.returncode, document["taken"], document["plan"]["bot_running"]) == (0, True, True), done.stderr
        line = next(line for line in (tmp_path / "stderr").read_text().splitlines() if "anchor_reset" in line)
        assert re.search(r"WARNING anchor_reset symbols=\w+/USDT,\S+,\S+ who=\S+@\S+ why=test$", line), line
        (state / "requests" / "0-broken.json").write_text("{")
        wait_for((state / "requests" / "0-broken.bad").exists, process, 120)
        asked = ask(state, S)  # taken at a later look: by then another would have been a second refusal
        wait_for(lambda: not asked.exists(), process, 120)
        assert (tmp_path / "stderr").read_text().count("request 0-broken.json is refused") == 1
        wait_for(lambda: begun_anew(state).keys() == watched, process, 120)
        assert call(tmp_path, "stop").returncode == 0
    inputs = [record for record in records(state, "journal") if record["type"] == "anchor_reset"][:-1]
    assert {record["symbol"] for record in inputs} == watched
    begun = begun_anew(state)
    assert all(begun[record["symbol"]]["cause"] > record["seq"] for record in inputs)
    assert prove(state).exit_code == 0


def ask(state: Path, *symbols: str, time_ms: int = 5) -> Path:
    return put_request(state, ResetAnchors(who="me", host="here", time_ms=time_ms, why="so", symbols=symbols))


def test_requests_come_in_the_order_of_their_names_and_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The earlier first; an unknown symbol is named in the log, and asked of nobody."""
    taken: list[Any] = []
    requests = OperatorRequests(tmp_path)
    requests.look([S], taken.append)
    ask(tmp_path, "ETH/USDT", S, "NO/PE", time_ms=20)
    ask(tmp_path, S, S, time_ms=3)
    logging.getLogger("tradingbot").propagate = True
    with caplog.at_level(logging.INFO, "tradingbot"):
        requests.look([S, "ETH/USDT"], taken.append)
        requests.look([S, "ETH/USDT"], taken.append)
    assert taken == [AnchorReset(S), AnchorReset("ETH/USDT"), AnchorReset(S)]
    assert [record.getMessage() for record in caplog.records] == [
        "anchor_reset symbols=BTC/USDT who=me@here why=so",
        "anchor_reset symbols=ETH/USDT,BTC/USDT who=me@here why=so unknown=NO/PE",
    ]
    assert list((tmp_path / "requests").iterdir()) == []


def test_what_is_no_request_is_set_aside(tmp_path: Path) -> None:
    """Garbage, another kind or version, a folder, a pipe (which nobody waits on): renamed .bad, never read again."""
    good = ask(tmp_path, S).read_bytes()
    folder = tmp_path / "requests"
    bad = {"1": b"", "2": b"{", "3": b"\xff", "4": good.replace(b"anchor_reset", b"explode"), "5": b"[" * 100_000,
           "6": good.replace(b'"v":1', b'"v":2'), "7": good.replace(S.encode(), b"\xff")}  # fmt: skip
    for name, text in bad.items():
        (folder / f"{name}.json").write_bytes(text)
    (folder / "8.json").mkdir()
    os.mkfifo(folder / "9.json")
    (folder / "notes.txt").write_text("mine")
    (folder / "0.json.tmp").write_text("half")
    seen: list[Requested | BadRequest] = []
    requests = RequestFolder(tmp_path)
    requests.take(seen.append)
    assert [isinstance(request, ResetAnchors) for request in seen] == [True] + [False] * 9
    assert sorted(path.name for path in folder.iterdir()) == [
        "0.json.tmp", *(f"{number}.bad" for number in range(1, 10)), "notes.txt",
    ]  # fmt: skip
    requests.take(seen.append)
    assert len(seen) == 10


def test_a_request_that_cannot_be_removed_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or an anchor would begin anew every second; a next session takes it again, for nobody knows."""

    def refuse(*_: object) -> None:
        raise PermissionError

    path = ask(tmp_path, S)
    (path.parent / "x.json").write_text("{")
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    seen: list[Any] = []
    requests = RequestFolder(tmp_path)
    for _ in range(3):
        requests.take(seen.append)
    assert len(seen) == 2
    RequestFolder(tmp_path).take(seen.append)
    assert len(seen) == 4
