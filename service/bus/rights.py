"""The rights that mailbus needs → those that its user of NATS does not have, by trying each. Used by connection.py.

The server says of each subject whether it is permitted before it looks at what is published there, and says nothing
of those that are. So each is tried with what does nothing: an expectation that no stream meets, a filter that no
message has, a name that nothing bears, a request without its content.
"""

import asyncio
from collections.abc import Collection
from typing import Final

import msgspec

from service.bus.client import BusClient
from service.bus.errors import translated
from service.bus.frames import hpub, pub
from service.bus.permissions import Permissions
from service.errors import Permanent
from service.tasks import cancellable

# The token of a subject that nobody has: an account, a mailbox, a key or a consumer of this name.
NOBODY: Final = "mailbus-check"
API: Final = "$JS.API."
PURGE: Final = f"{API}STREAM.PURGE."
CREATE: Final = f"{API}STREAM.CREATE."
INBOX: Final = "_INBOX.>"
# JetStream stores nothing that is meant for another stream (10060).
NOWHERE: Final = {"Nats-Expected-Stream": NOBODY}
LIMIT_S: Final = 10
# Of subscriptions, which nats-py numbers from 1.
FIRST_ID: Final = 1 << 40


async def check_rights(nc: BusClient, wanted: Permissions, *, missing: Collection[str], where: str) -> None:
    """Raise Permanent that names every right that is not there, or Transient.

    `missing`: streams that have to be made; the right to make others is not tried.
    """
    if refused := await _refused(nc, wanted, missing):
        raise Permanent(
            f"NATS does not permit this user all that mailbus does: {', '.join(refused)}",
            where=where,
            remedy="give it these rights (`mailbus streams permissions` prints all that are needed)",
        )


async def _refused(nc: BusClient, wanted: Permissions, missing: Collection[str]) -> list[str]:
    publish = {
        _tried(one): one for one in wanted.publish if not one.startswith(CREATE) or one.removeprefix(CREATE) in missing
    }
    hear = {f"{nc.new_inbox()}.*" if one == INBOX else one: one for one in wanted.subscribe}
    with translated("rights"), nc.refusals.gathered() as refused:
        # Taken back in the same write: who asks whether somebody listens there does not take this one for somebody.
        for id, subject in enumerate(hear, start=FIRST_ID):
            nc.put(b"SUB %b %d\r\nUNSUB %d\r\n" % (subject.encode(), id, id))
        for subject in publish:
            nc.put(_harmless(subject))
        async with asyncio.timeout(LIMIT_S):
            await nc.emptied()  # nats-py's ping waits for nothing that is to be written
            with cancellable():
                # Errors come in the order of what they are about, and before the answer to a ping.
                await nc.flush()
    said = {(one.what, one.subject) for one in refused}
    tried = [("publish", "publish", publish), ("subscription", "subscribe", hear)]
    return [
        f"{name} {right}"
        for what, name, rights in tried
        for subject, right in rights.items()
        if (what, subject.lower()) in said
    ]


def _tried(right: str) -> str:
    """A subject that the right is needed for, and nothing has."""
    if right.startswith("$O."):  # chunks and metas
        return right.replace(">", f"M.{NOBODY}")
    return right.replace("*", NOBODY).replace(">", NOBODY)


def _harmless(subject: str) -> bytes:
    if not subject.startswith(API):
        return hpub(subject, NOWHERE, b"")
    # An empty one would empty the stream.
    return pub(subject, msgspec.json.encode({"filter": NOBODY}) if subject.startswith(PURGE) else b"")
