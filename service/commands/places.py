"""Ids and names → mailboxes of an account, by a LIST that is kept for a while.

Used by every verb that names mailboxes or messages. An Email id holds a hash of its mailbox, so a miss lists again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from service.clock import Clock
from service.commands.errors import error, problem
from service.contract import NUMBERS_FROM, Problem, mailbox_hash, mailbox_id, mailbox_name, place_of
from service.errors import Transient
from service.imap import NONE_NAMED, ListedMailbox, Opened, WritingSession, by_role, list_mailboxes, roles, selectable

KEPT_S: Final = 60.0
# Ids that lead nowhere shall not make the server list again and again.
AGAIN_AFTER_S: Final = 2.0
# After a start, until a mailbox that is followed has found its epoch: its connection has others to serve.
EPOCH_LIMIT_S: Final = 10.0
EPOCH_LOOK_S: Final = 0.1
STALE: Final = "an id from before the mailbox's last `reset`: it names nothing any more"


# A mailbox, its UIDVALIDITY and a number that is no UID → the UID.
UidOf = Callable[[str, int, int], int | None]


# A mailbox and its UIDVALIDITY → which of the epochs that have it is now.
TurnOf = Callable[[str, int], int | None]


def _no_turn(_mailbox: str, _uidvalidity: int) -> None:
    """Nobody follows it."""


def _no_uid(_mailbox: str, _uidvalidity: int, _number: int) -> None:
    """Nothing was ever announced under a number."""


@dataclass(slots=True)
class Group:
    """Ids of one mailbox in one epoch, by UID."""

    mailbox: str
    uidvalidity: int
    ids: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grouped:
    """Ids by mailbox, and those that are no ids of this account."""

    groups: list[Group]
    not_found: list[str]


class Directory:
    """The mailboxes of one account."""

    def __init__(
        self,
        clock: Clock,
        named: Mapping[str, str] = NONE_NAMED,
        *,
        uid_of: UidOf = _no_uid,
        turn_of: TurnOf = _no_turn,
    ) -> None:
        """`named`: mailboxes by role, where the server does not say them. `uid_of`, `turn_of`: as Followed has them."""
        self._clock = clock
        self._named = named
        self._uid_of = uid_of
        self._turn_of = turn_of
        self._listed: list[ListedMailbox] = []
        self._by_hash: dict[bytes, ListedMailbox] = {}
        self._by_name: dict[str, ListedMailbox] = {}
        self._at: float | None = None

    async def listed(self, session: WritingSession, *, within_s: float = KEPT_S) -> list[ListedMailbox]:
        """All mailboxes, as they were listed so long ago at the most."""
        now = self._clock.monotonic()
        if self._at is None or now - self._at > within_s:
            self._listed = await list_mailboxes(session)
            self._by_hash = {mailbox_hash(one.name): one for one in self._listed}
            # An id is a name too, where no mailbox is called so.
            self._by_name = {mailbox_id(one.name): one for one in self._listed}
            self._by_name |= {mailbox_name(one.name): one for one in self._listed}
            self._at = now
        return self._listed

    async def by_hash(self, session: WritingSession, hash: bytes) -> ListedMailbox | None:
        """The mailbox of an id's hash; None where there is none."""
        await self.listed(session)
        if hash not in self._by_hash:
            await self.listed(session, within_s=AGAIN_AFTER_S)
        return self._by_hash.get(hash)

    async def find(self, session: WritingSession, mailbox: str) -> str:
        """The name of a mailbox that holds mail, by its name or id. Raises ServiceError 404."""
        for within_s in (KEPT_S, AGAIN_AFTER_S):
            await self.listed(session, within_s=within_s)
            found = self._by_name.get(mailbox_name(mailbox))
            if found is not None and selectable(found):
                return found.name
        raise problem(404, "mailbox", "no such mailbox: `mailboxes` lists those that are there")

    def roles(self, listed: Sequence[ListedMailbox]) -> dict[str, str]:
        """The name of each of these mailboxes that has a role → the role."""
        return roles(listed, self._named)

    async def by_role(self, session: WritingSession) -> dict[str, str]:
        """Each role → the name of the mailbox that has it."""
        return by_role(await self.listed(session), self._named)

    async def _turn(self, mailbox: str, uidvalidity: int) -> int | None:
        until = self._clock.monotonic() + EPOCH_LIMIT_S
        while True:
            try:
                return self._turn_of(mailbox, uidvalidity)
            except Transient:
                if self._clock.monotonic() >= until:
                    raise
                await self._clock.sleep(EPOCH_LOOK_S)

    async def group(self, session: WritingSession, ids: Sequence[str]) -> Grouped:
        """Ids by mailbox, in their order. Raises ServiceError 409 where one of them is of an old epoch, Transient."""
        groups: dict[tuple[str, int], Group] = {}
        not_found: list[str] = []
        for id in dict.fromkeys(ids):
            place = place_of(id)
            mailbox = await self.by_hash(session, place.mailbox_hash) if place is not None and place.uid else None
            if place is None or mailbox is None or not selectable(mailbox):
                not_found.append(id)
                continue
            if await self._turn(mailbox.name, place.uidvalidity) not in {None, place.turn}:
                raise error(409, [Problem(f"ids.{id}", STALE)])
            uid: int | None = place.uid
            if place.uid >= NUMBERS_FROM:
                uid = self._uid_of(mailbox.name, place.uidvalidity, place.uid)
            if uid == 0:
                not_found.append(id)
                continue
            key = (mailbox.name, place.uidvalidity)
            groups.setdefault(key, Group(mailbox.name, place.uidvalidity)).ids[uid or place.uid] = id
        if len(groups) > 1:
            for one in groups.values():
                if session.opened is not None and session.opened.name == one.mailbox:
                    # STATUS of the mailbox that is open may be of what was opened.
                    await open_group(session, one, writing=False)
                    continue
                status = await session.status(one.mailbox, "UIDVALIDITY")
                _check_epoch(one, status.get("UIDVALIDITY", 0))
        return Grouped(list(groups.values()), not_found)


async def open_group(session: WritingSession, group: Group, *, writing: bool) -> Opened:
    """Open the mailbox of ids. Raises ServiceError 409 where they are of an old epoch, 400 where it is read-only."""
    before = session.opened
    opened = await session.open_mailbox(group.mailbox, writing=writing)
    if opened is before and opened.uidvalidity != group.uidvalidity:
        # Made again a moment ago: the ids may be newer than what is open.
        opened = await session.open_anew(group.mailbox, writing=writing)
    _check_epoch(group, opened.uidvalidity)
    if writing and opened.read_only:
        raise problem(400, "ids", "the mail server lets this mailbox be read only")
    return opened


async def still_there(session: WritingSession, group: Group, uids: Collection[int]) -> set[int]:
    """Which of these messages there are, in the mailbox as it is now. Raises ServiceError 409, Transient."""
    opened = await session.open_anew(group.mailbox, writing=False)
    _check_epoch(group, opened.uidvalidity)
    return {row.uid for row in await session.survey_these(uids)}


def _check_epoch(group: Group, uidvalidity: int) -> None:
    # A number that is still none is of an epoch that is not followed any more.
    if group.uidvalidity != uidvalidity or max(group.ids) >= NUMBERS_FROM:
        raise error(409, [Problem(f"ids.{id}", STALE) for id in group.ids.values()])
