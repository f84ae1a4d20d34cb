"""Tables, marks and headlines as HTML: every text escaped, each verdict a word beside its colour."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterable, Sequence
from html import escape
from io import BytesIO
from typing import Any

from tradingbot.ui.plain import printable_lines

__all__ = ["Html", "details", "escaped", "headline", "mark", "paragraphs", "picture", "preformatted", "table"]

GOOD, BAD, ODD, QUIET = "#0072B2", "#B34700", "#E69F00", "#666666"  # told apart by those who see no red or green
COLOURS = {
    "ok": ("✓", GOOD), "done": ("✓", GOOD), "go": ("✓", GOOD), "on": ("✓", GOOD), "running": ("✓", GOOD),
    "failed": ("✗", BAD), "no-go": ("✗", BAD), "dead": ("✗", BAD),
    "warning": ("!", ODD), "off": ("○", ODD), "killed": ("!", ODD), "degraded": ("!", ODD),
}  # fmt: skip
"""The sign and the colour of a word; any other one stands on grey."""
TABLE = "border-collapse:collapse;margin:6px 0 10px 0;font-size:13px"
CELL = "word-break:normal;overflow-wrap:break-word;vertical-align:top;padding:3px 14px 3px 4px;white-space:pre-line"


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """Return any value as HTML that says it and does nothing."""
    return value if isinstance(value, Html) else Html(escape(printable_lines(str(value))))


def mark(word: str) -> Html:
    """Return a word as a badge, with a sign and a colour for those who see it."""
    sign, colour = COLOURS.get(word.lower(), ("–", QUIET))
    ink = "#000000" if colour == ODD else "#ffffff"
    style = f"background:{colour};color:{ink};padding:1px 7px;border-radius:3px;font-weight:600;white-space:nowrap"
    return Html(f'<span style="{style}">{sign} {escaped(word)}</span>')


def headline(word: str, text: str) -> Html:
    """Return what matters most, as large as a title: a verdict and what it is about."""
    return Html(f'<p style="font-size:18px;margin:4px 0 8px 0">{mark(word)} <b>{escaped(text)}</b></p>')


def paragraphs(lines: Iterable[object]) -> Html:
    """Return lines, one below the other."""
    text = "<br>".join(map(escaped, lines))
    return Html(f'<p style="margin:4px 0 8px 0;font-size:13px">{text}</p>') if text else Html("")


def preformatted(text: str) -> Html:
    """Return a text as it stands in a terminal."""
    return Html(f'<pre style="font-size:12px;line-height:1.3;white-space:pre-wrap">{escaped(text)}</pre>')


def picture(figure: Any, says: str) -> Html:
    """Return a figure of matplotlib's as a picture inside the page; `says` is for who cannot see it."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    data = b64encode(buffer.getvalue()).decode()
    return Html(f'<img alt="{escaped(says)}" style="max-width:100%" src="data:image/png;base64,{data}">')


def details(title: str, body: Html) -> Html:
    """Return what is opened by a click."""
    return Html(f'<details><summary style="font-size:13px">{escaped(title)}</summary>{body}</details>')


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], numbers: Collection[int] = (), title: str = ""
) -> Html:
    """Return rows under their head; columns in `numbers` stand right. Of no row there is no table."""
    body = [_row("td", row, numbers) for row in rows]
    if not body:
        return Html("")
    over = f'<p style="margin:10px 0 0 0;font-size:13px"><b>{escaped(title)}</b></p>' if title else ""
    return Html(
        f'{over}<table style="{TABLE}"><thead>{_row("th", head, numbers)}</thead><tbody>{"".join(body)}</tbody></table>'
    )


def _row(tag: str, cells: Sequence[object], numbers: Collection[int]) -> str:
    texts = []
    for place, cell in enumerate(cells):
        style = f"{CELL};text-align:{'right' if place in numbers else 'left'}"
        if place == 0:
            style += ";white-space:nowrap"  # a name
        if tag == "th":
            style += ";border-bottom:1px solid #888888;font-weight:600"
        texts.append(f'<{tag} style="{style}">{escaped(cell)}</{tag}>')
    return f"<tr>{''.join(texts)}</tr>"
