"""A command for an account → this process, where the account is its own, or the one that has it. Used by serve.py.

One hop at the most: who is asked by another replica answers by itself. Accounts move when replicas come and go, so a
command waits for a while until its account is somewhere.
"""

from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

from service.bus import Answer, Bus, NobodyThere, ServiceError, failure_of
from service.clock import Clock
from service.commands.account import Account
from service.commands.errors import error
from service.contract import ACCOUNT_ID, Problem, Verb

LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Fleet:
    """Where accounts are. `here`, `known` (all of them, anywhere) and `paused` are looked at on every request.

    `coming`: whether NATS has an account that is not known here yet. `patience_s`: for how long an account may be
    nowhere, while it is handed over or its process is not missed yet.
    """

    instance: str
    here: Mapping[str, Account]
    known: Callable[[], Container[str]]
    paused: Callable[[], Container[str]]
    coming: Callable[[str], Awaitable[bool]]
    owner: Callable[[str], str | None]
    wait_moved: Callable[[float], Awaitable[None]]
    patience_s: float


class Router:
    """Finds an account, and asks where it is."""

    def __init__(self, bus: Bus, fleet: Fleet, clock: Clock, *, limit_s: float) -> None:
        self._bus = bus
        self._fleet = fleet
        self._clock = clock
        self._limit_s = limit_s

    async def knows(self, account: str) -> bool:
        """Whether there is such an account at all, anywhere. Raises ServiceError 503, Transient.

        One that was just added is waited for: whoever added it may ask another process than the one that answered.
        """
        if ACCOUNT_ID.fullmatch(account) is None:
            return False
        if account not in self._fleet.known():
            if not await self._fleet.coming(account):
                return False
            until = self._clock.monotonic() + self._fleet.patience_s
            while account not in self._fleet.known():
                await self._wait(until)
        return True

    async def find(self, account: str, verb: Verb, payload: bytes, headers: Mapping[str, str]) -> Account | bytes:
        """The account, where it is here by now, or the answer of who has it. Raises ServiceError."""
        if account in self._fleet.paused():
            raise error(503, [Problem("account", "it is paused")])
        asked: set[str] = set()
        until = self._clock.monotonic() + self._fleet.patience_s
        while True:
            if (here := self._fleet.here.get(account)) is not None:
                return here
            instance = self._fleet.owner(account)
            if instance is not None and instance not in {self._fleet.instance, *asked}:
                asked.add(instance)
                try:
                    return _passed_on(await self._ask(instance, account, verb, payload, headers))
                except NobodyThere:
                    continue
            await self._wait(until)

    async def own(self, account: str) -> Account:
        """The account, which another replica takes to be here. Raises ServiceError 503."""
        until = self._clock.monotonic() + self._fleet.patience_s
        while (here := self._fleet.here.get(account)) is None:
            if self._fleet.owner(account) != self._fleet.instance:
                raise _nowhere()
            await self._wait(until)
        return here

    async def _ask(self, instance: str, account: str, verb: Verb, payload: bytes, headers: Mapping[str, str]) -> Answer:
        subject = self._bus.subjects.cmd_at(instance, account, verb)
        return await self._bus.request(subject, payload, dict(headers), timeout_s=self._limit_s)

    async def _wait(self, until: float) -> None:
        if self._clock.monotonic() >= until:
            raise _nowhere()
        await self._fleet.wait_moved(LOOK_EVERY_S)


def _passed_on(answer: Answer) -> bytes:
    if (failure := failure_of(answer.payload, answer.headers)) is not None:
        raise failure
    return answer.payload


def _nowhere() -> ServiceError:
    return error(503, [Problem("account", "it is being moved to another process: ask again later")])
