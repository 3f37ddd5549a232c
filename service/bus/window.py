"""Messages → a stream, many under way at once, each acknowledged. Not atomic: what shall land together is batch.py's.

Used by blobs.py. One subscription hears all answers: nats-py's request takes 60 µs a message, this takes 20. A server
stages an atomic batch in a file of its own before it stores it, 2.5 times the work of messages that come one by one.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from service.bus.asks import NO_RESPONDERS
from service.bus.client import BusClient
from service.bus.errors import REQUEST_TIMEOUT_S
from service.bus.frames import OutMessage, asking

# What is under way at once: a server may drop what it cannot take in (the answer never comes), and it is held here.
WINDOW_BYTES: Final = 4 * 1024 * 1024
WINDOW_MESSAGES: Final = 1_000

_answers: Final = msgspec.json.Decoder(dict[str, Any])


class _Asked:
    """A window's answers, by the last word of their subjects."""

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.answers: list[dict[str, Any] | None] = [None] * count
        self.left = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, number: int, answer: dict[str, Any]) -> None:
        if self.answers[number - self.first] is None:
            self.answers[number - self.first] = answer
            self.left -= 1
            if not self.left and not self.done.done():
                self.done.set_result(None)


class Window:
    """What this process publishes to streams without waiting for each answer."""

    def __init__(self, nc: BusClient) -> None:
        self._nc = nc
        self._inbox = ""
        self._listening: Subscription | None = None
        self._refused = 0
        self._opening = asyncio.Lock()
        self._count = 0
        self._asked: dict[int, _Asked] = {}  # by the number of each message under way

    async def publish(self, messages: Iterable[OutMessage]) -> list[dict[str, Any]]:
        """Publish in order; the stream's answers, errors included, in the same order.

        Raises NotPermitted, nats-py's errors and TimeoutError where an answer did not come: then any of them may have
        landed.
        """
        await self._open()
        answers: list[dict[str, Any]] = []
        together: list[OutMessage] = []
        size = 0
        for message in messages:
            if together and (size + len(message.payload) > WINDOW_BYTES or len(together) >= WINDOW_MESSAGES):
                answers += await self._once(together)
                together, size = [], 0
            together.append(message)
            size += len(message.payload)
        return answers + await self._once(together) if together else answers

    async def _once(self, messages: Sequence[OutMessage]) -> list[dict[str, Any]]:
        asked = _Asked(self._count, len(messages))
        self._count += len(messages)
        numbers = range(asked.first, self._count)
        self._asked |= dict.fromkeys(numbers, asked)
        try:
            subjects = {message.subject for message in messages}
            async with asyncio.timeout(REQUEST_TIMEOUT_S), self._nc.refusals.permitted(*subjects):
                await self._nc.send(asking(messages, self._inbox, asked.first))
                await asked.done
        finally:
            for number in numbers:
                self._asked.pop(number, None)
        return [answer for answer in asked.answers if answer is not None]

    async def _open(self) -> None:
        async with self._opening:
            if self._inbox and self._refused == self._nc.refused_inboxes:
                return
            # Refused, it stays so although the right comes.
            self._inbox, self._refused = "", self._nc.refused_inboxes
            inbox = self._nc.new_inbox()
            if self._listening is not None:
                await self._listening.unsubscribe()
            self._listening = await self._nc.listen(f"{inbox}.*", self._take)
            self._inbox = inbox

    def _take(self, subject: bytes, _reply: bytes, payload: bytes, headers: bytes) -> None:
        word = subject.rpartition(b".")[2]
        asked = self._asked.get(int(word)) if word.isdigit() else None
        if asked is None:
            return  # it came too late
        if headers.startswith(NO_RESPONDERS):
            # The server's word for nobody there (ADR-22): the stream is gone, or JetStream is.
            if not asked.done.done():
                asked.done.set_exception(nats.errors.NoRespondersError())
            return
        answer = _answers.decode(payload)
        # Whoever else hears the subject may answer, and whatever.
        if "seq" in answer or isinstance(answer.get("error"), dict):
            asked.take(int(word), answer)
