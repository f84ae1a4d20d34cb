"""Explain: a trigger, the tick behind its reference, its settings, and what came of it, as recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from tradingbot.config import fingerprint, make_settings, registry
from tradingbot.errors import SettingsError, UsageError
from tradingbot.io.jsonl import Found
from tradingbot.io.streams import JOURNAL
from tradingbot.ops.record.history import History

__all__ = ["Explanation", "PriceStory", "explain", "latest_trigger", "latest_triggers"]

DAY_MS, MINUTE_MS = 86_400_000, 60_000
MINUTES_AFTER = (5, 30)
ID = re.compile(r"(.+):(\d{1,18}):(\d+)", re.DOTALL)
NAMED = 3  # ids that an error names
AFTERWARDS = frozenset({"fill", "exit", "cancelled", "trade"})


@dataclass(slots=True)
class PriceStory:
    """Hold what the price did in the minutes after a trigger: extremes (quote) and their times, None without a tick."""

    minutes: int
    ticks: int = 0
    lowest: float | None = None
    lowest_ms: int | None = None
    highest: float | None = None
    highest_ms: int | None = None
    last_ms: int | None = None

    def take(self, tick: dict[str, Any]) -> None:
        """Take in one more tick."""
        self.ticks, self.last_ms, last = self.ticks + 1, tick["ts_ms"], tick["last"]
        if self.lowest is None or last < self.lowest:
            self.lowest, self.lowest_ms = last, tick["ts_ms"]
        if self.highest is None or last > self.highest:
            self.highest, self.highest_ms = last, tick["ts_ms"]


@dataclass(slots=True)
class Explanation:
    """Hold a decision as it was recorded, and what explains it.

    Ticks are records with `file` and `line`, None where they are not recorded (any more). `changed` are the settings
    that differ from the defaults, by name: value, default and source (None where the record does not tell it); None
    where the session's settings are not recorded any more. `fate` is what came of an entry: closed, open, pending,
    cancelled, or lost with its session.
    """

    decision: dict[str, Any]
    place: dict[str, Any]
    tick: dict[str, Any] | None = None
    reference_tick: dict[str, Any] | None = None
    clamp_tick: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    changed: dict[str, dict[str, Any]] | None = None
    afterwards: list[dict[str, Any]] = field(default_factory=list)
    fate: str | None = None
    prices: list[PriceStory] = field(default_factory=list)

    def to_record(self) -> dict[str, Any]:
        """Return the explanation as a JSON object."""
        return asdict(self)


def latest_trigger(history: History, symbol: str | None) -> Found:
    """Return the newest trigger, or the newest of a symbol; raise UsageError where there is none."""
    for found in _triggers(history, symbol):
        return found
    raise _nothing(history, symbol)


def latest_triggers(history: History, symbol: str, count: int) -> list[dict[str, Any]]:
    """Return the newest `count` triggers of a symbol, the oldest first; raise UsageError where there is none."""
    records = [found.record for found in islice(_triggers(history, symbol), count)]
    if not records:
        raise _nothing(history, symbol)
    return records[::-1]


def explain(history: History, wanted: str | Found) -> Explanation:
    """Explain a trigger, named by its decision_id or found before; raise UsageError where none has that id."""
    found = find_trigger(history, wanted) if isinstance(wanted, str) else wanted
    decision = found.record
    place, afterwards, fate = _afterwards(history, found)
    explanation = Explanation(decision, place, afterwards=afterwards, fate=fate)
    _add_settings(history, found, explanation)
    _add_ticks(history, explanation)
    return explanation


def find_trigger(history: History, decision_id: str) -> Found:
    """Return the trigger of an id, read from the days that its time names; raise UsageError, naming the nearest."""
    match = ID.fullmatch(decision_id)
    nearest: list[tuple[bool, int, str]] = []
    if match is not None:
        symbol, ts_ms = match[1], int(match[2])
        for found in history.around(JOURNAL, ts_ms):
            record = found.record
            if record.get("type") != "decision":
                continue
            if record["decision_id"] == decision_id:
                return found
            nearest.append((record["symbol"] != symbol, abs(record["ts_ms"] - ts_ms), record["decision_id"]))
            nearest = sorted(nearest)[:NAMED]
    names = [name for *_, name in nearest] or [each.record["decision_id"] for each in _newest(history, decision_id)]
    if not names:
        raise _nothing(history, None)
    raise UsageError(f"there is no trigger {decision_id}; the nearest: {', '.join(names)}")


def _newest(history: History, near: str) -> list[Found]:
    """Return the newest triggers, those of the symbol that an id begins with before the others."""
    found = list(islice(_triggers(history, None), 100))
    return sorted(found, key=lambda each: not near.startswith(each.record["symbol"]))[:NAMED]


def _triggers(history: History, symbol: str | None) -> Iterator[Found]:
    for found in history.newest(JOURNAL):
        record = found.record
        if record.get("type") == "decision" and symbol in {None, record["symbol"]}:
            yield found


def _nothing(history: History, symbol: str | None) -> UsageError:
    known: dict[str, None] = {}
    if symbol is not None:
        known = dict.fromkeys(found.record["symbol"] for found in islice(_triggers(history, None), 1_000))
    of = "" if symbol is None else f" of {symbol}"
    rest = f"; there are of {', '.join(sorted(known))}" if known else ": explain --near shows how close prices came"
    return UsageError(f"no trigger{of} is recorded under {history.state_dir}{rest}")


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.get("type") == "decision" and all(one[key] == other[key] for key in ("sid", "cause", "k", "decision_id"))


def _afterwards(history: History, trigger: Found) -> tuple[dict[str, Any], list[dict[str, Any]], str | None]:
    """Return where a trigger stands, what the journal holds of its order and position after it, and its fate."""
    decision = trigger.record
    place: dict[str, Any] = {"file": str(trigger.path.relative_to(history.state_dir)), "line": None}
    records: list[dict[str, Any]] = []
    lost_ms: int | None = None
    is_past = False
    for found in history.since(JOURNAL, trigger.path):
        record = found.record
        if not is_past:
            is_past = _is_same(record, decision)
            if is_past:
                place = history.place(found)
                if decision["outcome"] != "entered":
                    return place, [], None
            continue
        kind = record.get("type")
        if kind in AFTERWARDS and record["decision_id"] == decision["decision_id"]:
            records.append(record)
            lost_ms = None
            if kind == "trade":
                return place, records, "closed"
            if kind == "cancelled" and record["side"] == "buy":
                return place, records, "cancelled"
        elif kind in {"session_start", "checkpoint_part"}:
            held = _holds(record, decision)
            if held is not None:
                lost_ms = None if held else record["ts_ms"]
        if lost_ms is not None and record["ts_ms"] > lost_ms + DAY_MS:
            break
    if lost_ms is not None:
        return place, records, "lost"
    return place, records, "open" if records else "pending"


def _holds(record: dict[str, Any], decision: dict[str, Any]) -> bool | None:
    """Say whether a checkpoint, or a part of one, holds a decision's order or position; None where it does not tell."""
    memories = (record.get("checkpoint") or record).get("symbols", ())
    memory = next((each for each in memories if each["symbol"] == decision["symbol"]), None)
    if memory is None:
        return False if "checkpoint" in record and record.get("parts", 1) == 1 else None
    held = (memory.get("order"), memory.get("position"))
    return any(each is not None and each["decision_id"] == decision["decision_id"] for each in held)


