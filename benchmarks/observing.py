"""The live view of 50 symbols: what a refresh and a chart cost, and that a day of them keeps nothing."""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tradingbot.api.observe import LiveView
from tradingbot.config import FLAGS
from tradingbot.ui.live_chart import LiveChart
from tradingbot.ui.widgets import Panel

REFRESHES, SYMBOLS, POINTS, CHARTS = 100_000, 50, 900, 2_000
START_MS = 1_795_342_272_000


class _Point:
    """Stand for a price and its levels."""

    def __init__(self, ts_ms: int, last: float) -> None:
        self.ts_ms, self.last = ts_ms, last
        self.reference = self.anchor = self.peak = 101.0
        self.threshold = 99.485


def _status(second: int) -> dict[str, Any]:
    symbols = [
        {
            "symbol": f"S{number}/USDT", "last": (last := 100 + (second * 7 + number) % 97 / 100), "bid": last - 0.01,
            "ask": last + 0.01, "spread_pct": 0.02, "drop_pct": (last / 101 - 1) * 100, "reference": 101.0,
            "reference_source": "anchor", "anchor_age_s": float(second % 3600), "anchor_cause": "raised",
            "threshold": 99.485, "to_trigger_pct": (99.485 / last - 1) * 100, "armed": True, "age_s": 0.4,
            "state": "armed", "retry": None, "triggers": 0, "ticks_per_min": 60.0, "rejected": 0,
        }
        for number in range(SYMBOLS)
    ]  # fmt: skip
    return {
        "v": 1,
        "bot": {
            "sid": "1", "pid": 1, "version": "0.1.0", "mode": "observe", "exchange": "embedded", "speed": 1,
            "started_ms": START_MS, "uptime_s": float(second), "state": "running",
        },
        "time_ms": START_MS + second * 1000, "flags": dict.fromkeys(FLAGS, True), "overrides": [],
        "symbols": symbols,
        "data": {
            "mode": "stream", "fresh": SYMBOLS, "stale": 0, "oldest_s": 0.4, "ticks": second * SYMBOLS,
            "rejected": {}, "withheld": {}, "held_back_until_ms": None,
        },
        "streams": {}, "disk": {"free_mb": 1000, "hours_left": None}, "positions": [], "decisions": [], "errors": [],
    }  # fmt: skip


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def observe() -> Iterator[str]:
    """Measure refreshes and charts of the live view, and its memory over 100,000 of them."""
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        view = LiveView(state)
        panel = Panel(view, list(FLAGS))
        took, sizes = array("d", bytes(8 * REFRESHES)), []  # all of it now: what grows is not to be ours
        for second in range(REFRESHES):
            (state / "status.json").write_bytes(orjson.dumps(_status(second)))
            began = time.process_time()
            view._refresh(panel)
            took[second] = time.process_time() - began
            if second % (REFRESHES // 10) == REFRESHES // 20:
                sizes.append(_rss_mb())
        refresh_ms = statistics.median(took) * 1000
        yield f"{REFRESHES:,} refreshes, {SYMBOLS} symbols {refresh_ms:8.2f} ms each; resident {_told(sizes)} MB"
    chart, took, sizes = LiveChart(), array("d", bytes(8 * CHARTS)), []
    for second in range(CHARTS):
        points = [_Point(START_MS + (second + i) * 1000, 100 + (second + i) % 89 / 100) for i in range(POINTS)]
        began = time.process_time()
        chart.png("BTC/USDT", points, points, [])
        took[second] = time.process_time() - began
        if second % (CHARTS // 10) == CHARTS // 20:
            sizes.append(_rss_mb())
    chart_ms = statistics.median(took) * 1000
    yield f"{CHARTS:,} charts of {POINTS} points    {chart_ms:8.2f} ms each; resident {_told(sizes)} MB"
    share = (refresh_ms + chart_ms / 2) / 10
    yield f"a refresh a second and a chart every two: {share:.1f} % of a core"


def _told(sizes: list[float]) -> str:
    return f"{sizes[0]:.0f} at 5 %, {sizes[len(sizes) // 2]:.0f} at half, {sizes[-1]:.0f} at 95 %"
