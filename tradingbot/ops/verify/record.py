"""The checklist, continued: what was recorded, decided and written is held against what should have been."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tradingbot.errors import UsageError
from tradingbot.io.streams import JOURNAL, Stream
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.record.history import History
from tradingbot.ops.record.inputs import IsOver, Progress
from tradingbot.ops.record.prove import prove
from tradingbot.ops.verify.checks import polls_rarely
from tradingbot.ops.verify.log_lines import iso
from tradingbot.ops.verify.recompute import arithmetic, recompute
from tradingbot.ops.verify.scene import FOUR, Look, Scene
from tradingbot.ops.verify.scratch import Tried

__all__ = [
    "CALCULATION", "NO_ORDER", "PROVED", "STREAMS", "TRIGGER", "calculation", "no_order",
    "order_in", "proved", "streams", "trigger_fires",
]  # fmt: skip

CALCULATION = "drop calculation right"
TRIGGER = "a trigger fires"
NO_ORDER = "observing sends no order"
STREAMS = "streams as the flags say"
PROVED = "the record is proved"

TRIES = 4
FLUSHED_S = 0.6  # until what status shows is on the disk, STREAM_FLUSH_MS aside
NAMED = 5
STREAMS_S = 12.0
WATCHED_S = 2.0
RECOMPUTED_S, PROVED_S, ORDERS_S = 8.0, 8.0, 4.0  # after which a record is not read on: all checks are to end in 30 s
DECIDED = ("ts_ms", "last", "reference", "reference_source", "threshold", "outcome", "reasons")
ORDERS = frozenset({"fill", "exit", "trade"})


def calculation(scene: Scene) -> Finding:
    """Recompute what status says of each symbol from the symbol's own recorded ticks, with an engine of ours."""
    if not scene.bot.is_running:
        return Finding(CALCULATION, Verdict.NOT_APPLICABLE, "no bot runs whose status could be recomputed")
    look = scene.until(lambda look: any(row["last"] is not None for row in look.status.get("symbols", ())), STREAMS_S)
    if not any(row["last"] is not None for row in look.status.get("symbols", ())):
        return Finding(CALCULATION, Verdict.NOT_APPLICABLE, "no symbol has had a tick yet")
    if look.status.get("streams", {}).get(Stream.TICKS.value, {}).get("state") == "ok":
        return _from_ticks(scene)
    is_on = scene.settings.FEATURE_PERSIST_STREAMS
    return _from_status(scene, "ticks are not recorded now" if is_on else "FEATURE_PERSIST_STREAMS is off")


def _from_ticks(scene: Scene) -> Finding:
    found, evidence, moments = None, dict[str, Any](), set[int]()
    for _ in range(TRIES):
        status = scene.look().status
        if not status.get("symbols"):
            continue
        moments.add(status["time_ms"])
        time.sleep(FLUSHED_S + scene.settings.STREAM_FLUSH_MS / 1000)
        found = recompute(scene.state_dir, status, 1 + scene.speed / 6, within(RECOMPUTED_S))  # ten of our seconds
        if not found.is_whole:
            why = f"{RECOMPUTED_S:g} s are too short for those recorded since the last checkpoint"
            finding = _from_status(scene, why)
            fix = "wait until other work on this machine is done; tradingbot prove takes the time that it needs"
            return finding if not finding.ok else replace(finding, verdict=Verdict.WARNING, fix=fix)
        evidence = {
            "sid": status["bot"]["sid"], "time_ms": status["time_ms"], "symbols": found.symbols, "inputs": found.inputs,
            "seq": found.seq, "wrong": {symbol: dict(members) for symbol, members in found.wrong.items()},
        }  # fmt: skip
        if found.agrees:
            says = f"{found.symbols} symbols recomputed from {found.inputs:,} recorded inputs, every figure equal"
            return Finding(CALCULATION, Verdict.OK, says, evidence)
    fix = "tradingbot prove names the first decision that differs; tradingbot explain --last shows its reference"
    if (found is None or found.seq is None) and len(moments) < 2:
        says = "its status stands still: what led to it may not be recorded yet"
        return Finding(CALCULATION, Verdict.NOT_APPLICABLE, says, evidence)
    if found is None or found.seq is None:
        says = "nothing that is recorded gives what status says: of no symbol"
        return Finding(CALCULATION, Verdict.FAILED, says, evidence, fix, "anchor")
    return Finding(
        CALCULATION, Verdict.FAILED, f"not what the ticks give: {_named(found.wrong)}", evidence, fix, "anchor"
    )


def within(seconds: float) -> IsOver:
    """Return what says, from now on, whether so many seconds have passed."""
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() >= end_s


