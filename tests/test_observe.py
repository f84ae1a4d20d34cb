"""The live view without a browser: how a bot stands, what is shown of it, what clicks do, and that it does not grow."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import tracemalloc
from math import isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from rich.console import Console

import tradingbot as tb
from tests.test_live import bot, call, status_of, wait_for
from tradingbot.errors import UsageError
from tradingbot.io.state_files import StateLock
from tradingbot.ops.checkup import Verdict
from tradingbot.ops.watch.watcher import Standing, Watcher
from tradingbot.ui.dashboard import render, rows
from tradingbot.ui.live_chart import LiveChart
from tradingbot.ui.live_html import banner, decisions_table, symbols_table
from tradingbot.ui.plain import status_text
from tradingbot.ui.widgets import Panel

FAST = ("--set", "EMBEDDED_SPEED=40", "--set", "EMBEDDED_SYMBOLS=3", "--set", "DROP_TRIGGER_VALUE=0.998")
OFF = ("--set", "FEATURE_ANCHOR_ENABLED=false")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the home of a bot that has recorded ten minutes in virtual time, triggers included, and has ended."""
    home = tmp_path_factory.mktemp("home")
    done = call(home, "--virtual", "--duration", "330", "--no-dashboard", *FAST)
    assert done.returncode == 0, done.stderr
    return home


def clicked(panel: Panel, name: str) -> None:
    """Click a button as the browser does."""
    getattr(panel, name)._handle_button_msg(None, {"event": "click"}, [])


def standing(home: Path) -> tuple[Standing, list[Verdict]]:
    view = tb.observe(home)
    return view.look().standing, [finding.verdict for finding in view.findings()]


def rewrite(home: Path, **facts: Any) -> None:
    """Change members of the status that lies there."""
    path = home / "state" / "status.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | facts))


def copy_of(ended: Path, home: Path, **bot_facts: Any) -> Path:
    """Give a home with the status of a bot that has ended, changed."""
    (home / "state").mkdir()
    status = status_of(ended)
    status["bot"] |= bot_facts
    (home / "state" / "status.json").write_bytes(orjson.dumps(status))
    return home


def test_where_no_bot_has_run_the_view_says_so_and_fails(tmp_path: Path) -> None:
    """No home, an empty one, an empty state directory: a sentence, a failure, no traceback."""
    for home in (tmp_path / "nowhere", tmp_path):
        assert standing(home) == (Standing.NOTHING, [Verdict.FAILED])
    (tmp_path / "state").mkdir()
    assert standing(tmp_path) == (Standing.NOTHING, [Verdict.FAILED])
    view = tb.observe(tmp_path)
    assert "there is no status.json" in view.summary()._repr_html_()
    with StateLock(tmp_path / "state", 5):
        assert standing(tmp_path)[0] is Standing.STARTING


