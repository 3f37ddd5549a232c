"""An account's parts and their states → one state, said on the bus once a change.

Parts are its mailboxes, its relay and its queue of requests. Publishing never holds up the work: one task does it for
the process.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from msgspec import UNSET

from service.bus import OutMessage
from service.clock import Clock
from service.contract import (
    AccountEvent,
    AccountPart,
    AccountState,
    EventType,
    Subjects,
    cloud_event_headers,
    encode,
    event_id,
)
from service.errors import MailbusError, Permanent, Transient
from service.observe import log, metrics

# Oldest first out when NATS is away for long: the newest state of an account is what counts.
WAITING_LIMIT: Final = 10_000
RETRY_S: Final = 2.0
# Worst first: what an account is said to be is its worst part.
ORDER: Final = (
    AccountState.AUTH_FAILED,
    AccountState.DEGRADED,
    AccountState.DISCONNECTED,
    AccountState.CONNECTED,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an account's work. A mailbox may have any name, that of another kind of part too."""

    kind: AccountPart
    mailbox: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.mailbox}" if self.kind is AccountPart.MAILBOX else self.kind


SENDER: Final = Part(AccountPart.SENDER)
AFTER: Final = Part(AccountPart.AFTER)
MAILBOXES: Final = Part(AccountPart.MAILBOXES)
REQUESTS: Final = Part(AccountPart.REQUESTS)
SENT: Final = Part(AccountPart.SENT)


@dataclass(slots=True)
class AccountView:
    """What is known of an account; shown by the status page. `stuck`: parts that fail until somebody acts; `untried`:
    those that have said nothing yet; `excused`: those that fail for no reason of a mail server's; `errors`: why."""

    id: str
    state: AccountState | None = None
    since: datetime | None = None
    last_error: str = ""
    parts: dict[Part, AccountState] = field(default_factory=dict)
    counts: Counter[AccountState] = field(default_factory=Counter)
    stuck: set[Part] = field(default_factory=set)
    untried: set[Part] = field(default_factory=set)
    excused: set[Part] = field(default_factory=set)
    errors: dict[Part, MailbusError] = field(default_factory=dict)

    def set(self, part: Part, state: AccountState | None) -> None:
        """A part's state; None: there is no such part any more."""
        if (before := self.parts.pop(part, None)) is not None:
            self.counts[before] -= 1
        self.stuck.discard(part)
        self.untried.discard(part)
        self.excused.discard(part)
        self.errors.pop(part, None)
        if state is not None:
            self.parts[part] = state
            self.counts[state] += 1

    @property
    def worst(self) -> AccountState | None:
        """That of its worst part; None where nothing fails and some have said nothing yet."""
        for state in ORDER[:-1]:
            untried = len(self.untried) if state is AccountState.DISCONNECTED else 0
            if self.counts[state] > untried:
                return state
        return None if self.untried else AccountState.CONNECTED

    def part_in(self, state: AccountState, otherwise: Part) -> Part:
        """Which is why the account is in this state: `otherwise` where that is as good as any."""
        if self.parts.get(otherwise) is state:
            return otherwise
        found = (part for part, one in self.parts.items() if one is state and part not in self.untried)
        return next(found, otherwise)


