"""A mail as a JMAP Email (RFC 8621 section 4), and what JMAP has no word for. Plain data.

Names inside are ours, names on the bus are JMAP's. A property that JMAP says is null is None here and
null on the bus; one that we may leave out is UNSET here and absent there.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.contract.meaning import Authentication, Calendar, FileFacts, Kind, MailingList, Original, Report

# RFC 8621 1.4: UTCDate is Zulu time, Date may carry any offset. The Meta keeps the schema's format.
UtcDate = Annotated[datetime, Meta(tz=True)]
Date = Annotated[datetime, Meta(tz=True)]


class EmailAddress(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8621 4.1.2.3: a mailbox; `name` is None where it has none."""

    name: str | None
    email: str


class EmailAddressGroup(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8621 4.1.2.4: addresses of one group; `name` is None for those between groups."""

    name: str | None
    addresses: list[EmailAddress]


class EmailHeader(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8621 4.1.3: one header field in Raw form."""

    name: str
    value: str


class EmailBodyPart(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8621 4.1.4: one part. A multipart has `sub_parts` and neither `part_id` nor `blob_id`."""

    part_id: str | None
    blob_id: str | None
    size: int
    name: str | None
    type: str
    charset: str | None
    disposition: str | None
    cid: str | None
    language: list[str] | None = None
    location: str | None = None
    sub_parts: "list[EmailBodyPart] | UnsetType" = UNSET


class EmailBodyValue(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8621 4.1.4: the text of a part."""

    value: str
    is_encoding_problem: bool = False
    is_truncated: bool = False


class ProblemType(StrEnum):
    """Why a mail could not be given whole."""

    UNPARSEABLE = "unparseable"
    UNAVAILABLE = "unavailable"
    TOO_LARGE = "too-large"
    ENCRYPTED = "encrypted"


class MailProblem(msgspec.Struct, frozen=True, rename="camel"):
    """Why a mail could not be given whole, for a program and for a person."""

    type: ProblemType
    detail: str


class Extension(msgspec.Struct, frozen=True, rename="camel"):
    """The property `mailbus` of an Email. Absent members mean: nothing to say.

    `files`: attachments of which something is known that the mail does not say. `text`, `reply`, `html`: see Extra.
    `disposition`: what a receipt says was done with a mail (RFC 8098 3.2.6.2).
    `email_id`: the same for one message in all mailboxes of its account (RFC 8474 EMAILID, Gmail's X-GM-MSGID).
    """

    kind: Kind = Kind.MESSAGE
    problem: MailProblem | UnsetType = UNSET
    truncated: list[str] | UnsetType = UNSET
    reports: list[Report] | UnsetType = UNSET
    original: Original | UnsetType = UNSET
    feedback_type: str | UnsetType = UNSET
    disposition: str | UnsetType = UNSET
    calendar: Calendar | UnsetType = UNSET
    list_: MailingList | UnsetType = msgspec.field(name="list", default=UNSET)
    authentication: Authentication | UnsetType = UNSET
    files: list[FileFacts] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    reply: str | UnsetType = UNSET
    html: str | UnsetType = UNSET
    language: str | UnsetType = UNSET
    previous_id: str | UnsetType = UNSET
    email_id: str | UnsetType = UNSET


class Email(
    msgspec.Struct,
    frozen=True,
    rename={"from_": "from"}
    | {
        "blob_id": "blobId",
        "thread_id": "threadId",
        "mailbox_ids": "mailboxIds",
        "received_at": "receivedAt",
        "message_id": "messageId",
        "in_reply_to": "inReplyTo",
        "reply_to": "replyTo",
        "sent_at": "sentAt",
        "body_structure": "bodyStructure",
        "body_values": "bodyValues",
        "text_body": "textBody",
        "html_body": "htmlBody",
        "has_attachment": "hasAttachment",
    },
):
    """RFC 8621 section 4.1: a message. `blob_id` is there only where the raw bytes were stored."""

    id: str
    mailbox_ids: dict[str, bool]
    keywords: dict[str, bool]
    size: int
    received_at: UtcDate | None
    message_id: list[str] | None
    in_reply_to: list[str] | None
    references: list[str] | None
    sender: list[EmailAddress] | None
    from_: list[EmailAddress] | None
    to: list[EmailAddress] | None
    cc: list[EmailAddress] | None
    bcc: list[EmailAddress] | None
    reply_to: list[EmailAddress] | None
    subject: str | None
    sent_at: Date | None
    headers: list[EmailHeader]
    body_structure: EmailBodyPart | None
    body_values: dict[str, EmailBodyValue]
    text_body: list[EmailBodyPart]
    html_body: list[EmailBodyPart]
    attachments: list[EmailBodyPart]
    has_attachment: bool
    preview: str
    blob_id: str | UnsetType = UNSET
    thread_id: str | UnsetType = UNSET
    mailbus: Extension = Extension()
