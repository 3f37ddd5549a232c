"""One key a process in KV `mail-fleet`, with a time to live: who is alive, and that no two share a name.

Used by app.py; publish.py asks `is_alive` before it gives way to another writer.
"""

import contextlib
import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from service.bus import Conflict, KeyValue
from service.clock import Clock
from service.errors import Permanent, Transient
from service.observe import log

RENEWALS_PER_TTL: Final = 4


class PresenceValue(msgspec.Struct, frozen=True):
    """What a process says of itself: `boot` is new with every start, `accounts` a digest of those it was given."""

    boot: str
    accounts: str = ""


_VALUE: Final = msgspec.json.Decoder(PresenceValue)


def _said(value: bytes) -> PresenceValue:
    try:
        return _VALUE.decode(value)
    except msgspec.MsgspecError:
        return PresenceValue("")


def _boot_of(value: bytes) -> str:
    return _said(value).boot


class Presence:
    """This process's key. `writer` is the name under which it writes: `instance/boot`."""

    def __init__(
        self, bucket: KeyValue, *, instance: str, boot: str, accounts: Iterable[str], ttl_s: float, clock: Clock
    ) -> None:
        self._bucket = bucket
        self._instance = instance
        self._boot = boot
        digest = hashlib.sha256("\0".join(sorted(accounts)).encode()).hexdigest()[:16]
        self._value = PresenceValue(boot, digest)
        self._ttl_s = ttl_s
        self._clock = clock
        self._revision = 0
        self.writer = f"{instance}/{boot}"

    async def take(self) -> None:
        """Take the key, from an older process of the same name too: a killed one is back at once."""
        value = msgspec.json.encode(self._value)
        for _ in range(5):
            entry = await self._bucket.get(self._instance)
            try:
                if entry is None:
                    self._revision = await self._bucket.create(self._instance, value)
                else:
                    self._revision = await self._bucket.update(self._instance, value, entry.revision)
                return
            except Conflict:
                continue
        raise self._double()

    async def run(self) -> None:
        """Renew the key until cancelled. Raises Permanent when another process has taken the name."""
        while True:
            await self._clock.sleep(self._ttl_s / RENEWALS_PER_TTL)
            try:
                await self.renew()
            except Transient as exc:
                log.warning("presence_not_renewed", error=str(exc))

    async def renew(self) -> None:
        """Write the key again. Raises Permanent when another process has taken the name."""
        value = msgspec.json.encode(self._value)
        try:
            self._revision = await self._bucket.update(self._instance, value, self._revision)
        except Conflict:
            entry = await self._bucket.get(self._instance)
            if entry is not None and _boot_of(entry.value) != self._boot:
                raise self._double() from None
            # Expired while NATS was away, or our own write whose answer was lost.
            await self.take()

    async def is_alive(self, writer: str) -> bool:
        """Whether the process that writes as `instance/boot` is there."""
        instance, _, boot = writer.rpartition("/")
        entry = await self._bucket.get(instance)
        return entry is not None and _boot_of(entry.value) == boot

    async def all_alike(self) -> bool:
        """Whether every process that is alive was given the same accounts as this one. Raises Transient."""
        for instance in await self._bucket.keys():
            entry = await self._bucket.get(instance)
            if entry is not None and _said(entry.value).accounts != self._value.accounts:
                return False
        return True

    async def leave(self) -> None:
        """Give the name back, where it is still ours."""
        with contextlib.suppress(Transient, Conflict):
            entry = await self._bucket.get(self._instance)
            if entry is not None and _boot_of(entry.value) == self._boot:
                await self._bucket.delete(self._instance)

    def _double(self) -> Permanent:
        return Permanent(
            f"another process runs as instance {self._instance}",
            where="instance",
            remedy="give each process its own `instance` in its settings",
        )
