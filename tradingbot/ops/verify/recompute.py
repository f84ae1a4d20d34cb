"""Status made again: what a running bot says of each symbol, recomputed from that symbol's own recorded ticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tradingbot.config import Settings, make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import ConditionName, Input
from tradingbot.engine.state import NO_TICK_MS, SymbolState
from tradingbot.io.jsonl import ReadReport
from tradingbot.io.streams import input_of
from tradingbot.io.tick_files import TickRecord
from tradingbot.market.drop_triggers import drop_pct, reference_source, threshold
from tradingbot.market.ticker import spread_bps
from tradingbot.ops.record.inputs import (
    CAUGHT_UP,
    INPUTS,
    NEVER,
    IsOver,
    Numbered,
    RecordedInputs,
    SessionInputs,
    rare_collections,
)

__all__ = ["MEMBERS", "Recomputed", "arithmetic", "recompute"]

MEMBERS = (
    "last", "bid", "ask", "reference", "reference_source", "threshold", "drop_pct", "to_trigger_pct", "spread_pct",
    "armed", "anchor_age_s", "anchor_cause",
)  # fmt: skip
"""What is recomputed of a symbol, to the bit."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Hold what came of it: `seq` is the input behind which all that agree do so, None where the record reaches none.

    `wrong` names for each symbol that does not agree the members with what status says and what the ticks give.
    `is_whole` is false where time was over before all was read: nothing is known then.
    """

    symbols: int
    inputs: int
    seq: int | None
    wrong: Mapping[str, Mapping[str, tuple[Any, Any]]] = field(default_factory=dict)
    is_whole: bool = True

    @property
    def agrees(self) -> bool:
        """Return whether everything was recomputed and is equal."""
        return self.seq is not None and not self.wrong


def expected(engine: Engine, state: SymbolState, now_ms: int) -> dict[str, Any]:
    """Return what status is to say of a symbol at `now_ms` (the exchange's time)."""
    rules = engine.rules
    reference = rules.reference(state)
    limit = threshold(reference, rules.value, rules.zone)
    anchor = state.anchor if rules.uses_anchor else None
    has_book = state.bid is not None and state.ask is not None
    return {
        "last": state.last, "bid": state.bid, "ask": state.ask, "reference": reference,
        "reference_source": rules.source.value, "threshold": limit, "drop_pct": drop_pct(state.last, reference),
        "to_trigger_pct": drop_pct(limit, state.last),
        "spread_pct": spread_bps(state.bid, state.ask) / 100 if has_book else None,  # type: ignore[arg-type]
        "armed": state.armed,
        "anchor_age_s": None if anchor is None else round((now_ms - anchor.set_ms) / 1000, 1),
        "anchor_cause": None if anchor is None else str(anchor.cause),
    }  # fmt: skip


def recompute(
    state_dir: Path, status: Mapping[str, Any], last_min: float, is_over: IsOver = lambda: False
) -> Recomputed:
    """Recompute the symbols of a status from the record of its session; raise UsageError where nothing is recorded.

    All symbols must agree behind one and the same input, for status.json is written between two. `last_min` (minutes of
    the exchange's time) is how far back the checkpoint lies, at least, from which the engine goes on. Once `is_over`
    says so it is given up.
    """
    rows = {str(row["symbol"]): row for row in status.get("symbols", ()) if row.get("last") is not None}
    sid, now_ms = str(status["bot"]["sid"]), int(status["time_ms"])
    spans = _Spans(rows, now_ms)
    with rare_collections():
        inputs, is_whole = _walk(state_dir, sid, last_min, spans.look, is_over)
        stretches = spans.best() if is_whole else []
        if not stretches:
            return Recomputed(len(rows), inputs, None, is_whole=is_whole)
        if len(stretches[0].inside) == len(rows):
            return Recomputed(len(rows), inputs, stretches[-1].first)
        nearest = _Nearest(rows, now_ms, stretches)
        _, is_whole = _walk(state_dir, sid, last_min, nearest.look, is_over)
        if not is_whole:
            return Recomputed(len(rows), inputs, None, is_whole=False)
    return Recomputed(len(rows), inputs, nearest.seq, nearest.wrong)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Hold between which inputs (the last one exclusive) most symbols were as status says, and which ones."""

    first: int
    end: int
    inside: frozenset[str]


class _Spans:
    """Hold between which inputs each symbol was as status says."""

    def __init__(self, rows: Mapping[str, Row], now_ms: int) -> None:
        self._rows, self._now_ms = rows, now_ms
        self._since: dict[str, int] = {}
        self._spans: list[tuple[int, int, str]] = []

    def look(self, engine: Engine | None, seq: int, symbol: str | None) -> None:
        """Compare a symbol, all of them where `symbol` is None, as it is behind an input."""
        for name in self._rows if symbol is None else (symbol,):
            row = self._rows.get(name)
            if row is None:
                continue
            state = None if engine is None else engine.states.get(name)
            agrees = (
                engine is not None
                and state is not None
                and state.ts_ms != NO_TICK_MS
                and state.last == row["last"]
                and _is_equal(row, expected(engine, state, self._now_ms))
            )
            if agrees:
                self._since.setdefault(name, seq)
            elif name in self._since:
                self._spans.append((self._since.pop(name), seq, name))

    def best(self) -> list[_Stretch]:
        """Return the stretches in which most symbols agree, in order."""
        spans = sorted(self._spans + [(since, NEVER, name) for name, since in self._since.items()])
        best: list[_Stretch] = []
        active: dict[str, int] = {}
        for place, (edge, end, name) in enumerate(spans):
            active[name] = end
            if place + 1 < len(spans) and spans[place + 1][0] == edge:
                continue
            active = {name: end for name, end in active.items() if end > edge}
            most = len(best[0].inside) if best else 1
            if len(active) >= most:
                best = [*(best if len(active) == most else ()), _Stretch(edge, min(active.values()), frozenset(active))]
        return best


class _Nearest:
    """Find, within stretches, the input behind which the symbols that do not agree come nearest to what status says."""

    def __init__(self, rows: Mapping[str, Row], now_ms: int, stretches: list[_Stretch]) -> None:
        self._rows, self._now_ms, self._stretches = rows, now_ms, stretches
        self._least = NEVER
        self.seq = stretches[-1].first
        self.wrong: dict[str, dict[str, tuple[Any, Any]]] = {}

    def look(self, engine: Engine | None, seq: int, _: str | None) -> None:
        """Compare what does not agree behind an input."""
        while self._stretches and self._stretches[0].end <= seq:
            self._stretches.pop(0)
        if engine is None or not self._stretches or seq < self._stretches[0].first:
            return
        wrong: dict[str, dict[str, tuple[Any, Any]]] = {}
        for symbol in sorted(self._rows.keys() - self._stretches[0].inside):
            row, state = self._rows[symbol], engine.states.get(symbol)
            again = expected(engine, state, self._now_ms) if state is not None and state.ts_ms != NO_TICK_MS else {}
            wrong[symbol] = {n: (row.get(n), again.get(n)) for n in MEMBERS if row.get(n) != again.get(n)}
        count = sum(map(len, wrong.values()))
        if count <= self._least:
            self._least, self.seq, self.wrong = count, seq, wrong


def _is_equal(row: Row, again: Row) -> bool:
    return all(row.get(name) == again[name] for name in MEMBERS)


Seen = Callable[[Engine | None, int, "str | None"], None]


def _walk(state_dir: Path, sid: str, last_min: float, seen: Seen, is_over: IsOver) -> tuple[int, bool]:
    """Run the recorded inputs of a session through an engine of ours, `seen` is told of it behind each.

    Return how many there were, and whether these were all.
    """
    recorded = RecordedInputs(state_dir, ReadReport(), last_min)
    count = 0
    for session in recorded.sessions():
        again = _Again(session, seen) if session.sid == sid else None
        for batch in session.ticks:
            if again is not None:
                again.ticks(batch)
            if is_over():
                return count + (again.count if again is not None else 0), False
        if again is not None:
            again.end()
            count += again.count
    return count, True


class _Again:
    """Take one session's inputs in order; where one is absent nothing is known before the next checkpoint."""

    def __init__(self, session: SessionInputs, seen: Seen) -> None:
        self._journal, self._seen = Numbered(session.journal), seen
        self._engine: Engine | None = None
        self.count = 0

    def ticks(self, batch: list[TickRecord]) -> None:
        """Run the next ticks, and what the journal holds before and with them."""
        for tick in batch:
            self._until(tick.seq)
            answers, marks = self._journal.of(tick.seq)
            self._input(tick.seq, tick.symbol, tick, answers)
            for mark in marks:
                self._mark(tick.seq, mark)

    def end(self) -> None:
        """Run what the journal holds behind the last tick."""
        self._until(NEVER)

    def _until(self, limit: int) -> None:
        pending = self._journal
        while pending.at < limit:
            seq = pending.at
            answers, others = pending.of(seq)
            for record in others:
                if record.get("type") in INPUTS:
                    symbol = record.get("symbol") if record.get("type") == "rejected" else None
                    self._input(seq, symbol, input_of(record), answers)
                else:
                    self._mark(seq, record)

    def _input(self, seq: int, symbol: str | None, event: Input, answers: list[dict[str, Any]]) -> None:
        engine = self._engine
        self.count += 1
        if engine is None or seq <= engine.seq:
            return
        if seq > engine.seq + 1:
            self._engine = None
            self._seen(None, seq, None)
            return
        name = ConditionName.RESTART.value
        made_up_for = name not in engine.conditions and any(name in found.get("reasons", ()) for found in answers)
        if made_up_for:
            engine.conditions[name] = CAUGHT_UP
        if isinstance(event, TickRecord):
            engine.tick(event)
        else:
            engine.process(event)
        if made_up_for:
            del engine.conditions[name]
        self._seen(engine, seq, symbol)

    def _mark(self, seq: int, record: dict[str, Any]) -> None:
        checkpoint = None if record.get("type") == "session_end" else record.get("checkpoint")  # of which no tick tells
        if checkpoint is None or (self._engine is not None and self._engine.seq == seq):
            return
        engine = self._engine = Engine(make_settings({}))
        engine.restore(checkpoint)
        self._seen(engine, engine.seq, None)


def arithmetic(status: Mapping[str, Any], settings: Settings) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return what does not follow from a status's own references and prices, by symbol: what it says, what follows."""
    source = reference_source(settings.FEATURE_ANCHOR_ENABLED, settings.DROP_TRIGGER_MODE).value
    zone = settings.PREDICTIVE_BUY_ZONE_PCT if settings.BUY_MODE == "PREDICTIVE" else 1.0
    wrong: dict[str, dict[str, tuple[Any, Any]]] = {}
    for row in status.get("symbols", ()):
        last, reference = row.get("last"), row.get("reference")
        if last is None or reference is None:
            continue
        limit = threshold(reference, settings.DROP_TRIGGER_VALUE, zone)
        follows: dict[str, Any] = {
            "reference_source": source, "threshold": limit, "drop_pct": drop_pct(last, reference),
            "to_trigger_pct": drop_pct(limit, last),
        }  # fmt: skip
        if last > limit * (1 + settings.HYSTERESIS_BPS / 10_000):
            follows["armed"] = True
        differs = {name: (row.get(name), value) for name, value in follows.items() if row.get(name) != value}
        if not reference >= last:  # every reference is at or above the last price: a peak, or an anchor that follows it
            differs["reference"] = (reference, f"at least {last}")
        if differs:
            wrong[str(row["symbol"])] = differs
    return wrong
