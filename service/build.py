"""Settings → each room's own small options, and an account's settings → the work that shall run for ever.

Used by app.py, the checker and the command line. Decides nothing at run time: it only puts parts together.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from service.after import AfterWork
from service.build_after import after_life, after_work, writing_pool
from service.bus import Bus, OutMessage
from service.clock import Clock
from service.contract import AccountPart, AccountState, DeadReason, Security, SendLimits
from service.errors import MailbusError, Superseded, Transient
from service.fleet import AFTER, REQUESTS, SENDER, AccountReports, Pace, Part, Presence, supervise
from service.imap import Pool, Session, SessionOptions
from service.ingest import (
    Allowance,
    AnnounceOptions,
    Announcer,
    Budget,
    Copies,
    DeadLetters,
    Desks,
    ImapSource,
    IngestOptions,
    MailboxIngest,
    MailboxLog,
    MailboxStatus,
    Memory,
    Parser,
    Why,
    WriterIdentity,
)
from service.login import TokenSource
from service.oauth import Tokens
from service.observe import metrics
from service.outbound import OutboundOptions, Sender
from service.reach import Reach
from service.secure import client_context
from service.settings import (
    AccountSettings,
    ImapSettings,
    IncomingSettings,
    OutgoingSettings,
    Settings,
    login_remedy,
)
from service.smtp import Relay, SmtpOptions
from service.tokens import account_tokens

# A start of a thousand accounts opens so many connections at once, not a thousand.
CONNECTING_LIMIT: Final = 20
DELIVERIES_LIMIT: Final = 32
PRESENCE_TTL_S: Final = 15.0
CLOSE_TIMEOUT_S: Final = 5.0
LOG_LOST: Final = frozenset({Why.ROLLED_BACK, Why.OTHER_STREAM})


@dataclass(frozen=True, slots=True)
class Shared:
    """What all accounts of a process share."""

    bus: Bus
    copies: Copies
    budget: Budget
    parser: Parser
    presence: Presence
    reports: AccountReports
    publish: Callable[[OutMessage], Awaitable[None]]
    clock: Clock
    connecting: asyncio.Semaphore
    deliveries: asyncio.Semaphore
    pace: Pace
    # How each account's mail server is reached, set by all_work: all its connections share tokens and one gate.
    sessions: dict[str, SessionOptions] = field(default_factory=dict)
    # What may change its mailboxes: commands, and what is done after a mail's event.
    pools: dict[str, Pool] = field(default_factory=dict)
    # Where a full comparison of its mailboxes may be asked for.
    desks: dict[str, Desks] = field(default_factory=dict)


@dataclass(slots=True)
class Work:
    """One piece of an account's work. `run` never returns."""

    account: str
    part: Part
    run: Callable[[], Coroutine[Any, Any, None]]
    status: MailboxStatus | None = None


def tls_context(security: Security, ca: str | None) -> ssl.SSLContext | None:
    """How a connection is secured; None where it is not. Raises Permanent where the authorities' file is none."""
    if security is Security.NONE:
        return None
    return client_context(ca)


def session_options(
    settings: Settings, account: AccountSettings, incoming: IncomingSettings, *, tokens: TokenSource | None
) -> SessionOptions:
    """How to reach an account's mail server; `tokens`: account_tokens(…).incoming. Whoever logs in shares them."""
    imap: ImapSettings = incoming.imap
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


def smtp_options(
    account: AccountSettings, outgoing: OutgoingSettings, *, tokens: TokenSource | None, reach: Reach
) -> SmtpOptions:
    """How to reach an account's relay; `tokens`: account_tokens(…).outgoing."""
    smtp = outgoing.smtp
    return SmtpOptions(
        account=account.id,
        host=smtp.host,
        port=smtp.port,
        security=smtp.security,
        tls=tls_context(smtp.security, smtp.ca),
        username=outgoing.username,
        password=outgoing.password.reveal(),
        login=smtp.login,
        tokens=tokens,
        login_remedy=login_remedy(account.preset, outgoing.oauth2.grant if outgoing.oauth2 else None),
        reach=reach,
    )


def send_limits(outgoing: OutgoingSettings) -> SendLimits:
    """How long an account's requests live and are remembered."""
    return SendLimits(outgoing.expires.total_seconds(), outgoing.window.total_seconds())


