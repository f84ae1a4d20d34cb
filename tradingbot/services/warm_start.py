"""The warm start: checkpoint, recorded ticks and journal give the engine that a bot which never stopped would have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace as replace_settings

from tradingbot.config import Settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Output, Rejected
from tradingbot.engine.recall import recall
from tradingbot.engine.state import Checkpoint
from tradingbot.io.jsonl import encode
from tradingbot.io.jsonl_read import read_jsonl_tail
from tradingbot.io.saved import load_anchors
from tradingbot.io.segments import Segment, list_segments, symbol_of
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream, input_of, output_of, output_record, stream_of
from tradingbot.market.anchor_manager import SavedAnchor
from tradingbot.market.drop_triggers import threshold
from tradingbot.market.guards import Prices, normalise
from tradingbot.market.ticker import Ticker
from tradingbot.market.windows import Point, RollingWindow
from tradingbot.services.memory import Base, Position, Recovered, last_memory, position_of

__all__ = ["CAUGHT_UP", "Recovered", "recover"]

CAUGHT_UP = "caught up"  # what the condition `restart` says: `prove` needs it to the letter
MUTE = {"DROP_TRIGGER_VALUE": 1e-300, "GLOBAL_TRADING": False, "TICKER_MAX_JUMP_PCT": 1_000_000.0}
HOUR_MS = 3_600_000
TOO_LATE = "WARMSTART_MAX_S are over"
NO_TICKS = "what is recorded of it are no ticks"

Record = dict[str, Any]


def recover(
    state_dir: Path,
    settings: Settings,
    amount_steps: Mapping[str, float],
    now_ms: int,
    monotonic: Callable[[], float] = time.monotonic,
) -> Recovered:
    """Return the engine that goes on from what lies under `state_dir`; `now_ms` is the new session's time.

    Where FEATURE_WARMSTART_TICKS is off, and for symbols that were silent for longer than ANCHOR_STALE_MINUTES,
    windows, sessions and triggers begin anew; positions, pending orders, cash and counters always come back. What is
    damaged is told in `troubles`, and never raises.
    """
    return _Recovery(state_dir, settings, amount_steps, now_ms, monotonic).run()


class _Recovery:
    """Do what `recover` says, phase by phase, until WARMSTART_MAX_S are over: the rest is then cold."""

    def __init__(
        self,
        state_dir: Path,
        settings: Settings,
        amount_steps: Mapping[str, float],
        now_ms: int,
        monotonic: Callable[[], float],
    ) -> None:
        self._state_dir, self._settings, self._steps, self._now_ms = state_dir, settings, amount_steps, now_ms
        self._monotonic = monotonic
        self._began_s = self._phase_s = monotonic()
        self._is_warm = settings.FEATURE_WARMSTART_TICKS
        self.result = Recovered(Engine(settings, amount_steps))

    def run(self) -> Recovered:
        """Return the engine and how it came about."""
        result = self.result
        memory = last_memory(self._state_dir)
        result.troubles += memory.troubles
        self._phase("checkpoint")
        base = memory.base
        if base is not None and memory.is_whole and self._is_warm:
            result.kind, result.source = "warm", "checkpoint"
            self._go_on(base, memory.records)
        else:
            engine = Engine(self._settings, self._steps)
            if base is not None:
                engine.restore({**base.checkpoint, "windows": {}})
                for record in memory.records:
                    self._recall(engine, record)
            self._begin_anew(engine, base)
        self._end()
        return result

    def _phase(self, name: str) -> None:
        now = self._monotonic()
        self.result.ms[name] = round((now - self._phase_s) * 1000, 1)
        self._phase_s = now

    def _is_late(self) -> bool:
        return self._monotonic() - self._began_s > self._settings.WARMSTART_MAX_S

    # from a checkpoint

    def _go_on(self, base: Base, journal: Sequence[Record]) -> None:
        """Fill the windows by the ticks up to the checkpoint, and run what came after it."""
        checkpoint = base.checkpoint
        lookback_ms = checkpoint["settings"]["WINDOW_LOOKBACK_S"] * 1000
        windows = {symbol: RollingWindow(**ends) for symbol, ends in checkpoint["windows"].items()}
        wanted = {
            memory["symbol"]: memory["ts_ms"] - lookback_ms
            for memory in checkpoint["symbols"]
            if memory["symbol"] not in windows and not memory["fresh"]
        }
        later: dict[Position, Record] = {}
        for symbol, series, segments in self._recorded():
            try:
                self._take(base, symbol, series, segments, wanted.get(symbol), windows, later)
            except (KeyError, TypeError, AssertionError):
                self.result.cold[symbol] = NO_TICKS
        self._phase("ticks")
        engine = self.result.engine
        engine.restore({**checkpoint, "windows": {symbol: window.points() for symbol, window in windows.items()}})
        self._catch_up(engine, later, journal)
        self._phase("catch_up")
        stale_ms = self._settings.ANCHOR_STALE_MINUTES * 60_000
        for symbol, state in engine.states.items():
            if not state.fresh and self._now_ms - state.ts_ms > stale_ms:
                self.result.cold.setdefault(symbol, f"silent for {(self._now_ms - state.ts_ms) / HOUR_MS:.1f} h")
        self._chill(engine, self.result.cold, base)

    def _take(
        self,
        base: Base,
        symbol: str,
        series: str,
        segments: list[Segment],
        cut_ms: float | None,
        windows: dict[str, RollingWindow],
        later: dict[Position, Record],
    ) -> None:
        """Read a symbol's ticks behind the checkpoint, and those after `cut_ms` for its window, unless that is None."""
        records = read_jsonl_tail(
            self._state_dir / FOLDERS[Stream.TICKS], series, 0,
            partial(_is_enough, base=base.position, cut_ms=math.inf if cut_ms is None else cut_ms),
            segments=segments, ordered=True,
        )  # fmt: skip
        while records and ((position := position_of(records[-1])) is None or position > base.position):
            record = records.pop()
            if position is not None:
                later[position] = record
                self._count(symbol, position, 1)
        if cut_ms is not None:
            self._fill(windows, symbol, [record for record in records if "seq" in record and record["ts_ms"] > cut_ms])

    def _fill(self, windows: dict[str, RollingWindow], symbol: str, records: list[Record]) -> None:
        """Make the window that holds these ticks, all within its lookback: their last maxima and minima."""
        highs: list[Point] = []
        lows: list[Point] = []
        high, low = -math.inf, math.inf
        for record in reversed(records):
            last = record["last"]
            if type(last) is not float:
                last = _last(record)
            if last > high:
                high = last
                highs.append((record["ts_ms"], last))
            if last < low:
                low = last
                lows.append((record["ts_ms"], last))
        if highs:
            windows[symbol] = RollingWindow(reversed(highs), reversed(lows))
            for record in (records[0], records[-1]):
                self._count(symbol, (record["sid"], record["seq"]), 0)
            self.result.ticks += len(records)

    def _catch_up(self, engine: Engine, later: dict[Position, Record], journal: Sequence[Record]) -> None:
        """Run every input behind the checkpoint; what the journal holds stands, what it does not is blocked."""
        told: dict[Position, list[Record]] = {}
        for record in journal:
            position = position_of(record)
            if position is None:
                continue
            if "cause" in record:
                told.setdefault(position, []).append(record)
            elif "seq" in record:
                later.setdefault(position, record)
        for position in sorted({*later, *told}):
            held, found = told.get(position, []), later.get(position)
            event = None if found is None else _input(found)
            if event is None or self._is_late():
                if found is not None and "symbol" in found:
                    self.result.cold.setdefault(found["symbol"], TOO_LATE)
                for record in held:
                    self._recall(engine, record)
                continue
            is_decided = any(record.get("type") == "decision" and "restart" not in record["reasons"] for record in held)
            if not is_decided:
                engine.conditions["restart"] = CAUGHT_UP
            engine.seq = position[1] - 1
            outputs = engine.process(event)
            engine.conditions.pop("restart", None)
            self.result.caught_up += 1
            self._settle(engine, position, outputs, held)

    def _settle(self, engine: Engine, position: Position, outputs: tuple[Output, ...], held: list[Record]) -> None:
        """Keep what the journal does not hold of an answer, and see that the rest is what it holds."""
        made = [output for output in outputs if stream_of(output) is JOURNAL and not isinstance(output, Rejected)]
        lines = [encode(output_record(position[0], output)) for output in made]
        for record in held:
            line = encode(record)
            if line in lines:
                place = lines.index(line)
                del lines[place], made[place]
            else:
                self.result.troubles.append(
                    f"input {position[1]} of {position[0]} is answered otherwise: {line!r:.200}"
                )
                self._recall(engine, record)
        self.result.late += [(position[0], output) for output in made]

    def _recall(self, engine: Engine, record: Record) -> None:
        if "cause" not in record:
            return
        try:
            recall(engine, output_of(record))
        except (ValueError, KeyError, TypeError) as error:
            self.result.troubles.append(f"a record of the journal cannot be taken over: {error}")

    # without one

    def _begin_anew(self, trading: Engine, base: Base | None) -> None:
        """Begin with what `trading` holds in positions, orders and cash; from recorded ticks where that is wanted."""
        saved, discarded = self._saved_anchors(base)
        engine = self.result.engine
        if self._is_warm:
            self._build(engine, saved)
        checkpoint, old = engine.checkpoint(), trading.checkpoint()
        built = {memory.symbol: memory for memory in checkpoint.symbols}
        for memory in (memory.begun_anew() for memory in old.symbols):
            there = built.setdefault(memory.symbol, memory)
            there.order, there.position, there.parked = memory.order, memory.position, memory.parked
            there.last_exit_ms = memory.last_exit_ms
        checkpoint.symbols = list(built.values())
        checkpoint.account, checkpoint.conditions = old.account, old.conditions
        checkpoint.positions, checkpoint.orders = old.positions, old.orders
        checkpoint.now_ms = max(checkpoint.now_ms, old.now_ms)
        engine.restore(checkpoint)
        rest = {symbol: anchor for symbol, anchor in saved.items() if engine.state(symbol).fresh}
        self.result.discarded = discarded | engine.load_anchors(rest, self._now_ms)

    def _build(self, engine: Engine, saved: Mapping[str, SavedAnchor]) -> None:
        """Build window, session and anchor of each symbol from its last ticks; nothing fires."""
        settings = self._settings
        lookback_ms, stale_ms = settings.WINDOW_LOOKBACK_S * 1000, settings.ANCHOR_STALE_MINUTES * 60_000
        engine.restore(Engine(replace_settings(settings, **MUTE), self._steps).checkpoint())
        ticks: dict[str, list[Record]] = {}
        for symbol, series, segments in self._recorded():
            try:
                found = self._last_ticks(series, segments, lookback_ms)
            except (KeyError, TypeError, AssertionError):
                self.result.cold[symbol] = NO_TICKS
                continue
            silent_ms = self._now_ms - found[-1]["ts_ms"] if found else 0
            if silent_ms > stale_ms:
                self.result.cold[symbol] = f"silent for {silent_ms / HOUR_MS:.1f} h"
            elif found:
                ticks[symbol] = found
        self._phase("ticks")
        engine.load_anchors({symbol: anchor for symbol, anchor in saved.items() if symbol in ticks}, self._now_ms)
        for symbol, found in ticks.items():  # one after the other: where nothing fires no symbol knows of another
            for record in found:
                engine.tick(Ticker(symbol, record["ts_ms"], record["last"], record["bid"], record["ask"]))
            for record in (found[0], found[-1]):
                self._count(symbol, (record["sid"], record["seq"]), 0)
            self.result.ticks += len(found)
        if ticks:
            self.result.kind, self.result.source = "warm", "ticks"
        checkpoint = engine.checkpoint()
        checkpoint.settings = settings
        engine.restore(checkpoint)
        rules = engine.rules
        for state in engine.states.values():
            if state.fresh:
                continue
            limit = threshold(rules.reference(state), rules.value, rules.zone)
            state.armed, state.below = state.last > limit * rules.rearm_factor, 0
        self._phase("build")

    def _last_ticks(self, series: str, segments: list[Segment], lookback_ms: float) -> list[Record]:
        """Return the last WARMSTART_MAX_TICKS ticks of a series, and no fewer than its window needs."""
        folder, count = self._state_dir / FOLDERS[Stream.TICKS], max(self._settings.WARMSTART_MAX_TICKS, 1)
        newest = read_jsonl_tail(folder, series, 1, segments=segments)
        if not newest:
            return []
        is_old = partial(_is_old, cut_ms=newest[0]["ts_ms"] - lookback_ms)
        found = read_jsonl_tail(folder, series, count, is_old, segments=segments, ordered=True)
        return [record for record in found if "seq" in record]

    # both

    def _saved_anchors(self, base: Base | None) -> tuple[dict[str, SavedAnchor], dict[str, str]]:
        """Return the persisted anchors; none where the last session ran without them."""
        max_age_ms = int(self._settings.ANCHOR_MAX_AGE_HOURS * HOUR_MS)
        kept, where, troubles = load_anchors(self._state_dir, self._now_ms - max_age_ms)
        self.result.troubles += troubles
        if troubles:
            self.result.troubles.append(f"anchors are taken from {where}")
        if base is not None and not base.checkpoint["settings"]["FEATURE_ANCHOR_ENABLED"]:
            return {}, {}
        saved = {
            symbol: SavedAnchor(facts["price"], facts["set_ms"], facts["set_cause"], facts["price_ms"])
            for symbol, facts in kept.items()
        }
        return saved, {}

    def _chill(self, engine: Engine, cold: Mapping[str, str], base: Base) -> None:
        """Let symbols begin anew, with what was bought of them and the anchors that were persisted."""
        if not cold:
            return
        checkpoint = engine.checkpoint()
        checkpoint.symbols = [m.begun_anew() if m.symbol in cold else m for m in checkpoint.symbols]
        for symbol in cold:
            checkpoint.windows.pop(symbol, None)
        engine.restore(checkpoint)
        saved, _ = self._saved_anchors(base)
        wanted = {symbol: anchor for symbol, anchor in saved.items() if symbol in cold}
        self.result.discarded = engine.load_anchors(wanted, self._now_ms)

    def _end(self) -> None:
        """Let the new session count its inputs from 1, with the markets as they are now."""
        checkpoint: Checkpoint = self.result.engine.checkpoint()
        checkpoint.seq = 0
        checkpoint.amount_steps |= self._steps
        for name in ("degraded", "restart"):  # of the session that ended
            checkpoint.conditions.pop(name, None)
        for memory in checkpoint.symbols:
            anchor = memory.anchor
            if anchor is not None:  # numbers of earlier sessions mean nothing in this one
                anchor.set_seq = 0
                anchor.clamp_seq = None if anchor.clamp_seq is None else 0
        self.result.engine.restore(checkpoint)
        self.result.symbols = sum(not memory.fresh for memory in checkpoint.symbols)
        self._phase("begin")

    def _recorded(self) -> Iterator[tuple[str, str, list[Segment]]]:
        """Yield symbol, series and segments of recorded ticks while there is time; who comes after that starts cold."""
        found: dict[str, list[Segment]] = {}
        for segment in list_segments(self._state_dir / FOLDERS[Stream.TICKS]):
            found.setdefault(segment.series, []).append(segment)
        for series, segments in found.items():
            symbol = symbol_of(series)
            if symbol is None:
                continue
            if self._is_late():
                self.result.cold[symbol] = TOO_LATE
            else:
                yield symbol, series, segments

    def _count(self, symbol: str, position: Position, ticks: int) -> None:
        self.result.ticks += ticks
        first, _ = self.result.tick_ranges.get(symbol, (position, position))
        self.result.tick_ranges[symbol] = (min(first, position), position)


def _is_enough(record: Record, base: Position, cut_ms: float) -> bool:
    position = position_of(record)
    return position is not None and position <= base and (cut_ms == math.inf or record["ts_ms"] <= cut_ms)


def _is_old(record: Record, cut_ms: float) -> bool:
    return bool(record["ts_ms"] <= cut_ms)


def _last(record: Record) -> float:
    prices = normalise(record["last"], record["bid"], record["ask"])
    assert isinstance(prices, Prices)  # it was accepted
    return prices.last


def _input(record: Record) -> Any:
    try:
        return input_of(record)
    except (ValueError, KeyError):
        return None
