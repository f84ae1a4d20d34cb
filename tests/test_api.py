"""`import tradingbot as tb`: results as values that show themselves, in words, tables, frames and pictures."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

import tradingbot as tb
from tests.conftest import ROOT
from tests.past import Past
from tests.rollbacks import ANCHOR, WARM, dead, overrides
from tests.test_live import call
from tradingbot.api.bot import Status
from tradingbot.api.checks import Checked
from tradingbot.errors import SettingsError, UsageError
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.control import NoBotError

HOSTILE = "<script>alert(1)</script>$\\x$\x1b[2J"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the home of a bot that ran for half an hour of virtual time, with triggers and trades."""
    folder = tmp_path_factory.mktemp("api") / "home"
    return tb.trial(folder, 1800, EMBEDDED_SYMBOLS=3, DROP_TRIGGER_VALUE=0.996, GLOBAL_TRADING=True)


def document(home: str, *words: str) -> Any:
    """Return what a command says with --json."""
    return orjson.loads(call(Path(home), *words, "--json").stdout)


def test_every_public_name_is_there_and_has_an_example_that_runs() -> None:
    """Each function of the interactive API says what it does, with an example; doctest runs them all."""
    assert {"status", "flags", "rollback", "compare", "explain", "verify", "doctor", "replay"} <= set(tb.__all__)
    for name in set(tb.__all__) - {"__version__", "conclude", "prepare_notebook"}:
        function = getattr(tb, name)
        if name.islower():
            assert callable(function), name
            assert ">>> " in (function.__doc__ or ""), name


