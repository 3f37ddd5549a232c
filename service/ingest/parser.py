"""Pages → events: few on the event loop, many in a child process, large ones there or in a thread.

One for the whole process. Parsing is nearly all that ingest costs; in a child it runs on a second
core, and whatever kills or holds it does not reach the event loop. The child keeps nothing: what it had in hand when
it was lost is done here.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from service.clock import Clock, backoff_s
from service.contract import Extra
from service.meaning import takes_long
from service.observe import log
from service.parsing import INBOUND_BYTES, LENGTH, SLOTS, Made, Page, Read, Slots, decode_answer, encode_task, make
from service.turns import Breather

# What parsing a message costs however small it is, in bytes of a large one (about 4 ns each).
MESSAGE_COST_BYTES: Final = 8 * 1024
# What costs less is not worth the pipe, and news must not wait behind another account's first sync.
CHILD_FROM_BYTES: Final = 512 * 1024
# One that is larger holds the loop for milliseconds if it was made to: it goes to a child that has nothing in hand, or
# to a thread; so does one whose language is asked for, which takes most of a second the first time. What costs most at
# any size, HTML, is bounded by what a preview looks at.
ALONE_FROM_BYTES: Final = 64 * 1024
# So does a report or an invitation of this size: its words are looked up, which takes 35 ms in one of 15 KB.
REPORT_FROM_BYTES: Final = 2 * 1024
# Parsing is linear: a page takes some 20 ms, the worst of pages a second, and the pages before it as long.
ANSWER_TIMEOUT_S: Final = 60.0
START_TIMEOUT_S: Final = 1.0
STOP_TIMEOUT_S: Final = 2.0
READ_LIMIT_BYTES: Final = 1024 * 1024


class _ChildLostError(Exception):
    """The child ended, or does not answer."""


class _Child:
    """A child that has started, and the slots that it reads from and writes to."""

    def __init__(self, process: asyncio.subprocess.Process, slots: Slots) -> None:
        self.process = process
        self.slots = slots
        # None: there will be no more, the child is lost.
        self.free = asyncio.Queue[int | None]()
        for slot in range(SLOTS):
            self.free.put_nowait(slot)
        # In the order of the questions, which is that of the answers.
        self.answers: deque[tuple[int, asyncio.Future[list[Made]]]] = deque()

    def take_answer(self, frame: bytes) -> None:
        """What the child says of the oldest page; its slot is free again, whoever still waits for it."""
        slot, answer = self.answers.popleft()
        if not answer.done():
            answer.set_result(decode_answer(frame, self.slots.outbound(slot)))
        self.free.put_nowait(slot)

    def lose(self) -> None:
        """Tell all who wait that there will be no answer."""
        for _, answer in self.answers:
            if not answer.done():
                answer.set_exception(_ChildLostError("it ended"))
        self.answers.clear()
        self.free.put_nowait(None)

    async def slot(self) -> int:
        """A slot that is free. Raises _ChildLostError."""
        slot = await self.free.get()
        if slot is None:
            self.free.put_nowait(None)  # for the next who waits
            raise _ChildLostError("it ended")
        return slot


class Parser:
    """Where pages become events."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._child: _Child | None = None
        # Unset only while the first child starts.
        self._started = asyncio.Event()
        self._started.set()

    async def run(self) -> None:
        """Keep a child for ever, where there is a second core for it."""
        if len(os.sched_getaffinity(0)) < 2:
            await asyncio.Event().wait()
        attempt = 0
        self._started.clear()
        while True:
            attempt += 1
            began = self._clock.monotonic()
            try:
                await self._live()
            except OSError as exc:
                log.warning("parser_not_started", error=str(exc))
            finally:
                self._started.set()
            if self._clock.monotonic() - began > ANSWER_TIMEOUT_S:
                attempt = 1
            pause = backoff_s(attempt, first_s=0.5, factor=2, max_s=60, chance=self._clock.chance())
            await self._clock.sleep(pause)

    async def started(self) -> None:
        """Until the first child is there, or will not be: what comes meanwhile would be parsed on the event loop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._started.wait()

    async def make(self, page: Page, messages: Sequence[Read]) -> list[Made]:
        """The events of a page, in its order."""
        child = self._child
        size = sum(len(message.body or b"") for message in messages)
        if child is None or size > INBOUND_BYTES:
            return await self._make_here(page, messages)
        if size + MESSAGE_COST_BYTES * len(messages) < CHILD_FROM_BYTES:
            if child.answers:
                return await self._make_here(page, messages)
            if not any(map(_is_long, messages)):
                # To look at a mail takes up to a fifth of what making it takes: once is enough.
                return await self._make_here(page, messages, may_be_long=False)
        try:
            return await self._ask(child, page, messages)
        except _ChildLostError as exc:
            log.warning("parser_lost", why=str(exc), messages=len(messages))
            return await self._make_here(page, messages)

    async def _make_here(self, page: Page, messages: Sequence[Read], *, may_be_long: bool = True) -> list[Made]:
        made: list[Made] = []
        breather = Breather(self._clock)
        for message in messages:
            if Extra.LANGUAGE in page.extras or (may_be_long and _is_long(message)):
                made.append(await asyncio.to_thread(make, page, message))
            else:
                made.append(make(page, message))
            await breather.pause()
        return made

    # -- the child --------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """One child from its start to its end."""
        slots = Slots.create()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "service.parsing",
                str(slots.fd),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=[slots.fd],
                limit=READ_LIMIT_BYTES,
                # Ctrl-C is for the parent, which ends the child when it has ended its own work.
                start_new_session=True,
            )
            await self._listen(_Child(process, slots))
        finally:
            slots.close()

    async def _listen(self, child: _Child) -> None:
        """Take its answers until it ends."""
        process = child.process
        try:
            if process.stdout is None:
                raise RuntimeError("a child without a pipe")
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await _frame(process.stdout)
                # Before it has started, nothing waits for it.
                self._child = child
                self._started.set()
                while True:
                    child.take_answer(await _frame(process.stdout))
        finally:
            self._child = None
            child.lose()
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()

    async def _ask(self, child: _Child, page: Page, messages: Sequence[Read]) -> list[Made]:
        pipe = child.process.stdin
        if pipe is None:
            raise RuntimeError("a child without a pipe")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                slot = await child.slot()
                answer: asyncio.Future[list[Made]] = asyncio.get_running_loop().create_future()
                # Written whole before anything waits: whoever is cancelled leaves no half frame behind.
                pipe.write(encode_task(slot, page, messages, child.slots.inbound(slot)))
                child.answers.append((slot, answer))
                with suppress(ConnectionError):
                    await pipe.drain()
                return await answer
        except TimeoutError:
            with suppress(ProcessLookupError):
                child.process.kill()
            raise _ChildLostError(f"no answer in {ANSWER_TIMEOUT_S:g} s") from None


def _is_long(message: Read) -> bool:
    body = message.body or b""
    return len(body) >= ALONE_FROM_BYTES or (len(body) >= REPORT_FROM_BYTES and takes_long(body))


async def _frame(pipe: asyncio.StreamReader) -> bytes:
    (length,) = LENGTH.unpack(await pipe.readexactly(LENGTH.size))
    return await pipe.readexactly(length)
