"""What a study of drop triggers rests on, each read and computed once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tradingbot.api.drop_tables import instalments
from tradingbot.config import Settings, make_settings
from tradingbot.errors import TradingBotError, UsageError
from tradingbot.ops.record.variants import Variants, run_variants
from tradingbot.research.frames import in_ms
from tradingbot.research.journal import STOPPED
from tradingbot.research.load import Recorded
from tradingbot.research.outcomes import HORIZONS_MIN, Luck, luck
from tradingbot.research.survey import Coverage, Near, TickSurvey, look_at_snapshots, look_at_ticks

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["APART_MS", "HOUR_MS", "MAIN", "StudyFacts"]

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SHOWN = 6  # triggers whose anatomy is drawn
APART_MS = 10 * MINUTE_MS  # of two of one symbol
MAIN = 2  # of HORIZONS_MIN: what a sentence speaks of
WINDOWS_S = (60, 900)
MODES = {1: "session peak", 2: "window peak", 3: "higher of session and window peak", 4: "anchor"}


class StudyFacts:
    """Hold what is recorded, and what one pass over the ticks and one over the snapshots found in it."""

    def __init__(self, recorded: Recorded, thresholds: Sequence[float], limit_s: float) -> None:
        self.recorded, self.thresholds, self.limit_s = recorded, list(dict.fromkeys(thresholds)), limit_s

    @property
    def triggers(self) -> int:
        """Return how many triggers there were."""
        return len(self.recorded.decisions)

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Return the triggers with `return_1` to `return_60` and `worst_1` to `worst_60`, in %, beside all else."""
        survey, table = self.survey, self.recorded.decisions.copy()
        for column, ahead in enumerate(HORIZONS_MIN):
            table[f"return_{ahead}"], table[f"worst_{ahead}"] = survey.returns[:, column], survey.worst[:, column]
        return table

    @cached_property
    def shown_rows(self) -> list[int]:
        """Name the rows of the deepest triggers, of one symbol some time apart."""
        decisions = self.recorded.decisions
        at_ms, symbols = in_ms(decisions), decisions["symbol"].to_numpy()
        chosen: list[int] = []
        for row in np.argsort(decisions["drop_pct"].to_numpy(), kind="stable"):
            if all(symbols[one] != symbols[row] or abs(at_ms[one] - at_ms[row]) > APART_MS for one in chosen):
                chosen.append(int(row))
            if len(chosen) == SHOWN:
                break
        return chosen

    @cached_property
    def survey(self) -> TickSurvey:
        """Return what one pass over the ticks found."""
        return look_at_ticks(self.recorded, self.shown_rows)

    @cached_property
    def near(self) -> Near:
        """Return what one pass over the snapshots found."""
        return look_at_snapshots(self.recorded, self.shown_rows)

    @cached_property
    def settings(self) -> Settings:
        """Return the settings of the last stretch, the defaults where none is recorded."""
        stretches = self.recorded.journal.stretches
        try:
            return make_settings(stretches[-1].settings if stretches else {})
        except TradingBotError:  # of another version
            return make_settings({})

    @property
    def is_empty(self) -> bool:
        """Say whether nothing at all is recorded there."""
        return not self.recorded.symbols and not self.recorded.journal.sessions

    @cached_property
    def span_ms(self) -> tuple[int, int]:
        """Return first and last time of what is looked at, in ms."""
        journal, chosen, seen = self.recorded.journal, self.recorded.selection, self.survey.coverage.values()
        firsts = [one.first_ms for one in seen] or [journal.first_ms or 0]
        lasts = [one.last_ms for one in seen] or [journal.last_ms or 0]
        first = min(firsts) if chosen.since_ms is None else chosen.since_ms
        return first, max(lasts) if chosen.until_ms is None else max(min(chosen.until_ms, max(lasts)), first)

    @cached_property
    def changes_ms(self) -> list[int]:
        """Return when the settings became others, within what is looked at."""
        first, last = self.span_ms
        return [one.since_ms for one in self.recorded.journal.stretches[1:] if first < one.since_ms <= last]

    def luck(self, column: int, rows: Any = None) -> Luck:
        """Hold the returns of triggers, or of chosen rows, over HORIZONS_MIN[column] against luck."""
        decisions, survey = self.recorded.decisions, self.survey
        chosen = np.arange(len(decisions)) if rows is None else np.flatnonzero(rows)
        names = [str(name) for name in decisions["symbol"].to_numpy()[chosen]]
        pools = {symbol: values[:, column] for symbol, values in survey.any_return.items()}
        ahead_ms = HORIZONS_MIN[column] * MINUTE_MS
        return luck(names, in_ms(decisions)[chosen], survey.returns[chosen, column], pools, ahead_ms)

    @property
    def coverage_by_symbol(self) -> dict[str, Coverage]:
        """Return which ticks there are of each symbol."""
        return self.survey.coverage

    def is_told(self, decision_id: str) -> bool:
        """Say whether a trigger, by its name, is of the symbols and the time that are looked at.

        Of a bot that may be running the last minute is not: it wrote on while this was read.
        """
        symbol, ts_ms, _ = decision_id.rsplit(":", 2)
        journal = self.recorded.journal
        is_running = bool(journal.sessions) and journal.sessions[-1].ended != STOPPED
        if is_running and journal.last_ms is not None and int(ts_ms) > journal.last_ms - MINUTE_MS:
            return False
        return self.recorded.selection.holds({"symbol": symbol, "ts_ms": int(ts_ms)})

    @property
    def split(self) -> dict[str, Any]:
        """Return rows by stretch: all in one where the settings did not change."""
        stretch = self.recorded.decisions["stretch"].to_numpy()
        numbers = sorted(set(stretch.tolist()))
        if len(numbers) < 2:
            return {"": np.ones(len(stretch), dtype=bool)}
        return {str(number): stretch == number for number in numbers}

    @cached_property
    def variants(self) -> Variants | None:
        """Return what other settings decide over the same inputs, with paper orders; None where nothing can be run."""
        now, tried = self.settings, {}
        for value in self.thresholds:
            if value != now.DROP_TRIGGER_VALUE:
                tried[f"threshold {value:g} (a drop of {(1 - value) * 100:.3g} %)"] = {"DROP_TRIGGER_VALUE": value}
        for mode, words in MODES.items():
            if mode != now.DROP_TRIGGER_MODE or not now.FEATURE_ANCHOR_ENABLED:
                tried[f"mode {mode}: {words}"] = {"DROP_TRIGGER_MODE": mode, "FEATURE_ANCHOR_ENABLED": True}
        for seconds in WINDOWS_S:
            tried[f"mode 2, window of {seconds} s"] = {
                "DROP_TRIGGER_MODE": 2, "WINDOW_LOOKBACK_S": seconds, "FEATURE_ANCHOR_ENABLED": True,
            }  # fmt: skip
        paper = {name: {**changes, "GLOBAL_TRADING": True} for name, changes in tried.items()}
        if not all(one.settings.get("GLOBAL_TRADING") for one in self.recorded.journal.stretches):
            paper = {f"{self.as_recorded}, paper orders": {"GLOBAL_TRADING": True}, **paper}
        since, until = self.recorded.selection.since_ms, self.recorded.selection.until_ms
        try:
            return run_variants(self.recorded.state_dir, {self.as_recorded: {}, **paper}, since, until, self.limit_s)
        except UsageError as error:
            self.no_variants = str(error)
            return None

    no_variants = ""

    @property
    def as_recorded(self) -> str:
        """Name the settings in force at the end."""
        now = self.settings
        mode = str(now.DROP_TRIGGER_MODE) if now.FEATURE_ANCHOR_ENABLED else "legacy"
        return f"as recorded ({now.DROP_TRIGGER_VALUE:g}, mode {mode})"

    def yardsticks(self) -> dict[str, float]:
        """Return what holding and averaging in returned over the same time, in %."""
        found = self.variants
        if found is None or found.first_ms is None or found.last_ms is None:
            return {}
        return instalments(self.survey.prices, found.first_ms, found.last_ms, self.settings)

    def why_none(self) -> str:
        """Say why there is nothing to show of what came after triggers."""
        if self.triggers:
            return "No ticks are recorded behind the triggers."
        deepest = min((one.deepest_pct for one in self.near.hours.values()), default=None)
        if deepest is None:
            return "Neither triggers nor snapshots are recorded."
        return f"The deepest price stood {deepest:+.2f} % from its reference; see the near misses."
