"""Deleting from a maildrop: a batch of UIDs → DELE, and QUIT. Used by work.py in the place of hands over IMAP.

RFC 1939 6: DELE counts only once QUIT is answered +OK. Without that the batch is not remembered as done, and is done
again: what is gone by then is found gone. RFC 1939 7 lets a unique id be another message's once its own is gone: what
is not the message that its event tells of stays.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from service.after.act import Acted, Result
from service.after.kept import Kept
from service.after.plan import Item
from service.bus import EventLog, Tail
from service.contract import STATE_HEADER, place_of
from service.errors import Permanent, Transient
from service.imap import Unanswered
from service.observe import log, step
from service.pop3 import Door, Listing, Session, content_of

AT_ONCE: Final = 5_000
# Of a content's hex digits so many stand in an event.
CONTENT_CHARS: Final = 12
_MESSAGE_ID: Final = re.compile(rb"^message-id:\s*<([^<>\s]+)>", re.IGNORECASE | re.MULTILINE)

# An epoch and UIDs of it → by what each is known in the maildrop; None where the epoch is not the one that is followed.
Identities = Callable[[int, Collection[int]], Mapping[int, bytes] | None]


class _Body(msgspec.Struct, rename="camel"):
    """What an event says of its message."""

    message_id: list[str] | None = None


_BODY: Final = msgspec.json.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class _Found:
    """A message that is there: its UID, its event, and its size as it is listed."""

    uid: int
    seq: int
    size: int


@dataclass(frozen=True, slots=True)
class _Shown:
    """Of a message its Message-ID, and the print of its header; empty where it has none, or the event says none."""

    id: str
    print: str


class Pop3Hands:
    """One account's. `deleted`: where those who follow the maildrop see what they need not miss.

    `print_of`: a header's print, as events have it; empty where the header says too little for one.
    """

    def __init__(
        self,
        door: Door,
        events: EventLog,
        identities: Identities,
        deleted: set[int],
        print_of: Callable[[bytes], str],
    ) -> None:
        self._print_of = print_of
        self._door = door
        self._events = events
        self._identities = identities
        self._deleted = deleted

    async def ready(self) -> None:
        """There is nothing that could be missing."""

    async def act(self, mailbox: str, items: Sequence[Item], kept: Kept) -> tuple[Acted, int]:
        """In one session. Raises Transient where the server did not say that it is done, and Unanswered where a message
        may be why."""
        acted = Acted()
        newest = max((item.uidvalidity for item in items), default=0)
        seqs = {item.uid: item.seq for item in items if item.uidvalidity == newest}
        identities = self._identities(newest, seqs.keys())
        if identities is None:
            # Of an epoch that is over: nothing says which message is meant.
            acted.results[Result.STALE] += len(items)
            return acted, newest
        acted.results[Result.STALE] += len(items) - len(seqs)
        await self._delete(mailbox, identities, seqs, acted)
        acted.results[Result.GONE] += len(seqs) - acted.results[Result.DONE] - len(acted.refused)
        return acted, newest

    async def _delete(
        self, mailbox: str, identities: Mapping[int, bytes], seqs: Mapping[int, int], acted: Acted
    ) -> None:
        session = await self._door.enter()
        where = f"{session.where} {mailbox}"
        try:
            listing = await self._door.take_stock(session)
            found = await _found(listing, identities, seqs)
            absent = seqs.keys() - {one.uid for one in found.values()} if listing.missing else set()
            unread = await self._drop_others(session, found)
            with _in_hand():
                refused = await session.delete(list(found))
            step("after.marked")
        except BaseException:
            self._door.abort(session)
            raise
        await self._door.quit(session)
        for number in refused:
            acted.refused[found.pop(number).uid] = Permanent(
                "the server refuses to delete it", where=where, remedy="see its log"
            )
        for uid in absent:
            acted.refused[uid] = Permanent(
                "the server does not list all that it has", where=where, remedy="find out what it keeps to itself"
            )
        for uid in unread:
            acted.refused[uid] = Permanent(
                "the server refuses to give it: nothing proves that it is what was announced",
                where=where,
                remedy="see its log",
            )
        self._deleted |= {one.uid for one in found.values()}
        acted.results[Result.DONE] += len(found)

    # -- whether it is what the event says ------------------------------------------------------------------------

    async def _drop_others(self, session: Session, found: dict[int, _Found]) -> list[int]:
        """Leave in `found` what was announced, and no other; gives the UIDs of what the server does not give.

        By its Message-ID and its print: a copy by way of a list has the former, too. By its content where it has no
        Message-ID, or either is another: a server may show a header otherwise by now.
        """
        shown, contents = await self._look(session, found), dict[int, str]()
        for number, one in list(found.items()):
            event = await self._event(one)
            if event is None:
                self._pass(session, found, number)
            elif number not in shown or not _are_alike(shown[number], _told(event)):
                contents[number] = _mark(event)[0]
        read = await self._contents(session, {number: found[number].size for number in contents})
        unread = []
        for number, content in contents.items():
            if number not in read:
                unread.append(found.pop(number).uid)
            elif len(content) < CONTENT_CHARS or not read[number].startswith(content):
                self._pass(session, found, number)
        return unread

    def _pass(self, session: Session, found: dict[int, _Found], number: int) -> None:
        log.warning("after_other_mail", where=session.where, uid=found.pop(number).uid)

    async def _event(self, one: _Found) -> Tail | None:
        event = await self._events.get(one.seq) if one.seq else None
        place = place_of(event.headers.get("ce-subject", "")) if event is not None else None
        return event if place is not None and place.uid == one.uid else None

    async def _look(self, session: Session, numbers: Collection[int]) -> dict[int, _Shown]:
        """At those that have a Message-ID, where the server has TOP, which it need not."""
        shown: dict[int, _Shown] = {}

        def take(number: int, header: bytes) -> None:
            if (named := _MESSAGE_ID.search(header)) is not None:
                shown[number] = _Shown(named[1].decode("utf-8", "replace"), self._print_of(header))

        with _in_hand():
            await session.read(list(numbers), take, whole=False)
        return shown

    async def _contents(self, session: Session, sizes: Mapping[int, int]) -> dict[int, str]:
        read: dict[int, str] = {}
        limit = self._door.options.message_limit
        for whole in (True, False):
            numbers = [number for number, size in sizes.items() if (size <= limit) is whole]

            def take(number: int, body: bytes, whole: bool = whole) -> None:
                read[number] = content_of(body, sizes[number], whole=whole)

            with _in_hand():
                await session.read(numbers, take, whole=whole)
        return read


@contextmanager
def _in_hand() -> Iterator[None]:
    """A connection that is lost here may be lost because of one of the messages that are asked for."""
    try:
        yield
    except Transient as exc:
        # Where the server says when to come back, no message is why.
        if exc.retry_after_s is not None:
            raise
        raise Unanswered(exc.what, where=exc.where, remedy=exc.remedy) from exc


def _told(event: Tail) -> _Shown:
    """What an event says."""
    try:
        ids = _BODY.decode(event.payload).message_id or [""]
    except msgspec.MsgspecError:
        ids = [""]
    return _Shown(ids[0], _mark(event)[2])


def _mark(event: Tail) -> list[str]:
    """What its `Mail-State` says of its message: its content, its identity in the maildrop, its print."""
    parts = event.headers.get(STATE_HEADER, "").partition(" ")[2].partition(" ")[0].split(":")
    return [*parts, "", ""][:3]


def _are_alike(shown: _Shown, told: _Shown) -> bool:
    """Whether one message has both; of an event without a print the Message-ID decides."""
    return shown.id == told.id and (not shown.print or not told.print or shown.print == told.print)


async def _found(listing: Listing, identities: Mapping[int, bytes], seqs: Mapping[int, int]) -> dict[int, _Found]:
    """By numbers in this session the messages that are there."""
    wanted = {identity: uid for uid, identity in sorted(identities.items())}
    found: dict[int, _Found] = {}
    for at in range(len(listing)):
        if (uid := wanted.get(listing.identity(at))) is not None:
            found[listing.numbers[at]] = _Found(uid, seqs[uid], listing.sizes[at])
        if at % AT_ONCE == 0:
            await asyncio.sleep(0)
    return found
