"""Events as they stand on the bus: their bodies, and the words that name them. Plain data. See envelope.py."""

from enum import StrEnum
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from service.contract.email import UtcDate

CURSOR_HEADER: Final = "Mail-Cursor"
DEAD_HEADER: Final = "Mail-Dead"
KIND_HEADER: Final = "Mail-Kind"
# What the event changes in the known state of its mailbox: mailbus's own.
STATE_HEADER: Final = "Mail-State"


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
    """What of an account an event is about: a mailbox, which mailboxes there are, POP3 standing in for INBOX, what is
    done after a mail's event, its relay, its queue of requests, copies of what it sends, its settings, or its OAuth 2
    token.

    A token serves both directions, or there is one for each.
    """

    MAILBOX = "mailbox"
    MAILBOXES = "mailboxes"
    POP3 = "pop3"
    AFTER = "after"
    SENDER = "sender"
    REQUESTS = "requests"
    SENT = "sent"
    SETTINGS = "settings"
    OAUTH2 = "oauth2"
    OAUTH2_INCOMING = "oauth2-incoming"
    OAUTH2_OUTGOING = "oauth2-outgoing"


class DeadReason(StrEnum):
    """The last token of a dead letter's subject."""

    MESSAGE = "message"
    REQUEST = "request"
    UNKNOWN_ACCOUNT = "unknown-account"
    POISON = "poison"


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
    """A new epoch: ids of the old one are void, and no `removed` follows for them.

    `old_mailbox`: what it was called, where it was renamed.
    """

    mailbox: str
    reason: ResetReason
    uidvalidity: int
    old_uidvalidity: int | None
    old_mailbox: str | UnsetType = UNSET


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
