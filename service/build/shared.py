"""What all accounts of a process share, and what a piece of work is. Used by every file of this room."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from service.budget import Budget
from service.build.gangway import Gangways
from service.bus import Bus, OutMessage
from service.clock import Clock
from service.contract import AccountState
from service.errors import MailbusError
from service.fleet import AccountReports, Pace, Part, supervise
from service.imap import Pool, SessionOptions
from service.ingest import Allowance, Copies, Desks, MailboxStatus, Parser
from service.outbound import Deliveries, Returned, Waiting
from service.turns import Turns

DELIVERIES_LIMIT: Final = 32
# Mailboxes that read the log's end at once, to go on from there: thousands may begin again in the same second.
RESUMING_LIMIT: Final = 20
# The one mailbox that POP3 has.
INBOX: Final = "INBOX"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all accounts of a process share."""

    bus: Bus
    copies: Copies
    budget: Budget
    parser: Parser
    # The name under which this process writes, and whether another one that writes an account may: `account, writer`.
    writer: str
    is_rival: Callable[[str, str], Awaitable[bool]]
    reports: AccountReports
    publish: Callable[[OutMessage], Awaitable[None]]
    clock: Clock
    connecting: Gangways
    deliveries: Deliveries
    returned: Returned
    pace: Pace
    losses: Turns = field(default_factory=Turns)
    resuming: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(RESUMING_LIMIT))
    # How each account's mail server is reached, set by account_work: all its connections share tokens and one gate.
    sessions: dict[str, SessionOptions] = field(default_factory=dict)
    # What may change its mailboxes: commands, and what is done after a mail's event.
    pools: dict[str, Pool] = field(default_factory=dict)
    # What it may read a day, where that has a limit: its mailboxes and commands share it.
    allowances: dict[str, Allowance] = field(default_factory=dict)
    # Where a full comparison of its mailboxes may be asked for.
    desks: dict[str, Desks] = field(default_factory=dict)
    # What may be decided of requests that were not sent yet.
    waiting: dict[str, Waiting] = field(default_factory=dict)

    def rival_of(self, account: str) -> Callable[[str], Awaitable[bool]]:
        """Whether the process that writes as `instance/boot` lives, and the fleet gives it this account."""
        return partial(self.is_rival, account)

    def forget(self, account: str) -> None:
        """Drop what an account that has ended left here."""
        self.sessions.pop(account, None)
        self.desks.pop(account, None)
        self.allowances.pop(account, None)
        if (waiting := self.waiting.pop(account, None)) is not None:
            waiting.forget()
        if (pool := self.pools.pop(account, None)) is not None:
            pool.abort()


@dataclass(slots=True)
class Work:
    """One piece of an account's work. `run` never returns; `part` names it, `parts` are what it reports from the start
    on; `statuses`: of its mailboxes, now."""

    account: str
    part: Part
    run: Callable[[], Coroutine[Any, Any, None]]
    parts: list[Part]
    statuses: Callable[[], Collection[MailboxStatus]] = tuple


def supervised(
    life: Callable[[Callable[[], None]], Awaitable[None]],
    account: str,
    part: Part,
    shared: Shared,
    status: MailboxStatus | None,
) -> Callable[[], Coroutine[Any, Any, None]]:
    """A life that is begun again whenever it ends, and reported as a part of its account."""

    def report(state: AccountState, error: MailbusError) -> None:
        if status is not None:
            status.state = state
        shared.reports.part(account, part, state, error)
        _let_go(error)

    async def run() -> None:
        await supervise(life, report=report, pace=shared.pace, clock=shared.clock, where=f"{account}, {part}")

    return run


def _let_go(error: BaseException) -> None:
    """Drop an error's frames, which hold all that the life had: supervision keeps it until the next one comes."""
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
