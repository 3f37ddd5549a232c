"""A request in the queue, or one that waits in the outbox → its bytes and the blobs it names, in memory.

Used by deliver.py. Nothing is read before there is memory for it (places.py); the job has that to its end.
"""

from collections.abc import Mapping

from service.bus import Bus, Job
from service.contract import SendRequest, blob_ids, decode_request
from service.errors import Permanent
from service.observe import log
from service.outbound.outbox import Bundle, Outbox
from service.outbound.places import Place
from service.outbound.request import Taken
from service.outbound.sends import SendRecord
from service.outbound.task import mails_at_once


class Bundles:
    """Those of one account."""

    def __init__(self, bus: Bus, outbox: Outbox, account: str) -> None:
        self._bus = bus
        self._outbox = outbox
        self._account = account

    async def gather(
        self, key: str, request: SendRequest, payload: bytes, sizes: Mapping[str, int], place: Place
    ) -> Bundle:
        """A request with its blobs, once there is memory for them; those that are not there are left out."""
        await self.room(request, payload, sizes, place)
        blobs: dict[str, bytes] = {}
        for blob in blob_ids(request):
            try:
                blobs[blob] = await self._bus.blobs().get(blob)
            except Permanent:
                log.warning("blob_missing", account=self._account, blob=blob)
        return Bundle(key, payload, blobs)

    async def room(self, request: SendRequest, payload: bytes, sizes: Mapping[str, int], place: Place) -> None:
        """Wait for the memory of what `gather` gives; again does nothing."""
        size = len(payload) + sum(sizes.values())
        await place.hold(size, mails=mails_at_once(size, split=request.split))

    async def room_ahead(self, record: SendRecord | None, taken: Taken | None, payload: bytes, place: Place) -> None:
        """Wait for the memory of a request before anybody says which way it takes. Raises Transient.

        What it takes from another message is not known yet.
        """
        request = taken.request if taken is not None else None
        if record is not None and record.outbox is not None:
            await self.room_of_kept(record, place)
        elif request is not None and request.original_id is None:
            await self.room(request, payload, await self._bus.blobs().sizes(blob_ids(request)), place)

    async def again(self, key: str, job: Job, place: Place) -> Bundle:
        """That of a request that is in the queue still. Raises RequestProblems, Transient."""
        request = decode_request(job.payload)
        sizes = await self._bus.blobs().sizes(blob_ids(request))
        return await self.gather(key, request, job.payload, sizes, place)

    async def kept(self, record: SendRecord, place: Place) -> Bundle:
        """What waits in the outbox, once there is memory for it. Raises Permanent where it is gone, Transient."""
        await self.room_of_kept(record, place)
        return await self.read(record)

    async def room_of_kept(self, record: SendRecord, place: Place) -> None:
        """Wait for the memory of what waits in the outbox; again does nothing. Raises Transient."""
        size = await self._outbox.size(record.outbox or "")
        await place.hold(size, mails=mails_at_once(size, split=record.split))

    async def read(self, record: SendRecord) -> Bundle:
        """What waits in the outbox, for which there is memory. Raises Permanent where it is gone, Transient."""
        return await self._outbox.get(record.outbox or "")
