"""A mailbox on an IMAP server as a Source. Used by supervision; the only file of ingest that knows IMAP."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Protocol

from service.clock import Clock
from service.contract import Sync, keywords_of
from service.errors import Transient
from service.imap import (
    GMAIL,
    NO_LABELS,
    NONE_NAMED,
    Changes,
    Figures,
    FlagsRow,
    Labelling,
    Labels,
    NoMailbox,
    SelectedMailbox,
    Session,
    by_role,
    figures_of,
    mailbox_id_of,
)
from service.ingest.allowance import Allowance
from service.ingest.cursor import source_id
from service.ingest.known import Flagged
from service.ingest.labels import with_mailboxes
from service.ingest.plan import SURVEY_LIMIT_ROWS
from service.ingest.source import Epoch, Looked, Stirred, Told
from service.ingest.surveyed import Fetched, Surveyed
from service.turns import Breather

# A name that settings write in full and that was there: whoever gives it to another mailbox is done by then.
NAMELESS_S: Final = 60.0


class Place(Protocol):
    """What gives a mailbox its connection, and asks it to leave it to others."""

    @property
    def displaced(self) -> bool:
        """Whether it is to leave."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether it may ever have to."""
        ...

    async def take(self) -> Changes:
        """Its connection, once it may have one. Raises what opening it raises."""
        ...

    def stand(self) -> None:
        """It is about to wait: others may be let in."""
        ...

    def work(self) -> None:
        """It goes on."""
        ...

    async def lend(self) -> None:
        """Let somebody ask a question on the connection who waits to."""
        ...

    async def rest(self, looked: Figures, limit_s: float) -> None:
        """Without a connection until called, or the limit has passed."""
        ...

    def call(self) -> None:
        """There is something to look at: waiting and rest end."""
        ...

    async def leave(self) -> None:
        """It needs no connection any more."""
        ...


