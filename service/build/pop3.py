"""Settings → an account's maildrop as work, and what is done after its mail's events. Used by accounts.py."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from service.after import AfterOptions, AfterWork, Pop3Hands
from service.build.kept import announcer_of, mailbox_log
from service.build.shared import INBOX, Shared, Work, supervised
from service.contract import AccountPart, AccountState, AfterKind
from service.errors import MailbusError, Superseded, Transient
from service.fleet import AFTER, Part
from service.ingest import (
    Desk,
    IngestOptions,
    Lasting,
    MailboxIngest,
    MailboxStatus,
    Pop3Source,
    StandIn,
    Why,
    header_print,
)
from service.login import TokenSource
from service.observe import metrics
from service.pop3 import CONNECT_TIMEOUT_S, Door, Pop3Options
from service.secure import tls_context
from service.settings import AccountSettings, IncomingSettings, Pop3Settings, Settings, login_remedy

CLOSE_TIMEOUT_S: Final = 5.0
# A maildrop that is locked is tried again so soon at first.
LOCKED_S: Final = 15.0
DAY_S: Final = 86400.0


def pop3_options(
    settings: Settings,
    account: AccountSettings,
    incoming: IncomingSettings,
    pop3: Pop3Settings,
    *,
    tokens: TokenSource | None,
) -> Pop3Options:
    """How to reach an account's maildrop; `tokens`: account_tokens(…).incoming."""
    return Pop3Options(
        account=account.id,
        host=pop3.host,
        port=pop3.port,
        security=pop3.security,
        tls=tls_context(pop3.security, pop3.ca),
        username=incoming.username,
        password=incoming.password.reveal(),
        message_limit=settings.limits.message,
        apop=pop3.apop,
        reply_s=pop3.reply.total_seconds(),
        # A server may read the whole maildrop before it says yes to the password.
        connect_s=CONNECT_TIMEOUT_S + pop3.reply.total_seconds(),
        tokens=tokens,
        login_remedy=login_remedy(account.preset, incoming.oauth2.grant if incoming.oauth2 else None),
        reach=settings.network.reach,
    )


def pop3_work(
    settings: Settings,
    account: AccountSettings,
    incoming: IncomingSettings,
    pop3: Pop3Settings,
    tokens: TokenSource | None,
    shared: Shared,
) -> list[Work]:
    """One maildrop, followed for ever; its `after`, too."""
    options = pop3_options(settings, account, incoming, pop3, tokens=tokens)
    drop = _Maildrop(settings, incoming, options, shared)
    return [*drop.after_work(), drop.work()]


class _Maildrop:
    """An account's maildrop: whoever follows it and whoever deletes from it share its door and what is known."""

    def __init__(self, settings: Settings, incoming: IncomingSettings, options: Pop3Options, shared: Shared) -> None:
        self._settings = settings
        self._incoming = incoming
        self._shared = shared
        self._account = options.account
        self._part = Part(AccountPart.MAILBOX, INBOX)
        self._status = MailboxStatus(INBOX)
        self._door = Door(options, shared.connecting.to(options.host), shared.clock, locked_s=LOCKED_S)
        self._lasting = Lasting()
        self._events, self._memory = mailbox_log(shared, self._account, INBOX, self._alarm)
        self._after = self._new_after()
        # Once superseded this process does not contest the maildrop while the other writer lives: no taking turns.
        self._contest = True
        self._connected = False

    def work(self) -> Work:
        """It, followed."""
        life = supervised(self._life, self._account, self._part, self._shared, self._status)
        return Work(self._account, self._part, life, [self._part], lambda: [self._status])

    def after_work(self) -> list[Work]:
        """What is done after its mail's events, where anything is."""
        after, shared = self._after, self._shared
        if after is None:
            return []

        async def life(proved: Callable[[], None]) -> None:
            def works() -> None:
                proved()
                shared.reports.part(self._account, AFTER, AccountState.CONNECTED)

            await shared.bus.wait_connected()
            await after.run(works)

        return [Work(self._account, AFTER, supervised(life, self._account, AFTER, shared, None), [AFTER])]

    def _new_after(self) -> AfterWork | None:
        incoming, shared = self._incoming, self._shared
        if incoming.after.kind is AfterKind.NOTHING:
            return None

        def say(state: AccountState) -> Callable[[MailbusError], None]:
            return lambda error: shared.reports.part(self._account, AFTER, state, error)

        delay_s = incoming.after.keep_days * DAY_S or incoming.after_delay.total_seconds()
        # A round is a session of its own: mail that comes one by one is deleted together.
        round_every_s = incoming.poll.total_seconds()
        return AfterWork(
            Pop3Hands(self._door, shared.bus.log, self._memory.identities, self._lasting.deleted, header_print),
            shared.bus.log,
            shared.bus.key_value(shared.bus.subjects.after),
            shared.bus.subjects,
            AfterOptions(self._account, shared.writer, incoming.after, delay_s, round_every_s=round_every_s),
            is_alive=shared.rival_of(self._account),
            degraded=say(AccountState.DEGRADED),
            failing=say(AccountState.DISCONNECTED),
            clock=shared.clock,
        )

    def _alarm(self, error: MailbusError) -> None:
        self._shared.reports.part(self._account, self._part, AccountState.DEGRADED, error)

    async def _life(self, proved: Callable[[], None]) -> None:
        shared, after = self._shared, self._after
        followed = False

        def works() -> None:
            nonlocal followed
            proved()
            shared.reports.part(self._account, self._part, AccountState.CONNECTED)
            # What is to be deleted is known by what is recalled before this.
            if after is not None and not followed:
                followed = True
                after.begin(INBOX)

        await shared.bus.wait_connected()
        try:
            async with shared.resuming:
                position = await self._events.resume(contest=self._contest)
            self._contest = True
            if position.why is Why.ROLLED_BACK:
                self._alarm(_log_lost("the log was rolled back: what it lost is announced again, under new ids"))
            elif position.why is Why.OTHER_STREAM:
                self._alarm(_log_lost("the log is another than before: the maildrop begins as `initial` says"))
            if self._connected:
                metrics.RECONNECTS.labels(protocol="pop3", reason="transient").inc()
            self._connected = True
            source = Pop3Source(
                self._door,
                self._memory,
                position,
                mailbox=INBOX,
                poll_s=self._incoming.poll.total_seconds(),
                lasting=self._lasting,
                said=self._status.refused,
                degraded=self._alarm,
                clock=shared.clock,
            )
            try:
                await self._ingest(source, works).run(position)
            finally:
                await close(source)
        except Superseded:
            self._contest = False
            if after is not None:
                after.end(INBOX)
            raise

    def _ingest(self, source: Pop3Source, works: Callable[[], None]) -> MailboxIngest:
        shared, after, limits = self._shared, self._after, self._settings.limits
        announcer = announcer_of(shared, self._account, self._incoming, INBOX, limits.inline, prints=True)
        return MailboxIngest(
            source,
            self._events,
            self._memory,
            announcer,
            options=IngestOptions(self._incoming.initial, limits.message),
            status=self._status,
            desk=Desk(INBOX),
            budget=shared.budget,
            proved=works,
            degraded=self._alarm,
            clock=shared.clock,
            account=self._account,
            announced=(lambda: after.announced(INBOX)) if after is not None else (lambda: None),
        )


def _log_lost(what: str) -> Transient:
    return Transient(what, where="NATS", remedy="find out who restored or made the stream anew")


async def close(source: Pop3Source | StandIn) -> None:
    """Leave the maildrop, within seconds."""
    try:
        with suppress(MailbusError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await source.close()
    finally:
        source.abort()
