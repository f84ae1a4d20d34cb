"""Monitoring: a running bot is watched for a while, and the first violation ends it."""

from __future__ import annotations

import time
from typing import Any

from tradingbot.io.state_files import lock_owner
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.record.inputs import Progress
from tradingbot.ops.verify.checks import freshness, is_fresh
from tradingbot.ops.verify.log_lines import LogLine, LogTail, iso
from tradingbot.ops.verify.record import order_in
from tradingbot.ops.verify.scene import Look, Scene, behind

__all__ = ["MONITORED", "Monitor"]

MONITORED = "monitored"
LOOK_S = 0.5
HUNG_S = 10.0  # without another status, which is written once a second
STALE_S = 5.0  # for which freshness may be below 95 %: until a poll has taken over from a stream


class Monitor:
    """Watch the bot of a scene for `duration_s` seconds.

    A violation is an ERROR line, a heartbeat gap over 2 x HEARTBEAT_S, freshness below 95 %, an order while it
    observes, and the bot's hanging, death or restart. `finding` says what was seen so far, also where it was ended.
    """

    def __init__(self, scene: Scene, duration_s: float) -> None:
        self._scene, self._duration_s = scene, duration_s
        self._settings = scene.settings
        self._tail = LogTail(scene.log_folder)
        self._began_s = self._beat_s = self._turn_s = self._fresh_s = time.monotonic()
        self._first = self._last = scene.look()
        self._ended_s: float | None = None
        self._violations: list[str] = []
        self._looks = self._beats = self._warnings = 0
        self._held_back_s, self._least = 0.0, 1.0
        self._observes_since_ms: float | None = None if self._first.is_trading else self._time_ms(self._first)

    def run(self, progress: Progress | None = None) -> None:
        """Watch until the time is over or something is wrong; KeyboardInterrupt passes through."""
        if not self._scene.bot.is_running:
            self._violations.append("no bot runs")
            self._ended_s = time.monotonic()
            return
        end_s = self._began_s + self._duration_s
        while not self._violations and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left_s))
            self._step()
            if progress is not None:
                progress("monitoring", int(time.monotonic() - self._began_s), int(self._duration_s))
        self._ended_s = time.monotonic()

    def _step(self) -> None:
        look, now = self._scene.look(), time.monotonic()
        slept_s = look.at_s - self._last.at_s if self._looks else 0.0
        self._looks += 1
        for line in self._tail.new():
            self._read(line, now)
        if self._has_gone(look):
            return
        if look.bot.get("uptime_s") != self._last.bot.get("uptime_s"):
            self._turn_s = now
        elif now - self._turn_s > HUNG_S:
            self._violations.append(f"it hangs: its status has not changed for {now - self._turn_s:.0f} s")
        if look.is_held_back:
            self._held_back_s += slept_s
        self._judge_freshness(look, now)
        gap_s = now - self._beat_s
        if self._settings.LOG_LEVEL in ("DEBUG", "INFO") and gap_s > 2 * self._settings.HEARTBEAT_S + 1:
            self._violations.append(f"no HEARTBEAT for {gap_s:.0f} s, HEARTBEAT_S is {self._settings.HEARTBEAT_S:g}")
        self._judge_orders(look)
        self._last = look

    def _has_gone(self, look: Look) -> bool:
        before = self._first.bot
        if lock_owner(self._scene.state_dir) is None:
            how = "it has stopped" if look.bot.get("state") == "stopping" else "it died"
            self._violations.append(f"{how}: process {before.get('pid')} no longer holds its state directory")
        elif look.bot.get("sid", before.get("sid")) != before.get("sid"):
            self._violations.append(
                f"it was restarted: session {look.bot.get('sid')} runs in place of {before.get('sid')}"
            )
        return bool(self._violations)

    def _read(self, line: LogLine, now: float) -> None:
        if line.is_bad:
            self._violations.append(f"{line.level} at {iso(line.ts_ms)}: {line.text[:200]}")
        elif line.text.startswith("HEARTBEAT - "):
            self._beats += 1
            self._beat_s = now
        elif line.level == "WARNING":
            self._warnings += 1
            if line.text.startswith("settings changed:"):
                self._settings = behind(self._scene.state_dir, str(self._first.bot.get("sid")))[0] or self._settings

    def _judge_freshness(self, look: Look, now: float) -> None:
        fresh, of, limit_s = freshness(look, self._settings)
        if look.is_held_back or is_fresh(look, self._settings):
            self._fresh_s = now
        elif now - self._fresh_s > STALE_S:
            self._violations.append(
                f"{fresh} of {of} symbols fresh (within {limit_s:g} s), for {now - self._fresh_s:.0f} s"
            )
        if of and not look.is_held_back:
            self._least = min(self._least, fresh / of)

    def _judge_orders(self, look: Look) -> None:
        if look.is_trading:
            self._observes_since_ms = None
        elif self._observes_since_ms is None:
            self._observes_since_ms = self._time_ms(look) + self._settings.TICKER_MAX_AHEAD_S * 1000
        elif orders := order_in(look.status, self._observes_since_ms):
            one = orders[0]
            self._violations.append(
                f"an order while it observes: {one['type']} of {one['symbol']}, {one['decision_id']}"
            )

    @staticmethod
    def _time_ms(look: Look) -> float:
        return float(look.status.get("time_ms", 0)) + 1

    def finding(self) -> Finding:
        """Return what was seen."""
        watched_s = (self._ended_s or time.monotonic()) - self._began_s
        is_whole = self._ended_s is not None
        look = self._last
        evidence: dict[str, Any] = {
            "asked_s": self._duration_s, "watched_s": round(watched_s, 1), "looks": self._looks,
            "heartbeats": self._beats, "warnings": self._warnings,
            "ticks": look.ticks - self._first.ticks, "least_fresh": round(self._least, 3),
            "held_back_s": round(self._held_back_s, 1), "violations": self._violations[:20],
            "ended_by_hand": not is_whole,
        }  # fmt: skip
        told = f"{self._beats} heartbeats, {evidence['ticks']:,} ticks, {self._warnings} warnings"
        if self._held_back_s:
            told += f", {self._held_back_s:.0f} s of them held back by the exchange"
        if self._violations:
            says = f"after {_span(watched_s)} of {_span(self._duration_s)}: {'; '.join(self._violations[:3])}"
            return Finding(
                MONITORED, Verdict.FAILED, says, evidence, "tradingbot doctor; tradingbot kill --why ... if in doubt"
            )
        if not is_whole:
            says = f"ended by hand after {_span(watched_s)} of {_span(self._duration_s)}, no violation so far: {told}"
            return Finding(MONITORED, Verdict.WARNING, says, evidence, "begin again: tradingbot verify --monitor ...")
        return Finding(MONITORED, Verdict.OK, f"{_span(watched_s)} without a violation: {told}", evidence)


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
