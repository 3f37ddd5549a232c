"""Messages → the server's answers to them, many under way at once over one subscription. Used by kv.py and queue.py.

nats-py's own request takes 150 µs of a loaded core: a token of random letters, a header block letter by letter, a
Msg, a queue, a task, a timer for each. This takes 35.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from service.bus.errors import REQUEST_TIMEOUT_S, ApiError
from service.bus.frames import hpub, pub
from service.bus.refusals import Refused, not_permitted
from service.tasks import cancellable

if TYPE_CHECKING:
    from service.bus.client import BusClient

# How late a time-out may be found.
LOOK_EVERY_S: Final = 0.5
NO_RESPONDERS: Final = b"NATS/1.0 503"


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Stored(msgspec.Struct):
    """JetStream's answer to a message that was to be stored."""

    seq: int = 0
    error: _Error | None = None


_STORED: Final = msgspec.json.Decoder(_Stored)


def seq_in(answer: bytes) -> int:
    """Where a message was stored, by JetStream's answer; 0 where it does not say. Raises ApiError with a refusal.

    Whoever else hears the subject may answer, and whatever: that says nothing.
    """
    try:
        stored = _STORED.decode(answer) if answer else _Stored()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0
    if (error := stored.error) is not None:
        raise ApiError(error.code, error.err_code, error.description)
    return stored.seq


def told(seq: int) -> int:
    """It. Raises nats-py's error where it was not said: what was asked may have landed."""
    if not seq:
        raise nats.errors.Error("nats: the answer was none of JetStream's")
    return seq


class Asks:
    """What one connection asks. Whoever asks bounds how much: nothing is kept here but who waits."""

    def __init__(self, nc: "BusClient") -> None:
        self._nc = nc
        self._prefix = ""
        self._opening = asyncio.Lock()
        self._count = 0
        self._inbox: Subscription | None = None
        # Who waits, until when, and where they asked, in the order of their times.
        self._asked: dict[int, tuple[asyncio.Future[bytes], float, str]] = {}
        self._looking: asyncio.TimerHandle | None = None
        # Python 3.11 asks the system for the process's number each time the running loop is asked for.
        self._loop: asyncio.AbstractEventLoop

    @property
    def under_way(self) -> int:
        """How many have no answer yet."""
        return len(self._asked)

    async def ask(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        *,
        behind: Iterable[Sequence[bytes]] = (),
    ) -> bytes:
        """The body of what is answered. Subject and headers have passed guard.py.

        `behind`: ready-made frames that go out with it, whatever will be answered; in groups, as `pour` has them.
        Raises NotPermitted, and nats-py's errors: NoRespondersError, TimeoutError, or that there is no connection.
        """
        if not self._prefix:
            await self._open()
        if self._nc.full:
            await self._nc.roomy()
        loop = self._loop
        self._count = number = self._count + 1
        answer: asyncio.Future[bytes] = loop.create_future()
        self._asked[number] = (answer, loop.time() + REQUEST_TIMEOUT_S, subject)
        if self._looking is None:
            self._looking = loop.call_later(LOOK_EVERY_S, self._look)
        reply = f"{self._prefix}{number}"
        try:
            question = hpub(subject, headers, payload, reply) if headers else pub(subject, payload, reply)
            groups = iter(behind)
            self._nc.put(question, *next(groups, ()))
            await self._nc.pour(groups)
            return await answer
        finally:
            self._asked.pop(number, None)

    async def store(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """Publish to a stream; gives the sequence. Raises ApiError with the stream's refusal, and as `ask` does."""
        return told(seq_in(await self.ask(subject, payload, headers)))

    async def _open(self) -> None:
        async with self._opening:
            if not self._prefix:
                inbox = self._nc.new_inbox()
                with cancellable():
                    if self._inbox is not None:
                        await self._inbox.unsubscribe()
                    self._inbox = await self._nc.listen(f"{inbox}.*", self._take)
                self._loop = asyncio.get_running_loop()
                self._prefix = f"{inbox}."

    def _take(self, subject: bytes, _reply: bytes, payload: bytes, headers: bytes) -> None:
        word = subject[len(self._prefix) :]
        asked = self._asked.get(int(word)) if word.isdigit() else None
        if asked is None or asked[0].done():
            return  # it came too late
        if headers.startswith(NO_RESPONDERS):
            asked[0].set_exception(nats.errors.NoRespondersError())
        else:
            asked[0].set_result(payload)

    def refused(self, refused: Refused) -> None:
        """What the server drops has no answer."""
        if refused.is_inbox:
            # The right may come while the connection stands: whoever asks next listens anew.
            self._prefix = ""
        for answer, _, subject in self._asked.values():
            if refused.concerns(subject) and not answer.done():
                answer.set_exception(not_permitted(subject))

    def _look(self) -> None:
        """Whose time is up: one timer for all."""
        now = self._loop.time()
        for answer, until, _ in self._asked.values():
            if until > now:
                break
            if not answer.done():
                answer.set_exception(nats.errors.TimeoutError())
        self._looking = self._loop.call_later(LOOK_EVERY_S, self._look) if self._asked else None
