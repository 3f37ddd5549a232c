"""What commands do on an IMAP connection of their own: select, search, sort, store, copy, move, expunge, append.

Used by service/commands through pool.py. What a server does not offer is done without where that is right, and refused
otherwise: never a bare EXPUNGE, which would take what others have marked. RFC 9051 section 6; RFC 4315 (UIDPLUS),
RFC 6851 (MOVE), RFC 4731 (ESEARCH), RFC 5256 (SORT).
"""

import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.contract import IDS_LIMIT, Comparator
from service.errors import MailbusError, PeerError, Transient
from service.imap.connection import LITERAL_SLACK_BYTES, ignore
from service.imap.criteria import any_of, charset, sort_keys
from service.imap.encode import Argument, Literal, cut, date, date_time, quoted, uid_set
from service.imap.grammar import Condition, Response, Search, Status, StatusData, parse_number, parse_uid
from service.imap.message import SurveyedMessage
from service.imap.protocol import Handler
from service.imap.refusals import Refused, refused_request, throttled
from service.imap.searched import numbers_of, runs_found
from service.imap.session import Session
from service.imap.spans import highest
from service.imap.uidplus import Moved, appended, moved, moved_together
from service.observe import log, metrics

# A slow uplink; what is not sent at this pace is given up.
SENDING_BYTES_PER_S: Final = 32 * 1024
# What is held of a message that is passed on as it comes: a round trip costs little beside it.
PIECE_BYTES: Final = 1024 * 1024
# Message-IDs in one search: a line of IMAP stays below 8,000 octets (RFC 2683 3.2.1.5).
LOCATE_AT_ONCE: Final = 20
# A mailbox that was deleted and made again stays open as it was, and Dovecot 2.3 says nothing of it: what was opened
# longer ago is opened anew, which takes 15 ms where there are 3,000 mails. Commands in a row do without.
OPEN_FRESH_S: Final = 2.0
# RFC 5530 section 3: what a server says that cannot read what it has.
_BROKEN: Final = frozenset({"SERVERBUG", "UNAVAILABLE"})
_MESSAGE_ID: Final = re.compile(rb"<[\x21-\x3b\x3d\x3f-\x7e]{1,250}>")