def _from_status(scene: Scene, why: str) -> Finding:
    """Without recorded ticks, hold each symbol's figures against its own prices and reference."""
    wrong: Mapping[str, Any] = {}
    status: Mapping[str, Any] = {}
    for _ in range(TRIES):
        status = scene.look().status
        wrong = arithmetic(status, scene.settings)
        if not wrong:
            break
        time.sleep(1.0)
    rows = [row for row in status.get("symbols", ()) if row["last"] is not None]
    evidence = {
        "symbols": len(rows),
        "from": "status.json",
        "why": why,
        "wrong": {key: dict(row) for key, row in wrong.items()},
    }
    if wrong:
        fix = "tradingbot explain --last shows the reference of the newest trigger"
        return Finding(
            CALCULATION, Verdict.FAILED, f"figures that do not follow: {_named(wrong)}", evidence, fix, "anchor"
        )
    says = (
        f"threshold, drop and source of {len(rows)} symbols follow from price and reference; no ticks to recompute "
        f"the references from: {why}"
    )
    return Finding(CALCULATION, Verdict.OK, says, evidence)


def _named(wrong: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> str:
    parts = [
        f"{symbol} {name} is {said}, recomputed {again}"
        for symbol, members in wrong.items() for name, (said, again) in list(members.items())[:2]
    ]  # fmt: skip
    more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    return "; ".join(parts[:NAMED]) + more


def trigger_fires(tried: Tried) -> Finding:
    """See that a scratch session has triggered on the fall of the script, when it should, and on nothing else."""
    falls, stays = tried.fired.get(tried.falling, []), tried.fired.get(tried.still, [])
    told = [{name: one[name] for name in DECIDED} for one in falls[:NAMED]]
    evidence = {
        "fired": {symbol: len(each) for symbol, each in tried.fired.items()}, "decisions": told, "due_ms": tried.due_ms,
        "depth_pct": tried.depth_pct, "ticks": tried.ticks, "changed": tried.changed,
    }  # fmt: skip
    fix = "tradingbot config shows the settings; tradingbot doctor says which of them lets no trigger come"
    if tried.trouble:
        return Finding(TRIGGER, Verdict.FAILED, f"the scratch session failed: {tried.trouble}", evidence, fix)
    if not falls:
        says = f"a fall of {tried.depth_pct:.2f} % and more gave no trigger in a scratch session, under these settings"
        return Finding(TRIGGER, Verdict.FAILED, says, evidence, fix, "anchor")
    early = [one for one in falls if one["ts_ms"] < tried.due_ms]
    if stays or early:
        what = f"{len(stays)} triggers without the fall" if stays else "a trigger before the fall was deep enough"
        return Finding(TRIGGER, Verdict.FAILED, f"{what}, in a scratch session", evidence, fix, "anchor")
    first, after_s = falls[0], (falls[0]["ts_ms"] - tried.due_ms) / 1000
    says = (
        f"in a scratch session a fall of {tried.depth_pct:.2f} % fired after {after_s:g} s "
        f"({first['reference_source']}, {first['outcome']}), and a third of it did not"
    )
    return Finding(TRIGGER, Verdict.OK, says, evidence)


def no_order(scene: Scene) -> Finding:
    """See that a bot which observes has made no order since it does."""
    if not scene.bot.is_running:
        return Finding(NO_ORDER, Verdict.NOT_APPLICABLE, "no bot runs")
    look = scene.until(lambda look: bool(look.status), STREAMS_S)
    if look.is_trading:
        says = f"it trades: GLOBAL_TRADING is on, with {look.bot.get('mode')} orders"
        return Finding(NO_ORDER, Verdict.NOT_APPLICABLE, says, {"mode": look.bot.get("mode")})
    since_ms, orders, looked, is_whole = _orders_back(scene, str(look.bot.get("sid")))
    orders += order_in(look.status, since_ms + scene.settings.TICKER_MAX_AHEAD_S * 1000)
    evidence = {
        "since_ms": since_ms,
        "orders": orders[:20],
        "journal_records": looked,
        "positions": len(look.status.get("positions", ())),
    }
    if orders:
        one = orders[0]
        says = (
            f"{len(orders)} found while it observes: {one.get('type')} of {one.get('symbol')}, {one.get('decision_id')}"
        )
        fix = "tradingbot kill --why ...\ntradingbot explain ID; tradingbot prove: is the record what was decided?"
        return Finding(NO_ORDER, Verdict.FAILED, says, evidence, fix)
    held = f"; {len(look.status['positions'])} positions of before rest" if look.status.get("positions") else ""
    since = "since it observes" if is_whole else f"since {iso(since_ms)}, as far as {ORDERS_S:g} s went back"
    says = f"no order in {looked:,} records of its journal {since}, nor in its status{held}"
    return Finding(NO_ORDER, Verdict.OK, says, evidence)


def _orders_back(scene: Scene, sid: str) -> tuple[int, list[dict[str, Any]], int, bool]:
    """Return since when (ms) a session has not been trading, the orders in its journal since, and how many records.

    Last, whether it was read that far back: where time was over before, all is since where reading ended.
    """
    since_ms, orders, looked = 0, list[dict[str, Any]](), 0
    is_over = within(ORDERS_S)
    stretch: list[dict[str, Any]] = []  # under the settings that are met next
    for found in History(scene.state_dir).newest(JOURNAL):
        record = found.record
        kind = record.get("type")
        if record.get("sid") != sid:
            break
        if kind in ("settings", "session_start"):
            if record["settings"].get("GLOBAL_TRADING"):
                break
            since_ms, orders, stretch = int(record["ts_ms"]), stretch + orders, []
        elif kind in ORDERS or (kind == "decision" and record["outcome"] == "entered"):
            stretch.insert(0, {name: record.get(name) for name in ("type", "ts_ms", "symbol", "decision_id", "side")})
        looked += 1
        if is_over():
            if since_ms:  # what it went by before that is not known: the orders of then may have been wanted
                return since_ms, orders, looked, False
            return int(record["ts_ms"]), stretch, looked, False
    return since_ms, orders, looked, True


def order_in(status: Mapping[str, Any], since_ms: float) -> list[dict[str, Any]]:
    """Return what a status shows of orders since a time (ms of the exchange): entries, and positions entered."""
    entered = [
        {"type": "decision", "ts_ms": one["ts_ms"], "symbol": one["symbol"], "decision_id": one["decision_id"]}
        for one in status.get("decisions", ()) if one["outcome"] == "entered" and one["ts_ms"] >= since_ms
    ]  # fmt: skip
    held = [
        {"type": "position", "ts_ms": one["entry_ms"], "symbol": one["symbol"], "decision_id": one["decision_id"]}
        for one in status.get("positions", ()) if one["entry_ms"] >= since_ms
    ]  # fmt: skip
    return entered + held


def streams(scene: Scene) -> Finding:
    """See between two looks that the four streams grow where they are on, and stand still where they are off."""
    if not scene.bot.is_running:
        return Finding(STREAMS, Verdict.NOT_APPLICABLE, "no bot runs that could write")
    first = scene.first
    if _recording(first) != _recording(scene.look()):
        first = _settled(scene)
    finding = _between(scene, first)
    if finding.verdict is Verdict.FAILED and not finding.evidence["wanted"]:  # it may just have been switched off
        finding = _between(scene, _settled(scene))
    return finding


def _recording(look: Look) -> tuple[Any, Any]:
    flags, told = look.status.get("flags", {}), look.status.get("streams", {})
    return flags.get("FEATURE_PERSIST_STREAMS"), told.get(Stream.TICKS.value, {}).get("state")


def _settled(scene: Scene) -> Look:
    """Return a look by which all is on the disk that was to be written before."""
    time.sleep(FLUSHED_S + scene.settings.STREAM_FLUSH_MS / 1000)
    return scene.look()


def _between(scene: Scene, first: Look) -> Finding:
    """Hold what was written since a look against the flag."""
    wanted = bool(scene.look().status.get("flags", {}).get("FEATURE_PERSIST_STREAMS"))
    needed = {Stream.TICKS, Stream.SNAPSHOTS}

    def is_enough(look: Look) -> bool:
        if look.is_held_back and look.at_s - first.at_s >= WATCHED_S:
            return True
        if look.ticks <= first.ticks or look.at_s - first.at_s < WATCHED_S:
            return False
        return not wanted or needed <= _grown(first, look)

    look = scene.until(is_enough, 0 if polls_rarely(scene.settings) else STREAMS_S)
    told: Mapping[str, Any] = look.status.get("streams", {})
    states = {name: str(facts.get("state")) for name, facts in told.items()}
    dropped = {name: facts["dropped"] for name, facts in told.items() if facts.get("dropped")}
    grown, ticks = _grown(first, look), look.ticks - first.ticks
    evidence = {
        "wanted": wanted, "states": states, "dropped": dropped, "grown": sorted(grown), "ticks": ticks,
        "watched_s": round(look.at_s - first.at_s, 1), "free_mb": look.status.get("disk", {}).get("free_mb"),
    }  # fmt: skip
    seen = f"while {ticks:,} ticks came in"
    degraded = [name for name, state in states.items() if state == "degraded"]
    fix = "df -h, and the log, say what is wrong with the disk; tradingbot doctor"
    if degraded:
        says = f"cannot be written: {', '.join(degraded)}"
        return Finding(STREAMS, Verdict.FAILED, says, evidence, fix, "persistence")
    if not wanted:
        if grown:
            says = f"switched off, and yet written to: {', '.join(sorted(grown))}"
            return Finding(STREAMS, Verdict.FAILED, says, evidence, "tradingbot flags: does the bot go by it?")
        return Finding(STREAMS, Verdict.OK, f"off, and they stand still {seen}", evidence)
    if states.get(Stream.TICKS.value) == "off":
        says = (
            f"switched on, and nothing is recorded: less than MIN_FREE_MB = {scene.settings.MIN_FREE_MB:g} MB are free"
        )
        return Finding(
            STREAMS,
            Verdict.FAILED,
            says,
            evidence,
            "free some room: tradingbot clean ticks --archive-to DIR",
            "persistence",
        )
    if ticks <= 0:
        says = "on; no ticker has come in that could be recorded"
        return Finding(STREAMS, Verdict.NOT_APPLICABLE, says, evidence)
    if missing := needed - grown:
        says = f"switched on, and not written to: {', '.join(sorted(missing))} {seen}"
        return Finding(STREAMS, Verdict.FAILED, says, evidence, fix, "persistence")
    if dropped:
        lost = ", ".join(f"{name} {count:,}" for name, count in dropped.items())
        says = f"on, and they grow {seen}; records lost to the disk since its start: {lost}"
        return Finding(STREAMS, Verdict.WARNING, says, evidence, fix)
    return Finding(STREAMS, Verdict.OK, f"on, and they grow {seen}", evidence)


def _grown(first: Look, look: Look) -> set[str]:
    """Return the streams of which a segment has grown or come up between two looks."""
    grown = set()
    for stream in FOUR:
        before, after = first.sizes.get(stream, {}), look.sizes.get(stream, {})
        if any(size > before.get(name, 0) for name, size in after.items()):
            grown.add(stream.value)
    return grown


def proved(scene: Scene, progress: Progress | None = None) -> Finding:
    """Run the last minutes of the record through the engine again; what a bot is just sealing is looked at twice."""
    finding = _proved(scene, progress)
    if finding.verdict is Verdict.FAILED and scene.bot.is_running:
        finding = _proved(scene, progress)
    return finding


def _proved(scene: Scene, progress: Progress | None) -> Finding:
    try:
        proof = prove(scene.state_dir, progress, scene.last_min, within(PROVED_S))
    except UsageError as error:
        return Finding(PROVED, Verdict.NOT_APPLICABLE, str(error))
    record = proof.to_record()
    inputs, outputs = (sum(session[name] for session in record["sessions"]) for name in ("inputs", "outputs"))
    whys = sorted({why for session in proof.sessions for _, _, why in session.unrecorded})
    evidence = {
        "exit_code": proof.exit_code, "last_min": scene.last_min, "inputs": inputs, "outputs": outputs,
        "damaged": [str(place) for place in proof.report.places[:20]], "unrecorded": whys,
        "verdicts": {session.sid: session.verdict for session in proof.sessions},
    }  # fmt: skip
    fix = (
        f"tradingbot prove --last {scene.last_min:g} shows the first difference; tradingbot fsck names damage and gaps"
    )
    aside = f" (not recorded: {'; '.join(whys)})" if whys else ""
    if proof.exit_code == 0:
        says = f"{inputs:,} inputs of the last {scene.last_min:g} min and all that was decided on them, equal{aside}"
        return Finding(PROVED, Verdict.OK, says, evidence)
    verdicts = set(evidence["verdicts"].values())
    if proof.exit_code == 2 and not proof.is_whole:
        last = f"the last {scene.last_min:g} min"
        says = f"{inputs:,} inputs are equal; {PROVED_S:g} s were too short for the rest of {last}"
        fix = f"tradingbot prove --last {scene.last_min:g} takes the time that it needs"
        return Finding(PROVED, Verdict.WARNING, says, evidence, fix)
    if proof.exit_code == 2 and "cannot tell" not in verdicts and not proof.strangers:
        return Finding(
            PROVED, Verdict.NOT_APPLICABLE, f"nothing to compare in the last {scene.last_min:g} min{aside}", evidence
        )
    if proof.report.damaged:
        wrong = f"{proof.report.damaged} lines cannot be read, the first: {proof.report.places[0]}"
    else:
        lines = proof.text().splitlines()
        wrong = next((line for line in lines if ": equal," not in line), lines[0] if lines else "nothing was compared")
    return Finding(PROVED, Verdict.FAILED, f"the record does not prove itself: {wrong[:300]}", evidence, fix)
