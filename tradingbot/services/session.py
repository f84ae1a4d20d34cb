"""The session: the one place that wires a bot, runs its loop and ends it cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import stat
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from tradingbot import __version__
from tradingbot.config import Settings, fingerprint
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import ClockStep, Condition, ConditionName, Parked, Rejected, SettingsChanged
from tradingbot.errors import UsageError
from tradingbot.exchange.errors import NoExchangeError, redact
from tradingbot.exchange.protocol import Exchange, MarketFacts
from tradingbot.io.overrides import Effective
from tradingbot.io.state_files import LatestFile, StateLock, check_stamp
from tradingbot.io.streams import Control
from tradingbot.market.guards import RejectReason
from tradingbot.market.ticker import Ticker
from tradingbot.services.buy_signals import BuySignalService
from tradingbot.services.clock import Clock, StepWatch, wall_ms
from tradingbot.services.connect import Connect, connect
from tradingbot.services.listings import Listings
from tradingbot.services.live_settings import LiveSettings
from tradingbot.services.market_data import MarketData
from tradingbot.services.memory import Recovered, last_sid, next_sid
from tradingbot.services.operator import OperatorRequests
from tradingbot.services.recording import Recording
from tradingbot.services.start import Start
from tradingbot.services.status import LastStatus, last_status, make_status
from tradingbot.services.universe import choose_symbols
from tradingbot.services.warm_start import recover

__all__ = ["Session", "run_session"]

log = logging.getLogger(__name__)

TURN_S = STATUS_S = 1.0
FIRST_HEARTBEAT_S = 2.0  # after the first ticker, at most
START_S = 120.0  # that a start may take beside the duration of a run
SAY_S = 60.0  # between two lines on the same trouble


class _Errors(logging.Handler):
    """Keep the last warnings and errors for status.json."""

    def __init__(self, kept: deque[dict[str, Any]], now_ms: Callable[[], int]) -> None:
        super().__init__(logging.WARNING)
        self._kept, self._now_ms = kept, now_ms

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append({"time_ms": self._now_ms(), "level": record.levelname, "text": record.getMessage()[:300]})


class Session:
    """Run one bot over one state directory, from its start to its end.

    `show` is given every status as it is written, for a dashboard. `connect` gives it its exchange and clock, `wall_ms`
    the wall clock, `monotonic` the seconds that tell when the wall clock was set; `status_s` is how often status.json
    is written; with `threaded` false its records are written by its own thread.
    """

    def __init__(
        self,
        effective: Effective,
        show: Callable[[dict[str, Any]], None] | None = None,
        connect: Connect = connect,
        wall_ms: Callable[[], int] = wall_ms,
        monotonic: Callable[[], float] = time.monotonic,
        status_s: float = STATUS_S,
        threaded: bool = True,
    ) -> None:
        self._show, self._connect, self.wall_ms = show, connect, wall_ms
        self._status_s, self._threaded, self._monotonic = status_s, threaded, monotonic
        self._live = LiveSettings(effective, self._refuse_live_orders)
        self._state_dir = effective.state_dir
        self.started_ms = wall_ms()
        self.sid = ""
        self.state = "starting"
        self.errors: deque[dict[str, Any]] = deque(maxlen=20)
        self.signals = BuySignalService()
        self.engine: Engine | None = None
        self.market_data: MarketData | None = None
        self.listings: Listings | None = None
        self.recovered: Recovered | None = None
        self.recording = Recording(self._state_dir, lambda: self.settings, self._post, self._take, monotonic, threaded)
        self._requests = OperatorRequests(self._state_dir, self._restart, self.recording.delete_ticks)
        self._start = Start(self.settings.RETRY_BASE_S)
        self.clock = Clock()
        self.began_s = 0.0
        self._begun_s = float("inf")  # when the engine did: until then only trouble with the exchange counts
        self._before = LastStatus()
        self._steps = StepWatch(wall_ms, monotonic)
        self._stop = asyncio.Event()
        self._is_told_to_stop = False
        self._restarts = False
        self._status = LatestFile(self._state_dir / "status.json", self._wrote_status, threaded)
        self._status_trouble_s = float("-inf")

    @property
    def effective(self) -> Effective:
        """Return the settings in force with their sources."""
        return self._live.effective

    @property
    def settings(self) -> Settings:
        """Return the settings in force."""
        return self._live.settings

    async def run(self, duration_s: float | None) -> None:
        """Run until somebody stops it, or `duration_s` after its start or the first trouble with that."""
        state_dir = self._state_dir
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with StateLock(state_dir, self.started_ms):
            check_stamp(state_dir, self.settings.EXCHANGE, self.settings.TRADING_MODE, stamp=False)
            self._refuse_live_orders(self.settings)
            self.sid = next_sid(last_sid(state_dir), self.started_ms)
            self._remember(last_status(state_dir))
            for key, entry in self.effective.overrides.items():
                log.warning("override %s = %s by %s: %s", key, entry.value, entry.who or "?", entry.why or "no reason")
            errors = _Errors(self.errors, self._now_ms)
            logging.getLogger("tradingbot").addHandler(errors)
            loop = self._loop_of_run = asyncio.get_running_loop()
            loop.set_exception_handler(_log_callback)
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._be_stopped)
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await self._loop(duration_s, stack)
                self.state = "stopping"
                self._write_status()
                log.info("stopped sid=%s", self.sid)
            finally:
                self._status.close(self.settings.STOP_TIMEOUT_S / 4)  # while the directory is still ours
                logging.getLogger("tradingbot").removeHandler(errors)

    @property
    def held_back_until_s(self) -> float:
        """Return until when the exchange wants to be left alone, on the loop's clock."""
        return self._start.held_back_until_s if self.market_data is None else self.market_data.held_back_until_s

    @property
    def is_to_restart(self) -> bool:
        """Return whether the process is to run the next session: asked to, and not told to stop since."""
        return self._restarts and not self._is_told_to_stop

    def _restart(self) -> None:
        self._restarts = True
        self._stop.set()

    def _be_stopped(self) -> None:
        self._is_told_to_stop = True
        self._stop.set()

    def _refuse_live_orders(self, settings: Settings) -> None:
        if settings.GLOBAL_TRADING and self.settings.TRADING_MODE == "live":
            raise UsageError("this version places no live orders: set TRADING_MODE = paper, or GLOBAL_TRADING off")

    def _now_ms(self) -> int:
        return self.clock.now_ms()

    def _remember(self, before: LastStatus) -> None:
        """Go on from the last session's time and hold-back: until the exchange is asked, nothing better is known."""
        self.began_s = asyncio.get_running_loop().time()
        if before.exchange == self.settings.EXCHANGE:
            self._before = before
            if before.exchange == "embedded":
                self.clock = Clock(1.0, max(before.time_ms, 1))
            until_ms = before.held_back_until_ms
            left_ms = min(until_ms - self.clock.now_ms(), until_ms - before.time_ms)  # whatever a clock was set to
            self._start.held_back_until_s = self.began_s + left_ms / 1000

    async def _work(self, stack: contextlib.AsyncExitStack) -> None:
        """Connect, choose what to watch, and bring market data until cancelled."""
        left_s = self._start.held_back_until_s - asyncio.get_running_loop().time()
        if left_s > 0:
            await self._start.hold_back(left_s)
        surroundings = await self._start.answered(
            lambda: self._connect(self.settings, self._state_dir, self._before.time_ms, stack),
            self.settings.EMBEDDED_URL or self.settings.EXCHANGE,
        )
        exchange, self.clock = surroundings.exchange, surroundings.clock
        markets = await self._start.answered(exchange.load, exchange.name)
        symbols = await self._start.answered(lambda: choose_symbols(exchange, markets, self.settings), exchange.name)
        await self._start.say_what_it_gives(exchange, symbols[0], self.clock)
        recovered = await self._recover({symbol: markets[symbol] for symbol in symbols})
        held = recovered.engine.portfolio
        symbols += [s for s in {**held.positions, **held.orders} if s in markets and s not in symbols]
        self._wire(exchange, markets, symbols, recovered)
        assert self.market_data is not None
        assert self.listings is not None
        tasks = [asyncio.create_task(job) for job in (self.listings.run(), self.market_data.run())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _recover(self, markets: dict[str, MarketFacts]) -> Recovered:
        """Return the engine that goes on from what this state directory holds."""
        steps = {symbol: step for symbol, facts in markets.items() if (step := facts.amount_step) is not None}
        job = partial(recover, self._state_dir, self.settings, steps, self.clock.now_ms(), self._monotonic)
        recovered = await asyncio.to_thread(job) if self._threaded else job()
        for trouble in recovered.troubles:
            log.error("%s", trouble)
        word = "WARMSTART -" if self.settings.FEATURE_WARMSTART_TICKS else "cold start:"
        log.info("%s %s", word, recovered.line())
        return recovered

    def _wire(
        self, exchange: Exchange, markets: dict[str, MarketFacts], symbols: list[str], recovered: Recovered
    ) -> None:
        self.recovered = recovered
        engine = recovered.engine
        self._begun_s = asyncio.get_running_loop().time()
        self.recording.begin(self.sid, recovered, self.effective.sources, self.settings.EXCHANGE, self.clock.now_ms)
        self.engine = engine
        for output in recovered.late:
            self.signals.take((output[1],))
        if recovered.kind == "warm":
            self._take(SettingsChanged(self.settings))
        data = self.market_data = MarketData(exchange, symbols, lambda: self.settings, self._deliver)
        listings = self.listings = Listings(
            exchange, data, markets,
            lambda symbol: engine.states[symbol].last,
            lambda symbol, why: self._take(Parked(symbol, why)),
        )  # fmt: skip
        data.unknown = listings.ask
        listings.resume({s: state.parked for s, state in engine.states.items() if state.parked is not None})
        check_stamp(self._state_dir, self.settings.EXCHANGE, self.settings.TRADING_MODE, stamp=True)
        log.info(
            "started sid=%s version=%s exchange=%s symbols=%d mode=%s fingerprint=%s",
            self.sid, __version__, exchange.name, len(symbols),
            "paper_orders" if self.settings.GLOBAL_TRADING else "observing", fingerprint(self.settings),
        )  # fmt: skip
        self._look_around()  # the kill switch counts from the first tick on

    def _post(self, job: Callable[[], None]) -> None:
        """Have something done on the engine's thread."""
        if self._threaded:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whatever could be done
                self._loop_of_run.call_soon_threadsafe(job)
        else:
            job()

    def _take(self, event: Control) -> None:
        """Hand the engine an input that is no ticker."""
        if self.engine is None:
            return
        outputs = self.engine.process(event)
        self.recording.control(event, outputs)
        self.signals.take(outputs)

    def _deliver(self, ticker: Ticker) -> str | None:
        assert self.engine is not None
        outputs = self.engine.process(ticker)
        self.recording.take(ticker, outputs)
        if not outputs:
            return None
        first = outputs[0]
        if isinstance(first, Rejected):
            if first.reason == RejectReason.JUMP and self.listings is not None and ticker.last is not None:
                self.listings.leapt(ticker.symbol, ticker.last)
            return first.reason
        self.signals.take(outputs)
        return None

    async def _loop(self, duration_s: float | None, stack: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._work(stack))
        next_beat: float | None = None
        next_status = 0.0
        try:
            while not self._stop.is_set() and loop.time() < self._end_s(duration_s):
                self._look_around()
                if loop.time() >= next_status:
                    next_status = loop.time() + self._status_s - TURN_S / 2  # a turn is never a whole second
                    self._write_status()
                if next_beat is None and self.market_data is not None and self.market_data.ticks:
                    next_beat = loop.time() + FIRST_HEARTBEAT_S
                if next_beat is not None and loop.time() >= next_beat:
                    next_beat = loop.time() + self.settings.HEARTBEAT_S
                    self._heartbeat()
                rest = max(min(TURN_S, self._end_s(duration_s) - loop.time()), 0)
                stopped = asyncio.ensure_future(self._stop.wait())
                await asyncio.wait((work, stopped), timeout=rest, return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                if work.done():
                    work.result()  # trouble at the start, or a defect: let it be seen
            if self.engine is None and not self._stop.is_set():
                raise NoExchangeError(f"{self.settings.EXCHANGE} was not reached in {duration_s:g} s")
            self._heartbeat()
        finally:
            while not work.done():  # a library may swallow a cancellation that comes as its own wait ends
                work.cancel()
                await asyncio.wait((work,), timeout=TURN_S)
            with contextlib.suppress(asyncio.CancelledError):
                await work
            self.recording.end()

    def _end_s(self, duration_s: float | None) -> float:
        """Return when it is to end, on the loop's clock: how long a machine takes to begin does not count."""
        since_s = min(self._begun_s, self._start.troubled_s, self.began_s + START_S)
        return float("inf") if duration_s is None else since_s + duration_s

    def _look_around(self) -> None:
        """Look at what may change beside the market: kill switch, wall clock, symbols that fell silent."""
        step_ms = self._steps.step_ms()
        if step_ms:
            log.warning("clock_step step_s=%+.1f: the clock was set, or the machine slept", step_ms / 1000)
            self._take(ClockStep(step_ms))
        if self.engine is None or self.market_data is None or self.listings is None:
            return
        if set(self.market_data.silent()) - set(self.listings.parked):
            self.listings.ask()
        if self._live.look():
            self._take(SettingsChanged(self.settings))
        self.recording.look()
        self._requests.look(self.market_data.symbols, self._take, self.sid)
        why = _kill_reason(self._state_dir / "KILL")
        if why != self.engine.conditions.get("killed"):
            self._take(Condition(ConditionName.KILLED, why))
            log.warning("kill switch %s", f"on: {why}" if why else "off")
        self.state = next((name for name in ("killed", "degraded") if name in self.engine.conditions), "running")

    def _heartbeat(self) -> None:
        data = self.market_data
        if data is None:
            return
        now = asyncio.get_running_loop().time()
        ages = [now - data.accepted_s[symbol] for symbol in data.symbols if symbol in data.accepted_s]
        fresh = sum(age <= self.settings.WATCHDOG_S for age in ages)
        log.info(
            "HEARTBEAT - Ticker fetched fresh=%d/%d oldest_s=%.1f ticks=%d triggers=%d",
            fresh, len(data.symbols), max(ages, default=0.0), data.ticks, self.signals.triggers,
        )  # fmt: skip

    def _write_status(self) -> None:
        status = make_status(self, self.effective, self.clock.now_ms())
        self._status.put(orjson.dumps(status))
        if self._show is not None:
            self._show(status)

    def _wrote_status(self, error: OSError | None) -> None:
        """Say once a minute that status.json cannot be written."""
        if error is None:
            self._status_trouble_s = float("-inf")
        elif self._monotonic() - self._status_trouble_s >= SAY_S:
            self._status_trouble_s = self._monotonic()
            log.error("status.json cannot be written: %s", error.strerror)


def _kill_reason(path: Path) -> str | None:
    """Return why the kill switch is on, None where it is off; its presence counts, whatever it is."""
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        text = path.read_text(errors="replace") if is_file else ""
    except FileNotFoundError:
        return None
    except OSError:
        text = ""
    return text.strip()[:200] or "kill switch"


def _log_callback(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log in one line what failed where nobody waits for it: ccxt's own callbacks, on a message that is none."""
    log.warning("callback failed: %s", redact(f"{context.get('message')}: {context.get('exception')!r}"))


def run_session(
    effective: Effective, duration_s: float | None, show: Callable[[dict[str, Any]], None] | None = None
) -> bool:
    """Run a bot until `duration_s` is over or it is stopped; return whether the process is to run the next one."""

    async def main() -> bool:
        session = Session(effective, show)
        await session.run(duration_s)
        return session.is_to_restart

    return asyncio.run(main())
