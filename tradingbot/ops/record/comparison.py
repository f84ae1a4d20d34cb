"""What a comparison found, as values: each side, what they decided otherwise, and how far it reached."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import orjson

from tradingbot.engine.events import Outcome, Trade, to_record
from tradingbot.errors import UsageError
from tradingbot.io.state_files import write_atomic
from tradingbot.ops.record.differences import (
    Kind,
    TradeDifference,
    Trigger,
    TriggerDifference,
    compare_trades,
    compare_triggers,
    references,
    tally,
)

__all__ = ["Comparison", "Side", "Stretch", "check_folder", "write_folder"]

MADE_BY = "tradingbot compare"
SUMMARY = "compare.json"
SIDES = ("ours", "theirs")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Say which inputs of a session could not be run, and why."""

    sid: str
    first: int
    last: int
    why: str


@dataclass(frozen=True, slots=True)
class Side:
    """Hold what one side decided; quote is the unit of money.

    `changes` are the settings laid over those recorded, each with the value recorded at the beginning and its own;
    `idle` those that change no decision here.
    """

    changes: Mapping[str, tuple[Any, Any]]
    idle: Mapping[str, Any]
    triggers: tuple[Trigger, ...]
    trades: tuple[Trade, ...]
    open_positions: int
    fees_quote: float
    final_equity_quote: float
    max_drawdown_quote: float
    max_drawdown_pct: float

    @property
    def outcomes(self) -> dict[str, int]:
        """Return how many triggers had each outcome."""
        return _counts(trigger.decision.outcome.value for trigger in self.triggers)

    @property
    def reasons(self) -> dict[str, int]:
        """Return how many triggers each reason blocked."""
        return _counts(reason for trigger in self.triggers for reason in trigger.decision.reasons)

    @property
    def pnl_quote(self) -> float:
        """Return the profit of all closed trades."""
        return sum(trade.pnl for trade in self.trades)

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object, without the decisions and trades themselves."""
        changes = {name: {"recorded": before, "value": value} for name, (before, value) in self.changes.items()}
        return {
            "changes": changes, "idle": dict(self.idle), "triggers": len(self.triggers), "outcomes": self.outcomes,
            "reasons": self.reasons, "entries": self.outcomes.get(Outcome.ENTERED.value, 0),
            "trades": len(self.trades), "open_positions": self.open_positions, "pnl_quote": self.pnl_quote,
            "fees_quote": self.fees_quote, "final_equity_quote": self.final_equity_quote,
            "max_drawdown_quote": self.max_drawdown_quote, "max_drawdown_pct": self.max_drawdown_pct,
        }  # fmt: skip


class _Facts(TypedDict):
    sessions: tuple[str, ...]
    inputs: int
    first_ms: int | None
    last_ms: int | None
    is_cut_off: bool
    unrecorded: tuple[Stretch, ...]
    only_counted: int
    damaged: tuple[str, ...]
    damaged_lines: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Hold two sides over the same recorded inputs, and what they decided otherwise.

    `first_ms` is the session's time at the beginning, `last_ms` that of the last input; with `is_cut_off` a time limit
    ended it there. `unrecorded` are stretches that neither side has seen; behind one both go on from the same
    checkpoint, its account included. `only_counted` rejected tickers are in no record, so that no other guard can
    accept them. `damaged` names what could not be read, as far as it is named.
    """

    ours: Side
    theirs: Side
    triggers: tuple[TriggerDifference, ...]
    trigger_kinds: Mapping[Kind, int]
    trades: tuple[TradeDifference, ...]
    trade_kinds: Mapping[Kind, int]
    references: tuple[dict[str, Any], ...]
    sessions: tuple[str, ...]
    inputs: int
    first_ms: int | None
    last_ms: int | None
    is_cut_off: bool
    unrecorded: tuple[Stretch, ...]
    only_counted: int
    damaged: tuple[str, ...]
    damaged_lines: int

    @classmethod
    def of(cls, ours: Side, theirs: Side, **facts: Unpack[_Facts]) -> Comparison:
        """Hold the two sides against each other."""
        triggers, trigger_kinds = compare_triggers(ours.triggers, theirs.triggers)
        trades, trade_kinds = compare_trades(ours.trades, theirs.trades)
        rows = references(ours.triggers, theirs.triggers)
        return cls(
            ours, theirs, tuple(triggers), trigger_kinds, tuple(trades), trade_kinds, tuple(rows), **facts
        )  # fmt: skip

    @property
    def is_equal(self) -> bool:
        """Say whether no trigger and no trade differs."""
        return not self.triggers and not self.trades

    def to_record(self) -> dict[str, Any]:
        """Return the comparison as a JSON object: all but the decisions and trades that both sides share."""
        return {
            "made_by": MADE_BY,
            "equal": self.is_equal,
            "sessions": list(self.sessions),
            "inputs": self.inputs,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "cut_off": self.is_cut_off,
            "unrecorded": [asdict(stretch) for stretch in self.unrecorded],
            "rejections_only_counted": self.only_counted,
            "damaged": self.damaged_lines,
            "ours": self.ours.to_record(),
            "theirs": self.theirs.to_record(),
            "triggers": {
                **{kind.value: self.trigger_kinds.get(kind, 0) for kind in Kind},
                "by_symbol": tally(self.triggers, lambda difference: difference.symbol),
                "by_cause": tally(self.triggers, lambda difference: difference.cause.value),
                "differences": [difference.to_record() for difference in self.triggers],
            },
            "trades": {
                **{kind.value: self.trade_kinds.get(kind, 0) for kind in Kind if kind is not Kind.CHANGED},
                "pnl_quote": {kind.value: self.trade_pnl(kind) for kind in (Kind.GAINED, Kind.LOST, Kind.MOVED)},
                "differences": [difference.to_record() for difference in self.trades],
            },
            "references": list(self.references),
        }

    def trade_pnl(self, kind: Kind) -> float:
        """Return how much more ours earned than theirs by the trades of one kind (quote)."""
        return sum(difference.pnl_quote for difference in self.trades if difference.kind is kind)

    def text(self) -> str:
        """Return the comparison in words."""
        from tradingbot.ops.record.compare_text import comparison_text

        return comparison_text(self)


