"""Five hundred symbols streamed from an exchange in its own process: nothing lost, how late, at what cost."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SYMBOLS, EVERY_MS = 500, 250
WARM_S, MEASURED_S = 12.0, 30.0


def serve() -> None:
    """Run the exchange: 500 symbols, four book updates a second each, with the time of sending in every event."""
    from tradingbot.services.embedded import serve as run
    from tradingbot.simulated.core import Core
    from tradingbot.simulated.market import SyntheticMarket
    from tradingbot.simulated.server import ExchangeServer
    from tradingbot.simulated.streams import MarketStream

    plain = MarketStream.due

    def stamped(self: MarketStream, now: int) -> Iterator[bytes]:
        for event in plain(self, now):
            yield event[:-1] + b',"sent":%d}' % time.time_ns()

    MarketStream.due = stamped  # type: ignore[method-assign]
    server = ExchangeServer(Core(SyntheticMarket(7, SYMBOLS, EVERY_MS)), lambda: time.time_ns() // 1_000_000)
    asyncio.run(run(server, 0, lambda url: print(url, flush=True)))


def watch(url: str) -> None:
    """Run a bot on that exchange, and print what was heard, how late, and what it cost."""
    from tradingbot.config import Settings, make_settings
    from tradingbot.exchange.feeds import BinanceTap
    from tradingbot.io.home import Home
    from tradingbot.io.overrides import Effective
    from tradingbot.services.session import Session

    late_ns: list[int] = []
    last: dict[str, int] = {}
    counts = {"books": 0, "lost": 0}
    began: list[float] = []
    book = BinanceTap.book

    def noted(self: BinanceTap, message: Any) -> None:
        book(self, message)
        if not began:
            return
        now = time.time_ns()
        late_ns.append(now - message["sent"])
        name, number = message["s"], message["u"]
        counts["books"] += 1
        counts["lost"] += max(number - last.get(name, number - 1) - 1, 0)
        last[name] = number

    BinanceTap.book = noted  # type: ignore[method-assign]
    facts: dict[str, float] = {}

    async def main() -> None:
        with tempfile.TemporaryDirectory() as home:
            settings = make_settings({"EMBEDDED_URL": url, "TOP_N": SYMBOLS, "MARKET_DATA": "stream"})
            effective = Effective(settings, dict.fromkeys(Settings.__struct_fields__, ""), Home(Path(home), ""))
            session = Session(effective)
            running = asyncio.create_task(session.run(WARM_S + MEASURED_S))
            await asyncio.sleep(WARM_S)
            cpu_s, began_s = time.process_time(), time.perf_counter()
            began.append(began_s)
            await asyncio.sleep(MEASURED_S - 1)
            facts["core"] = (time.process_time() - cpu_s) / (time.perf_counter() - began_s)
            facts["seconds"] = time.perf_counter() - began_s
            began.clear()
            data = session.market_data
            assert data is not None
            facts["rejected"] = sum(data.rejected.values())
            await running

    asyncio.run(main())
    late_ns.sort()
    facts |= counts
    facts["p50_ms"], facts["p99_ms"] = (late_ns[int(len(late_ns) * share)] / 1e6 for share in (0.5, 0.99))
    facts["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(facts))


def wide() -> Iterator[str]:
    """Measure a bot on 500 symbols and 2,000 book updates a second."""
    code = "import sys; from benchmarks import wide; getattr(wide, sys.argv[1])(*sys.argv[2:])"
    with subprocess.Popen([sys.executable, "-c", code, "serve"], stdout=subprocess.PIPE, text=True) as exchange:
        try:
            assert exchange.stdout is not None
            url = exchange.stdout.readline().strip()
            done = subprocess.run(
                [sys.executable, "-c", code, "watch", url], capture_output=True, text=True, check=True
            )
        finally:
            exchange.terminate()
    facts = json.loads(done.stdout)
    rate = facts["books"] / facts["seconds"]
    yield f"{'books heard':31} {rate:12,.0f} a second   {facts['lost']} of {facts['books']:,} lost, by their numbers"
    yield f"{'sent to decided':31} {facts['p99_ms']:12.1f} ms p99     {facts['p50_ms']:.1f} ms median"
    yield f"{'bot':31} {facts['core']:12.2f} of a core   {facts['rss_mb']:,.0f} MB resident at the most"
    if facts["rejected"]:
        yield f"{'rejected':31} {facts['rejected']:12,.0f} tickers"
