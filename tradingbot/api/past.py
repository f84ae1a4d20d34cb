"""What the record tells: two settings over the same past, and why a trigger came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tradingbot.api.shown import Place, Shown, frame_of, state_at
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tradingbot.ops.record.comparison import Comparison

__all__ = ["Compared", "Explained", "compare", "explain"]

MINUTE_MS = 60_000
BEFORE_MS, AFTER_MS = 15 * MINUTE_MS, 30 * MINUTE_MS
DIFFERENCES = 15  # that a notebook shows; the frame has all
SUMS = {
    "triggers": "triggers", "entries": "  entered", "trades": "trades closed", "open_positions": "positions open",
    "pnl_quote": "profit (quote)", "fees_quote": "fees (quote)", "final_equity_quote": "final equity (quote)",
    "max_drawdown_quote": "drawdown (quote)",
}  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class Compared(Shown):
    """Hold two sides over the same recorded past; `found` has all of it."""

    state_dir: str
    found: Comparison

    @property
    def is_equal(self) -> bool:
        """Say whether no trigger and no trade differs."""
        return self.found.is_equal

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"state": self.state_dir, **self.found.to_record()}

    def text(self) -> str:
        """Return it in words."""
        return self.found.text()

    def html(self, picture: str = "") -> str:
        """Return it as HTML: both sides, `picture` (HTML too), then what differs."""
        from tradingbot.ui.explanation import utc_text
        from tradingbot.ui.html_tables import Html, details, headline, paragraphs, preformatted, table

        record = self.found.to_record()
        kinds = {name: count for name, count in record["triggers"].items() if isinstance(count, int) and count}
        words = ", ".join(f"{count:,} {'the same' if name == 'same' else name}" for name, count in kinds.items())
        says = "no decision changes" if self.is_equal else f"triggers: {words or 'none'}"
        rows = [(text, *(_amount(record[side][name]) for side in ("ours", "theirs"))) for name, text in SUMS.items()]
        differences = [
            (
                utc_text(row["ts_ms"], "%Y-%m-%d %H:%M:%S"), row["symbol"], row["kind"], row["cause"],
                f"{row['last']:.8g}", row["ours"], row["theirs"],
            )
            for row in self._differences()[:DIFFERENCES]
        ]  # fmt: skip
        rest = len(self.found.triggers) - DIFFERENCES
        names = ("trigger (UTC)", "symbol", "kind", "cause", "last", "ours", "theirs")
        return Html(
            headline("equal" if self.is_equal else "differs", says)
            + paragraphs(self.text().split("\n\n")[0].splitlines())
            + table(("", "ours", "theirs"), rows, (1, 2))
            + picture
            + table(names, differences, (4,), "the first triggers that differ" if rest > 0 else "triggers that differ")
            + paragraphs([f"and {rest:,} more: frame() has all"] if rest > 0 else [])
            + details("the whole comparison in words", preformatted(self.text()))
        )

    def frame(self) -> pd.DataFrame:
        """Return the triggers that differ as a DataFrame indexed by time (UTC): kind, symbol, cause, both outcomes."""
        return frame_of(self._differences(), time="ts_ms")

    def sides_frame(self) -> pd.DataFrame:
        """Return each side's sums as a DataFrame, ours and theirs as columns; money in quote."""
        record = self.found.to_record()
        rows = [{"sum": name, **{side: record[side][name] for side in ("ours", "theirs")}} for name in SUMS]
        return frame_of(rows, "sum")

    def trades_frame(self) -> pd.DataFrame:
        """Return the trades that differ as a DataFrame: kind, symbol, and how much more ours earned (quote)."""
        rows = [difference.to_record() for difference in self.found.trades]
        return frame_of([{name: row[name] for name in ("kind", "symbol", "pnl_quote")} for row in rows])

    def figure(self) -> Figure:
        """Return what was gained and lost over time, by symbol, and both sides' triggers counted up."""
        from tradingbot.api.pictures import decisions_over_time

        sides = (self.found.ours, self.found.theirs)
        ours, theirs = ([trigger.decision.ts_ms for trigger in side.triggers] for side in sides)
        profits = tuple([(trade.exit_ms, trade.pnl) for trade in side.trades] for side in sides)
        names = tuple(
            f"{name}: {', '.join(f'{key} = {value[1]}' for key, value in side.changes.items()) or 'as recorded'}"
            for name, side in zip(("ours", "theirs"), sides, strict=True)
        )
        span = (self.found.first_ms or 0, self.found.last_ms or 0)
        return decisions_over_time(
            ours, theirs, self._differences(), (profits[0], profits[1]), (names[0], names[1]), span
        )

    def _differences(self) -> list[dict[str, Any]]:
        rows = []
        for difference in self.found.triggers:
            sides = (difference.ours, difference.theirs)
            one = next(side for side in sides if side is not None)
            became = [
                "no trigger" if side is None else ": ".join(filter(None, (side.outcome.value, ", ".join(side.reasons))))
                for side in sides
            ]
            rows.append(
                {
                    "ts_ms": one.ts_ms, "symbol": difference.symbol, "kind": difference.kind.value,
                    "cause": difference.cause.value, "last": one.last, "ours": became[0], "theirs": became[1],
                    "decision_id": one.decision_id,
                }
            )  # fmt: skip
        return rows


