"""A thin shell of sockets around the embedded exchange: loopback only, Binance's addresses and words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket as sockets
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

import orjson
from aiohttp import WSMsgType, web

from tradingbot.simulated.core import Core, Request, Response
from tradingbot.simulated.faults import Fault, Manner
from tradingbot.simulated.memory import Memory
from tradingbot.simulated.streams import MarketStream, UserStream

__all__ = ["ExchangeServer"]

PUMP_S = 0.02  # how often due events are looked for
BURST = 32  # events sent before others have their turn
MAX_BODY_BYTES = 64 * 1024
KEEP_S = 1.0  # how often the time is kept
FAULTS_S = 0.05  # how often scripted faults of sockets and port are looked at

log = logging.getLogger(__name__)


class ExchangeServer:
    """Serve a Core over HTTP and WebSocket on 127.0.0.1.

    `clock` gives the exchange's time in milliseconds and never runs back. With `memory`, the account and the time are
    kept after every change and once a second, so that a restart can see one continuous exchange.
    Requests that name a foreign Host or Origin are refused: no web page can speak to it.
    """

    def __init__(self, core: Core, clock: Callable[[], int], memory: Memory | None = None) -> None:
        self.core, self.now_ms, self._memory = core, clock, memory
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._users: dict[web.WebSocketResponse, UserStream] = {}
        self._markets: dict[web.WebSocketResponse, asyncio.Transport | None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_kept = True
        self.frozen = False  # sockets are open, and nothing comes nor goes

    @property
    def url(self) -> str:
        """Return the address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 picks a free one."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._refuse_foreign])
        app.router.add_get("/stream{rest:.*}", self._market_socket)
        app.router.add_get("/ws{rest:.*}", self._user_socket)
        app.router.add_route("*", "/{path:.*}", self._http)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await self._listen(port)
        self.port = self._runner.addresses[0][1]
        jobs = [self._pump_user_data(), self._keep_time()] + ([self._play_faults()] if self.core.faults else [])
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def _listen(self, port: int) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await self._site.start()

    async def stop(self) -> None:
        """Close every connection and the port; keep what there is to keep."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for socket in list(self._users):
            await socket.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._memory is not None:
            with contextlib.suppress(OSError):  # said while it ran
                self._memory.keep(self.now_ms(), ahead_s=0.0)

    async def __aenter__(self) -> Self:
        await self.start(self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @web.middleware
    async def _refuse_foreign(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        ours = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        origin = request.headers.get("Origin")
        if request.host not in ours or (origin is not None and origin not in {f"http://{host}" for host in ours}):
            return web.json_response({"code": -1000, "msg": "foreign Host or Origin"}, status=403)
        return await handler(request)

    async def _http(self, request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode("utf-8", "replace")
        asked = Request(request.method, request.path, request.rel_url.raw_query_string, body, dict(request.headers))
        answer = self.core.handle(asked, self.now_ms())
        if request.method != "GET":
            self._keep()
        await self._tell_users()
        return await self._hand_over(request, answer)

    async def _hand_over(self, request: web.Request, answer: Response) -> web.StreamResponse:
        """Answer in the manner that a fault asks for."""
        manner, seconds = answer.delivery.manner, answer.delivery.seconds
        whole = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if manner is Manner.WHOLE:
            return whole
        if manner is Manner.DELAY:
            await asyncio.sleep(seconds)
            return whole
        if manner is Manner.HANG:
            what = f"{request.method} {request.path.removeprefix('/api/v3/')}"
            while any(fault.does == "hang" for _, fault in self.core.faults.active(what, self.now_ms())):
                await asyncio.sleep(FAULTS_S)
        elif manner in (Manner.DRIP, Manner.SHORT):
            response = web.StreamResponse(status=answer.status, headers=answer.headers)
            response.content_length = len(answer.body)
            await response.prepare(request)
            drops = answer.body if manner is Manner.DRIP else answer.body[: len(answer.body) // 2]
            with contextlib.suppress(ConnectionError):
                if manner is Manner.SHORT:
                    await response.write(drops)
                else:
                    for place in range(len(drops)):
                        await response.write(drops[place : place + 1])
                        await asyncio.sleep(seconds)
        _abort(request.transport, reset=manner is not Manner.SHORT)
        return whole

    async def _market_socket(self, request: web.Request) -> web.StreamResponse:
        fault = self._sockets_meet("refuse")
        if fault is not None:
            status, body, headers, _ = self.core.faults.answer(
                replace(fault, does="status"), 0, b"", self.now_ms(), self.core.speed
            )
            return web.Response(status=status, body=body, headers=headers)
        socket = web.WebSocketResponse(heartbeat=60)
        await socket.prepare(request)
        self._markets[socket] = request.transport
        stream = MarketStream(self.core)
        pump = asyncio.create_task(self._pump_market(socket, stream))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(stream.receive(message.data, self.now_ms()).decode())
        finally:
            self._markets.pop(socket, None)
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await pump
        return socket

    def _sockets_meet(self, does: str) -> Fault | None:
        active = self.core.faults.active("sockets", self.now_ms()) if self.core.faults else ()
        return next((fault for _, fault in active if fault.does == does), None)

    async def _pump_market(self, socket: web.WebSocketResponse, stream: MarketStream) -> None:
        while not socket.closed:
            if not self.frozen:
                for place, event in enumerate(stream.due(self.now_ms())):
                    await socket.send_str(event.decode())
                    if place % BURST == BURST - 1:
                        await asyncio.sleep(0)  # a flood must not keep everybody else waiting
            await asyncio.sleep(PUMP_S)

    async def _play_faults(self) -> None:
        """Close, reset or freeze the sockets, and shut the port, while the script says so."""
        faults = self.core.faults
        told: set[int] = set()
        while True:
            now = self.now_ms()
            for place, fault in enumerate(faults.faults):
                if place not in told and (now >= faults.begins_ms(fault)) and not faults.is_over(fault, now):
                    told.add(place)
                    log.warning("fault begins: %s", fault.label)
                elif place in told and faults.is_over(fault, now):
                    told.discard(place)
                    log.warning("fault over: %s (met %d times)", fault.label, faults.met[place])
            await self._shut(any(fault.does == "refuse" for _, fault in faults.active("port", now)))
            for does in ("close", "reset"):
                if self._sockets_meet(does):
                    for socket, transport in list(self._markets.items()):
                        if does == "reset":
                            _abort(transport, reset=True)
                        else:
                            await socket.close(code=1001)
            frozen = self._sockets_meet("freeze") is not None
            if frozen != self.frozen:
                self.frozen = frozen
                for transport in self._markets.values():
                    if transport is not None:
                        transport.pause_reading() if frozen else transport.resume_reading()
            await asyncio.sleep(FAULTS_S)

    async def _shut(self, shut: bool) -> None:
        if shut and self._site is not None:
            site, self._site = self._site, None
            await site.stop()
            for transport in list(self._markets.values()):
                _abort(transport, reset=True)
        elif not shut and self._site is None:
            await self._listen(self.port)

    async def _keep_time(self) -> None:
        while True:
            self._keep()
            await asyncio.sleep(KEEP_S)

    def _keep(self) -> None:
        if self._memory is None:
            return
        try:
            self._memory.keep(self.now_ms())
            self._is_kept = True
        except OSError as error:  # a full disk may have room again in a moment
            if self._is_kept:
                log.error("the exchange's account and time cannot be kept: %s", error.strerror)  # noqa: TRY400
            self._is_kept = False

    async def _user_socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=60)
        await socket.prepare(request)
        self._users[socket] = UserStream(self.core)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(self._users[socket].receive(message.data).decode())
        finally:
            self._users.pop(socket, None)
        return socket

    async def _pump_user_data(self) -> None:
        while True:
            await asyncio.sleep(5 * PUMP_S)
            self.core.advance(self.now_ms())
            await self._tell_users()

    async def _tell_users(self) -> None:
        reports = self.core.reports()
        if reports:
            self._keep()
        for event in reports:
            text = orjson.dumps({"subscriptionId": 0, "event": event}).decode()
            for socket, stream in list(self._users.items()):
                if stream.subscribed and not socket.closed:
                    with contextlib.suppress(ConnectionError):
                        await socket.send_str(text)


def _abort(transport: asyncio.BaseTransport | None, reset: bool) -> None:
    """Cut a connection: with `reset` the other side gets an RST."""
    if not isinstance(transport, asyncio.Transport):
        return
    raw = transport.get_extra_info("socket")
    if reset and raw is not None:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
