"""Blobs that no event names any more → gone; one that a mail names after all is there again.

Equal content is one blob, and a process that has just stored it may be about to announce a mail that names it. So each
blob's bytes stay in hand until all processes have been told to forget what they believe to be there, and what was
committed meanwhile has been read.
"""

from collections.abc import Iterable
from typing import Final

from service.bus import Bus
from service.clock import Clock
from service.contract import Blob
from service.erase.found import blobs_since
from service.errors import Permanent
from service.observe import log

# What is in hand at once; a blob that is larger goes alone.
GROUP_LIMIT_BYTES: Final = 64 * 1024 * 1024
# From a blob that is stored to its event: less than a second, or the process waits for NATS and begins anew.
SETTLE_S: Final = 5.0


async def remove_blobs(bus: Bus, ids: Iterable[str], *, since: int, clock: Clock) -> int:
    """Remove blobs that nothing up to `since` names; gives how many are gone. Raises Transient."""
    gone, group = 0, list[Blob]()
    for id in sorted(ids):
        try:
            blob = Blob(id, await bus.blobs().get(id))
        except Permanent:  # it is gone already
            continue
        if group and sum(len(one.data) for one in group) + len(blob.data) > GROUP_LIMIT_BYTES:
            gone += await _remove(bus, group, since=since, clock=clock)
            group = []
        group.append(blob)
    return gone + (await _remove(bus, group, since=since, clock=clock) if group else 0)


async def _remove(bus: Bus, group: list[Blob], *, since: int, clock: Clock) -> int:
    for blob in group:
        await bus.blobs().delete(blob.id)
    await bus.tell_forget()
    await clock.sleep(SETTLE_S)
    # Once more: who found it there just before it went may have noted that after the first word.
    await bus.tell_forget()
    named = await blobs_since(bus, since)
    back = [blob for blob in group if blob.id in named]
    if back:
        log.info("blobs_back", count=len(back))
        await bus.blobs().put_all(back, now=clock.now())
    return len(group) - len(back)
