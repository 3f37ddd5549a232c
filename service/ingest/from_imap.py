"""An IMAP session as a Source. Used by supervision; the only file of ingest that knows IMAP."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from service.clock import Clock
from service.contract import Sync, keywords_of
from service.imap import GMAIL, NO_LABELS, NONE_NAMED, Changes, FlagsRow, Labelling, Labels, Session, by_role
from service.ingest.allowance import Allowance
from service.ingest.cursor import source_id
from service.ingest.known import Flagged, Uids
from service.ingest.labels import with_mailboxes
from service.ingest.source import Epoch, Fetched, Stirred, Surveyed, Told

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class ImapSource:
    """One mailbox over one IMAP connection, read without ever changing it (EXAMINE, BODY.PEEK)."""

    def __init__(
        self,
        session: Session,
        *,
        host: str,
        username: str,
        mailbox: str,
        idle_s: float,
        poll_s: float,
        clock: Clock,
        first: Collection[str] = (),
        named: Mapping[str, str] = NONE_NAMED,
        allowance: Allowance | None = None,
    ) -> None:
        """`first`: mailboxes that announce what is in them too; `named`: those with a role, where the server says none.

        `allowance`: what the account may read a day.
        """
        self._session = session
        self._mailbox = mailbox
        self._idle_s = idle_s
        self._poll_s = poll_s
        self._clock = clock
        self._first = frozenset(first)
        self._named = named
        self._allowance = allowance
        self._looked_at = -1
        self._changes = Changes(session)
        self.id = source_id(host, username, mailbox)

    @property
    def sync(self) -> Sync:
        """By what the server offers and does not refuse."""
        return self._changes.sync

    @property
    def modseq(self) -> int:
        """RFC 7162: by HIGHESTMODSEQ and MODSEQ of what came unasked."""
        return self._session.stir.modseq

    @property
    def refused(self) -> Sequence[str]:
        """What the server offered and refused."""
        return self._changes.refused

    async def open(self) -> Epoch:
        """EXAMINE: RFC 9051 6.3.3, so that not even \\Recent changes."""
        session = self._session
        if GMAIL in session.capabilities:
            session.labelling = Labelling(self._mailbox, by_role(await session.list_mailboxes(), self._named))
        selected = await self._changes.open(self._mailbox)
        # RFC 3501 7.3.1: an old server may leave UIDNEXT out.
        uidnext = selected.uidnext or await self.highest() + 1
        told = selected.uidnext > 0
        return Epoch(selected.uidvalidity, uidnext, selected.exists, selected.highestmodseq, told)

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """UID, flags, date and size of a range; the count is noted first, so that what comes later is seen (A03)."""
        self._looked_at = self._session.exists
        found = await self._session.survey(first, last)
        rows = {
            m.uid: Surveyed(
                m.uid,
                m.size,
                m.flags | m.labels.flags if m.labels.flags else m.flags,
                m.internal_date,
                email_id=m.email_id,
                thread_id=m.thread_id,
                mailboxes=m.labels.mailboxes,
                elsewhere=self._elsewhere(m.labels),
            )
            for m in found
        }
        return [rows[uid] for uid in sorted(rows)]

    def _elsewhere(self, labels: Labels) -> bool:
        return bool(self._first) and not self._first.isdisjoint(labels.mailboxes)

    async def since(self, moment: datetime) -> int | None:
        """RFC 9051 6.4.4: SINCE disregards time and zone, so the day before is asked for."""
        day = moment - timedelta(days=1)
        return await self._session.search_lowest(f"SINCE {day.day}-{MONTHS[day.month - 1]}-{day.year}")

    async def fetch(self, wanted: Sequence[Surveyed], give: Callable[[Fetched], None], *, whole: bool) -> None:
        """The messages as they come, with flags and date of the survey."""
        known = {message.uid: message for message in wanted}
        if self._allowance is not None:
            self._allowance.take(sum(message.size for message in wanted) if whole else 0)

        def take(uid: int, body: bytes) -> None:
            give(Fetched(known[uid], body, whole))

        await self._session.fetch_bodies(list(known), take, header_only=not whole)

    async def highest(self) -> int:
        """The UID of the last message: `*` is the highest number in use (RFC 9051 9, seq-number)."""
        if self._session.exists == 0:
            return 0
        return max((message.uid for message in await self._session.survey_last()), default=0)

    async def wait(self, limit_s: float) -> float | None:
        """IDLE where it is offered, a pause and NOOP elsewhere."""
        try:
            return await self._wait(limit_s)
        finally:
            self._session.nudged.clear()

    async def _wait(self, limit_s: float) -> float | None:
        if self._session.exists != self._looked_at or self._session.stir:
            return self._clock.monotonic()
        if "IDLE" in self._session.capabilities:
            return await self._session.idle(min(limit_s, self._idle_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(min(limit_s, self._poll_s)):
                await self._session.nudged.wait()
        await self._session.noop()
        return None

    def nudge(self) -> None:
        """IDLE and pauses end."""
        self._session.nudge()

    def stirred(self) -> Stirred:
        """RFC 9051 7: what the server said unasked."""
        stir = self._session.stir
        noticed = Stirred(stir.gone, stir.flags, frozenset(stir.seqs))
        stir.clear()
        return noticed

    async def flags(self, first: int, last: int, since: int) -> Told:
        """By CHANGEDSINCE and VANISHED where they are to be had (RFC 7162)."""
        found = await self._changes.flags(first, last, since)
        gone = None if found.vanished is None else [Uids(span.first, span.last) for span in found.vanished]
        return Told(self._flagged(found.rows), gone, found.whole)

    async def flags_of(self, numbers: frozenset[int]) -> list[Flagged]:
        """By message numbers."""
        return self._flagged(await self._changes.flags_of(set(numbers)))

    async def present(self, first: int, last: int) -> list[Uids]:
        """By SEARCH."""
        return [Uids(span.first, span.last) for span in await self._changes.present(first, last)]

    async def close(self) -> None:
        """LOGOUT."""
        await self._session.logout()

    def abort(self) -> None:
        """Drop the connection."""
        self._session.abort()

    def _flagged(self, rows: Sequence[FlagsRow]) -> list[Flagged]:
        return [
            Flagged(
                row.uid,
                with_mailboxes(keywords_of(row.flags | row.labels.flags), row.labels.mailboxes),
                row.modseq,
                self._elsewhere(row.labels),
            )
            if row.labels is not NO_LABELS
            else Flagged(row.uid, keywords_of(row.flags), row.modseq)
            for row in rows
        ]
