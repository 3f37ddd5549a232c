"""Options → an open Bus: connected, old servers refused, streams checked.

Used by app.py, check.py and the CLI. Reconnects for ever; `connected` tells.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import RawCredentials
from nats.aio.msg import Msg
from nats.errors import NoServersError

from service.aside import aside
from service.bus.blobs import BlobStore
from service.bus.client import NO_TLS, BusClient
from service.bus.contents import Contents
from service.bus.credentials import check_seed, read_creds, read_secrets
from service.bus.errors import MessageTooLarge, NobodyThere, js_api, subject_counts, subject_pages, translated
from service.bus.follow import Followed, follow, last_seq
from service.bus.guard import header_size
from service.bus.kv import KeyValue
from service.bus.log import EventLog
from service.bus.options import NatsOptions, StreamOptions
from service.bus.permissions import mailbus_permissions
from service.bus.queue import WorkQueue, publish_acknowledged
from service.bus.readers import Readers
from service.bus.refusals import refuses_login
from service.bus.rights import check_rights
from service.bus.streams import check_streams, ensure_streams
from service.contract import Subjects
from service.errors import Inward, Permanent, Transient
from service.observe import log, metrics

OLDEST_NATS: Final = (2, 12, 0)
CONNECT_TIMEOUT_S: Final = 5
RECONNECT_WAIT_S: Final = 0.5
# A server that is there and silent is found dead after two of them (nats-py's default is four minutes).
PING_INTERVAL_S: Final = 10
PINGS_LIMIT: Final = 2
# Whatever counts was acknowledged: a server that does not take our farewell is left without it.
CLOSE_TIMEOUT_S: Final = 1.0
ERRORS_KEPT: Final = 20
# What may wait inside the client while NATS is away: everything that counts is acknowledged, so little helps.
PENDING_LIMIT_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said; an error stands in its headers (Nats-Service-Error-Code)."""

    payload: bytes
    headers: dict[str, str]


