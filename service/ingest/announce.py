"""Messages as they were read → events ready to commit, their blobs in the store.

Used by mailbox.py. Knows subjects and blobs; parsing is another room's, connection and cursor are other files'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.bus import BlobStore, OutMessage
from service.clock import Clock
from service.contract import (
    Blob,
    EventType,
    Reset,
    Subjects,
    cloud_event_headers,
    encode,
    event_id,
    keywords,
    mailbox_id,
)
from service.ingest.cursor import Cursor
from service.ingest.parser import Parser
from service.ingest.source import Fetched, Surveyed
from service.observe import log, metrics, step
from service.parsing import Made, Page, Raw, Read


@dataclass(frozen=True, slots=True)
class AnnounceOptions:
    """Sizes in bytes. `event_limit` is what the server takes in one message."""

    inline_limit: int
    event_limit: int
    raw: Raw


@dataclass(frozen=True, slots=True)
class Announced:
    """The events of a page; `dead` are copies for the dead letters, published once the events are committed."""

    events: list[OutMessage]
    dead: list[OutMessage]


class Announcer:
    """Makes the events of one mailbox."""

    def __init__(
        self,
        blobs: BlobStore,
        subjects: Subjects,
        parser: Parser,
        *,
        account: str,
        mailbox: str,
        options: AnnounceOptions,
        clock: Clock,
    ) -> None:
        self._blobs = blobs
        self._parser = parser
        self._account = account
        self._mailbox = mailbox
        self._options = options
        self._clock = clock
        self._subjects = subjects
        self._subject = subjects.event(account, mailbox, EventType.RECEIVED)
        self._source = subjects.source(account, mailbox)

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

    async def make(self, page: Sequence[Fetched], unavailable: Sequence[Surveyed], cursor: Cursor) -> list[Made]:
        """The events of a page and their blobs, in UID order."""
        common = Page(
            self._source,
            self._mailbox,
            cursor.source,
            cursor.uidvalidity,
            self._options.inline_limit,
            self._options.event_limit,
            self._options.raw,
            self._clock.now(),
        )
        messages = [_read(message.surveyed, message.body, whole=message.whole) for message in page]
        messages += [_read(surveyed, None, whole=False) for surveyed in unavailable]
        messages.sort(key=lambda message: message.uid)
        return await self._parser.make(common, messages)

    async def stored(self, page: Sequence[Made], unavailable: Sequence[Surveyed]) -> Announced:
        """The events of a page, all their blobs stored. Raises Transient where a blob could not be."""
        blobs: list[Blob] = [blob for made in page for blob in made.blobs]
        if blobs:
            step("blob.before")
            await self._blobs.put_all(blobs, now=self._clock.now())
            step("blob.done")
        missing = {surveyed.uid for surveyed in unavailable}
        events = [OutMessage(self._subject, made.payload, made.headers) for made in page]
        dead = [self._dead(event) for made, event in zip(page, events, strict=True) if made.uid in missing]
        return Announced(events, dead)

    def _dead(self, event: OutMessage) -> OutMessage:
        metrics.DEAD.labels(reason="message").inc()
        log.warning("message_with_problem", account=self._account, mailbox=self._mailbox, id=event.headers["ce-id"])
        headers = event.headers | {"Nats-Msg-Id": f"dead-{event.headers['ce-id']}"}
        return OutMessage(self._subjects.dead("message"), event.payload, headers)


def _read(surveyed: Surveyed, body: bytes | None, *, whole: bool) -> Read:
    return Read(surveyed.uid, surveyed.size, keywords(surveyed.flags), surveyed.internal_date, body, whole)
