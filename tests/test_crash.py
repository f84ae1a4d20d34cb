"""A small sample of every row of the crash test, and of the defects that each must find."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.crash.rows import Outcome, Row, numbered
from tests.crash.runner import Log, run_row
from tests.crash.table import ROWS

CHEAP = [  # defects that are found within a second or two; `make crash` tries them all
    ("kills", "written in place"), ("power", "folder not flushed"), ("errors", "flush retried"),
    ("full", "lost records not told"), ("torn", "append on a torn tail"), ("bad", "checksum not compared"),
    ("symbols", "names not encoded"), ("anchors", "one before not kept"), ("clocks", "segment overwritten"),
    ("tickers", "guard skipped"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_sample_of_each_row_holds(row: Row, tmp_path: Path) -> None:
    """Nothing lost, nothing unreadable, no gap, nothing else that must not be."""
    if why := row.needs():
        pytest.skip(why)
    outcome = Outcome(count=0)
    for number, case in enumerate(row.cases(row.sample, tmp_path)):
        place = tmp_path / f"case{number}"
        place.mkdir()
        outcome.add(row.run(case, place))
    assert not outcome.violations, outcome.wrong
    assert outcome.count >= min(row.sample, 1)
    assert outcome.checked > outcome.count


@pytest.mark.parametrize(("name", "defect"), CHEAP)
def test_a_seeded_defect_is_found(name: str, defect: str, tmp_path: Path) -> None:
    """With a defect in the product its row finds a violation."""
    row = next(row for row in ROWS if row.name == name)
    if why := row.needs():
        pytest.skip(why)
    assert row.defects[defect](tmp_path).violations


def test_every_row_finds_a_defect_of_its_own() -> None:
    """A row that no defect stands for proves nothing."""
    assert not [row.name for row in ROWS if not row.defects]


def _row(tried: list[str], limit: int) -> Row:
    def run(case: str, folder: Path) -> Outcome:
        if len(tried) == limit:
            raise KeyboardInterrupt
        tried.append(case)
        outcome = Outcome()
        outcome.holds(case != "2+1", "is two", "gaps")
        return outcome

    return Row("try", "a try", "tries", 4, 4, numbered(1), run, {"blind": lambda _: Outcome()})


def test_an_interrupted_row_goes_on_where_it_was(tmp_path: Path) -> None:
    """What is done is not done again; violations and missed defects are counted; a torn result is none."""
    log, tried = Log(tmp_path / "results.jsonl"), list[str]()
    cases = numbered(1)(4, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_row(_row(tried, 2), cases, log, "code")
    with log.path.open("a") as file:
        file.write('{"row": "try", ')
    result = run_row(_row(tried, 9), cases, log, "code")
    assert tried == ["0+1", "1+1", "2+1", "3+1"]
    assert (result.outcome.count, result.outcome.gaps, result.missed) == (4, 1, ["blind"])
    assert result.outcome.wrong == ["2+1: is two"]
    assert not result.is_clean
    run_row(_row(tried, 9), cases, log, "code")
    assert len(tried) == 4
    run_row(_row(tried, 99), cases, log, "other code")
    assert len(tried) == 8
    whole = [line for line in log.path.read_text().splitlines() if line.endswith("}")]
    assert len({json.loads(line)["case"] for line in whole}) == 5


def test_rows_run_in_processes_of_their_own(tmp_path: Path) -> None:
    """Two at a time, and a row that falls over is a violation."""
    row = next(row for row in ROWS if row.name == "tickers")
    result = run_row(row, ["0+5", "5+5", "no case"], jobs=2)
    assert (result.outcome.count, result.outcome.violations, result.caught) == (11, 1, ["guard skipped"])
