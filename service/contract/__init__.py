"""What crosses the bus, as plain typed data: the public face of mailbus.

JMAP's names (RFC 8621) outside, ours inside. Knows no NATS, no IMAP, no settings.
subjects.py names things; email.py, events.py, requests.py, status.py, commands.py are the bodies;
schema.py prints them as JSON Schema and AsyncAPI.
"""

from service.contract.blob import Blob, blob_id
from service.contract.codec import encode
from service.contract.commands import Problems, SendAnswer, Verb
from service.contract.email import (
    Email,
    EmailAddress,
    EmailBodyPart,
    EmailBodyValue,
    EmailHeader,
    Extension,
    Kind,
    MailProblem,
    ProblemType,
)
from service.contract.envelope import cloud_event_headers, event_id, rfc3339
from service.contract.events import (
    CURSOR_HEADER,
    DEAD_HEADER,
    KIND_HEADER,
    STATE_HEADER,
    AccountEvent,
    AccountPart,
    AccountState,
    Changed,
    DeadReason,
    EventType,
    Removed,
    Reset,
    ResetReason,
)
from service.contract.ids import ImapPlace, email_id, mailbox_id, mailbox_name, place_of
from service.contract.net import Security, hidden, without_credentials
from service.contract.requests import (
    Address,
    Attachment,
    Envelope,
    EnvelopeAddress,
    Problem,
    RequestProblems,
    SendLimits,
    SendRequest,
    beyond,
    blob_ids,
    check_request,
    decode_request,
    times,
)
from service.contract.schema import asyncapi, event_schema
from service.contract.status import DeliveryStatus, EmailSubmission, State, request_key
from service.contract.subjects import ACCOUNT_ID, PREFIX, Subjects, mailbox_token
from service.contract.sync import Sync

__all__ = [
    "ACCOUNT_ID",
    "CURSOR_HEADER",
    "DEAD_HEADER",
    "KIND_HEADER",
    "PREFIX",
    "STATE_HEADER",
    "AccountEvent",
    "AccountPart",
    "AccountState",
    "Address",
    "Attachment",
    "Blob",
    "Changed",
    "DeadReason",
    "DeliveryStatus",
    "Email",
    "EmailAddress",
    "EmailBodyPart",
    "EmailBodyValue",
    "EmailHeader",
    "EmailSubmission",
    "Envelope",
    "EnvelopeAddress",
    "EventType",
    "Extension",
    "ImapPlace",
    "Kind",
    "MailProblem",
    "Problem",
    "ProblemType",
    "Problems",
    "Removed",
    "RequestProblems",
    "Reset",
    "ResetReason",
    "Security",
    "SendAnswer",
    "SendLimits",
    "SendRequest",
    "State",
    "Subjects",
    "Sync",
    "Verb",
    "asyncapi",
    "beyond",
    "blob_id",
    "blob_ids",
    "check_request",
    "cloud_event_headers",
    "decode_request",
    "email_id",
    "encode",
    "event_id",
    "event_schema",
    "hidden",
    "mailbox_id",
    "mailbox_name",
    "mailbox_token",
    "place_of",
    "request_key",
    "rfc3339",
    "times",
    "without_credentials",
]
