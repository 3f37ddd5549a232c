"""What the tests of POP3 have in common."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from service.clock import SystemClock
from service.contract import Security
from service.pop3 import Pop3Options, Session
from tests.servers.imap_server import PASSWORD
from tests.servers.pop3_stub import Hook, Pop3Connection

USUAL: dict[str, Any] = {
    "account": "acct",
    "host": "127.0.0.1",
    "security": Security.NONE,
    "tls": None,
    "username": "someone",
    "password": PASSWORD,
    "message_limit": 10_000_000,
    "reply_s": 20.0,
}


def options(port: int, **changes: Any) -> Pop3Options:
    return Pop3Options(**(USUAL | {"port": port} | changes))


@asynccontextmanager
async def session(port: int, **changes: Any) -> AsyncIterator[Session]:
    opened = await Session.open(options(port, **changes), clock=SystemClock())
    try:
        yield opened
    finally:
        await opened.leave()


def answering(reply: str | bytes) -> Hook:
    """A hook that always says the same."""

    async def hook(connection: Pop3Connection, arguments: str) -> bool:
        await connection.send(reply)
        return True

    return hook


def cutting(before: Callable[[], bool] = lambda: True) -> Hook:
    """A hook that drops the connection."""

    async def hook(connection: Pop3Connection, arguments: str) -> bool:
        if before():
            connection.cut()
            return True
        return False

    return hook


async def listed(opened: Session) -> tuple[dict[int, int], dict[int, bytes]]:
    """What LIST and UIDL say."""
    sizes: list[tuple[int, int]] = []
    uidls: list[tuple[int, bytes]] = []
    await opened.sizes(sizes.extend)
    await opened.uidls(uidls.extend)
    return dict(sizes), dict(uidls)


async def read(opened: Session, numbers: list[int], *, whole: bool = True) -> dict[int, bytes]:
    """What RETR or TOP gives."""
    found: dict[int, bytes] = {}
    await opened.read(numbers, found.__setitem__, whole=whole)
    return found
