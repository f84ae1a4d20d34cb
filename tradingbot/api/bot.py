"""The bot as it is: what it says of itself, and its flags, which can be switched from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tradingbot.api.shown import Place, Shown, effective_at, frame_of, target_at
from tradingbot.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Flags", "Status", "flags", "status"]

DECISIONS, ERRORS = 6, 3
STATE_WORDS = {"stopping": "stopped", "none": "no bot"}


@dataclass(frozen=True, slots=True, repr=False)
class Status(Shown):
    """Hold what a bot says of itself: `record` is its status.json, {} where none has run.

    `bot` says whether one runs: `state` is running, killed, degraded, starting, stopping; else dead, stopped or none.
    """

    state_dir: str
    bot: dict[str, Any]
    record: dict[str, Any]
    complaints: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.record[name]

    @property
    def is_running(self) -> bool:
        """Say whether a bot ran there when this was asked."""
        return bool(self.bot["is_running"])

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    def text(self) -> str:
        """Return it in words."""
        from tradingbot.ui.plain import printable_lines, status_text

        lines = [*self.complaints, self.says]
        return printable_lines("\n".join(lines)) + (f"\n{status_text(self.record)}" if self.record else "")

    @property
    def says(self) -> str:
        """Return in a sentence which bot this is."""
        from tradingbot.ops.rollback.text import notes_ahead

        return f"{self.state_dir}: {notes_ahead({'bot': self.bot, 'trouble': ''})[0]}"

    def html(self) -> str:
        """Return it as HTML: what is first in the table is nearest to its threshold."""
        from tradingbot.ui.html_tables import Html, headline, paragraphs, preformatted, table
        from tradingbot.ui.plain import cells, columns, header, status_text

        state = str(self.bot["state"])
        head = headline(STATE_WORDS.get(state, state), self.says)
        if not self.record:
            return Html(head + paragraphs(self.complaints))
        try:
            lines = [*self.complaints, *header(self.record)]
            rows = [cells(row) for row in sorted(self.record["symbols"], key=_nearness)]
            body = paragraphs(lines) + table(columns(self.record), rows, range(1, 6)) + self._latest()
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError):
            body = preformatted(status_text(self.record))  # a bot of another version
        return Html(head + body)

    def _latest(self) -> str:
        from tradingbot.ui.explanation import utc_text
        from tradingbot.ui.html_tables import table
        from tradingbot.ui.plain import reference_name

        decisions = [
            (
                utc_text(d["ts_ms"], "%Y-%m-%d %H:%M:%S"), d["symbol"], f"{d['last']:.6g}", f"{d['drop_pct']:+.2f}",
                reference_name(d["reference_source"]), d["outcome"], ", ".join(d["reasons"]), d["decision_id"],
            )
            for d in self.record["decisions"][-DECISIONS:][::-1]
        ]  # fmt: skip
        errors = [
            (utc_text(e["time_ms"], "%Y-%m-%d %H:%M:%S"), e["text"]) for e in self.record["errors"][-ERRORS:][::-1]
        ]
        names = ("time (UTC)", "symbol", "last", "drop %", "measured from", "outcome", "reasons", "id")
        return table(names, decisions, (2, 3), "latest triggers") + table(
            ("time (UTC)", "trouble"), errors, (), "latest trouble"
        )

    def frame(self) -> pd.DataFrame:
        """Return the symbols as a DataFrame, one a row."""
        return frame_of(self._symbols(), "symbol")

    def figure(self) -> Figure:
        """Return how far each symbol is below its reference, beside its threshold (%); UsageError without symbols."""
        from tradingbot.api.pictures import drop_bars

        rows = [row for row in self._symbols() if row.get("drop_pct") is not None and row.get("threshold")]
        if not rows:
            raise UsageError(f"no symbol has told a price under {self.state_dir}")
        return drop_bars(sorted(rows, key=_nearness), self.record.get("time_ms", 0))

    def _symbols(self) -> list[dict[str, Any]]:
        rows = self.record.get("symbols")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _nearness(row: Mapping[str, Any]) -> float:
    near = row.get("to_trigger_pct")
    return float("inf") if near is None else -float(near)


def status(home: Place = None, *, state: Place = None, config: Place = None, last: bool = False) -> Status:
    """Return what the running bot is and sees; with `last` what a bot told last, whether one runs or not.

    Raises NoBotError where none runs, unless `last` is asked for. Settings that are broken are passed over.

    >>> import tradingbot as tb
    >>> home = tb.trial(duration_s=60, EMBEDDED_SYMBOLS=2)  # a bot that has run for a minute of virtual time
    >>> seen = tb.status(home, last=True)
    >>> seen.is_running, seen["bot"]["state"], list(seen.frame().index)
    (False, 'stopping', ['BTC/USDT', 'ETH/USDT'])
    """
    from tradingbot.ops.control import read_status
    from tradingbot.ops.rollback.restart import find_bot, status_of

    target = target_at(home, state, config)
    record = status_of(target.state_dir) if last else read_status(target.state_dir)
    return Status(str(target.state_dir), find_bot(target.state_dir).to_record(), record, target.complaints)


@dataclass(frozen=True, slots=True, repr=False)
class Flags(Shown):
    """Hold every flag as it stands, and what was changed just now.

    `rows` are JSON objects, one a flag: name, value, source, since when, by whom, why, what off means, and what the
    running bot goes by. `adopted` says whether a running bot has taken the change up, None where none runs.
    """

    state_dir: str
    rows: tuple[dict[str, Any], ...]
    changed: tuple[str, ...] = ()
    adopted: bool | None = None
    said: str = ""

    def __getitem__(self, name: str) -> bool:
        return next(bool(row["value"]) for row in self.rows if row["name"] == name)

    def to_record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    def text(self) -> str:
        """Return it in words."""
        from tradingbot.ui.switch_tables import flags_table

        return "\n".join(filter(None, (self.said, flags_table(self.rows))))

    def html(self) -> str:
        """Return it as HTML."""
        from tradingbot.ui.explanation import utc_text
        from tradingbot.ui.html_tables import Html, headline, mark, paragraphs, table

        names = ("flag", "value", "running bot", "from", "since (UTC), by, why", "off means", "takes effect")
        rows = []
        for row in self.rows:
            since = "" if row["since_ms"] is None else utc_text(row["since_ms"], "%Y-%m-%d %H:%M:%S")
            by = f"{since}, {row['who']}: {row['why']}" if since else ""
            running = "no bot" if row["running"] is None else mark(_on(row["running"]))
            rows.append(
                (row["name"], mark(_on(row["value"])), running, row["source"], by, row["off_means"],
                 row["takes_effect"])
            )  # fmt: skip
        off = [row["name"] for row in self.rows if not row["value"]]
        head = headline("off" if off else "on", f"{', '.join(off)} off" if off else "every flag is on")
        return Html(head + paragraphs(self.said.splitlines()) + table(names, rows) + paragraphs([self.state_dir]))

    def frame(self) -> pd.DataFrame:
        """Return the flags as a DataFrame, one a row."""
        return frame_of(self.rows, "name")


def flags(
    home: Place = None, *, why: str = "", state: Place = None, config: Place = None, **changes: bool | None
) -> Flags:
    """Return the flags as they stand; those given as keywords are switched first (None takes an override back).

    A change is an audited override, as by `tradingbot flags set`: `why` is required, a running bot is waited for.
    Raises UsageError without a reason or for what is no flag, SettingsError where the settings do not fit together.

    >>> import tempfile, tradingbot as tb
    >>> home = tempfile.mkdtemp()
    >>> tb.flags(home)["FEATURE_ANCHOR_ENABLED"]
    True
    >>> tb.flags(home, why="odd anchors", FEATURE_ANCHOR_ENABLED=False)["FEATURE_ANCHOR_ENABLED"]
    False
    >>> tb.flags(home, why="it was the feed", FEATURE_ANCHOR_ENABLED=None).changed
    ('FEATURE_ANCHOR_ENABLED',)
    """
    from tradingbot.config import FLAGS, check_value
    from tradingbot.io.override_file import CLEAR
    from tradingbot.ops.rollback.switch import flag_rows, plan_switch, switch, was_adopted
    from tradingbot.ui.switch_tables import switched_text

    strangers = [key for key in changes if key not in FLAGS]
    if strangers:
        raise UsageError(f"{strangers[0]} is no flag; the flags: {', '.join(FLAGS)}")
    effective = effective_at(home, state, config)
    if not changes:
        return Flags(str(effective.state_dir), tuple(asdict(row) for row in flag_rows(effective)))
    if not why:
        raise UsageError('nothing was changed: say why, for the audit: why="..."')
    wanted = {key: CLEAR if value is None else check_value(key, value) for key, value in changes.items()}
    plan = plan_switch(effective, wanted)
    changed = switch(plan, why)
    adopted = was_adopted(plan.state_dir, changed) if plan.running else None
    keys = tuple(change.key for change in changed)
    rows = tuple(asdict(row) for row in flag_rows(effective_at(home, state, config)))
    return Flags(str(plan.state_dir), rows, keys, adopted, switched_text(plan.rows(), keys, adopted))


def _on(value: object) -> str:
    return "on" if value else "off"
