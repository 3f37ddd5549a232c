"""What the status page shows, as plain data: no secrets, no mail content, nothing counted here.

Totals only grow; the page makes rates of successive ones. Made by the composition root.
"""

from datetime import datetime
from typing import Final

import msgspec

# More than a person reads and a browser draws every second; the worst come first, the rest is counted.
ACCOUNTS_LIMIT: Final = 500
# Of an account's mailboxes those in trouble and the liveliest have a row each; the others are one.
MAILBOXES_LIMIT: Final = 50
QUIET: Final = frozenset({"watching", "resting"})
# A page of the list of all of them: a reply of a few hundred KB, however many mailboxes an account has.
PAGE_LIMIT_ACCOUNTS: Final = 500
PAGE_LIMIT_MAILBOXES: Final = 2_000
# An error's text may hold what a server said: enough to act on, never a page of it.
ERROR_LIMIT: Final = 500
# Worst first; a state that is not here counts as worse than a working one.
WORST_FIRST: Final = ("auth_failed", "degraded", "disconnected", "starting", "paused")
FINE: Final = frozenset({"connected", "elsewhere"})


class MailboxSnapshot(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One mailbox. `behind`: messages (by UID) that are there and not announced yet. `sync`: how its server tells what
    became of known messages.
    """

    name: str
    state: str
    last_uid: int = 0
    behind: int = 0
    announced: int = 0
    last_event_at: datetime | None = None
    sync: str = "none"


class AccountSnapshot(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One account. `state` as its events on the bus say it, or `elsewhere`; `sender` is absent where it sends nothing.

    `owner`: the instance of the process that has it.
    """

    id: str
    state: str
    since: datetime | None = None
    last_error: str = ""
    mailboxes: tuple[MailboxSnapshot, ...] = ()
    sender: str | None = None
    owner: str | None = None


class AccountsPage(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Some of the accounts, by id. `after`: what to ask for the next ones with; None where there are no more."""

    accounts: tuple[AccountSnapshot, ...]
    after: str | None = None


class Waiting(msgspec.Struct, frozen=True, rename="camel"):
    """What waits in this process."""

    where: str
    count: int


class Totals(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Since the process started. `recipients` by outcome."""

    events: int = 0
    recipients: dict[str, int] = {}
    bugs: int = 0


class Snapshot(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A process at one moment. `replicas`: all who share the accounts, and how many each has."""

    instance: str
    version: str
    uptime_s: float
    nats_connected: bool
    ready: bool
    accounts: tuple[AccountSnapshot, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    totals: Totals = Totals()
    replicas: dict[str, int] = {}


class Shown(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What goes to the page: the snapshot with its accounts sorted and bounded, and figures over all of them."""

    snapshot: Snapshot
    states: dict[str, int]
    behind: int
    hidden: int


def severity(account: AccountSnapshot) -> int:
    """0 is worst."""
    if account.state in FINE:
        return len(WORST_FIRST) + 1
    return WORST_FIRST.index(account.state) if account.state in WORST_FIRST else len(WORST_FIRST)


def clip(account: AccountSnapshot) -> AccountSnapshot:
    """An account whose error is no page of text."""
    if len(account.last_error) <= ERROR_LIMIT:
        return account
    return msgspec.structs.replace(account, last_error=account.last_error[: ERROR_LIMIT - 1] + "…")


def folded(account: AccountSnapshot) -> AccountSnapshot:
    """An account with no more rows than a person reads: the last one stands for all that have none."""
    if len(account.mailboxes) <= MAILBOXES_LIMIT:
        return account
    ordered = sorted(account.mailboxes, key=_liveliness)
    rows, rest = ordered[: MAILBOXES_LIMIT - 1], ordered[MAILBOXES_LIMIT - 1 :]
    others = MailboxSnapshot(
        name=f"{len(rest)} others",
        state="watching" if all(one.state in QUIET for one in rest) else "syncing",
        behind=sum(one.behind for one in rest),
        announced=sum(one.announced for one in rest),
        last_event_at=max((one.last_event_at for one in rest if one.last_event_at is not None), default=None),
    )
    return msgspec.structs.replace(account, mailboxes=(*rows, others))


def _liveliness(mailbox: MailboxSnapshot) -> tuple[bool, int, float]:
    last = mailbox.last_event_at
    return mailbox.state in QUIET, -mailbox.behind, -last.timestamp() if last is not None else 0.0


def shown(snapshot: Snapshot) -> Shown:
    """A snapshot as the page gets it: trouble first, then by name."""
    states: dict[str, int] = {}
    for account in snapshot.accounts:
        states[account.state] = states.get(account.state, 0) + 1
    first = sorted(snapshot.accounts, key=lambda account: (severity(account), account.id))[:ACCOUNTS_LIMIT]
    clipped = tuple(folded(clip(account)) for account in first)
    return Shown(
        snapshot=msgspec.structs.replace(snapshot, accounts=clipped),
        states=states,
        behind=sum(mailbox.behind for account in snapshot.accounts for mailbox in account.mailboxes),
        hidden=len(snapshot.accounts) - len(clipped),
    )
