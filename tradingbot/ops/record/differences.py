"""Two engines over the same inputs: which triggers and trades one of them alone has, which moved, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, TypeVar

from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Trade
from tradingbot.market.drop_triggers import threshold

__all__ = [
    "MOVED_MS", "Cause", "Kind", "Sight", "TradeDifference", "Trigger", "TriggerDifference", "compare_trades",
    "compare_triggers", "references", "sight_of_decision", "sight_of_engine", "tally",
]  # fmt: skip

MOVED_MS = 60_000  # a trigger that both sides have at times this far apart, or less, has moved
TRADE_FACTS = ("entry_ms", "entry", "exit_ms", "exit", "qty", "pnl", "reason", "fees")

Item = TypeVar("Item")


class Kind(StrEnum):
    """Name what became of a trigger or a trade from theirs to ours."""

    GAINED = "gained"
    LOST = "lost"
    MOVED = "moved"
    CHANGED = "changed"
    SAME = "same"


class Cause(StrEnum):
    """Name why one side triggered where the other did not, or what they decided otherwise."""

    GUARDS = "guards"  # the other side rejected that ticker
    SOURCE = "reference_source"  # its threshold was another, for it measures from another price,
    REFERENCE = "reference"  # or that price was another,
    THRESHOLD = "threshold"  # or the share of it
    ARMING = "arming"  # under the same threshold it had triggered before, and not armed again,
    TIMING = "timing"  # or confirmation, debounce or warm-up held it back
    OUTCOME = "outcome"
    REASONS = "reasons"


@dataclass(frozen=True, slots=True)
class Sight:
    """Hold what one side saw at a trigger, prices in quote; `anchor` is None where it measures from none."""

    reference_source: str
    reference: float
    threshold: float
    anchor: float | None
    session_peak: float
    window_peak: float
    armed: bool

    def measures_otherwise(self, other: Sight) -> bool:
        """Say whether the reference in force, a peak, or an anchor that both have is another one."""
        if self.anchor is not None and other.anchor is not None and self.anchor != other.anchor:
            return True
        own = (self.reference, self.session_peak, self.window_peak)
        return own != (other.reference, other.session_peak, other.window_peak)


@dataclass(frozen=True, slots=True)
class Trigger:
    """Hold a decision of one side and what the other one saw at that tick, None where it rejected it."""

    decision: Decision
    other: Sight | None

    @property
    def cause(self) -> Cause:
        """Say why the other side did not trigger at that tick."""
        decision, other = self.decision, self.other
        if other is None:
            return Cause.GUARDS
        if other.threshold == decision.threshold:
            return Cause.TIMING if other.armed else Cause.ARMING
        if other.reference_source != decision.reference_source:
            return Cause.SOURCE
        return Cause.REFERENCE if other.reference != decision.reference else Cause.THRESHOLD


@dataclass(frozen=True, slots=True)
class TriggerDifference:
    """Hold one difference of triggers; of what one side alone has, the other is None."""

    kind: Kind
    symbol: str
    cause: Cause
    ours: Decision | None
    theirs: Decision | None

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        sides = {"ours": _brief(self.ours), "theirs": _brief(self.theirs)}
        return {"kind": self.kind.value, "symbol": self.symbol, "cause": self.cause.value, **sides}


@dataclass(frozen=True, slots=True)
class TradeDifference:
    """Hold one difference of closed trades; of what one side alone has, the other is None."""

    kind: Kind
    symbol: str
    ours: Trade | None
    theirs: Trade | None

    @property
    def pnl_quote(self) -> float:
        """Return how much more ours earned than theirs (quote)."""
        return (0.0 if self.ours is None else self.ours.pnl) - (0.0 if self.theirs is None else self.theirs.pnl)

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        sides = {name: _facts(trade) for name, trade in (("ours", self.ours), ("theirs", self.theirs))}
        return {"kind": self.kind.value, "symbol": self.symbol, "pnl_quote": self.pnl_quote, **sides}


def sight_of_decision(decision: Decision) -> Sight:
    """Return what a decision says that its engine saw."""
    anchor = None if decision.anchor is None else decision.anchor.price
    return Sight(
        decision.reference_source, decision.reference, decision.threshold, anchor, decision.session_peak,
        decision.window_peak, armed=False,
    )  # fmt: skip


def sight_of_engine(engine: Engine, symbol: str, ts_ms: int) -> Sight | None:
    """Return what an engine saw of a symbol at the tick just taken in, None if it rejected it."""
    state = engine.states.get(symbol)
    if state is None or state.fresh or state.ts_ms != ts_ms:
        return None
    rules = engine.rules
    reference = rules.reference(state)
    anchor = state.anchor.price if rules.uses_anchor and state.anchor is not None else None
    return Sight(
        rules.source.value, reference, threshold(reference, rules.value, rules.zone), anchor, state.session_peak,
        state.highs[0][1], state.armed,
    )  # fmt: skip


def compare_triggers(
    ours: Iterable[Trigger], theirs: Iterable[Trigger]
) -> tuple[list[TriggerDifference], Counter[Kind]]:
    """Return the differences in order of time, and how many triggers are of each kind; each is given in order of time.

    Two triggers of a symbol are one if they came with the same tick: changed where outcome or reasons are others, else
    the same. Of the rest those no more than MOVED_MS apart, paired in order of time, have moved; the cause is why the
    later one did not come with the earlier one's tick.
    """
    differences, kinds = [], Counter[Kind]()
    for symbol, one, other in _by_symbol(ours, theirs, lambda trigger: trigger.decision):
        for mine, its in _paired(one, other, lambda trigger: trigger.decision.ts_ms):
            kind, cause = _judge(mine, its)
            kinds[kind] += 1
            if cause is not None:
                decisions = (None if side is None else side.decision for side in (mine, its))
                differences.append(TriggerDifference(kind, symbol, cause, *decisions))
    return sorted(differences, key=_when), kinds


def compare_trades(ours: Iterable[Trade], theirs: Iterable[Trade]) -> tuple[list[TradeDifference], Counter[Kind]]:
    """Return the differences in order of time, and how many closed trades are of each kind.

    Trades of a symbol are paired by their entries as triggers are by their ticks; a pair of which any price, time,
    quantity or reason is another has moved.
    """
    differences, kinds = [], Counter[Kind]()
    for symbol, one, other in _by_symbol(ours, theirs, lambda trade: trade):
        for mine, its in _paired(one, other, lambda trade: trade.entry_ms):
            if mine is None or its is None:
                kind = Kind.LOST if mine is None else Kind.GAINED
            else:
                kind = Kind.SAME if _facts(mine) == _facts(its) else Kind.MOVED
            kinds[kind] += 1
            if kind is not Kind.SAME:
                differences.append(TradeDifference(kind, symbol, mine, its))
    return sorted(differences, key=_when), kinds


def references(ours: Iterable[Trigger], theirs: Iterable[Trigger]) -> list[dict[str, Any]]:
    """Return both sides' references at each trigger where they differ, as JSON objects in order of time."""
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for side, other, triggers in (("ours", "theirs", ours), ("theirs", "ours", theirs)):
        for trigger in triggers:
            decision, seen = trigger.decision, trigger.other
            own = sight_of_decision(decision)
            if seen is None or own.measures_otherwise(seen):
                facts = {"ts_ms": decision.ts_ms, "symbol": decision.symbol, "last": decision.last, "triggered": side}
                row = rows.setdefault((decision.ts_ms, decision.symbol), facts)
                if row["triggered"] != side:
                    row["triggered"] = "both"
                row.update({side: _shown(own), other: _shown(seen)})
    return [rows[key] for key in sorted(rows)]


