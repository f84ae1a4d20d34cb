"""The study of drop triggers: its numbers against a second reading, and its notebook as it is run."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tradingbot as tb
from tests.conftest import ROOT
from tests.damage import edit, make_state, series
from tests.helpers import MINUTE, S, T
from tests.past import Past
from tests.sessions import SETTINGS, STEPS, Steps
from tests.test_compare import recorded
from tradingbot.config import make_settings
from tradingbot.engine.events import SettingsChanged
from tradingbot.errors import SettingsError, UsageError
from tradingbot.ops.checkup import Verdict
from tradingbot.ops.record.compare import compare
from tradingbot.ops.record.variants import run_variants
from tradingbot.research.outcomes import FEW, SymbolTicks, after, luck

NOTEBOOK = ROOT / "notebooks" / "drop_triggers.ipynb"
ETH = "ETH/USDT"

GAPS = st.lists(st.sampled_from([1, 1_000, 20_000, 59_999, 60_000, 60_001, 300_000]), min_size=1, max_size=25)


def ticks_of(gaps: list[int], prices: list[float]) -> SymbolTicks:
    ts_ms = T + np.cumsum(np.array(gaps, dtype=np.int64))
    last = np.array((prices * len(gaps))[: len(gaps)])
    return SymbolTicks.of(S, ts_ms, last, last - 0.5, np.full(len(gaps), np.nan))


def second_reading(ticks: SymbolTicks, at: int, paid: float, ahead: int) -> tuple[float, float]:
    """Go through the ticks one by one."""
    points = list(zip(ticks.ts_ms.tolist(), ticks.bid.tolist(), strict=True))
    before = [point for point in points if point[0] <= at]
    if not before or at + ahead > points[-1][0]:
        return np.nan, np.nan
    within = [point for point in points if at < point[0] <= at + ahead]
    times = [before[-1][0], *(point[0] for point in within)]
    if at - times[0] > ticks.tolerance_ms or at + ahead - times[-1] > ticks.tolerance_ms:
        return np.nan, np.nan
    if any(later - earlier > ticks.tolerance_ms for earlier, later in itertools.pairwise(times)):
        return np.nan, np.nan
    bids = [point[1] for point in within] or [before[-1][1]]
    return (bids[-1] / paid - 1) * 100, (min(bids) / paid - 1) * 100


@settings(max_examples=150)
@given(
    GAPS,
    st.lists(st.sampled_from([100.0, 99.0, 98.5, 103.0, 97.0]), min_size=1),
    st.lists(st.integers(-5_000, 900_000), min_size=1, max_size=8),
    st.sampled_from([MINUTE, 5 * MINUTE, 15 * MINUTE]),
)
def test_returns_after_a_moment_equal_those_of_a_second_reading(
    gaps: list[int], prices: list[float], moments: list[int], ahead: int
) -> None:
    """Law: final and worst, and where a hole keeps both from being known."""
    ticks = ticks_of(gaps, prices)
    at = T + np.array(moments, dtype=np.int64)
    final, worst = after(ticks, at, np.full(len(at), 100.0), ahead)
    for place, moment in enumerate(at.tolist()):
        expected = second_reading(ticks, moment, 100.0, ahead)
        assert np.allclose([final[place], worst[place]], expected, rtol=0, atol=1e-9, equal_nan=True)


def test_luck_is_told_from_more_than_luck_and_few_say_nothing() -> None:
    """The same excess throughout is none; one that changes its sign is; what overlaps counts once."""
    any_moment = {S: np.array([-0.1, 0.0, 0.1])}
    apart = T + np.arange(20) * 15 * MINUTE
    same, mixed = np.full(20, 0.5), np.tile([0.5, -0.5], 10)
    better = luck([S] * 20, apart, same, any_moment, 15 * MINUTE)
    assert better.p is not None
    assert better.p < 0.001
    assert better.says == "better (p < 0.001, 20 apart)"
    assert luck([S] * 20, apart, -same, any_moment, 15 * MINUTE).says.startswith("worse")
    assert luck([S] * 20, apart, mixed, any_moment, 15 * MINUTE).says.startswith("no different")
    assert luck([S] * 20, T + np.arange(20) * MINUTE, same, any_moment, 15 * MINUTE).says == "too few to say (2 apart)"
    few = luck([S] * (FEW - 1), apart[: FEW - 1], same[: FEW - 1], any_moment, 15 * MINUTE)
    assert few.p is None
    assert luck([S], apart[:1], np.array([np.nan]), any_moment, 15 * MINUTE).episodes == 0


@settings(max_examples=12)
@given(SETTINGS, STEPS)
def test_variants_in_one_pass_decide_what_comparisons_two_by_two_do(chosen: dict[str, Any], steps: Steps) -> None:
    """Law: each of several engines decides what it does beside one other."""
    ours, theirs = {"DROP_TRIGGER_VALUE": 0.997}, {"DROP_TRIGGER_MODE": 2, "WINDOW_LOOKBACK_S": 30}
    with recorded(chosen, steps) as state:
        try:
            found = compare(state, ours, theirs)
        except UsageError:
            with pytest.raises(UsageError):
                run_variants(state, {"ours": ours})
            return
        three = run_variants(state, {"ours": ours, "recorded": {}, "theirs": theirs})
    assert three.inputs == found.inputs
    for one, side in ((three.variants[0], found.ours), (three.variants[2], found.theirs)):
        assert [each.decision_id for each in one.decisions] == [each.decision.decision_id for each in side.triggers]
        assert one.trades == side.trades
        assert one.equity_quote == side.final_equity_quote
        assert one.max_drawdown_quote == side.max_drawdown_quote


def falling(made: Past, symbol: str = S, begins: int = 0, count: int = 12) -> None:
    """Feed falls of two per cent, each twenty minutes after the one before, a tick every ten seconds."""
    for number in range(count):
        start = begins + number * 1_200
        for step in range(120):
            last = 98.0 if 30 <= step < 60 else 100.0
            made.feed((start + step * 10, last, last - 0.01, last + 0.01, 5e6), symbol=symbol)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a state directory with falls of two symbols, and settings that change in the middle."""
    folder = tmp_path_factory.mktemp("study") / "state"
    made = Past(folder, GLOBAL_TRADING=True)
    falling(made)
    made.control(SettingsChanged(make_settings({"DROP_TRIGGER_VALUE": 0.99})))
    falling(made, ETH, 20_000)
    made.close()
    return folder