def test_a_dead_bot_is_told_from_one_that_was_stopped_and_one_that_hangs(ended: Path, tmp_path: Path) -> None:
    """Each in words, with what it said last, and as a failure."""
    assert standing(ended)[0] is Standing.STOPPED
    assert tb.observe(ended).answer.startswith("no bot is running: it was stopped cleanly")
    home = copy_of(ended, tmp_path, state="running")
    view = tb.observe(home)
    assert view.look().standing is Standing.DEAD
    assert [finding.name for finding in view.findings() if not finding.ok] == ["bot"]
    page = view.summary()._repr_html_()
    assert "DEAD" in page
    assert "what stands below is what it said last" in page
    old = home / "state" / "status.json"
    os.utime(old, (1, 1))
    with StateLock(home / "state", 5):
        assert standing(home)[0] is Standing.SILENT


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"v": 2}', b'{"v": 1}', b"\xff", b'{"v": 1, "bot": {}, "time_ms": 5}']
)
def test_a_status_that_is_none_is_said_and_not_raised(tmp_path: Path, text: bytes) -> None:
    """Cut, of another schema, or no status at all."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "status.json").write_bytes(text)
    assert standing(tmp_path) == (Standing.UNREADABLE, [Verdict.FAILED])
    assert "UNREADABLE" in tb.observe(tmp_path).summary()._repr_html_()


def test_a_status_with_holes_is_said_and_not_raised(ended: Path, tmp_path: Path) -> None:
    """Members that a table needs are absent, or of another kind."""
    home = copy_of(ended, tmp_path)
    for facts in ({"symbols": [{}]}, {"data": None}, {"errors": [{}]}, {"flags": []}, {"overrides": 5}):
        (home / "state" / "status.json").write_bytes(orjson.dumps(status_of(ended) | facts))
        view = tb.observe(home)
        assert "does not tell" in view.summary()._repr_html_(), facts
        assert "status" in [finding.name for finding in view.findings() if not finding.ok]
        asyncio.run(view.run(0.1))


def test_another_version_is_shown_with_a_note(ended: Path, tmp_path: Path) -> None:
    """Its status is read where the schema is the same."""
    home = copy_of(ended, tmp_path, version="9.9.9")
    assert "the bot is of version 9.9.9" in tb.observe(home).summary()._repr_html_()
    with StateLock(home / "state", status_of(home)["bot"]["started_ms"]):
        assert re.match(r"the bot \(process \d+\) is stopping; (nearest to|at or under)", tb.observe(home).answer)


def test_hostile_text_stays_text(ended: Path) -> None:
    """Whatever an exchange calls a symbol, no tag of it reaches the page."""
    status = status_of(ended)
    status["symbols"][0] |= {"symbol": "<img src=x>/USDT\x1b[31m", "state": "<script>"}
    status["decisions"][0] |= {"symbol": "<b>x", "reasons": ["<i>"]}
    pages = (banner("running", "<u>", status), symbols_table(status), decisions_table(status["decisions"][:1]))
    for page in pages:
        assert not any(tag in page for tag in ("<img", "<script", "<b>x", "<i>", "<u>", "\x1b"))


def test_rows_say_how_much_of_the_drop_has_been_fallen(ended: Path) -> None:
    """1 is at the threshold; what the row says follows from price, reference and threshold."""
    for row, told in zip(rows(status_of(ended)), status_of(ended)["symbols"], strict=True):
        fallen = (told["last"] - told["reference"]) / (told["threshold"] - told["reference"])
        assert row.drop_share == pytest.approx(fallen, abs=1e-6)
        assert row.limit_pct == pytest.approx(-0.2)


def test_the_table_names_what_drops_are_measured_from(ended: Path) -> None:
    """The anchor while anchors are on, the window's peak while they are off: at a terminal, in words, in a notebook."""
    status, shown = status_of(ended), Console(width=120)
    for source, name in (("anchor", "anchor"), ("legacy_peak", "window peak"), ("session", "session peak")):
        for row in (*status["symbols"], *status["decisions"]):
            row["reference_source"] = source
        with shown.capture() as terminal:
            shown.print(render(status, 120))
        assert f"% from its {name}, " in terminal.get()
        for text in (terminal.get(), status_text(status)):
            head = next(line for line in text.splitlines() if line.startswith("symbol"))
            assert re.search(rf" drop % +{name} +to trigger %", head)
        assert f">{name}</th>" in symbols_table(status)
        assert re.search(rf"<td[^>]*>{name} \d", decisions_table(status["decisions"]))


def test_the_past_of_a_symbol_is_read_once_and_then_followed(ended: Path) -> None:
    """All recorded prices of its span, in order; a second look finds nothing new; triggers come from the journal."""
    from tradingbot.ops.record.history import History
    from tradingbot.ops.watch.live_past import DecisionPast, PricePast

    status = status_of(ended)
    past = PricePast(ended / "state", "BTC/USDT", span_min=5)
    assert past.follow(status)
    prices = [(p.ts_ms, p.last) for p in past.prices]
    ticks = [found.record for found in History(ended / "state").ticks("BTC/USDT", 0, 2**60)]
    edge_ms = ticks[-1]["ts_ms"] - 5 * 60_000
    assert prices == [(r["ts_ms"], r["last"]) for r in ticks if r["ts_ms"] >= edge_ms]
    assert past.levels[-1].threshold == pytest.approx(past.levels[-1].reference * 0.998)
    assert not past.follow(status)
    decisions = DecisionPast(ended / "state")
    decisions.follow(status)
    assert decisions.latest()[0] == {**decisions.latest()[0], **status["decisions"][-1]}
    png = LiveChart().png("BTC/USDT", past.prices, past.levels, decisions.latest())
    assert png.startswith(b"\x89PNG")


