"""Streams become tables and tables of others become streams, and either way the same is decided."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow.csv
import pyarrow.parquet
import pytest

from tests.damage import Terminal, digests, look, run, small
from tests.test_replay import crash_csv
from tradingbot.cli import main
from tradingbot.io import stream_tables
from tradingbot.io.jsonl import RotatingJSONLWriter, decode, encode, read_jsonl
from tradingbot.io.sealing import seal
from tradingbot.io.segments import list_segments, load_frames, series_of
from tradingbot.io.state_files import StateLock
from tradingbot.io.stream_tables import SCHEMAS
from tradingbot.io.streams import FOLDERS, Stream, event_record, tick_record
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.prove import prove

T = 1_767_225_600_000
SENSITIVE = ("--set", "DROP_TRIGGER_VALUE=0.996")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the state directory of a session with triggers, fills, exits and rejections in it."""
    home = tmp_path_factory.mktemp("home")
    words = ("--virtual", "--duration", "1200", "--no-dashboard", "--set", "GLOBAL_TRADING=true", *SENSITIVE)
    done = run("--home", str(home), *words, "--set", "EMBEDDED_SYMBOLS=3")
    assert done.returncode == 0, done.stderr
    return home / "state"


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a synthetic market with crashes in it."""
    return crash_csv(tmp_path_factory.mktemp("data") / "crash.csv", 180)


def records(state: Path, stream: Stream) -> list[dict[str, Any]]:
    """Return the records of a stream, series after series."""
    return [found.record for found in read_jsonl(segment.path for segment in list_segments(state / FOLDERS[stream]))]


def rows(path: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]


def decided(source: Path, out: Path, *words: str) -> list[bytes]:
    """Return the decisions of a replay, line by line."""
    assert main(["replay", str(source), "--out", str(out), *words]) == 0
    return (out / "decisions.jsonl").read_bytes().splitlines()


def test_every_stream_becomes_a_table_of_its_records(state: Path, tmp_path: Path) -> None:
    """Row for row, member for member; what is nested is JSON text, what is absent null, and nothing is left over."""
    done = run("export", str(state), "--to", "parquet", "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout)["files"]
    for stream in Stream:
        made = rows(tmp_path / "out" / f"{stream}.parquet")
        kept = records(state, stream)
        assert told[stream]["rows"] == len(made) == len(kept) > 10
        for row, record in zip(made, kept, strict=True):
            nested = {name: value for name, value in record.items() if isinstance(value, dict | list)}
            assert {name: orjson.loads(row[name]) for name in nested} == nested
            assert {name: value for name, value in row.items() if name not in nested} == {
                name: record.get(name) for name in row if name not in nested
            }
            assert record.keys() <= row.keys()
    kinds = {row["type"] for row in rows(tmp_path / "out" / "journal.parquet")}
    assert {"session_start", "decision", "fill", "exit", "trade"} <= kinds


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_replay_of_the_exported_ticks_decides_what_a_replay_of_the_state_decides(
    state: Path, tmp_path: Path, form: str
) -> None:
    """Byte for byte, with paper orders, also where the state's segments are sealed."""
    words = ("--set", "GLOBAL_TRADING=true", *SENSITIVE)
    expected = decided(state / "drop_windows" / "ticks", tmp_path / "1", *words)
    assert len(expected) > 3
    assert main(["export", str(state), "--to", form, "--out", str(tmp_path), "--stream", "ticks"]) == 0
    assert decided(tmp_path / f"ticks.{form}", tmp_path / "2", *words) == expected
    assert decided(state, tmp_path / "3", *words) == expected


def test_sealed_segments_replay_and_export_like_plain_ones(crash: Path, tmp_path: Path) -> None:
    """A replay of a state directory, and an export, leave nothing out because it is packed."""
    assert main(["import", str(crash), "--home", str(tmp_path), "--set", "MAX_FILE_MB=0.1"]) == 0
    ticks = tmp_path / "state" / "drop_windows" / "ticks"
    assert len(list(ticks.glob("*.zst"))) > 4
    expected = decided(tmp_path / "state", tmp_path / "1")
    assert len(expected) > 5
    for path in ticks.glob("*.jsonl"):
        seal(path)
    assert decided(ticks, tmp_path / "2") == expected
    assert main(["export", str(tmp_path / "state"), "--to", "parquet", "--out", str(tmp_path)]) == 0
    assert decided(tmp_path / "ticks.parquet", tmp_path / "3") == expected
    packed = sorted(ticks.glob("*.zst"))[0]
    text = b"".join(encode(found.record) for found in read_jsonl([packed]))
    packed.with_suffix("").write_bytes(text)  # as a kill within sealing leaves it
    assert decided(ticks, tmp_path / "4") == expected


