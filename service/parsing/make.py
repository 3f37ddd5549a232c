"""One message as it was read → its event and the blobs that the event refers to. Deterministic; no I/O.

Used by ingest/parser.py and `python -m service.parsing`.
"""

import hashlib
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET

from service.contract import (
    AFTER_HEADER,
    ENVELOPE_ROOM_BYTES,
    KIND_HEADER,
    STATE_HEADER,
    Blob,
    Email,
    EventType,
    MailProblem,
    ProblemType,
    blob_id,
    cloud_event_headers,
    email_id,
    encode,
    event_id,
    mailbox_id,
)
from service.meaning import read_meaning, thread_id
from service.mime import Meaning, MimeLimits, Parsed, parse, parse_header_only, problem_email
from service.parsing.pages import Made, Page, Raw, Read

LIMITS: Final = MimeLimits()


def make(page: Page, message: Read) -> Made:
    """The event of one message. Never raises for what a mail may hold."""
    if message.body is None:
        problem = MailProblem(ProblemType.UNAVAILABLE, "the mail server shows this message and does not give it")
        email = problem_email(message.size, received_at=message.internal_date, problem=problem)
        return _made(page, message, email, [], kept=False)
    if not message.whole:
        parsed = parse_header_only(
            message.body, message.size, received_at=message.internal_date, limits=LIMITS, meaning=_meaning(page)
        )
    else:
        parsed = _parse(page, message.body, message.internal_date, page.inline_limit)
    made = _with_blobs(page, message, parsed)
    if len(made.payload) <= page.event_limit - ENVELOPE_ROOM_BYTES:
        return made
    return _smaller(page, message, message.body)


def _parse(page: Page, body: bytes, received: datetime | None, inline_limit: int) -> Parsed:
    return parse(
        body,
        received_at=received,
        limits=LIMITS,
        inline_limit=inline_limit,
        meaning=_meaning(page),
        extras=page.extras,
    )


def _meaning(page: Page) -> Meaning:
    server = page.server

    def read(email: Email, values: dict[str, str], contents: dict[str, bytes]) -> Email:
        return read_meaning(email, values, contents, server)

    return read


def _with_blobs(page: Page, message: Read, parsed: Parsed) -> Made:
    blobs = {part: _blob(page, content) for part, content in parsed.blobs.items()}
    email = parsed.with_blobs({part: blob.id for part, blob in blobs.items()})
    stored = list(blobs.values())
    keeps_raw = not parsed.whole if page.raw is Raw.PROBLEM else page.raw is Raw.ALWAYS
    if message.whole and message.body is not None and keeps_raw:
        raw = _blob(page, message.body)
        email = msgspec.structs.replace(email, blob_id=raw.id)
        stored.append(raw)
        return _made(page, message, email, stored, kept=True)
    return _made(page, message, email, stored, kept=message.whole and parsed.whole)


def _smaller(page: Page, message: Read, body: bytes) -> Made:
    """The event of a message with too much text for one message on the bus: all bodies become blobs."""
    if message.whole:
        made = _with_blobs(page, message, _parse(page, body, message.internal_date, 0))
        if len(made.payload) <= page.event_limit - ENVELOPE_ROOM_BYTES:
            return made
    problem = MailProblem(ProblemType.TOO_LARGE, "even without its bodies this message is too large for the bus")
    email = problem_email(message.size, received_at=message.internal_date, problem=problem)
    if not message.whole or page.raw is Raw.NEVER:
        return _made(page, message, email, [], kept=False)
    raw = _blob(page, body)
    return _made(page, message, msgspec.structs.replace(email, blob_id=raw.id), [raw], kept=True)


def _blob(page: Page, content: bytes) -> Blob:
    return Blob(blob_id(hashlib.sha256(content).digest(), page.now), content)


def _made(page: Page, message: Read, email: Email, blobs: list[Blob], *, kept: bool) -> Made:
    """`kept`: event and blobs hold everything of the message."""
    id = email_id(page.mailbox, page.uidvalidity, message.uid, page.turn)
    whole = msgspec.structs.replace(
        email,
        id=id,
        mailbox_ids=dict.fromkeys(map(mailbox_id, [page.mailbox, *message.mailboxes]), True),
        thread_id=message.thread_id or thread_id(email) or UNSET,
        keywords=message.keywords,
        size=message.size or email.size,
        received_at=message.internal_date,
    )
    if message.previous_id or message.email_id:
        extension = msgspec.structs.replace(
            whole.mailbus, previous_id=message.previous_id or UNSET, email_id=message.email_id or UNSET
        )
        whole = msgspec.structs.replace(whole, mailbus=extension)
    headers = cloud_event_headers(
        EventType.RECEIVED,
        source=page.source,
        id=event_id(page.source, page.cursor_source, page.uidvalidity, message.uid, EventType.RECEIVED),
        time=page.now,
        subject=id,
    )
    headers[KIND_HEADER] = whole.mailbus.kind
    if message.state:
        headers[STATE_HEADER] = message.state
    if page.after and (kept or page.after_all):
        headers[AFTER_HEADER] = page.after
    return Made(message.uid, encode(whole), headers, blobs)
