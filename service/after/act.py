"""A rule and the UIDs of a mailbox → what is done to them over IMAP. Used by work.py.

Idempotent: what is gone already stays gone, what is copied already is not copied again. Never a bare EXPUNGE, which
would take what others have marked: MOVE (RFC 6851), or COPY and UID EXPUNGE (RFC 4315); on a server with neither,
messages are marked as deleted and stay. A message that the server refuses is told apart from those beside it.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from service.after.plan import Copying
from service.contract import IDS_LIMIT, After, AfterKind
from service.errors import Permanent
from service.imap import Identity, Opened, Refused, SurveyedMessage, WritingSession
from service.observe import step

SEEN: Final = r"\Seen"
DELETED: Final = r"\Deleted"
# So many refused alone, and none taken: it is not about these messages.
ALONE_LIMIT: Final = 10


class Result(StrEnum):
    """What became of a message; values of a metric's label.

    `marked`: as deleted, and still there; `gone`: somebody else was faster; `stale`: its mailbox was numbered anew.
    """

    DONE = "done"
    MARKED = "marked"
    GONE = "gone"
    STALE = "stale"
    REFUSED = "refused"
    GIVEN_UP = "given_up"


@dataclass(slots=True)
class Acted:
    """What became of a batch: of how many what, and by UID what the server refused.

    `stuck`: copied, and the server refuses to let the original go: once more would be another copy.
    """

    results: Counter[Result] = field(default_factory=Counter)
    refused: dict[int, Permanent] = field(default_factory=dict)
    stuck: dict[int, Permanent] = field(default_factory=dict)

    def add(self, more: "Acted") -> None:
        """What became of more messages."""
        self.results.update(more.results)
        self.refused |= more.refused
        self.stuck |= more.stuck


# Has an intention written down; None: it is carried out.
Remember = Callable[[Copying | None], Awaitable[None]]


async def open_afresh(session: WritingSession, mailbox: str) -> Opened:
    """SELECT, also where the mailbox is open already: it may have been made anew since. Raises Refused."""
    opened = await session.open_anew(mailbox, writing=True)
    if opened.read_only:
        raise Permanent(
            "the mail server lets this mailbox be read only",
            where=f"{session.where} {mailbox}",
            remedy="give the account the right to write, or write `after: nothing`",
        )
    return opened


async def act(
    session: WritingSession, opened: Opened, after: After, uids: Collection[int], remember: Remember
) -> Acted:
    """Carry the rule out on messages of the mailbox that open_afresh opened.

    Raises Refused where it is not about single messages, Permanent where the mailbox cannot do it, Transient with
    the connection.
    """
    acted = Acted()
    there = await _there(session, after, uids)
    acted.results[Result.GONE] = len(uids) - len(there)
    if not there:
        return acted
    match after.kind:
        case AfterKind.SEEN:
            if not opened.stores(SEEN):
                raise Permanent(
                    "the mail server does not keep what is seen here",
                    where=f"{session.where} {opened.name}",
                    remedy="write `after: nothing`",
                )
            await _split(acted, there, lambda some: session.store(some, add=[SEEN]), Result.DONE)
        case AfterKind.DELETE:
            await _remove(session, acted, there)
        case AfterKind.MOVE:
            with _target_named(session, after.mailbox):
                if session.offers("MOVE"):
                    await _split(acted, there, lambda some: _moved(session, some, after.mailbox), Result.DONE)
                else:
                    await _copy_and_remove(session, opened, acted, there, after.mailbox, remember)
        case AfterKind.NOTHING:
            pass
    return acted


@contextmanager
def _target_named(session: WritingSession, mailbox: str) -> Iterator[None]:
    """What is missing is the mailbox that mail goes to."""
    try:
        yield
    except Refused as exc:
        if not exc.missing:
            raise
        raise no_target(mailbox, where=session.where) from exc


def no_target(mailbox: str, *, where: str) -> Permanent:
    """Mail is to be moved to a mailbox that is not there."""
    return Permanent(
        f"there is no mailbox {mailbox} to move mail to",
        where=where,
        remedy="make it, or correct `after`; `mailbus check` lists what is there",
    )


def only_marks(session: WritingSession, after: After) -> bool:
    """Whether mail can be marked as deleted and no more."""
    away = after.kind is AfterKind.DELETE or (after.kind is AfterKind.MOVE and not session.offers("MOVE"))
    return away and not session.offers("UIDPLUS")


async def _there(session: WritingSession, after: After, uids: Collection[int]) -> list[int]:
    # Where a mark is all that can be done, what is marked is done.
    return await session.there(uids, *(["UNDELETED"] if only_marks(session, after) else []))


async def _moved(session: WritingSession, uids: Collection[int], mailbox: str) -> None:
    await session.move(uids, mailbox)


async def _remove(session: WritingSession, acted: Acted, uids: list[int]) -> None:
    if session.offers("UIDPLUS"):
        await _split(acted, uids, session.expunge, Result.DONE)
    else:
        await _split(acted, uids, lambda some: session.store(some, add=[DELETED]), Result.MARKED)


async def _split(
    acted: Acted, uids: list[int], work: Callable[[list[int]], Awaitable[None]], result: Result
) -> list[int]:
    """Do it for all at once; what is refused in halves, down to the messages that are meant. Gives those it was done
    for."""
    done: list[int] = []
    rest = [uids]
    while rest:
        some = rest.pop()
        try:
            await work(some)
        except Refused as exc:
            if exc.missing:
                raise
            if len(some) > 1:
                middle = len(some) // 2
                rest += [some[middle:], some[:middle]]
                continue
            acted.refused[some[0]] = exc
            if len(acted.refused) >= ALONE_LIMIT and not done:
                raise
        else:
            done += some
            acted.results[result] += len(some)
    return done


# -- without MOVE -------------------------------------------------------------------------------------------------


async def _copy_and_remove(
    session: WritingSession, opened: Opened, acted: Acted, uids: list[int], mailbox: str, remember: Remember
) -> None:
    status = await session.status(mailbox, "UIDNEXT", "UIDVALIDITY")
    await remember(Copying(uids, opened.uidvalidity, status.get("UIDNEXT", 1), status.get("UIDVALIDITY", 0)))
    copying = Acted(refused=acted.refused)
    copied = await _split(copying, uids, lambda some: _copied(session, some, mailbox), Result.DONE)
    step("after.copied")
    await _remove_copied(session, acted, copied)
    await remember(None)


async def _remove_copied(session: WritingSession, acted: Acted, copied: list[int]) -> None:
    removing = Acted(results=acted.results, refused=acted.stuck)
    if copied:
        await _remove(session, removing, copied)


async def _copied(session: WritingSession, uids: Collection[int], mailbox: str) -> None:
    await session.copy(uids, mailbox)


async def settle(session: WritingSession, opened: Opened, after: After, copying: Copying) -> Acted:
    """What was being copied when a process or a connection ended: remove what has its copy. Opens `opened` again."""
    acted = Acted()
    if copying.uidvalidity != opened.uidvalidity:
        return acted
    there = await _there(session, after, copying.uids)
    if not there:
        return acted
    wanted = await _described(session, await session.survey_these(there))
    sizes = {described.size for described in wanted.values()}
    with _target_named(session, after.mailbox):
        target = await session.open_mailbox(after.mailbox, writing=False)
    copies: Counter[_Described] = Counter()
    if target.uidvalidity == copying.into:
        # What came since is the copies and what others put there: it is looked through, not searched.
        since = [message for message in await session.survey(copying.first, None) if message.size in sizes]
        copies = Counter((await _described(session, since)).values())
    if (await open_afresh(session, opened.name)).uidvalidity != copying.uidvalidity:
        return acted
    copied: list[int] = []
    for uid, described in sorted(wanted.items()):
        if copies[described] > 0:
            copies[described] -= 1
            copied.append(uid)
    await _remove_copied(session, acted, copied)
    return acted


@dataclass(frozen=True, slots=True)
class _Described:
    """What a message and its copy have in common. `date` only where there is no Message-ID: RFC 9051 6.4.7 wants
    INTERNALDATE to be kept, and not all servers do."""

    size: int
    message_id: bytes
    date: datetime | None


async def _described(session: WritingSession, messages: Sequence[SurveyedMessage]) -> dict[int, _Described]:
    found: dict[int, _Described] = {}
    for at in range(0, len(messages), IDS_LIMIT):
        some = messages[at : at + IDS_LIMIT]
        identities = await session.identities([message.uid for message in some])
        found |= {message.uid: _describe(message, identities.get(message.uid)) for message in some}
    return found


def _describe(message: SurveyedMessage, identity: Identity | None) -> _Described:
    if identity is not None:
        return _Described(message.size, identity.message_id, None)
    return _Described(message.size, b"", message.internal_date)