def test_a_damaged_sealed_segment_is_replayed_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    """The ticks before the damage count, and the complaint names the file."""
    from tradingbot.io.market_files import read_ticks, scan

    ticks = b"".join(encode(tick_record("s", seq, Ticker("A/B", T + seq, 100.0))) for seq in range(1, 10_001))
    sealed = seal(small(tmp_path, ticks))
    frames = load_frames(sealed, sealed.stat().st_size)
    assert frames is not None
    packed = bytearray(sealed.read_bytes())
    packed[frames[0].packed + 100] ^= 0xFF
    sealed.write_bytes(packed)
    file = scan(sealed)
    assert frames[0].lines <= file.rows < 10_000
    assert file.complaint is not None
    assert f"{sealed}: " in file.complaint
    assert "damaged: " in file.complaint
    assert [ticker.ts_ms for ticker in read_ticks([file])] == [T + seq for seq in range(1, file.rows + 1)]


def test_an_export_holds_the_symbols_and_the_time_that_were_asked_for(state: Path, tmp_path: Path) -> None:
    """`--since` counts, `--until` does not; several symbols; other streams are not written."""
    ticks = [record for record in records(state, Stream.TICKS) if record["symbol"] != "BTC/USDT"]
    times = sorted(record["ts_ms"] for record in ticks)
    since, until = times[100], times[-100]
    symbols = sorted({record["symbol"] for record in ticks})
    words = [word for symbol in symbols for word in ("--symbol", symbol)]
    moments = ("--since", "2026-01-01T00:00:00Z", "--since", str(since), "--until", str(until))
    out = tmp_path / "out"
    assert (
        main(["export", str(state), "--to", "parquet", "--out", str(out), "--stream", "ticks", *words, *moments]) == 0
    )
    made = [(row["ts_ms"], row["seq"]) for row in rows(out / "ticks.parquet")]
    assert made == [(tick["ts_ms"], tick["seq"]) for tick in ticks if since <= tick["ts_ms"] < until]
    assert [path.name for path in out.iterdir()] == ["ticks.parquet"]
    none = run("export", str(state), "--to", "csv", "--out", str(out), "--symbol", "NO/PE")
    assert (none.returncode, "nothing was written" in none.stderr) == (2, True)
    assert run("export", str(state), "--to", "csv", "--since", "yesterday").returncode == 2


def test_a_sealed_segment_outside_the_time_is_not_opened(tmp_path: Path) -> None:
    """Its manifest says so: a damaged one that holds nothing wanted costs nothing and warns of nothing."""
    writer = RotatingJSONLWriter(tmp_path / FOLDERS[Stream.TICKS], "A_B")
    for day in range(3):
        ts_ms = T + day * 86_400_000
        writer.write(ts_ms, encode(tick_record("s", day + 1, Ticker("A/B", ts_ms, 100.0))))
    writer.close()
    sealed = seal(list_segments(tmp_path / FOLDERS[Stream.TICKS])[0].path)
    sealed.write_bytes(b"x" * sealed.stat().st_size)
    words = ["export", str(tmp_path), "--to", "csv", "--json", "--out"]
    later = run(*words, str(tmp_path / "later"), "--since", "2026-01-02")
    assert (later.returncode, later.stderr) == (0, "")
    assert orjson.loads(later.stdout)["files"]["ticks"]["rows"] == 2
    every = run(*words, str(tmp_path / "every"))
    assert (every.returncode, "left out: 1 damaged line " in every.stderr) == (0, True)