def all_work(settings: Settings, shared: Shared) -> list[Work]:
    """Everything that the accounts of this process do; told to `shared.reports` as their parts."""
    found: list[Work] = []
    for account in settings.accounts:
        tokens = account_tokens(account, shared.clock, settings.network.reach)
        work = [_token_work(account, kind, source, shared) for kind, source in tokens.parts().items()]
        if account.incoming is not None:
            options = session_options(settings, account, account.incoming, tokens=tokens.incoming)
            shared.sessions[account.id] = options
            daily = account.incoming.imap.daily
            allowance = Allowance(daily, shared.clock) if daily is not None else None
            shared.pools[account.id] = writing_pool(options, shared.connecting, shared.clock)
            after = after_work(account.id, account.incoming, shared)
            if after is not None:
                life = after_life(account.id, after, shared)
                work.append(Work(account.id, AFTER, _supervised(life, account.id, AFTER, shared, None)))
            work += [
                _mailbox_work(settings, account, account.incoming, name, options, allowance, after, shared)
                for name in account.incoming.mailboxes
            ]
        if account.outgoing is not None:
            work += _sender_work(account, account.outgoing, tokens.outgoing, settings.network.reach, shared)
        shared.reports.add(account.id, [piece.part for piece in work])
        found += work
    return found


def _mailbox_work(
    settings: Settings,
    account: AccountSettings,
    incoming: IncomingSettings,
    mailbox: str,
    options: SessionOptions,
    allowance: Allowance | None,
    after: AfterWork | None,
    shared: Shared,
) -> Work:
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
        writer=WriterIdentity(shared.presence.writer, shared.presence.is_alive),
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
                idle_s=incoming.imap.idle.total_seconds(),
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
                options=AnnounceOptions(settings.limits.inline, bus.max_payload, incoming.raw, incoming.after),
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

    return Work(account.id, part, _supervised(life, account.id, part, shared, status), status)


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


def _token_work(account: AccountSettings, kind: AccountPart, tokens: Tokens, shared: Shared) -> Work:
    part = Part(kind)

    async def life(proved: Callable[[], None]) -> None:
        def works() -> None:
            proved()
            shared.reports.part(account.id, part, AccountState.CONNECTED)

        await tokens.watch(works)

    return Work(account.id, part, _supervised(life, account.id, part, shared, None))


def _sender_work(
    account: AccountSettings,
    outgoing: OutgoingSettings,
    tokens: TokenSource | None,
    reach: Reach,
    shared: Shared,
) -> list[Work]:
    options = OutboundOptions(
        account=account.id,
        address=account.address,
        uncertain=outgoing.uncertain,
        retry_first_s=outgoing.retry.first.total_seconds(),
        retry_factor=outgoing.retry.factor,
        retry_max_s=outgoing.retry.max.total_seconds(),
        limits=send_limits(outgoing),
        redirect=outgoing.redirect,
    )
    relay = Relay(smtp_options(account, outgoing, tokens=tokens, reach=reach), shared.clock)
    sender = Sender(
        shared.bus, relay, options, deliveries=shared.deliveries, connecting=shared.connecting, clock=shared.clock
    )

    def work(part: Part, life: Callable[[Callable[[], None]], Awaitable[None]]) -> Work:
        async def connected(proved: Callable[[], None]) -> None:
            def works() -> None:
                proved()
                shared.reports.part(account.id, part, AccountState.CONNECTED)

            await life(works)

        return Work(account.id, part, _supervised(connected, account.id, part, shared, None))

    async def take_requests(proved: Callable[[], None]) -> None:
        await shared.bus.wait_connected()
        await sender.run(proved)

    return [work(SENDER, sender.watch_relay), work(REQUESTS, take_requests)]


def _supervised(
    life: Callable[[Callable[[], None]], Awaitable[None]],
    account: str,
    part: Part,
    shared: Shared,
    status: MailboxStatus | None,
) -> Callable[[], Coroutine[Any, Any, None]]:
    def report(state: AccountState, error: MailbusError) -> None:
        if status is not None:
            status.state = state
        shared.reports.part(account, part, state, error)

    async def run() -> None:
        await supervise(life, report=report, pace=shared.pace, clock=shared.clock, where=f"{account}, {part}")

    return run
