"""Settings → everything that an account does, as pieces of work that shall run for ever. Used by app.py."""

from collections.abc import Callable

from service.build.after import after_life, after_work, writing_pool
from service.build.incoming import Mailboxes, imap_of, session_options
from service.build.outgoing import sender_work
from service.build.pop3 import pop3_work
from service.build.shared import INBOX, Shared, Work, supervised
from service.build.stand_in import StandInWork
from service.contract import AccountPart, AccountState
from service.fleet import AFTER, Part
from service.ingest import Allowance
from service.oauth import Tokens
from service.settings import AccountSettings, IncomingSettings, Settings
from service.tokens import account_tokens


def account_work(settings: Settings, account: AccountSettings, shared: Shared) -> list[Work]:
    """What one account does; told to `shared.reports` as its parts."""
    tokens = account_tokens(account, shared.clock, settings.network.reach)
    work = [_token_work(account, kind, source, shared) for kind, source in tokens.parts().items()]
    if account.incoming is not None:
        work += _incoming_work(settings, account, account.incoming, tokens.incoming, shared)
    if account.outgoing is not None:
        work += sender_work(account, account.outgoing, tokens.outgoing, settings.network.reach, shared)
    shared.reports.add(account.id, [part for piece in work for part in piece.parts])
    return work


def _incoming_work(
    settings: Settings,
    account: AccountSettings,
    incoming: IncomingSettings,
    tokens: Tokens | None,
    shared: Shared,
) -> list[Work]:
    if incoming.pop3 is not None and incoming.imap is None:
        return pop3_work(settings, account, incoming, incoming.pop3, tokens, shared)
    options = session_options(settings, account, incoming, tokens=tokens, losses=shared.losses)
    shared.sessions[account.id] = options
    shared.pools[account.id] = writing_pool(options, shared.connecting.to(options.host), shared.clock)
    daily = imap_of(incoming).daily
    if daily is not None:
        shared.allowances[account.id] = Allowance(daily, shared.clock)
    after = after_work(account.id, incoming, shared)
    mailboxes = Mailboxes(settings, account, incoming, options, after, shared)
    work = []
    if incoming.pop3 is not None:
        stand_in = StandInWork(
            settings, account, incoming, incoming.pop3, tokens, shared, moved=lambda: mailboxes.moved(INBOX)
        )
        work.append(stand_in.work())
    if after is not None:
        life = after_life(account.id, after, shared)
        work.append(Work(account.id, AFTER, supervised(life, account.id, AFTER, shared, None), [AFTER]))
    return [*work, mailboxes.work()]


def _token_work(account: AccountSettings, kind: AccountPart, tokens: Tokens, shared: Shared) -> Work:
    part = Part(kind)

    async def life(proved: Callable[[], None]) -> None:
        def works() -> None:
            proved()
            shared.reports.part(account.id, part, AccountState.CONNECTED)

        await tokens.watch(works)

    return Work(account.id, part, supervised(life, account.id, part, shared, None), [part])
