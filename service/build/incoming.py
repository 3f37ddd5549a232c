"""Settings → an account's mailboxes as work, over its connections. Used by accounts.py and the checker."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

from service.after import AfterWork
from service.boxes import Appeared, Boxes, Chosen, Lines, Names, Place, Rounds
from service.build.kept import announcer_of, last_of, mailbox_log
from service.build.kindred import Family, Kindred
from service.build.shared import INBOX, Shared, Work, supervised
from service.contract import AccountPart, AccountState
from service.errors import MailbusError, Superseded, Transient
from service.fleet import MAILBOXES, Part, pause_s
from service.imap import Session, SessionOptions
from service.ingest import (
    ALONE,
    Desks,
    Former,
    ImapSource,
    IngestOptions,
    Kin,
    Kinship,
    Lineage,
    MailboxIngest,
    MailboxStatus,
    Source,
    Why,
)
from service.login import TokenSource
from service.observe import log
from service.secure import tls_context
from service.settings import AccountSettings, ImapSettings, IncomingSettings, Settings, login_remedy
from service.turns import Turns

LOG_LOST: Final = frozenset({Why.ROLLED_BACK, Why.OTHER_STREAM})


def imap_of(incoming: IncomingSettings) -> ImapSettings:
    """The IMAP server of an account that is read by IMAP."""
    if incoming.imap is None:
        raise RuntimeError("an account without IMAP")
    return incoming.imap


def session_options(
    settings: Settings,
    account: AccountSettings,
    incoming: IncomingSettings,
    *,
    tokens: TokenSource | None,
    losses: Turns,
) -> SessionOptions:
    """How to reach an account's mail server; `tokens`: account_tokens(…).incoming. Whoever logs in shares them.

    `losses`: all accounts share it.
    """
    imap = imap_of(incoming)
    return SessionOptions(
        account=account.id,
        host=imap.host,
        port=imap.port,
        security=imap.security,
        tls=tls_context(imap.security, imap.ca),
        username=incoming.username,
        password=incoming.password.reveal(),
        message_limit=settings.limits.message,
        reply_s=imap.reply.total_seconds(),
        tokens=tokens,
        login_remedy=login_remedy(account.preset, incoming.oauth2.grant if incoming.oauth2 else None),
        reach=settings.network.reach,
        losses=losses,
    )


class Mailboxes:
    """An account's mailboxes as one piece of work, over one set of connections."""

    def __init__(
        self,
        settings: Settings,
        account: AccountSettings,
        incoming: IncomingSettings,
        options: SessionOptions,
        after: AfterWork | None,
        shared: Shared,
    ) -> None:
        self._settings = settings
        self._account = account.id
        self._incoming = incoming
        self._imap = imap = imap_of(incoming)
        self._options = options
        self._gangway = shared.connecting.to(options.host)
        self._after = after
        self._shared = shared
        self._allowance = shared.allowances.get(account.id)
        self._statuses: dict[str, MailboxStatus] = {}
        # One of them is for commands and `after`: service/imap/pool.py.
        self._lines = Lines(self._connect, limit=imap.connections - 1, pause_s=self._pause_s, clock=shared.clock)
        self._boxes = Boxes(self._lines, self._mailbox)
        chosen = Chosen(incoming.mailboxes, incoming.exclude, incoming.roles, incoming.after.mailbox)
        self._chosen = chosen
        self._rounds = Rounds(
            self._lines,
            self._boxes,
            chosen,
            poll_s=incoming.poll.total_seconds(),
            degraded=lambda error: shared.reports.part(account.id, MAILBOXES, AccountState.DEGRADED, error),
            names=Names(shared.bus.key_value(shared.bus.subjects.cursors), f"{account.id}.names"),
            clock=shared.clock,
            where=account.id,
        )
        self._lineage = Lineage(shared.bus, shared.copies, account.id)
        desks = shared.desks.setdefault(account.id, Desks())
        self._family = Family(
            self._lineage,
            desks,
            last=partial(self._last_of, incoming.initial),
            initial=incoming.initial,
            there=lambda: self._rounds.there,
            followed=lambda: self._boxes.names,
        )

    def work(self) -> Work:
        """It, to be run."""
        parts = [MAILBOXES] if self._rounds.needed else []
        if not self._chosen.needs_list:
            parts += [Part(AccountPart.MAILBOX, name) for name in self._chosen.names()]
            for name in self._chosen.names():
                self._status(name)
        return Work(self._account, MAILBOXES, self._run, parts=parts, statuses=self._statuses.values)

    def moved(self, name: str) -> int:
        """A figure that moves while a mailbox is read."""
        status = self._statuses.get(name)
        return status.last_uid + status.announced if status is not None else 0

    async def _run(self) -> None:
        await self._boxes.run(self._lead)

    async def _lead(self) -> None:
        """Say which mailboxes are followed."""
        if not self._chosen.needs_list:
            self._boxes.follow(self._chosen.names(), new=lambda _: False)
        if self._rounds.needed:
            await supervised(self._rounds_life, self._account, MAILBOXES, self._shared, None)()

    async def _rounds_life(self, proved: Callable[[], None]) -> None:
        def works() -> None:
            proved()
            self._shared.reports.part(self._account, MAILBOXES, AccountState.CONNECTED)

        await self._rounds.life(works)

    async def _connect(self) -> Session:
        async with self._gangway:
            return await Session.open(self._options, clock=self._shared.clock)

    def _pause_s(self, failures: int, error: MailbusError) -> float:
        return pause_s(error, failures, pace=self._shared.pace, clock=self._shared.clock)

    def _status(self, name: str) -> MailboxStatus:
        return self._statuses.setdefault(name, MailboxStatus(name))

    def _mailbox(self, name: str, place: Place, appeared: Appeared) -> "Mailbox":
        incoming = self._incoming
        source = ImapSource(
            place,
            host=self._options.host,
            username=self._options.username,
            mailbox=name,
            idle_s=self._imap.idle.total_seconds(),
            poll_s=incoming.poll.total_seconds(),
            clock=self._shared.clock,
            first=(lambda: self._boxes.before(name)) if incoming.once else tuple,
            named=incoming.roles,
            allowance=self._allowance,
            listed=lambda: name in self._rounds.there,
            shares=lambda uidvalidity: self._shared.desks[self._account].shares(name, uidvalidity),
        )
        # Mail of a mailbox that appears while mailbus runs is new, all of it.
        initial = "all" if appeared.new else incoming.initial
        return Mailbox(
            self._settings,
            self._account,
            incoming,
            name,
            IngestOptions(initial, self._settings.limits.message),
            source,
            lambda: place.arrived(self._shared.clock.monotonic()),
            self._status(name),
            self._after,
            self._shared,
            gone=lambda: self._ended(name),
            kinship=self._kinship(name, appeared, source),
        )

    def _kinship(self, name: str, appeared: Appeared, source: ImapSource) -> Kinship:
        """What a mailbox may have been called until now; where names are written in full it is what it is called."""
        if not self._chosen.needs_list:
            return ALONE
        came_as = Kin(appeared.former.name, appeared.former.proved) if appeared.former is not None else None
        return Kindred(self._family, name, came_as, source, new=appeared.new)

    async def _last_of(self, initial: datetime | str, kin: Kin) -> Former | None:
        events, memory = mailbox_log(self._shared, self._account, kin.mailbox, lambda _: None)
        return await last_of(kin.mailbox, events, memory, initial, proved=kin.proved)

    def _ended(self, name: str) -> None:
        self._statuses.pop(name, None)
        self._lineage.gone(name)


