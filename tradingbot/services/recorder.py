"""The recorder: what the engine was told and what it decided goes into the streams and the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tradingbot import __version__
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Output, Rejected
from tradingbot.io.jsonl import encode
from tradingbot.io.segments import series_of
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.io.streams import (
    JOURNAL,
    Control,
    Stream,
    control_record,
    event_record,
    output_record,
    rejection_record,
    snapshot_record,
    stream_of,
    tick_record,
)
from tradingbot.market.ticker import Ticker
from tradingbot.services.memory import Recovered

__all__ = ["Recorder"]

DERIVED = (Stream.SNAPSHOTS, Stream.WINDOWS, Stream.ANCHORS)


class Recorder:
    """Record one session: every input and output of its engine, in order, and what follows from them.

    `snapshots_ms` is asked at every tick for the least time between two snapshots of a symbol, None while the four
    streams are switched off; the journal never is. `now_ms` is the session's clock, for records that no tick gives a
    time.
    """

    def __init__(
        self,
        writer: StreamWriter,
        sid: str,
        engine: Engine,
        snapshots_ms: Callable[[], int | None],
        now_ms: Callable[[], int],
    ) -> None:
        self._writer, self._sid, self._engine = writer, sid, engine
        self._snapshots_ms, self._now_ms = snapshots_ms, now_ms
        self._series: dict[str, str] = {}
        self._shown_ms: dict[str, int] = {}  # when a symbol's last snapshot was
        self._is_persisting = True

    def begin(
        self, settings: Mapping[str, Any], sources: Mapping[str, str], exchange: str, recovered: Recovered
    ) -> None:
        """Record what the last session died over, and what this one starts from."""
        for sid, output in recovered.late:
            record = output_record(sid, output)
            self._writer.put(JOURNAL, JOURNAL.value, record["ts_ms"], encode(record))
        self._event(
            "session_start", version=__version__, exchange=exchange, settings=dict(settings), sources=dict(sources),
            fingerprint=self._engine.rules.fingerprint, start=recovered.facts(),
            checkpoint=self._engine.checkpoint_record(),
        )  # fmt: skip

    def end(self) -> None:
        """Record the session's end, and the engine as it is then."""
        self._event("session_end", seq=self._engine.seq, checkpoint=self._engine.checkpoint_record())

    def take(self, ticker: Ticker, outputs: tuple[Output, ...]) -> None:
        """Record a ticker and what answers it."""
        first = outputs[0] if outputs else None
        if isinstance(first, Rejected):
            if first.whole:
                record = rejection_record(self._sid, first.cause, ticker, first)
                self._writer.put(JOURNAL, JOURNAL.value, ticker.ts_ms, encode(record))
            return
        snapshots_ms = self._snapshots_ms()
        persists = snapshots_ms is not None
        if persists != self._is_persisting:
            self._switch(persists)
        if persists:
            series = self._series.get(ticker.symbol)
            if series is None:
                series = self._series[ticker.symbol] = series_of(ticker.symbol)
            line = encode(tick_record(self._sid, self._engine.seq, ticker))
            self._writer.put(Stream.TICKS, series, ticker.ts_ms, line)
        for output in outputs:
            stream = stream_of(output)
            if stream is JOURNAL or persists:
                record = output_record(self._sid, output)
                self._writer.put(stream, stream.value, record["ts_ms"], encode(record))
        if snapshots_ms is not None:
            shown_ms = self._shown_ms.get(ticker.symbol)
            if shown_ms is None or ticker.ts_ms - shown_ms >= snapshots_ms:
                self._shown_ms[ticker.symbol] = ticker.ts_ms
                state = self._engine.states[ticker.symbol]
                record = snapshot_record(self._sid, self._engine.seq, self._engine, state)
                self._writer.put(Stream.SNAPSHOTS, Stream.SNAPSHOTS.value, ticker.ts_ms, encode(record))

    def control(self, event: Control, outputs: tuple[Output, ...]) -> None:
        """Record an input that is no ticker, and what answers it."""
        now_ms = self._now_ms()
        record = control_record(self._sid, self._engine.seq, now_ms, event)
        self._writer.put(JOURNAL, JOURNAL.value, now_ms, encode(record))
        for output in outputs:
            record = output_record(self._sid, output)
            self._writer.put(stream_of(output), JOURNAL.value, record["ts_ms"], encode(record))

    def _switch(self, persists: bool) -> None:
        """Note that ticks are recorded from here on (and the engine, for a proof to begin with), or no more."""
        self._is_persisting = persists
        for stream in (Stream.TICKS, *DERIVED):
            self._writer.states[stream].state = "ok" if persists else "off"
        if persists:
            self._event("recording", seq=self._engine.seq, on=True, checkpoint=self._engine.checkpoint_record())
        else:
            self._event("recording", seq=self._engine.seq - 1, on=False)

    def _event(self, kind: str, **facts: Any) -> None:
        now_ms = self._now_ms()
        self._writer.put(JOURNAL, JOURNAL.value, now_ms, encode(event_record(self._sid, now_ms, kind, **facts)))
