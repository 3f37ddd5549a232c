"""A request to send as plain data, its life, and the blobs that it names. Pure. What may be wrong with it: checks.py.

Field names are JMAP's where JMAP has them (RFC 8621 sections 4 and 7).
"""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from service.contract.answer import Forward, Reply
from service.contract.email import UtcDate
from service.contract.media import one_spelling
from service.contract.merge import filled
from service.contract.problems import Problem

# Relays take 25 to 50 MB. All of a mail stands in memory while it is built, and base64 makes four thirds of it.
BLOBS_LIMIT_BYTES: Final = 50 * 1024 * 1024


class Address(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An address of a request; `name` may be absent."""

    email: str
    name: str | None = None


class Recipient(Address, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Who a request is to; `variables` are what stands for `{{name}}` in this recipient's message."""

    variables: dict[str, str] = {}


class EnvelopeAddress(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """RFC 8621 section 7: an address of the SMTP envelope, and what MAIL or RCPT say beside it."""

    email: str
    parameters: dict[str, str | None] = {}


class Envelope(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """RFC 8621 section 7: what MAIL FROM and RCPT TO say, where the header does not decide.

    `rcpt_to` is absent with `split`, where each message goes to one of `to`.
    """

    mail_from: EnvelopeAddress
    rcpt_to: list[EnvelopeAddress] = []


class Attachment(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A file: by `blob_id`, or base64 in `content`."""

    type: str = "application/octet-stream"
    name: str | None = None
    disposition: Literal["attachment", "inline"] = "attachment"
    cid: str | None = None
    blob_id: str | None = None
    content: bytes | None = None


class SendRequest(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={
        "from_": "from",
        "reply_to": "replyTo",
        "in_reply_to": "inReplyTo",
        "raw_blob_id": "rawBlobId",
        "send_at": "sendAt",
        "expires_at": "expiresAt",
    },
):
    """The body of `mail.out.<account>`. An unknown field is refused like a wrong one."""

    id: str | None = None
    from_: Address | None = None
    to: list[Recipient] = []
    cc: list[Address] = []
    bcc: list[Address] = []
    reply_to: list[Address] = []
    subject: str = ""
    text: str | None = None
    html: str | None = None
    attachments: list[Attachment] = []
    headers: dict[str, str] = {}
    in_reply_to: str | None = None
    references: list[str] = []
    envelope: Envelope | None = None
    raw_blob_id: str | None = None
    send_at: UtcDate | None = None
    expires_at: UtcDate | None = None
    split: bool = False
    reply: Reply | None = None
    forward: Forward | None = None
    # Which queue the command `send` puts it into; straight into the stream the subject says it.
    priority: Literal["normal", "high"] = "normal"

    @property
    def original_id(self) -> str | None:
        """The announced message that it is about, until `answered` has put that in its place."""
        about = self.reply or self.forward
        return about.email_id if about is not None else None

    def recipients(self) -> list[str]:
        """Who gets it: the envelope's, otherwise to, cc and bcc; each once as it is spelt first, in order.

        The case and the script of a domain say nothing (RFC 5321 2.4, RFC 5890 2.3.2.4); those of what is before it do.
        """
        if self.envelope is not None and not self.split:
            found = [address.email for address in self.envelope.rcpt_to]
        else:
            found = [address.email for address in (*self.to, *self.cc, *self.bcc)]
        spelt: dict[str, str] = {}
        for email in found:
            spelt.setdefault(one_spelling(email), email)
        return list(spelt.values())


def for_one(request: SendRequest, one: Recipient) -> SendRequest:
    """What one recipient of a request with `split` gets: a request of its own, the values in their places."""
    values = one.variables
    return msgspec.structs.replace(
        request,
        split=False,
        to=[Recipient(one.email, one.name)],
        subject=filled(request.subject, values),
        text=None if request.text is None else filled(request.text, values),
        html=None if request.html is None else filled(request.html, values, in_html=True),
        headers={name: filled(value, values) for name, value in request.headers.items()},
    )


@dataclass(frozen=True, slots=True)
class SendLimits:
    """What an account's settings say of its requests, in seconds: their life, and how long their ids are remembered."""

    expires_s: float
    window_s: float


def expiry_of(request: SendRequest, stored_at: datetime, limits: SendLimits) -> datetime:
    """When a request is too old: once it is forgotten at the latest."""
    first = max(request.send_at, stored_at) if request.send_at else stored_at
    life = min(first + timedelta(seconds=limits.expires_s), stored_at + timedelta(seconds=limits.window_s))
    return request.expires_at or life


def beyond(request: SendRequest, stored_at: datetime, limits: SendLimits) -> list[Problem]:
    """A request that outlives what is remembered of it would be forgotten, or sent twice."""
    forgotten_at = stored_at + timedelta(seconds=limits.window_s)
    given = (("sendAt", request.send_at), ("expiresAt", request.expires_at))
    return [
        Problem(field, f"later than requests are remembered: {limits.window_s / 86400:g} days (`outgoing.window`)")
        for field, at in given
        if at is not None and at > forgotten_at
    ]


def blob_ids(request: SendRequest) -> list[str]:
    """Every blob that a request names, once."""
    if not request.attachments and request.raw_blob_id is None:
        return []
    return list(blob_uses(request))


def blob_uses(request: SendRequest) -> Counter[str]:
    """How often a request names each blob: a mail has it so many times."""
    named = [one.blob_id for one in request.attachments if one.blob_id is not None]
    return Counter([*named, *([request.raw_blob_id] if request.raw_blob_id is not None else [])])


def missing_blobs(request: SendRequest, there: Container[str]) -> list[Problem]:
    """What a request names and is not among the blobs that are there. A forward's stand in no field of its own."""
    return [
        Problem("rawBlobId" if blob == request.raw_blob_id else "attachments", f"no such blob: {blob}")
        for blob in blob_ids(request)
        if blob not in there
    ]


def wrong_sizes(request: SendRequest, sizes: Mapping[str, int]) -> list[Problem]:
    """What is wrong where all that a request names by blob is no mail, or more than one may have; `sizes` in bytes."""
    if not sizes:
        return []
    if sizes.get(request.raw_blob_id or "") == 0:
        return [Problem("rawBlobId", "the blob is empty: there is nothing to send")]
    total = sum(sizes.get(blob, 0) * count for blob, count in blob_uses(request).items())
    if total <= BLOBS_LIMIT_BYTES:
        return []
    field = "attachments" if request.raw_blob_id is None else "rawBlobId"
    return [Problem(field, f"{total} bytes in all: a mail has {BLOBS_LIMIT_BYTES} at the most")]
