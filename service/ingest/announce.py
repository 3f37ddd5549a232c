"""Messages as they were read → events ready to commit, their blobs in the store.

Used by mailbox.py. Knows subjects and blobs; parsing is another room's, connection and cursor are other files'.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from service.bus import BlobStore, OutMessage
from service.clock import Clock
from service.contract import (
    KIND_HEADER,
    STATE_HEADER,
    After,
    Blob,
    Changed,
    EventType,
    Extra,
    Keywords,
    Kind,
    Removed,
    Reset,
    Subjects,
    cloud_event_headers,
    email_id,
    encode,
    event_id,
    keywords_of,
    mailbox_id,
)
from service.ingest.cursor import Cursor
from service.ingest.known import Change
from service.ingest.labels import keywords_in, mailboxes_in, with_mailboxes
from service.ingest.marks import with_identity, with_print
from service.ingest.notes import Line, dump_line, dump_note
from service.ingest.parser import Parser
from service.ingest.plan import mark_of
from service.ingest.prints import print_of
from service.ingest.surveyed import Fetched, Surveyed
from service.observe import step
from service.parsing import Made, Page, Raw, Read
from service.turns import Breather

# Mail about a mail that was sent.
_RETURNED: Final = frozenset(one.value for one in (Kind.BOUNCE, Kind.COMPLAINT, Kind.DELIVERED, Kind.DELAY))


@dataclass(frozen=True, slots=True)
class AnnounceOptions:
    """Sizes in bytes. `event_limit` is what the server takes in one message; `after`: what is done once it has it.

    `authserv_id`: whose verdicts on a mail are believed (RFC 8601 2.5), "" to learn it from each mail.
    `extras`: what of a mail's text is made beside its bodies.
    `prints`: whether each event says by what its mail is known over another protocol.
    """

    inline_limit: int
    event_limit: int
    raw: Raw
    after: After = field(default_factory=After)
    authserv_id: str = ""
    extras: tuple[Extra, ...] = ()
    prints: bool = False


@dataclass(frozen=True, slots=True)
class Announced:
    """The events of a page; `dead`: the indices of those that are copied to the dead letters."""

    events: list[OutMessage]
    dead: list[int]


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
        returned: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._blobs = blobs
        self._parser = parser
        self._account = account
        self._mailbox = mailbox
        self._options = options
        self._clock = clock
        # Who is told of mail that came back, before its event is committed; raises Transient.
        self._returned = returned
        self._subjects = subjects
        self._subject = subjects.event(account, mailbox, EventType.RECEIVED)
        self._source = subjects.source(account, mailbox)

    def reset(self, body: Reset, cursor: Cursor, line: Line) -> OutMessage:
        """The event that begins an epoch."""
        old = body.old_uidvalidity or 0
        headers = cloud_event_headers(
            EventType.RESET,
            source=self._source,
            id=event_id(self._source, cursor.place, cursor.uidvalidity, old, EventType.RESET, body.reason),
            time=self._clock.now(),
            subject=mailbox_id(self._mailbox),
        )
        headers[STATE_HEADER] = dump_line(line)
        return OutMessage(self._subjects.event(self._account, self._mailbox, EventType.RESET), encode(body), headers)

    def change(self, change: Change, cursor: Cursor, number: int, *, name: int) -> OutMessage:
        """The event of one message that changed or is gone. `number`: its place among the events of the epoch.

        `name`: what its id is made of, its UID or another number.
        """
        kind = EventType.REMOVED if change.keywords is None else EventType.CHANGED
        id = email_id(self._mailbox, cursor.uidvalidity, name, cursor.turn)
        here = mailbox_id(self._mailbox)
        parts: list[str | int] = [self._source, cursor.place, cursor.uidvalidity, name, kind]
        body: Changed | Removed
        if change.keywords is None:
            body, note = Removed(id, {here: True}), dump_note(change.uid)
        else:
            body = Changed(id, mailboxes_in(change.keywords, here), keywords_in(change.keywords))
            note = dump_note(change.uid, "", change.keywords)
            # What was counted before the log forgot it meant something else: rollbacks tell the counts apart.
            parts.append(change.modseq or f"{number}.{cursor.rollbacks}")
            # A server whose counter went back gives a modseq twice.
            parts.append(" ".join(sorted(change.keywords)))
        headers = cloud_event_headers(
            kind, source=self._source, id=event_id(*parts), time=self._clock.now(), subject=id
        )
        headers[STATE_HEADER] = note
        return OutMessage(self._subjects.event(self._account, self._mailbox, kind), encode(body), headers)

    def paired(self, surveyed: Surveyed, number: int, cursor: Cursor) -> OutMessage:
        """The event of a message that was announced under a number and has a UID from now on: its keywords are told."""
        known, here = known_of(surveyed), mailbox_id(self._mailbox)
        id = email_id(self._mailbox, cursor.uidvalidity, number, cursor.turn)
        headers = cloud_event_headers(
            EventType.CHANGED,
            source=self._source,
            id=event_id(self._source, cursor.place, cursor.uidvalidity, number, EventType.CHANGED, surveyed.uid),
            time=self._clock.now(),
            subject=id,
        )
        headers[STATE_HEADER] = dump_note(surveyed.uid, mark_of(surveyed), known, number)
        body = Changed(id, mailboxes_in(known, here), keywords_in(known))
        return OutMessage(self._subjects.event(self._account, self._mailbox, EventType.CHANGED), encode(body), headers)

    async def make(self, page: Sequence[Fetched], unavailable: Sequence[Surveyed], cursor: Cursor) -> list[Made]:
        """The events of a page and their blobs, in UID order."""
        common = Page(
            self._source,
            self._mailbox,
            cursor.place,
            cursor.uidvalidity,
            self._options.inline_limit,
            self._options.event_limit,
            self._options.raw,
            self._clock.now(),
            self._options.after.mark,
            not self._options.after.needs_all,
            self._options.authserv_id,
            list(self._options.extras),
            cursor.turn,
        )
        # A mail may have as many flags and labels as its server likes: a third of a millisecond's worth.
        breather, messages = Breather(self._clock), list[Read]()
        for message in page:
            messages.append(self._noted(message))
            await breather.pause()
        messages += [_read(surveyed, None, whole=False) for surveyed in unavailable]
        messages.sort(key=lambda message: message.uid)
        return await self._parser.make(common, messages)

    def _noted(self, message: Fetched) -> Read:
        print = print_of(message.body, whole=message.whole) if self._options.prints else ""
        return _read(message.surveyed, message.body, whole=message.whole, print=print)

    async def stored(self, page: Sequence[Made], unavailable: Sequence[Surveyed]) -> Announced:
        """The events of a page, all their blobs stored. Raises Transient where a blob could not be."""
        blobs: list[Blob] = [blob for made in page for blob in made.blobs]
        if blobs:
            step("blob.before")
            await self._blobs.put_all(blobs, now=self._clock.now())
            step("blob.done")
        if self._returned is not None:
            for made in page:
                if made.headers[KIND_HEADER] in _RETURNED:
                    step("returned.before")
                    await self._returned(made.payload)
                    step("returned.done")
        missing = {surveyed.uid for surveyed in unavailable}
        events = [OutMessage(self._subject, made.payload, made.headers) for made in page]
        return Announced(events, [index for index, made in enumerate(page) if made.uid in missing])


def known_of(surveyed: Surveyed) -> Keywords:
    """What is known of a message once it is announced: its keywords, and its mailboxes where the source says so."""
    return with_mailboxes(keywords_of(surveyed.flags), surveyed.mailboxes)


def _read(surveyed: Surveyed, body: bytes | None, *, whole: bool, print: str = "") -> Read:
    known, print = known_of(surveyed), print or surveyed.print
    mark = mark_of(surveyed)
    if surveyed.identity:
        # Its print stands behind the identity.
        mark = with_identity(mark.partition(":")[0], surveyed.identity)
    return Read(
        surveyed.uid,
        surveyed.size,
        keywords_in(known),
        surveyed.internal_date,
        body,
        whole,
        dump_note(surveyed.uid, with_print(mark, print), known),
        surveyed.previous_id,
        surveyed.email_id,
        surveyed.thread_id,
        sorted(surveyed.mailboxes),
    )
