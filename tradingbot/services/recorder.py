"""The recorder: what the engine was told and what it decided goes into the streams and the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tradingbot import __version__
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import AnchorMoved, Output, Rejected, WindowMoved
from tradingbot.io.checkpoints import checkpoint_texts
from tradingbot.io.lines import to_json
from tradingbot.io.segments import series_of
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.io.streams import (
    JOURNAL,
    Control,
    Stream,
    control_record,
    derived_json,
    event_record,
    lead_of,
    output_record,
    rejection_record,
    snapshot_json,
    stream_of,
    tick_json,
)
from tradingbot.market.drop_triggers import NEVER_MS
from tradingbot.market.ticker import Ticker
from tradingbot.services.housekeeping import Housekeeper

__all__ = ["Recorder"]

TICKS, SNAPSHOTS = Stream.TICKS, Stream.SNAPSHOTS
DERIVED = (SNAPSHOTS, Stream.WINDOWS, Stream.ANCHORS)
MOVED = (AnchorMoved, WindowMoved)
CHECKPOINT_MS = 15 * 60_000
LOST_MS = 60_000  # between a checkpoint and one after ticks were lost: of a disk that fails now and then, no more


class Recorder:
    """Record one session: every input and output of its engine, in order, and what follows from them.

    `snapshots_ms` is the least time between two snapshots of a symbol, None while the four streams are switched off;
    the journal never is. It may be set anew between two inputs. `now_ms` is the session's clock, for records that no
    tick gives a time.
    """

    def __init__(
        self,
        writer: StreamWriter,
        sid: str,
        engine: Engine,
        snapshots_ms: int | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._writer, self._sid, self._engine = writer, sid, engine
        self._lead = lead_of(sid)
        self.snapshots_ms, self._now_ms = snapshots_ms, now_ms
        self._series: dict[str, str] = {}
        self._shown_ms: dict[str, int] = {}  # when a symbol's last snapshot was
        self._is_persisting, self._is_losing, self._off_why = True, False, ""
        self._dropped = 0  # ticks that could not be written, when last looked at
        self._checkpoint_ms = now_ms()
        self._counted: dict[str, dict[str, int]] = {}  # rejections that were only counted: symbol, reason

    def begin(
        self,
        settings: Mapping[str, Any],
        sources: Mapping[str, str],
        exchange: str,
        start: Mapping[str, Any],
        late: Iterable[tuple[str, Output]] = (),
    ) -> None:
        """Record what this session starts from, and before it what an earlier one (its sid) died over: `late`."""
        for sid, output in late:
            self._note(output_record(sid, output))
        self._checkpoint(
            "session_start", version=__version__, exchange=exchange, settings=dict(settings), sources=dict(sources),
            fingerprint=self._engine.rules.fingerprint, start=start,
        )  # fmt: skip

    def end(self) -> None:
        """Record the session's end, and the engine as it is then."""
        self._checkpoint("session_end", seq=self._engine.seq)

    def checkpoint(self) -> None:
        """Record the engine as it is now: a proof can begin here."""
        self._checkpoint("checkpoint", seq=self._engine.seq)

    def look(self, keeper: Housekeeper | None = None) -> None:
        """Record what is due beside the inputs: to be called once a second.

        That is a checkpoint every 15 minutes of the session's clock, that ticks are recorded again after some were
        lost, and which segments `keeper` is about to delete.
        """
        if keeper is not None:
            self._tell_deletions(keeper)
        ticks = self._writer.states[TICKS]
        age_ms = self._now_ms() - self._checkpoint_ms
        if ticks.dropped != self._dropped:
            self._dropped, self._is_losing = ticks.dropped, True
        elif self._is_losing and ticks.state == "ok" and age_ms >= LOST_MS:
            self._is_losing = False
            self._checkpoint("recording", seq=self._engine.seq, on=True, why="lost")
        elif age_ms >= CHECKPOINT_MS:
            self.checkpoint()

    def take(self, ticker: Ticker, outputs: tuple[Output, ...]) -> None:
        """Record a ticker and what answers it."""
        if outputs and isinstance(outputs[0], Rejected):
            self._refuse(ticker, outputs[0])
            return
        snapshots_ms = self.snapshots_ms
        persists = snapshots_ms is not None
        if persists is not self._is_persisting:
            self._switch(persists)
        put, seq, symbol, ts_ms = self._writer.put, self._engine.seq, ticker.symbol, ticker.ts_ms
        if persists:
            series = self._series.get(symbol)
            if series is None:
                series = self._series[symbol] = series_of(symbol)
            put(TICKS, series, ts_ms, tick_json(self._lead, self._sid, seq, ticker))
        for output in outputs:
            if isinstance(output, MOVED):
                if persists:
                    stream = stream_of(output)
                    put(stream, stream, output.ts_ms, derived_json(self._lead, output))
            else:
                self._note(output_record(self._sid, output))
        if snapshots_ms is not None and ts_ms - self._shown_ms.get(symbol, NEVER_MS) >= snapshots_ms:
            self._shown_ms[symbol] = ts_ms
            state = self._engine.states[symbol]
            put(SNAPSHOTS, SNAPSHOTS, ts_ms, snapshot_json(self._lead, seq, self._engine, state))

    def control(self, event: Control, outputs: tuple[Output, ...]) -> None:
        """Record an input that is no ticker, and what answers it."""
        self._note(control_record(self._sid, self._engine.seq, self._now_ms(), event))
        for output in outputs:
            self._note(output_record(self._sid, output))

    def _refuse(self, ticker: Ticker, rejected: Rejected) -> None:
        """Record a rejected ticker, or that there was another one."""
        if rejected.whole:
            self._note(rejection_record(self._sid, rejected.cause, ticker, rejected))
        else:
            counts = self._counted.setdefault(rejected.symbol, {})
            counts[rejected.reason] = counts.get(rejected.reason, 0) + 1

    def _switch(self, persists: bool) -> None:
        """Note that ticks are recorded from here on (and the engine, for a proof to begin with), or no more."""
        self._is_persisting = persists
        for stream in (TICKS, *DERIVED):
            self._writer.states[stream].state = "ok" if persists else "off"
        if persists:
            self._is_losing = False
            self._checkpoint("recording", seq=self._engine.seq, on=True, why=self._off_why)
        else:
            is_wanted = self._engine.settings.FEATURE_PERSIST_STREAMS
            self._off_why = "disk low" if is_wanted else "flag"
            self._event("recording", seq=self._engine.seq - 1, on=False, why=self._off_why)
            if not is_wanted:
                self._writer.finish()  # whoever switched it off may want to clean up what there is

    def _tell_deletions(self, keeper: Housekeeper) -> None:
        planned = keeper.take_planned()
        for deletion, sessions, _ in planned:
            file = f"{deletion.path.parent.name}/{deletion.path.name}"
            self._event("deleted", seq=self._engine.seq, file=file, sessions=sessions)
        if any(each.is_asked for each in planned):
            self.checkpoint()  # a proof goes on from here
        if planned:
            self._writer.run(lambda: keeper.delete(planned))

    def _checkpoint(self, kind: str, **facts: Any) -> None:
        """Record an engine's whole state, and before it how many rejections were only counted since the last one."""
        self._checkpoint_ms = now_ms = self._now_ms()
        if self._counted:
            self._event("rejections", seq=self._engine.seq, counts=self._counted)
            self._counted = {}
        for text in checkpoint_texts(self._sid, now_ms, kind, self._engine, **facts):
            self._writer.put(JOURNAL, JOURNAL, now_ms, text)

    def _event(self, kind: str, **facts: Any) -> None:
        self._note(event_record(self._sid, self._now_ms(), kind, **facts))

    def _note(self, record: Mapping[str, Any]) -> None:
        """Record something in the journal."""
        self._writer.put(JOURNAL, JOURNAL, record["ts_ms"], to_json(record))
