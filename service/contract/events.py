"""Events as they stand on the bus: bodies, CloudEvents headers, ids that are the same for ever. Plain data.

Envelope: CloudEvents 1.0, NATS protocol binding, binary mode.
"""

import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from service.contract.email import UtcDate

CURSOR_HEADER: Final = "Mail-Cursor"
DEAD_HEADER: Final = "Mail-Dead"
KIND_HEADER: Final = "Mail-Kind"


class EventType(StrEnum):
    """The last token of an event's subject; `ce-type` is `mailbus.<this>`."""

    RECEIVED = "received"
    CHANGED = "changed"
    REMOVED = "removed"
    RESET = "reset"
    STATUS = "status"
    ACCOUNT = "account"


class ResetReason(StrEnum):
    """Why a new epoch of a mailbox begins."""

    START = "start"
    UIDVALIDITY = "uidvalidity"
    SOURCE = "source"
    RENAMED = "renamed"


class AccountState(StrEnum):
    """The last token of an account event's subject."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    AUTH_FAILED = "auth_failed"
    DEGRADED = "degraded"
    PAUSED = "paused"
    RESUMED = "resumed"
    REMOVED = "removed"


class AccountPart(StrEnum):
    """What of an account an event is about: one of its mailboxes, its relay, or its queue of requests."""

    MAILBOX = "mailbox"
    SENDER = "sender"
    REQUESTS = "requests"


class DeadReason(StrEnum):
    """The last token of a dead letter's subject."""

    MESSAGE = "message"
    REQUEST = "request"
    UNKNOWN_ACCOUNT = "unknown-account"


class Changed(msgspec.Struct, frozen=True, rename="camel"):
    """All keywords of a message as they are now."""

    id: str
    mailbox_ids: dict[str, bool]
    keywords: dict[str, bool]


class Removed(msgspec.Struct, frozen=True, rename="camel"):
    """A message left this mailbox; not necessarily the account."""

    id: str
    mailbox_ids: dict[str, bool]


class Reset(msgspec.Struct, frozen=True, rename="camel"):
    """A new epoch: ids of the old one are void, and no `removed` follows for them."""

    mailbox: str
    reason: ResetReason
    uidvalidity: int
    old_uidvalidity: int | None


class AccountEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An account's state changed, by which part of it unless it is connected. `detail`, `remedy` are for a person."""

    account: str
    state: AccountState
    at: UtcDate
    instance: str
    mailbox: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    remedy: str | UnsetType = UNSET
    part: AccountPart | UnsetType = UNSET


def event_id(*parts: str | int) -> str:
    """`ce-id`: 32 hex digits of SHA-256 over the parts. The same parts give the same id for ever.

    For a mailbox's event the parts are source, uidvalidity, uid, type, and modseq or a counter.
    """
    joined = "\0".join(str(part) for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


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
