"""asyncio's TaskGroup and cancellations without those that Python loses. Every room uses these and no other.

Up to 3.12 a TaskGroup whose child fails at the wrong moment leaves the parent's count of cancellations one too
high, and one that is cancelled while a child fails forgets the cancellation (gh-116720); up to 3.11
`asyncio.wait_for`, on which nats-py stands, forgets one that comes together with the answer (gh-86296). Whatever
runs for ever in a loop would then never end. In all versions a TaskGroup that is ending keeps a further cancellation
to itself: what its children still wait for could not be cut short.
"""

import asyncio
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from service.errors import verdict_of

T = TypeVar("T")

CANCEL_EVERY_S: Final = 1.0


def cancellations() -> int:
    """How often this task was cancelled and has not ended."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


@contextmanager
def cancellable() -> Iterator[None]:
    """A cancellation that comes during the block ends it, whatever else the block says."""
    before = cancellations()
    try:
        yield
    finally:
        if cancellations() > before:
            raise asyncio.CancelledError


async def cut_short(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and again each second, until all have ended: each time ends one stage of a clean-up."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_EVERY_S)


class TaskGroup(asyncio.TaskGroup):
    """asyncio.TaskGroup; a cancellation from outside goes before what the children raised, a further one to them."""

    _aborting: bool  # asyncio's own: whether it cancelled them all

    async def __aenter__(self) -> Self:
        self._before = cancellations()
        return await super().__aenter__()

    async def __aexit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # Children are waited for while the block still counts as running: there a TaskGroup takes its own
        # cancellation of the parent back, in all versions.
        if et is None:
            try:
                while self._tasks:
                    await asyncio.wait(self._tasks)
            except asyncio.CancelledError as cancelled:
                et, exc, tb = asyncio.CancelledError, cancelled, cancelled.__traceback__
        if et is not None and self._tasks:
            await self._abort_all()
        try:
            await super().__aexit__(et, exc, tb)
        finally:
            if cancellations() > self._before:
                raise asyncio.CancelledError

    async def _abort_all(self) -> None:
        if not self._aborting:
            self._abort()  # type: ignore[attr-defined]  # asyncio's own: cancels all, and takes no failure for news
        elif cancellations() > self._before + 1:
            # A child failed, by which the others are cancelled, and the parent; and somebody else cancelled that.
            self._cancel_all()
        while self._tasks:
            try:
                await asyncio.wait(self._tasks)
            except asyncio.CancelledError:
                # Not lost: it is counted, and raised in the end.
                self._cancel_all()

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()


async def finished(work: Coroutine[Any, Any, T], limit_s: float) -> T:
    """Await `work`; when cancelled meanwhile, give it so long to end, then pass the cancellation on."""
    try:
        async with TaskGroup() as group:
            task = group.create_task(work, name="finished")
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait([task], timeout=limit_s)
                raise
    except BaseExceptionGroup as failed:
        raise verdict_of(failed) from None
