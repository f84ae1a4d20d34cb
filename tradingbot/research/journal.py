"""The journal as tables: decisions and what came of them, rejections, sessions, settings, and what is not recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

from tradingbot.config import fingerprint, make_settings
from tradingbot.errors import TradingBotError
from tradingbot.research.frames import frame_of
from tradingbot.services.importing import ORIGIN

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STOPPED", "Journal", "Session", "Stretch", "read_journal"]

CUT_OFF = "cut off: killed, or running"
STOPPED = "stopped"
OFF_WHYS = {"flag": "FEATURE_PERSIST_STREAMS off", "disk low": "disk low"}

DECISIONS = {
    "decision_id": "text", "symbol": "text", "outcome": "text", "reasons": "text", "last": "float", "bid": "float",
    "ask": "float", "spread_pct": "float", "quote_volume": "float", "reference": "float", "reference_source": "text",
    "threshold": "float", "drop_pct": "float", "mode": "int", "window_peak": "float", "window_peak_time": "time",
    "window_trough": "float", "session_start": "float", "session_peak": "float", "anchor": "float",
    "anchor_cause": "text", "anchor_set_time": "time", "anchor_age_s": "float", "fingerprint": "text", "stretch": "int",
    "sid": "text", "cause": "int",
}  # fmt: skip
FILLS = {
    "symbol": "text", "side": "text", "qty": "float", "price": "float", "fee": "float", "cash": "float",
    "decision_id": "text", "sid": "text", "cause": "int",
}  # fmt: skip
EXITS = {
    "symbol": "text", "reason": "text", "price": "float", "entry": "float", "height": "float", "decision_id": "text",
    "sid": "text", "cause": "int",
}  # fmt: skip
TRADES = {
    "symbol": "text", "entry_time": "time", "entry": "float", "exit": "float", "qty": "float", "pnl": "float",
    "fees": "float", "reason": "text", "decision_id": "text", "stretch": "int", "sid": "text", "cause": "int",
}  # fmt: skip
REJECTIONS = {
    "symbol": "text", "reason": "text", "count": "int", "detail": "text", "last": "float", "bid": "float",
    "ask": "float", "sid": "text",
}  # fmt: skip
CHANGES = {"key": "text", "before": "text", "after": "text", "fingerprint": "text", "sid": "text"}
CONDITIONS = {"name": "text", "why": "text", "symbol": "text", "sid": "text"}
SESSIONS = {
    "sid": "text", "last_time": "time", "ended": "text", "exchange": "text", "version": "text", "start": "text",
    "fingerprint": "text",
}  # fmt: skip
GAPS = {"until": "time", "why": "text", "missing": "int", "sid": "text"}


@dataclass(slots=True)
class Session:
    """Hold what the journal says of one session, times in ms; `last_ms` is that of its last record."""

    sid: str
    began_ms: int
    last_ms: int
    ended: str = CUT_OFF
    exchange: str = ""
    version: str = ""
    start: str = ""
    fingerprint: str = ""


@dataclass(slots=True)
class Stretch:
    """Hold a time (ms) under one set of engine settings; `changes` says what is otherwise than in the one before."""

    number: int
    since_ms: int
    fingerprint: str
    settings: dict[str, Any]
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    until_ms: int | None = None


@dataclass(slots=True)
class Journal:
    """Hold the journal as rows; each table is made when it is asked for."""

    sessions: list[Session] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by its name: decisions, fills, exits, trades, rejections, changes, conditions or gaps."""
        columns = {
            "decisions": DECISIONS, "fills": FILLS, "exits": EXITS, "trades": TRADES, "rejections": REJECTIONS,
            "changes": CHANGES, "conditions": CONDITIONS, "gaps": GAPS,
        }[name]  # fmt: skip
        return frame_of(self.rows.get(name, []), columns)

    def sessions_table(self) -> pd.DataFrame:
        """Return the sessions, indexed by when they began."""
        rows = [
            {
                "time": one.began_ms, "sid": one.sid, "last_time": one.last_ms, "ended": one.ended,
                "exchange": one.exchange, "version": one.version, "start": one.start, "fingerprint": one.fingerprint,
            }
            for one in self.sessions
        ]  # fmt: skip
        return frame_of(rows, SESSIONS)


