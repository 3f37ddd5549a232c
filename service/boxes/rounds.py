"""What there is of an account's mailboxes, and which of those at rest have moved: asked every `poll`, in fair turns.

Used by build. One LIST says both where the server has LIST-STATUS (RFC 5819); elsewhere STATUS asks for one after the
other, a few at a time, so that whoever lends the connection is not kept from hearing. Where the server has NOTIFY
(RFC 5465) one of the connections hears of all mailboxes at once, and rounds only find what was not told.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from service.boxes.boxes import Boxes
from service.boxes.ear import EAR, EAR_PAUSE_S, Ear, Noise, pause_s
from service.boxes.lines import Lines
from service.boxes.names import Names
from service.boxes.plan import Chosen, Renamed, renames
from service.clock import Clock
from service.contract import Choice, mailbox_name
from service.errors import MailbusError, PeerError, Permanent, Transient
from service.imap import (
    Figures,
    ListedMailbox,
    NamesNews,
    News,
    NewsMissing,
    Overview,
    Session,
    StatusNews,
    figures_of,
    left_out,
    notify,
    notify_selected,
    overview,
    selectable,
)
from service.observe import log

# A connection that is borrowed for longer keeps its mailbox from hearing: so many questions, or so many seconds.
PORTION: Final = 50
PORTION_S: Final = 1.0
# Names come and go in crowds: one round after another, with a gap as long as the last one took, or this.
GAP_S: Final = 0.5
# Where NOTIFY is offered and no mailbox idles yet: looked for one so often.
LISTEN_EVERY_S: Final = 1.0
# Names that a list is without, asked for one by one: whoever deletes more at once is believed.
LEFT_OUT_LIMIT: Final = 20
# Renames that no round has looked at yet; what is beyond is known by its figures, or by its mail.
RENAMES_LIMIT: Final = 1_000


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
        names: Names,
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
        self._names = names
        # The names of all mailboxes that there are, followed or not.
        self.there: frozenset[str] = frozenset()
        # What LIST told of those that are followed.
        self._last: dict[str, Figures] = {}
        self._asked_at: dict[str, float] = {}
        self._said: list[Choice] = []
        # NOTIFY: which connection hears, who is followed and not told of, and since when there was too much to tell.
        self._offered = self._cheap = False
        self._ear = Ear.DEAF
        self._hearing: Session | None = None
        self._beyond: set[str] = set()
        self._rests_since = 0.0
        self._renamed: dict[str, str] = {}
        # Names that a list was without although the server has them: said twice, the list counts.
        self._doubted: set[str] = set()
        self._bell = asyncio.Event()

    @property
    def needed(self) -> bool:
        """Whether there is anything to ask: every mailbox has a connection of its own otherwise."""
        return self._chosen.needs_list or len(self._chosen.choices) > self._lines.limit

    async def life(self, proved: Callable[[], None]) -> None:
        """Ask for ever. Raises the verdict that ended it."""
        while True:
            began = self._clock.monotonic()
            self._bell.clear()
            await self._look()
            await self._ask_those_left()
            if not self._said:
                proved()
            await self._pause(self._clock.monotonic() - began)

    async def _pause(self, took_s: float) -> None:
        """Until the next round is due, or there is a reason for one."""
        began = self._clock.monotonic()
        await self._clock.sleep(min(self._poll_s, max(GAP_S, took_s)))
        while not self._bell.is_set():
            await self._listen()
            whole_s = pause_s(self._ear, poll_s=self._poll_s, cheap=self._cheap, beyond=bool(self._beyond))
            left_s = began + whole_s - self._clock.monotonic()
            if left_s <= 0:
                return
            wants = (self._ear is Ear.DEAF and self._offered) or (self._ear is Ear.RESTS and self._hearing is not None)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LISTEN_EVERY_S) if wants else left_s):
                    await self._bell.wait()

    async def _look(self) -> None:
        """One LIST."""
        listing = self._chosen.needs_list
        async with self._lines.borrow(self._own) as session:
            self._offered, self._cheap = session.offers("NOTIFY"), session.offers("LIST-STATUS")
            if not listing and not session.offers("LIST-STATUS"):
                return
            seen = await overview(session)
            if listing:
                await self._doubt(session, seen)
        if listing:
            await self._resolve(seen)
        for name, figures in seen.figures.items():
            self._compare(mailbox_name(name), figures)

    async def _doubt(self, session: Session, seen: Overview) -> None:
        """Raises PeerError where the list is without mailboxes that are followed and that the server has all the same.

        A session of Dovecot 2.3 may show none of those whose names were swapped, for as long as it lives: it is left.
        """
        listed = _names(seen.mailboxes)
        self._doubted -= listed
        missing = sorted((self._boxes.names & self.there) - listed - self._doubted)
        doubted = await left_out(session, missing[:LEFT_OUT_LIMIT])
        if doubted:
            self._doubted |= doubted
            session.abort()
            raise PeerError(f"LIST leaves out {len(doubted)} mailboxes that are there", where=self._where)

    async def _resolve(self, seen: Overview) -> None:
        # Names times patterns: not on the loop, where there are thousands.
        found = await asyncio.to_thread(self._chosen.resolve, seen.mailboxes)
        if not seen.whole:
            self._degraded(_too_many(self._where, len(seen.mailboxes)))
        if found.roles != self._said:
            self._said = found.roles
            if found.roles:
                self._degraded(no_role(self._where, found.roles))
        await self._names.load()
        followed, self.there = self._boxes.names, frozenset(_names(seen.mailboxes))
        figures = {mailbox_name(name): figures for name, figures in seen.figures.items()}
        appeared = {name: figures[name] for name in found.names if name in figures and name not in followed}
        vanished = {name: self._last[name] for name in followed - set(found.names) if name in self._last}
        new, gone = set(found.names) - followed, followed - set(found.names)
        told = {name: Renamed(old, proved=True) for name, old in self._renamed.items() if name in new and old in gone}
        # Told while the list was on its way: the next one has it.
        self._renamed = {name: old for name, old in self._renamed.items() if name not in self.there}
        self._boxes.follow(
            found.names,
            new=self._names.appeared,
            renamed=renames(appeared, vanished) | told,
        )
        # One that appeared is new until its position is in the log, for whoever comes after a kill as well.
        waiting = {name for name in found.names if self._names.appeared(name) and not self._boxes.begun(name)}
        if await self._names.save(self.there - waiting):
            log.debug("mailboxes_known", where=self._where, count=len(self.there) - len(waiting))
        self._last = {name: figures[name] for name in found.names if name in figures}
        self._asked_at = {name: self._asked_at[name] for name in found.names if name in self._asked_at}

    def _compare(self, name: str, figures: Figures) -> None:
        """Call a mailbox at rest that has moved since the last round, or since it was looked at."""
        place = self._boxes.place(name)
        if place is None:
            return  # a LIST tells of all that there are
        self._asked_at[name] = self._clock.monotonic()
        if place.asked(figures):
            log.debug("mailbox_moved", where=self._where, mailbox=name)

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

    # -- hearing (NOTIFY) -------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Have a connection hear of all mailboxes, where none does and the server has NOTIFY."""
        if self._ear is Ear.RESTS and self._clock.monotonic() - self._rests_since > EAR_PAUSE_S:
            self._noise(Noise.RESTED)
        if self._ear is Ear.RESTS and self._hearing is not None:
            await self._hear_one(self._hearing)
        if self._ear is not Ear.DEAF or not self._offered:
            return
        # That of the most important mailbox, which leaves its connection last.
        async with self._lines.lent(max) as session:
            if session is None:
                return
            if not session.offers("NOTIFY"):
                self._rest(Noise.REFUSED)
                return
            self._hearing = session
            try:
                told = await notify(session, self._hear, lambda: self._deaf(session))
                session.protocol.check()
            except Transient:
                # Without an answer the connection is dead, with one it may be: asked on each new one, none would
                # live.
                self._rest(Noise.REFUSED)
                raise
            if told is None:
                self._hearing = None
                self._rest(Noise.REFUSED)
                return
            self._beyond = self._boxes.names - {mailbox_name(name) for name in [*told, session.selected]}
            self._noise(Noise.AGREED)
            log.debug("notify_on", where=self._where, told=len(told), beyond=len(self._beyond))

    async def _hear_one(self, hearing: Session) -> None:
        """After an overflow it hears of nothing, in IDLE either (RFC 5465 5.8): let it hear of its own mailbox."""
        async with self._lines.lent(max, only=hearing) as session:
            if session is not None:
                await notify_selected(session)
                self._hearing = None

    def _note_name(self, name: str, former: str) -> None:
        """A mailbox came or went (no `former`), or was renamed: twice before a round looks is once, from the first."""
        first = self._renamed.pop(former, former)
        self._renamed.pop(name, None)
        if former and name != first and len(self._renamed) < RENAMES_LIMIT:
            self._renamed[name] = first

    def _rest(self, noise: Noise) -> None:
        """None hears for a while: whoever asked again and again would keep a mailbox from hearing of its own mail."""
        self._rests_since = self._clock.monotonic()
        self._noise(noise)

    def _noise(self, noise: Noise) -> None:
        self._ear = EAR[self._ear, noise]

    def _deaf(self, session: Session) -> None:
        if session is self._hearing:
            self._hearing = None
            self._renamed = {}
            self._noise(Noise.LOST)
            self._bell.set()

    def _hear(self, news: News) -> None:
        """What a server says unasked: at once, whatever is under way."""
        match news:
            case StatusNews(mailbox, figures, asked):
                name = mailbox_name(mailbox)
                place = self._boxes.place(name)
                if place is not None and (place.asked(figures) if asked else place.told(figures)):
                    log.debug("mailbox_told", where=self._where, mailbox=name)
                if self.there and name not in self.there:
                    self._bell.set()  # its name is news, too
            case NamesNews(mailbox, former):
                self._note_name(mailbox_name(mailbox), mailbox_name(former) if former else "")
                place = self._boxes.place(mailbox_name(former or mailbox))
                if place is not None and not self._chosen.needs_list:
                    place.call()  # should it be there no more, it finds out
                self._bell.set()
            case NewsMissing(ended):
                if ended:
                    log.info("notify_overflow", where=self._where)
                    self._rest(Noise.OVERFLOW)
                self._bell.set()


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
