"""asyncio's TaskGroup and cancellations without the two that Python loses. Every room uses these and no other.

Up to 3.12 a TaskGroup whose child fails at the wrong moment leaves the parent's count of cancellations one too
high, and one that is cancelled while a child fails forgets the cancellation (gh-116720); up to 3.11
`asyncio.wait_for`, on which nats-py stands, forgets one that comes together with the answer (gh-86296). Whatever
runs for ever in a loop would then never end.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from service.errors import verdict_of

T = TypeVar("T")


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


@contextmanager
def cancellable() -> Iterator[None]:
    """A cancellation that comes during the block ends it, whatever else the block says."""
    before = _cancellations()
    try:
        yield
    finally:
        if _cancellations() > before:
            raise asyncio.CancelledError


class TaskGroup(asyncio.TaskGroup):
    """asyncio.TaskGroup; a cancellation from outside goes before what the children raised."""

    async def __aenter__(self) -> Self:
        self._before = _cancellations()
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
        try:
            await super().__aexit__(et, exc, tb)
        finally:
            if _cancellations() > self._before:
                raise asyncio.CancelledError


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
