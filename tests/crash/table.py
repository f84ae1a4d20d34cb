"""Every row of the crash test."""

from __future__ import annotations

from tests.crash import bots, disks, kills, lines, power, state
from tests.crash.rows import Row

ROWS: tuple[Row, ...] = (kills.ROW, power.ROW, *disks.ROWS, *bots.ROWS, *lines.ROWS, *state.ROWS)