def _add_settings(history: History, trigger: Found, explanation: Explanation) -> None:
    """Find the settings in force: those of the session's start, or the newest that it recorded before the trigger."""
    decision = trigger.record
    start = history.session_start(decision["sid"])
    if start is None or _fingerprint(start["settings"]) != decision["fingerprint"]:
        start = _settings_before(history, trigger)
    if start is None:
        return
    settings = start.get("settings") or start["checkpoint"]["settings"]
    sources, known = start.get("sources") or {}, registry()
    explanation.settings = settings
    explanation.changed = {
        name: {"value": value, "default": known[name].default, "source": sources.get(name)}
        for name, value in settings.items()
        if name in known and known[name].engine and value != known[name].default
    }


def _settings_before(history: History, trigger: Found) -> dict[str, Any] | None:
    decision, is_past = trigger.record, False
    for found in history.until(JOURNAL, trigger.path):
        record = found.record
        if not is_past or record["sid"] != decision["sid"]:
            is_past = is_past or _is_same(record, decision)
        elif record.get("settings") or (record.get("checkpoint") or {}).get("settings"):
            return record
    return None


def _fingerprint(settings: dict[str, Any]) -> str | None:
    try:
        return fingerprint(make_settings(settings))
    except SettingsError:  # of another version
        return None


def _add_ticks(history: History, explanation: Explanation) -> None:
    decision = explanation.decision
    symbol, ts_ms = decision["symbol"], decision["ts_ms"]
    stories = explanation.prices = [PriceStory(minutes) for minutes in MINUTES_AFTER]
    for found in history.ticks(symbol, ts_ms, ts_ms + max(MINUTES_AFTER) * MINUTE_MS):
        tick = found.record
        if tick["sid"] == decision["sid"] and tick["seq"] == decision["cause"]:
            explanation.tick = tick | history.place(found)
        for story in stories:
            if 0 < tick["ts_ms"] - ts_ms <= story.minutes * MINUTE_MS:
                story.take(tick)
    anchor = decision["anchor"]
    if anchor is not None:
        set_seq = anchor["set_seq"] if anchor["set_cause"] in ("raised", "fill") else None
        explanation.reference_tick = _tick(history, symbol, anchor["price_ms"], decision["sid"], set_seq)
        if anchor["clamp"] is not None:
            explanation.clamp_tick = _tick(history, symbol, anchor["clamp_ms"], decision["sid"], anchor["clamp_seq"])
    elif decision["reference"] == decision["window_peak"] and decision["reference_source"] != "session":
        price, peak_ms = decision["reference"], decision["window_peak_ms"]
        explanation.reference_tick = _tick(history, symbol, peak_ms, decision["sid"], None, price)
    else:
        for found in history.ticks_back(symbol, ts_ms):
            if found.record["sid"] != decision["sid"]:
                break  # a session's peak is no older than the session
            if found.record["last"] == decision["session_peak"]:
                peak_ms = found.record["ts_ms"]
                explanation.reference_tick = _tick(
                    history, symbol, peak_ms, decision["sid"], found.record["seq"], decision["session_peak"]
                )
                break


def _tick(
    history: History, symbol: str, ts_ms: int, sid: str, seq: int | None, price: float | None = None
) -> dict[str, Any] | None:
    """Return the tick of a time: the one of that number where it is known, else the highest and latest of `price`."""
    best: dict[str, Any] | None = None
    for found in history.ticks(symbol, ts_ms, ts_ms):
        tick = found.record | history.place(found)
        if seq is not None and tick["sid"] == sid and tick["seq"] == seq:
            return tick
        if price in {None, tick["last"]} and (best is None or tick["last"] >= best["last"]):
            best = tick
    return best
