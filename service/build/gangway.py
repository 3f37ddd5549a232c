"""How many connections are opened at once: over all of a process, and to one host.

Used for every account's connections. A provider that answers nobody holds some of the places, and never all of them.
"""

import asyncio
from types import TracebackType
from typing import Final
from weakref import WeakValueDictionary

# A start of a thousand accounts opens so many connections at once, not a thousand; a provider counts them by address.
CONNECTING_LIMIT: Final = 20
CONNECTING_LIMIT_A_HOST: Final = 10


class Gangway:
    """The places for opening a connection to one host: `async with` holds one."""

    def __init__(self, everywhere: asyncio.Semaphore, here: asyncio.Semaphore) -> None:
        self._everywhere = everywhere
        self._here = here

    async def __aenter__(self) -> None:
        # In this order: who waits for the host keeps no place that another host could use.
        await self._here.acquire()
        try:
            await self._everywhere.acquire()
        except BaseException:
            self._here.release()
            raise

    async def __aexit__(self, _type: type[BaseException] | None, _exc: object, _tb: TracebackType | None) -> None:
        self._everywhere.release()
        self._here.release()


class Gangways:
    """Those of a process."""

    def __init__(self, limit: int = CONNECTING_LIMIT, limit_a_host: int = CONNECTING_LIMIT_A_HOST) -> None:
        self._everywhere = asyncio.Semaphore(limit)
        self._limit_a_host = limit_a_host
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def to(self, host: str) -> Gangway:
        """The one to a host. Whoever keeps it keeps its count."""
        here = self._hosts.get(host.lower())
        if here is None:
            here = self._hosts[host.lower()] = asyncio.Semaphore(self._limit_a_host)
        return Gangway(self._everywhere, here)