class AccountReports:
    """All accounts of this process."""

    def __init__(
        self, subjects: Subjects, publish: Callable[[OutMessage], Awaitable[None]], *, writer: str, clock: Clock
    ) -> None:
        self._subjects = subjects
        self._publish = publish
        self._writer = writer
        self._clock = clock
        self._count = 0
        self._waiting: deque[OutMessage] = deque(maxlen=WAITING_LIMIT)
        self._bell = asyncio.Event()
        self.accounts: dict[str, AccountView] = {}
        for state in ORDER:
            metrics.ACCOUNTS.labels(state=state).set(0)

    def add(self, account: str, parts: list[Part]) -> None:
        """An account is there; its parts are not connected yet."""
        self.remove(account)
        view = self.accounts[account] = AccountView(account)
        for part in parts:
            view.set(part, AccountState.DISCONNECTED)
            view.untried.add(part)
        self._counted(account, None, AccountState.DISCONNECTED)

    def remove(self, account: str) -> None:
        """An account is not here any more; what it said last stays on the bus."""
        if (view := self.accounts.pop(account, None)) is not None:
            self._counted(account, view.state or AccountState.DISCONNECTED, None)

    def say(self, account: str, state: AccountState) -> None:
        """Something that was done to an account as a whole: paused, resumed, removed."""
        log.info("account_state", account=account, part="", state=state, error="")
        self._waiting.append(self._event(account, state, None, None))
        self._bell.set()

    def part(self, account: str, part: Part, state: AccountState, error: MailbusError | None = None) -> None:
        """A part's state. Says the account's where that changed, or where it is not connected for a new reason."""
        view = self.accounts[account]
        detail = str(error) if error else ""
        before = view.parts.get(part)
        view.set(part, state)
        if state is AccountState.DEGRADED and isinstance(error, Permanent):
            view.stuck.add(part)
        if error is not None:
            view.last_error = detail
            # Without what it came from, whose frames would live as long.
            view.errors[part] = MailbusError(error.what, where=error.where, remedy=error.remedy)
            if error.is_ours:
                view.excused.add(part)
        worst = view.worst
        if worst == view.state:
            if error is not None and before != state:
                # The account's state says nothing new, and the operator wants to know all the same.
                log.warning("part_state", account=account, part=str(part), state=state, error=detail)
            return
        # Before a first connection is up there is nothing to say, unless it failed; nor while others are not up yet.
        if worst is None or (view.state is None and worst is AccountState.DISCONNECTED and error is None):
            return
        self._say(view, part, worst)

    def _say(self, view: AccountView, part: Part, state: AccountState) -> None:
        part = view.part_in(state, otherwise=part)
        error = view.errors.get(part)
        self._counted(view.id, view.state or AccountState.DISCONNECTED, state)
        view.state, view.since = state, self._clock.now()
        shown = log.info if state is AccountState.CONNECTED else log.warning
        shown("account_state", account=view.id, part=str(part), state=state, error=str(error) if error else "")
        self._waiting.append(self._event(view.id, state, part, error))
        self._bell.set()

    def drop(self, account: str, part: Part) -> None:
        """A part that is no more: what it was says nothing of its account."""
        view = self.accounts.get(account)
        if view is None:
            return
        view.set(part, None)
        worst = view.worst
        if view.state is not None and worst is not None and worst is not view.state:
            self._say(view, part, worst)

    async def run(self) -> None:
        """Publish what waits, for ever."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._waiting:
                try:
                    await self._publish(self._waiting[0])
                except Transient:
                    await self._clock.sleep(RETRY_S)
                else:
                    self._waiting.popleft()

    def _event(self, account: str, state: AccountState, part: Part | None, error: MailbusError | None) -> OutMessage:
        self._count += 1
        now = self._clock.now()
        source = self._subjects.account_source(account)
        shown = None if state is AccountState.CONNECTED else part
        body = AccountEvent(
            account=account,
            state=state,
            at=now,
            instance=self._writer.rpartition("/")[0],
            mailbox=shown.mailbox if shown is not None and shown.kind is AccountPart.MAILBOX else UNSET,
            detail=error.what if error else UNSET,
            remedy=error.remedy if error and error.remedy else UNSET,
            part=shown.kind if shown is not None else UNSET,
        )
        id = event_id(source, self._writer, self._count, EventType.ACCOUNT)
        headers = cloud_event_headers(EventType.ACCOUNT, source=source, id=id, time=now, subject=account)
        return OutMessage(self._subjects.account(account, state), encode(body), headers | {"Nats-Msg-Id": id})

    def _counted(self, account: str, before: AccountState | None, after: AccountState | None) -> None:
        """Keep the metrics of accounts right, whatever their number."""
        if before is not after:
            metrics.ACCOUNTS_STUCK.moved(account, after)
        for state, change in ((before, -1), (after, 1)):
            if state is not None:
                metrics.ACCOUNTS.labels(state=state).inc(change)
