"""The pictures of a study of drop triggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tradingbot.api.drop_facts import APART_MS, MAIN, StudyFacts
from tradingbot.api.drop_tables import any_moment, plural, variant_rows
from tradingbot.research.exhibits import Picture, harmless, label
from tradingbot.research.frames import in_ms, utc
from tradingbot.research.journal import CUT_OFF, Session
from tradingbot.research.outcomes import HORIZONS_MIN
from tradingbot.research.survey import AGE_EDGES, DROP_EDGES

__all__ = ["StudyPictures"]

QUANTILES = (5, 25, 50, 75, 95)


class StudyPictures(StudyFacts):
    """Draw what a study found."""

    def coverage(self) -> Picture:
        """Show which stretches are recorded, session by session and symbol by symbol."""
        from tradingbot.research.plots import coverage_figure

        if self.is_empty:
            return Picture("Nothing is recorded", None, str(self.recorded.state_dir))
        first, last = self.span_ms
        journal, seen = self.recorded.journal, self.survey.coverage
        spans = {name: one.spans_ms for name, one in seen.items()}
        sessions = _session_spans(journal.sessions, spans)
        off = [(row["time"], row["until"] or last, row["why"]) for row in journal.rows.get("gaps", ())]
        whole = np.median([one.covered_pct for one in seen.values()]) if seen else 0.0
        title = f"{plural(len(sessions), 'session')}; ticks cover {whole:.1f} % of the time of the median symbol"
        if not seen:
            title = (
                f"{plural(len(sessions), 'session')}, no ticks recorded: what prices did after triggers is not known"
            )
        figure = coverage_figure(first, last, sessions, off, spans, self.changes_ms)
        note = "Top row: sessions, blue and green in turn; red: a bot ran, and ticks were not recorded. "
        note += "Below, red: holes. "
        note += "Dashed: settings changed."
        return Picture(title, figure, note + _more(len(seen), 40))

    def over_time(self) -> Picture:
        """Show the triggers over time, and by symbol."""
        from tradingbot.research.plots import triggers_figure

        table = self.recorded.decisions
        if not len(table):
            return Picture("No triggers", None, self.why_none())
        counts = table["symbol"].value_counts()
        busiest = f"{harmless(counts.index[0])} had the most ({counts.iloc[0]})"
        title = f"{plural(len(table), 'trigger')} of {plural(len(counts), 'symbol')}; {busiest}"
        first, last = self.span_ms
        figure = triggers_figure(
            in_ms(table), list(table["symbol"]), list(table["outcome"]), table["drop_pct"].to_numpy(), self.changes_ms,
            first, last,
        )  # fmt: skip
        return Picture(title, figure, "Dashed: settings changed." if self.changes_ms else "")

    def anatomy(self) -> Picture:
        """Show the surroundings of the deepest triggers."""
        from tradingbot.research.plots import anatomy_figure

        if not self.shown_rows:
            return Picture("No triggers to look into", None)
        decisions, panels = self.recorded.decisions, []
        at_ms = in_ms(decisions)
        for row in self.shown_rows:
            one = decisions.iloc[row]
            near = (decisions["symbol"] == one["symbol"]).to_numpy() & (np.abs(at_ms - at_ms[row]) < APART_MS)
            near[row] = False
            others = list(zip(at_ms[near], decisions["last"].to_numpy()[near], strict=True))
            reasons = f" ({label(one['reasons'], 26)})" if one["reasons"] else ""
            title = (
                f"{label(one['symbol'])} {one['drop_pct']:+.2f} %, {utc(int(at_ms[row]))}\n{one['outcome']}{reasons}"
            )
            panels.append(
                {
                    "title": title, "ts_ms": int(at_ms[row]), "last": one["last"], "reference": one["reference"],
                    "threshold": one["threshold"], "peak": one["window_peak"], "others": others,
                    "quote": str(one["symbol"]).rpartition("/")[2], "ticks": self.survey.shown.get(row),
                    "seen": self.near.shown.get(row),
                }
            )  # fmt: skip
        deepest = decisions.iloc[self.shown_rows[0]]
        where = f"{harmless(deepest['symbol'])} {deepest['drop_pct']:+.2f} % from its reference"
        title = f"The deepest: {where}" if len(panels) == 1 else f"The {len(panels)} deepest, the first {where}"
        return Picture(
            title,
            anatomy_figure(panels),
            "Ten minutes before to fifteen after; of one symbol at least ten minutes apart.",
        )

    def after_picture(self) -> Picture:
        """Show the same as a picture."""
        from tradingbot.research.plots import outcome_figure

        survey = self.survey
        if not np.isfinite(survey.returns).any():
            return Picture("What happened after triggers is not known", None, self.why_none())
        names = self.recorded.decisions["symbol"].to_numpy()
        known = np.isfinite(survey.returns)  # the table weights by these too
        anywhere = [
            any_moment(survey.any_return, column, names[known[:, column]], QUANTILES)
            for column in range(len(HORIZONS_MIN))
        ]
        own = _quantiles(survey.returns)
        fee = 2 * self.settings.TAKER_FEE_RATE * 100
        middles = ["not known" if row is None else f"{row[2]:+.2f} %" for row in (own[MAIN], anywhere[MAIN])]
        title = (
            f"{HORIZONS_MIN[MAIN]} minutes after a trigger: {middles[0]} in the median; after any moment: {middles[1]}"
            if own[MAIN] is not None
            else "After a trigger, as far as it is recorded"
        )
        note = "Bars: quarters around the median (black line); lines: 5 to 95 %."
        return Picture(title, outcome_figure(HORIZONS_MIN, own, anywhere, _quantiles(survey.worst), fee), note)

    def drops(self) -> Picture:
        """Show how far prices stood below their references, beside the thresholds."""
        from tradingbot.research.plots import drops_figure

        if not self.near.rows:
            return Picture("No snapshots are recorded: how prices stood is not known", None)
        settings = self.settings
        zone = settings.PREDICTIVE_BUY_ZONE_PCT if settings.BUY_MODE == "PREDICTIVE" else 1.0
        chosen = (settings.DROP_TRIGGER_VALUE * zone - 1) * 100
        lines = {f"in force: {chosen:.2f} %": chosen}
        lines |= {
            f"tried: {(value * zone - 1) * 100:.2f} %": (value * zone - 1) * 100
            for value in self.thresholds
            if value != settings.DROP_TRIGGER_VALUE
        }
        deepest = np.array([one.deepest_pct for one in self.near.hours.values()])
        hit = int((deepest <= chosen).sum())
        title = f"{hit} of {len(deepest)} symbol hours fell {-chosen:.2f} % or more below the reference"
        return Picture(
            title, drops_figure(DROP_EDGES, self.near.drops, deepest, lines), f"Of {self.near.rows:,} snapshots."
        )

    def anchors(self) -> Picture:
        """Show how old anchors were, and what set them."""
        from tradingbot.research.plots import ages_figure

        ages = self.recorded.decisions["anchor_age_s"].to_numpy()
        causes = {
            str(word): int(count) for word, count in self.recorded.anchors["cause"].value_counts().items() if count
        }
        if not causes and not np.isfinite(ages).any():
            return Picture("No anchors are recorded", None, "Another DROP_TRIGGER_MODE, or the flag, has them rest.")
        known = ages[np.isfinite(ages)]
        age = (
            f"at triggers anchors were {np.median(known) / 60:.1f} minutes old in the median"
            if len(known)
            else "no trigger had one"
        )
        return Picture(age[0].upper() + age[1:], ages_figure(AGE_EDGES, self.near.ages, ages, causes))

    def what_if_picture(self) -> Picture:
        """Show the same as a picture."""
        from tradingbot.research.plots import variants_figure

        found = self.variants
        if found is None:
            return Picture("Nothing can be run again", None, self.no_variants)
        rows = variant_rows(found, self.recorded.selection.symbols)
        counts, returns = np.array([row["triggers"] for row in rows]), np.array([row["return %"] for row in rows])
        others = f"with others {counts.min():,} to {counts.max():,} and {returns.min():+.3f} to {returns.max():+.3f} %"
        title = f"As recorded {plural(int(counts[0]), 'trigger')} and {returns[0]:+.3f} %; {others}"
        return Picture(title, variants_figure([row["settings"] for row in rows], counts, returns, self.yardsticks()))


def _quantiles(values: Any) -> list[list[float] | None]:
    """Return QUANTILES of each column's known values, None where none is known."""
    known = [column[np.isfinite(column)] for column in values.T]
    return [np.percentile(column, QUANTILES).tolist() if len(column) else None for column in known]


def _session_spans(sessions: Sequence[Session], spans_ms: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    """Return when each session began and ended (ms): one whose end is not told, with the last tick that it recorded."""
    ends = np.sort(np.concatenate([spans[:, 1] for spans in spans_ms.values()])) if spans_ms else np.empty(0)
    found = []
    for number, one in enumerate(sessions):
        last_ms = one.last_ms
        if one.ended == CUT_OFF:
            until = sessions[number + 1].began_ms if number + 1 < len(sessions) else np.inf
            own = ends[(ends >= one.began_ms) & (ends < until)]
            last_ms = max([last_ms, *map(int, own[-1:])])
        found.append((one.began_ms, last_ms, one.sid))
    return found


def _more(count: int, shown: int) -> str:
    return f" The first {shown} of {count} symbols." if count > shown else ""
