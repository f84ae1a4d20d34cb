"""Why nothing triggers, and why tickers come slowly: from what the bot tells of itself, and from what is recorded."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.doctor.patient import UNMENDED, Patient, number, rows

__all__ = ["Largest", "largest_drop", "log_tail", "no_triggers", "tickers"]

SEARCH_S = 0.8  # for the largest drop recorded
FAR = 2.0  # a threshold so many times further away than anything seen
SEEN_MS = 60_000  # what is seen in less than this says nothing
TAIL_BYTES = 256_000
OLD_S = 30.0
LATELY_S = 900.0  # in which a request to be left alone still tells of how it is now


def no_triggers(patient: Patient) -> Iterator[Finding]:
    """Say what keeps triggers, or entries, from coming: every reason there is."""
    if not patient.is_running:
        yield Finding("triggers", Verdict.NOT_APPLICABLE, "no bot runs: nothing can trigger")
        return
    if not patient.status:
        yield Finding("triggers", Verdict.NOT_APPLICABLE, "the bot has not told of itself yet")
        return
    found = [each for each in (_killed(patient), _silent(patient), _windows(patient), _threshold(patient)) if each]
    found += _blocked(patient)
    yield from found
    if not found:
        mode = (
            "orders on paper"
            if patient.setting("GLOBAL_TRADING")
            else "observe mode: triggers are recorded, no order is made"
        )
        count = sum(int(number(row.get("triggers"), 0)) for row in patient.symbols)
        yield Finding("triggers", Verdict.OK, f"{count} in this session, by the {_source(patient)}; {mode}")


def _source(patient: Patient) -> str:
    """Return what drops are measured from, in words."""
    flags = patient.status.get("flags")
    is_on = flags.get("FEATURE_ANCHOR_ENABLED", True) if isinstance(flags, dict) else True
    if not is_on:
        return f"window peak of {patient.setting('WINDOW_LOOKBACK_S'):g} s, the anchor being rolled back"
    mode = int(number(patient.setting("DROP_TRIGGER_MODE"), 4))
    peak = f"window peak of {patient.setting('WINDOW_LOOKBACK_S'):g} s (DROP_TRIGGER_MODE = {mode})"
    return {
        1: "session peak (DROP_TRIGGER_MODE = 1)",
        2: peak,
        3: "higher of session and window peak (DROP_TRIGGER_MODE = 3)",
    }.get(mode, "anchor")


def _killed(patient: Patient) -> Finding | None:
    path = patient.state_dir / "KILL"
    if not path.exists():
        return None
    why = ""
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open(errors="replace") as file:
                why = file.read(200).strip()
    says = f"the kill switch is on{f': {why}' if why else ''}; triggers are recorded, no position is opened"
    return Finding("kill switch", Verdict.WARNING, says, {"why": why}, "when it is well again: tradingbot arm")


def _silent(patient: Patient) -> Finding | None:
    """Say where no symbol has fresh data, or all are parked or waiting."""
    symbols, data = patient.symbols, patient.data
    if not symbols:
        if number(patient.bot.get("uptime_s"), 0) < OLD_S:
            return Finding(
                "symbols", Verdict.WARNING, "none is watched yet: the bot is starting", fix="look again in a minute"
            )
        fix = "see whether the exchange answers (below), and what SYMBOLS, QUOTE and EXCLUDE leave over"
        return Finding("symbols", Verdict.FAILED, "none is watched: the exchange has not answered yet", fix=fix)
    states = Counter(
        "parked" if str(r.get("state")).startswith("parked") else "backoff" if r.get("retry") else "watched"
        for r in symbols
    )
    evidence = {"states": dict(states), "fresh": data.get("fresh"), "stale": data.get("stale")}
    if states["watched"] == 0 and states["backoff"] == 0:
        why = str(symbols[0].get("state"))[:120]
        fix = "the exchange does not trade them now: wait, or tradingbot set SYMBOLS=..., then tradingbot restart"
        return Finding("symbols", Verdict.FAILED, f"all {len(symbols)} are parked ({why})", evidence, fix)
    if states["watched"] == 0:
        error = next(
            (str(row["retry"].get("error"))[:120] for row in symbols if isinstance(row.get("retry"), dict)), ""
        )
        fix = "see whether the exchange answers (below); where it does, the rollback has them asked at once"
        says = f"all {states['backoff']} wait after failures ({error})"
        return Finding("symbols", Verdict.FAILED, says, evidence, fix, "retry")
    if not number(data.get("fresh"), 0):
        age = data.get("oldest_s")
        says = (
            f"no symbol has fresh data: the last came {number(age, 0):.0f} s ago"
            if age is not None
            else "no ticker has come yet"
        )
        return Finding("symbols", Verdict.FAILED, says, evidence, "see whether the exchange answers (below)")
    return None


def _windows(patient: Patient) -> Finding | None:
    """Say where windows are still empty, or held to be too short to be believed."""
    waiting = [row for row in patient.symbols if row.get("last") is None]
    if waiting and len(waiting) == len(patient.symbols) and patient.symbols:
        says = f"all {len(waiting)} windows are empty: no ticker was accepted"
        rejected = patient.data.get("rejected")
        words = (
            ", ".join(f"{reason} {count}" for reason, count in rejected.items()) if isinstance(rejected, dict) else ""
        )
        says += f"; rejected: {words}" if words else ""
        return Finding(
            "windows", Verdict.FAILED, says, {"rejected": rejected}, "see what was rejected: tradingbot status"
        )
    lookback_s = number(patient.setting("WINDOW_LOOKBACK_S"), 0)
    passed_s = number(patient.bot.get("uptime_s"), 0) * number(patient.bot.get("speed"), 1)
    warm = patient.status.get("warm_start")
    is_warm = isinstance(warm, dict) and warm.get("kind") == "warm"
    if patient.setting("WINDOW_STRICT_WARMUP") and not is_warm and passed_s < lookback_s:
        left_s = lookback_s - passed_s
        says = f"WINDOW_STRICT_WARMUP: nothing triggers before a window is full, in {left_s:.0f} s of the market's time"
        fix = "wait, or tradingbot set WINDOW_STRICT_WARMUP=false"
        return Finding("windows", Verdict.WARNING, says, {"left_s": left_s}, fix)
    return None


@dataclass(slots=True)
class Largest:
    """Hold the largest drop that was seen below the reference (%, above 0), of which symbol, in how many ms."""

    drop_pct: float = 0.0
    symbol: str = ""
    span_ms: int = 0


def largest_drop(patient: Patient) -> Largest:
    """Return the largest drop of this session under the reference now in force, as recorded, in bounded time."""
    from tradingbot.io.streams import Stream
    from tradingbot.ops.record.history import History

    found, newest_ms, end_s = Largest(), 0, time.monotonic() + SEARCH_S
    sid, source = patient.bot.get("sid"), next((row.get("reference_source") for row in patient.symbols), None)
    for each in History(patient.state_dir).newest(Stream.SNAPSHOTS):
        record = each.record
        if (record["sid"], record["reference_source"]) != (sid, source) or time.monotonic() > end_s:
            break
        newest_ms = newest_ms or record["ts_ms"]
        found.span_ms = max(found.span_ms, newest_ms - record["ts_ms"])
        if -record["drop_pct"] > found.drop_pct:
            found.drop_pct, found.symbol = -record["drop_pct"], record["symbol"]
    for row in patient.symbols:
        drop = -number(row.get("drop_pct"), 0.0)
        if drop > found.drop_pct:
            found.drop_pct, found.symbol = drop, str(row.get("symbol"))
    if not found.span_ms:  # not recorded: what the windows show is all there is
        passed_s = number(patient.bot.get("uptime_s"), 0) * number(patient.bot.get("speed"), 1)
        found.span_ms = int(min(passed_s, number(patient.setting("WINDOW_LOOKBACK_S"), 0)) * 1000)
    return found


def _threshold(patient: Patient) -> Finding | None:
    """Say where the threshold is further away than anything that was seen."""
    if any(number(row.get("triggers"), 0) for row in patient.symbols):
        return None
    if patient.is_unmended:
        return Finding("threshold", Verdict.NOT_APPLICABLE, f"what was seen {UNMENDED}")
    seen = largest_drop(patient)
    row = next((r for r in patient.symbols if number(r.get("reference"), 0) > 0), None)
    if seen.span_ms < SEEN_MS or row is None:
        return None
    needed = (1 - number(row.get("threshold"), 0) / number(row.get("reference"), 1)) * 100
    minutes = seen.span_ms / 60_000
    evidence = {
        "needed_pct": round(needed, 4),
        "largest_pct": round(seen.drop_pct, 4),
        "symbol": seen.symbol,
        "minutes": round(minutes, 1),
    }
    where = f"{seen.drop_pct:.2f} % below the {_source(patient)}" + (f" ({seen.symbol})" if seen.symbol else "")
    says = f"none in {minutes:.0f} min of the market: the largest drop was {where}, and it takes {needed:.2f} %"
    if needed <= 0 or needed < FAR * seen.drop_pct:
        return Finding("threshold", Verdict.OK, f"{says}; near enough, the market is quiet", evidence)
    value = round(1 - max(seen.drop_pct, 0.05) * 0.8 / 100, 5)
    fix = (
        f"if that is not what is wanted: tradingbot set DROP_TRIGGER_VALUE={value:g} (it would have triggered)\n"
        "what came closest: tradingbot explain --near; two settings side by side: tradingbot compare"
    )
    if "window peak" in _source(patient):
        fix += "\na slow fall leaves a short window behind: a longer WINDOW_LOOKBACK_S, or the anchor again"
        fix += " (tradingbot rollback --undo)"
    return Finding("threshold", Verdict.WARNING, says, evidence, fix)


def _blocked(patient: Patient) -> Iterator[Finding]:
    """Say where triggers come, and all of the latest are blocked."""
    decisions = rows(patient.status.get("decisions"))
    if not decisions or any(each.get("outcome") != "blocked" for each in decisions):
        return
    reasons = Counter(str(reason) for each in decisions for reason in (each.get("reasons") or ()))
    words = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    fix = "each one with its checks: tradingbot explain --last"
    yield Finding(
        "entries",
        Verdict.WARNING,
        f"the latest {len(decisions)} triggers were all blocked: {words}",
        dict(reasons),
        fix,
    )


def tickers(patient: Patient) -> Iterator[Finding]:
    """Say whose tickers come late, which polls were withheld, and how often the exchange asked to be left alone."""
    if not patient.is_running or not patient.symbols:
        yield Finding(
            "tickers",
            Verdict.NOT_APPLICABLE,
            "no bot runs that watches any" if not patient.is_running else "none is watched yet",
        )
        return
    limit_s, data = number(patient.setting("WATCHDOG_S"), 10), patient.data
    ages = {str(row.get("symbol")): number(row.get("age_s"), 1e9) for row in patient.symbols}
    late = {symbol: age for symbol, age in sorted(ages.items(), key=lambda pair: -pair[1]) if age > limit_s}
    withheld = (
        {str(k): int(number(v, 0)) for k, v in (data.get("withheld") or {}).items()}
        if isinstance(data.get("withheld"), dict)
        else {}
    )
    flags = patient.status.get("flags")
    if isinstance(flags, dict) and flags.get("FEATURE_RETRY_BACKOFF") is False:
        withheld = {}  # of before: none is withheld any more
    waiting = {str(row.get("symbol")): row["retry"] for row in patient.symbols if isinstance(row.get("retry"), dict)}
    held = [line for line in log_tail(patient) if " held back for " in line and _age_s(line) < LATELY_S]
    evidence: dict[str, Any] = {
        "late_s": {symbol: None if age >= 1e9 else age for symbol, age in late.items()}, "withheld": withheld,
        "backoff": waiting, "held_back_lines": len(held), "mode": data.get("mode"),
    }  # fmt: skip
    words = []
    if late:
        names = ", ".join(f"{s} {'never' if age >= 1e9 else f'{age:.0f} s ago'}" for s, age in list(late.items())[:5])
        words.append(f"{len(late)} of {len(ages)} are older than WATCHDOG_S = {limit_s:g} s ({names})")
    if waiting:
        symbol, retry = next(iter(waiting.items()))
        words.append(f"{len(waiting)} in backoff ({symbol}: {str(retry.get('error'))[:80]})")
    if sum(withheld.values()):
        most = ", ".join(f"{symbol} {count}" for symbol, count in Counter(withheld).most_common(3))
        words.append(f"backoff withheld {sum(withheld.values())} polls ({most})")
    if held:
        words.append(f"the exchange asked {len(held)} times of late to be left alone (429, 418): {held[-1][:120]}")
    if not words:
        text = f"{len(ages)} symbols, the oldest {max(ages.values()):.1f} s ago, by {data.get('mode')!s:.20}"
        yield Finding("tickers", Verdict.OK, text, evidence)
        return
    fix = "see what the exchange answers: below, and in the log"
    if held and data.get("mode") == "poll":
        fix = "fewer polls: tradingbot set MARKET_DATA=stream; else a longer POLL_S, fewer SYMBOLS"
    elif held:
        fix = "see what else uses this address; a longer POLL_S, fewer SYMBOLS"
    profile = "retry" if withheld or waiting else ""
    verdict = Verdict.FAILED if len(late) > len(ages) / 20 else Verdict.WARNING  # 95 % are to be fresh
    yield Finding("tickers", verdict, "; ".join(words), evidence, fix, profile)


def _age_s(line: str) -> float:
    """Return how long ago a line of the log was written, 0 where it does not tell."""
    try:
        return time.time() - datetime.datetime.fromisoformat(line.split(" ", 1)[0]).timestamp()
    except ValueError:
        return 0.0


def log_tail(patient: Patient) -> list[str]:
    """Return the last lines of the newest log; none where there is none."""
    try:
        newest = max(patient.log_dir.glob("trading_bot_*.log"), key=lambda path: path.stat().st_mtime)
        with newest.open("rb") as file:
            file.seek(max(newest.stat().st_size - TAIL_BYTES, 0))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except (OSError, ValueError):
        return []
    started = str(patient.bot.get("sid") or "")
    lines = text.splitlines()
    begins = [place for place, line in enumerate(lines) if "started sid=" in line and started in line]
    return lines[begins[-1] :] if begins else lines
