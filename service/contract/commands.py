"""Shapes of the commands on `mail.cmd.<account>.<verb>`. Plain data, and what its types do not say.

Names are JMAP's (RFC 8621) where JMAP has them. filters.py has what `search` looks for, requests.py what `send` takes.
A `mailbox` is named by its full name or by its id.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.contract.email import Email, UtcDate
from service.contract.filters import Comparator, Filter
from service.contract.meaning import Extra
from service.contract.problems import Problem
from service.contract.requests import SendRequest

# RFC 8620 2, maxObjectsInGet and maxObjectsInSet; 500 UIDs stay within one line of IMAP (RFC 2683 3.2.1.5).
IDS_LIMIT: Final = 500
SEARCH_LIMIT: Final = 5000
KEYWORDS_LIMIT: Final = 100


class Verb(StrEnum):
    """What the service answers."""

    SEND = "send"
    MAILBOXES = "mailboxes"
    SEARCH = "search"
    GET = "get"
    FLAGS = "flags"
    COPY = "copy"
    MOVE = "move"
    DELETE = "delete"
    APPEND = "append"
    UPLOAD = "upload"
    RESYNC = "resync"
    HELD = "held"
    CANCEL = "cancel"
    RELEASE = "release"


class AccountsVerb(StrEnum):
    """What is answered about accounts themselves."""

    ADD = "add"
    SET = "set"
    REMOVE = "remove"
    PAUSE = "pause"
    RESUME = "resume"
    LIST = "list"
    RESEAL = "reseal"


# RFC 8620 1.2.
Id = Annotated[str, Meta(max_length=255)]
Ids = Annotated[list[Id], Meta(max_length=IDS_LIMIT)]
Position = Annotated[int, Meta(ge=0)]


class SendAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The request is in `MAIL_OUT` under this id."""

    id: str


class MailboxesRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Which mailboxes there are, from the one at `position` of the whole list on."""

    position: Position = 0


class MailboxExtension(msgspec.Struct, frozen=True, rename="camel"):
    """What JMAP has no word for: the full name, and whether the mailbox holds mail at all (`\\Noselect`)."""

    path: str
    selectable: bool


# RFC 6154 section 2; RFC 8457 for `important`. Beside them there is `inbox`, which INBOX has.
ROLES: Final = ("all", "archive", "drafts", "flagged", "important", "junk", "sent", "trash")


class Mailbox(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8621 section 2. The totals are absent where there are none, or their server was not asked."""

    id: str
    name: str
    parent_id: str | None
    role: str | None
    mailbus: MailboxExtension
    total_emails: int | UnsetType = UNSET
    unread_emails: int | UnsetType = UNSET


class MailboxesAnswer(msgspec.Struct, frozen=True, rename={"found": "list"}):
    """`more`: the list goes on at the next position."""

    found: list[Mailbox]
    more: bool = False


class SearchRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """RFC 8621 4.4. Without `sort` the newest come first, by their UID."""

    mailbox: str
    filter: Filter | None = None
    sort: list[Comparator] = []
    position: Position = 0
    limit: Annotated[int, Meta(ge=0, le=SEARCH_LIMIT)] = 100


class SearchAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """`total`: of all that was found; `more`: some of it comes after these."""

    ids: list[str]
    position: int
    total: int
    more: bool = False


class GetRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """RFC 8621 4.2. `raw` stores each message as it is and gives its `blobId`.

    `extras`: what of a mail's text is made beside its bodies, in `mailbus`; null: what the account's settings say.
    """

    ids: Ids
    properties: list[str] | None = None
    fetch_all_body_values: bool = False
    raw: bool = False
    extras: list[Extra] | None = None


class GetAnswer(msgspec.Struct, frozen=True, rename={"found": "list", "not_found": "notFound"}):
    """`more`: the answer was full, or the day's bytes are read; ids that are neither in `list` nor in `notFound` are to
    be asked for again."""

    found: list[dict[str, Any]]
    not_found: list[str]
    more: bool = False


class FlagsRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Keywords to set and to take away (RFC 8621 4.1.1)."""

    ids: Ids
    add: list[str] = []
    remove: list[str] = []


class FlagsAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Which messages have the keywords now."""

    updated: list[str]
    not_found: list[str]


class CopyRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Of `copy` and `move`: messages, and the mailbox into which they go."""

    ids: Ids
    mailbox: str


class CopyAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Old id → new id; null where the server does not tell and the message has nothing to be found by."""

    created: dict[str, str | None]
    not_found: list[str]


class DeleteRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Into the mailbox with the role `trash`, or away for ever."""

    ids: Ids
    permanently: bool = False


class DeleteAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Which messages are deleted."""

    destroyed: list[str]
    not_found: list[str]


class AppendRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """RFC 8621 4.8, Email/import: a message as a blob; or one that is built as `send` would, recipients or not."""

    mailbox: str
    blob_id: str | None = None
    request: SendRequest | None = None
    keywords: dict[str, Literal[True]] = {}
    received_at: UtcDate | None = None


class AppendAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The new message's id; null where the server does not tell and the message has no Message-ID."""

    id: str | None


class UploadRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Bytes to keep as a blob; `name` and `type` come back in the answer."""

    content: bytes
    name: str | None = None
    type: str = "application/octet-stream"


class UploadAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8620 6.1; with its `size` taken away it is an attachment of a request."""

    blob_id: str
    type: str
    size: int
    name: str | None = None


class ResyncRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The mailbox to compare; without it all that the account follows."""

    mailbox: str | None = None


class Resynced(msgspec.Struct, frozen=True, rename="camel"):
    """What was found of one mailbox, and told: so many events of each kind.

    `messages`: how many announced ones there are; `reset`: its ids are new.
    """

    id: str
    path: str
    messages: int
    received: int
    changed: int
    removed: int
    reset: bool


class ResyncAnswer(msgspec.Struct, frozen=True, rename={"found": "list"}):
    """`announced`: events of all mailboxes together; `more`: there were too many mailboxes to list."""

    announced: int
    found: list[Resynced]
    more: bool = False


class HeldRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A request of which nobody knows whether `recipients` have it. It fails at `expires_at` unless it is released."""

    id: str
    message_id: str
    attempt: int
    recipients: list[str]
    expires_at: UtcDate


class HeldAnswer(msgspec.Struct, frozen=True, rename={"found": "list"}):
    """Requests on hold; `more`: there was no room or no time for all, the others are asked for by `next`."""

    found: list[HeldRequest]
    more: bool = False
    next: str | UnsetType = UNSET


class HeldAsked(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Of `held`: requests on hold; `after`: what an answer has as `next`."""

    after: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")] | None = None


class CancelRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Of `cancel` and `release`: a request's id."""

    id: Id


class CancelAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8621 section 7: `canceled` where nobody gets it, `final` where somebody has it or may, `pending` otherwise.

    `cancelled`: the recipients that were still waiting and will not get it any more.
    """

    undo_status: Literal["pending", "final", "canceled"]
    cancelled: list[str]


class Problems(msgspec.Struct, frozen=True):
    """The body of an error answer; its headers are `Nats-Service-Error` and `Nats-Service-Error-Code`."""

    problems: list[Problem]


# RFC 8621 4.1: the properties that `get` gives, by what must be read of a message for them.
METADATA: Final = frozenset({"id", "mailboxIds", "keywords", "size", "receivedAt"})
HEADER_FIELDS: Final = {
    "messageId": "Message-ID",
    "inReplyTo": "In-Reply-To",
    "references": "References",
    "sender": "Sender",
    "from": "From",
    "to": "To",
    "cc": "Cc",
    "bcc": "Bcc",
    "replyTo": "Reply-To",
    "subject": "Subject",
    "sentAt": "Date",
}
PROPERTIES: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Email))
# RFC 8621 4.2: what is given where no properties are named.
DEFAULT_PROPERTIES: Final = PROPERTIES - {"headers", "bodyStructure"}
