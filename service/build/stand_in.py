"""Settings → POP3 for an account's INBOX while IMAP cannot be reached. Used by accounts.py.

Watches how INBOX fares by IMAP, which goes on trying by itself, and reads it by POP3 meanwhile: over a log of its own,
fenced against IMAP's as another process's would be.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from service.build.incoming import imap_of
from service.build.kept import mailbox_log
from service.build.pop3 import CLOSE_TIMEOUT_S, INBOX, LOCKED_S, pop3_options
from service.build.shared import Shared, Work, supervised
from service.contract import AccountPart, AccountState
from service.errors import MailbusError, Transient
from service.fleet import Part
from service.ingest import (
    AnnounceOptions,
    Announcer,
    Desk,
    IngestOptions,
    MailboxIngest,
    MailboxStatus,
    StandIn,
)
from service.login import TokenSource
from service.observe import log, metrics
from service.pop3 import Door
from service.settings import AccountSettings, IncomingSettings, Pop3Settings, Settings
from service.tasks import TaskGroup

CHECK_S: Final = 1.0
POP3: Final = Part(AccountPart.POP3)
BY_IMAP: Final = Part(AccountPart.MAILBOX, INBOX)


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
    ) -> None:
        self._settings = settings
        self._incoming = incoming
        self._shared = shared
        self._account = account.id
        self._host = imap_of(incoming).host
        self._stand_in_s = pop3.stand_in.total_seconds()
        options = pop3_options(settings, account, incoming, pop3, tokens=tokens)
        self._door = Door(options, shared.connecting.to(options.host), shared.clock, locked_s=LOCKED_S)
        self._events, self._memory = mailbox_log(shared, account.id, INBOX, self._say)

    def work(self) -> Work:
        """It, to be run."""
        return Work(self._account, POP3, self._run, [POP3])

    async def _run(self) -> None:
        clock, since = self._shared.clock, None
        self._shared.reports.part(self._account, POP3, AccountState.CONNECTED)
        while True:
            now = clock.monotonic()
            since = (since if since is not None else now) if self._is_away() else None
            if since is not None and now - since >= self._stand_in_s:
                await self._stand_in()
                since = None
            await clock.sleep(CHECK_S)

    def _is_away(self) -> bool:
        """Whether IMAP cannot be reached. A password that is wrong, or another process, is no reason to stand in."""
        view = self._shared.reports.accounts.get(self._account)
        return view is not None and view.parts.get(BY_IMAP) is AccountState.DISCONNECTED

    async def _stand_in(self) -> None:
        """Until IMAP is back."""
        log.warning("pop3_stands_in", account=self._account)
        metrics.STAND_INS.inc()
        try:
            async with TaskGroup() as group:
                work = supervised(self._life, self._account, POP3, self._shared, None)
                task = group.create_task(work(), name="stand-in")
                try:
                    while self._is_away():
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
        position = await self._events.resume(contest=False)
        source = StandIn(
            self._door,
            self._memory,
            position,
            host=self._host,
            mailbox=INBOX,
            poll_s=self._incoming.poll.total_seconds(),
            clock=shared.clock,
        )
        announcer = Announcer(
            shared.bus.blobs(),
            shared.bus.subjects,
            shared.parser,
            account=self._account,
            mailbox=INBOX,
            options=AnnounceOptions(
                limits.inline,
                shared.bus.max_payload,
                self._incoming.raw,
                self._incoming.after,
                self._incoming.authserv_id,
            ),
            clock=shared.clock,
            returned=shared.returned.heard,
        )
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
            try:
                with suppress(MailbusError, TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        await source.close()
            finally:
                source.abort()
