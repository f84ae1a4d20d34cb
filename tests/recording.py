"""A recorded engine without an exchange: ticks go in, the streams and the journal come out."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from tradingbot.config import Settings, make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import SettingsChanged
from tradingbot.io.jsonl import RotatingJSONLWriter, read_jsonl
from tradingbot.io.segments import list_segments
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.io.streams import FOLDERS, JOURNAL
from tradingbot.market.ticker import Ticker
from tradingbot.services.recorder import Recorder

T = 1_700_000_000_000
LIVELY = {"DROP_TRIGGER_VALUE": 0.999, "GLOBAL_TRADING": True, "COOLDOWN_MIN": 0, "TAKE_PROFIT_THRESHOLD": 1.001}


class Recorded:
    """Record an engine under a directory: the clock goes when `tick` is called, all is written when `journal` is."""

    def __init__(
        self,
        state: Path,
        sid: str = "s",
        symbols: tuple[str, ...] = ("BTC/USDT", "ETH/USDT"),
        now_ms: int = T,
        max_bytes: int = 50_000_000,
    ) -> None:
        self.state, self.sid, self.now_ms = state, sid, now_ms
        self.engine = Engine(make_settings(LIVELY))
        self.writer = StreamWriter(state, sid, max_bytes, 0.05, 0.05, lambda _: None, threaded=False)
        self.recorder = Recorder(self.writer, sid, self.engine, 500, lambda: self.now_ms)
        self.recorder.begin({}, {}, "embedded", {})
        self.symbols, self.count = symbols, 0

    def tick(self, count: int = 1, step_ms: int = 250, last: float | None = None) -> None:
        for _ in range(count):
            self.now_ms += step_ms
            self.count += 1
            symbol = self.symbols[self.count % len(self.symbols)]
            price = 100.0 + self.count * 7919 % 100 / 100 if last is None else last
            ticker = Ticker(symbol, self.now_ms, price)
            self.recorder.take(ticker, self.engine.process(ticker))

    def adopt(self, settings: Settings) -> None:
        event = SettingsChanged(settings)
        self.recorder.control(event, self.engine.process(event))

    def end(self) -> None:
        self.recorder.end()
        self.writer.close()

    def flush(self) -> None:
        self.writer.run(lambda: None)

    def journal(self, *kinds: str) -> list[dict[str, Any]]:
        self.flush()
        found = read_jsonl(segment.path for segment in list_segments(self.state / FOLDERS[JOURNAL]))
        return [f.record for f in found if f.record["type"] in kinds]


def failing(monkeypatch: pytest.MonkeyPatch, *series: str) -> dict[str, bool]:
    """Let writes to some series fail while `on`."""
    switch = {"on": False}
    plain = RotatingJSONLWriter.write

    def write(self: RotatingJSONLWriter, ts_ms: int, lines: bytes) -> None:
        if switch["on"] and self._series in series:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, ts_ms, lines)

    monkeypatch.setattr(RotatingJSONLWriter, "write", write)
    return switch