class Mailbox:
    """One mailbox, followed for as long as it is there. `arrived` is told that mail came, `gone` that it is gone."""

    def __init__(
        self,
        settings: Settings,
        account: str,
        incoming: IncomingSettings,
        name: str,
        options: IngestOptions,
        source: Source,
        arrived: Callable[[], None],
        status: MailboxStatus,
        after: AfterWork | None,
        shared: Shared,
        gone: Callable[[], object],
        kinship: Kinship,
    ) -> None:
        self._account = account
        self._name = name
        self._part = Part(AccountPart.MAILBOX, name)
        self._options = options
        self._source = source
        self._arrived = arrived
        self._status = status
        self._after = after
        self._shared = shared
        self._gone = gone
        self._kinship = kinship
        self._desks = shared.desks[account]
        self._desk = self._desks.desk(name)
        self._events, self._memory = mailbox_log(shared, account, name, self._alarm, kinship)
        self._desk.numbers = self._memory
        self._announcer = announcer_of(
            shared, account, incoming, name, settings.limits.inline, prints=incoming.pop3 is not None and name == INBOX
        )
        self.begun = False
        self._ruled = False
        # Once superseded this process does not contest the mailbox while the other writer lives: no taking turns.
        self._contest = True

    async def run(self) -> None:
        """Follow it for ever."""
        await supervised(self._life, self._account, self._part, self._shared, self._status)()

    def vanished(self) -> None:
        """Whoever waits for it hears, as it ends, that it is followed no more."""
        self._desks.drop(self._name)
        # Who has its mail under another name looks for its position from now on; once more when it has ended.
        self._gone()

    def gone(self) -> None:
        """Its position stays in the log: should it come back, it goes on from there."""
        log.info("mailbox_gone", account=self._account, mailbox=self._name)
        if self._after is not None:
            self._after.end(self._name)
        self._shared.reports.drop(self._account, self._part)
        self._gone()

    def _alarm(self, error: MailbusError) -> None:
        self._shared.reports.part(self._account, self._part, AccountState.DEGRADED, error)

    def _announced(self) -> None:
        self._arrived()
        self._rule()
        if self._after is not None:
            self._after.announced(self._name)

    def _rule(self) -> None:
        """This connection has found the epoch, and its `reset` is in the log where it took one: not sooner may
        anything be done to what was announced before."""
        if self._after is not None and not self._ruled:
            self._ruled = True
            self._after.begin(self._name)

    async def _life(self, proved: Callable[[], None]) -> None:
        shared = self._shared

        def works() -> None:
            proved()
            self.begun = True
            self._rule()
            shared.reports.part(self._account, self._part, AccountState.CONNECTED)

        await shared.bus.wait_connected()
        try:
            async with shared.resuming:
                position = await self._events.resume(contest=self._contest)
            self._contest = True
            if position.why in LOG_LOST:
                self._alarm(_log_lost(position.why))
            try:
                await MailboxIngest(
                    self._source,
                    self._events,
                    self._memory,
                    self._announcer,
                    options=self._options,
                    status=self._status,
                    desk=self._desk,
                    budget=shared.budget,
                    proved=works,
                    degraded=self._alarm,
                    clock=shared.clock,
                    account=self._account,
                    announced=self._announced,
                    kinship=self._kinship,
                ).run(position)
            finally:
                # The next connection may find another epoch.
                self._ruled = False
                if self._after is not None:
                    self._after.end(self._name)
                await self._source.close()
        except Superseded:
            self._contest = False
            raise


def _log_lost(why: Why) -> Transient:
    if why is Why.ROLLED_BACK:
        what = "the log was rolled back: what it lost is announced again, with the same ce-ids"
    else:
        what = "the log is another than before: the mailbox begins as `initial` says"
    return Transient(what, where="NATS", remedy="find out who restored or made the stream anew")
