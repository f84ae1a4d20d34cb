"""Pictures of results; imported when one is asked for. Colours that all can tell apart, times in UTC with the date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure

from tradingbot.ui.plain import printable

__all__ = ["Picture", "decisions_over_time", "drop_bars", "outcomes_over_time", "price_story"]

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#888888",
)  # fmt: skip
"""Okabe and Ito's colours, which also those tell apart who see no red or green."""
WIDTH_IN, DPI = 10.0, 100
SYMBOLS = 50  # bars of one picture
KINDS = {
    "gained": ("^", BLUE), "lost": ("v", VERMILLION), "moved": ("D", PURPLE), "changed": ("s", ORANGE),
}  # fmt: skip


class Picture(Figure):
    """A figure that a notebook shows without pyplot, which would keep every one of them in memory."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def drop_bars(rows: Sequence[Mapping[str, Any]], time_ms: int) -> Picture:
    """Return how far each symbol is below its reference (%), beside its threshold; the first row on top."""
    shown = rows[:SYMBOLS]
    figure = _figure(1.1 + 0.28 * len(shown))
    axes = figure.subplots()
    places = range(len(shown))
    drops = [row["drop_pct"] for row in shown]
    limits = [(row["threshold"] / row["reference"] - 1) * 100 for row in shown]
    reached = [drop <= limit for drop, limit in zip(drops, limits, strict=True)]
    axes.barh(places, drops, color=[VERMILLION if over else SKY for over in reached], height=0.6)
    axes.plot(limits, places, "|", color=BLACK, markersize=14, markeredgewidth=2, label="threshold")
    for place, over in zip(places, reached, strict=True):
        if over:
            axes.annotate("under its threshold", (0, place), (6, 0), textcoords="offset points", va="center", size=8)
    axes.set_yticks(places, [_label(row["symbol"]) for row in shown])
    axes.invert_yaxis()
    axes.axvline(0, color=BLACK, linewidth=0.8)
    axes.set_xlabel("drop from the reference (%)")
    rest = f", the nearest {SYMBOLS} of {len(rows)}" if len(rows) > SYMBOLS else ""
    axes.set_title(f"drops at {_utc(time_ms)} UTC{rest}", loc="left", fontsize=11)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    _plain(axes)
    return figure


def decisions_over_time(
    ours: Iterable[int], theirs: Iterable[int], differences: Sequence[Mapping[str, Any]],
    profits: tuple[Sequence[tuple[int, float]], Sequence[tuple[int, float]]], names: tuple[str, str],
    span: tuple[int, int],
) -> Picture:  # fmt: skip
    """Return triggers of both sides counted up, what was gained and lost by symbol, and profits where there are any.

    Times are ms; `differences` have kind, symbol and ts_ms; `profits` are closed trades, each a time and quote.
    """
    found = Counter(str(row["symbol"]) for row in differences)
    symbols = sorted(symbol for symbol, _ in found.most_common(SYMBOLS))
    heights = [2.2, *([0.7 + 0.28 * len(symbols)] if symbols else []), *([2.0] if any(profits) else [])]
    figure = _figure(sum(heights) + 0.9)
    plots = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    first = plots[0]
    styles = ((BLUE, "-", 2.4), (ORANGE, "--", 1.8))
    for times, name, (colour, line, width) in zip((ours, theirs), names, styles, strict=True):
        steps = [span[0], *times, span[1]]
        counts = [*range(len(steps) - 1), len(steps) - 2]
        first.step(
            _dates(steps), counts, where="post", color=colour, linestyle=line, linewidth=width, label=_label(name)
        )
    first.set_ylabel("triggers (count)")
    first.yaxis.get_major_locator().set_params(integer=True)
    first.legend(loc="upper left", frameon=False, fontsize=9)
    if symbols:
        axes = plots[1]
        for kind, (sign, colour) in KINDS.items():
            rows = [row for row in differences if row["kind"] == kind and row["symbol"] in symbols]
            places = [symbols.index(str(row["symbol"])) for row in rows]
            if rows:
                times = _dates([row["ts_ms"] for row in rows])
                axes.plot(times, places, sign, color=colour, markersize=8, label=f"{kind} ({len(rows)})")
        axes.set_yticks(range(len(symbols)), [_label(symbol) for symbol in symbols])
        axes.set_ylim(len(symbols) - 0.5, -0.5)
        if len(found) > SYMBOLS:
            axes.set_title(f"the {SYMBOLS} symbols of {len(found)} with the most differences", loc="left", fontsize=9)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
        axes.grid(axis="y", color="#dddddd")
    if any(profits):
        axes = plots[-1]
        for trades, name, (colour, line, width) in zip(profits, names, styles, strict=True):
            sums, total = [0.0], 0.0
            for _, profit in trades:
                total += profit
                sums.append(total)
            times = _dates([span[0], *(ts_ms for ts_ms, _ in trades), span[1]])
            axes.step(
                times, [*sums, total], where="post", color=colour, linestyle=line, linewidth=width, label=_label(name)
            )
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_ylabel("profit, closed (quote)")
    for axes in plots:
        _plain(axes)
    _time_axis(plots[-1])
    return figure


def outcomes_over_time(triggers: Sequence[tuple[int, str]], trades: Sequence[tuple[int, float]]) -> Picture:
    """Return triggers (time in ms, outcome) counted up by outcome, and closed trades' profit (time in ms, quote)."""
    times_ms = [ts_ms for ts_ms, _ in (*triggers, *trades)]
    first_ms, last_ms = min(times_ms), max(times_ms)
    figure = _figure(4.6 if trades else 2.9)
    plots = list(figure.subplots(2 if trades else 1, 1, sharex=True, squeeze=False)[:, 0])
    styles = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"))
    outcomes = sorted({outcome for _, outcome in triggers})
    for outcome, (colour, line) in zip(outcomes, styles, strict=False):
        steps = [ts_ms for ts_ms, each in triggers if each == outcome]
        counts = [*range(len(steps) + 1), len(steps)]
        label = f"{_label(outcome)} ({len(steps):,})"
        dates = _dates([first_ms, *steps, last_ms])
        plots[0].step(dates, counts, where="post", color=colour, linestyle=line, label=label)
    plots[0].set_ylabel("triggers (count)")
    plots[0].yaxis.get_major_locator().set_params(integer=True)
    plots[0].legend(loc="upper left", frameon=False, fontsize=9)
    if trades:
        sums = list(accumulate((profit for _, profit in trades), initial=0.0))
        dates = _dates([first_ms, *(ts_ms for ts_ms, _ in trades), last_ms])
        plots[1].step(dates, [*sums, sums[-1]], where="post", color=BLUE)
        plots[1].axhline(0, color=GREY, linewidth=0.8)
        plots[1].set_ylabel("profit, closed (quote)")
    for axes in plots:
        _plain(axes)
    _time_axis(plots[-1])
    return figure


