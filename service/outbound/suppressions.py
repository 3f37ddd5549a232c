"""Addresses that an account sends nothing to: the bucket `mail-suppressions`, and what of it a sender must know.

Used by attempt.py before each attempt, and by the command line. A key is `<account>.<hash of the address>`, so that a
sender learns who is on the list by the keys alone.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Final

import msgspec

from service.bus import Bus, Conflict
from service.clock import Clock
from service.contract import ascii_domain, encode
from service.errors import Inward, Transient
from service.outbound.retry import Said, Verdict

# What is added or removed counts within this time; between two looks a list costs nothing.
LOOK_EVERY_S: Final = 5.0
HASH_CHARS: Final = 32
# Of a list that is shown.
READ_AT_ONCE: Final = 512


class Suppression(msgspec.Struct, frozen=True, rename="camel"):
    """An address, why nothing is sent to it, and since when."""

    email: str
    reason: str
    at: datetime


_DECODER: Final = msgspec.json.Decoder(Suppression)


def suppression_key(account: str, address: str) -> str:
    """The same for an address however it is written: local parts that differ in case alone are one mailbox in practice.

    Raises ValueError where the domain is no name.
    """
    whole = ascii_domain(address).lower()
    return f"{account}.{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:HASH_CHARS]}"


class Suppressions:
    """One account's list."""

    def __init__(self, bus: Bus, account: str, clock: Clock) -> None:
        self._bus = bus
        self._account = account
        self._clock = clock
        self._bucket = bus.key_value(bus.subjects.suppressions)
        self._stream = f"KV_{bus.subjects.suppressions}"
        self._prefix = f"$KV.{bus.subjects.suppressions}."
        self._known: frozenset[str] = frozenset()
        self._state = ""
        self._looked_at: float | None = None
        self._looking = asyncio.Lock()
        self._failures = 0

    async def among(self, recipients: Iterable[str]) -> dict[str, Said]:
        """Who of them is on the list, with what is said of it. Raises Transient."""
        # One look for all who ask meanwhile: a long list is megabytes, and NATS may not answer.
        failures = self._failures
        async with self._looking:
            if self._failures > failures:
                raise Inward("the suppressions could not be read", where=self._stream)
            now = self._clock.monotonic()
            if self._looked_at is None or now - self._looked_at >= LOOK_EVERY_S:
                try:
                    await self._look()
                except Transient:
                    self._failures += 1
                    raise
                self._looked_at = now
        if not self._known:
            return {}
        return {one: _BARRED for one in recipients if self._is_known(one)}

    def _is_known(self, recipient: str) -> bool:
        try:
            return suppression_key(self._account, recipient) in self._known
        except ValueError:
            return False  # the builder says what is wrong with it

    async def _look(self) -> None:
        state = await self._bus.stream_state(self._stream)
        if state != self._state:
            self._known = frozenset(await self._keys())
            self._state = state

    async def _keys(self) -> list[str]:
        found = await self._bus.queued(self._stream, f"{self._prefix}{self._account}.*")
        return [subject.removeprefix(self._prefix) for subject in found]

    async def all(self) -> AsyncIterator[Suppression]:
        """Everybody on it. Raises Transient."""
        keys = await self._keys()
        for start in range(0, len(keys), READ_AT_ONCE):
            for entry in (await self._bucket.get_all(keys[start : start + READ_AT_ONCE])).values():
                yield _DECODER.decode(entry.value)

    async def add(self, address: str, reason: str) -> bool:
        """Put an address on it; False where it is there. Raises Transient, ValueError."""
        value = encode(Suppression(address, reason, self._clock.now()))
        try:
            await self._bucket.create(suppression_key(self._account, address), value)
        except Conflict:
            return False
        return True

    async def remove(self, address: str) -> bool:
        """Take an address off it; False where it was not there. Raises Transient, ValueError."""
        # Without a trace: a mark of the deletion would be a key like any other.
        return bool(await self._bucket.purge(suppression_key(self._account, address)))


# RFC 3463 3.8: not authorized, by us.
_BARRED: Final = Said(Verdict.REFUSED, "550 5.7.1 not sent by mailbus: suppressed")