class Bus:
    """One connection to NATS and what stands on it."""

    def __init__(self, nc: BusClient, options: NatsOptions) -> None:
        self.nc = nc
        self.options = options
        self.subjects = Subjects(options.prefix)
        self._back = asyncio.Event()
        self._back.set()
        self.log = EventLog(nc, self.subjects.stream_in, lambda: self.max_payload)
        self.dead = EventLog(nc, self.subjects.stream_dead, lambda: self.max_payload)
        self._stores: dict[str, BlobStore] = {}

    @property
    def max_payload(self) -> int:
        """What the server takes in one message, headers included, in bytes; may change at run time."""
        return int(self.nc.max_payload)

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        return bool(self.nc.is_connected)

    async def wait_connected(self) -> None:
        """Until the connection stands."""
        await self._back.wait()

    async def answers(self, timeout_s: float) -> bool:
        """Whether the event log's leader says anything within `timeout_s`."""
        with suppress(Transient, TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.log.bounds()
                return True
        return False

    def key_value(self, bucket: str) -> KeyValue:
        """A bucket of keys."""
        return KeyValue(self.nc, bucket)

    def blobs(self, bucket: str | None = None) -> BlobStore:
        """A store of blobs, `mail-blobs` by default; the same one each time, with what it remembers."""
        name = bucket or self.subjects.blobs
        if name not in self._stores:
            self._stores[name] = BlobStore(self.nc, name, lambda: self.max_payload)
        return self._stores[name]

    def contents(self, stream: str) -> Contents:
        """A stream as whoever looks for something in all of it sees it."""
        return Contents(self.nc, stream)

    async def tell_forget(self) -> None:
        """Have every process forget which blobs it believes to be there. Raises Transient."""
        with translated(self.subjects.forget):
            await self.nc.publish(self.subjects.forget, b"")
            await self.nc.flush()

    def forget(self) -> None:
        """Believe no blob to be there any more."""
        for store in self._stores.values():
            store.forget()

    def queue(self, stream: str) -> WorkQueue:
        """A work queue: `MAIL_OUT` or `MAIL_LATER`."""
        return WorkQueue(self.nc, stream)

    def publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> Awaitable[int]:
        """Publish and have it acknowledged by its stream; gives the sequence. Raises Transient."""
        return publish_acknowledged(self.nc, subject, payload, headers or {})

    def readers(self) -> Readers:
        """A watch over the event log's consumers."""
        return Readers(self.nc, self.subjects.stream_in)

    def follow(self, stream: str, subject: str, *, after: int | None = None) -> AsyncIterator[Followed]:
        """A stream's messages as they come; `after`: from a sequence on, 0 for all. Raises Transient."""
        return follow(self.nc, stream, subject, after=after)

    @asynccontextmanager
    async def hearing(self, subject: str, ring: Callable[[], None]) -> AsyncIterator[None]:
        """Call `ring` for each message on a subject, while the block runs. Raises Transient."""

        async def heard(_: Msg) -> None:
            ring()

        with translated(subject):
            subscription = await self.nc.subscribe(subject, cb=heard)
        try:
            yield
        finally:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, *, timeout_s: float
    ) -> Answer:
        """Ask a service. Raises NobodyThere, NotPermitted, MessageTooLarge, Transient where no answer comes in time."""
        size = header_size(headers or {}) + len(payload)
        if size > self.max_payload:
            raise MessageTooLarge(f"{size} bytes; NATS takes {self.max_payload}", where=subject, remedy="ask for less")
        with translated(subject):
            try:
                reply = await self.nc.request(subject, payload, timeout=timeout_s, headers=headers)
            except nats.errors.NoRespondersError as exc:
                raise NobodyThere("NATS: nobody answers there", where=subject, remedy="is mailbus running?") from exc
        return Answer(reply.data, dict(reply.headers or {}))

    async def stream_created(self, stream: str) -> datetime:
        """When a stream was made. Raises Transient."""
        with translated(stream):
            info = await js_api(self.nc, f"STREAM.INFO.{stream}")
        return datetime.fromisoformat(info["created"])

    async def last_seq(self, stream: str) -> int:
        """The sequence of a stream's last message, 0 without a stream. Raises Transient."""
        return await last_seq(self.nc, stream)

    async def stream_state(self, stream: str) -> str:
        """What changes with whatever a stream gets or loses. Raises Transient."""
        with translated(stream):
            state = (await js_api(self.nc, f"STREAM.INFO.{stream}"))["state"]
        return f"{state['last_seq']} {state['messages']}"

    async def pending(self, stream: str, subject: str) -> int:
        """How many messages of a subject a stream holds. Raises Transient."""
        with translated(stream):
            return sum([sum(page.values()) async for page in subject_pages(self.nc, stream, subject)])

    async def check_streams(self, options: StreamOptions, replicas: int) -> list[str]:
        """Whether the streams that are there will do; gives those that are missing.

        Raises Permanent that lists every difference, or Transient.
        """
        return await check_streams(self.nc, self.subjects, options, replicas)

    async def check_rights(self, *, missing: Collection[str] = ()) -> None:
        """Whether this user may do all that mailbus does. `missing`: streams that it has to make.

        Raises Permanent that names every right it has not, or Transient.
        """
        wanted = mailbus_permissions(self.subjects)
        await check_rights(self.nc, wanted, missing=missing, where=_where(self.options))

    async def queued(self, stream: str, subject: str) -> list[str]:
        """The subjects under which a stream holds messages. Raises Transient."""
        with translated(stream):
            return sorted(await subject_counts(self.nc, stream, subject))

    # -- callbacks of the client ------------------------------------------------------------------------------

    async def on_disconnected(self) -> None:
        """The connection is gone; the client looks for it for ever."""
        if self.nc.is_closed:
            return  # our own farewell
        self._back.clear()
        self.forget()
        metrics.NATS_CONNECTED.set(0)
        log.warning("nats_disconnected")

    def on_error(self, error: Exception) -> None:
        """The client cannot go on, or not so."""
        log.debug("nats_error", error=type(error).__name__)
        self.nc.heard_error(error, away=not self._back.is_set())

    async def on_reconnected(self) -> None:
        """The connection is back."""
        self._back.set()
        self.nc.refusals.forget()
        metrics.NATS_CONNECTED.set(1)
        metrics.RECONNECTS.labels(protocol="nats", reason="transient").inc()
        log.info("nats_reconnected")


def _connect_arguments(options: NatsOptions, bus: Bus, seen: list[Exception]) -> dict[str, Any]:
    async def on_error(error: Exception) -> None:
        bus.on_error(error)
        if len(seen) < ERRORS_KEPT:
            seen.append(error)

    arguments: dict[str, Any] = {
        "servers": list(options.servers),
        "name": options.name,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": PINGS_LIMIT,
        "reconnect_time_wait": RECONNECT_WAIT_S,
        "max_reconnect_attempts": -1,
        "allow_reconnect": True,
        "pending_size": PENDING_LIMIT_BYTES,
        "disconnected_cb": bus.on_disconnected,
        "reconnected_cb": bus.on_reconnected,
        "error_cb": on_error,
    }
    named = {"user": options.user, "password": options.password, "token": options.token}
    arguments |= {name: value for name, value in named.items() if value is not None}
    if options.creds is not None:
        arguments["user_credentials"] = RawCredentials(read_creds(options.creds, _where(options)))
    if options.nkey_seed is not None:
        check_seed(options.nkey_seed.strip().encode(), "nats.nkey_seed", _where(options))
        arguments["nkeys_seed_str"] = options.nkey_seed
    if options.ca or options.cert or any(server.startswith("tls://") for server in options.servers):
        arguments["tls"] = _tls(options)
    return arguments


