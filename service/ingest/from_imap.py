"""An IMAP session as a Source. Used by supervision; the only file of ingest that knows IMAP."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from service.clock import Clock
from service.imap import Session
from service.ingest.cursor import source_id
from service.ingest.source import Epoch, Fetched, Surveyed

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class ImapSource:
    """One mailbox over one IMAP connection, read without ever changing it (EXAMINE, BODY.PEEK)."""

    def __init__(
        self, session: Session, *, host: str, username: str, mailbox: str, idle_s: float, poll_s: float, clock: Clock
    ) -> None:
        self._session = session
        self._mailbox = mailbox
        self._idle_s = idle_s
        self._poll_s = poll_s
        self._clock = clock
        self._looked_at = -1
        self.id = source_id(host, username, mailbox)

    async def open(self) -> Epoch:
        """EXAMINE: RFC 9051 6.3.3, so that not even \\Recent changes."""
        selected = await self._session.examine(self._mailbox)
        # RFC 3501 7.3.1: an old server may leave UIDNEXT out.
        uidnext = selected.uidnext or await self.highest() + 1
        return Epoch(selected.uidvalidity, uidnext, selected.exists)

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """UID, flags, date and size of a range; the count is noted first, so that what comes later is seen (A03)."""
        self._looked_at = self._session.exists
        found = await self._session.survey(first, last)
        rows = {m.uid: Surveyed(m.uid, m.size, m.flags, m.internal_date) for m in found}
        return [rows[uid] for uid in sorted(rows)]

    async def since(self, moment: datetime) -> int | None:
        """RFC 9051 6.4.4: SINCE disregards time and zone, so the day before is asked for."""
        day = moment - timedelta(days=1)
        return await self._session.search_lowest(f"SINCE {day.day}-{MONTHS[day.month - 1]}-{day.year}")

    async def fetch(self, wanted: Sequence[Surveyed], give: Callable[[Fetched], None], *, whole: bool) -> None:
        """The messages as they come, with flags and date of the survey."""
        known = {message.uid: message for message in wanted}

        def take(uid: int, body: bytes) -> None:
            give(Fetched(known[uid], body, whole))

        await self._session.fetch_bodies(list(known), take, header_only=not whole)

    async def highest(self) -> int:
        """The UID of the last message: `*` is the highest number in use (RFC 9051 9, seq-number)."""
        if self._session.exists == 0:
            return 0
        return max((message.uid for message in await self._session.survey_last()), default=0)

    async def wait(self) -> float | None:
        """IDLE where it is offered, a pause and NOOP elsewhere."""
        if self._session.exists != self._looked_at:
            return self._clock.monotonic()
        if "IDLE" in self._session.capabilities:
            return await self._session.idle(self._idle_s)
        await self._clock.sleep(self._poll_s)
        await self._session.noop()
        return None

    async def close(self) -> None:
        """LOGOUT."""
        await self._session.logout()

    def abort(self) -> None:
        """Drop the connection."""
        self._session.abort()
