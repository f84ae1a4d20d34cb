"""A trigger explained in words; what the record says, with units, and times in UTC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tradingbot.ui.plain import printable

__all__ = ["blocking_text", "explanation_text", "span_text", "trigger_list", "utc_text"]

Record = Mapping[str, Any]

SOURCES = {
    "anchor": "the anchor",
    "session": "the session's peak",
    "rolling": "the window's peak",
    "hybrid": "the higher of the session's and the window's peak",
    "legacy_peak": "the window's peak (FEATURE_ANCHOR_ENABLED is off)",
}
CAUSES = {
    "first": "first: there was no anchor yet, and the window's peak became it",
    "stale": "stale: the one before was older than ANCHOR_STALE_MINUTES minutes, so the window's peak took its place",
    "raised": "raised: the price rose above the anchor before",
    "reset": "reset: an operator asked for a new one",
    "fill": "fill: the bot bought, and the fill's price became the anchor",
    "loaded": "loaded: it was saved by the session before",
}
CLAMPS = {
    "start_clamp": "start clamp: lowered, so that the first price after the start is no more than "
    "ANCHOR_MAX_START_DROP_PCT % under it",
    "peak_clamp": "peak clamp: lowered to ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT % above the session's peak",
}
SWITCHES = ("killed", "degraded", "unreconciled", "parked", "restart")
RESTART = (
    "restart: the price fell through the threshold while the bot was down or catching up after a start; by the time it",
    "knew, that price was gone, so the trigger is on record and was never ordered",
)


def utc_text(ms: int, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """Return a time (ms) as UTC with seconds."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def span_text(ms: float) -> str:
    """Return a length of time (ms) in its two largest units."""
    seconds = round(abs(ms) / 1000)
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    for place, (unit, length) in enumerate(units[:-1]):
        if seconds >= length:
            smaller, rest = units[place + 1]
            second = seconds % length // rest
            return f"{seconds // length} {unit} {second} {smaller}" if second else f"{seconds // length} {unit}"
    return f"{seconds} s"


def _price(value: float | None) -> str:
    return "none" if value is None else f"{value:.10g}"


