"""What the bot remembers: anchors that cannot be, starts that were slow or wrong, triggers that nobody expected."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import statistics
import tempfile
import time
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.doctor.patient import UNMENDED, Patient, number, rows

if TYPE_CHECKING:
    from tradingbot.services.memory import Recovered

__all__ = ["absurd_anchors", "anchors", "read_anchors", "unexpected_triggers", "warm_start", "windows_by_ticks"]

ANCHORS = "anchors/anchors.json"
MAX_BYTES = 64_000_000
ABSURD_PCT = 25.0  # that an anchor stands from the last price
FUTURE_MS = 60_000
SLOW_MS = 2_000.0
NEVER = ("", 0)
SNAPSHOTS = 2_000  # of the newest, in which every symbol of a bot stands
RECOMPUTED_S = 0.8  # for each of two starts
NEWEST = 50  # triggers that are looked at
ALONE_PCT = 0.5  # by which a tick stands out from those around it
AROUND_MS, AROUND = 30_000, 5
LOOK_S = 0.8


class BadAnchorsError(ValueError):
    """Say why anchors.json cannot be used."""


def read_anchors(path: Path) -> dict[str, tuple[float, int]]:
    """Return price and time (ms) of each saved anchor; raise BadAnchorsError where the file is none, OSError too.

    It is read as a start reads it: checksum, then shape; one without a checksum was written by hand.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise BadAnchorsError("it is no plain file")
    if path.stat().st_size > MAX_BYTES:
        raise BadAnchorsError("too large to be one")
    text = path.read_bytes()
    try:
        record = json.loads(text)
        anchors = record["anchors"]
        if record.get("v") != 1:
            raise BadAnchorsError("it is of another version")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise error if isinstance(error, BadAnchorsError) else BadAnchorsError("no JSON, or torn") from None
    if "crc" in record:
        line = text.removesuffix(b"\n")
        if line[-18:] != b',"crc":"%08x"}' % zlib.crc32(line[:-18]):
            raise BadAnchorsError("its checksum is wrong: it was changed after it was written (by hand? leave crc out)")
    found = {}
    for symbol, facts in anchors.items() if isinstance(anchors, dict) else ():
        price, set_ms = (facts.get(name) if isinstance(facts, dict) else None for name in ("price", "set_ms"))
        if not isinstance(price, int | float) or isinstance(price, bool) or type(set_ms) is not int:
            raise BadAnchorsError(f"{symbol!s:.40} is no anchor")
        found[symbol] = (float(price), int(set_ms))
    if not isinstance(anchors, dict):
        raise BadAnchorsError("it holds no anchors")
    return found


def absurd_anchors(patient: Patient) -> dict[str, str]:
    """Return the anchors that cannot be, by symbol with why: the saved ones, and those that the running bot goes by."""
    last = {str(row.get("symbol")): number(row.get("last"), 0) for row in patient.symbols}
    known: dict[str, tuple[float, int]] = {}
    if not patient.is_running:
        with contextlib.suppress(OSError, BadAnchorsError):
            known = read_anchors(patient.state_dir / ANCHORS)
    now_ms = patient.now_ms()
    for row in patient.symbols:
        if patient.is_running and row.get("reference_source") == "anchor" and row.get("reference") is not None:
            known[str(row.get("symbol"))] = (number(row["reference"], math.nan), 0)
    found = {}
    for symbol, (price, set_ms) in known.items():
        if not (math.isfinite(price) and price > 0):
            found[symbol] = f"{price:g} is no price"
        elif set_ms > now_ms + FUTURE_MS:
            found[symbol] = f"{price:g}, set {(set_ms - now_ms) / 3_600_000:.1f} h in the future"
        elif last.get(symbol, 0) > 0 and abs(price / last[symbol] - 1) * 100 > ABSURD_PCT:
            found[symbol] = f"{price:g}, {(price / last[symbol] - 1) * 100:+.0f} % from the last price {last[symbol]:g}"
    return found