class _Reader:
    """Take the journal's records in, one after the other."""

    def __init__(self) -> None:
        self.journal = Journal()
        self._sessions: dict[str, Session] = {}
        self._off: dict[str, dict[str, Any]] = {}  # stretches that are not recorded, under way
        self._before: dict[str, Any] = {}  # the settings in force

    def take(self, record: dict[str, Any]) -> None:
        """Take in one record."""
        sid, ts_ms, kind = str(record.get("sid")), record.get("ts_ms"), record.get("type")
        if type(ts_ms) is not int:
            return
        journal = self.journal
        journal.first_ms = ts_ms if journal.first_ms is None else min(journal.first_ms, ts_ms)
        journal.last_ms = ts_ms if journal.last_ms is None else max(journal.last_ms, ts_ms)
        session = self._sessions.get(sid)
        if session is None:
            session = self._sessions[sid] = Session(sid, ts_ms, ts_ms)
            journal.sessions.append(session)
        session.last_ms = max(session.last_ms, ts_ms)
        take = getattr(self, f"_{kind}", None) if kind in _KINDS else None
        if take is not None:
            take(record, session, ts_ms)

    def end(self) -> Journal:
        """Return the journal, what is not recorded at its end included."""
        for row in self._off.values():
            row["until"] = self.journal.last_ms
        return self.journal

    def _add(self, table: str, ts_ms: int, record: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        row = {"time": ts_ms, **record, **more}
        self.journal.rows.setdefault(table, []).append(row)
        return row

    def _session_start(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        start = record.get("start") or {}
        session.began_ms, session.exchange, session.version = (
            ts_ms,
            record.get("exchange", ""),
            record.get("version", ""),
        )
        is_warm = start.get("kind") == "warm"
        session.start = ORIGIN if session.exchange == ORIGIN else "warm" if is_warm else str(start.get("kind", ""))
        session.fingerprint = str(record.get("fingerprint", ""))
        self._adopt(session, ts_ms, record.get("settings") or {}, session.fingerprint)

    def _session_end(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        session.ended = STOPPED
        if (row := self._off.pop(session.sid, None)) is not None:
            row["until"] = ts_ms

    def _settings(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        self._adopt(session, ts_ms, record.get("settings") or {}, "")

    def _adopt(self, session: Session, ts_ms: int, settings: dict[str, Any], name: str) -> None:
        stretches = self.journal.stretches
        name = name or _fingerprint(settings)
        before, self._before = self._before, settings
        changes = {
            key: (before.get(key), settings.get(key))
            for key in sorted(before.keys() | settings.keys())
            if before.get(key) != settings.get(key)
        }
        if stretches:
            for key, (old, new) in changes.items():
                facts = {"key": key, "before": _shown(old), "after": _shown(new), "fingerprint": name}
                self._add("changes", ts_ms, facts, sid=session.sid)
        if stretches and stretches[-1].fingerprint == name:
            return
        if stretches:
            stretches[-1].until_ms = ts_ms
        stretches.append(Stretch(len(stretches) + 1, ts_ms, name, settings, changes if stretches else {}))

    def _decision(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        anchor, bid, ask = record.get("anchor") or {}, record.get("bid"), record.get("ask")
        row = {name: record.get(name) for name in DECISIONS}
        row["reasons"] = ", ".join(map(str, record.get("reasons") or ()))
        row["window_peak_time"] = record.get("window_peak_ms")
        row["anchor"], row["anchor_cause"] = anchor.get("price"), anchor.get("set_cause")
        row["anchor_set_time"] = set_ms = anchor.get("set_ms")
        row["anchor_age_s"] = None if type(set_ms) is not int else (ts_ms - set_ms) / 1000
        if isinstance(bid, int | float) and isinstance(ask, int | float) and bid + ask > 0:
            row["spread_pct"] = (ask - bid) / ((bid + ask) / 2) * 100.0
        self._add("decisions", ts_ms, row, sid=session.sid, stretch=self._stretch(row["fingerprint"]))

    def _stretch(self, name: Any = None) -> int:
        """Return the number of the stretch under way, or of the last one whose settings have this fingerprint."""
        known = (one.number for one in reversed(self.journal.stretches) if name is None or one.fingerprint == name)
        return next(known, len(self.journal.stretches))

    def _fill(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        self._add("fills", ts_ms, record)

    def _exit(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        self._add("exits", ts_ms, record)

    def _trade(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        self._add("trades", ts_ms, record, entry_time=record.get("entry_ms"), stretch=self._stretch())

    def _rejected(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        facts = {name: record.get(name) for name in REJECTIONS}
        self._add("rejections", ts_ms, facts, count=1)

    def _rejections(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        for symbol, reasons in (record.get("counts") or {}).items():
            for reason, count in reasons.items():
                facts = {"symbol": symbol, "reason": reason, "count": count, "detail": "only counted"}
                self._add("rejections", ts_ms, facts, sid=session.sid)

    def _condition(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        self._add("conditions", ts_ms, record)

    def _parked(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        self._add("conditions", ts_ms, record, name="parked")

    def _recording(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        row = self._off.pop(session.sid, None)
        if row is not None:
            row["until"] = ts_ms
        if record.get("on") is False:
            why = str(record.get("why", "flag"))
            facts = {"until": None, "why": OFF_WHYS.get(why, why), "missing": 0, "sid": session.sid}
            self._off[session.sid] = self._add("gaps", ts_ms, facts)

    def _gap(self, record: dict[str, Any], session: Session, ts_ms: int) -> None:
        facts = {"until": ts_ms, "why": "journal could not be written", "missing": record.get("missing")}
        self._add("gaps", ts_ms, facts, sid=session.sid)


_KINDS = frozenset(name[1:] for name in vars(_Reader) if name.startswith("_") and not name.startswith("__"))


def read_journal(records: Iterable[dict[str, Any]]) -> Journal:
    """Return the journal's records, in the order of their lines, as rows; those of no known kind are passed over."""
    reader = _Reader()
    for record in records:
        reader.take(record)
    return reader.end()


def _fingerprint(settings: dict[str, Any]) -> str:
    try:
        return fingerprint(make_settings(settings))
    except TradingBotError:  # of another version
        return f"{crc32(msgspec.json.encode(settings, order='sorted')):016x}"


def _shown(value: Any) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()
