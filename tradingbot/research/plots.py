"""Figures: times in UTC with the date, units on every axis, colours that the colour-blind tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tradingbot.research.exhibits import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "OUTCOME_COLOURS", "ages_figure", "anatomy_figure", "coverage_figure", "drops_figure", "outcome_figure",
    "triggers_figure", "variants_figure",
]  # fmt: skip

# Okabe and Ito's colours (2008)
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
OUTCOME_COLOURS = {"entered": GREEN, "observed": BLUE, "blocked": ORANGE}
OUTCOME_MARKS = {"entered": "^", "observed": "o", "blocked": "x"}
WIDTH = 12.8
MANY = 40  # symbols: more rows than this cannot be read

Array = np.ndarray[Any, Any]
Row = Sequence[float] | None


def _figure(height: float, rows: int = 1, columns: int = 1, **more: Any) -> tuple[Figure, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["font.family"] = "DejaVu Sans"
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **more)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _moments(ts_ms: Any) -> Array:
    return np.asarray(ts_ms, dtype=np.int64).astype("datetime64[ms]")


def _time_axis(axis: Any, name: str = "time (UTC)") -> None:
    import matplotlib.dates

    dates: Any = matplotlib.dates  # whose functions have no types
    low, high = axis.get_xlim()
    days = high - low
    form = "%Y-%m-%d" if days > 20 else "%m-%d %H:%M" if days > 0.02 else "%H:%M:%S"
    axis.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=9))
    axis.xaxis.set_major_formatter(dates.DateFormatter(form, tz="UTC"))
    axis.set_xlabel(name)


def _span(first_ms: int, last_ms: int) -> str:
    days = [str(_moments([ts_ms])[0].astype("datetime64[D]")) for ts_ms in (first_ms, last_ms)]
    return f"time (UTC), {days[0]}" if days[0] == days[1] else f"time (UTC), {days[0]} to {days[1]}"


def coverage_figure(
    first_ms: int,
    last_ms: int,
    sessions: Sequence[tuple[int, int, str]],
    off: Sequence[tuple[int, int, str]],
    spans_ms: Mapping[str, Array],
    changes: Sequence[int],
) -> Figure:
    """Draw which stretches are recorded: a bar a session, what was not recorded, a row a symbol; times in ms."""
    names = list(spans_ms)[:MANY]
    figure, axes = _figure(1.9 + 0.22 * len(names))
    axis = axes[0, 0]
    last_ms = max(last_ms, first_ms + 60_000)
    least_ms = (last_ms - first_ms) / 800  # what can still be seen
    for place, name in enumerate(names):
        spans = np.clip(spans_ms[name].astype(float), first_ms, last_ms)
        for began, ended in spans:
            _bar(axis, began, ended, place, SKY)
        for ended, begins in zip(spans[:-1, 1], spans[1:, 0], strict=True):
            middle, half = (ended + begins) / 2, max(begins - ended, least_ms) / 2
            _bar(axis, middle - half, middle + half, place, RED)
    for number, (began, ended, _) in enumerate(sessions):
        _bar(axis, max(began, first_ms), min(ended, last_ms), -1, BLUE if number % 2 == 0 else GREEN)
    for began, ended, _ in off:
        _bar(axis, max(began, first_ms), min(ended, last_ms), -1, RED)
    for moment in changes:
        axis.axvline(_moments([moment])[0], color=PINK, linestyle="--", linewidth=1.2)
    axis.set_yticks([-1, *range(len(names))], ["sessions", *(label(name) for name in names)])
    axis.set_ylim(len(names) - 0.4, -1.6)
    axis.set_xlim(*_moments([first_ms, last_ms]))
    axis.set_ylabel("symbol")
    _time_axis(axis, _span(first_ms, last_ms))
    return figure


def _bar(axis: Any, begin_ms: float, end_ms: float, place: float, colour: str) -> None:
    if end_ms >= begin_ms:
        import matplotlib.dates

        dates: Any = matplotlib.dates
        begin, end = dates.date2num(_moments([begin_ms, end_ms]))
        axis.broken_barh([(begin, max(end - begin, 1e-6))], (place - 0.38, 0.76), facecolors=colour, linewidth=0)


def triggers_figure(
    ts_ms: Array, symbols: Sequence[str], outcomes: Sequence[str], drops: Array, changes: Sequence[int],
    first_ms: int, last_ms: int,
) -> Figure:  # fmt: skip
    """Draw triggers over time, how deep each was and what became of it, and how many each symbol had."""
    figure, axes = _figure(4.4, 1, 2, width_ratios=(3, 1))
    axis, side = axes[0]
    outcomes_array, symbols_array = np.array(outcomes, dtype=object), np.array(symbols, dtype=object)
    for name, colour in OUTCOME_COLOURS.items():
        own = outcomes_array == name
        if own.any():
            text = f"{name} ({own.sum()})"
            axis.scatter(_moments(ts_ms[own]), drops[own], s=26, c=colour, marker=OUTCOME_MARKS[name], label=text)
    for moment in changes:
        axis.axvline(_moments([moment])[0], color=PINK, linestyle="--", linewidth=1.2)
    axis.set_xlim(*_moments([first_ms, max(last_ms, first_ms + 60_000)]))
    axis.set_ylabel("drop from the reference (%)")
    axis.legend(loc="lower left", framealpha=0.9)
    _time_axis(axis, _span(first_ms, last_ms))
    names = sorted(set(symbols), key=lambda name: -int((symbols_array == name).sum()))[:15][::-1]
    left = np.zeros(len(names))
    for name, colour in OUTCOME_COLOURS.items():
        counts = np.array([((symbols_array == symbol) & (outcomes_array == name)).sum() for symbol in names])
        side.barh(range(len(names)), counts, left=left, color=colour)
        left += counts
    side.set_yticks(range(len(names)), [label(name, 14) for name in names])
    side.set_xlabel("triggers (count)")
    _whole_numbers(side)
    return figure


def _whole_numbers(axis: Any) -> None:
    """Mark counts by whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def anatomy_figure(panels: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the surroundings of triggers, a small panel each: price and spread, reference, threshold, window peak."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure, axes = _figure(3.3 * rows + 0.5, rows, columns)
    for axis, panel in zip(axes.flat, panels, strict=False):
        ticks, seen = panel["ticks"], panel["seen"]
        low_high = []
        if ticks is not None and len(ticks["ts_ms"]):
            moments = _moments(ticks["ts_ms"])
            axis.fill_between(
                moments, ticks["bid"], ticks["ask"], color=SKY, alpha=0.45, linewidth=0, label="bid to ask"
            )
            axis.plot(moments, ticks["last"], color=BLACK, linewidth=0.9, label="last price")
            low_high += [ticks["last"].min(), ticks["last"].max()]
        for name, colour, style in (("peak", PINK, ":"), ("reference", BLUE, "-"), ("threshold", RED, "--")):
            text = {"peak": "window peak", "reference": "reference", "threshold": "threshold"}[name]
            if seen is not None and len(seen["ts_ms"]):
                axis.step(_moments(seen["ts_ms"]), seen[name], color=colour, linestyle=style, where="post", label=text)
            else:
                axis.axhline(panel[name], color=colour, linestyle=style, label=text)
            low_high.append(panel[name])
        for moment, price in panel["others"]:
            axis.plot(_moments([moment]), [price], "x", color=ORANGE, markersize=6, label="another trigger")
        axis.plot(_moments([panel["ts_ms"]]), [panel["last"]], "v", color=RED, markersize=10, label="this trigger")
        low, high = min(low_high), max(low_high)
        margin = (high - low) * 0.08 or high * 0.001
        axis.set_ylim(low - margin, high + margin)
        axis.set_title(panel["title"], fontsize=9.5)
        axis.set_ylabel(f"price ({label(panel['quote'], 10)})")
        axis.ticklabel_format(axis="y", useOffset=False, style="plain")
        _time_axis(axis, _span(panel["ts_ms"], panel["ts_ms"]))
        axis.tick_params(labelsize=8)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=7, fontsize=9)
    return figure