def price_story(
    prices: Sequence[tuple[int, float]], decision: Mapping[str, Any], events: Iterable[tuple[int, float, str]]
) -> Picture:
    """Return the price around a trigger, with its reference, threshold and window peak; fills as they came.

    `prices` are times (ms) and last prices (quote), `events` times, prices and names.
    """
    figure = _figure(4.2)
    axes = figure.subplots()
    source, symbol = _label(decision["reference_source"]), _label(decision["symbol"])
    if prices:
        axes.plot(_dates([ts_ms for ts_ms, _ in prices]), [price for _, price in prices], color=GREY, linewidth=1.0)
    axes.axhline(decision["reference"], color=BLUE, linestyle="--", label=f"{source} {decision['reference']:.8g}")
    limit_pct = (decision["threshold"] / decision["reference"] - 1) * 100
    text = f"threshold {decision['threshold']:.8g} ({limit_pct:+.2f} %)"
    axes.axhline(decision["threshold"], color=VERMILLION, linestyle="-.", label=text)
    peak_ms, peak = decision["window_peak_ms"], decision["window_peak"]
    (peak_at, at) = _dates([peak_ms, decision["ts_ms"]])
    axes.plot([peak_at], [peak], "^", color=GREEN, markersize=9, label=f"window peak {peak:.8g}")
    text = f"trigger {decision['last']:.8g} ({decision['drop_pct']:+.2f} %)"
    axes.plot([at], [decision["last"]], "o", color=BLACK, markersize=9, label=text)
    signs = {"bought": (">", SKY), "sold": ("<", ORANGE)}
    for ts_ms, price, name in events:
        sign, colour = signs.get(name, ("D", PURPLE))
        axes.plot(_dates([ts_ms]), [price], sign, color=colour, markersize=9, label=f"{_label(name)} {price:.8g}")
    axes.set_ylabel(f"price ({symbol.rpartition('/')[2].partition(':')[0]})")
    axes.set_title(f"{symbol} around {_utc(decision['ts_ms'])} UTC", loc="left", fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    _plain(axes)
    _time_axis(axes)
    return figure


def _figure(height_in: float) -> Picture:
    return Picture(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _time_axis(axes: Axes) -> None:
    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(DateFormatter("%Y-%m-%d\n%H:%M:%S", tz=UTC))  # type: ignore[no-untyped-call]
    axes.set_xlabel("time (UTC)")


def _dates(times_ms: Iterable[int]) -> list[Any]:
    return [datetime.fromtimestamp(ts_ms / 1000, UTC) for ts_ms in times_ms]


def _label(text: object) -> str:
    """Return a foreign text as it is, where matplotlib would take a $ for mathematics."""
    return printable(str(text)).replace("$", r"\$")


def _utc(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
