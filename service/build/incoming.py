"""Settings → an account's mailboxes as work: each read by its own connection. Used by accounts.py and the checker."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from service.after import AfterWork
from service.build.shared import Shared, Work, supervised
from service.contract import AccountPart, AccountState, DeadReason
from service.errors import MailbusError, Superseded, Transient
from service.fleet import Part
from service.imap import Session, SessionOptions
from service.ingest import (
    Allowance,
    AnnounceOptions,
    Announcer,
    DeadLetters,
    Desks,
    ImapSource,
    IngestOptions,
    MailboxIngest,
    MailboxLog,
    MailboxStatus,
    Memory,
    Why,
    WriterIdentity,
)
from service.login import TokenSource
from service.observe import metrics
from service.secure import tls_context
from service.settings import AccountSettings, ImapSettings, IncomingSettings, Settings, login_remedy

CLOSE_TIMEOUT_S: Final = 5.0
LOG_LOST: Final = frozenset({Why.ROLLED_BACK, Why.OTHER_STREAM})


def imap_of(incoming: IncomingSettings) -> ImapSettings:
    """The IMAP server of an account that is read by IMAP."""
    if incoming.imap is None:
        raise RuntimeError("an account without IMAP")
    return incoming.imap


def session_options(
    settings: Settings, account: AccountSettings, incoming: IncomingSettings, *, tokens: TokenSource | None
) -> SessionOptions:
    """How to reach an account's mail server; `tokens`: account_tokens(…).incoming. Whoever logs in shares them."""
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
    )


def mailbox_work(
    settings: Settings,
    account: AccountSettings,
    incoming: IncomingSettings,
    mailbox: str,
    options: SessionOptions,
    allowance: Allowance | None,
    after: AfterWork | None,
    shared: Shared,
) -> Work:
    """One mailbox, followed for ever."""
    bus, clock, reports = shared.bus, shared.clock, shared.reports
    status, desk = MailboxStatus(mailbox), shared.desks.setdefault(account.id, Desks()).desk(mailbox)
    part = Part(AccountPart.MAILBOX, mailbox)

    def alarm(error: MailbusError) -> None:
        reports.part(account.id, part, AccountState.DEGRADED, error)

    events = MailboxLog(
        bus.log,
        shared.copies,
        DeadLetters(
            bus.dead,
            shared.publish,
            subject=bus.subjects.dead(DeadReason.MESSAGE),
            where=f"{account.id}, {mailbox}",
        ),
        account=account.id,
        mailbox=mailbox,
        filter_subject=bus.subjects.mailbox_filter(account.id, mailbox),
        writer=WriterIdentity(shared.writer, shared.rival_of(account.id)),
        alarm=alarm,
        clock=clock,
    )
    memory = Memory(
        events,
        bus.log,
        bus.blobs(bus.subjects.state),
        account=account.id,
        mailbox=mailbox,
        filter_subject=bus.subjects.mailbox_filter(account.id, mailbox),
        clock=clock,
    )
    # Once superseded this process does not contest the mailbox while the other writer lives: no taking turns.
    contest = True
    connected = False

    async def life(proved: Callable[[], None]) -> None:
        nonlocal contest, connected

        def works() -> None:
            proved()
            reports.part(account.id, part, AccountState.CONNECTED)

        await bus.wait_connected()
        try:
            position = await events.resume(contest=contest)
            contest = True
            if position.why in LOG_LOST:
                alarm(_log_lost(position.why))
            if after is not None:
                after.begin(mailbox)
            async with shared.connecting:
                session = await Session.open(options, clock=clock)
            if connected:
                metrics.RECONNECTS.labels(protocol="imap", reason="transient").inc()
            connected = True
            source = ImapSource(
                session,
                host=options.host,
                username=options.username,
                mailbox=mailbox,
                idle_s=imap_of(incoming).idle.total_seconds(),
                poll_s=incoming.poll.total_seconds(),
                clock=clock,
                first=incoming.mailboxes[: incoming.mailboxes.index(mailbox)] if incoming.once else (),
                named=incoming.roles,
                allowance=allowance,
            )
            announcer = Announcer(
                bus.blobs(),
                bus.subjects,
                shared.parser,
                account=account.id,
                mailbox=mailbox,
                options=AnnounceOptions(
                    settings.limits.inline, bus.max_payload, incoming.raw, incoming.after, incoming.authserv_id
                ),
                clock=clock,
            )
            try:
                await MailboxIngest(
                    source,
                    events,
                    memory,
                    announcer,
                    options=IngestOptions(incoming.initial, settings.limits.message),
                    status=status,
                    desk=desk,
                    budget=shared.budget,
                    proved=works,
                    degraded=alarm,
                    clock=clock,
                    account=account.id,
                    announced=(lambda: after.announced(mailbox)) if after is not None else (lambda: None),
                ).run(position)
            finally:
                await _close(source)
        except Superseded:
            contest = False
            if after is not None:
                after.end(mailbox)
            raise

    return Work(account.id, part, supervised(life, account.id, part, shared, status), status)


def _log_lost(why: Why) -> Transient:
    if why is Why.ROLLED_BACK:
        what = "the log was rolled back: what it lost is announced again, with the same ce-ids"
    else:
        what = "the log is another than before: the mailbox begins as `initial` says"
    return Transient(what, where="NATS", remedy="find out who restored or made the stream anew")


async def _close(source: ImapSource) -> None:
    try:
        with suppress(MailbusError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await source.close()
    finally:
        source.abort()