def compare(
    home: Place = None, *, against: Mapping[str, object] | None = None, last_minutes: float | None = None,
    state: Place = None, config: Place = None, **settings: object,
) -> Compared:  # fmt: skip
    """Return what was decided otherwise under other settings over the same recorded past; nothing is changed.

    Keywords are settings of ours, the one side; `against` are those of theirs, the other; a side without any is as
    recorded. `last_minutes` begins at the last checkpoint before them. A bot may go on running there. Raises
    UsageError where nothing can be compared, SettingsError.

    >>> import tradingbot as tb
    >>> home = tb.trial(duration_s=600, EMBEDDED_SYMBOLS=2, DROP_TRIGGER_VALUE=0.997)
    >>> found = tb.compare(home, DROP_TRIGGER_VALUE=0.996)
    >>> len(found.found.ours.triggers) <= len(found.found.theirs.triggers)
    True
    >>> found == tb.compare(home, DROP_TRIGGER_VALUE=0.996), tb.compare(home, DROP_TRIGGER_VALUE=0.997).is_equal
    (True, True)
    """
    from tradingbot.ops.record import compare as ops

    if not settings and not against:
        raise UsageError("nothing to compare: name a setting, as in tb.compare(home, DROP_TRIGGER_VALUE=0.98)")
    folder = state_at(home, state, config)
    return Compared(str(folder), ops.compare(folder, settings, against or {}, last_minutes))


@dataclass(frozen=True, slots=True, repr=False)
class Explained(Shown):
    """Hold a trigger with all that explains it, as a JSON object, and the recorded ticks around it."""

    state_dir: str
    record: dict[str, Any]
    ticks: tuple[dict[str, Any], ...]

    def __getitem__(self, name: str) -> Any:
        return self.record[name]

    @property
    def decision(self) -> dict[str, Any]:
        """Return the decision as it was recorded."""
        found: dict[str, Any] = self.record["decision"]
        return found

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object, without the ticks around it."""
        return self.record

    def text(self) -> str:
        """Return it in words."""
        from tradingbot.ui.explanation import explanation_text

        return explanation_text(self.record)

    def html(self) -> str:
        """Return it as HTML."""
        from tradingbot.ui.html_tables import Html, headline, preformatted

        first, _, rest = self.text().partition("\n")
        return Html(headline(str(self.decision["outcome"]), first) + preformatted(rest))

    def frame(self) -> pd.DataFrame:
        """Return the symbol's ticks from 15 minutes before to 30 after, as a DataFrame indexed by time (UTC)."""
        return frame_of(self.ticks, time="ts_ms")

    def checks_frame(self) -> pd.DataFrame:
        """Return the entry checks as a DataFrame, one a row: value, limit, and whether it blocks."""
        return frame_of(self.decision["checks"], "name")

    def figure(self) -> Figure:
        """Return the price around the trigger with its reference, threshold and window peak, and its fills."""
        from tradingbot.api.pictures import price_story

        prices = [(tick["ts_ms"], tick["last"]) for tick in self.ticks]
        words = {"buy": "bought", "sell": "sold"}
        fills = [
            (record["ts_ms"], record["price"], words.get(record["side"], record["side"]))
            for record in self.record["afterwards"]
            if record["type"] == "fill" and record["ts_ms"] <= self.decision["ts_ms"] + AFTER_MS
        ]
        return price_story(prices, self.decision, fills)


def explain(
    decision_id: str | None = None, home: Place = None, *, symbol: str | None = None, state: Place = None,
    config: Place = None,
) -> Explained:  # fmt: skip
    """Return why a trigger came and what became of it: the one of an id, else the newest (of `symbol`).

    Raises UsageError where none is recorded, or none has that id.

    >>> import tradingbot as tb
    >>> home = tb.trial(duration_s=600, EMBEDDED_SYMBOLS=2, DROP_TRIGGER_VALUE=0.997)
    >>> why = tb.explain(home=home)
    >>> why.decision["last"] <= why.decision["threshold"] < why.decision["reference"]
    True
    >>> why == tb.explain(why.decision["decision_id"], home)
    True
    """
    from tradingbot.ops.record import explain as ops
    from tradingbot.ops.record.history import History

    history = History(state_at(home, state, config))
    wanted = decision_id or ops.latest_trigger(history, symbol)
    record = ops.explain(history, wanted).to_record()
    decision = record["decision"]
    span = (min(decision["ts_ms"] - BEFORE_MS, decision["window_peak_ms"]), decision["ts_ms"] + AFTER_MS)
    ticks = tuple(found.record for found in history.ticks(decision["symbol"], *span))
    return Explained(str(history.state_dir), record, ticks)


def _amount(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
