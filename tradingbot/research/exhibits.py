"""Tables and pictures that show themselves: in a notebook as HTML in one piece, elsewhere as text."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Picture", "Table", "harmless", "label"]

_STYLE = "style='max-width:1240px'"
_WHOLE = 24  # characters of a cell that stay in one line; a time has 19
_DPI = 96  # 12.8 inches are 1,230 pixels: a page of 1,280


def harmless(text: object) -> str:
    """Return a text without what would command a terminal or break a line."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def label(text: object, longest: int = 24) -> str:
    """Return a text as a figure can show it: no mathematics, no character that its font lacks, not too long."""
    plain = harmless(text).encode("ascii", "backslashreplace").decode()
    plain = plain if len(plain) <= longest else f"{plain[: longest - 3]}..."
    return plain.replace("$", r"\$")


@dataclass(frozen=True, slots=True)
class Table:
    """Hold a table under a title that says what it finds; `formats` are those of numbers, by column.

    `frame` is the table itself, as a DataFrame; `note` says what has to be known to read it.
    """

    title: str
    frame: pd.DataFrame
    note: str = ""
    formats: Mapping[str, str] = field(default_factory=dict)

    def cells(self) -> pd.DataFrame:
        """Return the table as texts."""
        texts = self.frame.copy().astype(object)
        for name in self.frame.columns:
            texts[name] = [self._cell(name, value) for value in self.frame[name]]
        texts.columns = [harmless(name) for name in self.frame.columns]
        return texts

    def _cell(self, name: str, value: Any) -> str:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "-"
        return format(value, self.formats[name]) if is_number and name in self.formats else harmless(value)

    def __repr__(self) -> str:
        body = self.cells().to_string(index=False) if len(self.frame) else "(no rows)"
        return "\n".join(part for part in (harmless(self.title), body, harmless(self.note)) if part)

    def _table(self) -> str:
        cells = self.cells()
        texts = [
            self.frame[name].dtype == object or str(self.frame[name].dtype) == "str" for name in self.frame.columns
        ]

        def row(values: Iterable[str], tag: str) -> str:
            told = []
            for value, is_text in zip(values, texts, strict=True):
                side = "left" if is_text else "right"
                wrap = "normal" if tag == "th" or len(value) > _WHOLE else "nowrap"
                told.append(f"<{tag} style='text-align:{side};white-space:{wrap}'>{escape(value)}</{tag}>")
            return f"<tr>{''.join(told)}</tr>"

        head = row(map(str, cells.columns), "th")
        body = "".join(row(values, "td") for values in cells.itertuples(index=False, name=None))
        return f"<div style='overflow-x:auto'><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"

    def _repr_html_(self) -> str:
        body = self._table() if len(self.frame) else ""
        return f"<div {_STYLE}><p><b>{escape(harmless(self.title))}</b></p>{body}{_note(self.note)}</div>"


@dataclass(frozen=True, slots=True)
class Picture:
    """Hold a figure under a title that says what it finds; None in its place where there is nothing to draw."""

    title: str
    figure: Figure | None
    note: str = ""

    def png(self) -> bytes:
        """Return the figure as PNG, nothing without one."""
        if self.figure is None:
            return b""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()

    def __repr__(self) -> str:
        return "\n".join(harmless(part) for part in (self.title, self.note) if part)

    def _repr_html_(self) -> str:
        image = ""
        if self.figure is not None:
            data = base64.b64encode(self.png()).decode()
            alt = escape(harmless(self.title), quote=True)
            image = f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{data}">'
        return f"<div {_STYLE}><p><b>{escape(harmless(self.title))}</b></p>{image}{_note(self.note)}</div>"


def _note(text: str) -> str:
    shown = re.sub("`([^`]*)`", r"<code>\1</code>", escape(harmless(text)))
    return f"<p style='color:#555'>{shown}</p>" if text else ""
