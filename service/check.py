"""Settings → what works of all that they name: NATS, each mailbox, each relay. Used by `mailbus check`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from service.build import (
    CONNECTING_LIMIT,
    PRESENCE_TTL_S,
    nats_options,
    session_options,
    smtp_options,
    stream_options,
)
from service.bus import open_bus
from service.clock import SystemClock
from service.errors import MailbusError
from service.imap import Session
from service.settings import AccountSettings, IncomingSettings, OutgoingSettings, Settings, show_duration
from service.smtp import Relay
from service.tasks import TaskGroup

MAILBOXES_SHOWN: Final = 20
NATS: Final = "nats"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `error` is empty where it works."""

    what: str
    detail: str
    error: MailbusError | None = None


async def check(settings: Settings, report: Callable[[Finding], None]) -> None:
    """Try everything, and report each thing as it is known."""
    places = asyncio.Semaphore(CONNECTING_LIMIT)

    async def attempt(what: str, work: Callable[[], Awaitable[str]]) -> None:
        async with places:
            try:
                report(Finding(what, await work()))
            except MailbusError as exc:
                report(Finding(what, "", exc))

    async with TaskGroup() as group:
        group.create_task(attempt(NATS, lambda: _nats(settings)), name=NATS)
        for account in settings.accounts:
            if account.incoming is not None:
                incoming = account.incoming
                work = lambda a=account, i=incoming: _incoming(settings, a, i)  # noqa: E731
                group.create_task(attempt(f"{account.id} incoming", work), name=account.id)
            if account.outgoing is not None:
                outgoing = account.outgoing
                work = lambda a=account, o=outgoing: _outgoing(a, o)  # noqa: E731
                group.create_task(attempt(f"{account.id} outgoing", work), name=account.id)


async def _nats(settings: Settings) -> str:
    async with open_bus(nats_options(settings), None) as bus:
        version = bus.nc.connected_server_version
        number = f"{version.major}.{version.minor}.{version.patch}"
        await bus.check_streams(stream_options(settings, PRESENCE_TTL_S), settings.nats.replicas)
        return f"{', '.join(settings.nats.servers)}, version {number} with JetStream"


async def _incoming(settings: Settings, account: AccountSettings, incoming: IncomingSettings) -> str:
    session = await Session.open(session_options(settings, account, incoming), clock=SystemClock())
    try:
        found = []
        for name in incoming.mailboxes:
            selected = await session.examine(name)
            found.append(f"{name} ({selected.exists} messages)")
        idle = "IDLE" if "IDLE" in session.capabilities else f"no IDLE: looked at every {show_duration(incoming.poll)}"
        return f"{incoming.imap.host}, {idle}: {', '.join(found)}"
    except MailbusError as exc:
        listed = [mailbox.name for mailbox in await session.list_mailboxes()]
        exc.remedy = f"{exc.remedy}; there are: {', '.join(listed[:MAILBOXES_SHOWN])}"
        raise
    finally:
        await session.logout()


async def _outgoing(account: AccountSettings, outgoing: OutgoingSettings) -> str:
    relay = Relay(smtp_options(account, outgoing), SystemClock())
    try:
        await relay.probe()
    finally:
        await relay.close()
    login = "logged in" if outgoing.smtp.login else "no login wanted"
    return f"{outgoing.smtp.host}, {outgoing.smtp.security}, {login}"
