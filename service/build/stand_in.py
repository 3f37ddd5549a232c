"""Settings → POP3 for an account's INBOX while IMAP cannot be reached. Used by accounts.py.

Watches how INBOX fares by IMAP, which goes on trying by itself, and reads it by POP3 meanwhile: over a log of its own,
fenced against IMAP's as another process's would be. While IMAP works it learns which mail of the maildrop is which.
When it stands in: docs/decisions/0014-pop3-stands-in.md.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from service.build.incoming import imap_of
from service.build.kept import announcer_of, mailbox_log
from service.build.pop3 import LOCKED_S, close, pop3_options
from service.build.shared import INBOX, Shared, Work, supervised
from service.contract import AccountPart, AccountState
from service.errors import MailbusError, Transient
from service.fleet import MAILBOXES, AccountView, Part
from service.ingest import (
    Absence,
    Desk,
    IngestOptions,
    Learner,
    Lesson,
    LinkedStandIn,
    MailboxIngest,
    MailboxStatus,
    PairedStandIn,
    Position,
    StandIn,
    Tries,
)
from service.login import TokenSource
from service.observe import log, metrics
from service.pop3 import Door
from service.settings import AccountSettings, IncomingSettings, Pop3Settings, Settings
from service.tasks import TaskGroup

CHECK_S: Final = 1.0
# What is learnt is learnt anew so often, where mail came; what IMAP tells in between is known by the log.
LEARN_EVERY_S: Final = 3600.0
LEARN_LIMIT_S: Final = 600.0
POP3: Final = Part(AccountPart.POP3)
BY_IMAP: Final = Part(AccountPart.MAILBOX, INBOX)


def is_away(view: AccountView | None, *, has_bus: bool) -> bool:
    """Whether IMAP cannot be had. A password that is wrong, or another process, is no reason to stand in; nor is a
    first login that still waits for its turn. Where NATS, or its JetStream alone, is away commits fail, which says
    nothing of IMAP."""
    if view is None or not has_bus:
        return False
    # Where mailboxes are patterns, INBOX is a part once they were listed.
    part = BY_IMAP if BY_IMAP in view.parts else MAILBOXES
    if part in view.excused:
        return False
    is_lost = view.parts.get(part) is AccountState.DISCONNECTED and part not in view.untried
    return is_lost or part in view.stuck


class StandInWork:
    """One account's."""

    def __init__(
        self,
        settings: Settings,
        account: AccountSettings,
        incoming: IncomingSettings,
        pop3: Pop3Settings,
        tokens: TokenSource | None,
        shared: Shared,
        *,
        moved: Callable[[], int],
    ) -> None:
        """`moved`: a figure that moves with what IMAP reads of INBOX."""
        self._settings = settings
        self._incoming = incoming
        self._shared = shared
        self._account = account.id
        self._host = imap_of(incoming).host
        self._stand_in_s = pop3.stand_in.total_seconds()
        self._absence = Absence(self._stand_in_s)
        self._moved = moved
        self._tries = Tries()
        options = pop3_options(settings, account, incoming, pop3, tokens=tokens)
        self._door = Door(options, shared.connecting.to(options.host), shared.clock, locked_s=LOCKED_S)
        self._events, self._memory = mailbox_log(shared, account.id, INBOX, self._say)
        shared.desks[account.id].gives(INBOX, self._memory)
        bus = shared.bus
        self._learner = Learner(
            self._door,
            bus.log,
            bus.blobs(bus.subjects.state),
            bus.key_value(bus.subjects.cursors),
            shared.copies,
            account=account.id,
            mailbox=INBOX,
            filter_subject=bus.subjects.mailbox_filter(account.id, INBOX),
            clock=shared.clock,
        )

    def work(self) -> Work:
        """It, to be run."""
        return Work(self._account, POP3, supervised(self._run, self._account, POP3, self._shared, None), [POP3])

    async def _run(self, proved: Callable[[], None]) -> None:
        proved()
        self._shared.reports.part(self._account, POP3, AccountState.CONNECTED)
        async with TaskGroup() as group:
            group.create_task(self._watch(), name="watch")
            group.create_task(self._learn(), name="learn")

    async def _watch(self) -> None:
        while True:
            if self._is_wanted():
                await self._stand_in()
            await self._shared.clock.sleep(CHECK_S)

    def _imap(self) -> AccountState | None:
        view = self._shared.reports.accounts.get(self._account)
        return view.parts.get(BY_IMAP) if view is not None else None

    def _is_away(self) -> bool:
        return is_away(self._shared.reports.accounts.get(self._account), has_bus=self._shared.bus.connected)

    def _is_wanted(self) -> bool:
        return self._absence.is_long(self._shared.clock.monotonic(), away=self._is_away(), moved=self._moved())

    async def _learn(self) -> None:
        """Which mail of the maildrop is which, while IMAP can say."""
        clock, lesson = self._shared.clock, Lesson.NOTHING
        while True:
            pause_s = CHECK_S
            if self._imap() is AccountState.CONNECTED:
                lesson = await self._lesson()
                pause_s = min(self._stand_in_s, LEARN_EVERY_S) if lesson is Lesson.NOTHING else LEARN_EVERY_S
            await clock.sleep(pause_s)

    async def _lesson(self) -> Lesson:
        shared = self._shared
        try:
            await shared.bus.wait_connected()
            async with asyncio.timeout(LEARN_LIMIT_S):
                lesson = await self._learner.learn(lambda: shared.desks[self._account].caught_up(INBOX))
        except (Transient, TimeoutError) as exc:
            log.info("pop3_not_learnt", account=self._account, error=str(exc))
            return Lesson.NOTHING
        except MailbusError as exc:
            # Then it could not stand in, either.
            self._say(exc)
            return Lesson.NOTHING
        log.debug("pop3_learnt", account=self._account, lesson=lesson.name)
        if not self._is_away():
            shared.reports.part(self._account, POP3, AccountState.CONNECTED)
        return lesson

    async def _stand_in(self) -> None:
        """Until IMAP is back."""
        log.warning("pop3_stands_in", account=self._account)
        metrics.STAND_INS.inc()
        self._tries = Tries()
        try:
            async with TaskGroup() as group:
                work = supervised(self._life, self._account, POP3, self._shared, None)
                task = group.create_task(work(), name="stand-in")
                try:
                    while self._is_wanted():
                        await self._shared.clock.sleep(CHECK_S)
                finally:
                    task.cancel()
        finally:
            metrics.STAND_INS.dec()
        log.info("imap_is_back", account=self._account)
        self._shared.reports.part(self._account, POP3, AccountState.CONNECTED)

    def _say(self, error: MailbusError) -> None:
        self._shared.reports.part(self._account, POP3, AccountState.DEGRADED, error)

    async def _life(self, proved: Callable[[], None]) -> None:
        shared, limits = self._shared, self._settings.limits

        def works() -> None:
            proved()
            what = "IMAP cannot be reached: new mail of INBOX comes by POP3, other changes when it is back"
            self._say(Transient(what, where=self._door.options.where, remedy="look why IMAP cannot be reached"))

        await shared.bus.wait_connected()
        async with shared.resuming:
            position = await self._events.resume(contest=False)
        source = await self._source(position)
        announcer = announcer_of(shared, self._account, self._incoming, INBOX, limits.inline)
        try:
            await MailboxIngest(
                source,
                self._events,
                self._memory,
                announcer,
                options=IngestOptions(self._incoming.initial, limits.message),
                status=MailboxStatus(INBOX),
                desk=Desk(INBOX),
                budget=shared.budget,
                proved=works,
                degraded=self._say,
                clock=shared.clock,
                account=self._account,
            ).run(position)
        finally:
            await close(source)

    async def _source(self, position: Position) -> StandIn:
        poll_s, clock = self._incoming.poll.total_seconds(), self._shared.clock
        door, memory, tries, host = self._door, self._memory, self._tries, self._host
        if await self._learner.is_proved():
            return PairedStandIn(
                door, memory, position, tries, self._learner, host=host, mailbox=INBOX, poll_s=poll_s, clock=clock
            )
        return LinkedStandIn(door, memory, position, tries, host=host, mailbox=INBOX, poll_s=poll_s, clock=clock)