def test_counts_add_up_from_table_to_table(state: Path) -> None:
    """Symbols, outcomes, stretches and variants count the same triggers."""
    study = tb.drop_triggers(state)
    assert study.triggers == 24
    by_symbol = study.by_symbol().frame
    assert by_symbol["triggers"].sum() == 24
    assert by_symbol[["entered", "observed", "blocked"]].to_numpy().sum() == 24
    assert by_symbol["trades"].sum() == len(study.recorded.trades)
    assert study.stretches().frame["triggers"].tolist() == [12, 12]
    assert study.variants is not None
    assert len(study.variants.variants[0].decisions) == 24
    holes = study.recorded_stretches().frame
    assert holes["ticks"].sum() == len(study.recorded.ticks)


def test_where_settings_changed_every_statistic_says_of_which_stretch_it_is(state: Path) -> None:
    """Tables are split; the picture's title and the headline say so."""
    study = tb.drop_triggers(state)
    after_ = study.after().frame
    assert after_["stretch"].tolist() == ["1"] * 4 + ["2"] * 4
    assert set(study.blocked().frame["stretch"]) == {"1", "2"}
    assert set(study.by_symbol().frame["stretch"]) == {1, 2}
    assert "DROP_TRIGGER_VALUE 0.985 -> 0.99" in study.stretches().frame["what changed"].iloc[1]
    assert any("settings changed 1 time" in line for line in study.headline())


def test_returns_are_those_of_a_buyer_at_the_ask_who_sells_at_the_bid(state: Path) -> None:
    """A fall to 98 that ends after five minutes: 15 minutes later the bid stands at 99.99."""
    study = tb.drop_triggers(state, symbols=[S])
    returns = study.decisions["return_15"].to_numpy()
    assert np.allclose(returns[np.isfinite(returns)], (99.99 / 98.01 - 1) * 100)
    assert np.allclose(study.decisions["return_1"], (97.99 / 98.01 - 1) * 100)
    assert study.headline()[0].startswith("15 minutes after triggers prices did better than after any moment")