def test_the_chart_shows_the_anchor_only_while_drops_are_measured_from_it(tmp_path: Path) -> None:
    """Where anchors are switched off its line ends, and that of what takes its place begins."""
    from tradingbot.ops.watch.live_past import PricePast

    for words in (FAST, (*FAST, *OFF)):
        assert call(tmp_path, "--virtual", "--duration", "10", "--no-dashboard", *words).returncode == 0
    past, chart = PricePast(tmp_path / "state", "BTC/USDT"), LiveChart()
    past.follow(status_of(tmp_path))
    chart.png("BTC/USDT", past.prices, past.levels, [])
    anchors, others = ([not isnan(y) for y in chart._lines[name].get_ydata()] for name in ("anchor", "reference"))
    assert anchors == sorted(anchors, reverse=True)
    assert len(set(anchors)) == 2
    assert others == [not shown for shown in anchors]
    chart.png("BTC/USDT", past.prices, [level for level in past.levels if level.anchor], [])
    assert "reference" not in chart._used


def test_with_the_streams_off_the_chart_is_drawn_from_what_statuses_tell(ended: Path, tmp_path: Path) -> None:
    """A point a status, and the verdict says that recording is off."""
    from tradingbot.ops.watch.live_past import PricePast

    status = status_of(copy_of(ended, tmp_path))
    for stream in ("ticks", "snapshots", "windows", "anchors"):
        status["streams"][stream]["state"] = "off"
    past = PricePast(tmp_path / "state", "BTC/USDT")
    for second in range(3):
        assert past.follow(status | {"time_ms": status["time_ms"] + second * 1000})
    assert len(past.prices) == len(past.levels) == 3
    rewrite(tmp_path, streams=status["streams"])
    recording = next(finding for finding in tb.observe(tmp_path).findings() if finding.name == "recording")
    assert recording.verdict is Verdict.NOT_APPLICABLE


def test_clicks_halt_at_once_and_switch_only_with_a_reason(ended: Path, tmp_path: Path) -> None:
    """HALT needs nothing; a flag shows its plan, refuses without a reason, and is audited with it."""
    home = copy_of(ended, tmp_path)
    view = tb.observe(home)
    panel = Panel(view, ["FEATURE_ANCHOR_ENABLED"])
    view._refresh(panel)
    clicked(panel, "_halt")
    assert (home / "state" / "KILL").read_text() == "HALT in a notebook\n"
    row = panel._rows["FEATURE_ANCHOR_ENABLED"]
    row.toggle._handle_button_msg(None, {"event": "click"}, [])
    assert "FEATURE_ANCHOR_ENABLED: true becomes false" in panel._asked.value
    clicked(panel, "_do")
    assert "say why" in panel._said.value
    assert not (home / "state" / "overrides.json").exists()
    panel._why.value = "odd anchors"
    clicked(panel, "_do")
    assert "no bot runs" in panel._said.value
    entries = orjson.loads((home / "state" / "overrides.json").read_bytes())["overrides"]
    assert entries["FEATURE_ANCHOR_ENABLED"]["why"] == "odd anchors"
    view._refresh(panel)
    clicked(panel, "_arm")
    clicked(panel, "_cancel")
    assert (home / "state" / "KILL").exists()
    assert panel.defects == []
    panel.close()


def test_a_halt_waits_for_no_reason_and_takes_none_that_was_typed_for_something_else(
    ended: Path, tmp_path: Path
) -> None:
    """A reason that HALT overtook becomes its own, and halts nothing armed since; a change keeps its reason."""
    home = copy_of(ended, tmp_path)
    view, kill = tb.observe(home), home / "state" / "KILL"
    panel = Panel(view, ["FEATURE_ANCHOR_ENABLED"])
    view._refresh(panel)
    overtaken = panel._why
    clicked(panel, "_halt")
    assert kill.read_text() == "HALT in a notebook\n"
    overtaken.value = "exchange odd"
    assert kill.read_text() == "exchange odd\n"
    assert panel._why.value == ""

    panel._rows["FEATURE_ANCHOR_ENABLED"].toggle._handle_button_msg(None, {"event": "click"}, [])
    panel._why.value = "odd anchors"
    clicked(panel, "_halt")
    assert kill.read_text() == "HALT in a notebook\n"
    assert "the reason in the field stays with the change" in panel._said.value
    clicked(panel, "_do")
    entries = orjson.loads((home / "state" / "overrides.json").read_bytes())["overrides"]
    assert entries["FEATURE_ANCHOR_ENABLED"]["why"] == "odd anchors"

    overtaken = panel._why
    clicked(panel, "_halt")
    view.arm("looked into it")
    overtaken.value = "late"
    assert not kill.exists()
    audit = [orjson.loads(line) for line in (home / "state" / "audit.jsonl").read_text().splitlines()]
    told = [(entry["what"], entry["why"]) for entry in audit if entry["what"] != "override"]
    assert told == [
        ("kill", ""),
        ("kill", "exchange odd"),
        ("kill", ""),
        ("kill", ""),
        ("arm", "looked into it"),
        ("kill", "late"),
    ]
    assert panel.defects == []
    panel.close()