def _amount(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"


def _line(name: str, text: str) -> str:
    return f"{name:<14}{text}".rstrip()


def _place(record: Record) -> str:
    line = record["line"]
    return printable(record["file"]) + ("" if line is None else f":{line}")


def explanation_text(explanation: Record) -> str:
    """Return an explanation, as its JSON object, in words."""
    d = explanation["decision"]
    source = SOURCES.get(d["reference_source"], printable(d["reference_source"])).split(" (")[0]
    lines = [
        f"{printable(d['decision_id'])}: {_outcome(d)}",
        f"{utc_text(d['ts_ms'])}  {printable(d['symbol'])} at {_price(d['last'])} was {_drop(d['drop_pct'])}"
        f" {source}, {_price(d['reference'])}",
        "",
        *_price_lines(explanation),
        *_reference_lines(explanation),
        *_threshold_lines(explanation),
        "",
        *_check_lines(d, explanation["settings"] or {}),
        "",
        *_outcome_lines(explanation),
        *_story_lines(explanation),
        "",
        *_settings_lines(explanation),
        _line("recorded", f"{_place(explanation['place'])}, session {printable(d['sid'])}, input {d['cause']}"),
    ]
    return "\n".join(lines)


def _outcome(d: Record) -> str:
    reasons = ", ".join(map(printable, d["reasons"]))
    return f"{d['outcome']}{f' ({reasons})' if reasons else ''}"


def _drop(pct: float) -> str:
    return f"{-pct:.2f} % under" if pct <= 0 else f"{pct:.2f} % above"


def _price_lines(explanation: Record) -> list[str]:
    d, tick = explanation["decision"], explanation["tick"]
    volume = "unknown" if d["quote_volume"] is None else f"{_amount(d['quote_volume'])} quote"
    text = f"{_price(d['last'])}, bid {_price(d['bid'])}, ask {_price(d['ask'])}, volume of 24 h {volume}"
    where = _place(tick) if tick is not None else "its tick is not recorded (any more)"
    return [_line("price", text), _line("", where)]


def _tick_lines(tick: Record | None, what: str) -> list[str]:
    if tick is None:
        return [_line("", f"{what} a tick that is not recorded (any more)")]
    book = f"bid {_price(tick['bid'])}, ask {_price(tick['ask'])}"
    text = f"{what} the tick of {utc_text(tick['ts_ms'])}: {_price(tick['last'])}, {book}"
    return [_line("", text), _line("", _place(tick))]


def _ago(ms: int, d: Record) -> str:
    return f"{utc_text(ms)}, {span_text(d['ts_ms'] - ms)} before"


def _with_values(words: Mapping[str, str], cause: str, explanation: Record) -> str:
    """Return a cause in words, with the value of a setting that they name."""
    settings, text = explanation["settings"] or {}, words.get(cause, printable(cause))
    return " ".join(f"{word} = {settings[word]:g}" if word in settings else word for word in text.split(" "))


def _reference_lines(explanation: Record) -> list[str]:
    d, tick = explanation["decision"], explanation["reference_tick"]
    source, anchor = d["reference_source"], d["anchor"]
    mode = "" if source == "legacy_peak" else f" (DROP_TRIGGER_MODE {d['mode']})"
    lines = [_line("reference", f"{_price(d['reference'])}, {SOURCES.get(source, printable(source))}{mode}")]
    if anchor is not None:
        lines.append(_line("", f"set {_ago(anchor['set_ms'], d)}"))
        lines.append(_line("", _with_values(CAUSES, anchor["set_cause"], explanation)))
        lines += _tick_lines(tick, "by")
        if anchor["clamp"] is None:
            lines.append(_line("", "no clamp has lowered it since"))
        else:
            lines.append(_line("", _with_values(CLAMPS, anchor["clamp"], explanation)))
            lines.append(_line("", f"clamped {_ago(anchor['clamp_ms'], d)}"))
            lines += _tick_lines(explanation["clamp_tick"], "at")
    else:
        if tick is not None:
            lines.append(_line("", f"reached {_ago(tick['ts_ms'], d)}"))
        elif d["reference"] == d["window_peak"]:
            lines.append(_line("", f"reached {_ago(d['window_peak_ms'], d)}"))
        lines += _tick_lines(tick, "by")
    peak = f"peak {_price(d['window_peak'])} at {utc_text(d['window_peak_ms'], '%H:%M:%S')}"
    lines.append(_line("window", f"{peak}, trough {_price(d['window_trough'])}"))
    lines.append(_line("session", f"start {_price(d['session_start'])}, peak {_price(d['session_peak'])}"))
    return lines


def _threshold_lines(explanation: Record) -> list[str]:
    d, settings = explanation["decision"], explanation["settings"]
    text = _price(d["threshold"])
    if settings is not None:
        text += f" = reference x {settings['DROP_TRIGGER_VALUE']:g} (DROP_TRIGGER_VALUE)"
        if settings["BUY_MODE"] == "PREDICTIVE":
            text += f" x {settings['PREDICTIVE_BUY_ZONE_PCT']:g} (PREDICTIVE_BUY_ZONE_PCT, BUY_MODE PREDICTIVE)"
    limit_pct = (d["threshold"] / d["reference"] - 1) * 100
    return [
        _line("threshold", text),
        _line("drop", f"{d['drop_pct']:+.3f} %, and the threshold stands at {limit_pct:+.3f} %"),
    ]


def _check_lines(d: Record, settings: Record) -> list[str]:
    rows = [(check, *_check_texts(check, settings)) for check in d["checks"]]
    texts = [("checks", "", "found", "limit")]
    texts += [
        (f"  {printable(check['name'])}", "BLOCKS" if check["blocks"] else "ok", value, limit)
        for check, value, limit in rows
    ]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in texts]


def _quote(value: Any) -> str:
    return f"{_amount(value)} quote"


CHECKS: dict[str, tuple[Callable[[Any], str], Callable[[Any], str], str]] = {
    "max_positions": (lambda v: f"{v} held or being bought", lambda v: f"fewer than {v:g}", ""),
    "cooldown": (lambda v: f"{v:.1f} min since its last exit", lambda v: f"{v:g} min or more", "no exit yet"),
    "spread": (lambda v: f"{v:.2f} bps", lambda v: f"at most {v:g} bps", "no bid and ask"),
    "away": (lambda v: f"ask {_price(v)}", lambda v: f"at most {_price(v)}", "no ask"),
    "volume": (lambda v: f"{_quote(v)} in 24 h", lambda v: f"at least {_quote(v)}", "unknown"),
    "budget": (lambda v: f"{_quote(v)} free", lambda v: f"at least {_price(v)} quote", ""),
    "burst": (lambda v: f"{v} entries just before", lambda v: f"fewer than {v:g}", ""),
    "daily_loss": (lambda v: f"{_quote(v)} lost today", lambda v: f"at most {_quote(v)}", ""),
    "losses_in_row": (lambda v: f"{v} losses in a row", lambda v: f"fewer than {v:g} within 60 min", ""),
    "trades_per_day": (lambda v: f"{v} buys filled today", lambda v: f"fewer than {v:g}", ""),
}
"""Of each check with a limit: its value in words, its limit in words, and what the value None means."""


