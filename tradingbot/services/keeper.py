"""The keeper: checkpoint.json and anchors.json follow the engine, so that a restart goes on where it was."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tradingbot.config import Settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.state import NO_TICK_MS, SymbolState
from tradingbot.io.saved import Kept, anchors_line, checkpoint_line, save_anchors, save_checkpoint
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.io.streams import Stream

__all__ = ["Keeper", "kept_anchors"]

log = logging.getLogger(__name__)

SAY_S = 60.0  # between two lines on the same trouble


class Keeper:
    """Write checkpoint.json and anchors.json of one session, by the writer's thread, behind all that led to them.

    A checkpoint holds no window whose ticks are all recorded: those are read again at the start. `is_recorded` says
    whether ticks are recorded now; `monotonic` gives the seconds that CHECKPOINT_S is measured by. A file that cannot
    be written stays as it was, is tried again after CHECKPOINT_S, and blocks nothing.

    *Who calls it*: `keep` and `look` come from the engine's thread; `written` is called on the writer's thread when a
    checkpoint that was asked for while another one was being written can be made.
    """

    def __init__(
        self,
        state_dir: Path,
        sid: str,
        engine: Engine,
        writer: StreamWriter,
        settings: Callable[[], Settings],
        is_recorded: Callable[[], bool],
        now_ms: Callable[[], int],
        written: Callable[[], None],
        durable: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state_dir, self._sid, self._engine, self._writer = state_dir, sid, engine, writer
        self._settings, self._is_recorded, self._now_ms = settings, is_recorded, now_ms
        self._written, self._durable, self._monotonic = written, durable, monotonic
        self._solid_ms = engine.now_ms  # engine time since when every accepted tick has been recorded
        self._lookback_s = settings().WINDOW_LOOKBACK_S
        self._was_recorded, self._dropped = True, 0
        self._seq, self._kept_s, self._said_s = -1, monotonic(), float("-inf")
        self._anchors: bytes | None = None  # as they were written last
        self._is_busy = self._is_asked = False

    def keep(self) -> None:
        """Have a checkpoint written: something has happened that must not be forgotten."""
        self._is_asked = True
        self._watch()
        if not self._is_busy:
            self._write()

    def look(self) -> None:
        """Have a checkpoint written where the last one is CHECKPOINT_S old and something has changed since."""
        self._watch()
        if self._is_busy or self._seq == self._engine.seq:
            return
        if self._is_asked or self._monotonic() - self._kept_s >= self._settings().CHECKPOINT_S:
            self._write()

    def end(self) -> None:
        """Have a last checkpoint written."""
        self._watch()
        self._write()

    def _watch(self) -> None:
        """Take note of ticks that are not recorded, and of windows that recorded ticks do not tell."""
        is_recorded, dropped = self._is_recorded(), self._writer.states[Stream.TICKS].dropped
        lookback_s = self._settings().WINDOW_LOOKBACK_S
        if not (is_recorded and self._was_recorded and dropped == self._dropped and lookback_s == self._lookback_s):
            self._solid_ms = self._engine.now_ms
        self._was_recorded, self._dropped, self._lookback_s = is_recorded, dropped, lookback_s

    def _write(self) -> None:
        engine, now_ms = self._engine, self._now_ms()
        self._is_busy, self._is_asked, self._kept_s = True, False, self._monotonic()
        seq, dropped = engine.seq, self._dropped
        lookback_ms = self._lookback_s * 1000
        untold = [symbol for symbol, state in engine.states.items() if self._is_untold(state, lookback_ms)]
        text = checkpoint_line(self._sid, seq, now_ms, msgspec.json.encode(engine.memory(untold)))
        anchors = msgspec.json.encode(kept_anchors(engine)) if engine.rules.uses_anchor else self._anchors
        has_moved = anchors != self._anchors

        def job() -> None:  # on the writer's thread
            try:
                if self._writer.states[Stream.TICKS].dropped == dropped:  # else the windows cannot be made again
                    if self._durable:  # it must not outlive, in a power loss, the decisions that it knows of
                        self._writer.sync_journal()
                    save_checkpoint(self._state_dir, text, self._durable)
                    self._seq = seq
                if has_moved and anchors is not None:
                    save_anchors(self._state_dir, anchors_line(self._sid, now_ms, anchors), self._durable)
                    self._anchors = anchors
                self._said_s = float("-inf")
            except OSError as error:
                self._trouble(error)
            finally:
                self._is_busy = False
            if self._is_asked:
                self._written()

        self._writer.run(job)

    def _is_untold(self, state: SymbolState, lookback_ms: float) -> bool:
        """Say whether recorded ticks do not tell a symbol's window: its session or the recording began within it."""
        since_ms = max(state.first_ms, self._solid_ms)
        return state.ts_ms != NO_TICK_MS and (state.fresh or state.ts_ms - lookback_ms < since_ms)

    def _trouble(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._said_s >= SAY_S:
            self._said_s = now
            log.error("checkpoint cannot be written: %s", error.strerror or error)


def kept_anchors(engine: Engine) -> Kept:
    """Return the anchors of an engine as anchors.json holds them."""
    return {
        symbol: {
            "price": anchor.price, "set_ms": anchor.set_ms, "set_cause": anchor.set_cause, "price_ms": anchor.price_ms,
            "clamp": anchor.clamp, "clamp_ms": anchor.clamp_ms,
        }
        for symbol, state in engine.states.items()
        if (anchor := state.anchor) is not None
    }  # fmt: skip
