"""What a mail means, for those who act on it: its kind, reports of delivery, invitations, lists, verdicts. Plain data.

The members of an Email's property `mailbus`. Absent members mean: nothing to say.
"""

from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType


class Kind(StrEnum):
    """What kind of mail it is; also the header `Mail-Kind`."""

    MESSAGE = "message"
    BOUNCE = "bounce"
    DELAY = "delay"
    DELIVERED = "delivered"
    AUTOREPLY = "autoreply"
    COMPLAINT = "complaint"
    INVITATION = "invitation"
    LIST = "list"
    NEWSLETTER = "newsletter"
    RECEIPT = "receipt"


class Extra(StrEnum):
    """What an event has of a mail's text beside its bodies, where settings or a request ask for it."""

    TEXT = "text"
    REPLY = "reply"
    HTML = "html"
    LANGUAGE = "language"


class Action(StrEnum):
    """RFC 3464 2.3.3: what became of a delivery."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


class Reason(StrEnum):
    """Why a delivery failed: Sisimai's vocabulary, in lower case."""

    AUTHFAILURE = "authfailure"
    BADREPUTATION = "badreputation"
    BLOCKED = "blocked"
    CONTENTERROR = "contenterror"
    EXCEEDLIMIT = "exceedlimit"
    EXPIRED = "expired"
    FAILEDSTARTTLS = "failedstarttls"
    FILTERED = "filtered"
    HASMOVED = "hasmoved"
    HOSTUNKNOWN = "hostunknown"
    MAILBOXFULL = "mailboxfull"
    MAILERERROR = "mailererror"
    MESGTOOBIG = "mesgtoobig"
    NETWORKERROR = "networkerror"
    NORELAYING = "norelaying"
    NOTACCEPT = "notaccept"
    NOTCOMPLIANTRFC = "notcompliantrfc"
    ONHOLD = "onhold"
    POLICYVIOLATION = "policyviolation"
    REJECTED = "rejected"
    REQUIREPTR = "requireptr"
    SECURITYERROR = "securityerror"
    SPAMDETECTED = "spamdetected"
    SPEEDING = "speeding"
    SUPPRESSED = "suppressed"
    SUSPEND = "suspend"
    SYNTAXERROR = "syntaxerror"
    SYSTEMERROR = "systemerror"
    SYSTEMFULL = "systemfull"
    TOOMANYCONN = "toomanyconn"
    UNDEFINED = "undefined"
    USERUNKNOWN = "userunknown"
    VIRUSDETECTED = "virusdetected"


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """What a bounce, a notice of delay or of success says of one recipient.

    `recipient` is RFC 3464's Final-Recipient, `originalRecipient` what the sender wrote where that is another.
    `status` is RFC 3463's code, `replyCode` SMTP's. `hard`: the address is not worth another try; a full mailbox is.
    """

    recipient: str
    action: Action
    original_recipient: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    reply_code: int | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    hard: bool | UnsetType = UNSET
    diagnostic: str | UnsetType = UNSET
    remote_mta: str | UnsetType = UNSET


class FileFacts(msgspec.Struct, frozen=True, rename="camel"):
    """What is known of an attachment, by its `partId`, beside what the mail says of it.

    `type`: what it is by its content, where that is not what was declared. `name`: one that a file system can take,
    where the given one is not. `encrypted`: whether an archive or a document needs a password.
    """

    part_id: str
    type: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    encrypted: bool | UnsetType = UNSET


class Original(msgspec.Struct, frozen=True, rename="camel"):
    """The mail that a report is about, as far as it says: its Message-ID and its envelope's id (RFC 3461 4.4).

    `recipients`: who complained (RFC 5965 3.2), or who read it (RFC 8098 3.2.3).
    """

    message_id: str | UnsetType = UNSET
    envelope_id: str | UnsetType = UNSET
    recipients: list[str] | UnsetType = UNSET


class Calendar(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 5546: the first event of an invitation or of an answer to one. Times are as they stand there.

    `start` and `end`: RFC 3339 where the zone is UTC, otherwise local time and `timeZone`; a date alone is a whole day.
    """

    method: str
    uid: str | UnsetType = UNSET
    summary: str | UnsetType = UNSET
    start: str | UnsetType = UNSET
    end: str | UnsetType = UNSET
    time_zone: str | UnsetType = UNSET
    location: str | UnsetType = UNSET
    organizer: str | UnsetType = UNSET
    attendees: list["Attendee"] | UnsetType = UNSET
    recurrence: str | UnsetType = UNSET
    sequence: int | UnsetType = UNSET


class Attendee(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 5545 3.8.4.1; `status` is PARTSTAT in lower case: `accepted`, `declined`, `tentative`, `needs-action`."""

    email: str
    status: str | UnsetType = UNSET


class MailingList(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 2919 and 2369. `oneClick`: an https address of `unsubscribe` takes a POST (RFC 8058)."""

    id: str | UnsetType = UNSET
    post: str | UnsetType = UNSET
    unsubscribe: list[str] | UnsetType = UNSET
    one_click: bool | UnsetType = UNSET


class Authentication(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8601: the verdicts of the account's own mail server; nobody else's are here."""

    server: str
    spf: str | UnsetType = UNSET
    dkim: str | UnsetType = UNSET
    dmarc: str | UnsetType = UNSET
    arc: str | UnsetType = UNSET