def tally(
    differences: Iterable[TriggerDifference], key: Callable[[TriggerDifference], str]
) -> dict[str, dict[str, int]]:
    """Return how many differences of each kind there are under each key, keys in order."""
    counts: dict[str, Counter[Kind]] = {}
    for difference in differences:
        counts.setdefault(key(difference), Counter())[difference.kind] += 1
    return {name: {kind.value: counts[name][kind] for kind in Kind if counts[name][kind]} for name in sorted(counts)}


def _judge(mine: Trigger | None, its: Trigger | None) -> tuple[Kind, Cause | None]:
    if its is None:
        assert mine is not None
        return Kind.GAINED, mine.cause
    if mine is None:
        return Kind.LOST, its.cause
    one, other = mine.decision, its.decision
    if one.ts_ms != other.ts_ms:
        return Kind.MOVED, (mine if one.ts_ms < other.ts_ms else its).cause
    if one.outcome != other.outcome:
        return Kind.CHANGED, Cause.OUTCOME
    return (Kind.CHANGED, Cause.REASONS) if one.reasons != other.reasons else (Kind.SAME, None)


def _paired(
    ours: Sequence[Item], theirs: Sequence[Item], time: Callable[[Item], int]
) -> Iterable[tuple[Item | None, Item | None]]:
    """Pair what has the same time, then what is close, in order of time; nothing is paired across a pair."""
    common = {time(item) for item in ours} & {time(item) for item in theirs}
    i = j = 0
    while i < len(ours) and j < len(theirs):
        one, other = time(ours[i]), time(theirs[j])
        is_close = abs(one - other) <= MOVED_MS and one not in common and other not in common
        if one == other or is_close:
            yield ours[i], theirs[j]
            i, j = i + 1, j + 1
        elif one < other:
            yield ours[i], None
            i += 1
        else:
            yield None, theirs[j]
            j += 1
    yield from ((item, None) for item in ours[i:])
    yield from ((None, item) for item in theirs[j:])


def _by_symbol(
    ours: Iterable[Item], theirs: Iterable[Item], facts: Callable[[Item], Any]
) -> Iterable[tuple[str, list[Item], list[Item]]]:
    found: dict[str, tuple[list[Item], list[Item]]] = {}
    for place, items in enumerate((ours, theirs)):
        for item in items:
            found.setdefault(facts(item).symbol, ([], []))[place].append(item)
    return ((symbol, *found[symbol]) for symbol in sorted(found))


def _when(difference: TriggerDifference | TradeDifference) -> tuple[int, str]:
    sides = (side for side in (difference.ours, difference.theirs) if side is not None)
    return min(side.entry_ms if isinstance(side, Trade) else side.ts_ms for side in sides), difference.symbol


def _brief(decision: Decision | None) -> dict[str, Any] | None:
    if decision is None:
        return None
    return {
        "decision_id": decision.decision_id, "ts_ms": decision.ts_ms, "last": decision.last,
        "reference_source": decision.reference_source, "reference": decision.reference,
        "threshold": decision.threshold, "outcome": decision.outcome.value, "reasons": list(decision.reasons),
    }  # fmt: skip


def _facts(trade: Trade | None) -> dict[str, Any] | None:
    return None if trade is None else {name: getattr(trade, name) for name in TRADE_FACTS}


def _shown(sight: Sight | None) -> dict[str, Any] | None:
    if sight is None:
        return None
    return {name: value for name, value in asdict(sight).items() if name not in ("armed", "threshold")}
