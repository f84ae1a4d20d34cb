"""A thin shell of sockets around the embedded exchange: loopback only, Binance's addresses and words."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from aiohttp import WSMsgType, web

from tradingbot.simulated.core import Core, Request
from tradingbot.simulated.streams import MarketStream, UserStream

__all__ = ["ExchangeServer"]

PUMP_S = 0.02  # how often due events are looked for
BURST = 32  # events sent before others have their turn
MAX_BODY_BYTES = 64 * 1024


class ExchangeServer:
    """Serve a Core over HTTP and WebSocket on 127.0.0.1.

    `clock` gives the exchange's time in milliseconds and never runs back. With `memory`, the account and the time are
    kept in that file, written whole and renamed after every change, so that a restart can see one continuous exchange.
    Requests that name a foreign Host or Origin are refused: no web page can speak to it.
    """

    def __init__(self, core: Core, clock: Callable[[], int], memory: Path | None = None) -> None:
        self.core, self.now_ms, self._memory = core, clock, memory
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._users: dict[web.WebSocketResponse, UserStream] = {}
        self._pump: asyncio.Task[None] | None = None
        self._kept: dict[str, object] = {}

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
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._pump = asyncio.create_task(self._pump_user_data())

    async def stop(self) -> None:
        """Close every connection and the port; keep what there is to keep."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        for socket in list(self._users):
            await socket.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._kept = {}  # the time has gone on, also where the account has not
        self._keep()

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
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _market_socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=60)
        await socket.prepare(request)
        stream = MarketStream(self.core)
        pump = asyncio.create_task(self._pump_market(socket, stream))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(stream.receive(message.data, self.now_ms()).decode())
        finally:
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await pump
        return socket

    async def _pump_market(self, socket: web.WebSocketResponse, stream: MarketStream) -> None:
        while not socket.closed:
            for place, event in enumerate(stream.due(self.now_ms())):
                await socket.send_str(event.decode())
                if place % BURST == BURST - 1:
                    await asyncio.sleep(0)  # a flood must not keep everybody else waiting
            await asyncio.sleep(PUMP_S)

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

    def _keep(self) -> None:
        if self._memory is None:
            return
        account = self.core.account.record()
        if account == self._kept:
            return
        partial = self._memory.with_suffix(".tmp")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps({"v": 1, "now_ms": self.now_ms(), "account": account}))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._memory)
        self._kept = account
