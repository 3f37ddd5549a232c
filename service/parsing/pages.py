"""What goes into parsing and what comes out, for a program and as it crosses to another process. Plain data."""

from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

from service.contract import Blob, Extra


class Raw(StrEnum):
    """Where the raw bytes of a message are kept as a blob."""

    PROBLEM = "problem"
    ALWAYS = "always"
    NEVER = "never"


class Page(msgspec.Struct, frozen=True, array_like=True):
    """What all messages of a page have in common. Sizes in bytes; `event_limit` is what the server takes in one."""

    source: str
    mailbox: str
    cursor_source: str
    uidvalidity: int
    inline_limit: int
    event_limit: int
    raw: Raw
    now: datetime
    # What stands in the header Mail-After; `after_all`: also where not everything of the message is kept.
    after: str = ""
    after_all: bool = True
    # RFC 8601 2.5: the authserv-id of the account's own mail server, "" to learn it from each mail.
    server: str = ""
    # What of the mail's text is made beside its bodies.
    extras: list[Extra] = []
    # Which of the epochs with this UIDVALIDITY it is (ImapPlace).
    turn: int = 0


class Read(msgspec.Struct, frozen=True, array_like=True):
    """A message as it was read; without a body where the server would not give it."""

    uid: int
    size: int
    keywords: dict[str, bool]
    internal_date: datetime | None
    body: bytes | None
    whole: bool
    # What stands in the header Mail-State, and the Email's id before a reset.
    state: str = ""
    previous_id: str = ""
    # In all mailboxes of the account, and of the conversation; the names of the mailboxes that it is in.
    email_id: str = ""
    thread_id: str = ""
    mailboxes: list[str] = []


class Made(msgspec.Struct, frozen=True, array_like=True):
    """The event of a message, to be published once its blobs are stored."""

    uid: int
    payload: bytes
    headers: dict[str, str]
    blobs: list[Blob]


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Bytes in a slot."""

    start: int
    size: int


Placed: TypeAlias = Span | bytes


class PlacedRead(msgspec.Struct, frozen=True, array_like=True):
    uid: int
    size: int
    keywords: dict[str, bool]
    internal_date: datetime | None
    body: Span | None
    whole: bool
    state: str
    previous_id: str
    email_id: str
    thread_id: str
    mailboxes: list[str]


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A page to make events of, and the slot where its bodies stand."""

    slot: int
    page: Page
    messages: list[PlacedRead]


class PlacedBlob(msgspec.Struct, frozen=True, array_like=True):
    id: str
    data: Placed


class PlacedMade(msgspec.Struct, frozen=True, array_like=True):
    uid: int
    payload: Placed
    headers: dict[str, str]
    blobs: list[PlacedBlob]