def test_what_a_kernel_hands_to_another_thread_is_handled_where_clicks_are(ended: Path, monkeypatch: Any) -> None:
    """A change of a field that came in a thread of its own would race with a click; the browser is told of it."""
    told: list[Any] = []
    session = SimpleNamespace(send=lambda *_, parent, **__: told.append(parent))
    shell = SimpleNamespace(kernel=SimpleNamespace(session=session, iopub_socket=None))
    message = {"content": {"data": {"method": "update", "state": {"value": "odd"}}}}

    async def typed() -> list[threading.Thread]:
        panel, threads = Panel(tb.observe(ended), []), []
        panel._why.observe(lambda _: threads.append(threading.current_thread()), names="value")
        await asyncio.to_thread(panel._why.comm._msg_callback, message)
        async with asyncio.timeout(60):
            while not told:
                await asyncio.sleep(0)
        assert panel._why.value == "odd"
        panel.close()
        return threads

    with monkeypatch.context() as patched:
        patched.setattr("IPython.get_ipython", lambda: shell)
        assert asyncio.run(typed()) == [threading.main_thread()]
    assert told == [message]


def test_a_click_that_fails_is_said_and_a_defect_ends_the_cell(ended: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A full disk is a message; what nobody foresaw is raised where the cell awaits."""
    view = tb.observe(copy_of(ended, tmp_path))
    panel = Panel(view, ["FEATURE_ANCHOR_ENABLED"])
    monkeypatch.setattr(view, "halt", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    clicked(panel, "_halt")
    assert "No space left" in panel._said.value
    assert panel.defects == []
    monkeypatch.setattr(view, "halt", lambda _: 1 / 0)
    clicked(panel, "_halt")
    with pytest.raises(ZeroDivisionError):
        asyncio.run(view._show(panel, 0.0))


def test_a_bot_that_dies_while_it_is_watched_is_seen_dead(tmp_path: Path) -> None:
    """Running at first, dead at the end, and the verdict fails."""
    with bot(tmp_path, *FAST) as process:
        view = tb.observe(tmp_path)
        wait_for(lambda: view.look().standing is Standing.RUNNING, process, 120)
        process.kill()
        process.wait(60)
        watcher = Watcher(tmp_path / "state")
        wait_for_dead(watcher)
    view.look()
    wait_for_dead(view._watcher)
    assert view.look().standing is Standing.DEAD
    assert [finding.name for finding in view.findings() if not finding.ok] == ["bot"]


def wait_for_dead(watcher: Watcher) -> None:
    import time

    end = time.monotonic() + 120
    while watcher.look().standing is not Standing.DEAD:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_start_of_a_bot_of_its_own_is_not_watched(ended: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """However long it takes: what was watched counts from there on, and so does the duration."""
    import time

    view, late_s, monotonic = tb.observe(copy_of(ended, tmp_path, state="running")), [0.0], time.monotonic
    monkeypatch.setattr("tradingbot.api.observe.time.monotonic", lambda: monotonic() + late_s[0])

    class Own:
        def wait(self) -> None:
            late_s[0] = 100_000.0

        def stop(self) -> None:
            pass

    view._own = Own()  # type: ignore[assignment]
    asyncio.run(view.run(0.1))
    assert 0.1 <= view._watched_s < 100_000


@pytest.mark.parametrize("duration_s", [0, -1, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused(tmp_path: Path, duration_s: float) -> None:
    """In one line, before anything is shown."""
    with pytest.raises(UsageError, match="duration_s"):
        asyncio.run(tb.observe(tmp_path).run(duration_s))


def test_hundreds_of_refreshes_leave_memory_as_it_was(ended: Path, tmp_path: Path) -> None:
    """Statuses that change each time, shown by real widgets: nothing is kept of them."""
    home = copy_of(ended, tmp_path, state="running")
    view, status = tb.observe(home), status_of(home)
    panel = Panel(view, list(status["flags"]))

    def refresh(count: int) -> None:
        for _ in range(count):
            status["time_ms"] += 1000
            status["symbols"][0]["last"] += 0.01
            (home / "state" / "status.json").write_bytes(orjson.dumps(status))
            view._refresh(panel)

    refresh(20)
    tracemalloc.start()
    try:
        refresh(20)
        before = tracemalloc.get_traced_memory()[0]
        refresh(200)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000  # one screen kept is 5,000 bytes
    finally:
        tracemalloc.stop()
        panel.close()
