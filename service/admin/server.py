"""HTTP requests → metrics, health and the status page. Reads only; nothing can be changed through it.

Built by app.py with two functions to ask. `/` needs no secret and shows none: who may see it is what
http.listen decides (loopback by default).
"""

import asyncio
import base64
import errno
import hashlib
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.admin.snapshot import AccountsPage, Snapshot, shown
from service.errors import Permanent
from service.observe import log

PAGE: Final = Path(__file__).with_name("page.html")
# One JSON a second to each; more readers than this are a loop somewhere.
CLIENTS_LIMIT: Final = 32
EVERY_S: Final = 1.0
# Probes, scrapes and readers are a few; whoever holds connections must not use up the process's descriptors.
CONNECTIONS_LIMIT: Final = 100
FIRST_REQUEST_S: Final = 10.0
KEEP_ALIVE_S: Final = 30.0
# A reader that does not take a frame for so long is gone.
WRITE_TIMEOUT_S: Final = 10.0
# What is still answering when the process stops gets this long; streams end at once by themselves.
SHUTDOWN_S: Final = 1.0
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def content_policy(page: str) -> str:
    """A policy under which only the page's own style and script run, by their hashes, and only we are asked."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class AdminServer:
    """The HTTP server of one process; an async context manager. `port` is the real one once it is entered.

    Entering raises Permanent where the address cannot be had. `snapshot`, `accounts` (given the id after which the
    page begins) and `ready` are called on the event loop.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        *,
        snapshot: Callable[[], Snapshot],
        accounts: Callable[[str], AccountsPage],
        ready: Callable[[], bool],
    ) -> None:
        self._host, self.port = listen
        self._snapshot = snapshot
        self._accounts = accounts
        self._ready = ready
        self._closing = asyncio.Event()
        self._clients = 0
        self._frame = b""
        self._frame_until = 0.0
        self._scraping = asyncio.Semaphore(1)
        self._page = PAGE.read_text(encoding="utf-8")
        self._page_headers = {"Content-Security-Policy": content_policy(self._page)}
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        # New connections that have asked for nothing yet.
        self._silent: set[asyncio.BaseProtocol] = set()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._note_asked, _plain])
        app.router.add_get("/", self._index)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/accounts", self._accounts_page)
        app.router.add_get("/events", self._events, allow_head=False)
        app.on_shutdown.append(self._end_streams)
        runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=KEEP_ALIVE_S
        )
        await runner.setup()
        try:
            listening = await asyncio.get_running_loop().create_server(
                lambda: self._connection(runner), self._host, self.port
            )
        except OSError as exc:
            await runner.cleanup()
            raise _cannot_listen(self._host, self.port, exc) from exc
        self._runner, self._listening = runner, listening
        self.port = int(listening.sockets[0].getsockname()[1])
        log.info("http_listening", host=self._host, port=self.port)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._listening is not None:
            self._listening.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _connection(self, runner: web.AppRunner) -> asyncio.BaseProtocol:
        """aiohttp bounds neither connections nor the time that a first request may take."""
        server = runner.server
        if server is None or len(server.connections) >= CONNECTIONS_LIMIT:
            return _Refused()
        handler = server()
        self._silent.add(handler)

        def end_if_silent() -> None:
            if handler in self._silent and handler.transport is not None:
                handler.transport.abort()
            self._silent.discard(handler)

        asyncio.get_running_loop().call_later(FIRST_REQUEST_S, end_if_silent)
        return handler

    @web.middleware
    async def _note_asked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._silent.discard(request.protocol)
        return await handler(request)

    async def _end_streams(self, _app: web.Application) -> None:
        self._closing.set()

    async def _index(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._page, content_type="text/html", charset="utf-8", headers=self._page_headers)

    async def _healthz(self, _request: web.Request) -> web.Response:
        # An answer is the proof: a loop that does not turn gives none, and the probe times out.
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ready\n")
        return web.Response(text="not ready: starting, stopping, or NATS is away\n", status=503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        # 1,000 series take milliseconds to write: not on the loop, and never twice at once.
        async with self._scraping:
            body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _accounts_page(self, request: web.Request) -> web.Response:
        page = self._accounts(request.query.get("after", ""))
        return web.Response(body=msgspec.json.encode(page), content_type="application/json")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events (WHATWG HTML 9.2): a snapshot at once and then each second."""
        if self._clients >= CLIENTS_LIMIT:
            return web.Response(text="too many readers\n", status=503, headers={"Retry-After": "10"})
        response = web.StreamResponse(
            headers=HEADERS | {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        self._clients += 1
        try:
            await response.prepare(request)
            await self._stream(response)
        except (ConnectionError, TimeoutError):
            pass  # the reader went away; its page will come back
        finally:
            self._clients -= 1
        return response

    async def _stream(self, response: web.StreamResponse) -> None:
        while not self._closing.is_set():
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await response.write(self._current())
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._closing.wait()

    def _current(self) -> bytes:
        """The frame of this second, made once for all readers. JSON by msgspec holds no line end."""
        now = asyncio.get_running_loop().time()
        if now >= self._frame_until:
            self._frame = b"data: " + msgspec.json.encode(shown(self._snapshot())) + b"\n\n"
            self._frame_until = now + EVERY_S / 2
        return self._frame


class _Refused(asyncio.Protocol):
    """A connection too many: closed at once, so that descriptors are left for mail."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@web.middleware
async def _plain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our headers on every answer, refusals as plain text."""
    try:
        response = await handler(request)
    except web.HTTPException as exc:
        allow = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
        response = web.Response(text=f"{exc.reason}\n", status=exc.status, headers=allow)
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


def _cannot_listen(host: str, port: int, exc: OSError) -> Permanent:
    if exc.errno == errno.EADDRINUSE:
        remedy = "stop what listens there, or choose another port in http.listen (0 takes any free one)"
    elif exc.errno == errno.EACCES:
        remedy = "choose a port from 1024 in http.listen, or give the process the right to lower ones"
    else:
        remedy = "choose an address of this machine in http.listen, such as 127.0.0.1:8080"
    reason = exc.strerror or str(exc)
    return Permanent(f"cannot listen on {host} port {port} ({reason})", where="http.listen", remedy=remedy)
