"""What an earlier try put into a mailbox, or may have put there, and said nothing of. Used by transfer.py, append.py.

It lies above the UID that was the next one when that try began. A message is known by its Message-ID and size; one
without a Message-ID by size and INTERNALDATE, which COPY keeps (RFC 9051 6.4.7), or by its content.
"""

import re
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from service.commands.begun import Began, uncertain
from service.imap import SURVEY_LIMIT_ROWS, Identity, SurveyedMessage, WritingSession

AT_ONCE: Final = 500
_LINE_END: Final = re.compile(rb"(?<!\r)\n")
# Messages of one size that are read to be compared.
COMPARED_LIMIT: Final = 20

_Same: TypeAlias = tuple[int, Identity | datetime | None]


@dataclass(frozen=True, slots=True)
class Sought:
    """A message that may have been put there: what it is known by."""

    size: int
    internal_date: datetime | None
    identity: Identity | None


async def found_again(
    session: WritingSession, target: str, began: Began, sought: Mapping[int, Sought], *, uidnext: int
) -> dict[int, int]:
    """UID in its own mailbox → UID in `target`, of what an earlier try has copied; the others it has not.

    `uidnext`: of the target now. Raises ServiceError 409 where one of them may be there or may have been.
    """
    rows = await _above(session, target, began)
    sizes = {one.size for one in sought.values()}
    alike = [row for row in rows if row.size in sizes]
    identities: dict[int, Identity] = {}
    for some in _portions([row.uid for row in alike]):
        identities |= await session.identities(some)
    # Each is the copy of one: by what it is known by those that are left, and of each size how many have no Message-ID.
    left, nameless = defaultdict[_Same, deque[int]](deque), Counter[int]()
    for row in alike:
        identity = identities.get(row.uid)
        left[row.size, identity or row.internal_date].append(row.uid)
        nameless[row.size] += identity is None
    found: dict[int, int] = {}
    for uid, one in sought.items():
        if same := left[one.size, one.identity or one.internal_date]:
            found[uid] = same.popleft()
            nameless[one.size] -= one.identity is None
        elif one.identity is None and nameless[one.size]:
            raise uncertain()
    if len(found) < len(sought) and len(rows) < uidnext - began.first:
        # What is gone from there by now may have been the copy.
        raise uncertain()
    return found


async def appended_again(session: WritingSession, target: str, began: Began, message: bytes, *, uidnext: int) -> int:
    """The UID of what an earlier try has appended, 0 where it has not. Raises ServiceError 409 as `found_again`."""
    rows = await _above(session, target, began)
    message = _LINE_END.sub(b"\r\n", message)  # as a server keeps it
    alike = [row.uid for row in rows if row.size == len(message)]
    if len(alike) > COMPARED_LIMIT:
        raise uncertain()
    same: list[int] = []

    def compare(uid: int, body: bytes) -> None:
        if body == message:
            same.append(uid)

    if alike:
        await session.fetch_bodies(alike, compare, header_only=False)
    if same:
        return same[0]
    if len(rows) < uidnext - began.first:
        raise uncertain()
    return 0


async def _above(session: WritingSession, target: str, began: Began) -> list[SurveyedMessage]:
    """What came into the target since a try began, all of it."""
    await session.open_mailbox(target, writing=False)
    await session.noop()  # what just came into the open mailbox is seen from now on
    if not (began.into and began.first):
        raise uncertain()  # a server that says no UIDNEXT
    rows = await session.survey(began.first, None)
    if len(rows) >= SURVEY_LIMIT_ROWS:
        raise uncertain()
    return rows


def _portions(uids: list[int]) -> list[list[int]]:
    return [uids[at : at + AT_ONCE] for at in range(0, len(uids), AT_ONCE)]
