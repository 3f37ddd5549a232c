"""Pages → events: few on the event loop, many in a child process, very large ones in a thread.

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
from service.observe import log
from service.parsing import LENGTH, Made, Page, Read, Task, decode_answer, encode_frame, make

# What parsing a message costs however small it is, in bytes of a large one (about 4 ns each).
MESSAGE_COST_BYTES: Final = 8 * 1024
# After this much, about a millisecond, others get their turn.
YIELD_AFTER_BYTES: Final = 256 * 1024
# What costs less is not worth the pipe, and news must not wait behind another account's first sync.
CHILD_FROM_BYTES: Final = 512 * 1024
# A page larger than this is one huge message: its copies on both sides of a pipe would cost more than the thread.
CHILD_LIMIT_BYTES: Final = 16 * 1024 * 1024
THREAD_FROM_BYTES: Final = 512 * 1024
# Parsing is linear: 16 MiB take about a second.
ANSWER_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 2.0
READ_LIMIT_BYTES: Final = 1024 * 1024


class _ChildLostError(Exception):
    """The child ended, or does not answer."""


class Parser:
    """Where pages become events."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._child: asyncio.subprocess.Process | None = None
        self._answers: deque[asyncio.Future[list[Made]]] = deque()

    async def run(self) -> None:
        """Keep a child for ever, where there is a second core for it."""
        if len(os.sched_getaffinity(0)) < 2:
            return
        attempt = 0
        while True:
            attempt += 1
            began = self._clock.monotonic()
            try:
                await self._live()
            except OSError as exc:
                log.warning("parser_not_started", error=str(exc))
            if self._clock.monotonic() - began > ANSWER_TIMEOUT_S:
                attempt = 1
            pause = backoff_s(attempt, first_s=0.5, factor=2, max_s=60, chance=self._clock.chance())
            await self._clock.sleep(pause)

    async def make(self, page: Page, messages: Sequence[Read]) -> list[Made]:
        """The events of a page, in its order."""
        cost = sum(len(message.body or b"") + MESSAGE_COST_BYTES for message in messages)
        if CHILD_FROM_BYTES <= cost <= CHILD_LIMIT_BYTES and self._child is not None:
            try:
                return await self._ask(self._child, Task(page, list(messages)))
            except _ChildLostError as exc:
                log.warning("parser_lost", why=str(exc), messages=len(messages))
        return await self._make_here(page, messages)

    async def _make_here(self, page: Page, messages: Sequence[Read]) -> list[Made]:
        made: list[Made] = []
        since_yield = 0
        for message in messages:
            size = len(message.body or b"")
            if size >= THREAD_FROM_BYTES:
                made.append(await asyncio.to_thread(make, page, message))
            else:
                made.append(make(page, message))
            since_yield += size + MESSAGE_COST_BYTES
            if since_yield > YIELD_AFTER_BYTES:
                since_yield = 0
                await asyncio.sleep(0)
        return made

    # -- the child --------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """One child from its start to its end."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service.parsing",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=READ_LIMIT_BYTES,
            # Ctrl-C is for the parent, which ends the child when it has ended its own work.
            start_new_session=True,
        )
        try:
            await self._listen(child)
        finally:
            self._child = None
            while self._answers:
                answer = self._answers.popleft()
                if not answer.done():
                    answer.set_exception(_ChildLostError("it ended"))
            with suppress(ProcessLookupError):
                child.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await child.wait()

    async def _listen(self, child: asyncio.subprocess.Process) -> None:
        if child.stdout is None:
            raise RuntimeError("a child without a pipe")
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._frame(child.stdout)
            # Before it has started, nothing waits for it.
            self._child = child
            while True:
                made = await self._frame(child.stdout)
                answer = self._answers.popleft()
                if not answer.done():
                    answer.set_result(made)

    async def _frame(self, pipe: asyncio.StreamReader) -> list[Made]:
        (length,) = LENGTH.unpack(await pipe.readexactly(LENGTH.size))
        return decode_answer(await pipe.readexactly(length))

    async def _ask(self, child: asyncio.subprocess.Process, task: Task) -> list[Made]:
        if child.stdin is None:
            raise RuntimeError("a child without a pipe")
        answer: asyncio.Future[list[Made]] = asyncio.get_running_loop().create_future()
        # Written whole before anything waits: whoever is cancelled leaves no half frame behind.
        child.stdin.write(encode_frame(task))
        self._answers.append(answer)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                with suppress(ConnectionError):
                    await child.stdin.drain()
                return await answer
        except TimeoutError:
            with suppress(ProcessLookupError):
                child.kill()
            raise _ChildLostError(f"no answer in {ANSWER_TIMEOUT_S:g} s") from None
