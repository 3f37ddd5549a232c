"""Settings → an account's sender as work: its relay watched, its requests taken. For accounts.py and the checker."""

from collections.abc import Awaitable, Callable

from service.build.shared import Shared, Work, supervised
from service.contract import AccountState, SendLimits
from service.fleet import REQUESTS, SENDER, SENT, Part
from service.login import TokenSource
from service.outbound import Limit, OutboundOptions, Sender, SentMailbox, SentOptions
from service.reach import Reach
from service.secure import tls_context
from service.settings import AccountSettings, OutgoingSettings, keeps_sent, login_remedy
from service.smtp import Relay, SmtpOptions


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
        lmtp=smtp.protocol == "lmtp",
        tokens=tokens,
        connections=smtp.connections,
        login_remedy=login_remedy(account.preset, outgoing.oauth2.grant if outgoing.oauth2 else None),
        reach=reach,
    )


def next_relays(account: AccountSettings, outgoing: OutgoingSettings, *, reach: Reach) -> list[SmtpOptions]:
    """How to reach the relays behind the first."""
    return [
        SmtpOptions(
            account=account.id,
            host=one.host,
            port=one.port,
            security=one.security,
            tls=tls_context(one.security, one.ca),
            username=one.username,
            password=one.password.reveal(),
            login=one.login,
            lmtp=one.protocol == "lmtp",
            connections=outgoing.smtp.connections,
            reach=reach,
        )
        for one in outgoing.relays
    ]


def send_limits(outgoing: OutgoingSettings) -> SendLimits:
    """How long an account's requests live and are remembered."""
    return SendLimits(outgoing.expires.total_seconds(), outgoing.window.total_seconds())


def sent_mailbox(account: AccountSettings, outgoing: OutgoingSettings, shared: Shared) -> SentMailbox | None:
    """Where copies of what an account sends are; None without mailboxes. account_work has made its pool."""
    if account.incoming is None or account.incoming.imap is None:
        return None
    kept = keeps_sent(outgoing.smtp.host)
    options = SentOptions(
        account.id,
        copies=outgoing.sent == "always" or (outgoing.sent == "auto" and not kept),
        insists=outgoing.sent == "always",
        life_s=outgoing.expires.total_seconds(),
        named=account.incoming.roles,
    )
    return SentMailbox(
        shared.bus,
        shared.pools[account.id],
        options,
        shared.clock,
        memory=shared.deliveries.memory,
        degraded=lambda error: shared.reports.part(account.id, SENT, AccountState.DEGRADED, error),
    )


def sender_work(
    account: AccountSettings,
    outgoing: OutgoingSettings,
    tokens: TokenSource | None,
    reach: Reach,
    shared: Shared,
) -> list[Work]:
    """The relay, the queue, and copies for the Sent mailbox."""
    options = OutboundOptions(
        account=account.id,
        address=account.address,
        uncertain=outgoing.uncertain,
        retry_first_s=outgoing.retry.first.total_seconds(),
        retry_factor=outgoing.retry.factor,
        retry_max_s=outgoing.retry.max.total_seconds(),
        limits=send_limits(outgoing),
        redirect=outgoing.redirect,
        verp=outgoing.verp,
        interval_s=outgoing.rate.total_seconds() if outgoing.rate is not None else 0.0,
        domains={
            domain: Limit(one.rate.total_seconds() if one.rate else 0.0, one.connections or 0)
            for domain, one in outgoing.domains.items()
        },
        dkim=tuple(one.signer() for one in outgoing.dkim),
    )
    sent = sent_mailbox(account, outgoing, shared)
    relay = Relay(smtp_options(account, outgoing, tokens=tokens, reach=reach), shared.clock)
    sender = Sender(
        shared.bus,
        relay,
        options,
        deliveries=shared.deliveries,
        connecting=shared.connecting.to(outgoing.smtp.host),
        clock=shared.clock,
        others=[Relay(one, shared.clock) for one in next_relays(account, outgoing, reach=reach)],
        sent=sent,
    )
    shared.waiting[account.id] = sender.waiting

    def work(part: Part, life: Callable[[Callable[[], None]], Awaitable[None]]) -> Work:
        async def connected(proved: Callable[[], None]) -> None:
            def works() -> None:
                proved()
                shared.reports.part(account.id, part, AccountState.CONNECTED)

            await life(works)

        return Work(account.id, part, supervised(connected, account.id, part, shared, None), [part])

    def over_the_bus(
        run: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> Callable[[Callable[[], None]], Awaitable[None]]:
        async def life(proved: Callable[[], None]) -> None:
            await shared.bus.wait_connected()
            await run(proved)

        return life

    works = [work(SENDER, sender.watch_relay), work(REQUESTS, over_the_bus(sender.run))]
    if sent is not None and sent.wants_copies:
        works.append(work(SENT, over_the_bus(sent.run)))
    return works
