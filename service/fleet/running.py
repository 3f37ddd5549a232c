"""Accounts that run in this process: each begun and ended while the others go on. Used by steer.py.

Many that begin at once are begun in turn, host by host: a thousand logins in a second are an attack to a provider.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from service.clock import Clock
from service.observe import log
from service.tasks import TaskGroup, cut_short
from service.turns import AT_ONCE

# Accounts of one host a second, after a first burst: 10,000 of one provider are there within seven minutes, and a
# provider that counts connections by the minute sees no storm.
BEGUN_PER_S: Final = 25.0
BURST: Final = 50
# Putting an account together takes half a millisecond: with twenty hosts the first burst would take half a second.
BEGUN_AT_ONCE: Final = 10
# Kubernetes gives 30 s by default. What is in hand has this long to end, for a relay may take its time over a mail;
# what has not ended by then comes back by being redelivered or read again.
DRAIN_TIMEOUT_S: Final = 10.0
# Nothing can be confirmed without NATS: after so long in silence there is nothing left to wait for.
NATS_SILENT_S: Final = 4.0
NATS_ASKED_S: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What is known of accounts here: how one runs, for ever; what is left to do once it ended; where it logs in."""

    run: Callable[[T], Coroutine[Any, Any, None]]
    end: Callable[[str], None]
    host: Callable[[T], str]


@dataclass(slots=True)
class _Host:
    """Who waits for a host's turn, and when it comes: a bucket of tokens."""

    waiting: dict[str, None]
    tokens: float = BURST
    at: float = 0.0


class Running(Generic[T]):
    """The accounts of this process. `answers`: whether NATS says anything within so many seconds."""

    def __init__(self, kind: Kind[T], answers: Callable[[float], Awaitable[bool]], clock: Clock) -> None:
        self._kind = kind
        self._answers = answers
        self._clock = clock
        self._waiting: dict[str, T] = {}
        self._hosts: dict[str, _Host] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, T] = {}
        # Those that were asked to end. A second time cuts short what the first one lets end.
        self._asked: set[str] = set()
        self._bell = asyncio.Event()

    @property
    def accounts(self) -> Mapping[str, T]:
        """Those that were begun, by id."""
        return self._begun

    def take(self, accounts: Mapping[str, T]) -> None:
        """Begin these soon, in turn; those that were are left alone."""
        for id, account in accounts.items():
            if id not in self._begun and id not in self._waiting:
                self._waiting[id] = account
                self._host(account).waiting[id] = None
        self._bell.set()

    def _host(self, account: T) -> _Host:
        return self._hosts.setdefault(self._kind.host(account), _Host({}, at=self._clock.monotonic()))

    async def keep(self, accounts: Mapping[str, T], *, silent_s: float = 0.0) -> None:
        """End all but these very ones; returns once they have let go. `silent_s`: as in `release`."""
        self._waiting = {id: one for id, one in self._waiting.items() if accounts.get(id) is one}
        ended = [id for id, one in self._begun.items() if accounts.get(id) is not one]
        await self.release(ended, silent_s=silent_s)

    async def release(self, ids: Collection[str], *, silent_s: float = 0.0) -> None:
        """Let each end what it has in hand, as long as there is time and NATS takes the outcome.

        `silent_s`: for how long NATS has said nothing by now. Where that is long there is little to wait for, and
        another process is about to begin the same accounts.

        Cancelled meanwhile, they are still here and still ending: whoever releases them next waits for them.
        """
        tasks = {id: self._tasks[id] for id in ids}
        for number, (id, task) in enumerate(tasks.items(), start=1):
            if id not in self._asked:
                self._asked.add(id)
                task.cancel()
            # All accounts may end at once, a changed file of authorities is enough: others work between.
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        await self._drain(list(tasks.values()), silent_s)
        for id in ids:
            self._asked.discard(id)
            # Another release may have waited for the same.
            if self._begun.pop(id, None) is not None:
                del self._tasks[id]
                self._kind.end(id)

    async def run(self) -> None:
        """Begin what waits until cancelled; then all have let go."""
        try:
            async with TaskGroup() as group:
                try:
                    await self._begin_in_turn(group)
                finally:
                    self._waiting.clear()
                    await self.release(list(self._begun))
        finally:
            self._tasks.clear()

    async def _begin_in_turn(self, group: TaskGroup) -> None:
        while True:
            self._bell.clear()
            wait_s = self._begin_ready(group)
            if wait_s is None:
                await self._bell.wait()
            else:
                await self._clock.sleep(wait_s)

    def _begin_ready(self, group: TaskGroup) -> float | None:
        """Begin those whose turn it is, a few; gives seconds until the next one's, None where nobody waits."""
        now, begun = self._clock.monotonic(), 0
        for name, host in list(self._hosts.items()):
            host.tokens = min(BURST, host.tokens + (now - host.at) * BEGUN_PER_S)
            host.at = now
            while host.waiting and host.tokens >= 1:
                id = next(iter(host.waiting))
                del host.waiting[id]
                if (account := self._waiting.pop(id, None)) is not None:
                    host.tokens -= 1
                    self._begin(group, id, account)
                    begun += 1
                if begun == BEGUN_AT_ONCE:
                    return 0.0
            if not host.waiting and host.tokens >= BURST:
                del self._hosts[name]
        return 1 / BEGUN_PER_S if self._waiting else None

    def _begin(self, group: TaskGroup, id: str, account: T) -> None:
        self._begun[id] = account
        self._tasks[id] = group.create_task(self._kind.run(account), name=id)

    async def _drain(self, tasks: Sequence[asyncio.Task[None]], silent_s: float) -> None:
        pending: set[asyncio.Task[None]] = set(tasks)
        began = self._clock.monotonic()
        heard = began - silent_s
        while pending:
            _, pending = await asyncio.wait(pending, timeout=NATS_ASKED_S)
            if pending and await self._answers(NATS_ASKED_S):
                heard = self._clock.monotonic()
            if self._clock.monotonic() >= min(began + DRAIN_TIMEOUT_S, heard + NATS_SILENT_S):
                break
        if pending:
            log.warning("drain_cut_short", accounts=len(pending))
        await cut_short(pending)
