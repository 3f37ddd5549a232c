"""Who carries a rule out, over IMAP: a batch of messages → what became of each. Used by work.py."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from service.after.act import Acted, Result, act, no_target, only_marks, open_afresh, settle
from service.after.kept import Kept
from service.after.plan import Copying, Item
from service.contract import NUMBERS_FROM, After, AfterKind, fingerprint
from service.errors import MailbusError, Permanent, Transient
from service.imap import Pool, Refused, WritingSession
from service.observe import log, step


class Hands(Protocol):
    """One account's, over one protocol."""

    async def ready(self) -> None:
        """Raises Permanent where the rule can be carried out for no mail at all, Transient where that is not known."""
        ...

    async def act(self, mailbox: str, items: Sequence[Item], kept: Kept) -> tuple[Acted, int]:
        """Carry the rule out; gives what became of the messages, and the epoch that they are of.

        Raises Transient, where it is to be done again, and Permanent, where that helps as little.
        """
        ...


async def _others(session: WritingSession, uids: Sequence[int], marks: Mapping[int, str]) -> set[int]:
    """Which of these are not what was announced under their UIDs: the mailbox is another, with the same UIDVALIDITY.

    Until its log says so: a server that gives all mailboxes one number, and a name that went to another one.
    """
    rows = await session.survey_these([uid for uid in uids if marks.get(uid)])
    return {row.uid for row in rows if fingerprint(row.size, row.internal_date) != marks[row.uid]}


class ImapHands:
    """Over the account's connections for commands."""

    def __init__(
        self,
        pool: Pool,
        after: After,
        *,
        account: str,
        degraded: Callable[[MailbusError], None],
        uid_of: Callable[[str, int, int], int | None],
    ) -> None:
        """`uid_of`: a mailbox, its UIDVALIDITY and a number that POP3 announced mail under → the UID, 0 of none."""
        self._pool = pool
        self._uid_of = uid_of
        self._after = after
        self._account = account
        self._degraded = degraded
        self._only_marks_said = False

    async def ready(self) -> None:
        """The mailbox that mail is moved to is there."""
        name = self._after.mailbox
        if self._after.kind is not AfterKind.MOVE:
            return
        async with self._pool.session() as session:
            try:
                await session.status(name, "UIDVALIDITY")
            except Refused as exc:
                if exc.later or not exc.missing:
                    raise Transient(exc.what, where=exc.where, remedy=exc.remedy) from exc
                raise no_target(name, where=session.where) from exc

    async def act(self, mailbox: str, items: Sequence[Item], kept: Kept) -> tuple[Acted, int]:
        """On one of the connections. Raises Unanswered where a message may be why the connection was lost."""
        async with self._pool.session() as session:
            self._say_only_marks(session)
            return await self._act_on(session, mailbox, items, kept)

    async def _act_on(
        self, session: WritingSession, mailbox: str, items: Sequence[Item], kept: Kept
    ) -> tuple[Acted, int]:
        after, acted = self._after, Acted()
        opened = await open_afresh(session, mailbox)

        async def remember(copying: Copying | None) -> None:
            await kept.write(replace(kept.record, copying=copying))
            step("after.intent")

        if (copying := kept.record.copying) is not None:
            acted.add(await settle(session, opened, after, copying))
            await remember(None)
            opened = await open_afresh(session, mailbox)
        # Nothing of another epoch is touched: UIDVALIDITY holds for as long as the mailbox is selected.
        named = [item.uid for item in items if item.uidvalidity == opened.uidvalidity]
        acted.results[Result.STALE] += len(items) - len(named)
        uids = [uid for name in named if (uid := self._uid(mailbox, opened.uidvalidity, name))]
        acted.results[Result.GONE] += len(named) - len(uids)
        others = await _others(session, uids, {item.uid: item.mark for item in items})
        if others:
            log.warning("after_other_mail", account=self._account, mailbox=mailbox, count=len(others))
            acted.results[Result.STALE] += len(others)
        uids = sorted(set(uids) - acted.stuck.keys() - others)
        if uids:
            acted.add(await act(session, opened, after, uids, remember))
        return acted, opened.uidvalidity

    def _uid(self, mailbox: str, uidvalidity: int, name: int) -> int:
        return name if name < NUMBERS_FROM else self._uid_of(mailbox, uidvalidity, name) or 0

    def _say_only_marks(self, session: WritingSession) -> None:
        if self._only_marks_said or not only_marks(session, self._after):
            return
        self._only_marks_said = True
        self._degraded(
            Permanent(
                "the mail server cannot expunge single messages (no UIDPLUS): mail is marked as deleted, and stays",
                where=self._account,
                remedy="expunge with a mail program, or write `after: seen`",
            )
        )