def test_the_recorded_settings_give_the_recorded_triggers_again_or_the_study_fails(state: Path, tmp_path: Path) -> None:
    """A decision taken out of the journal is found."""
    import shutil

    study = tb.drop_triggers(state)
    verdicts = {finding.name: finding.verdict for finding in study.findings()}
    assert verdicts["run again"] is Verdict.OK
    assert verdicts["damage"] is Verdict.OK
    copy = shutil.copytree(state, tmp_path / "copy")
    journal = next((copy / "journal").glob("*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"type":"decision"' not in line or b':2",' not in line))
    worse = {finding.name: finding for finding in tb.drop_triggers(copy).findings()}
    assert worse["run again"].verdict is Verdict.FAILED
    assert "2 others do" in worse["run again"].says


def test_what_only_observed_is_run_again_as_it_was_and_with_paper_orders(tmp_path: Path) -> None:
    """A fill moves an anchor: paper orders may trigger otherwise than observing did, and both are shown."""
    made = Past(tmp_path)
    falling(made, count=3)
    made.close(end=False)
    study = tb.drop_triggers(tmp_path, thresholds=[])
    names = study.what_if().frame["settings"].tolist()
    assert names[:2] == ["as recorded (0.985, mode 4)", "as recorded (0.985, mode 4), paper orders"]
    assert study.what_if().frame["entered"].tolist()[:2] == [0, 2]  # the second comes 14:50 after an exit: too soon
    assert all(finding.ok for finding in study.findings())


def test_picture_and_table_of_what_came_after_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any moment is weighted by the triggers whose future is recorded, in both; where none is, neither says so."""
    made = Past(tmp_path, GLOBAL_TRADING=True)
    falling(made, count=1)
    rising = [100 * 1.001**step for step in range(120)]
    top = rising[-1]  # two falls at the very end, whose future nobody recorded
    for step, last in enumerate([*rising, top * 0.98, top, top * 0.98]):
        made.feed((1_200 + step * 10, last, last - 0.01, last + 0.01, 5e6), symbol=ETH)
    made.close()
    drawn: list[Any] = []
    monkeypatch.setattr("tradingbot.research.plots.outcome_figure", lambda *given: drawn.append(given))
    study = tb.drop_triggers(tmp_path, thresholds=[])
    study.after_picture()
    _, _, anywhere, _, _ = drawn[0]
    table = study.after().frame["any moment %"].tolist()
    assert [None if row is None else row[2] for row in anywhere] == [None if x != x else x for x in table]
    assert any(row is not None for row in anywhere)


def test_damage_is_a_warning_that_names_the_first_place(tmp_path: Path) -> None:
    """What could not be read is left out, and said."""
    made = make_state(tmp_path)
    edit(series(made)[0], 3, lambda line: line.replace(b'"last":', b'"last":1', 1))
    found = {finding.name: finding for finding in tb.drop_triggers(made).findings()}["damage"]
    assert found.verdict is Verdict.WARNING
    assert "1 damaged line left out" in found.says
    assert ":3:" in found.says


def test_without_streams_the_journal_alone_still_gives_a_study(tmp_path: Path) -> None:
    """Triggers are counted; what came after them is said not to be recorded; nothing fails."""
    made = Past(tmp_path, FEATURE_PERSIST_STREAMS=False)
    made.recorder.snapshots_ms = None
    falling(made, count=2)
    made.close()
    study = tb.drop_triggers(tmp_path)
    assert study.triggers == 2
    assert "is not recorded" in study.headline()[0]
    assert study.coverage().figure is not None
    assert all(finding.ok for finding in study.findings())
    for side in sides(study):
        assert side._repr_html_()


def sides(study: tb.DropTriggerStudy) -> list[Any]:
    """Return all that the notebook shows."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]  # type: ignore[no-untyped-call]
    names = [match[1] for cell in cells if (match := re.fullmatch(r"study\.(\w+)\(\)", cell))]
    assert len(names) > 12
    return [getattr(study, name)() for name in names]


def test_symbols_of_any_name_neither_break_a_figure_nor_enter_the_page(tmp_path: Path) -> None:
    """No mathematics, no markup, no command of a terminal."""
    made = Past(tmp_path)
    hostile = [
        "<script>alert(1)</script>/USDT",
        "$x_{$/\\frac",
        "A\x1b[2J\u202e\u65e5\U0001f600/" + "Q" * 90,
        "$",
        "$a$",
    ]
    for symbol in hostile:
        falling(made, symbol, count=1)
    made.close()
    study = tb.drop_triggers(tmp_path)
    assert study.triggers == 5
    for side in [study, *sides(study)]:
        page = side._repr_html_()
        for text in (repr(side), page):
            assert "\x1b" not in text
            assert "\u202e" not in text
        assert "<script" not in page


def test_no_trigger_at_all_is_a_study_too(tmp_path: Path) -> None:
    """It says so, and how close prices came."""
    made = Past(tmp_path)
    made.feed((0, 100.0), (1, 99.0), (2, 98.6), (3, 99.5))
    made.close()
    study = tb.drop_triggers(tmp_path)
    assert study.headline()[0] == "No drop trigger came, so there is nothing to judge."
    near = study.near_misses().frame
    assert near["missing %"].tolist() == [pytest.approx(-(98.5 / 98.6 - 1) * 100)]
    assert all(finding.ok for finding in study.findings())
    for side in sides(study):
        assert side._repr_html_()


@pytest.mark.parametrize(
    ("thresholds", "error"),
    [([1.5], SettingsError), ([0], SettingsError), (["much"], SettingsError), ([0.9] * 30, UsageError)],
)
def test_thresholds_out_of_range_are_refused_in_one_line(state: Path, thresholds: Any, error: type[Exception]) -> None:
    """The line names what was given."""
    with pytest.raises(error) as caught:
        tb.drop_triggers(state, thresholds=thresholds)
    assert "\n" not in str(caught.value)
    assert "thresholds" in str(caught.value)


def test_lists_may_come_as_the_texts_that_papermill_hands_on(state: Path) -> None:
    """JSON, or commas between; an empty one is none."""
    study = tb.drop_triggers(state, symbols="BTC/USDT, ETH/USDT", thresholds="0.97,0.96")
    assert study.thresholds == [0.97, 0.96]
    assert study.triggers == 24
    assert tb.drop_triggers(state, symbols=f'["{ETH}"]', thresholds=0.97).triggers == 12
    assert tb.drop_triggers(state, symbols="[]").triggers == 24
    with pytest.raises(UsageError, match="symbols takes a list"):
        tb.drop_triggers(state, symbols="[BTC")


def test_a_limit_of_time_ends_the_variants_where_they_are_and_says_so(state: Path) -> None:
    """The table names how far they came; the check does not hold a part against the whole."""
    study = tb.drop_triggers(state, limit_s=1e-9)
    assert study.variants is None or study.variants.is_cut_off
    verdicts = {finding.name: finding.verdict for finding in study.findings()}
    assert verdicts["run again"] is Verdict.NOT_APPLICABLE


def papermill(folder: Path, *words: str, **environ: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Execute the notebook as a user does, from a folder of his."""
    out = folder / "report.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR", str(NOTEBOOK), str(out)]
    known = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run(
        [*command, *words], cwd=folder, env=known, capture_output=True, text=True, timeout=300, check=False
    )
    return done, out


def texts(path: Path) -> str:
    """Return what an executed notebook shows, as text."""
    shown = []
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {}).get("text/plain", output.get("text", ""))
            shown.append("".join(data))
    return "\n".join(shown)


def test_the_notebook_runs_from_any_folder_and_answers_first(state: Path, tmp_path: Path) -> None:
    """Under papermill: the answer comes first, pictures are in it, every check stands at the end."""
    done, out = papermill(tmp_path, "-p", "home", str(state), "-p", "symbols", "[]")
    assert done.returncode == 0, done.stderr
    shown = texts(out)
    assert "24 drop triggers" in shown
    assert "the recorded settings give the same 24 triggers again" in shown
    cells = json.loads(out.read_text())["cells"]
    pages = ["".join(o["data"].get("text/html", "")) for c in cells for o in c.get("outputs", ()) if "data" in o]
    pictures = [match for page in pages for match in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert len(pictures) == 7
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert "drop triggers" in pages[0]


def test_where_nothing_is_recorded_the_notebook_says_so_and_passes(tmp_path: Path) -> None:
    """As in a check-out without a bot: NOT APPLICABLE, and nothing is made."""
    done, out = papermill(tmp_path, TRADINGBOT_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Nothing is recorded under" in texts(out)
    assert "NOT APPLICABLE" in texts(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.ipynb"]


def test_a_home_that_is_not_there_ends_the_notebook_with_one_line_that_says_so(tmp_path: Path) -> None:
    """A name that was typed wrongly is no empty study."""
    done, _ = papermill(tmp_path, "-p", "home", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "UsageError: there is no state directory" in done.stderr


def test_the_notebook_as_committed_holds_calls_alone_and_is_stripped() -> None:
    """No function, no output, no other kernel; one parameter a line with its type and comment."""
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code[0]["metadata"]["tags"] == ["parameters"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert not re.search(
        r"^\s*(def|class|for|if|import (?!tradingbot as tb))", "\n".join("".join(c["source"]) for c in code), re.M
    )
    for line in code[0]["source"]:
        assert re.fullmatch(r"\w+: \w+ = [^=#]+  # [^=]+\n?", line), line
