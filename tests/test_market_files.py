"""Foreign market data: formats, order, bars; what is unreadable is named and the rest is used."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.errors import UsageError
from tradingbot.io import market_files
from tradingbot.io.market_files import find_files, read_ticks, scan

Tick = tuple[str, int, float | None, float | None, float | None, float | None]


def ticks_of(*paths: Path) -> list[Tick]:
    return [(t.symbol, t.ts_ms, t.last, t.bid, t.ask, t.quote_volume) for t in read_ticks([scan(p) for p in paths])]


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_quotes_trades_and_candles_become_ticks(tmp_path: Path) -> None:
    """The first of last, price and close that is there wins; a candle counts at its end."""
    quotes = write_csv(tmp_path / "q.csv", "ts_ms,symbol,bid,ask,last,quote_volume", "5,A,1,2,1.5,9", "6,A,,,,")
    trades = write_csv(tmp_path / "t.csv", "symbol,price,ts_ms,close", "B,7.5,5,3")
    candles = write_csv(tmp_path / "c.csv", "ts_ms,symbol,close", "0,A,1", "60,B,1", "120,B,2", "300,A,2", "60,B,3")
    assert ticks_of(quotes) == [("A", 5, 1.5, 1.0, 2.0, 9.0), ("A", 6, None, None, None, None)]
    assert ticks_of(trades) == [("B", 5, 7.5, None, None, None)]
    assert [(s, ts) for s, ts, *_ in ticks_of(candles)] == [("A", 60), ("B", 120), ("B", 120), ("B", 180), ("A", 360)]


def test_one_bar_length_a_file_over_all_its_symbols(tmp_path: Path) -> None:
    """The smallest step > 0 of any symbol; 0 where there is none; also where rows run backwards."""
    one = write_csv(tmp_path / "1.csv", "ts_ms,symbol,close", "0,A,1", "300,A,1", "0,B,1", "60,B,1")
    assert scan(one).bar_ms == 60
    none = write_csv(tmp_path / "0.csv", "ts_ms,symbol,close", "0,A,1", "0,A,2", "7,B,1")
    assert scan(none).bar_ms == 0
    back = write_csv(tmp_path / "b.csv", "ts_ms,symbol,close", "0,A,1", "300,A,1", "240,A,1", "120,A,1")
    assert scan(back).bar_ms == 60


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ABC")), min_size=1, max_size=60),
    st.integers(1, 7),
    st.data(),
)
def test_ticks_come_in_order_of_time_file_and_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]], run: int, data: st.DataObject
) -> None:
    """Whatever the order on disk and however small the sorted runs, the order of ticks is the same."""
    folder = tmp_path_factory.mktemp("files")
    cut = data.draw(st.integers(0, len(rows)))
    lines = [f"{ts},{symbol},{i + 1}" for i, (ts, symbol) in enumerate(rows)]
    first = write_csv(folder / "1.csv", "ts_ms,symbol,price", *lines[:cut])
    second = write_csv(folder / "2.csv", "ts_ms,symbol,price", *lines[cut:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(market_files, "RUN_ROWS", run)
        patch.setattr("tradingbot.io.market_tables.BATCH_ROWS", 3)
        found = [(ts, last) for _, ts, last, *_ in ticks_of(first, second)]
    assert found == sorted(((ts, float(i + 1)) for i, (ts, _) in enumerate(rows)), key=lambda row: row[0])


def table(**columns: Any) -> pa.Table:
    return pa.table({"ts_ms": [1, 2, 3], "symbol": ["A", "A", "A"], **columns})


def test_parquet_of_other_types_is_read_as_far_as_it_means_the_same(tmp_path: Path) -> None:
    """Timestamps, integers, texts and nulls become what they stand for."""
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table(
            {
                "ts_ms": pa.array([1_000_000, 2_000_000, None], pa.timestamp("us")),
                "symbol": pa.array(["A", None, "A"]).dictionary_encode(),
                "last": pa.array([5, 6, 7], pa.int32()),
                "bid": pa.array([None, None, 1.0]),
            }
        ),
        path,
    )
    assert ticks_of(path) == [("A", 1000, 5.0, None, None, None)]
    assert scan(path).unreadable == 2
    pq.write_table(table(price=[1.0, float("nan"), None]), path)
    assert [last for _, _, last, *_ in ticks_of(path)] == [1.0, None, None]
    pq.write_table(table(price=["1.0", "x", None]), path)
    assert [last for _, _, last, *_ in ticks_of(path)] == [float("inf"), float("inf"), None]
    pq.write_table(table(price=pa.array([True, False, None])), path)
    assert [last for _, _, last, *_ in ticks_of(path)] == [float("inf"), float("inf"), None]


def test_unreadable_rows_are_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    """A row without a time or a symbol is none; a price that is no number is one for the guards."""
    path = write_csv(
        tmp_path / "x.csv",
        "ts_ms,symbol,price",
        "1,A,5",
        "x,A,5",
        "2,,5",
        "3,A",
        "4,A,abc",
        "5.0,A,nan",
        "-1,A,1",
        "1e99,A,1",
    )
    file = scan(path)
    assert (file.rows, file.unreadable) == (3, 5)
    assert ticks_of(path) == [
        ("A", 1, 5.0, None, None, None), ("A", 4, float("inf"), None, None, None), ("A", 5, None, None, None, None),
    ]  # fmt: skip
    assert file.complaint == f"{path}: 5 of 8 rows unreadable"


def test_jsonl_with_torn_and_foreign_lines(tmp_path: Path) -> None:
    """Each line stands for itself; Python's NaN is read as absent."""
    path = tmp_path / "x.jsonl"
    good = orjson.dumps({"ts_ms": 5, "symbol": "A", "last": 1.5, "bid": None})
    lines = [good, b'{"ts_ms": 6, "symbol": "A", "last": NaN, "ask": 2}', b"[1]", b"\xff\x00", b"", b"[" * 100_000,
             b'{"ts_ms": 7, "symbol": ["A"], "last": 1}', b'{"ts_ms": 8, "symbol": "A", "last": "9"}',
             b'{"ts_ms": 9, "symbol": "A", "last": ' + b"9" * 5000 + b"}", b"x" * (3 << 20), good[:-7]]  # fmt: skip
    path.write_bytes(b"\n".join(lines))
    file = scan(path)
    assert ticks_of(path)[:3] == [
        ("A", 5, 1.5, None, None, None), ("A", 6, None, None, 2.0, None), ("A", 8, float("inf"), None, None, None),
    ]  # fmt: skip
    assert (file.rows, file.unreadable) == (3, 7)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.parquet", b"", "the file is empty"),
        ("x.csv", b"", "the file is empty"),
        ("x.parquet", b"PAR1 no parquet at all", "not a whole Parquet file"),
        ("x.csv", b"ts_ms,symbol,open\n1,A,2\n", "column missing: one of last, price, close"),
        ("x.csv", b"a\0,b\n1\n", "column missing"),
        ("x.jsonl", b"\x00\x01", "column missing: ts_ms, symbol"),
        ("x.txt", b"ts_ms", "not one of .parquet, .csv, .jsonl"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """Nothing raises; the reason stands in the scan."""
    path = tmp_path / name
    path.write_bytes(content)
    file = scan(path)
    assert file.rows == 0
    assert words in str(file.complaint)


def test_a_parquet_file_cut_anywhere_is_named_and_never_breaks(tmp_path: Path) -> None:
    """Truncation or damage at any place gives the rows before it, or a reason."""
    rng = random.Random(1)
    path = tmp_path / "x.parquet"
    columns = {"ts_ms": np.arange(5000), "symbol": ["A"] * 5000, "price": np.arange(1.0, 5001.0)}
    pq.write_table(pa.table(columns), path, row_group_size=500)
    whole = path.read_bytes()
    for _ in range(60):
        cut = rng.randrange(len(whole))
        path.write_bytes(whole[:cut] if rng.random() < 0.5 else whole[:cut] + rng.randbytes(40) + whole[cut + 40 :])
        file = scan(path)
        assert len(ticks_of(path)) == file.rows
        assert file.rows == 5000 or file.problem or file.unreadable


def test_the_files_of_a_directory_come_by_name(tmp_path: Path) -> None:
    """Arguments keep their order; within a directory names decide."""
    for name in ("b.csv", "a.parquet", "c.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    other = tmp_path / "z.csv"
    assert [p.name for p in find_files([other.parent])] == ["a.parquet", "b.csv", "c.jsonl"]
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match="no data file in"):
        find_files([tmp_path / "sub"])
    with pytest.raises(UsageError, match="there is no file or directory"):
        find_files([tmp_path / "nothing"])


def test_more_files_than_descriptors_are_replayed_whole(tmp_path: Path) -> None:
    """A file is opened when its time has come: a year of daily files needs no more than one."""
    import subprocess
    import sys

    for day in range(120):
        write_csv(
            tmp_path / f"{day:03}.csv", "ts_ms,symbol,price", *(f"{day * 100 + i},A,{100 + i}" for i in range(20))
        )
    words = f"ulimit -n 40; exec {sys.executable} -m tradingbot replay {tmp_path} --json"
    done = subprocess.run(["sh", "-c", words], capture_output=True, check=True)
    assert orjson.loads(done.stdout)["ticks"] == 120 * 20


def test_a_file_that_changes_under_way_is_an_error(tmp_path: Path) -> None:
    """Nothing is left out in silence."""
    path = write_csv(tmp_path / "x.csv", "ts_ms,symbol,price", "1,A,1", "2,A,1")
    file = scan(path)
    write_csv(path, "ts_ms,symbol,price", "1,A,1")
    with pytest.raises(UsageError, match="1 of the 2 rows found at first"):
        list(read_ticks([file]))


def test_a_lone_quote_costs_its_own_row_only(tmp_path: Path) -> None:
    """A row is a line; semicolons and tabs separate as well as commas."""
    path = write_csv(tmp_path / "x.csv", "ts_ms,symbol,price", '1,"A,1', "2,A,1", '3,"A",1', '4,A,"1"')
    assert [ts for _, ts, *_ in ticks_of(path)] == [2, 3, 4]
    assert scan(path).unreadable == 1
    for mark in ";\t":
        write_csv(path, f"ts_ms{mark}symbol{mark}price", f"1{mark}A{mark}7.5")
        assert ticks_of(path) == [("A", 1, 7.5, None, None, None)]


def test_results_of_a_replay_are_no_market_data(tmp_path: Path) -> None:
    """Writing into the folder that is read changes nothing at the next run."""
    for name in ("a.csv", "decisions.jsonl", "trades.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files([tmp_path])] == ["a.csv"]


@pytest.mark.parametrize(
    "columns",
    [
        {"ts_ms": pa.array([1, None, 2**63], pa.uint64()), "symbol": ["A"] * 3, "price": [1.0] * 3},
        {"ts_ms": [1.0, float("nan"), 2.5], "symbol": ["A"] * 3, "price": [1.0] * 3},
        {"ts_ms": [1, 2, 3], "symbol": [["A"], ["B"], None], "price": [1.0] * 3},
        {"ts_ms": [1, 2, 3], "symbol": [{"a": 1}] * 3, "price": [1.0] * 3},
        {"ts_ms": [1, 2, 3], "symbol": [1, 2, 3], "price": [[1.0]] * 3},
        {"ts_ms": [b"1", b"2", None], "symbol": [b"A"] * 3, "price": [b"1"] * 3},
        {"ts_ms": pa.array([1, 2, 3], pa.duration("ms")), "symbol": ["A"] * 3, "price": [1.0] * 3},
    ],
)
def test_a_parquet_file_of_odd_types_never_breaks(tmp_path: Path, columns: dict[str, Any]) -> None:
    """What is no time, symbol or price is counted or named; the rest is used."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), path)
    file = scan(path)
    assert file.problem or file.rows + file.unreadable == 3
    assert len(ticks_of(path)) == file.rows
