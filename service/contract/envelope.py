"""What stands round an event's body: CloudEvents headers, and ids that are the same for ever. Pure.

CloudEvents 1.0, NATS protocol binding, binary mode.
"""

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from service.contract.events import EventType

# What an event's headers take at the most, beside its body in max_payload.
ENVELOPE_ROOM_BYTES: Final = 16 * 1024


def event_id(*parts: str | int) -> str:
    """`ce-id`: 32 hex digits of SHA-256 over the parts. The same parts give the same id for ever.

    For a mailbox's event the parts are source, uidvalidity, uid, type, and modseq or a counter.
    """
    joined = "\0".join(str(part) for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


# All events of a page are of one moment.
@lru_cache(maxsize=64)
def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as `ce-time` and JMAP's UTCDate want it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def cloud_event_headers(kind: EventType, *, source: str, id: str, time: datetime, subject: str) -> dict[str, str]:
    """The headers of one event (CloudEvents 1.0, NATS binding 3.1). All values are ours: no CR, LF or NUL in them."""
    return {
        "ce-specversion": "1.0",
        "ce-id": id,
        "ce-type": f"mailbus.{kind}",
        "ce-source": source,
        "ce-time": rfc3339(time),
        "ce-subject": subject,
        "content-type": "application/json",
    }
