"""Tables as text: settings, and the summary of a replay."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tradingbot.config import CHAINS, Settings, registry

__all__ = ["settings_page", "settings_table", "summary_text"]

WIDTH = 100  # where nobody looks at a terminal

SETTINGS_INTRODUCTION = """# Settings

Each setting has one upper-case name everywhere: in `tradingbot.toml`, in the environment, behind `--set`, in Python.
Layers, the later wins: defaults, `tradingbot.toml`, environment, `--set KEY=VALUE`, and `overrides.json` in the state
directory, which tools write. GLOBAL_TRADING alone is on only if some layer says on and none but the defaults says off.
Replays read no overrides, and there `--set` comes last.

`tradingbot config` shows each value in force with its source; `tradingbot config --schema` prints a JSON Schema.

The home is `--home`, else TRADINGBOT_HOME, else the nearest folder at or above the working directory with a
`tradingbot.toml`, else the working directory. A found one that belongs to somebody else, or that others may write to,
is refused.

Beyond the ranges below: {chains}."""


def settings_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return every setting, by group: name, value, source, when a change takes effect, meaning."""
    lines: list[str] = []
    group = None
    for name, row in rows.items():
        if row["group"] != group:
            group = row["group"]
            lines += ["", f"# {group}"] if lines else [f"# {group}"]
        effect = " (at the next start)" if row["takes_effect"] == "restart" else ""
        lines.append(f"{name} = {_value(row['value'])}   # {row['source']}{effect}: {row['meaning']}")
    return "\n".join(lines)


def settings_page() -> str:
    """Return docs/SETTINGS.md: every setting with default, range, when a change takes effect, and meaning."""
    chains = "; ".join(" <= ".join(chain) for chain in CHAINS)
    lines = [SETTINGS_INTRODUCTION.format(chains=chains)]
    group = None
    for setting in registry().values():
        if setting.group != group:
            group = setting.group
            lines += ["", f"## {group.capitalize()}", "", "| setting | default | allowed | takes effect | meaning |"]
            lines.append("| --- | --- | --- | --- | --- |")
        effect = "at the next start" if setting.restart else "live"
        default = _value(setting.default)
        lines.append(f"| {setting.name} | `{default}` | {setting.allowed} | {effect} | {setting.meaning} |")
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def summary_text(summary: Mapping[str, Any], settings: Settings) -> str:
    """Return the summary of a replay as people read it; the width follows the terminal."""
    width = max(min(shutil.get_terminal_size().columns, 140), 72) if sys.stdout.isatty() else WIDTH
    text = io.StringIO()
    console = Console(width=width, highlight=False, no_color=True, force_terminal=False, file=text)
    if summary["by_exit_reason"]:
        console.print(_exits(summary))
    console.print(_symbols(summary))
    console.print(_yardsticks(summary))
    tables = [line.rstrip() for line in text.getvalue().rstrip().split("\n")]
    return "\n".join([*_headline(summary, settings), *tables])


def _headline(s: Mapping[str, Any], settings: Settings) -> list[str]:
    span = f"{_utc(s['first_ms'])} .. {_utc(s['last_ms'])} UTC ({_duration(s['last_ms'] - s['first_ms'])})"
    rejected = ", ".join(f"{reason} {count:,}" for reason, count in s["rejected"].items())
    outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in s["outcomes"].items())
    blocked = ", ".join(f"{reason} {count:,}" for reason, count in s["blocked_reasons"].items())
    lines = [
        f"{_count(s['ticks'], 'tick')} of {_count(len(s['by_symbol']), 'symbol')}, {span}",
        f"rejected  {rejected or 'none'}",
        f"triggers  {s['triggers']:,}" + (f": {outcomes}" if outcomes else ""),
    ]
    if blocked:
        lines.append(f"blocked   {blocked}")
    if not settings.GLOBAL_TRADING:
        lines.append("trades    none: observing (--set GLOBAL_TRADING=true places paper orders)")
        return lines
    win_rate = "" if s["win_rate_pct"] is None else f", {s['win_rate_pct']:.1f} % won"
    lines += [
        f"trades    {s['trades']:,} closed{win_rate}, {s['open_positions']} still open",
        f"profit    {s['pnl_quote']:+.2f} quote realised, {s['fees_quote']:.2f} quote of fees paid",
        f"risk      drawdown at most {s['max_drawdown_quote']:.2f} quote ({s['max_drawdown_pct']:.2f} %), "
        f"a position open {s['exposure_pct']:.1f} % of the time",
    ]
    return lines


def _exits(s: Mapping[str, Any]) -> Table:
    table = _table("exit", "trades", "won %", "profit (quote)")
    for reason, row in s["by_exit_reason"].items():
        table.add_row(reason, f"{row['trades']:,}", _percent(row["win_rate_pct"]), f"{row['pnl_quote']:+.2f}")
    return table


def _symbols(s: Mapping[str, Any]) -> Table:
    table = _table("symbol", "triggers", "entered", "trades", "won %", "profit (quote)", "holding %", "averaging in %")
    for symbol, row in s["by_symbol"].items():
        table.add_row(
            Text("".join(c if c.isprintable() else "?" for c in symbol)),
            f"{row['triggers']:,}",
            f"{row['entered']:,}",
            f"{row['trades']:,}",
            _percent(row["win_rate_pct"]),
            f"{row['pnl_quote']:+.2f}",
            f"{row['holding_pct']:+.2f}",
            f"{row['averaging_in_pct']:+.2f}",
        )
    return table


def _yardsticks(s: Mapping[str, Any]) -> Table:
    table = _table(f"what {s['start_quote']:,.2f} quote became", "quote", "return %")
    for name, row in (
        ("this rule", {"final_equity_quote": s["final_equity_quote"], "return_pct": s["return_pct"]}),
        ("holding, all symbols alike", s["holding"]),
        (f"averaging in, {s['averaging_in']['instalments']} instalments", s["averaging_in"]),
    ):
        change = "" if row["return_pct"] is None else f"{row['return_pct']:+.3f}"
        table.add_row(name, f"{row['final_equity_quote']:,.2f}", change)
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column(f"\n{first}", no_wrap=True)
    for column in columns:
        table.add_column(f"\n{column}", justify="right")
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _duration(ms: int) -> str:
    for unit, length in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if ms >= 2 * length:
            return f"{ms / length:.1f} {unit}"
    return f"{ms / 1000:.1f} seconds"


def _utc(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return f"{ms} ms"
