"""Messages as they were read → events ready to commit: parsed, their attachments in the blob store.

Used by mailbox.py. Knows MIME and blobs; knows no connection and no cursor.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from service.bus import BlobStore, OutMessage
from service.clock import Clock
from service.contract import (
    KIND_HEADER,
    Email,
    EventType,
    MailProblem,
    ProblemType,
    Reset,
    Subjects,
    cloud_event_headers,
    email_id,
    encode,
    event_id,
    mailbox_id,
)
from service.ingest.cursor import Cursor
from service.ingest.source import Fetched, Surveyed
from service.mime import MimeLimits, Parsed, parse, parse_header_only, problem_email
from service.observe import log, metrics, step

# Parsing costs about 100 µs for 40 KB: what may take longer than a few milliseconds goes to a thread.
THREAD_FROM_BYTES: Final = 512 * 1024
# After this many bytes parsed on the loop others get their turn.
YIELD_AFTER_BYTES: Final = 256 * 1024
# What parsing a message costs however small it is, in bytes of a large one.
MESSAGE_COST_BYTES: Final = 8 * 1024
YIELD_AFTER_EVENTS: Final = 50
# Room for the headers of an event beside its body in max_payload.
HEADERS_ROOM_BYTES: Final = 16 * 1024

# RFC 8621 4.1.1: the IMAP flags that have a keyword of their own; \Deleted and \Recent have none.
KEYWORDS: Final = {r"\seen": "$seen", r"\flagged": "$flagged", r"\answered": "$answered", r"\draft": "$draft"}


class Raw(StrEnum):
    """Where the raw bytes of a message are kept as a blob."""

    PROBLEM = "problem"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class AnnounceOptions:
    """Sizes in bytes. `event_limit` is what the server takes in one message."""

    inline_limit: int
    event_limit: int
    raw: Raw
    mime: MimeLimits


@dataclass(frozen=True, slots=True)
class Announced:
    """The events of a page; `dead` are copies for the dead letters, published once the events are committed."""

    events: list[OutMessage]
    dead: list[OutMessage]


def keywords(flags: frozenset[str]) -> dict[str, bool]:
    """IMAP flags → JMAP keywords (RFC 8621 4.1.1): lower case, system flags renamed or hidden."""
    found: dict[str, bool] = {}
    for flag in flags:
        lowered = flag.lower()
        if lowered in KEYWORDS:
            found[KEYWORDS[lowered]] = True
        elif not lowered.startswith("\\"):
            found[lowered] = True
    return found


class Announcer:
    """Makes the events of one mailbox."""

    def __init__(
        self,
        blobs: BlobStore,
        subjects: Subjects,
        *,
        account: str,
        mailbox: str,
        options: AnnounceOptions,
        clock: Clock,
    ) -> None:
        self._blobs = blobs
        self._account = account
        self._mailbox = mailbox
        self._options = options
        self._clock = clock
        self._subjects = subjects
        self._subject = subjects.event(account, mailbox, EventType.RECEIVED)
        self._source = subjects.source(account, mailbox)
        self._mailbox_ids = {mailbox_id(mailbox): True}

    def reset(self, body: Reset, cursor: Cursor) -> OutMessage:
        """The event that begins an epoch."""
        old = body.old_uidvalidity or 0
        headers = cloud_event_headers(
            EventType.RESET,
            source=self._source,
            id=event_id(self._source, cursor.source, cursor.uidvalidity, old, EventType.RESET, body.reason),
            time=self._clock.now(),
            subject=mailbox_id(self._mailbox),
        )
        return OutMessage(self._subjects.event(self._account, self._mailbox, EventType.RESET), encode(body), headers)

    async def parsed(self, page: Sequence[Fetched]) -> list[Parsed]:
        """The messages of a page as Emails, in its order."""
        results: list[Parsed] = []
        since_yield = 0
        for message in page:
            results.append(await self._parse(message))
            since_yield += len(message.body) + MESSAGE_COST_BYTES
            if since_yield > YIELD_AFTER_BYTES:
                since_yield = 0
                await asyncio.sleep(0)
        return results

    async def received(
        self, page: Sequence[Fetched], results: Sequence[Parsed], unavailable: Sequence[Surveyed], cursor: Cursor
    ) -> Announced:
        """The events of a page in UID order, all their blobs stored. Raises Transient where a blob could not be."""
        made: dict[int, OutMessage] = {}
        dead: list[OutMessage] = []
        emails = await self._stored(page, results)
        for number, (message, email) in enumerate(zip(page, emails, strict=True), start=1):
            event = self._message(message.surveyed, email, cursor)
            if len(event.payload) > self._options.event_limit - HEADERS_ROOM_BYTES:
                event = await self._smaller(message, cursor)
            made[message.surveyed.uid] = event
            if number % YIELD_AFTER_EVENTS == 0:
                await asyncio.sleep(0)
        for missing in unavailable:
            problem = MailProblem(ProblemType.UNAVAILABLE, "the mail server shows this message and does not give it")
            email = problem_email(missing.size, received_at=missing.internal_date, problem=problem)
            made[missing.uid] = self._message(missing, email, cursor)
            dead.append(self._dead(made[missing.uid]))
        return Announced([made[uid] for uid in sorted(made)], dead)

    async def _parse(self, message: Fetched) -> Parsed:
        received = message.surveyed.internal_date
        if not message.whole:
            return parse_header_only(
                message.body, message.surveyed.size, received_at=received, limits=self._options.mime
            )
        if len(message.body) < THREAD_FROM_BYTES:
            return self._parse_now(message.body, received, self._options.inline_limit)
        return await asyncio.to_thread(self._parse_now, message.body, received, self._options.inline_limit)

    def _parse_now(self, raw: bytes, received: datetime | None, inline_limit: int) -> Parsed:
        return parse(raw, received_at=received, limits=self._options.mime, inline_limit=inline_limit)

    def _keeps_raw(self, result: Parsed) -> bool:
        if self._options.raw is Raw.PROBLEM:
            return not result.whole
        return self._options.raw is Raw.ALWAYS

    async def _smaller(self, message: Fetched, cursor: Cursor) -> OutMessage:
        """The event of a message with too much text for one message on the bus: all bodies become blobs."""
        if message.whole:
            result = await asyncio.to_thread(self._parse_now, message.body, message.surveyed.internal_date, 0)
            (email,) = await self._stored([message], [result])
            event = self._message(message.surveyed, email, cursor)
            if len(event.payload) <= self._options.event_limit - HEADERS_ROOM_BYTES:
                return event
        problem = MailProblem(ProblemType.TOO_LARGE, "even without its bodies this message is too large for the bus")
        email = problem_email(message.surveyed.size, received_at=message.surveyed.internal_date, problem=problem)
        if message.whole and self._options.raw is not Raw.NEVER:
            (blob_id,) = await self._put([message.body])
            email = msgspec.structs.replace(email, blob_id=blob_id)
        return self._message(message.surveyed, email, cursor)

    async def _stored(self, page: Sequence[Fetched], results: Sequence[Parsed]) -> list[Email]:
        """The Emails of a page with their blobIds, all blobs stored in as few round trips as can be."""
        contents: list[bytes] = []
        for message, result in zip(page, results, strict=True):
            contents += result.blobs.values()
            if message.whole and self._keeps_raw(result):
                contents.append(message.body)
        ids = iter(await self._put(contents) if contents else [])
        emails: list[Email] = []
        for message, result in zip(page, results, strict=True):
            email = result.with_blobs({part: next(ids) for part in result.blobs})
            if message.whole and self._keeps_raw(result):
                email = msgspec.structs.replace(email, blob_id=next(ids))
            emails.append(email)
        return emails

    async def _put(self, contents: Sequence[bytes]) -> list[str]:
        step("blob.before")
        ids = await self._blobs.put_all(contents, now=self._clock.now())
        step("blob.done")
        return ids

    def _message(self, surveyed: Surveyed, email: Email, cursor: Cursor) -> OutMessage:
        id = email_id(self._mailbox, cursor.uidvalidity, surveyed.uid)
        whole = msgspec.structs.replace(
            email,
            id=id,
            mailbox_ids=self._mailbox_ids,
            keywords=keywords(surveyed.flags),
            size=surveyed.size or email.size,
            received_at=surveyed.internal_date,
        )
        headers = cloud_event_headers(
            EventType.RECEIVED,
            source=self._source,
            id=event_id(self._source, cursor.source, cursor.uidvalidity, surveyed.uid, EventType.RECEIVED),
            time=self._clock.now(),
            subject=id,
        )
        headers[KIND_HEADER] = whole.mailbus.kind
        return OutMessage(self._subject, encode(whole), headers)

    def _dead(self, event: OutMessage) -> OutMessage:
        metrics.DEAD.labels(reason="message").inc()
        log.warning("message_with_problem", account=self._account, mailbox=self._mailbox, id=event.headers["ce-id"])
        return OutMessage(self._subjects.dead("message"), event.payload, dict(event.headers))
