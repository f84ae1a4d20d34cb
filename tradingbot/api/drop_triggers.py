"""A study of drop triggers: what set them off, what prices did after them, and what other settings would have done."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from tradingbot.api.drop_facts import HOUR_MS, MAIN
from tradingbot.api.drop_findings import study_findings
from tradingbot.api.drop_pictures import StudyPictures
from tradingbot.api.drop_tables import (
    after_table,
    blocked_table,
    coverage_rows,
    near_rows,
    plural,
    rejected_rows,
    stretch_text,
    symbol_rows,
    variant_rows,
)
from tradingbot.config import check_value
from tradingbot.errors import UsageError
from tradingbot.io.stream_tables import Selection
from tradingbot.ops.checkup import Finding
from tradingbot.research.exhibits import Table, harmless
from tradingbot.research.frames import utc
from tradingbot.research.load import Recorded, find_state, load
from tradingbot.research.outcomes import FEW, HORIZONS_MIN, LEVEL

__all__ = ["DropTriggerStudy", "drop_triggers"]

MOST_THRESHOLDS = 12
MOST_ROWS = 20
ENOUGH = 5  # triggers of a symbol that a sentence names


def drop_triggers(
    home: str | os.PathLike[str] | None = None,
    *,
    state: str | os.PathLike[str] | None = None,
    since: object = None,
    until: object = None,
    symbols: Sequence[str] | str | None = None,
    thresholds: Sequence[float] = (0.99, 0.98),
    limit_s: float = 12.0,
) -> DropTriggerStudy:
    """Return a study of the drop triggers that a bot has recorded; each of its methods shows one side of them.

    `home`, `state`, `since`, `until` and `symbols` are those of `tb.load`; `thresholds` are other values of
    DROP_TRIGGER_VALUE to try on the same ticks, for `limit_s` seconds at most. Without `home` and `state`, a place
    where no bot has run gives a study of nothing. Raises UsageError, SettingsError.

    >>> import tempfile, tradingbot as tb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tb.drop_triggers(state=folder).triggers
    0
    """
    given = [thresholds] if isinstance(thresholds, int | float) else _listed(thresholds, "thresholds")
    if len(given) > MOST_THRESHOLDS:
        raise UsageError(f"thresholds names {len(given)} values: at most {MOST_THRESHOLDS} are tried at a time")
    tried = [float(check_value("DROP_TRIGGER_VALUE", _number(value), "thresholds")) for value in given]
    for value in tried:
        if not 0 < value < 1:
            raise UsageError(f"thresholds: {value:g} is no share of the reference, as 0.985 is: a drop of 1.5 %")
    folder = find_state(home, state)
    if not home and not state and not folder.is_dir():
        return DropTriggerStudy(Recorded(folder, Selection()), tried, limit_s)
    names = None if symbols is None else _listed(symbols, "symbols")
    return DropTriggerStudy(load(state=folder, since=since, until=until, symbols=names), tried, limit_s)


def _listed(value: object, name: str) -> list[Any]:
    """Return a list, or the items of a text as papermill hands it on: JSON, or names with commas between."""
    if isinstance(value, str):
        text = value.strip()
        try:
            items = json.loads(text) if text.startswith("[") else [item.strip() for item in text.split(",")]
        except ValueError:
            items = None
        value = [item for item in items if item != ""] if isinstance(items, list) else None
    if not isinstance(value, Iterable):
        raise UsageError(f"{name} takes a list, or a text with commas between, as BTC/USDT,ETH/USDT or 0.99,0.98")
    return list(value)


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


class DropTriggerStudy(StudyPictures):
    """Hold a study of drop triggers; everything is read and computed once, when it is first asked for.

    Returns are those of a buyer at the ask who sells at the bid, in %, before fees; money is in quote; times are UTC.
    """

    @property
    def answer(self) -> str:
        """Return the shortest answer."""
        return harmless(self.headline()[0])

    def headline(self) -> list[str]:
        """Return the answer in a few sentences, the shortest first."""
        if self.is_empty:
            return [f"Nothing is recorded under {self.recorded.state_dir}: run a bot there, or name another home."]
        first, last = self.span_ms
        counts = Counter(self.recorded.decisions["outcome"])
        told = ", ".join(f"{counts[name]} {name}" for name in ("entered", "observed", "blocked") if counts[name])
        hours = (last - first) / HOUR_MS
        when = f"{f'{hours:,.1f} h' if hours < 72 else f'{hours / 24:,.1f} days'}, {utc(first)} to {utc(last)} UTC"
        seen = f"{self.survey.ticks:,} ticks of {plural(len(self.survey.coverage), 'symbol')}"
        says = [f"{plural(self.triggers, 'drop trigger')}{f' ({told})' if told else ''} in {when}, {seen}."]
        if not self.triggers:
            return ["No drop trigger came, so there is nothing to judge.", *says, self.why_none()]
        returns, ahead = self.survey.returns[:, MAIN], HORIZONS_MIN[MAIN]
        own = returns[np.isfinite(returns)]
        if len(own):
            middle = f"{np.median(own):+.2f} % from the ask paid, in the median of {len(own)}"
            above = f"{(own > 0).mean() * 100:.0f} % stood above it"
            says.append(f"{ahead} minutes later the bid stood {middle}; {above}. Against luck: {self.luck(MAIN).says}.")
            says += self._where()
        trades = self.recorded.trades
        if len(trades):
            won = (trades["pnl"] > 0).mean() * 100
            closed = f"{plural(len(trades), 'trade')} closed, {won:.0f} % won"
            says.append(f"{closed}: {trades['pnl'].sum():+,.2f} quote after fees.")
        if self.changes_ms:
            says.append(f"The settings changed {plural(len(self.changes_ms), 'time')}: tables are split there.")
        return [self._answer(len(own)), *says]

    def _answer(self, known: int) -> str:
        found, ahead = self.luck(MAIN), HORIZONS_MIN[MAIN]
        if not known:
            what = f"What prices did in the {ahead} minutes after triggers is not recorded"
            return f"{what}: let the bot run on, with its streams on, and look again."
        if found.p is None:
            return f"Too few triggers {ahead} minutes apart ({found.episodes}) to say whether the rule did any good."
        if found.p > LEVEL:
            return f"No effect is shown: {ahead} minutes after triggers prices did no better or worse than by luck."
        way = "better" if found.excess_pct > 0 else "worse"
        return f"{ahead} minutes after triggers prices did {way} than after any moment: {found.excess_pct:+.2f} % more."

    def _where(self) -> list[str]:
        """Name the best and the worst symbol, of those with a few triggers."""
        rows = symbol_rows(self.decisions, self.recorded.trades, False, HORIZONS_MIN[MAIN])
        enough = [row for row in rows if row["of"] >= ENOUGH]
        if len(enough) < 2:
            return []
        enough.sort(key=lambda row: -row["median after %"])
        told = [
            f"{harmless(row['symbol'])} {row['median after %']:+.2f} % ({row['of']})" for row in (enough[0], enough[-1])
        ]
        return [f"Best by symbol: {told[0]}; worst: {told[1]}; medians of {ENOUGH} triggers or more."]

    def recorded_stretches(self) -> Table:
        """Show what is recorded of each symbol, and the longest time without a tick."""
        import pandas as pd

        seen = self.survey.coverage
        gaps = self.recorded.journal.rows.get("gaps", ())
        told = [f"{utc(row['time'])} to {utc(row['until']) or 'the end'}: {row['why']}" for row in gaps]
        lost = sum(gap.missing for gap in self.recorded.missing)
        told += [f"{lost:,} records could not be written (gap records)"] if lost else []
        holes = sum(one.holes for one in seen.values())
        title = f"{self.survey.ticks:,} ticks, {plural(holes, 'hole')}" if seen else "No ticks are recorded"
        note = (
            f"Not recorded while a bot ran: {'; '.join(told[:10])}."
            if told
            else "Nothing was left out while a bot ran."
        )
        note += " A hole is a time without a tick of more than four times the median, and more than a minute."
        formats = {"ticks": ",", "every (s)": ".2f", "longest (s)": ",.1f", "covered %": ".2f"}
        rows = coverage_rows(seen)
        if len(rows) > 2 * MOST_ROWS:
            rows.sort(key=lambda row: row["covered %"])
            note += f" The {2 * MOST_ROWS} that are covered least, of {len(rows)}."
        return Table(title, pd.DataFrame(rows[: 2 * MOST_ROWS]), note, formats)

    def stretches(self) -> Table:
        """Show under which settings the triggers came."""
        import pandas as pd

        decisions = self.recorded.decisions
        rows = [
            {
                "stretch": one.number, "from (UTC)": utc(one.since_ms), "to (UTC)": utc(one.until_ms) or "the end",
                "fingerprint": one.fingerprint, "triggers": int((decisions["stretch"] == one.number).sum()),
                "what changed": stretch_text(one.changes),
            }
            for one in self.recorded.journal.stretches
        ]  # fmt: skip
        title = "One set of settings throughout" if len(rows) == 1 else f"{len(rows)} stretches of different settings"
        return Table(title if rows else "No settings are recorded", pd.DataFrame(rows))

    def by_symbol(self) -> Table:
        """Show triggers, what became of them, and what prices did after, by symbol."""
        import pandas as pd

        split = len(self.split) > 1
        rows = symbol_rows(self.decisions, self.recorded.trades, split, HORIZONS_MIN[MAIN]) if self.triggers else []
        formats = {"deepest %": "+.2f", "median after %": "+.2f", "above 0 %": ".0f", "profit (quote)": "+,.2f"}
        title = "By symbol: the most triggers first" if rows else "No symbol had a trigger"
        note = f'After: {HORIZONS_MIN[MAIN]} minutes, ask to bid, before fees; "of" counts those that are recorded.'
        return Table(title, pd.DataFrame(rows[:MOST_ROWS]), note + _left(rows), formats)

    def after(self) -> Table:
        """Show what prices did in the minutes after, beside any moment of the same symbols."""
        import pandas as pd

        rows = after_table(self.decisions, self.survey, self.split, self.luck)
        names = ("mean %", "median %", "lower quarter %", "upper quarter %", "any moment %", "worst %", "any worst %")
        title = "What happened in the minutes after a trigger" if rows else "No triggers: nothing to look at after them"
        note = (
            'Bought at the ask, sold at the bid, before fees. "of" counts triggers whose minutes ahead are recorded '
            'without a hole; "worst" is the median of the lowest bids on the way; "any moment" and "any worst" are the '
            "same medians of even moments of the same symbols, each symbol weighted by its triggers. Triggers that "
            "follow each other share their future: against luck only those count that are that long apart, of all "
            f"symbols together. It takes {FEW} of them, and a p below {LEVEL:.4f}, for four times are looked at, to be "
            "more than luck: p is how often coins thrown for the signs of the differences do as much."
        )
        return Table(title, pd.DataFrame(rows), note, {**dict.fromkeys(names, "+.2f"), "above 0 %": ".0f"})

    def blocked(self) -> Table:
        """Show why triggers did not become entries, and what each reason kept away."""
        import pandas as pd

        rows = blocked_table(self.decisions, HORIZONS_MIN[MAIN], self.split)
        formats = {"share %": ".1f", "median after %": "+.2f", "above 0 %": ".0f"}
        count = int((self.recorded.decisions["outcome"] == "blocked").sum())
        title = f"{count} of {plural(self.triggers, 'trigger')} blocked" if rows else "No triggers, so none was blocked"
        after = f"After: {HORIZONS_MIN[MAIN]} minutes, ask to bid, before fees"
        return Table(title, pd.DataFrame(rows), f"A trigger may be blocked for several reasons. {after}.", formats)

    def near_misses(self) -> Table:
        """Show how close prices came where no trigger followed."""
        import pandas as pd

        if not self.near.rows:
            note = "FEATURE_PERSIST_STREAMS was off, or nothing was seen."
            return Table("No snapshots are recorded: near misses are not known", pd.DataFrame(), note)
        rows = near_rows(self.near, self.recorded.decisions)
        title = "Every symbol had a trigger in every hour"
        if rows:
            title = f"The nearest miss: {harmless(rows[0]['symbol'])}, {rows[0]['missing %']:.3f} % from its threshold"
        note = (
            "The closest approach of each symbol's hour without a trigger, while it was armed, in snapshots "
            "SNAPSHOT_MIN_PERIOD_MS apart. 0 % or less: held back by confirmation, debounce or warm-up."
        )
        idle = sum(one.ts_ms == 0 for one in self.near.hours.values())
        note += f" In {plural(idle, 'hour')} the symbol was not armed again at all." if idle else ""
        formats = {"last": ".6g", "threshold": ".6g", "missing %": ".3f", "drop %": "+.3f"}
        return Table(title, pd.DataFrame(rows), note, formats)

    def rejected(self) -> Table:
        """Show rejected tickers by symbol and reason, with their first and last time."""
        import pandas as pd

        rows = rejected_rows(self.recorded.rejections)
        total = sum(row["tickers"] for row in rows)
        title = f"{plural(total, 'ticker')} rejected" if total else "No ticker was rejected"
        note = "duplicate and out_of_order are harmless." + _left(rows)
        return Table(title, pd.DataFrame(rows[:MOST_ROWS]), note, {"tickers": ",", "in it": ","})

    def what_if(self) -> Table:
        """Show what other thresholds, modes and windows would have done over the same ticks."""
        import pandas as pd

        found = self.variants
        if found is None:
            return Table("Nothing can be run again", pd.DataFrame(), self.no_variants)
        rows = variant_rows(found, self.recorded.selection.symbols)
        rows += [{"settings": name, "return %": value} for name, value in self.yardsticks().items()]
        best = max(rows, key=lambda row: row["return %"])
        cut = f", cut off there by the limit of {self.limit_s:g} s" if found.is_cut_off else ""
        note = (
            f"Paper orders, fees included, over {found.inputs:,} inputs, {utc(found.first_ms)} to {utc(found.last_ms)} "
            f"UTC{cut}. The best of several tries on the same ticks looks better than it is: try it on others. The "
            "return is on the cash at the beginning, of which positions take little; holding and averaging in spend it."
        )
        if found.unrecorded:
            note += f" {plural(len(found.unrecorded), 'stretch', 'es')} not recorded, and left out."
        if self.recorded.selection.symbols:
            note += " Triggers, trades and profit are of the chosen symbols; limits, return and drawdown are of all."
        formats = {"profit (quote)": "+,.2f", "won %": ".0f", "return %": "+.3f", "drawdown (quote)": ",.2f"}
        formats |= dict.fromkeys(("triggers", "entered", "trades"), ",.0f")
        return Table(
            f"Best over these ticks: {best['settings']}, {best['return %']:+.3f} %", pd.DataFrame(rows), note, formats
        )

    def findings(self) -> list[Finding]:
        """Return the checks that the study rests on; luck is no failure."""
        return study_findings(self)

    def __repr__(self) -> str:
        return "\n".join(map(harmless, self.headline()))

    def _repr_html_(self) -> str:
        first, *lines = (escape(harmless(line)) for line in self.headline())
        body = "".join(f"<p>{line}</p>" for line in lines)
        return f"<div style='font-size:110%;max-width:1240px'><p style='font-size:115%'><b>{first}</b></p>{body}</div>"


def _left(rows: Sequence[object]) -> str:
    return f" {len(rows) - MOST_ROWS} more rows." if len(rows) > MOST_ROWS else ""
