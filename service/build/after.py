"""Settings → what is done after a mail's event, on the connections of commands. Used by accounts.py."""

from collections.abc import Awaitable, Callable

from service.after import AfterOptions, AfterWork, ImapHands
from service.build.gangway import Gangway
from service.build.shared import Shared
from service.clock import Clock
from service.contract import AccountState, AfterKind
from service.errors import MailbusError
from service.fleet import AFTER
from service.imap import Pool, SessionOptions, WritingSession
from service.settings import IncomingSettings


def writing_pool(options: SessionOptions, connecting: Gangway, clock: Clock) -> Pool:
    """An account's connections that may change its mailboxes."""

    async def connect() -> WritingSession:
        async with connecting:
            return await WritingSession.open(options, clock=clock)

    return Pool(connect, clock, where=options.account)


def after_work(account: str, incoming: IncomingSettings, shared: Shared) -> AfterWork | None:
    """What is done after the events of an account's mail; None where that is nothing."""
    if incoming.after.kind is AfterKind.NOTHING:
        return None

    def say(state: AccountState) -> Callable[[MailbusError], None]:
        return lambda error: shared.reports.part(account, AFTER, state, error)

    hands = ImapHands(
        shared.pools[account],
        incoming.after,
        account=account,
        degraded=say(AccountState.DEGRADED),
        uid_of=lambda mailbox, uidvalidity, number: shared.desks[account].uid_of(mailbox, uidvalidity, number),
    )
    delay_s = incoming.after_delay.total_seconds() if incoming.after.waits else 0.0
    return AfterWork(
        hands,
        shared.bus.log,
        shared.bus.key_value(shared.bus.subjects.after),
        shared.bus.subjects,
        AfterOptions(account, shared.writer, incoming.after, delay_s),
        is_alive=shared.rival_of(account),
        degraded=say(AccountState.DEGRADED),
        failing=say(AccountState.DISCONNECTED),
        clock=shared.clock,
    )


def after_life(account: str, after: AfterWork, shared: Shared) -> Callable[[Callable[[], None]], Awaitable[None]]:
    """It, to be supervised."""

    async def life(proved: Callable[[], None]) -> None:
        def works() -> None:
            proved()
            shared.reports.part(account, AFTER, AccountState.CONNECTED)

        await shared.bus.wait_connected()
        await after.run(works)

    return life
