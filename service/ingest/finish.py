"""A piece of work that must come to its end although its task is being cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from service.errors import verdict_of
from service.tasks import TaskGroup

FINISH_TIMEOUT_S: Final = 10.0

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; when cancelled meanwhile, give it up to 10 s to end, then pass the cancellation on."""
    try:
        async with TaskGroup() as group:
            task = group.create_task(work, name="finish")
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait([task], timeout=FINISH_TIMEOUT_S)
                raise
    except BaseExceptionGroup as failed:
        raise verdict_of(failed) from None