@dataclass(frozen=True, slots=True)
class Opened:
    """The mailbox that is selected. `permanent`: the flags that it stores, None where the server does not say."""

    name: str
    uidvalidity: int
    uidnext: int
    writing: bool
    read_only: bool
    permanent: frozenset[str] | None

    def stores(self, flag: str) -> bool:
        """RFC 9051 7.1, PERMANENTFLAGS: `\\*` is any keyword; without it all flags are permanent."""
        if self.permanent is None:
            return True
        return flag.lower() in self.permanent or (not flag.startswith("\\") and r"\*" in self.permanent)


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a message when its UID is not known: Message-ID with its brackets, and size in octets."""

    message_id: bytes
    size: int


def identity_of(header: bytes, size: int) -> Identity | None:
    """Of a header, or of its Message-ID field alone; None where there is none that could be searched for."""
    field = re.search(rb"^message-id:((?:.*\n?)(?:[ \t].*\n?)*)", header, re.IGNORECASE | re.MULTILINE)
    found = _MESSAGE_ID.search(field[1]) if field else None
    return Identity(found[0], size) if found else None


class Gone(Transient):
    """A message is not given: expunged since it was listed, or never to be had."""


class WritingSession(Session):
    """An open connection, the mailbox selected on it, and what may be done to its messages."""

    opened: Opened | None = None
    # Mailboxes that were opened on this connection.
    _known: frozenset[str] = frozenset()
    _opened_at = 0.0

    # -- mailboxes --------------------------------------------------------------------------------------------

    async def open_mailbox(self, mailbox: str, *, writing: bool) -> Opened:
        """SELECT to write, EXAMINE to read, nothing where it was opened a moment ago. Raises Refused."""
        opened = self.opened
        if opened is not None and opened.name == mailbox and (opened.writing or not writing):
            if self.clock.monotonic() - self._opened_at < OPEN_FRESH_S:
                return opened
            writing = opened.writing
        return await self.open_anew(mailbox, writing=writing)

    async def open_anew(self, mailbox: str, *, writing: bool) -> Opened:
        """The same, whatever is open. Raises Refused."""
        codes: dict[str, str] = {}

        def take(response: Response) -> None:
            if isinstance(response, Condition) and response.code:
                codes[response.code] = response.argument

        self.exists, self.opened = 0, None
        self.protocol.enter(selected=False)
        name = "SELECT" if writing else "EXAMINE"
        answer = await self._look(mailbox, name, handler=take)
        self.protocol.enter(selected=True)
        uidvalidity, uidnext = (parse_uid(codes.get(code, "").encode()) or 0 for code in ("UIDVALIDITY", "UIDNEXT"))
        if not uidvalidity:
            raise Refused("the mailbox has no UIDVALIDITY", where=f"{self.where} {mailbox}", remedy="use another")
        permanent = codes.get("PERMANENTFLAGS")
        flags = None if permanent is None else frozenset(permanent.strip("()").lower().split())
        read_only = writing and "READ-ONLY" in {answer.code, *codes}
        self.opened = Opened(mailbox, uidvalidity, uidnext, writing, read_only, flags)
        self._known |= {mailbox}
        self._opened_at = self.clock.monotonic()
        return self.opened

    async def status(self, mailbox: str, *items: str) -> dict[str, int]:
        """STATUS (RFC 9051 6.3.11) of one mailbox; the one that is open stays open. Raises Refused."""
        found: dict[str, int] = {}

        def take(response: Response) -> None:
            if isinstance(response, StatusData):
                found.update({name: parse_number(value) or 0 for name, value in response.items.items()})

        await self._look(mailbox, "STATUS", f"({' '.join(items)})", handler=take)
        return found

    async def _look(self, mailbox: str, name: str, *arguments: str, handler: Handler) -> Condition:
        """A command that only looks at a mailbox; on a new connection where this one is not told of it.

        Who knew a mailbox that was deleted and made again may be refused the new one for ever, or be disconnected
        (Dovecot 2.3: "duplicate transaction log sequence").
        """
        try:
            answer = await self.ask(name, self.named(mailbox), *arguments, handler=handler)
        except MailbusError as exc:
            if self.protocol.failure is None or mailbox not in self._known:
                raise
            said = str(exc)
        else:
            if answer.status is Status.OK:
                return answer
            if answer.status is Status.NO and await self.respelled(mailbox):
                return await self.must(name, self.named(mailbox), *arguments, handler=handler)
            refused = refused_request(name, answer, where=self.where)
            # Who asks too much asks no less by a login.
            if answer.code not in _BROKEN or throttled(answer) or mailbox not in self._known:
                raise refused
            said = str(refused)
        log.info("mailbox_looked_at_anew", where=self.where, error=said)
        await self._reconnect()
        return await self.must(name, self.named(mailbox), *arguments, handler=handler)

    async def _reconnect(self) -> None:
        """Go on over a new connection, with the same mailbox open. Raises Transient where it is not the same."""
        before = self.opened
        self.protocol.close()
        fresh = await type(self).open(self.options, clock=self.clock)
        self.protocol, self.capabilities, self.utf8 = fresh.protocol, fresh.capabilities, fresh.utf8
        self.opened, self._known = None, frozenset()
        if before is None:
            return
        # Whoever opened it goes on with its UIDs.
        where = f"{self.where} {before.name}"
        try:
            opened = await self.open_anew(before.name, writing=before.writing)
        except Refused as exc:
            raise Transient(exc.what, where=where, remedy=exc.remedy) from exc
        if opened.uidvalidity != before.uidvalidity:
            raise Transient("the mailbox was made anew meanwhile", where=where)

    # -- looking ----------------------------------------------------------------------------------------------

    async def search(self, keys: Sequence[Argument]) -> list[range]:
        """The UIDs that search keys find, ascending. Raises Refused."""
        found: list[Search] = []

        def take(response: Response) -> None:
            if isinstance(response, Search):
                found.append(response)

        wanted = [*charset(keys, utf8=self.utf8), *keys]
        if is_offered := self.offers("ESEARCH"):
            # RFC 4731: runs instead of a line of a million numbers.
            answer = await self._asked("SEARCH", "RETURN (ALL)", *wanted, prefix="UID", handler=take)
            if answer.status is Status.NO:
                raise refused_request("SEARCH", answer, where=self.where)
            if answer.status is Status.OK and found:
                return await runs_found(found, where=self.where)
            found.clear()
        await self.must("SEARCH", *wanted, prefix="UID", handler=take)
        if is_offered:
            # Not before: it may be the keys that it does not know.
            self.without_esearch()
        return await runs_found(found, where=self.where)

    async def sort(self, sort: Sequence[Comparator], keys: Sequence[Argument]) -> list[int] | None:
        """The same in the server's order (RFC 5256); `sortable` says whether it has one, None that it has none.

        Raises Refused.
        """
        found: list[Search] = []

        def take(response: Response) -> None:
            if isinstance(response, Search):
                found.append(response)

        answer = await self._asked("SORT", sort_keys(sort), "UTF-8", *keys, prefix="UID", handler=take)
        if answer.status is Status.BAD:
            log.warning("feature_refused", where=self.where, feature="SORT")
            self.capabilities -= {"SORT"}
            return None
        if answer.status is not Status.OK:
            raise refused_request("SORT", answer, where=self.where)
        return await numbers_of(found)

    async def there(self, uids: Collection[int], *keys: Argument) -> list[int]:
        """Which of these messages there are, of those that search keys find."""
        found = await self.search([f"UID {uid_set(uids)}", *keys])
        starts = [run.start for run in found]
        # What was not asked for is no answer, however much of it there is.
        return [uid for uid in sorted(uids) if (at := bisect_right(starts, uid)) and uid in found[at - 1]]

    async def survey_these(self, uids: Collection[int]) -> list[SurveyedMessage]:
        """Flags, date and size of messages; those that are gone are left out."""
        wanted = set(uids)
        found = await self._survey(uid_set(uids), min(wanted), max(wanted)) if wanted else []
        return [message for message in found if message.uid in wanted]

    async def pieces(self, uid: int, size: int) -> AsyncGenerator[bytes]:
        """A message from its first byte to its last, PIECE_BYTES at a time (RFC 9051 6.4.5, partial).

        `size`: what the server says; a piece that is too short is the last one only where it may be. Never marks it
        read. Raises Gone where it is not given, PeerError where it has no end.
        """
        offset, limit = 0, self.options.message_limit + LITERAL_SLACK_BYTES
        while True:
            got: list[bytes] = []
            section = f"BODY.PEEK[]<{offset}.{PIECE_BYTES}>"
            await self.fetch_section(section, [uid], lambda _, piece, got=got: got.append(piece))  # type: ignore[misc]
            if not got and offset and offset >= size:
                return  # NIL, where an empty piece is expected beyond the end
            if not got:
                raise Gone("the mail server does not give the message", where=self.where)
            (piece,) = got
            offset += len(piece)
            # Who knows no pieces gives the whole at once, and would give it again.
            if offset > limit or (len(piece) > PIECE_BYTES and offset > len(piece)):
                raise PeerError("more of a message than was asked for", where=self.where)
            if piece:
                yield piece
            if not piece or len(piece) > PIECE_BYTES or (len(piece) < PIECE_BYTES and offset >= size):
                return

    async def identities(self, uids: Collection[int]) -> dict[int, Identity]:
        """Message-ID and size of those messages that have both."""
        found: dict[int, Identity] = {}
        sizes = {message.uid: message.size for message in await self.survey_these(uids)}

        def give(uid: int, header: bytes) -> None:
            if (identity := identity_of(header, sizes[uid])) is not None:
                found[uid] = identity

        if sizes:
            await self.fetch_section("BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]", sorted(sizes), give)
        return found

    async def locate(self, wanted: Collection[Identity], *, first: int = 1) -> dict[Identity, int]:
        """Messages of the open mailbox → the highest UID, from `first` on, of each that is there."""
        ids = sorted({one.message_id for one in wanted})
        found: dict[Identity, int] = {}
        await self.noop()  # what just came into the open mailbox is seen from now on
        for at in range(0, len(ids), LOCATE_AT_ONCE):
            keys: list[list[Argument]] = [
                ["HEADER MESSAGE-ID", quoted(one.decode("ascii"), field="Message-ID")]
                for one in ids[at : at + LOCATE_AT_ONCE]
            ]
            uids = highest(await self.search([f"UID {first}:*", *any_of(keys)]), IDS_LIMIT)
            # RFC 9051 6.4.9: `n:*` finds the last message even where its UID is below n.
            seen = await self.identities([uid for uid in uids if uid >= first])
            found |= {one: uid for uid, one in sorted(seen.items()) if one in wanted}
        return found

    async def holds(self, message_id: bytes, *, since: datetime) -> bool:
        """Whether the open mailbox has a mail of a Message-ID, with its brackets, that came since that day."""
        await self.noop()
        name = quoted(message_id.decode("ascii"), field="Message-ID")
        return bool(await self.search([f"SINCE {date(since)}", "HEADER MESSAGE-ID", name]))

    # -- changing ---------------------------------------------------------------------------------------------

    async def store(self, uids: Collection[int], *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """Set and take away flags (RFC 9051 6.4.6). Raises Refused."""
        for sign, flags in (("+", add), ("-", remove)):
            if flags:
                await self.must("STORE", uid_set(uids), f"{sign}FLAGS.SILENT ({' '.join(flags)})", prefix="UID")

    async def copy(self, uids: Collection[int], mailbox: str) -> Moved | None:
        """COPY; where the copies are, None where the server does not say. Raises Refused."""
        return await self._transfer("COPY", uids, mailbox)

    async def move(self, uids: Collection[int], mailbox: str) -> Moved | None:
        """MOVE, for servers that have it. Raises Refused."""
        return await self._transfer("MOVE", uids, mailbox)

    async def _transfer(self, name: str, uids: Collection[int], mailbox: str) -> Moved | None:
        said: list[str] = []

        def take(response: Response) -> None:
            # RFC 6851 section 4.3: MOVE says it before the messages go.
            if isinstance(response, Condition) and response.code == "COPYUID":
                said.append(response.argument)

        answer = await self.must(name, uid_set(uids), self.named(mailbox), prefix="UID", handler=take)
        said += [answer.argument] if answer.code == "COPYUID" else []
        try:
            return moved_together([moved(argument, IDS_LIMIT) for argument in said if argument])
        except PeerError as exc:
            self._note_lie("copyuid", exc)
            return None

    async def expunge(self, uids: Collection[int]) -> None:
        """Remove messages for ever. RFC 4315 2.1: these and no others. Raises Refused without UIDPLUS."""
        if not self.offers("UIDPLUS"):
            raise Refused(
                "this server cannot remove single messages (no UIDPLUS)",
                where=self.where,
                remedy="mark them with a keyword, or use a mail program",
            )
        await self.store(uids, add=[r"\Deleted"])
        await self.must("EXPUNGE", uid_set(uids), prefix="UID")

    async def append(
        self, mailbox: str, message: bytes, *, flags: Sequence[str], received_at: datetime | None
    ) -> Moved | None:
        """APPEND (RFC 9051 6.3.12); where the message is, under UID 0, None without UIDPLUS. Raises Refused."""
        header = message[: message.find(b"\r\n\r\n") if b"\r\n\r\n" in message else None]
        # RFC 6855 section 4: once UTF-8 is enabled, headers that are not ASCII go this way and no other.
        utf8 = self.utf8 and not header.isascii()
        data: list[Argument] = ["UTF8", "(", Literal(message, binary=True), ")"] if utf8 else [Literal(message)]
        answer = await self.must(
            "APPEND",
            self.named(mailbox),
            *([f"({' '.join(flags)})"] if flags else []),
            *([date_time(received_at)] if received_at is not None else []),
            *data,
        )
        try:
            return appended(answer.argument) if answer.code == "APPENDUID" else None
        except PeerError as exc:
            self._note_lie("appenduid", exc)
            return None

    def _note_lie(self, kind: str, exc: PeerError) -> None:
        """What a server says of what it did is wrong: it is done all the same, as where it does not say."""
        metrics.PROTOCOL_VIOLATION.labels(kind=kind).inc()
        log.debug("answer_unreadable", where=self.where, error=str(exc))

    # -- asking -----------------------------------------------------------------------------------------------

    async def must(
        self, name: str, *arguments: Argument, prefix: str | None = None, handler: Handler = ignore
    ) -> Condition:
        """A command that must be answered OK. Raises Refused with what the server says otherwise."""
        answer = await self._asked(name, *arguments, prefix=prefix, handler=handler)
        if answer.status is not Status.OK:
            raise refused_request(name, answer, where=self.where)
        return answer

    async def _asked(self, name: str, *arguments: Argument, prefix: str | None, handler: Handler) -> Condition:
        lines = cut(arguments, self.capabilities)
        return await self.ask(
            name,
            lines.first,
            prefix=prefix,
            handler=handler,
            answers=lines.rest if lines.waits else (),
            trailing=() if lines.waits else lines.rest,
            slack_s=sum(map(len, lines.rest)) / SENDING_BYTES_PER_S,
        )
