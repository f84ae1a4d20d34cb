"""Small ways to record a session of chosen prices, as the live bot does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from tests.helpers import S, T
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import Decision, Output
from tradingbot.io.jsonl import read_jsonl
from tradingbot.io.segments import list_segments
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.io.streams import Control
from tradingbot.market.anchor_manager import SavedAnchor
from tradingbot.market.ticker import Ticker
from tradingbot.services.recorder import Recorder


class Past:
    """Record one session of an engine under a state directory; times are seconds after T."""

    def __init__(
        self, state: Path, sid: str = "s1", saved: Mapping[str, SavedAnchor] | None = None, **settings: Any
    ) -> None:
        self.state, chosen = state, make_settings(settings)
        self.engine = Engine(chosen)
        self.engine.load_anchors(saved or {}, T)
        self.writer = StreamWriter(state, sid, 50_000_000, 0.05, 0.05, lambda _: None, threaded=False)
        self.recorder = Recorder(self.writer, sid, self.engine, 500, lambda: max(self.engine.now_ms, T))
        self.recorder.begin(to_builtins(chosen), dict.fromkeys(settings, "--set"), "embedded", {})

    def feed(self, *ticks: tuple[Any, ...], symbol: str = S) -> list[Output]:
        """Feed (seconds, last[, bid, ask[, volume]]); return what came out."""
        outputs: list[Output] = []
        for seconds, *prices in ticks:
            values = dict(zip(("last", "bid", "ask", "quote_volume"), prices, strict=False))
            ticker = Ticker(symbol, T + int(seconds * 1000), **values)
            answer = self.engine.process(ticker)
            self.recorder.take(ticker, answer)
            outputs += answer
        return outputs

    def control(self, event: Control) -> None:
        self.recorder.control(event, self.engine.process(event))

    def trigger(self, *ticks: tuple[Any, ...], symbol: str = S) -> Decision:
        """Feed ticks that make one trigger; return it."""
        (decision,) = (output for output in self.feed(*ticks, symbol=symbol) if isinstance(output, Decision))
        return decision

    def close(self, end: bool = True) -> None:
        """End the session, as a stop does, or (without `end`) as a kill."""
        if end:
            self.recorder.end()
        self.writer.close()


def records(state: Path, folder: str, series: str | None = None) -> list[dict[str, Any]]:
    """Return the records of a stream, in the order of its files and lines."""
    return [found.record for found in read_jsonl(s.path for s in list_segments(state / folder, series))]