class ImapSource:
    """One mailbox, read without ever changing it (EXAMINE, BODY.PEEK), over what connection its place gives."""

    def __init__(
        self,
        place: Place,
        *,
        host: str,
        username: str,
        mailbox: str,
        idle_s: float,
        poll_s: float,
        clock: Clock,
        first: Callable[[], Collection[str]] = tuple,
        named: Mapping[str, str] = NONE_NAMED,
        allowance: Allowance | None = None,
        listed: Callable[[], bool] = lambda: False,
        shares: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """`first`: mailboxes that announce what is in them too; `named`: those with a role, where the server says none.

        `allowance`: what the account may read a day. `listed`: whether the last LIST had such a mailbox. `shares`:
        whether another one of the account has this UIDVALIDITY.
        """
        self._place = place
        self._mailbox = mailbox
        self._idle_s = idle_s
        self._poll_s = poll_s
        self._clock = clock
        self._firsts = first
        self._first: frozenset[str] = frozenset()
        self._named = named
        self._allowance = allowance
        self._listed = listed
        self._shares = shares
        self._opened: SelectedMailbox | None = None
        # Whether another mailbox seems to have the name by now; a server that was wrong about that is not asked again.
        self._seems_replaced = False
        self._is_to_ask = True
        self._looked_at = -1
        # How many were unread before flags were compared; whether it has waited since then.
        self._unseen: int | None = None
        self._waited = False
        self._taken: Changes | None = None
        # Since when there is no such mailbox, which there was; None while there is, or was never seen.
        self._was_there = False
        self._missing_since: float | None = None
        self.id = source_id(host, username, mailbox)

    @property
    def _changes(self) -> Changes:
        if self._taken is None:
            raise RuntimeError("a source that was not opened")
        return self._taken

    @property
    def _session(self) -> Session:
        return self._changes.session

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
        self._taken = await self._place.take()
        self._first = frozenset(self._firsts())
        session = self._session
        if GMAIL in session.capabilities:
            session.labelling = Labelling(self._mailbox, by_role(await session.list_mailboxes(), self._named))
        # Before flags are compared, so that whatever changes from now on makes a difference to those who ask later.
        self._unseen = await self._count_unseen() if self._place.crowded else None
        self._waited = False
        try:
            selected = await self._changes.open(self._mailbox)
        except NoMailbox as exc:
            if not self._may_be_back():
                raise
            raise Transient(exc.what, where=exc.where) from exc
        self._was_there, self._missing_since = True, None
        if self._seems_replaced and self._opened is not None:
            self._is_to_ask = selected.mailbox_id != self._opened.mailbox_id
        self._opened, self._seems_replaced = selected, False
        # What was there by then lies below UIDNEXT.
        self._looked_at = selected.exists
        # RFC 3501 7.3.1: an old server may leave UIDNEXT out.
        uidnext = selected.uidnext or await self.highest() + 1
        told = selected.uidnext > 0
        return Epoch(selected.uidvalidity, uidnext, selected.exists, selected.highestmodseq, told, selected.mailbox_id)

    async def replaced(self) -> bool:
        """By STATUS, where no UIDVALIDITY would tell: Cyrus 3.6 goes on with whatever has the name, without a word."""
        opened = self._opened
        if opened is None or not (self._is_to_ask and opened.mailbox_id and self._shares(opened.uidvalidity)):
            return False
        now = await mailbox_id_of(self._session, self._mailbox)
        self._seems_replaced = bool(now) and now != opened.mailbox_id
        return self._seems_replaced

    def _may_be_back(self) -> bool:
        """Whether a name that is nobody's may just be being given to another mailbox. If it is gone, the next LIST says
        so; where there is none, nothing but time does."""
        if self._missing_since is None and self._was_there:
            self._missing_since = self._clock.monotonic()
        since = self._missing_since
        return self._listed() or (since is not None and self._clock.monotonic() - since < NAMELESS_S)

    async def uidvalidity_of(self, mailbox: str) -> int | None:
        """Of another mailbox, asked on this one's connection; None where the server refuses it."""
        figures = await figures_of(self._session, mailbox)
        return figures.uidvalidity if figures is not None else None

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """UID, flags, date and size of a range; the count is noted first, so that what comes later is seen (A03)."""
        if last is None:
            # A range that ends shows nothing of what came since the mailbox was opened, though EXISTS has told of it.
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

    async def reach(self, first: int, last: int) -> int:
        """By EXISTS where that is all there is to say, else by SEARCH: UIDs that are times lie far apart."""
        if last - first < SURVEY_LIMIT_ROWS or self._session.exists <= SURVEY_LIMIT_ROWS:
            return last
        return await self._changes.reach(first, last, SURVEY_LIMIT_ROWS)

    def _elsewhere(self, labels: Labels) -> bool:
        return bool(self._first) and not self._first.isdisjoint(labels.mailboxes)

    async def since(self, moment: datetime) -> int | None:
        """RFC 9051 6.4.4: SINCE disregards time and zone, so the day before is asked for."""
        return await self._session.lowest_since(moment - timedelta(days=1))

    async def fetch(self, wanted: Sequence[Surveyed], give: Callable[[Fetched], None], *, whole: bool) -> None:
        """The messages as they come, with flags and date of the survey."""
        known = {message.uid: message for message in wanted}
        if self._allowance is not None:
            self._allowance.take(sum(message.size for message in wanted) if whole else 0)

        def take(uid: int, body: bytes) -> None:
            give(Fetched(known[uid], body, whole))

        await self._session.fetch_bodies(list(known), take, header_only=not whole)
        if await self.replaced():
            raise Transient("its name was given to another mailbox", where=f"{self._session.where} {self._mailbox}")

    async def highest(self) -> int:
        """The UID of the last message: `*` is the highest number in use (RFC 9051 9, seq-number)."""
        if self._session.exists == 0:
            return 0
        return max((message.uid for message in await self._session.survey_last()), default=0)

    @property
    def displaced(self) -> bool:
        """By its place."""
        return self._place.displaced

    async def rest(self, looked: Looked, limit_s: float) -> None:
        """Until its place is called; not at all where something was said that is not looked at yet."""
        session = self._session
        if self._waited and self._unseen is not None:
            self._unseen = await self._count_unseen()
        said = session.exists != self._looked_at or bool(session.stir)
        figures = Figures(looked.uidvalidity, looked.uidnext, session.exists, looked.modseq or None, self._unseen)
        await self._place.rest(figures, 0.0 if said else limit_s)

    async def _count_unseen(self) -> int | None:
        """By STATUS; None where modseqs tell more."""
        if self._session.capabilities & {"CONDSTORE", "QRESYNC"}:
            return None
        figures = await figures_of(self._session, self._mailbox)
        return figures.unseen if figures is not None else None

    async def wait(self, limit_s: float) -> float | None:
        """IDLE where it is offered, a pause and NOOP elsewhere."""
        self._waited = True
        self._place.stand()
        try:
            return await self._wait(limit_s)
        finally:
            self._place.work()
            self._session.nudged.clear()

    async def _wait(self, limit_s: float) -> float | None:
        await self._place.lend()
        if self._session.exists != self._looked_at or self._session.stir:
            return self._clock.monotonic()
        if self._place.displaced:
            return None
        noticed = await self._listen(limit_s)
        if noticed is None:
            await self._place.lend()
        return noticed

    async def _listen(self, limit_s: float) -> float | None:
        if "IDLE" in self._session.capabilities:
            return await self._session.idle(min(limit_s, self._idle_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(min(limit_s, self._poll_s)):
                await self._session.nudged.wait()
        await self._session.noop()
        return None

    def nudge(self) -> None:
        """IDLE, pauses and rest end."""
        self._place.call()

    def stirred(self) -> Stirred:
        """RFC 9051 7: what the server said unasked."""
        stir = self._session.stir
        noticed = Stirred(stir.gone, stir.flags, frozenset(stir.seqs))
        stir.clear()
        return noticed

    async def flags(self, first: int, last: int, since: int) -> Told:
        """By CHANGEDSINCE and VANISHED where they are to be had (RFC 7162)."""
        found = await self._changes.flags(first, last, since)
        return Told(await self._flagged(found.rows), found.vanished, found.whole)

    async def flags_of(self, numbers: frozenset[int]) -> list[Flagged]:
        """By message numbers."""
        return await self._flagged(await self._changes.flags_of(set(numbers)))

    async def present(self, first: int, last: int) -> Sequence[range]:
        """By SEARCH."""
        return await self._changes.present(first, last)

    async def close(self) -> None:
        """Leave the connection to others, or LOGOUT."""
        await self._place.leave()

    async def _flagged(self, rows: Sequence[FlagsRow]) -> list[Flagged]:
        # Tens of thousands, of which each may have as many flags and labels as its server likes.
        breather, found = Breather(self._clock), list[Flagged]()
        for row in rows:
            keywords = keywords_of(row.flags | row.labels.flags if row.labels.flags else row.flags)
            if row.labels is not NO_LABELS:
                keywords = with_mailboxes(keywords, row.labels.mailboxes)
            found.append(Flagged(row.uid, keywords, row.modseq, self._elsewhere(row.labels)))
            await breather.pause()
        return found