def outcome_figure(
    minutes: Sequence[int], triggers: Sequence[Row], anywhere: Sequence[Row], worst: Sequence[Row], fee_pct: float
) -> Figure:
    """Draw returns (%) after triggers beside those after any moment, and the worst on the way, by minutes ahead.

    Each row holds what 5, 25, 50, 75 and 95 % lie below, or is None.
    """
    figure, axes = _figure(4.0, 1, 2, width_ratios=(2, 1))
    axis, side = axes[0]
    for offset, rows, colour, name in (
        (-0.18, triggers, BLUE, "after a trigger"),
        (0.18, anywhere, ORANGE, "after any moment"),
    ):
        for place, row in enumerate(rows):
            if row is not None:
                low, first, middle, third, high = row
                axis.plot([place + offset] * 2, [low, high], color=colour, linewidth=1.2)
                axis.bar(place + offset, third - first, 0.3, bottom=first, color=colour, alpha=0.6, label=name)
                axis.plot([place + offset - 0.15, place + offset + 0.15], [middle] * 2, color=BLACK, linewidth=2)
    axis.axhline(0, color=BLACK, linewidth=0.8)
    axis.axhline(fee_pct, color=GREEN, linestyle="--", linewidth=1.2, label=f"both fees ({fee_pct:.2f} %)")
    axis.set_xticks(range(len(minutes)), [f"{ahead} min" for ahead in minutes])
    axis.set_xlabel("time after (minutes)")
    axis.set_ylabel("bought at ask, sold at bid (%)")
    handles, texts = axis.get_legend_handles_labels()
    shown = dict(zip(texts, handles, strict=True))
    axis.legend(shown.values(), shown.keys(), loc="best", fontsize=9, framealpha=0.9)
    for place, row in enumerate(worst):
        if row is not None:
            side.plot([place, place], [row[0], row[4]], color=RED, linewidth=3, alpha=0.5)
            side.plot(place, row[2], "o", color=RED)
    side.axhline(0, color=BLACK, linewidth=0.8)
    side.set_xticks(range(len(minutes)), [f"{ahead} min" for ahead in minutes])
    side.set_xlabel("within (minutes)")
    side.set_ylabel("worst on the way, at bid (%)")
    return figure