def check_folder(folder: Path) -> None:
    """Raise UsageError where a comparison cannot write, or would overwrite what no earlier one has written."""
    there = [path for path in _paths(folder) if path.exists() or path.is_symlink()]
    if there and not _is_ours(folder / SUMMARY):
        raise UsageError(f"{there[0]} is of no earlier compare: name another --out, or move it away")
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {folder}: name another --out")


def write_folder(folder: Path, comparison: Comparison) -> list[Path]:
    """Write compare.json, and each side's decisions and trades below; return their paths, compare.json first.

    Each file is written whole or not at all, the summary first: a folder that holds any of them is known as a
    comparison's.
    """
    for name in SIDES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_atomic(folder / SUMMARY, orjson.dumps(comparison.to_record(), option=orjson.OPT_INDENT_2) + b"\n", False)
    for name, side in zip(SIDES, (comparison.ours, comparison.theirs), strict=True):
        decisions = (trigger.decision for trigger in side.triggers)
        for stem, outputs in (("decisions", decisions), ("trades", side.trades)):
            lines = b"".join(orjson.dumps(to_record(output)) + b"\n" for output in outputs)
            write_atomic(folder / name / f"{stem}.jsonl", lines, False)
    return _paths(folder)


def _paths(folder: Path) -> list[Path]:
    return [folder / SUMMARY, *(folder / side / name for side in SIDES for name in ("decisions.jsonl", "trades.jsonl"))]


def _is_ours(path: Path) -> bool:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("made_by") == MADE_BY


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
