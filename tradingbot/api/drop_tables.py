"""The rows of a study's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tradingbot.config import Settings
from tradingbot.ops.record.variants import Variants
from tradingbot.research.frames import in_ms, utc
from tradingbot.research.outcomes import HORIZONS_MIN, Luck
from tradingbot.research.survey import HOUR_MS, Approach, Coverage, Near, TickSurvey
from tradingbot.services.statistics import INSTALMENTS

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "after_table", "any_moment", "blocked_table", "coverage_rows", "instalments", "near_rows", "plural",
    "rejected_rows", "stretch_text", "symbol_rows", "variant_rows",
]  # fmt: skip

NEAREST = 12
Row = dict[str, Any]


def plural(count: int, word: str, ending: str = "s") -> str:
    """Return a count with its word."""
    return f"{count:,} {word}{'' if count == 1 else ending}"


def coverage_rows(coverage: Mapping[str, Coverage]) -> list[Row]:
    """Return a row for each symbol that has ticks."""
    return [
        {
            "symbol": one.symbol, "ticks": one.ticks, "first (UTC)": utc(one.first_ms), "last (UTC)": utc(one.last_ms),
            "every (s)": one.median_s, "holes": one.holes, "longest (s)": one.longest_s,
            "longest from (UTC)": utc(one.longest_ms), "covered %": one.covered_pct,
        }
        for one in coverage.values()
    ]  # fmt: skip


def stretch_text(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Return which settings became others."""
    told = [f"{name} {before} -> {after}" for name, (before, after) in changes.items()]
    return "; ".join(told[:6]) + (f"; {len(told) - 6} more" if len(told) > 6 else "")


def symbol_rows(decisions: pd.DataFrame, trades: pd.DataFrame, split: bool, ahead: int) -> list[Row]:
    """Return a row for each symbol with triggers, and for each stretch of settings where there are several."""
    keys = ["symbol", "stretch"] if split else ["symbol"]
    rows = []
    for _, part in decisions.groupby(keys, sort=False):
        symbol, stretch = str(part["symbol"].iloc[0]), int(part["stretch"].iloc[0])
        own = trades[trades["symbol"] == symbol]
        if split:
            own = own[own["decision_id"].isin(set(part["decision_id"]))]
        median, above, count = _after(part[f"return_{ahead}"].to_numpy())
        outcomes = part["outcome"].value_counts()
        row: Row = {"symbol": symbol, **({"stretch": stretch} if split else {}), "triggers": len(part)}
        row |= {name: int(outcomes.get(name, 0)) for name in ("entered", "observed", "blocked")}
        row |= {"deepest %": float(part["drop_pct"].min()), "of": count, "median after %": median, "above 0 %": above}
        rows.append(row | {"trades": len(own), "profit (quote)": float(own["pnl"].sum()) if len(own) else None})
    return sorted(rows, key=lambda row: -row["triggers"])


def _after(returns: Any) -> tuple[float | None, float | None, int]:
    """Return median, share above 0 in %, and count of the returns that are known."""
    known = returns[np.isfinite(returns)]
    if not len(known):
        return None, None, 0
    return float(np.median(known)), float((known > 0).mean() * 100), len(known)


def after_table(
    decisions: pd.DataFrame, survey: TickSurvey, split: Mapping[str, Any], luck: Callable[[int, Any], Luck]
) -> list[Row]:
    """Return a row for each time ahead, in each stretch of settings."""
    rows = []
    for stretch, chosen in split.items() if len(decisions) else ():
        for column, ahead in enumerate(HORIZONS_MIN):
            returns = decisions[f"return_{ahead}"].to_numpy()[chosen]
            worst = decisions[f"worst_{ahead}"].to_numpy()[chosen]
            known = returns[np.isfinite(returns)]
            names = decisions["symbol"].to_numpy()[chosen][np.isfinite(returns)]
            row: Row = {"stretch": stretch} if stretch else {}
            row |= {"after": f"{ahead} min", "of": f"{len(known)}/{len(returns)}"}
            median, above, _ = _after(returns)
            quarters = np.percentile(known, [25, 75]) if len(known) else (None, None)
            row |= {
                "mean %": float(known.mean()) if len(known) else None, "median %": median,
                "lower quarter %": quarters[0], "upper quarter %": quarters[1], "above 0 %": above,
                "worst %": float(np.median(worst[np.isfinite(worst)])) if len(known) else None,
                "any moment %": _middle(survey.any_return, column, names),
                "any worst %": _middle(survey.any_worst, column, names),
                "against luck": luck(column, chosen).says,
            }  # fmt: skip
            rows.append(row)
    return rows


def _middle(pools: Mapping[str, Any], column: int, names: Any) -> float | None:
    found = any_moment(pools, column, names, [50])
    return None if found is None else found[0]


def any_moment(pools: Mapping[str, Any], column: int, names: Any, quantiles: Sequence[float]) -> list[float] | None:
    """Return quantiles (%) of returns at even moments, each symbol's weighted by how often `names` holds it.

    None where none is known.
    """
    values, weights = [], []
    for symbol, count in Counter(map(str, names)).items():
        pool = pools[symbol][:, column] if symbol in pools else np.array([])
        pool = pool[np.isfinite(pool)]
        if len(pool):
            values.append(pool)
            weights.append(np.full(len(pool), count / len(pool)))
    if not values:
        return None
    whole, heavy = np.concatenate(values), np.concatenate(weights)
    order = np.argsort(whole, kind="stable")
    share = np.cumsum(heavy[order])
    places = np.searchsorted(share, np.array(quantiles) / 100 * share[-1])
    return [float(value) for value in whole[order][np.minimum(places, len(whole) - 1)]]


