"""Replay: what it writes, what it says, and that two runs are equal byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

import tradingbot as tb
from tests.helpers import S, T
from tradingbot.cli import main
from tradingbot.simulated.market import SyntheticMarket

FILES = [
    "candles1m_binance_2023-03-16_2023-05-01.parquet",
    "candles1m_binanceus_BTC-USDT_2023-03.parquet",
    "candles1m_bitfinex_BTC-USD_2017-12_2018-02.parquet",
    "candles1s_coinbase_BTC-USD_2016-10.parquet",
    "quotes1m_coinbase_BTC-USD_2017-2018.parquet",
    "quotes_binance_spot_2024-08-08_BTC-USDT.parquet",
    "trades_binance_spot_2024-08-08_BTC-USDT.parquet",
]


def crash_csv(path: Path, minutes: int = 300) -> Path:
    start = 1_767_225_600_000
    lines = ["ts_ms,symbol,bid,ask,last,quote_volume"]
    for q in SyntheticMarket(seed=7, count=4).quotes(start, start + minutes * 60_000, 5000):
        lines.append(f"{q.ts_ms},{q.symbol},{q.bid},{q.ask},{q.last},{q.quote_volume}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a synthetic market with crashes in it."""
    return crash_csv(tmp_path_factory.mktemp("data") / "crash.csv")


def test_it_writes_decisions_trades_and_a_summary_that_agree(crash: Path, tmp_path: Path) -> None:
    """The three files tell one story."""
    assert main(["replay", str(crash), "--set", "GLOBAL_TRADING=true", "--out", str(tmp_path)]) == 0
    decisions = [orjson.loads(line) for line in (tmp_path / "decisions.jsonl").read_bytes().splitlines()]
    trades = [orjson.loads(line) for line in (tmp_path / "trades.jsonl").read_bytes().splitlines()]
    summary = orjson.loads((tmp_path / "summary.json").read_bytes())
    assert len(decisions) == summary["triggers"] > 5
    assert len(trades) == summary["trades"] > 2
    assert summary["ticks"] == len(crash.read_text().splitlines()) - 1
    assert summary["rejected"] == {}
    entered = {d["decision_id"] for d in decisions if d["outcome"] == "entered"}
    assert {trade["decision_id"] for trade in trades} <= entered
    for d in decisions:
        assert (d["outcome"] == "blocked") == bool(d["reasons"])
        assert d["last"] <= d["threshold"]
        assert [c["name"] for c in d["checks"] if c["blocks"]] == d["reasons"]
    assert sum(row["trades"] for row in summary["by_exit_reason"].values()) == summary["trades"]
    assert sum(row["triggers"] for row in summary["by_symbol"].values()) == summary["triggers"]
    if not summary["open_positions"]:
        assert summary["final_quote"] == pytest.approx(1000 + sum(trade["pnl"] for trade in trades))
    assert not list(tmp_path.glob("*.partial"))


