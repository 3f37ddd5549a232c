"""Messages that were surveyed → pages of them, read. One connection's; used by mailbox.py, which commits them.

Sizes are what the server says before it gives anything: a page whose messages are far larger ends sooner, and what it
has no room for is asked for once more. What the server does not give is tried alone, three times, and is unavailable
then.
"""

from typing import Final

from service.budget import Budget
from service.errors import Transient
from service.ingest.numbers import Numbers
from service.ingest.pages import Page, Pairing
from service.ingest.plan import PAGE_LIMIT_BYTES
from service.ingest.source import Source
from service.ingest.status import MailboxStatus
from service.ingest.surveyed import Fetched, Surveyed
from service.observe import metrics, step

SINGLE_TRIES: Final = 3
SUSPECTS_LIMIT: Final = 1_000


class Reader:
    """`message_limit`: bytes of the largest message that is read whole."""

    def __init__(self, source: Source, status: MailboxStatus, budget: Budget, *, message_limit: int) -> None:
        self._source = source
        self._status = status
        self._budget = budget
        self._message_limit = message_limit
        self._pairing = Pairing()
        self._held = 0

    async def read(self, wanted: list[Surveyed], numbers: Numbers) -> Page:
        """A page of these messages, or of the first of them; `let_go` is called with it. Raises Transient."""
        limit = self._message_limit
        whole = [message for message in wanted if message.size <= limit]
        headers = [message for message in wanted if message.size > limit]
        listed = sum(message.size for message in whole)
        held = await self._budget.take(listed)
        self._held += held
        page = Page(wanted, held, room=listed + PAGE_LIMIT_BYTES)
        for messages, is_whole in ((whole, True), (headers, False)):
            if messages:
                await self._fetch(page, messages, whole=is_whole)
        if len(page.fetched) + len(page.unavailable) < len(wanted):
            await self._fetch_missing(page)
        if page.left_out:
            self._end_sooner(page)
        self._pairing.take(page, numbers)
        step("fetch.done")
        return page

    def let_go(self, page: Page) -> None:
        """It is committed."""
        self._budget.give(page.held)
        self._held -= page.held

    def let_all_go(self) -> None:
        """Nothing that was read is of any use any more."""
        self._budget.give(self._held)
        self._held = 0

    async def _fetch(self, page: Page, wanted: list[Surveyed], *, whole: bool) -> None:
        suspects = self._status.suspects
        if len(wanted) == 1 and suspects.get(wanted[0].uid, 0) > SINGLE_TRIES:
            page.unavailable.append(wanted[0])
            del suspects[wanted[0].uid]
            return
        left = {message.uid: message for message in wanted}

        def take(message: Fetched) -> None:
            if message.surveyed.uid in left and page.takes(message):
                del left[message.surveyed.uid]
                metrics.BYTES_FETCHED.inc(len(message.body))

        try:
            await self._source.fetch(wanted, take, whole=whole)
        except Transient as exc:
            # The connection broke; the first message still missing may be why. Next time it is read alone.
            suspect = next(iter(left), None)
            # Where the server says when to come back, no message is why.
            if suspect is not None and exc.retry_after_s is None:
                self._suspect(suspect)
            raise
        for message in wanted:
            if message.uid not in left:
                suspects.pop(message.uid, None)

    def _suspect(self, uid: int) -> None:
        suspects = self._status.suspects
        if uid not in suspects and len(suspects) >= SUSPECTS_LIMIT:
            # The oldest: whichever is still there and still breaks connections would have been passed by.
            del suspects[next(iter(suspects))]
        suspects[uid] = suspects.get(uid, 0) + 1

    async def _fetch_missing(self, page: Page) -> None:
        settled = {m.surveyed.uid for m in page.fetched} | {m.uid for m in page.unavailable}
        for message in [m for m in page.wanted if m.uid not in settled]:
            there = len(page.fetched)
            for _ in range(SINGLE_TRIES):
                if message.uid not in page.left_out:
                    await self._fetch(page, [message], whole=message.size <= self._message_limit)
                if len(page.fetched) > there:
                    break
            if message.uid in page.left_out:
                return
            # Expunged meanwhile: not promised. Still shown: passed only with an event that says so.
            if len(page.fetched) == there and await self._source.survey(message.uid, message.uid):
                page.unavailable.append(message)

    def _end_sooner(self, page: Page) -> None:
        """Only messages that came before the page was full are in it."""
        first = page.wanted[0].uid
        page.end_sooner()
        if not page.wanted:
            # It came behind others: alone it has room.
            self._suspect(first)
            raise Transient(
                "the server gives mails that are far larger than it says",
                where=self._status.name,
                remedy="they are read one by one",
            )