def blocked_table(decisions: pd.DataFrame, ahead: int, split: Mapping[str, Any]) -> list[Row]:
    """Return a row for each reason, and for what was not blocked, in each stretch of settings."""
    rows = []
    for stretch, chosen in split.items() if len(decisions) else ():
        part = decisions[chosen]
        told = part["reasons"].str.split(", ").map(lambda names: [name for name in names if name])
        groups = {
            str(name): part["outcome"] == name for name in ("entered", "observed") if (part["outcome"] == name).any()
        }
        reasons = sorted({name for names in told for name in names})
        groups |= {f"blocked: {reason}": told.map(lambda names, reason=reason: reason in names) for reason in reasons}
        for name, own in groups.items():
            median, above, count = _after(part[f"return_{ahead}"].to_numpy()[own.to_numpy()])
            row: Row = {"stretch": stretch} if stretch else {}
            row |= {"outcome": name, "triggers": int(own.sum()), "share %": own.mean() * 100}
            rows.append(row | {"of": count, "median after %": median, "above 0 %": above})
    return sorted(rows, key=lambda row: (row.get("stretch", ""), -row["triggers"]))


def rejected_rows(table: pd.DataFrame) -> list[Row]:
    """Return a row for each reason and symbol of rejected tickers, the most first."""
    rows: list[Row] = []
    for (reason, symbol), part in table.groupby(["reason", "symbol"]) if len(table) else ():
        at_ms = in_ms(part)
        hours, places = np.unique(at_ms // HOUR_MS, return_inverse=True)
        counts = np.bincount(places, part["count"].to_numpy())
        rows.append(
            {
                "reason": reason, "symbol": symbol, "tickers": int(part["count"].sum()),
                "first (UTC)": utc(at_ms.min()), "last (UTC)": utc(at_ms.max()), "in it": int(counts.max()),
                "busiest hour (UTC)": utc(int(hours[counts.argmax()]) * HOUR_MS, seconds=False),
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: -row["tickers"])


def near_rows(near: Near, decisions: pd.DataFrame) -> list[Row]:
    """Return the closest approaches of symbols' hours that had no trigger, the nearest first."""
    hours = in_ms(decisions) // HOUR_MS * HOUR_MS
    fired = set(zip(hours.tolist(), map(str, decisions["symbol"]), strict=True))
    missed: list[Approach] = [one for key, one in near.hours.items() if key not in fired and one.ts_ms]
    missed.sort(key=lambda one: -one.to_trigger_pct)
    return [
        {
            "symbol": one.symbol, "when (UTC)": utc(one.ts_ms), "last": one.last, "threshold": one.threshold,
            "missing %": -one.to_trigger_pct, "drop %": one.drop_pct,
        }
        for one in missed[:NEAREST]
    ]  # fmt: skip


def variant_rows(found: Variants, symbols: frozenset[str]) -> list[Row]:
    """Return a row for each variant; of chosen symbols its triggers and trades alone."""
    rows = []
    for one in found.variants:
        decisions = [each for each in one.decisions if not symbols or each.symbol in symbols]
        decisions = [each for each in decisions if found.last_ms is None or each.ts_ms <= found.last_ms]
        trades = [each for each in one.trades if not symbols or each.symbol in symbols]
        entered = sum(each.outcome.value == "entered" for each in decisions)
        rows.append(
            {
                "settings": one.name, "triggers": len(decisions), "entered": entered, "trades": len(trades),
                "won %": sum(each.pnl > 0 for each in trades) / len(trades) * 100 if trades else None,
                "profit (quote)": sum(each.pnl for each in trades),
                "return %": (one.equity_quote / one.start_quote - 1) * 100 if one.start_quote else 0.0,
                "drawdown (quote)": one.max_drawdown_quote,
            }
        )  # fmt: skip
    return rows


def instalments(prices: Mapping[str, Any], first_ms: int, last_ms: int, settings: Settings) -> dict[str, float]:
    """Return what holding, and averaging in, would have returned, in %, fees and slippage of the buys included.

    `prices` holds times (ms) and last prices of each symbol; all symbols alike, as a replay's yardsticks.
    """
    cost = (1 + settings.SLIPPAGE_BPS / 10_000) * (1 + settings.TAKER_FEE_RATE)
    held, averaged = [], []
    for points in prices.values():
        inside = points[(points[:, 0] >= first_ms) & (points[:, 0] <= last_ms)]
        if not len(inside):
            continue
        moments = first_ms + np.arange(INSTALMENTS) * (last_ms - first_ms) / INSTALMENTS
        places = np.clip(np.searchsorted(inside[:, 0], moments, side="right") - 1, 0, None)
        held.append(inside[-1, 1] / (inside[0, 1] * cost))
        averaged.append(float(np.mean(inside[-1, 1] / (inside[places, 1] * cost))))
    if not held:
        return {}
    name = f"averaging in, {INSTALMENTS} instalments"
    return {"holding, all symbols alike": (float(np.mean(held)) - 1) * 100, name: (float(np.mean(averaged)) - 1) * 100}