def test_two_runs_are_equal_byte_for_byte(crash: Path, tmp_path: Path) -> None:
    """Nothing of the clock, the machine or the order of a dictionary gets into a result."""
    for name in ("one", "two"):
        assert main(["replay", str(crash), "--set", "GLOBAL_TRADING=true", "--out", str(tmp_path / name)]) == 0
    for name in ("decisions.jsonl", "trades.jsonl", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_every_real_file_replays(market_data: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    """Quotes, trades and candles of real markets go through as they are."""
    path = market_data(name)
    assert main(["replay", str(path), "--set", "GLOBAL_TRADING=true", "--out", str(tmp_path)]) == 0
    summary = orjson.loads((tmp_path / "summary.json").read_bytes())
    assert summary["ticks"] == sum(file["rows"] for file in summary["files"]) > 7000
    assert not summary["files"][0]["unreadable"]


def test_python_and_the_command_line_say_the_same(crash: Path, tmp_path: Path) -> None:
    """`tb.replay` is the same loop with the same result."""
    assert main(["replay", str(crash), "--set", "GLOBAL_TRADING=true", "--out", str(tmp_path)]) == 0
    result = tb.replay(crash, GLOBAL_TRADING=True)
    assert orjson.loads(orjson.dumps(result.summary)) == orjson.loads((tmp_path / "summary.json").read_bytes())
    lines = (tmp_path / "decisions.jsonl").read_bytes().splitlines()
    assert [orjson.dumps(decision) for decision in result.decisions] == lines
    assert len(result.trades_frame()) == len(result.trades)
    assert str(result.decisions_frame().index.tz) == "UTC"
    assert "triggers" in result._repr_html_()


def test_a_frame_and_tickers_replay_like_a_file(crash: Path) -> None:
    """However the same ticks come in, the decisions are the same."""
    import pandas as pd

    frame = pd.read_csv(crash)
    by_file = tb.replay(crash)
    by_frame = tb.replay(frame)
    rows = frame.to_dict("records")
    by_ticks = tb.replay(
        tb.Ticker(r["symbol"], r["ts_ms"], r["last"], r["bid"], r["ask"], r["quote_volume"]) for r in rows
    )
    assert by_file.decisions == by_frame.decisions == by_ticks.decisions
    assert by_file.decisions


def test_nothing_usable_is_an_error_that_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, one line, no result under a whole one's name."""
    (tmp_path / "x.csv").write_text("")
    out = tmp_path / "out"
    assert main(["replay", str(tmp_path / "x.csv"), "--out", str(out)]) == 2
    assert "nothing usable" in capsys.readouterr().err
    assert list(out.iterdir()) == []
    (tmp_path / "x.csv").write_text("ts_ms,symbol,price\n1,A,-5\n2,A,nan\n")
    assert main(["replay", str(tmp_path / "x.csv"), "--out", str(out)]) == 2
    assert "every one of 2 ticks was rejected: missing 1, not_positive 1" in capsys.readouterr().err


def test_a_bad_file_beside_a_good_one_is_named_and_left_out(
    crash: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is readable is used."""
    (tmp_path / "bad.parquet").write_bytes(b"x")
    assert main(["replay", str(crash), str(tmp_path / "bad.parquet")]) == 0
    assert "bad.parquet: not a whole Parquet file" in capsys.readouterr().err


def test_garbage_prices_are_rejected_with_their_reasons(tmp_path: Path) -> None:
    """Bad rows between good ones are counted by reason and decide nothing."""
    path = tmp_path / "x.csv"
    rows = [
        (0, 100),
        (1, "nan"),
        (2, -1),
        (3, 1e308),
        (4, "abc"),
        (5, 100.5),
        (5, 100.5),
        (6, 0),
        (7, "inf"),
        (8, 98.9),
    ]
    path.write_text("ts_ms,symbol,price\n" + "".join(f"{T + s * 1000},{S},{p}\n" for s, p in rows))
    summary = tb.replay(path).summary
    assert summary["rejected"] == {"duplicate": 1, "jump": 1, "missing": 1, "not_finite": 2, "not_positive": 2}
    assert (summary["ticks"], summary["triggers"]) == (10, 1)


def test_holding_and_averaging_in_pay_fees_and_slippage() -> None:
    """The yardsticks buy at what a buyer pays: doubled prices give a little less than double."""
    ticks = [tb.Ticker(S, T + i * 1000, last=100.0 * 1.01**i) for i in range(101)]
    summary = tb.replay(ticks).summary
    paid = (1 + 2 / 10_000) * 1.001
    assert summary["holding"]["final_equity_quote"] == pytest.approx(1000 * 1.01**100 / paid)
    parts = [1.01 ** (100 - max(5 * k - 1, 0)) for k in range(20)]
    assert summary["averaging_in"]["final_equity_quote"] == pytest.approx(1000 * sum(parts) / 20 / paid)


def test_drawdown_and_exposure_are_those_of_a_hand_count() -> None:
    """One position, held from its fill to its exit's fill, valued at every tick in between."""
    prices = [(0, 100.0), (10, 98.0), (20, 98.0), (30, 97.5), (40, 96.0), (50, 96.5), (100, 96.5)]
    result = tb.replay([tb.Ticker(S, T + s * 1000, last=p) for s, p in prices], GLOBAL_TRADING=True)
    (trade,) = result.trades
    entry_fee = trade["qty"] * trade["entry"] * 0.001
    low = 1000 - trade["qty"] * trade["entry"] - entry_fee + trade["qty"] * 96.0
    assert result.summary["exposure_pct"] == pytest.approx(30)
    assert result.summary["max_drawdown_quote"] == pytest.approx(1000 - low)
    assert result.summary["fees_quote"] == pytest.approx(trade["fees"])
    assert result.summary["pnl_quote"] == trade["pnl"]


def test_a_rejected_row_falsifies_no_figure(tmp_path: Path) -> None:
    """A price that is none, at an absurd time, is no part of the span."""
    rows = [f"{T + i * 1000},{S},{100 - i % 5}" for i in range(500)]
    clean, dirty = tmp_path / "clean.csv", tmp_path / "dirty.csv"
    clean.write_text("\n".join(["ts_ms,symbol,price", *rows]))
    dirty.write_text("\n".join(["ts_ms,symbol,price", f"5,{S},-1", *rows, f"253402300000000,{S},nan"]))
    one, two = (tb.replay(path, GLOBAL_TRADING=True).summary for path in (clean, dirty))
    for name in ("first_ms", "last_ms", "exposure_pct", "averaging_in", "holding", "max_drawdown_quote"):
        assert one[name] == two[name], name
    assert two["rejected"].pop("not_positive") == two["rejected"].pop("missing") == 1
