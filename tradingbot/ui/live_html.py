"""A watched bot as HTML: banner, table with drop bars, decisions, troubles. A function of what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tradingbot.ui.dashboard import DROP, WIDE_COLUMNS, Row, rows, trouble_text
from tradingbot.ui.explanation import blocking_text, utc_text
from tradingbot.ui.plain import LEFT, columns, header, printable, reference_name

__all__ = ["BLUE", "ORANGE", "RED", "banner", "decisions_table", "message", "symbols_table", "troubles"]

BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#767676"  # of Okabe and Ito: told apart by every eye
TONES = {
    "running": (BLUE, "#ffffff"), "starting": (GREY, "#ffffff"), "stopping": (GREY, "#ffffff"),
    "killed": (ORANGE, "#000000"), "degraded": (ORANGE, "#000000"),
}  # fmt: skip
"""Colour and ink of the word that says how a bot stands; of every other one it is RED."""
TROUBLES = 3
FONT = "font:13px/1.45 var(--jp-ui-font-family,system-ui,sans-serif);color:var(--jp-ui-font-color1,#222)"
CELL = "padding:1px 5px 1px 3px;white-space:nowrap"  # twelve columns fit beside the margins of a notebook at 1280 px
BAR_HEAD = "of the trigger's drop"
BAR = 84  # px from no fall to the threshold


def banner(word: str, says: str, status: Mapping[str, Any], notes: Iterable[str] = ()) -> str:
    """Return what is asked first: does it run, what does it see, and how near is a trigger."""
    colour, ink = TONES.get(word, (RED, "#ffffff"))
    badge = (
        f'<span style="background:{colour};color:{ink};padding:2px 10px;border-radius:3px;font-weight:700">'
        f"{escape(printable(word)).upper()}</span>"
    )
    lines = [f'<div style="font-size:16px;margin-bottom:4px">{badge} {_text(says)}</div>']
    if status:
        first, *others = header(status)
        lines += [f"<div><b>{_text(first)}</b></div>", *(f"<div>{_text(line)}</div>" for line in others)]
        lines.append(f"<div><b>{_text(nearest(rows(status)))}</b></div>")
    lines += [f'<div style="border-left:4px solid {ORANGE};padding-left:8px">{_text(note)}</div>' for note in notes]
    return f'<div style="{FONT}">{"".join(lines)}</div>'


def nearest(found: Sequence[Row]) -> str:
    """Return in words how near the next trigger is."""
    priced = [row for row in found if row.to_trigger_pct is not None and row.limit_pct is not None]
    if not priced:
        return "no price yet"
    row = max(priced, key=lambda row: row.to_trigger_pct or 0.0)
    under = [row for row in priced if (row.to_trigger_pct or 0.0) >= 0]
    if under:
        names = ", ".join(row.symbol for row in under[:5])
        more = f" and {len(under) - 5} more" if len(under) > 5 else ""
        return f"at or under the threshold: {names}{more}"
    return (
        f"nearest to a trigger: {row.symbol}, {-(row.to_trigger_pct or 0.0):.2f} % above its threshold"
        f" ({row.limit_pct:+.2f} % from its reference)"
    )


def symbols_table(status: Mapping[str, Any]) -> str:
    """Return the live table, with a bar a symbol for how much of the fall that triggers has been fallen."""
    names = [*columns(status), *WIDE_COLUMNS]
    names.insert(DROP + 1, BAR_HEAD)
    lefts = [name in (*LEFT, "cause", BAR_HEAD) for name in names]
    head = "".join(
        f'<th style="{CELL};text-align:{"left" if left else "right"};'
        f'position:sticky;top:0;background:var(--jp-layout-color1,#fff)">{name}</th>'
        for name, left in zip(names, lefts, strict=True)
    )
    body = "".join(_row(row, lefts) for row in rows(status))
    return (
        f'<div style="{FONT};max-height:380px;overflow:auto"><table style="border-collapse:collapse;'
        f'font-variant-numeric:tabular-nums"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(row: Row, lefts: Sequence[bool]) -> str:
    texts = [escape(text) for text in (*row.cells, *row.wide_cells)]
    texts.insert(DROP + 1, _bar(row))
    cells = [
        f'<td style="{CELL};text-align:{"left" if left else "right"}">{text}</td>'
        for text, left in zip(texts, lefts, strict=True)
    ]
    weight = ' style="font-weight:700"' if row.is_near else ""
    return f"<tr{weight}>{''.join(cells)}</tr>"


def _bar(row: Row) -> str:
    """Return a bar whose mark is the threshold: blue far from it, orange near, red and beyond the mark under it."""
    if row.drop_share is None:
        return ""
    share = min(max(row.drop_share, 0.0), 1.3)
    percent = max(row.drop_share, 0.0) * 100 + 0.0  # no minus before 0
    colour = RED if row.drop_share >= 1 else ORANGE if row.is_near and share > 0.5 else BLUE
    return (
        f'<div style="position:relative;width:{BAR * 1.3 + 44:.0f}px;height:14px">'
        f'<div style="position:absolute;top:2px;height:10px;width:{share * BAR:.0f}px;background:{colour}"></div>'
        f'<div style="position:absolute;left:{BAR}px;top:0;height:14px;width:2px;background:currentColor"></div>'
        f'<div style="position:absolute;left:{BAR * 1.3 + 4:.0f}px;line-height:14px">{percent:.0f} %</div>'
        "</div>"
    )


def decisions_table(decisions: Sequence[Mapping[str, Any]], most: int = 8) -> str:
    """Return the latest triggers with what they were measured from, and why they came to nothing."""
    if not decisions:
        return f'<div style="{FONT}"><b>latest triggers</b>: none yet</div>'
    names = ("time (UTC)", "symbol", "price", "drop %", "measured from", "threshold", "outcome", "because")
    head = "".join(f'<th style="{CELL};text-align:left">{name}</th>' for name in names)
    body = "".join(f"<tr>{''.join(map(_cell, _decision(decision)))}</tr>" for decision in decisions[:most])
    rest = f" ({most} of the latest {len(decisions)})" if len(decisions) > most else ""
    return (
        f'<div style="{FONT};overflow-x:auto"><b>latest triggers</b>{rest}<table style="border-collapse:collapse">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _decision(d: Mapping[str, Any]) -> tuple[str, ...]:
    entered = "nothing blocked it" if d["outcome"] == "entered" else "GLOBAL_TRADING is off"
    return (
        utc_text(d["ts_ms"]).removesuffix(" UTC"), d["symbol"], f"{d['last']:.6g}", f"{d['drop_pct']:+.2f}",
        f"{reference_name(d['reference_source'])} {d['reference']:.6g}", f"{d['threshold']:.6g}", d["outcome"],
        blocking_text(d) or entered,
    )  # fmt: skip


def troubles(status: Mapping[str, Any]) -> str:
    """Return the latest errors of the session, "" where there are none."""
    lines = "".join(f"<div>{escape(trouble_text(error))}</div>" for error in status["errors"][-TROUBLES:])
    return f'<div style="{FONT}"><b>latest trouble</b>{lines}</div>' if lines else ""


def message(text: str, is_bad: bool = False) -> str:
    """Return what came of a click, or what is to be confirmed, line by line."""
    if not text:
        return ""
    lines = "<br>".join(map(_text, text.split("\n")))
    return f'<div style="{FONT};border-left:4px solid {RED if is_bad else BLUE};padding-left:8px">{lines}</div>'


def _cell(text: str) -> str:
    return f'<td style="{CELL}">{_text(text)}</td>'


def _text(text: str) -> str:
    return escape(printable(str(text)))