def _tls(options: NatsOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca)
    if options.cert:
        context.load_cert_chain(options.cert, options.key)
    return context


def _where(options: NatsOptions) -> str:
    """The servers without credentials: a URL may hold some."""
    parts = [urlsplit(server if "://" in server else f"nats://{server}") for server in options.servers]
    return ", ".join(f"{part.hostname}:{part.port or 4222}" for part in parts)


async def _connect(options: NatsOptions) -> Bus:
    where = _where(options)
    nc = BusClient()
    bus = Bus(nc, options)
    seen: list[Exception] = []
    try:
        arguments = await aside(partial(_connect_arguments, options, bus, seen), where="nats", kind="nats")
    except (OSError, ssl.SSLError) as exc:
        raise Permanent(f"nats.tls: {exc.strerror or exc}", where=where, remedy="check ca, cert and key") from exc
    if options.ca or options.cert:
        nc.read_tls = partial(_tls, options)
    if options.creds is not None:
        nc.read_creds = partial(read_creds, options.creds, where)
    if options.files:
        nc.read_secrets = partial(read_secrets, options.files, _where(options))
    # The client's own loop would try one server for ever; the caller decides how long to wait.
    first = arguments | {"max_reconnect_attempts": 1}
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S * max(1, len(options.servers)) + 5):
            await nc.connect(**first)
    except asyncio.CancelledError:
        await _close(nc)
        raise
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as exc:
        await _close(nc)
        # What counts is what each server said: in the end nats-py only says that none is left.
        raise _connect_verdict([*seen, exc], where) from exc
    nc.options["max_reconnect_attempts"] = -1
    return bus


def _connect_verdict(errors: list[Exception], where: str) -> Permanent | Transient:
    # Where one server refuses and another has a passing trouble, that one may know the credentials.
    words = [one for one in errors if isinstance(one, nats.errors.Error) and not isinstance(one, NoServersError)]
    for error in errors:
        if str(error) == NO_TLS:
            return Permanent(f"NATS: {NO_TLS}", where=where, remedy="set up TLS there, or take it out of the settings")
        if isinstance(error, ssl.SSLCertVerificationError):
            return Permanent(f"NATS: {error.verify_message}", where=where, remedy="nats.tls.ca")
    if words and all(map(refuses_login, words)):
        remedy = "check nats.user, token, creds or nkey_seed"
        return Permanent("NATS refuses the credentials", where=where, remedy=remedy)
    return Inward(f"no NATS: {_said(errors[0])}", where=where, remedy="is the server up? nats.servers")


def _said(error: Exception) -> str:
    match error:
        case socket.gaierror():
            return error.strerror or "no such host"
        case OSError() if error.errno:
            # asyncio's own words hold the address once more.
            return os.strerror(error.errno)
        case TimeoutError():
            return "no answer in time"
        case nats.errors.Error():
            return str(error)
        case _:
            return type(error).__name__


async def _close(nc: BusClient) -> None:
    # RuntimeError: uvloop's word for a transport that is gone already.
    with suppress(nats.errors.Error, OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await nc.close()


def _check_server(nc: BusClient, where: str) -> None:
    version = nc.connected_server_version
    found = (version.major, version.minor, version.patch)
    if found < OLDEST_NATS:
        raise Permanent(
            f"NATS {'.'.join(map(str, found))} is too old: mailbus needs 2.12 or newer (atomic batches, schedules)",
            where=where,
            remedy="upgrade nats-server",
        )
    info: dict[str, Any] = nc._server_info  # nats-py has no public name for it
    if not info.get("jetstream"):
        raise Permanent("NATS runs without JetStream", where=where, remedy="enable jetstream in the server's settings")


@asynccontextmanager
async def open_bus(options: NatsOptions, streams: StreamOptions | None) -> AsyncIterator[Bus]:
    """Connect, refuse an old server, check the streams (None: leave them alone), close in the end.

    Raises Permanent where waiting does not help (version, credentials, drifted streams), Transient otherwise.
    """
    bus = await _connect(options)
    try:
        _check_server(bus.nc, _where(options))
        if streams is not None:
            await ensure_streams(bus.nc, bus.subjects, streams, options.replicas)
        metrics.NATS_CONNECTED.set(1)
        yield bus
    finally:
        metrics.NATS_CONNECTED.set(0)
        await _close(bus.nc)
