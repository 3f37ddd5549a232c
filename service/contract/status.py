"""What became of a request: a JMAP EmailSubmission (RFC 8621 section 7). Plain data."""

import hashlib
from enum import StrEnum
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from service.contract.email import UtcDate
from service.contract.meaning import Report
from service.contract.problems import Problem


class State(StrEnum):
    """The last token of a status event's subject."""

    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    CANCELLED = "cancelled"


class DeliveryStatus(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8621 section 7: what the relay said of one recipient.

    `delivered`: queued while it waits, unknown once the relay has it, no when it failed.
    """

    smtp_reply: str
    delivered: Literal["queued", "yes", "no", "unknown"]
    displayed: Literal["yes", "unknown"] = "unknown"


class EmailSubmission(msgspec.Struct, frozen=True, rename="camel"):
    """The body of `mail.status.<account>.<state>`; `delivery_status` lists the recipients this event is about.

    `relay`: where an account has several, the one that was asked last. `report`: what a bounce says of its recipient;
    `verified`: whether a bounce or complaint came with something that only mailbus makes; otherwise anybody may have
    written it.
    """

    id: str
    undo_status: Literal["pending", "final", "canceled"]
    delivery_status: dict[str, DeliveryStatus]
    state: State
    attempt: int
    message_id: str | UnsetType = UNSET
    next_attempt_at: UtcDate | UnsetType = UNSET
    problems: list[Problem] | UnsetType = UNSET
    relay: str | UnsetType = UNSET
    report: Report | UnsetType = UNSET
    verified: bool | UnsetType = UNSET


def request_key(account: str, id: str) -> str:
    """What names a request's state and schedule: the first 32 hex digits of SHA-256(account, NUL, id)."""
    return hashlib.sha256(f"{account}\0{id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
