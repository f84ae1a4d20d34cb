"""The recording of one session: streams, journal, checkpoint and anchors, and what keeps their folders in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import to_builtins

from tradingbot.config import Settings
from tradingbot.engine.events import AnchorMoved, Condition, ConditionName, Output, Rejected, WindowMoved
from tradingbot.io.stream_writer import StreamState, StreamWriter
from tradingbot.io.streams import Control, Stream
from tradingbot.market.ticker import Ticker
from tradingbot.services.housekeeping import Housekeeper
from tradingbot.services.keeper import Keeper
from tradingbot.services.memory import Recovered
from tradingbot.services.recorder import Recorder

__all__ = ["Recording"]

DERIVED = (AnchorMoved, WindowMoved, Rejected)


class Recording:
    """Record one session under a state directory, from `begin` to `end`.

    `settings` is asked for those in force; `now_ms` is the session's clock. `post` has something done on the engine's
    thread, which is where everything here is called; `control` hands the engine an input. With `threaded` false the
    engine's thread writes too, and nothing is flushed to the disk.
    """

    def __init__(
        self,
        state_dir: Path,
        settings: Callable[[], Settings],
        post: Callable[[Callable[[], None]], None],
        control: Callable[[Control], None],
        monotonic: Callable[[], float],
        threaded: bool,
    ) -> None:
        self._state_dir, self._settings, self._post, self._control = state_dir, settings, post, control
        self._monotonic, self._threaded = monotonic, threaded
        self._housekeeper = Housekeeper(state_dir, settings, threaded)
        self._writer: StreamWriter | None = None
        self._recorder: Recorder | None = None
        self._keeper: Keeper | None = None

    @property
    def states(self) -> Mapping[Stream, StreamState]:
        """Return what became of each stream; nothing before the beginning."""
        return {} if self._writer is None else self._writer.states

    def begin(
        self, sid: str, recovered: Recovered, sources: Mapping[str, str], exchange: str, now_ms: Callable[[], int]
    ) -> None:
        """Record what the session starts from."""
        settings, engine = self._settings(), recovered.engine
        self._housekeeper.begin()
        writer = self._writer = StreamWriter(
            self._state_dir, sid, int(settings.MAX_FILE_MB * 1_000_000), settings.STREAM_FLUSH_MS / 1000,
            settings.STREAM_FSYNC_S, self._trouble, self._housekeeper.full, self._threaded,
        )  # fmt: skip
        self._recorder = Recorder(writer, sid, engine, self._snapshots_ms(), now_ms)
        self._recorder.begin(to_builtins(settings), sources, exchange, recovered.facts(), recovered.late)
        self._keeper = Keeper(
            self._state_dir, sid, engine, writer, self._settings, self._is_recorded, now_ms,
            lambda: self._post(self.look), durable=self._threaded, monotonic=self._monotonic,
        )  # fmt: skip
        self._keeper.keep()

    def take(self, ticker: Ticker, outputs: tuple[Output, ...]) -> None:
        """Record a ticker and what answers it."""
        assert self._recorder is not None
        assert self._keeper is not None
        self._recorder.take(ticker, outputs)
        if outputs and not isinstance(outputs[0], DERIVED):  # what matters comes first
            self._keeper.keep()

    def control(self, event: Control, outputs: tuple[Output, ...]) -> None:
        """Record an input that is no ticker, and what answers it."""
        assert self._recorder is not None
        assert self._keeper is not None
        self._recorder.control(event, outputs)
        self._recorder.snapshots_ms = self._snapshots_ms()
        self._keeper.keep()

    def look(self) -> None:
        """Keep what is to be kept now and then; called about once a second."""
        if self._recorder is not None and self._keeper is not None:
            self._recorder.snapshots_ms = self._snapshots_ms()
            self._recorder.look(self._housekeeper)
            self._keeper.look()

    def delete_ticks(self, files: Sequence[str]) -> None:
        """Have sealed segments of ticks deleted that an operator has done with, once the journal says so."""
        self._housekeeper.ask(files)

    def end(self) -> None:
        """Record the session's end, and write all that waits."""
        if self._recorder is None or self._writer is None or self._keeper is None:
            return
        timeout_s = self._settings().STOP_TIMEOUT_S
        self._recorder.end()
        self._keeper.end()
        self._writer.close(timeout_s / 2)
        self._housekeeper.close(timeout_s / 4)

    def _snapshots_ms(self) -> int | None:
        """Return the least time between two snapshots, in ms; None while the four streams are not recorded."""
        settings = self._settings()
        is_on = settings.FEATURE_PERSIST_STREAMS and not self._housekeeper.is_low
        return settings.SNAPSHOT_MIN_PERIOD_MS if is_on else None

    def _is_recorded(self) -> bool:
        assert self._writer is not None
        assert self._recorder is not None
        return self._recorder.snapshots_ms is not None and self._writer.states[Stream.TICKS].state != "degraded"

    def _trouble(self, why: str | None) -> None:  # on the writer's thread
        event = Condition(ConditionName.DEGRADED, None if why is None else f"journal: {why}")
        self._post(lambda: self._control(event))