def test_no_submodule_hides_a_public_function() -> None:
    """Also once everything is imported `tb.flags` is the function."""
    code = (
        "import pkgutil, importlib, tradingbot as tb\n"
        "for m in pkgutil.walk_packages(tb.__path__, 'tradingbot.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "print([n for n in tb.__all__ if type(getattr(tb, n)).__name__ == 'module'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    """No pandas, no matplotlib, no ccxt, no engine before something asks for them."""
    code = "import sys, tradingbot as tb; dir(tb); print(sorted(m for m in sys.modules if m.startswith('tradingbot.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_status_says_what_the_command_says(home: str) -> None:
    """The last word of a bot that has stopped, as words, rows and bars; without `last` it is an error, as there."""
    seen = tb.status(home, last=True)
    assert seen.record == orjson.loads((Path(home) / "state" / "status.json").read_bytes())
    assert (seen.is_running, seen.bot["state"]) == (False, "stopped")
    assert "the bot there is stopped" in repr(seen)
    frame = seen.frame()
    assert list(frame.index) == [row["symbol"] for row in seen["symbols"]]
    assert list(frame["last"]) == [row["last"] for row in seen["symbols"]]
    axes = seen.figure().axes[0]
    bars = {text.get_text(): bar.get_width() for text, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)}
    assert bars == {row["symbol"]: row["drop_pct"] for row in seen["symbols"]}
    assert "%" in axes.get_xlabel()
    with pytest.raises(NoBotError, match="no bot is running on"):
        tb.status(home)


@pytest.mark.parametrize("there", [False, True])
def test_a_place_without_a_bot_is_told_and_left_untouched(tmp_path: Path, there: bool) -> None:
    """No state directory, or an empty one: nothing is made, and every look says that no bot has run there."""
    if there:
        (tmp_path / "state").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert "no bot has run there" in repr(tb.status(tmp_path, last=True))
    planned = tb.rollback("all", tmp_path)
    assert "no bot has run there" in planned._repr_html_()
    assert "cannot be compared" in repr(planned.foresee())
    assert planned.carry_out(dry_run=True).verify().ok
    assert tb.rollbacks(tmp_path).frame().empty
    assert all(tb.flags(tmp_path)[row["name"]] for row in tb.flags(tmp_path).rows)
    with pytest.raises(UsageError, match="no trigger is recorded"):
        tb.explain(home=tmp_path)
    with pytest.raises(UsageError, match="nothing is recorded under"):
        tb.compare(tmp_path, DROP_TRIGGER_VALUE=0.9)
    with pytest.raises(UsageError, match="no symbol has told a price"):
        tb.status(tmp_path, last=True).figure()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dead_bot_is_named_dead(tmp_path: Path) -> None:
    """Its status file says running, and nobody holds the lock."""
    dead(tmp_path)
    assert tb.status(tmp_path, last=True).bot["state"] == "dead"
    assert "dead: process 99 is gone" in tb.rollback("anchor", tmp_path)._repr_html_()


@pytest.mark.parametrize("text", [b'{"bot": {"state": "running"}, "v": 9}', b"[]", b"{", b'{"bot": {}, "symbols": 3}'])
def test_the_status_of_another_version_is_shown_as_it_is(tmp_path: Path, text: bytes) -> None:
    """Neither text nor table nor frame fails on members that are not there."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "status.json").write_bytes(text)
    seen = tb.status(tmp_path, last=True)
    assert str(tmp_path) in repr(seen)
    assert str(tmp_path) in seen._repr_html_()
    assert seen.frame().empty


def test_foreign_text_neither_runs_in_a_notebook_nor_commands_a_terminal(home: str, tmp_path: Path) -> None:
    """Markup, escapes and formulas in a symbol, an error or a reason are shown as text, in pictures too."""
    seen = tb.status(home, last=True)
    record = orjson.loads(orjson.dumps(seen.record))
    record["symbols"][0] |= {"symbol": HOSTILE, "state": HOSTILE}
    record["decisions"][-1] |= {"reasons": [HOSTILE], "decision_id": HOSTILE}
    record["errors"] = [{"time_ms": 1, "text": HOSTILE}]
    record["overrides"] = [{"key": HOSTILE, "value": HOSTILE}]
    status = Status(HOSTILE, seen.bot | {"state": HOSTILE}, record, (HOSTILE,))
    assert "latest trouble" in status._repr_html_()
    status.figure()._repr_png_()  # type: ignore[attr-defined]
    tb.flags(tmp_path, why=HOSTILE, **{WARM: False})
    tb.rollback("all", tmp_path, why=HOSTILE, dry_run=False)
    finding = Finding(HOSTILE, Verdict.FAILED, HOSTILE, {HOSTILE: [HOSTILE, {HOSTILE: 1}]}, HOSTILE)
    shown = [
        status, tb.flags(tmp_path), tb.rollbacks(tmp_path), Checked("verify", HOSTILE, "NO-GO", (finding,)),
        tb.rollback(home=tmp_path, undo="last", why=HOSTILE, dry_run=False),
    ]  # fmt: skip
    for result in shown:
        for text in (result._repr_html_(), repr(result)):
            assert "\x1b" not in text
            assert "alert(1)" in text
        assert "<script>" not in result._repr_html_()


def test_a_flag_is_switched_with_a_reason_and_taken_back(tmp_path: Path) -> None:
    """What `tradingbot flags` then says is the same; without a reason, or for a name that is none, nothing changes."""
    found = tb.flags(tmp_path, why="odd anchors", FEATURE_ANCHOR_ENABLED=False)
    assert (found.changed, found.adopted, found[ANCHOR]) == ((ANCHOR,), None, False)
    assert list(found.rows) == document(str(tmp_path), "flags")["flags"]
    assert "odd anchors" in found._repr_html_()
    assert list(found.frame()["value"]) == [row["value"] for row in found.rows]
    with pytest.raises(UsageError, match="say why"):
        tb.flags(tmp_path, FEATURE_ANCHOR_ENABLED=True)
    with pytest.raises(UsageError, match="FEATURE_ANCHORS is no flag; the flags: FEATURE_ANCHOR_ENABLED"):
        tb.flags(tmp_path, why="x", FEATURE_ANCHORS=False)
    with pytest.raises(SettingsError, match="FEATURE_ANCHOR_ENABLED"):
        tb.flags(tmp_path, why="x", FEATURE_ANCHOR_ENABLED="maybe")  # type: ignore[arg-type]
    assert overrides(tmp_path) == {ANCHOR: False}
    assert tb.flags(tmp_path, why="mended", FEATURE_ANCHOR_ENABLED=None).changed == (ANCHOR,)
    assert overrides(tmp_path) == {}


def test_a_comparison_is_what_the_command_finds(home: str) -> None:
    """The same document, equal to itself and unlike another; frames and picture hold the same differences."""
    found = tb.compare(home, DROP_TRIGGER_MODE=3)
    told = document(home, "compare", "--set", "DROP_TRIGGER_MODE=3")
    assert orjson.loads(orjson.dumps(found.to_record())) == {"state": f"{home}/state", **told}
    assert found == tb.compare(home, DROP_TRIGGER_MODE=3)
    assert found != tb.compare(home, DROP_TRIGGER_MODE=1)
    frame = found.frame()
    assert len(frame) == len(told["triggers"]["differences"]) > 0
    assert str(frame.index.dtype.tz) == "UTC"
    assert frame["kind"].value_counts().to_dict() == {
        kind: count for kind in ("gained", "lost", "moved", "changed") if (count := told["triggers"][kind])
    }
    assert found.sides_frame().loc["triggers", "ours"] == told["ours"]["triggers"]
    assert len(found.trades_frame()) == len(told["trades"]["differences"])
    counted, kinds, *_ = found.figure().axes
    assert [line.get_ydata()[-1] for line in counted.lines] == [told[side]["triggers"] for side in ("ours", "theirs")]
    assert sum(len(line.get_xdata()) for line in kinds.lines) == len(frame)
    assert "DROP_TRIGGER_MODE = 3" in found._repr_html_()
    assert tb.compare(home, DROP_TRIGGER_MODE=4).is_equal


def test_settings_of_a_comparison_are_checked(home: str) -> None:
    """A typo is answered by the name that was meant; nothing to compare is said."""
    with pytest.raises(SettingsError, match="DROP_TRIGGER_VALUE"):
        tb.compare(home, DROP_TRIGER_VALUE=0.9)
    with pytest.raises(UsageError, match="nothing to compare"):
        tb.compare(home)


def test_an_explanation_is_what_the_command_says(home: str) -> None:
    """The same document and words; the picture holds the recorded prices, the reference and the threshold."""
    why = tb.explain(home=home)
    told = document(home, "explain", "--last")
    assert orjson.loads(orjson.dumps(why.to_record())) == told
    assert repr(why) == call(Path(home), "explain", "--last").stdout.rstrip("\n")
    decision = why.decision
    assert why == tb.explain(decision["decision_id"], home)
    frame = why.frame()
    assert decision["last"] == frame.loc[frame["seq"] == decision["cause"], "last"].item()
    assert list(why.checks_frame().index) == [check["name"] for check in decision["checks"]]
    lines = why.figure().axes[0].lines
    assert list(lines[0].get_ydata()) == list(frame["last"])
    assert [line.get_ydata()[0] for line in lines[1:3]] == [decision["reference"], decision["threshold"]]
    other = next(symbol for symbol in ("BTC/USDT", "ETH/USDT", "SOL/USDT") if symbol != decision["symbol"])
    assert tb.explain(home=home, symbol=other).decision["symbol"] == other
    with pytest.raises(UsageError, match="there is no trigger nonsense"):
        tb.explain("nonsense", home)


def test_a_replay_is_pictured_by_outcome_and_profit(home: str) -> None:
    """Every trigger under its outcome, the last profit that of the summary; without a trigger it says so."""
    result = tb.replay(f"{home}/state", DROP_TRIGGER_VALUE=0.996, GLOBAL_TRADING=True)
    counts, profits = result.figure().axes
    assert sum(line.get_ydata()[-1] for line in counts.lines) == len(result.decisions) == result.summary["triggers"]
    assert profits.lines[0].get_ydata()[-1] == pytest.approx(result.summary["pnl_quote"])
    with pytest.raises(UsageError, match="there was no trigger"):
        tb.replay([tb.Ticker("BTC/USDT", 1_700_000_000_000, last=1.0)]).figure()


def test_a_trigger_whose_ticks_are_gone_is_pictured_all_the_same(tmp_path: Path) -> None:
    """The journal alone is there: no price line, and still reference, threshold and trigger."""
    past = Past(tmp_path / "state", DROP_TRIGGER_VALUE=0.99)
    past.feed((0, 100.0), (1, 98.0))
    past.close()
    for path in (tmp_path / "state" / "drop_windows" / "ticks").glob("*"):
        path.unlink()
    why = tb.explain(home=tmp_path)
    assert why.frame().empty
    assert why.figure()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_a_rollback_is_planned_done_and_undone(tmp_path: Path) -> None:
    """Only planned by default; done once it is asked for with a reason; the undoing gives the settings back."""
    planned = tb.rollback("anchor", tmp_path)
    assert (planned.state, planned.settings, planned.exit_code) == ("planned", {ANCHOR: False}, 0)
    assert [each.verdict for each in planned.findings] == [Verdict.NOT_APPLICABLE]
    held = planned.carry_out(dry_run=True)
    assert "dry_run is True, nothing was changed" in held._repr_html_()
    assert not (tmp_path / "state").exists()
    with pytest.raises(UsageError, match="say why"):
        planned.carry_out()
    with pytest.raises(UsageError, match="say why"):
        tb.rollback("anchor", tmp_path, dry_run=False)
    assert not (tmp_path / "state").exists()
    done = tb.rollback("anchor", tmp_path, why="drill", dry_run=False)
    assert (done.state, done.exit_code, overrides(tmp_path)) == ("done", 0, {ANCHOR: False})
    assert all(finding.ok for finding in done.findings)
    assert done.to_record()["report"] == orjson.loads(
        (Path(done.report["folder"]) / "report.json").read_bytes()  # type: ignore[index]
    )
    assert "kept in" in done._repr_html_()
    assert list(done.frame().index) == [ANCHOR]
    again = tb.rollback("anchor", tmp_path, why="drill", dry_run=False)
    assert (again.state, again.report) == ("nothing to do", None)
    assert done.carry_out().report == done.report
    undone = tb.rollback(home=tmp_path, undo=done.plan["id"], why="well", dry_run=False)
    assert (undone.state, overrides(tmp_path)) == ("done", {})
    assert list(tb.rollbacks(tmp_path).frame()["state"]) == ["undone", "done"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"profile": "anchors"}, "there is no profile anchors: did you mean anchor?"),
        ({}, "name a profile"),
        ({"undo": "20260101T000000-000"}, "there is no rollback 20260101T000000-000"),
        ({"undo": True}, "there is no rollback"),
        ({"profile": "anchor", "from_empty": True}, "--from-empty goes with"),
    ],
)
def test_what_no_rollback_is_named_by_is_one_line(tmp_path: Path, words: dict[str, Any], says: str) -> None:
    """A wrong profile, none at all, an undoing of nothing."""
    with pytest.raises(UsageError, match=re.escape(says)):
        tb.rollback(home=tmp_path, why="drill", dry_run=False, **words)


def test_a_broken_settings_file_is_named_and_still_lets_the_bot_be_seen(tmp_path: Path) -> None:
    """The status passes it over and says so; what rests on settings refuses in one line."""
    (tmp_path / "tradingbot.toml").write_text("DROP_TRIGGER_VALUE = \n")
    assert "tradingbot.toml" in repr(tb.status(tmp_path, last=True))
    for call_it in (lambda: tb.flags(tmp_path), lambda: tb.rollback("anchor", tmp_path)):
        with pytest.raises(SettingsError, match=r"tradingbot.toml is not a TOML file") as caught:
            call_it()
        (line,) = caught.value._render_traceback_()
        assert line == f"SettingsError: {caught.value}"


def test_a_trial_has_a_home_of_its_own(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a bot has run none is begun; a setting that is none is named."""
    with pytest.raises(UsageError, match="a trial needs a home of its own"):
        tb.trial(home)
    with pytest.raises(SettingsError, match="EMBEDDED_SYMBOLS"):
        tb.trial(EMBEDDED_SYMBOL=3)


def test_the_home_is_found_as_by_the_commands(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by TRADINGBOT_HOME where none is given, or an empty one; a state directory given by itself wins."""
    monkeypatch.setenv("TRADINGBOT_HOME", home)
    assert tb.status(last=True) == tb.status("", last=True) == tb.status(Path(home), last=True)
    assert tb.status("/nowhere", state=f"{home}/state", last=True).record == tb.status(home, last=True).record


def test_the_examples_of_the_page_are_so() -> None:
    """docs/API.md, line by line."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, tried = doctest.testfile(str(ROOT / "docs" / "API.md"), module_relative=False, optionflags=flags)
    assert (failed, tried > 10) == (0, True)
