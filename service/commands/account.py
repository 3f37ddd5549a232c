"""What a command is given: the account it is for, and what all commands of a process share. Plain values."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeVar

from service.bus import Bus
from service.clock import Clock
from service.commands.begun import ID_FIELD, Beginnings
from service.commands.errors import problem
from service.commands.in_hand import InHand
from service.commands.places import Directory
from service.commands.repeat import Answered
from service.contract import Extra, HeldAnswer, Resynced, SendLimits, SendRequest, Verb, encode
from service.imap import Pool
from service.parsing import Made, Page, Raw, Read

T = TypeVar("T")

# The header that names a command, so that the same one again does nothing twice.
COMMAND_ID: Final = ID_FIELD
# As long as for the connection.
ALONE_LIMIT_S: Final = 20.0


class Followed(Protocol):
    """The mailboxes of an account whose events are published."""

    def mailboxes(self) -> Sequence[str]:
        """Their names."""
        ...

    async def resync(self, mailbox: str) -> Resynced:
        """Compare one of them in full. Raises Transient."""
        ...

    def uid_of(self, mailbox: str, uidvalidity: int, number: int) -> int | None:
        """The UID of a message that was announced under a number: 0 where it is gone, None where the epoch is another.

        Raises Transient while nobody knows.
        """
        ...

    def turn_of(self, mailbox: str, uidvalidity: int) -> int | None:
        """Which of the epochs of this UIDVALIDITY a mailbox is in (ImapPlace); None where it is not followed.

        Raises Transient while nobody knows.
        """
        ...

    def id_of(self, mailbox: str, uidvalidity: int, uid: int) -> str:
        """The id of a message: by its UID, or the number that it was announced under."""
        ...


class Allowed(Protocol):
    """How many bytes an account may read a day."""

    def check(self) -> None:
        """Before mail is read. Raises Transient where no bytes are left."""
        ...

    def note(self, size: int) -> None:
        """So many bytes were read, or are about to be: what was read once is answered, whatever is left."""
        ...


class Unlimited(Allowed):
    """As many as there are."""

    def check(self) -> None:
        """There always are."""

    def note(self, size: int) -> None:
        """Nobody counts."""


UNLIMITED: Final = Unlimited()


@dataclass(frozen=True, slots=True)
class MailAccess:
    """How commands reach an account's mailboxes. Sizes in bytes; `raw`: which raw messages are kept anyway.

    `authserv_id`: whose verdicts on a mail are believed (RFC 8601 2.5), "" to learn it from each mail.
    `extras`: what of a mail's text is made where a request says nothing of it.
    `allowance`: what the account may read a day. `turn`: for `alone`.
    """

    pool: Pool
    directory: Directory
    followed: Followed
    inline_limit: int
    raw: Raw
    authserv_id: str = ""
    extras: tuple[Extra, ...] = ()
    allowance: Allowed = UNLIMITED
    turn: asyncio.Lock = field(default_factory=asyncio.Lock, compare=False)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Before a command that needs memory beside the connection; one at a time. Raises ServiceError 503.

        More of them would have memory and wait for the connection, or for each other.
        """
        try:
            async with asyncio.timeout(ALONE_LIMIT_S):
                await self.turn.acquire()
        except TimeoutError:
            raise problem(503, "", f"busy with other messages for {ALONE_LIMIT_S:g} s: ask again later") from None
        try:
            yield
        finally:
            self.turn.release()


class Undone(Protocol):
    """How a request stands after it was cancelled or released (RFC 8621 section 7)."""

    @property
    def undo_status(self) -> Literal["pending", "final", "canceled"]: ...

    @property
    def cancelled(self) -> Sequence[str]:
        """The recipients that will not get it."""
        ...


class Originals(Protocol):
    """The messages that a request may reply to or pass on."""

    async def resolved(self, request: SendRequest) -> SendRequest:
        """With everything in it that it takes from such a message. Raises RequestProblems, Transient."""
        ...


class Requests(Protocol):
    """What an account was asked to send, between the request and its end. All raise Transient."""

    async def held(self, *, after: str) -> HeldAnswer:
        """Those on hold, and whether there may be more. `after`: what another answer has as `next`; "": the first."""
        ...

    async def cancel(self, id: str) -> Undone | None:
        """Not to be sent any more; None: no such request."""
        ...

    async def release(self, id: str) -> Undone | None:
        """Not to be held any more; None: no such request."""
        ...


@dataclass(frozen=True, slots=True)
class SendAccess:
    """How commands reach what an account sends."""

    limits: SendLimits
    requests: Requests
    originals: Originals


@dataclass(frozen=True, slots=True)
class Account:
    """An account of this process. `sends` is None without `outgoing`, `reads` without `incoming` or `by_pop3`.

    `in_hand`: what is done for it now.
    """

    id: str
    address: str
    sends: SendAccess | None
    reads: MailAccess | None
    by_pop3: bool = False
    in_hand: InHand = field(default_factory=InHand, compare=False)

    def sending(self) -> SendAccess:
        """How it sends. Raises ServiceError 404 where it does not."""
        if self.sends is None:
            raise problem(404, "account", "this account has no `outgoing`")
        return self.sends

    def mail(self) -> MailAccess:
        """Its mailboxes. Raises ServiceError 404 where it has none."""
        if self.reads is None:
            why = "POP3, which has no commands: read it by `incoming.imap`" if self.by_pop3 else "no `incoming`"
            raise problem(404, "account", f"this account has {why}")
        return self.reads


@dataclass(frozen=True, slots=True)
class Context:
    """`make` parses messages, `hold` waits for so many bytes of the memory that the process may use for mail."""

    bus: Bus
    clock: Clock
    make: Callable[[Page, Sequence[Read]], Awaitable[list[Made]]]
    hold: Callable[[int], AbstractAsyncContextManager[None]]
    message_limit: int
    answered: Answered

    def begun(self, account: Account, verb: Verb, headers: Mapping[str, str]) -> Beginnings | None:
        """What a command notes before it copies; None without an id, for then it comes once."""
        id = headers.get(COMMAND_ID)
        return self.answered.begun(account.id, f"{verb} {id}") if id else None

    def fitting(self, found: Sequence[T]) -> list[T]:
        """As many of the first as an answer has room for: half of what NATS takes."""
        room = self.bus.max_payload // 2
        shown: list[T] = []
        for one in found:
            room -= len(encode(one)) + 1
            if room < 0:
                break
            shown.append(one)
        return shown