def test_nothing_is_overwritten(state: Path, tmp_path: Path) -> None:
    """Exit 2 before anything is written, and what lies there is as it was."""
    (tmp_path / "snapshots.csv").write_text("mine")
    done = run("export", str(state), "--to", "csv", "--out", str(tmp_path))
    assert (done.returncode, "name another --out" in done.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["snapshots.csv"]
    assert (tmp_path / "snapshots.csv").read_text() == "mine"


def test_an_interrupted_export_leaves_nothing(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No half table stands under a name, or beside it."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stream_tables, "BATCH_ROWS", 100)
    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_batch", interrupted)
    assert main(["export", str(state), "--to", "parquet", "--out", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_batches_do_not_show(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table written in batches of seven rows is that written in one."""
    for name, size in (("one", 1 << 20), ("many", 7)):
        monkeypatch.setattr(stream_tables, "BATCH_ROWS", size)
        assert main(["export", str(state), "--to", "csv", "--out", str(tmp_path / name)]) == 0
    for stream in Stream:
        assert (tmp_path / "one" / f"{stream}.csv").read_bytes() == (tmp_path / "many" / f"{stream}.csv").read_bytes()


def test_text_that_a_spreadsheet_would_run_is_defused_and_numbers_stay_numbers(tmp_path: Path) -> None:
    """A symbol or reason that begins with = + - @ gets an apostrophe; a negative number does not."""
    names = ["=cmd()", "+1", "-x", "@A", "\tA", "A=B"]
    for name in names:
        writer = RotatingJSONLWriter(tmp_path / FOLDERS[Stream.TICKS], series_of(name))
        writer.write(T, encode(tick_record("s", 1, Ticker(name, T, 1.5))))
        writer.close()
    journal = RotatingJSONLWriter(tmp_path / FOLDERS[Stream.JOURNAL], "journal")
    journal.write(T, encode(event_record("s", T, "decision", drop_pct=-1.5, reasons=["-a"], outcome="@x", symbol="=y")))
    journal.close()
    assert main(["export", str(tmp_path), "--to", "csv", "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "ticks.csv").open(newline="") as file:
        symbols = {row["symbol"] for row in csv.DictReader(file)}
    assert symbols == {"'=cmd()", "'+1", "'-x", "'@A", "'\tA", "A=B"}
    with (tmp_path / "out" / "journal.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["drop_pct"], row["reasons"], row["outcome"], row["symbol"]) == ("-1.5", '["-a"]', "'@x", "'=y")
    assert main(["export", str(tmp_path), "--to", "parquet", "--out", str(tmp_path / "out")]) == 0
    assert {row["symbol"] for row in rows(tmp_path / "out" / "ticks.parquet")} == set(names)


def test_what_a_column_does_not_take_stands_in_the_rest(tmp_path: Path) -> None:
    """Of a rejected ticker anything may be recorded; a table loses none of it."""
    journal = RotatingJSONLWriter(tmp_path / FOLDERS[Stream.JOURNAL], "journal")
    odd = [{"last": "NaN"}, {"last": True}, {"seq": 1.5}, {"seq": 1 << 63}, {"on": 1}, {"new": [1]}, {"symbol": 7}]
    for members in odd:
        journal.write(T, encode(event_record("s", T, "rejected", **members)))
    journal.close()
    assert main(["export", str(tmp_path), "--to", "parquet", "--out", str(tmp_path / "out")]) == 0
    made = rows(tmp_path / "out" / "journal.parquet")
    assert [orjson.loads(row["rest"]) for row in made] == odd
    assert {row[name] for row in made for name in ("last", "seq", "on", "symbol")} == {None}


def test_gap_records_and_damaged_lines_are_left_out_and_told(tmp_path: Path) -> None:
    """The table holds ticks alone; the warnings count what it does not hold."""
    writer = RotatingJSONLWriter(tmp_path / FOLDERS[Stream.TICKS], "A_B")
    tick = encode(tick_record("s", 1, Ticker("A/B", T, 100.0)))
    gap = encode(event_record("s", T, "gap", missing=3))
    writer.write(T, tick + gap + tick.replace(b"100", b"101") + tick)
    writer.close()
    done = run("export", str(tmp_path), "--to", "csv", "--out", str(tmp_path / "out"), "--json")
    document = orjson.loads(done.stdout)
    assert (document["files"]["ticks"]["rows"], document["gap_records"], document["damaged"]) == (2, 1, 1)
    assert done.stderr.count("warning: ") == 2


def test_the_columns_are_those_of_the_schema_page() -> None:
    """Each member that the page names for the four streams is a column, and nothing else is."""
    import re

    from tests.conftest import ROOT

    page = (ROOT / "docs" / "SNAPSHOT_SCHEMA.md").read_text()
    for stream in (Stream.TICKS, Stream.SNAPSHOTS):
        section = re.search(rf"^## {stream}: .*?```json\n(.*?)\n```", page, re.MULTILINE | re.DOTALL)
        assert section is not None
        example = decode(section.group(1).encode())
        columns = [pair.split(":")[0] for pair in SCHEMAS[stream].split()]
        assert [name for name in columns if name in example] == list(example)


def facts(lines: list[bytes]) -> list[tuple[Any, ...]]:
    """Return of each decision what does not depend on how its inputs are numbered."""
    names = ("ts_ms", "symbol", "last", "reference", "threshold", "outcome", "reasons")
    return [tuple(str(orjson.loads(line)[name]) for name in names) for line in lines]


KINDS = {"quotes": "last", "trades": "price", "candles": "close"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_file_replays_like_the_file_and_is_proved(crash: Path, tmp_path: Path, kind: str) -> None:
    """Quotes, trades and candles: the same triggers from the file and from the state directory; prove says equal."""
    with crash.open(newline="") as file:
        market = list(csv.DictReader(file))
    path = tmp_path / "market.csv"
    names = ["ts_ms", "symbol", KINDS[kind], *(["bid", "ask", "quote_volume"] if kind == "quotes" else [])]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([row[{KINDS[kind]: "last"}.get(name, name)] for name in names] for row in market)
    done = run("import", str(path), "--home", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout)
    assert (told["ticks"], told["rejected"]) == (len(market), 0)
    expected = facts(decided(path, tmp_path / "1"))
    assert facts(decided(tmp_path / "state", tmp_path / "2")) == expected
    assert told["triggers"] == len(expected) > 5
    proof = prove(tmp_path / "state")
    assert (proof.exit_code, [session.verdict for session in proof.sessions]) == (0, ["equal"])
    assert proof.sessions[0].inputs == len(market)
    assert look(tmp_path / "state").exit_code == 0


def test_an_import_into_a_used_directory_asks_and_adds_a_session(crash: Path, tmp_path: Path) -> None:
    """Without a terminal exit 2 and nothing changed; with --yes and a reason there are two sessions, both proved."""
    words = ["import", str(crash), "--home", str(tmp_path)]
    state = tmp_path / "state"
    assert main(words) == 0
    before = digests(state)
    refused = run(*words, "--why", "more data")
    assert (refused.returncode, "1 session already" in refused.stdout) == (2, True), refused.stdout
    assert run(*words, "--yes").returncode == 2
    assert digests(state) == before
    assert main([*words, "--yes", "--why", "more data"]) == 0
    assert [session.verdict for session in prove(state).sessions] == ["equal", "equal"]
    (entry,) = [decode(line) for line in (state / "audit.jsonl").read_bytes().splitlines()]
    assert (entry["what"], entry["why"], entry["files"]) == ("import", "more data", [str(crash)])


def test_on_a_terminal_an_import_asks(crash: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No is no."""
    words = ["import", str(crash), "--home", str(tmp_path), "--why", "asked"]
    assert main(words) == 0
    for answer, code in (("n\n", 2), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert main(words) == code


def test_an_import_leaves_a_directory_in_use_alone(crash: Path, tmp_path: Path) -> None:
    """Exit 3."""
    (tmp_path / "state").mkdir()
    with StateLock(tmp_path / "state", 0):
        assert run("import", str(crash), "--home", str(tmp_path)).returncode == 3
    assert digests(tmp_path / "state") == {}


def test_no_bot_takes_imported_data_for_its_own_past(crash: Path, tmp_path: Path) -> None:
    """A fresh directory is stamped by the import; a bot that is started on it is refused, exit 4."""
    assert main(["import", str(crash), "--home", str(tmp_path)]) == 0
    done = run("--home", str(tmp_path), "--virtual", "--duration", "1", "--no-dashboard")
    assert (done.returncode, "belongs to import" in done.stderr) == (4, True), done.stderr


def test_what_is_of_no_use_makes_no_directory(tmp_path: Path) -> None:
    """Exit 2, one line."""
    (tmp_path / "x.csv").write_text("ts_ms,symbol,price\n")
    done = run("import", str(tmp_path / "x.csv"), "--home", str(tmp_path))
    assert (done.returncode, "nothing usable" in done.stderr) == (2, True)
    assert not (tmp_path / "state").exists()


def test_an_import_that_the_disk_does_not_take_says_so(crash: Path, tmp_path: Path) -> None:
    """Exit 2 where there is too little room, and where a stream cannot be written."""
    words = ("import", str(crash), "--home", str(tmp_path))
    full = run(*words, "--set", "MIN_FREE_MB=1e9")
    assert (full.returncode, "MIN_FREE_MB" in full.stderr) == (2, True)
    assert not (tmp_path / "state" / "drop_windows").exists()
    (tmp_path / "state" / "drop_windows").mkdir()
    (tmp_path / "state" / "drop_windows" / "snapshots").write_text("in the way")
    blocked = run(*words)
    assert (blocked.returncode, "the import is not complete" in blocked.stderr) == (2, True), blocked.stderr