def anchors(patient: Patient) -> Iterator[Finding]:
    """Say whether the saved anchors can be read, and whether any anchor cannot be."""
    if not patient.setting("FEATURE_ANCHOR_ENABLED"):
        says = "rolled back (FEATURE_ANCHOR_ENABLED is off): they rest"
        yield Finding("anchors", Verdict.NOT_APPLICABLE, says)
        return
    path, fix = patient.state_dir / ANCHORS, "tradingbot doctor --fix anchors"
    trouble = ""
    count = 0
    try:
        count = len(read_anchors(path))
    except FileNotFoundError:
        pass
    except (OSError, BadAnchorsError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        trouble = f"{path} cannot be used: {why}"
    if trouble:
        yield Finding(
            "anchors",
            Verdict.FAILED,
            trouble,
            {"file": str(path)},
            fix + " (sets it aside; the file before it, or the stream, takes its place)",
            "anchor",
        )
    absurd = absurd_anchors(patient)
    if absurd:
        words = "; ".join(f"{symbol} {why}" for symbol, why in list(absurd.items())[:5])
        more = f" and {len(absurd) - 5} more" if len(absurd) > 5 else ""
        yield Finding(
            "anchors", Verdict.FAILED, f"cannot be: {words}{more}", absurd, fix + " (has them begin anew)", "anchor"
        )
    aside = sorted(each.name for each in path.parent.glob("anchors*.bad-*"))
    aside += sorted(each.name for each in patient.state_dir.glob("checkpoint.json.bad-*"))
    if aside:
        text = "look at it, then move it away: nothing reads it"
        yield Finding(
            "set aside", Verdict.WARNING, f"a start found damaged: {', '.join(aside[:5])}", {"files": aside}, text
        )
    if not trouble and not absurd:
        yield Finding(
            "anchors", Verdict.OK, f"{count} are saved, each near its price" if count else "none is saved yet"
        )


def warm_start(patient: Patient) -> Iterator[Finding]:
    """Say what took the last start its time, and hold it against starts made anew from what is recorded."""
    told = patient.status.get("warm_start")
    if isinstance(told, dict) and told:
        yield _phases(patient, told)
    if patient.is_unmended or patient.effective is None:
        yield Finding(
            "start anew",
            Verdict.NOT_APPLICABLE,
            f"a start {UNMENDED}" if patient.is_unmended else "the settings are broken",
        )
        return
    if not (patient.state_dir / "checkpoint.json").exists():
        yield Finding("start anew", Verdict.NOT_APPLICABLE, "nothing is remembered yet")
        return
    yield _recomputed(patient)


def _phases(patient: Patient, told: dict[str, Any]) -> Finding:
    phases = {str(k): number(v, 0) for k, v in told["ms"].items()} if isinstance(told.get("ms"), dict) else {}
    total = sum(phases.values())
    parts = ", ".join(f"{name} {ms:.0f} ms" for name, ms in phases.items())
    symbols, ticks = (number(told.get(name), 0) for name in ("symbols", "ticks"))
    says = f"{told.get('kind')!s:.20}, {symbols:.0f} symbols, {ticks:.0f} ticks: {total:.0f} ms ({parts})"
    if total > SLOW_MS:
        slowest = max(phases, key=lambda name: phases[name])
        fix = (
            f"most of it went into {slowest}: tradingbot set WARMSTART_MAX_S=1 bounds it from the next start on "
            "(symbols that come later start cold); a smaller WARMSTART_MAX_TICKS too"
        )
        return Finding("warm start", Verdict.WARNING, f"slow: {says}", {"ms": phases}, fix, "warmstart")
    return Finding("warm start", Verdict.OK, says, {"ms": phases})


def _recomputed(patient: Patient) -> Finding:
    """Start twice from copies, with the checkpoint and without: the windows must be the same."""
    name = "start anew"
    assert patient.effective is not None
    with tempfile.TemporaryDirectory(prefix="tradingbot-doctor-") as folder:
        warm, took_s = _start(patient, Path(folder) / "warm", with_checkpoint=True)
        cold, _ = _start(patient, Path(folder) / "cold", with_checkpoint=False)
    evidence: dict[str, Any] = {
        "seconds": round(took_s, 3),
        "ms": warm.ms,
        "troubles": warm.troubles,
        "cold": warm.cold,
    }
    damaged = [
        text.replace(f"{folder}/warm", str(patient.state_dir)).replace(f"{folder}/cold", str(patient.state_dir))
        for text in warm.troubles
    ]
    if damaged:
        fix = "tradingbot fsck; a start goes on from what is whole: tradingbot rollback warmstart begins without it"
        return Finding(
            name,
            Verdict.FAILED,
            f"would not go on from all of it: {'; '.join(damaged)[:300]}",
            evidence,
            fix,
            "warmstart",
        )
    if not patient.setting("FEATURE_PERSIST_STREAMS"):
        return Finding(
            name, Verdict.NOT_APPLICABLE, "ticks are not recorded: windows are in the checkpoint alone", evidence
        )
    shown, looked, begun = windows_by_ticks(patient)
    different: dict[str, Any] = {}
    compared = 0
    for symbol, state in warm.engine.states.items():
        other = cold.engine.states.get(symbol)
        if other is None or state.fresh or other.fresh or state.ts_ms != other.ts_ms:  # cold, or it ticked meanwhile
            continue
        if begun is None or symbol in begun:  # ticks alone do not tell of a reset, or of another lookback
            continue
        compared += 1
        pair = tuple((each.window.peak, each.window.trough) for each in (state, other))
        if pair[0] != pair[1]:
            different[symbol] = [list(pair[0]), list(pair[1])]
    different |= shown
    evidence |= {"different": different, "compared": compared, "snapshots": looked}
    if different:
        symbol, (ours, theirs) = next(iter(different.items()))
        says = (
            f"{len(different)} windows are others than the recorded ticks make them: {symbol} "
            f"{ours[1]:g} .. {ours[0]:g}, by its ticks {theirs[1]:g} .. {theirs[0]:g}"
        )
        fix = "tradingbot fsck shows what is missing; tradingbot rollback warmstart --restart begins without the past"
        return Finding(name, Verdict.FAILED, says, evidence, fix, "warmstart")
    if not compared:
        says = (
            f"took {took_s * 1000:.0f} ms; no window that could be compared: each began anew, or has changed meanwhile"
        )
        return Finding(name, Verdict.OK, says, evidence)
    says = f"took {took_s * 1000:.0f} ms; windows by checkpoint and by recorded ticks are the same ({compared} symbols)"
    return Finding(name, Verdict.OK, says, evidence)


def windows_by_ticks(
    patient: Patient,
) -> tuple[dict[str, list[list[float]]], int, dict[str, tuple[str, int]] | None]:
    """Return the windows that the bot showed last and its ticks do not make, how many were looked at, and the resets.

    Each is peak and trough (quote), as shown and by the ticks; where a session or a reset began the window anew, only
    the ticks since then count. Symbols for which there is no time are left out. Resets, and starts without the past,
    are by symbol, as sid and seq; None where the lookback was another one.
    """
    from tradingbot.io.streams import JOURNAL, Stream
    from tradingbot.ops.record.history import History

    history, end_s = History(patient.state_dir), time.monotonic() + LOOK_S
    lookback_ms = int(number(patient.setting("WINDOW_LOOKBACK_S"), 0) * 1000)
    newest: dict[str, dict[str, Any]] = {}
    for each in islice(history.newest(Stream.SNAPSHOTS), SNAPSHOTS):
        newest.setdefault(each.record["symbol"], each.record)
    begun: dict[str, tuple[str, int]] = {}  # by which input
    oldest_ms = min((record["ts_ms"] for record in newest.values()), default=0) - lookback_ms
    cold: dict[str, tuple[str, int]] = {}  # by the start of a session, if there was one before
    for each in history.newest(JOURNAL):
        record = each.record
        if record["ts_ms"] < oldest_ms:
            break
        begun = cold | begun
        if record.get("type") == "session_start" and isinstance(record.get("start"), dict):
            anew = record["start"].get("cold") if record["start"].get("kind") == "warm" else newest
            cold = dict.fromkeys(anew or (), (record["sid"], 0))
        if record.get("type") == "settings":
            chosen = record.get("settings")
            if not isinstance(chosen, dict) or chosen.get("WINDOW_LOOKBACK_S") != lookback_ms / 1000:
                return {}, 0, None  # another lookback: what the windows held is not told by today's
        if record.get("type") == "anchor_reset":
            begun.setdefault(str(record.get("symbol")), (record["sid"], record["seq"]))
    found, looked = {}, 0
    for symbol, shown in newest.items():
        if time.monotonic() > end_s:
            break
        lasts: list[float] = []
        since: list[float] = []  # of the session that showed it: where it began the window anew
        for each in history.ticks_back(symbol, shown["ts_ms"]):
            record = each.record
            if record["ts_ms"] <= shown["ts_ms"] - lookback_ms:
                break
            if "last" not in record:  # a gap: nobody can tell
                lasts.clear()
                break
            if begun.get(symbol, NEVER) < (record["sid"], record["seq"]) <= (shown["sid"], shown["cause"]):
                lasts.append(record["last"])
                since += [record["last"]] if record["sid"] == shown["sid"] else []
        if not lasts:
            continue
        looked += 1
        ours = [shown["peak"], shown["trough"]]
        made = [[max(prices), min(prices)] for prices in (lasts, since or lasts)]
        if ours not in made:
            found[symbol] = [ours, made[0]]
    return found, looked, begun


def _start(patient: Patient, folder: Path, with_checkpoint: bool) -> tuple[Recovered, float]:
    """Return what a start would make of copies of the state files beside the records, which it only reads."""
    from msgspec.structs import replace

    from tradingbot.services.warm_start import recover

    assert patient.effective is not None
    folder.mkdir()
    for name in ("drop_windows", "journal"):
        if (patient.state_dir / name).is_dir():
            (folder / name).symlink_to((patient.state_dir / name).resolve())
    (folder / "anchors").mkdir()
    for name in (
        "anchors/anchors.json",
        "anchors/anchors.last.json",
        *(("checkpoint.json",) if with_checkpoint else ()),
    ):
        if (patient.state_dir / name).is_file():
            with contextlib.suppress(OSError):
                shutil.copyfile(patient.state_dir / name, folder / name)
    settings = replace(patient.effective.settings, WARMSTART_MAX_S=RECOMPUTED_S, FEATURE_WARMSTART_TICKS=True)
    began_s = time.perf_counter()
    return recover(folder, settings, {}, patient.now_ms()), time.perf_counter() - began_s


def unexpected_triggers(patient: Patient) -> Iterator[Finding]:
    """Say which of the latest triggers were measured from an anchor that no market had seen, and which tick set it."""
    decisions, name = rows(patient.status.get("decisions")), "references"
    decisions = [each for each in decisions if each.get("reference_source") == "anchor"][-NEWEST:]
    if not decisions:
        yield Finding(name, Verdict.NOT_APPLICABLE, "no trigger of late was measured from an anchor")
        return
    clamp = number(patient.setting("ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT"), 0.5)
    in_force = {(str(row.get("symbol")), row.get("reference")) for row in patient.symbols}
    far: list[str] = []
    alone: list[str] = []
    holds = False
    looked: dict[tuple[str, int], str] = {}
    end_s = time.monotonic() + LOOK_S
    for each in decisions:
        symbol, price = str(each.get("symbol")), number(each.get("reference"), 0)
        before = len(far) + len(alone)
        peak = max(number(each.get("session_peak"), 0), number(each.get("window_peak"), 0))
        if peak > 0 and price > peak * (1 + (clamp + ALONE_PCT) / 100):
            above = (price / peak - 1) * 100
            far.append(
                f"{each.get('decision_id')!s:.60}: anchor {price:g}, {above:.1f} % above any price of its session"
            )
        facts = each.get("anchor")
        if isinstance(facts, dict) and not patient.is_unmended and time.monotonic() < end_s:
            key = (symbol, int(number(facts.get("price_ms"), 0)))
            if key not in looked:
                looked[key] = _stands_alone(patient, *key)
            if looked[key]:
                alone.append(f"{each.get('decision_id')!s:.60}: {looked[key]}")
        if len(far) + len(alone) > before and (symbol, each.get("reference")) in in_force:
            holds = True
            fix = f"tradingbot explain {each.get('decision_id')!s:.60} shows it"
            fix += f"; tradingbot anchors reset {symbol:.40} has it begin anew"
    if not holds:
        fix = "another anchor is in force by now: nothing needs to be done"
    verdict = Verdict.FAILED if holds else Verdict.WARNING
    if far:
        yield Finding(name, verdict, f"{len(far)} of {len(decisions)}: {far[-1]}", {"far": far}, fix, "anchor")
    if alone:
        says = f"{len(alone)} of {len(decisions)} were measured from a tick that stands alone: {alone[-1]}"
        fix += "\na smaller TICKER_MAX_JUMP_PCT refuses such a tick"
        yield Finding(name, verdict, says, {"alone": alone}, fix, "anchor")
    if not far and not alone:
        says = f"{len(decisions)} triggers of late, each measured from an anchor that its market had seen"
        yield Finding(name, Verdict.OK, says, {"ticks_looked_at": len(looked)})


def _stands_alone(patient: Patient, symbol: str, price_ms: int) -> str:
    """Return how far the tick that an anchor was taken from stands from those around it, "" where it does not."""
    from tradingbot.ops.record.history import History

    history = History(patient.state_dir)
    before = [f.record for f in islice(history.ticks_back(symbol, price_ms), AROUND + 1)]
    after = [f.record for f in islice(history.ticks(symbol, price_ms + 1, price_ms + AROUND_MS), AROUND)]
    if not before or before[0]["ts_ms"] != price_ms or not after or len(before) < 2:
        return ""
    last, others = before[0]["last"], [record["last"] for record in (*before[1:], *after)]
    middle = statistics.median(others)
    gap_pct = (last / middle - 1) * 100
    spread_pct = (max(others) / min(others) - 1) * 100
    if gap_pct > ALONE_PCT and gap_pct > 3 * spread_pct:
        return f"{last:g}, {gap_pct:+.1f} % from the {len(others)} ticks around it"
    return ""
