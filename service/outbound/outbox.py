"""What waits outside the queue: a request's bytes and the blobs it names, as one object until its final state.

Used by bundles.py and settle.py. One object a request, its key inside: equal content of two requests stays two objects,
so that the end of one takes nothing from the other. The same request gives the same object, so a repeat stores nothing
anew.
"""

from datetime import datetime
from typing import Final

import msgspec

from service.bus import BlobStore
from service.observe import step

# How the key of a bundle begins that is a mail for a Sent mailbox.
SENT: Final = "sent "


class Bundle(msgspec.Struct, frozen=True):
    """A request as it was published, and its blobs by blobId."""

    key: str
    request: bytes
    blobs: dict[str, bytes]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Bundle)


class Outbox:
    """The bucket `mail-outbox`."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    async def put(self, bundle: Bundle, *, stored_at: datetime) -> str:
        """Keep a bundle; gives its name. `stored_at` is the request's own time, so a repeat has the same name."""
        step("outbox.before")
        name = await self._store.put(_ENCODER.encode(bundle), now=stored_at)
        step("outbox.done")
        return name

    async def get(self, name: str) -> Bundle:
        """A bundle. Raises Permanent where it is gone, Transient."""
        return _DECODER.decode(await self._store.get(name))

    async def size(self, name: str) -> int:
        """How many bytes a bundle has; 0 where it is gone. Raises Transient."""
        return await self._store.size(name) or 0

    async def free(self, name: str) -> None:
        """Its request is final. Raises Transient."""
        step("outbox.free")
        await self._store.delete(name)
        step("outbox.freed")
