"""A NATS micro service (ADR-32): endpoints → handlers that give bytes, many requests at once. Used by commands."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import nats.errors
import nats.micro
from nats.aio.client import Client
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, ServiceConfig

from service.bus.errors import MessageTooLarge, translated
from service.bus.guard import HEADER_OVERHEAD_BYTES
from service.errors import Permanent, Transient
from service.observe import log, metrics
from service.tasks import TaskGroup

# One endpoint of nats-py serves one request at a time; more than this at once wait their turn.
REQUESTS_AT_ONCE: Final = 256
# What is under way when the service ends has this long, unless whoever ends it is in a hurry.
FINISH_TIMEOUT_S: Final = 10.0
STOPPING: Final = "mailbus stops: it may be done, or in part; look, then ask again"

# What clients and NATS itself wait for answers on. An answer goes out with mailbus's own rights: to any other subject
# it would be an event, a status or a request, written by whoever may ask.
REPLIES: Final = ("_INBOX", "_R_.")

Handler = Callable[[str, bytes, Mapping[str, str]], Awaitable[bytes]]


# How an error is told (ADR-32).
ERROR_CODE: Final = "Nats-Service-Error-Code"
ERROR: Final = "Nats-Service-Error"
ERROR_LIMIT_CHARS: Final = 500


class ServiceError(Permanent):
    """The answer is an error: its code as in HTTP, and a body that says more."""

    def __init__(self, code: int, what: str, *, body: bytes = b"") -> None:
        super().__init__(what)
        self.code = code
        self.body = body


def failure_of(payload: bytes, headers: Mapping[str, str]) -> ServiceError | None:
    """The error that a service answered with; None where it is none."""
    if not (code := headers.get(ERROR_CODE)):
        return None
    return ServiceError(int(code) if code.isdecimal() else 500, headers.get(ERROR, "an error"), body=payload)


@asynccontextmanager
async def serve(
    nc: Client, *, name: str, version: str, endpoints: Mapping[str, tuple[str, Handler]]
) -> AsyncIterator[None]:
    """Answer requests while the block runs, and then those that are under way. `endpoints`: name → subject and handler.

    A handler is given subject, payload and headers; ServiceError becomes the error headers, Transient 503, a bug 500,
    what NATS does not take 413, and what is cut off at the end 504. Raises Transient where NATS is away at the start;
    later it comes back by itself.
    """
    places = asyncio.Semaphore(REQUESTS_AT_ONCE)
    under_way: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        under_way.discard(task)
        places.release()

    async with TaskGroup() as group:

        def hand_over(handler: Handler) -> Callable[[Request], Awaitable[None]]:
            async def take(request: Request) -> None:
                if request._msg.reply and not request._msg.reply.startswith(REPLIES):
                    log.warning("reply_refused", subject=request.subject)
                    return
                await places.acquire()
                task = group.create_task(_answer(request, handler, nc), name="command")
                under_way.add(task)
                task.add_done_callback(ended)

            return take

        with translated(name):
            service = await nats.micro.add_service(nc, ServiceConfig(name=name, version=version))
        try:
            with translated(name):
                for endpoint, (subject, handler) in endpoints.items():
                    await service.add_endpoint(
                        EndpointConfig(name=endpoint, subject=subject, handler=hand_over(handler))
                    )
                await nc.flush()
            yield
        finally:
            # Whoever asks from now on is answered by another process, or hears that there is none.
            with suppress(nats.errors.Error):
                await service.stop()
            if under_way:
                await asyncio.wait(under_way, timeout=FINISH_TIMEOUT_S)
            for task in under_way:
                task.cancel()


async def _answer(request: Request, handler: Handler, nc: Client) -> None:
    code, what, body = 0, "", b""
    try:
        body = await handler(request.subject, request.data, request.headers or {})
    except ServiceError as exc:
        code, what, body = exc.code, exc.what, exc.body
    except MessageTooLarge as exc:
        code, what = 413, exc.what
    except Transient as exc:
        code, what = 503, exc.what
    except Exception as exc:  # noqa: BLE001 a handler's bug is counted and must not end the service
        metrics.BUGS.inc()
        log.error("bug", where="commands", exc_info=exc)
        code, what = 500, "a bug in mailbus: see its log"
    except asyncio.CancelledError:
        with suppress(nats.errors.Error, ValueError):
            await request.respond_error("504", STOPPING)
        raise
    # The error's line comes on top. nats-py sends nothing where it is too much, or the server ends the connection.
    if len(body) + HEADER_OVERHEAD_BYTES + 4 * ERROR_LIMIT_CHARS > nc.max_payload:
        code, what, body = 413, f"the answer has {len(body)} bytes; NATS takes {nc.max_payload}: ask for less", b""
    with suppress(nats.errors.Error, ValueError):
        if code:
            await request.respond_error(str(code), _one_line(what), data=body)
        else:
            await request.respond(body)


def _one_line(what: str) -> str:
    """As a header may hold it, whatever a request or a server put into it."""
    line = " ".join(what.split())[:ERROR_LIMIT_CHARS]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