def drops_figure(edges: Array, counts: Array, deepest: Array, thresholds: Mapping[str, float]) -> Figure:
    """Draw how prices stood below their references, and how many symbol hours fell how deep, beside thresholds (%)."""
    figure, axes = _figure(3.8, 1, 2)
    axis, side = axes[0]
    told = np.flatnonzero(counts)
    first, end = (told[0], told[-1] + 1) if len(told) else (0, len(counts))
    axis.stairs(counts[first:end] / max(counts.sum(), 1) * 100, edges[first : end + 1], fill=True, color=SKY)
    axis.set_yscale("log")
    axis.set_xlabel("price against its reference (%)")
    axis.set_ylabel("share of snapshots (%)")
    deep = np.sort(deepest[np.isfinite(deepest)])
    side.step(deep, np.arange(1, len(deep) + 1), where="post", color=BLACK)
    side.set_xlabel("deepest price of a symbol's hour against its reference (%)")
    side.set_ylabel("symbol hours at least as deep (count)")
    side.set_yscale("log")
    for number, (name, drop) in enumerate(thresholds.items()):
        colour, style = (RED, "-") if number == 0 else (BLUE, "--")
        for each in (axis, side):
            each.axvline(drop, color=colour, linestyle=style, linewidth=1.3, label=name)
    side.legend(loc="upper left", fontsize=9, framealpha=0.9)
    return figure


def ages_figure(edges: Array, counts: Array, at_triggers: Array, causes: Mapping[str, int]) -> Figure:
    """Draw how old anchors were, at triggers and at any snapshot, and what set them."""
    figure, axes = _figure(3.6, 1, 2)
    axis, side = axes[0]
    names = [
        "< 10 s",
        "10-30 s",
        "30-60 s",
        "1-2 min",
        "2-5 min",
        "5-10 min",
        "10-30 min",
        "30-60 min",
        "1-2 h",
        "2-4 h",
        "> 4 h",
    ]
    own = np.histogram(at_triggers[np.isfinite(at_triggers)], edges)[0]
    places = np.arange(len(names))
    axis.bar(
        places - 0.2, counts / max(counts.sum(), 1) * 100, 0.4, color=SKY, label=f"any snapshot ({int(counts.sum()):,})"
    )
    axis.bar(places + 0.2, own / max(own.sum(), 1) * 100, 0.4, color=RED, label=f"at a trigger ({own.sum():,})")
    axis.set_xticks(places, names, rotation=35, ha="right", fontsize=8)
    axis.set_xlabel("age of the anchor")
    axis.set_ylabel("share (%)")
    axis.legend(fontsize=9)
    words = sorted(causes, key=lambda word: causes[word])
    side.barh(range(len(words)), [causes[word] for word in words], color=BLUE)
    side.set_yticks(range(len(words)), [label(word) for word in words])
    for place, word in enumerate(words):
        side.text(causes[word], place, f" {causes[word]:,}", va="center", fontsize=9)
    side.set_xlabel("changes of anchors by cause (count)")
    _whole_numbers(side)
    side.margins(x=0.12)
    return figure


def variants_figure(names: Sequence[str], triggers: Array, pnl: Array, yardsticks: Mapping[str, float]) -> Figure:
    """Draw what other settings would have done: triggers, and return on the starting cash beside the yardsticks (%)."""
    figure, axes = _figure(0.9 + 0.34 * (len(names) + len(yardsticks)), 1, 2, sharey=True)
    axis, side = axes[0]
    rows = [*names, *yardsticks]
    places = np.arange(len(rows))[::-1]
    axis.barh(places[: len(names)], triggers, color=[BLUE, *[SKY] * (len(names) - 1)])
    axis.set_xlabel("triggers (count)")
    _whole_numbers(axis)
    axis.set_yticks(places, [label(name, 44) for name in rows])
    values = [*pnl, *yardsticks.values()]
    side.barh(places, values, color=[BLUE, *[SKY] * (len(names) - 1), *[ORANGE] * len(yardsticks)])
    for place, value in zip(places, values, strict=True):
        side.text(value, place, f" {value:+.2f} ", va="center", ha="left" if value >= 0 else "right", fontsize=9)
    side.axvline(0, color=BLACK, linewidth=0.8)
    side.margins(x=0.15)
    side.set_xlabel("return on the starting cash, fees included (%)")
    return figure
