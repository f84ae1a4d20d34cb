"""The live view of a running bot, for notebooks: seen, steered by overrides and kill switch, summed up at the end."""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.config import FLAGS
from tradingbot.errors import UsageError
from tradingbot.ops.checkup import Finding, Verdict, findings_text
from tradingbot.ops.watch.live_past import DecisionPast, PricePast
from tradingbot.ops.watch.own_bot import OwnBot
from tradingbot.ops.watch.watcher import Seen, Standing, Watch, Watcher, watch_findings

if TYPE_CHECKING:
    from tradingbot.io.overrides import Effective
    from tradingbot.ui.live_chart import LiveChart
    from tradingbot.ui.widgets import FlagState, Panel, Screen

__all__ = ["LiveView", "Summary", "observe"]

LOOK_S = 0.4  # between two looks at status.json, which changes once a second
CHART_S = 2.0  # between two drawings of the chart, the dearest part
ADOPT_S = 5.0  # within which a running bot goes by what was switched
DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a status raises that is not what its schema says."""
OWN_SETTINGS: Mapping[str, object] = {"EMBEDDED_SPEED": 30, "EMBEDDED_SYMBOLS": 8}


def observe(
    home: str | Path | None = None,
    *,
    state: str | Path | None = None,
    symbol: str = "",
    start_bot: bool = False,
    settings: Mapping[str, object] | None = None,
) -> LiveView:
    """Return the live view of the bot under a home: `await view.run(seconds)` shows it, `view.summary()` sums up.

    `home` and `state` (a state directory) are found as the commands find them. `symbol` is the one to chart first, by
    default the one nearest to its threshold. With `start_bot`, where no home is named and no bot has ever run in that
    which is found, a bot is started on the embedded exchange, in its own process and a temporary home, with `settings`;
    it is stopped when watching ends. A bot that is dead is never replaced: it is shown as dead.

    >>> observe("build/nowhere").look().standing.value
    'no bot'
    """
    from tradingbot.io.home import find_home
    from tradingbot.ops.control import find_target

    named = str(home) if home else None
    place = find_home(named, os.environ, Path.cwd())
    target = find_target(place, state=str(state) if state else None)
    seen = Watcher(target.state_dir).look()
    if start_bot and named is None and not state and seen.standing is Standing.NOTHING:
        own = OwnBot({**OWN_SETTINGS, **(settings or {})})
        return LiveView(own.home / "state", own=own, symbol=symbol)
    return LiveView(target.state_dir, home=place.path, complaints=target.complaints, symbol=symbol)


@dataclass(frozen=True, slots=True)
class Summary:
    """Hold what a view saw last: parts as HTML, the chart as PNG, and findings. It shows itself in a notebook."""

    parts: tuple[str, ...]
    png: bytes
    findings: tuple[Finding, ...]

    def text(self) -> str:
        """Return the findings in words."""
        return findings_text(self.findings)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png).decode()
        image = f'<img alt="prices" style="max-width:100%" src="data:image/png;base64,{data}">' if self.png else ""
        first, *others = self.parts
        return first + image + "".join(others)


class LiveView:
    """Watch one bot. It reads status.json, streams and journal, and writes overrides and the kill switch alone."""

    def __init__(
        self,
        state_dir: Path,
        *,
        home: Path | None = None,
        complaints: tuple[str, ...] = (),
        symbol: str = "",
        own: OwnBot | None = None,
    ) -> None:
        self.state_dir, self.symbol = state_dir, symbol
        self._home = home or state_dir.parent
        self._complaints, self._own = complaints, own
        self._watcher = Watcher(state_dir)
        self._decisions = DecisionPast(state_dir)
        self._prices: PricePast | None = None
        self._chart: LiveChart | None = None
        self._png, self._drawn = b"", ""  # the chart, and of which symbol it is
        self._ended = asyncio.Event()
        self._adoptions: list[tuple[float, str, Any]] = []  # until when (s), flag, the override that is to be told
        self._sids: set[str] = set()
        self._seen = self._first = self._watcher.look()
        self._shown: Mapping[str, Any] | None = None
        self._statuses, self._watched_s = 0, 0.0
        self._is_damaged = False
        self._panel: Panel | None = None
        if own is not None:
            atexit.register(own.stop)

    def look(self) -> Seen:
        """Look at the bot once, and return what is there."""
        self._seen = self._watcher.look()
        if self._seen.status and self._seen.status is not self._shown:
            self._sids.add(self._seen.sid)
            self._statuses += 1
        return self._seen

    async def run(self, duration_s: float = 60.0) -> None:
        """Show the bot, twice a second at most, until `duration_s` is over or "stop watching" is clicked.

        What fails in a click or in the drawing is raised here. At the end the widgets make way for a line of text.
        """
        from IPython.display import HTML, display

        from tradingbot.ui.live_html import message
        from tradingbot.ui.widgets import Panel

        if not (math.isfinite(duration_s) and duration_s > 0):
            raise UsageError(f"duration_s = {duration_s}: watching takes a number of seconds above 0")
        self._ended = asyncio.Event()
        try:
            if self._own is not None:
                await asyncio.to_thread(self._own.wait)
            began_s = time.monotonic()
            self._first = self.look()
            self._panel = Panel(self, list(FLAGS))
            shown = display(self._panel.root, display_id=True)
            try:
                await self._show(self._panel, began_s + duration_s)
            finally:
                self._watched_s += time.monotonic() - began_s
                text = f"watched for {time.monotonic() - began_s:.0f} s; run this cell again to go on watching"
                if shown is not None:
                    shown.update(HTML(message(text)))
                self._panel.close()
                self._panel = None
        finally:
            if self._own is not None:
                await asyncio.to_thread(self._own.stop)

    async def _show(self, panel: Panel, end_s: float) -> None:
        next_chart_s = 0.0
        while True:
            fresh = self._refresh(panel)
            now_s = time.monotonic()
            chosen = self._prices is None or self._prices.symbol != self.symbol
            if self.symbol and self._seen.status and (chosen or (fresh and now_s >= next_chart_s)):
                with contextlib.suppress(*DAMAGED if self._is_damaged else ()):
                    panel.show_chart(await asyncio.to_thread(self._draw), self._drawn)
                next_chart_s = time.monotonic() + CHART_S
            if panel.defects:
                raise panel.defects[0]
            left_s = end_s - time.monotonic()
            if left_s <= 0 or self._ended.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), min(LOOK_S, left_s))

    def _refresh(self, panel: Panel) -> bool:
        """Look, and show what is new; return whether the bot has said anything new."""
        seen = self.look()
        fresh = seen.status is not self._shown
        self._shown = seen.status
        if seen.status and fresh:
            with contextlib.suppress(*DAMAGED):  # the screen says so
                self._take_in(seen.status)
        screen = self._screen(seen)
        self._is_damaged = bool(seen.status) and not screen.table
        panel.show(screen)
        panel.choose(self.symbol)
        self._see_adopted(panel)
        return fresh

    def _take_in(self, status: Mapping[str, Any]) -> None:
        self._decisions.follow(status)
        symbols = [row["symbol"] for row in status["symbols"]]
        if symbols and self.symbol not in symbols:
            nearness = {row["symbol"]: row["to_trigger_pct"] for row in status["symbols"]}
            self.symbol = max(symbols, key=lambda name: -math.inf if nearness[name] is None else nearness[name])

    def _screen(self, seen: Seen) -> Screen:
        from tradingbot.ui.live_html import banner
        from tradingbot.ui.widgets import Screen

        try:
            return self._full_screen(seen)
        except DAMAGED as error:
            says = f"status.json does not tell what it should: {type(error).__name__} {error} ({self.state_dir})"
            return Screen(banner(Standing.UNREADABLE.value, says, {}, self._complaints))

    def _full_screen(self, seen: Seen) -> Screen:
        from tradingbot.ui.live_html import banner, decisions_table, symbols_table, troubles
        from tradingbot.ui.widgets import Screen

        status = seen.status
        notes = [*self._complaints, *([seen.note] if seen.note else [])]
        if self._own is not None:
            notes.append("a bot of this notebook's own, on the embedded exchange; it is stopped when watching ends")
        word = seen.standing.value
        if not status:
            return Screen(banner(word, seen.says, {}, notes))
        if not seen.standing.lives:
            notes.append("what stands below is what it said last")
        return Screen(
            banner(word, seen.says, status, notes), symbols_table(status), decisions_table(self._decisions.latest()),
            troubles(status), tuple(row["symbol"] for row in status["symbols"]), _flag_states(seen),
            (self.state_dir / "KILL").exists(),
        )  # fmt: skip

    def _draw(self) -> bytes:
        from tradingbot.ui.live_chart import LiveChart

        if self._chart is None:
            self._chart = LiveChart()
        if self._prices is None or self._prices.symbol != self.symbol:
            self._prices = PricePast(self.state_dir, self.symbol)
        past, status = self._prices, self._seen.status
        past.follow(status)
        speed = status["bot"].get("speed", 1)
        note = "" if speed == 1 else f"the exchange's time, {speed:g} times as fast as real time"
        self._drawn = past.symbol
        self._png = self._chart.png(past.symbol, past.prices, past.levels, self._decisions.latest(), note)
        return self._png

    def summary(self) -> Summary:
        """Return what was seen last as something that shows itself: banner, chart, table, decisions; no widgets."""
        screen = self._screen(self._seen)
        parts = (screen.banner, screen.table, screen.decisions, screen.troubles)
        return Summary(parts, self._png, tuple(self.findings()))

    @property
    def answer(self) -> str:
        """Return in one sentence how the bot stood, and how near a trigger was."""
        from tradingbot.ui.dashboard import rows
        from tradingbot.ui.live_html import nearest

        says, near = self._seen.says, ""
        if self._seen.standing.lives:
            with contextlib.suppress(*DAMAGED):
                near = f"; {nearest(rows(self._seen.status))}"
        return f"{says}{near}"

    def findings(self) -> list[Finding]:
        """Return whether the bot lived, saw its market and recorded it, as far as this view saw."""
        watch = Watch(self._first, self._seen, self._statuses, len(self._sids), self._watched_s, self._complaints)
        found = list(watch_findings(watch))
        if self._seen.status and not self._screen(self._seen).table:
            text = "status.json does not tell what it should"
            found.append(Finding("status", Verdict.FAILED, text, fix="tradingbot status --json; tradingbot fsck"))
        return found

    def stop(self) -> None:
        """End watching; the bot goes on."""
        self._ended.set()

    def choose(self, symbol: str) -> None:
        """Chart another symbol."""
        self.symbol = symbol

    def halt(self, why: str) -> str:
        """Switch the kill switch on at once, as `tradingbot kill` does; return what came of it."""
        from tradingbot.io.audit import append_audit
        from tradingbot.ops import control

        control.kill(self.state_dir, why or "HALT in a notebook")
        append_audit(self.state_dir, "kill", why)  # after it: a full disk must not keep it from being on
        if not control.is_running(self.state_dir):
            return "kill switch on; no bot is running there now: it holds for the next one"
        return "kill switch on: no new position; the banner says KILLED once the bot has seen it"

    def give_reason(self, why: str) -> str:
        """Put the reason to a halt that came before it; return what came of it. It never switches anything on."""
        from tradingbot.io.audit import append_audit
        from tradingbot.ops import control

        append_audit(self.state_dir, "kill", why)
        if not (self.state_dir / "KILL").exists():
            return "the kill switch is off again; the reason is in the audit"
        control.kill(self.state_dir, why)
        return "kill switch on, with its reason"

    def arm(self, why: str) -> str:
        """Switch the kill switch off, as `tradingbot arm` does; return what came of it."""
        from tradingbot.io.audit import append_audit
        from tradingbot.ops import control

        append_audit(self.state_dir, "arm", why)
        return "kill switch off" if control.arm(self.state_dir) else "the kill switch was off"

    def plan(self, flag: str, on: bool | None) -> str:
        """Return in words what switching a flag would do; None takes its override back."""
        from tradingbot.ui.switch_tables import plan_text

        plan = self._plan(flag, on)
        return plan_text(plan.rows(), str(plan.state_dir), plan.running, plan.trouble)

    def switch(self, flag: str, on: bool | None, why: str) -> str:
        """Switch a flag by an audited override, as `tradingbot flags set` does; return what came of it."""
        from tradingbot.ops.rollback.switch import switch

        if not why:
            raise UsageError("nothing was changed: say why, for the audit")
        plan = self._plan(flag, on)
        if not switch(plan, why):
            return "nothing had to be changed"
        row = plan.rows()[0]
        value = "on" if row["new_value"] else "off"
        if not plan.running:
            return f"{flag} is {value} (from {row['source']}); no bot runs: it counts from the next start on"
        if row["takes_effect"] != "live":
            return f"{flag} is {value} from the next start on (from {row['source']}): tradingbot restart"
        self._adoptions.append((time.monotonic() + ADOPT_S, flag, on))
        return f"{flag} is {value} (from {row['source']}); waiting for the running bot to go by it"

    def _plan(self, flag: str, on: bool | None) -> Any:
        from tradingbot.io.override_file import CLEAR
        from tradingbot.ops.rollback.switch import plan_switch

        return plan_switch(self._effective(), {flag: CLEAR if on is None else on})

    def _effective(self) -> Effective:
        """Return the settings in force, also where overrides.json is broken."""
        from tradingbot.io.home import Home
        from tradingbot.io.overrides import in_force, read_settings

        state = str(self.state_dir.absolute())
        return in_force(read_settings(Home(self._home, "notebook"), state=state, overrides=False))

    def _see_adopted(self, panel: Panel) -> None:
        told = {}
        if not self._is_damaged:
            told = {row["key"]: row["value"] for row in self._seen.status.get("overrides", ())}
        for item in list(self._adoptions):
            until_s, flag, on = item
            if told.get(flag) == on:
                panel.say(f"the running bot goes by it: {flag} is {'on' if self._flag(flag) else 'off'}")
            elif time.monotonic() > until_s:
                panel.say(f"the running bot has NOT taken up {flag}: look at its log", is_bad=True)
            else:
                continue
            self._adoptions.remove(item)

    def _flag(self, name: str) -> bool:
        return bool(self._seen.status["flags"].get(name))


def _flag_states(seen: Seen) -> tuple[FlagState, ...]:
    from tradingbot.ui.explanation import utc_text
    from tradingbot.ui.widgets import FlagState

    overrides = {row["key"]: row for row in seen.status["overrides"]}
    states = []
    for name, flag in FLAGS.items():
        entry, text = overrides.get(name), ""
        if entry is not None:
            since = "" if entry["since_ms"] is None else f" since {utc_text(entry['since_ms'])}"
            text = f"{'on' if entry['value'] else 'off'}{since}, by {entry['who']}: {entry['why']}"
        when = "at the next start" if flag.restart else "live"
        states.append(FlagState(name, seen.status["flags"].get(name), flag.off_means, when, text))
    return tuple(states)