def _check_texts(check: Record, settings: Record) -> tuple[str, str]:
    name, value, limit = check["name"], check["value"], check["limit"]
    if name in SWITCHES:
        return ("off" if value is None else f"on: {printable(str(value))}"), "off"
    if name == "held":
        return ("a position or an order" if value else "nothing held"), "nothing held"
    if name not in CHECKS:
        return printable(str(value)), "" if limit is None else printable(str(limit))
    found, allowed, absent = CHECKS[name]
    span = f" in {settings['ENTRY_BURST_S']:g} s" if name == "burst" and "ENTRY_BURST_S" in settings else ""
    return (absent if value is None else found(value)), ("" if limit is None else allowed(limit) + span)


def blocking_text(decision: Record) -> str:
    """Return why a trigger came to nothing, each check with what it found and its limit; "" where nothing blocked."""
    found = ((check["name"], *_check_texts(check, {})) for check in decision["checks"] if check["blocks"])
    texts = (f"{printable(name)}: {value}{f' ({limit})' if limit != 'off' else ''}" for name, value, limit in found)
    return "; ".join(texts) or ", ".join(map(printable, decision["reasons"]))


def _outcome_lines(explanation: Record) -> list[str]:
    d, fate = explanation["decision"], explanation["fate"]
    if d["outcome"] == "observed":
        return [_line("outcome", "observed: nothing blocked it, but GLOBAL_TRADING is off, so nothing was ordered")]
    if d["outcome"] == "blocked":
        lines = [_line("outcome", f"blocked: {', '.join(map(printable, d['reasons']))}; nothing was ordered")]
        return lines + [_line("", line) for line in (RESTART if "restart" in d["reasons"] else ())]
    lines = [_line("outcome", "entered: nothing blocked it, and a buy was ordered")]
    lines += [_line("", _event_text(record)) for record in explanation["afterwards"]]
    rest = {
        "pending": "the buy is still pending: no fill is recorded",
        "open": "the position is still open: no exit has been filled",
        "lost": "the session ended before it was closed, and the next one began without it",
    }.get(fate)
    return lines + ([_line("", rest)] if rest else [])


def _event_text(record: Record) -> str:
    when = utc_text(record["ts_ms"])
    kind = record["type"]
    if kind == "fill":
        done = "bought" if record["side"] == "buy" else "sold"
        price, fee = _price(record["price"]), _price(record["fee"])
        return f"{when}  {done} {_price(record['qty'])} at {price}, fee {fee} quote"
    if kind == "exit":
        seen = f"seen {_price(record['price'])}, entry {_price(record['entry'])}, highest {_price(record['height'])}"
        return f"{when}  exit by {printable(record['reason'])}: {seen}"
    if kind == "cancelled":
        return f"{when}  the {record['side']} was cancelled: {printable(record['reason'])}"
    held = span_text(record["exit_ms"] - record["entry_ms"])
    pnl, fees = f"{record['pnl']:+.6g}", _price(record["fees"])
    return f"{when}  closed: {pnl} quote after fees of {fees}, by {printable(record['reason'])}, held {held}"


def _story_lines(explanation: Record) -> list[str]:
    d, lines = explanation["decision"], []
    for story in explanation["prices"]:
        name = f"after {story['minutes']} min"
        if not story["ticks"]:
            lines.append(_line(name, "no price is recorded"))
            continue
        text = ", ".join(
            f"{word} {_price(story[word])} ({(story[word] / d['last'] - 1) * 100:+.2f} %)"
            f" at {utc_text(story[f'{word}_ms'], '%H:%M:%S')}"
            for word in ("lowest", "highest")
        )
        lines.append(_line(name, text + _cut(story, d)))
    return lines


def _cut(story: Record, d: Record) -> str:
    """Say where the record ends before the minutes are over."""
    end_ms = d["ts_ms"] + story["minutes"] * 60_000
    if end_ms - story["last_ms"] < 60_000:
        return ""
    return f"; recorded up to {utc_text(story['last_ms'], '%H:%M:%S')} only"


def _settings_lines(explanation: Record) -> list[str]:
    d, changed = explanation["decision"], explanation["changed"]
    lines = [_line("settings", f"fingerprint {printable(d['fingerprint'])}")]
    if changed is None:
        return [*lines, _line("", "its session's settings are not recorded (any more)")]
    if not changed:
        return [*lines, _line("", "all that decisions depend on are the defaults")]
    for name, row in changed.items():
        source = f", from {printable(row['source'])}" if row["source"] else ""
        lines.append(
            _line("", printable(f"{name} = {_value(row['value'])} (default {_value(row['default'])}){source}"))
        )
    return lines


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def trigger_list(decisions: Sequence[Record]) -> str:
    """Return triggers as a short list, one a line."""
    rows = [("time (UTC)", "last", "drop %", "outcome", "id")]
    rows += [
        (
            utc_text(d["ts_ms"], "%Y-%m-%d %H:%M:%S"), _price(d["last"]), f"{d['drop_pct']:+.2f}", _outcome(d),
            printable(d["decision_id"]),
        )
        for d in decisions
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if place in (1, 2) else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
