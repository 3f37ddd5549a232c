"""What there is of an account's mailboxes, and which of those at rest have moved: asked every `poll`, in fair turns.

Used by build. One LIST says both where the server has LIST-STATUS (RFC 5819); elsewhere STATUS asks for one after the
other, a few at a time, so that whoever lends the connection is not kept from hearing.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from service.boxes.boxes import Boxes
from service.boxes.lines import Lines
from service.boxes.plan import Chosen, renames
from service.clock import Clock
from service.contract import Choice, mailbox_name
from service.errors import MailbusError, Permanent, Transient
from service.imap import Figures, ListedMailbox, Overview, figures_of, overview, selectable
from service.observe import log

# A connection that is borrowed for longer keeps its mailbox from hearing: so many questions, or so many seconds.
PORTION: Final = 50
PORTION_S: Final = 1.0


class Rounds:
    """One account's."""

    def __init__(
        self,
        lines: Lines,
        boxes: Boxes,
        chosen: Chosen,
        *,
        poll_s: float,
        degraded: Callable[[MailbusError], None],
        clock: Clock,
        where: str,
    ) -> None:
        self._lines = lines
        self._boxes = boxes
        self._chosen = chosen
        self._poll_s = poll_s
        self._degraded = degraded
        self._clock = clock
        self._where = where
        self._own = lines.place(-1)
        self._known: set[str] | None = None
        # What LIST told of those that are followed.
        self._last: dict[str, Figures] = {}
        self._told: dict[str, Figures] = {}
        self._asked_at: dict[str, float] = {}
        self._said: list[Choice] = []

    @property
    def needed(self) -> bool:
        """Whether there is anything to ask: every mailbox has a connection of its own otherwise."""
        return self._chosen.needs_list or len(self._chosen.choices) > self._lines.limit

    async def life(self, proved: Callable[[], None]) -> None:
        """Ask for ever. Raises the verdict that ended it."""
        while True:
            await self._look()
            await self._ask_those_left()
            if not self._said:
                proved()
            await self._clock.sleep(self._poll_s)

    async def _look(self) -> None:
        """One LIST."""
        listing = self._chosen.needs_list
        async with self._lines.borrow(self._own) as session:
            if not listing and not session.offers("LIST-STATUS"):
                return
            seen = await overview(session)
        if listing:
            await self._resolve(seen)
        for name, figures in seen.figures.items():
            self._compare(mailbox_name(name), figures)

    async def _resolve(self, seen: Overview) -> None:
        # Names times patterns: not on the loop, where there are thousands.
        found = await asyncio.to_thread(self._chosen.resolve, seen.mailboxes)
        if not seen.whole:
            self._degraded(_too_many(self._where, len(seen.mailboxes)))
        if found.roles != self._said:
            self._said = found.roles
            if found.roles:
                self._degraded(no_role(self._where, found.roles))
        known, followed = self._known, self._boxes.names
        figures = {mailbox_name(name): figures for name, figures in seen.figures.items()}
        appeared = {name: figures[name] for name in found.names if name in figures and name not in followed}
        vanished = {name: self._last[name] for name in followed - set(found.names) if name in self._last}
        self._boxes.follow(
            found.names,
            new=lambda name: known is not None and name not in known,
            renamed=renames(appeared, vanished),
        )
        self._known = _names(seen.mailboxes)
        self._last = {name: figures[name] for name in found.names if name in figures}

    def _compare(self, name: str, figures: Figures) -> None:
        """Call a mailbox at rest that has moved since the last round, or since it was looked at; once for each move.

        Only STATUS says how many are unread: so that is compared from round to round.
        """
        self._asked_at[name] = self._clock.monotonic()
        place = self._boxes.place(name)
        if place is None or not place.resting or place.looked is None:
            # It looks by itself; what is told meanwhile may be newer than what it saw.
            self._told.pop(name, None)
            return
        before = self._told.get(name, place.looked)
        self._told[name] = figures
        if before.differ(figures):
            log.debug("mailbox_moved", where=self._where, mailbox=name)
            place.call()

    async def _ask_those_left(self) -> None:
        """STATUS of those at rest that LIST said nothing of, least recently asked first."""
        began = self._clock.monotonic()
        left = [name for name in self._boxes.resting() if self._asked_at.get(name, 0.0) < began - self._poll_s / 2]
        left.sort(key=lambda name: self._asked_at.get(name, 0.0))
        while left:
            since = self._clock.monotonic()
            async with self._lines.borrow(self._own) as session:
                for count in range(1, len(left) + 1):
                    name = left[count - 1]
                    figures = await figures_of(session, name)
                    if figures is not None:
                        self._compare(name, figures)
                    elif (place := self._boxes.place(name)) is not None:
                        self._asked_at[name] = self._clock.monotonic()
                        place.call()  # it finds out why
                    if count >= PORTION or self._clock.monotonic() - since > PORTION_S:
                        break
            left = left[count:]
            if left:
                await self._clock.sleep(self._clock.monotonic() - since)


def _names(listed: Sequence[ListedMailbox]) -> set[str]:
    return {mailbox_name(one.name) for one in listed if selectable(one)}


def _too_many(where: str, count: int) -> Transient:
    return Transient(
        f"the server lists more than {count} mailboxes: the rest is not followed", where=where, remedy="write names"
    )


def no_role(where: str, roles: Sequence[Choice]) -> Permanent:
    """Roles that were chosen and that nobody has."""
    return Permanent(
        f"the server has no mailbox for {', '.join(map(str, roles))}",
        where=where,
        remedy="write its name in `roles`, or leave it out of `mailboxes`; `mailbus check` lists what is there",
    )
