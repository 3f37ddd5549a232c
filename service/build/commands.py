"""Settings → what the commands on the bus are given: accounts, and how their mailboxes are reached. Used by app.py."""

from collections.abc import Awaitable, Callable

from service.build.outgoing import send_limits
from service.build.shared import Shared
from service.commands import UNLIMITED, Account, Answered, Context, Directory, Keeper, MailAccess, SendAccess
from service.outbound import Originals
from service.settings import AccountSettings, IncomingSettings, OutgoingSettings, Settings


def command_context(settings: Settings, shared: Shared, *, lives: Callable[[str], Awaitable[bool]]) -> Context:
    """What commands share. `lives`: whether the process that writes as `instance/boot` is there."""
    return Context(
        bus=shared.bus,
        clock=shared.clock,
        make=shared.parser.make,
        hold=shared.budget.hold,
        message_limit=settings.limits.message,
        answered=Answered(Keeper(shared.bus.key_value(shared.bus.subjects.sends), shared.writer, lives, shared.clock)),
    )


def command_account(settings: Settings, account: AccountSettings, shared: Shared) -> Account:
    """An account that commands may be about; account_work has been called."""
    return Account(
        id=account.id,
        address=account.address,
        sends=_send_access(account, account.outgoing, shared) if account.outgoing is not None else None,
        reads=_reads(settings, account, account.incoming, shared),
        by_pop3=account.incoming is not None and account.incoming.imap is None,
    )


def _send_access(account: AccountSettings, outgoing: OutgoingSettings, shared: Shared) -> SendAccess:
    originals = Originals(shared.bus, account.id, account.address)
    return SendAccess(send_limits(outgoing), shared.waiting[account.id], originals)


def _reads(
    settings: Settings, account: AccountSettings, incoming: IncomingSettings | None, shared: Shared
) -> MailAccess | None:
    if incoming is None or incoming.imap is None:
        return None
    return _mail_access(settings, account, incoming, shared)


def _mail_access(
    settings: Settings, account: AccountSettings, incoming: IncomingSettings, shared: Shared
) -> MailAccess:
    desks = shared.desks[account.id]
    return MailAccess(
        pool=shared.pools[account.id],
        directory=Directory(shared.clock, incoming.roles, uid_of=desks.uid_of, turn_of=desks.turn_of),
        followed=desks,
        inline_limit=settings.limits.inline,
        raw=incoming.raw,
        authserv_id=incoming.authserv_id,
        extras=incoming.extras,
        allowance=shared.allowances.get(account.id, UNLIMITED),
    )
