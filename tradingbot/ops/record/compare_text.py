"""What a comparison found, in words: what was compared, each side, what differs, and the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tradingbot.ops.record.comparison import Comparison, Side, Stretch
from tradingbot.ops.record.differences import Kind, tally
from tradingbot.ops.record.findings import counted

__all__ = ["comparison_text"]

SHOWN = 50  # triggers at which the references differ; --json names all
SYMBOLS = 20  # with the most differences
STRETCHES = 10
GUARDS = ("TICKER_MAX_AGE_S", "TICKER_MAX_AHEAD_S", "TICKER_MAX_JUMP_PCT")


def comparison_text(found: Comparison) -> str:
    """Return a comparison as people read it."""
    lines = [_headline(found), *_settings("ours", found.ours), *_settings("theirs", found.theirs)]
    lines += [*_reservations(found), "", *_table(_sides(found))]
    if found.is_equal:
        lines += ["", "no decision changes"]
    else:
        lines += ["", *_triggers(found), *_trades(found)]
    return "\n".join([*lines, *_references(found)])


def _headline(found: Comparison) -> str:
    text = f"{counted(found.inputs, 'input')} of {counted(len(found.sessions), 'session')}"
    if found.first_ms is not None and found.last_ms is not None:
        text = f"{utc(found.first_ms)} .. {utc(found.last_ms)} UTC, {text}"
    return f"{text}; cut off there by the time limit" if found.is_cut_off else text


def _settings(name: str, side: Side) -> list[str]:
    lines = [f"{key} = {_value(value)} (recorded: {_value(before)})" for key, (before, value) in side.changes.items()]
    lines += [f"{key} = {_value(value)} changes no decision of a replay" for key, value in side.idle.items()]
    return [f"{name if not place else '':7} {line}" for place, line in enumerate(lines or ["as recorded"])]


def _reservations(found: Comparison) -> list[str]:
    lines = [f"not recorded: {_stretch(stretch)}" for stretch in found.unrecorded[:STRETCHES]]
    if len(found.unrecorded) > STRETCHES:
        lines.append(f"and {len(found.unrecorded) - STRETCHES:,} more such stretches")
    if found.unrecorded:
        lines.append("behind such a stretch both sides go on from the next checkpoint, with the account recorded there")
    if found.only_counted and any(name in side.changes for side in (found.ours, found.theirs) for name in GUARDS):
        what = counted(found.only_counted, "rejected ticker")
        lines.append(f"{what} were only counted, not recorded: other guards would perhaps have accepted some")
    return lines


def _stretch(stretch: Stretch) -> str:
    return f"{stretch.sid}, inputs {stretch.first} to {stretch.last}, {stretch.why}"


def _sides(found: Comparison) -> list[tuple[str, ...]]:
    sides = (found.ours, found.theirs)

    def counts(indent: str, each: Sequence[Mapping[str, int]]) -> list[tuple[str, ...]]:
        names = sorted({name for one in each for name in one})
        return [(indent + name, *(f"{one.get(name, 0):,}" for one in each)) for name in names]

    money = [
        ("profit (quote)", *(f"{side.pnl_quote:+.2f}" for side in sides)),
        ("fees (quote)", *(f"{side.fees_quote:.2f}" for side in sides)),
        ("final equity (quote)", *(f"{side.final_equity_quote:,.2f}" for side in sides)),
        ("drawdown (quote)", *(f"{side.max_drawdown_quote:.2f}" for side in sides)),
    ]
    return [
        ("", "ours", "theirs"),
        ("triggers", *(f"{len(side.triggers):,}" for side in sides)),
        *counts("  ", [side.outcomes for side in sides]),
        *counts("  blocked by ", [side.reasons for side in sides]),
        ("trades closed", *(f"{len(side.trades):,}" for side in sides)),
        ("positions open", *(f"{side.open_positions:,}" for side in sides)),
        *(money if any(side.trades or side.open_positions for side in sides) else []),
    ]


def _triggers(found: Comparison) -> list[str]:
    lines = [f"triggers  {_kinds(found.trigger_kinds)}"]
    by_symbol = tally(found.triggers, lambda one: one.symbol)
    most = sorted(by_symbol, key=lambda symbol: -sum(by_symbol[symbol].values()))[:SYMBOLS]
    rows = [(symbol, _kinds(by_symbol[symbol])) for symbol in most]
    if len(by_symbol) > SYMBOLS:
        rows.append((f"and {len(by_symbol) - SYMBOLS:,} more", ""))
    by_cause = tally(found.triggers, lambda one: one.cause.value)
    for what, cells in (("by symbol", rows), ("by cause", [(name, _kinds(by_cause[name])) for name in by_cause])):
        lines += _table([(what if not place else "", *row) for place, row in enumerate(cells)], left=3)
    return lines


def _trades(found: Comparison) -> list[str]:
    if not found.trades:
        return []
    lines = [f"trades    {_kinds(found.trade_kinds)}"]
    for kind in (Kind.GAINED, Kind.LOST, Kind.MOVED):
        if found.trade_kinds.get(kind):
            lines.append(f"  {kind.value:7} {found.trade_pnl(kind):+.2f} quote to ours")
    return lines


def _kinds(kinds: Mapping[Any, int]) -> str:
    words = [f"{kinds[kind]:,} {'the same' if kind is Kind.SAME else kind.value}" for kind in Kind if kinds.get(kind)]
    return ", ".join(words) or "none"


def _references(found: Comparison) -> list[str]:
    if not found.references:
        return []
    rows = [("trigger (UTC)", "symbol", "of", "side", "measured from", "anchor", "session peak", "window peak", "last")]
    for row in found.references[:SHOWN]:
        facts = (utc(row["ts_ms"]), row["symbol"], row["triggered"])
        for place, side in enumerate(("ours", "theirs")):
            rows.append((*(("", "", "") if place else facts), side, *_seen(row[side]), f"{row['last']:.10g}"))
    rest = len(found.references) - SHOWN
    more = [f"and {rest:,} more (--json and --out name all)"] if rest > 0 else []
    title = f"{counted(len(found.references), 'trigger')} at which the references differ"
    return ["", title, *_table(rows, left=5), *more]


def _seen(sight: Mapping[str, Any] | None) -> tuple[str, ...]:
    if sight is None:
        return "ticker rejected", "", "", ""
    prices = (sight[name] for name in ("anchor", "session_peak", "window_peak"))
    return sight["reference_source"], *("-" if price is None else f"{price:.10g}" for price in prices)


def _table(rows: Sequence[tuple[str, ...]], left: int = 1) -> list[str]:
    """Return rows in columns; the first `left` of them stand to the left, the rest to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    fitted = (
        [cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in enumerate(pairs)]
        for pairs in (zip(row, widths, strict=True) for row in rows)
    )
    return ["  ".join(cells).rstrip() for cells in fitted]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def utc(ts_ms: int) -> str:
    """Return a time as people read it, or the ms where it is none."""
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{ts_ms} ms"
