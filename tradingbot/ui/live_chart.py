"""A symbol's prices against its anchor, threshold and window peak: one figure, whose artists are used again."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from tradingbot.ui.plain import printable

__all__ = ["LevelPoint", "LiveChart", "PricePoint"]

DAY_MS = 86_400_000
GAP_MS = 120_000  # between two prices, from which on no line joins them
INK = {"price": "#000000", "anchor": "#0072B2", "threshold": "#D55E00", "peak": "#009E73", "reference": "#56B4E9"}
MARKS = {"entered": ("^", "#009E73"), "blocked": ("v", "#D55E00"), "observed": ("o", "#E69F00")}
MOST_POINTS = 1_500  # a line: more than the figure has pixels across


class PricePoint(Protocol):
    """Give a price (quote) and its time (ms)."""

    @property
    def ts_ms(self) -> int: ...  # noqa: D102
    @property
    def last(self) -> float: ...  # noqa: D102


class LevelPoint(Protocol):
    """Give what a price was measured against at a time (ms)."""

    @property
    def ts_ms(self) -> int: ...  # noqa: D102
    @property
    def reference(self) -> float: ...  # noqa: D102
    @property
    def threshold(self) -> float: ...  # noqa: D102
    @property
    def peak(self) -> float | None: ...  # noqa: D102
    @property
    def anchor(self) -> float | None: ...  # noqa: D102


class LiveChart:
    """Draw a symbol's recent past as a PNG; what is drawn again costs no new artist."""

    def __init__(self, width_in: float = 9.6, height_in: float = 3.3, dpi: int = 100) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.dates import AutoDateLocator, DateFormatter, date2num
        from matplotlib.figure import Figure

        self._figure = Figure(figsize=(width_in, height_in), dpi=dpi)
        self._canvas = FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_subplot()
        self._figure.subplots_adjust(left=0.085, right=0.965, top=0.80, bottom=0.17)
        axes = self._axes
        steps: dict[str, Any] = {"drawstyle": "steps-post", "linewidth": 1.4}
        self._lines = {
            "price": axes.plot([], [], color=INK["price"], linewidth=1.1, label="price (last)")[0],
            "anchor": axes.plot(
                [], [], color=INK["anchor"], label="anchor", **{**steps, "linewidth": 3.0, "alpha": 0.55}
            )[0],
            "reference": axes.plot([], [], color=INK["reference"], label="reference", linestyle=":", **steps)[0],
            "threshold": axes.plot([], [], color=INK["threshold"], linestyle="--", label="threshold", **steps)[0],
            "peak": axes.plot([], [], color=INK["peak"], linestyle="-.", label="window peak", **steps)[0],
        }
        for outcome, (marker, colour) in MARKS.items():
            self._lines[outcome] = axes.plot(
                [], [], linestyle="", marker=marker, markersize=9, markerfacecolor=colour, markeredgecolor="black",
                label=f"trigger, {outcome}", zorder=5,
            )[0]  # fmt: skip
        self._used: set[str] = set()  # lines that show something
        self._epoch = float(date2num(_when(0)))  # type: ignore[no-untyped-call]
        locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S", tz=UTC))  # type: ignore[no-untyped-call]
        axes.yaxis.set_major_formatter("{x:.8g}")
        axes.grid(alpha=0.25)
        axes.margins(x=0.01)

    def png(
        self,
        symbol: str,
        prices: Sequence[PricePoint],
        levels: Sequence[LevelPoint],
        decisions: Sequence[Mapping[str, Any]],
        note: str = "",
    ) -> bytes:
        """Return the chart; `decisions` are of any symbol and time, those of this one in its span are marked."""
        shown = [d for d in decisions if d["symbol"] == symbol and prices and d["ts_ms"] >= prices[0].ts_ms]
        self._set("price", [(p.ts_ms, p.last) for p in prices])
        self._set("anchor", [(p.ts_ms, p.anchor) for p in levels])
        self._set("reference", [(p.ts_ms, p.reference if p.anchor is None else None) for p in levels])
        self._set("threshold", [(p.ts_ms, p.threshold) for p in levels])
        self._set("peak", [(p.ts_ms, p.peak) for p in levels])
        for outcome in MARKS:
            self._set(outcome, [(d["ts_ms"], d["last"]) for d in shown if d["outcome"] == outcome])
        axes = self._axes
        axes.relim()
        axes.autoscale_view()
        when = _when(prices[-1].ts_ms).strftime("%Y-%m-%d") if prices else "no price yet"
        axes.set_xlabel(f"time (UTC), {when}")
        axes.set_ylabel(f"price ({printable(symbol.partition('/')[2].partition(':')[0]) or 'quote'})")
        axes.set_title(printable(f"{symbol}{f'  ({note})' if note else ''}").replace("$", r"\$"), loc="left", pad=24)
        used = [self._lines[name] for name in self._lines if name in self._used]
        axes.legend(
            handles=used, loc="lower left", bbox_to_anchor=(0.0, 0.99), ncols=7, frameon=False, fontsize=8.5,
            handlelength=2.2, columnspacing=1.2, borderaxespad=0.2,
        )  # fmt: skip
        file = io.BytesIO()
        self._canvas.print_png(file, pil_kwargs={"compress_level": 1})  # type: ignore[no-untyped-call]
        return file.getvalue()

    def _set(self, name: str, points: Sequence[tuple[int, float | None]]) -> None:
        points = _thinned(points if any(value is not None for _, value in points) else ())
        times: list[int] = []
        values: list[float] = []
        for ts_ms, value in points:
            if times and ts_ms - times[-1] > GAP_MS and name not in MARKS:
                times.append(times[-1])
                values.append(math.nan)
            times.append(ts_ms)
            values.append(math.nan if value is None else value)
        (self._used.add if times else self._used.discard)(name)
        self._lines[name].set_data([self._epoch + ts_ms / DAY_MS for ts_ms in times], values)


def _thinned(points: Sequence[tuple[int, float | None]]) -> Sequence[tuple[int, float | None]]:
    """Return few enough points: of each stretch of time the first, lowest and highest one, so that no spike is lost."""
    if len(points) <= MOST_POINTS:
        return points
    size = -(-len(points) // (MOST_POINTS // 3))
    kept: list[tuple[int, float | None]] = []
    for start in range(0, len(points), size):
        part = [point for point in points[start : start + size] if point[1] is not None]
        if part:
            chosen = {part[0], min(part, key=lambda p: p[1] or 0.0), max(part, key=lambda p: p[1] or 0.0)}
            kept += sorted(chosen)
    return kept


def _when(ts_ms: int) -> datetime:
    return datetime.fromtimestamp(ts_ms / 1000, UTC)
