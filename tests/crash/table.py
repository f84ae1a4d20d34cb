"""Every row of the crash test."""

from __future__ import annotations

from tests.crash import bots, kills, lines, power
from tests.crash.rows import Row

ROWS: tuple[Row, ...] = (kills.ROW, power.ROW, *bots.ROWS, *lines.ROWS)
