"""A process to look at, without one running: the figures that a test says."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest

from service.admin import AccountsPage, AdminServer, Snapshot


@dataclass
class Shown:
    """An admin server, and what it is given to show."""

    snapshot: Snapshot = field(
        default_factory=lambda: Snapshot(instance="one", version="1.2.3", uptime_s=5.0, nats_connected=True, ready=True)
    )
    ready: bool = True
    port: int = 0

    def change(self, **changes: Any) -> None:
        """Other figures from now on."""
        self.snapshot = msgspec.structs.replace(self.snapshot, **changes)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def page(self, after: str) -> AccountsPage:
        """All of the accounts that come after one."""
        return AccountsPage(accounts=tuple(one for one in self.snapshot.accounts if one.id > after))

    def server(self, port: int = 0, *, host: str = "127.0.0.1") -> AdminServer:
        """A server that shows this."""
        return AdminServer((host, port), snapshot=lambda: self.snapshot, accounts=self.page, ready=lambda: self.ready)


@pytest.fixture
async def admin() -> AsyncIterator[Shown]:
    """A server on a port of its own."""
    shown = Shown()
    async with shown.server() as server:
        shown.port = server.port
        yield shown


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client that gives up."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session
