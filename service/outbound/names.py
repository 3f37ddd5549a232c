"""Names of the requester's own that a mail goes out with → its request, for a report that has no proof with it.

The Message-ID of raw bytes, an envelope's id (ENVID, RFC 3461 4.4) and a reverse-path that the request gives: whoever
saw the mail can write them into a report, so what is found by one is told and changes nothing. Each is a key of
`mail-sends` beside the records, and lives as long as they do; its value are the keys of the requests. What mailbus
itself sends along needs no table: see proof.py.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from service.bus import Conflict, KeyValue
from service.contract import SendRequest, encode
from service.errors import Transient

# A name of more requests than this tells none of them from the others: a reverse-path that serves for all mail.
SHARED: Final = 64
# Only accounts that share a name write it at the same time; one account's requests do so in turn.
TRIES: Final = 5
# Shared names that are kept in mind, so that each costs nothing after it was found out.
REMEMBERED: Final = 1000
_DECODER: Final = msgspec.json.Decoder(list[str])


def by_message_id(id: str) -> str:
    """The name that the returned mail's Message-ID is."""
    return f"message-id {id}"


def by_envelope_id(id: str) -> str:
    """The name that a report's Original-Envelope-Id is (RFC 3464 2.2.1: as the sender gave it, not as xtext)."""
    return f"envelope-id {id}"


def by_path(address: str) -> str:
    """The name that the address is which a report was sent to; local parts that differ in case alone are one."""
    return f"path {address.lower()}"


def names_of(request: SendRequest, message_id: str, address: str) -> list[str]:
    """What a request's mail goes out with that is the requester's own. `address`: the account's."""
    names = [by_message_id(message_id)] if request.raw_blob_id is not None and message_id else []
    if request.envelope is not None:
        mail_from = request.envelope.mail_from
        given = {name.upper(): value for name, value in mail_from.parameters.items()}
        if given.get("ENVID"):
            names.append(by_envelope_id(given["ENVID"] or ""))
        senders = {address.lower(), request.from_.email.lower() if request.from_ is not None else ""}
        if mail_from.email and mail_from.email.lower() not in senders:
            names.append(by_path(mail_from.email))
    return names


class Names:
    """The names in the bucket."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket
        self._shared: dict[str, None] = {}
        self._turn = asyncio.Lock()

    async def keep(self, names: Iterable[str], key: str) -> None:
        """Before the mail goes out: a bounce may come before its outcome is stored. Raises Transient."""
        for name in names:
            place = _place(name)
            if place not in self._shared:
                async with self._turn:
                    await self._keep(place, key)

    async def _keep(self, place: str, key: str) -> None:
        for _ in range(TRIES):
            try:
                await self._bucket.create(place, encode([key]))
            except Conflict:
                entry = await self._bucket.get(place)
            else:
                return
            if entry is None:
                continue  # it ended between the two
            keys = _DECODER.decode(entry.value)
            if key in keys:
                return
            if len(keys) >= SHARED:
                while len(self._shared) >= REMEMBERED:
                    del self._shared[next(iter(self._shared))]
                self._shared[place] = None
                return
            try:
                await self._bucket.update(place, encode([*keys, key]), entry.revision)
            except Conflict:
                continue
            return
        raise Transient("a name of a request changes too often", where="mail-sends")

    async def find(self, names: Iterable[str]) -> list[str]:
        """The keys of the requests that have one of these names, the first name's first. Raises Transient."""
        found: dict[str, None] = {}
        for name in dict.fromkeys(names):
            entry = await self._bucket.get(_place(name))
            keys = _DECODER.decode(entry.value) if entry is not None else []
            if len(keys) < SHARED:
                found |= dict.fromkeys(keys)
        return list(found)


def _place(name: str) -> str:
    """The bucket's key: no record's, which are hexadecimal alone."""
    return f"name-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
