"""Work with files → what it gives, from threads of its own. Used by oauth, catalog and reload.

A file on a network file system, or a pipe, may say nothing for ever, and nothing cuts a read of it short. In the event
loop it would hold up all accounts, in the loop's own few threads all others that need one, and the end of the process.
So these threads are daemons, so many of each kind at once, and nobody waits longer than a limit. What is silent takes
threads from its own kind alone: accounts over a file system that is away keep no settings from being read.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar
from weakref import WeakKeyDictionary

from service.errors import Transient

T = TypeVar("T")
# Reads of the settings file, looks at it, looks at what accounts name, accounts in NATS, and OAuth's refresh tokens.
Kind = Literal["settings", "look", "folders", "accounts", "tokens"]

LIMIT_S: Final = 10.0
# Of a kind. A file is read in well under a millisecond: more would not be faster.
AT_ONCE: Final = 32
# With so many of a kind that say nothing it is file systems that are away: no more threads for them.
LATE_LIMIT: Final = 16


def _slots() -> asyncio.Semaphore:
    return asyncio.Semaphore(AT_ONCE)


@dataclass
class _Threads:
    """Of one event loop. `late`: what says nothing for longer than the limit, and still has its thread."""

    slots: dict[Kind, asyncio.Semaphore] = field(default_factory=lambda: defaultdict(_slots))
    late: set[tuple[Kind, str, int]] = field(default_factory=set)


_of_loop: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Threads]] = WeakKeyDictionary()


async def aside(work: Callable[[], T], *, where: str, kind: Kind, version: int = 0, limit_s: float | None = None) -> T:
    """Do `work` in a thread. Raises what it raises, and Transient where it takes longer than the limit.

    What is late under the same `where` is not begun again before its thread has ended, but in another `version`: it may
    name other files. `limit_s`: of work that takes long by itself; of all other LIMIT_S.
    """
    loop, limit_s = asyncio.get_running_loop(), LIMIT_S if limit_s is None else limit_s
    threads = _of_loop.setdefault(loop, _Threads())
    slots, this = threads.slots[kind], (kind, where, version)
    if this in threads.late or sum(late[0] == kind for late in threads.late) >= LATE_LIMIT:
        raise _silent(where, limit_s)
    done: asyncio.Future[tuple[T | None, Exception | None]] = loop.create_future()

    def take(found: T | None, error: Exception | None) -> None:
        slots.release()
        threads.late.discard(this)
        if not done.done():
            done.set_result((found, error))

    begun = False
    try:
        async with asyncio.timeout(limit_s):
            await slots.acquire()
            begun = True
            try:
                threading.Thread(target=_do, args=(work, loop, take), name=f"aside {where}"[:60], daemon=True).start()
            except BaseException as exc:
                slots.release()
                if isinstance(exc, RuntimeError):  # what Python says where the kernel gives no thread
                    raise Transient("no thread is to be had", where=where, remedy="raise the limit of tasks") from None
                raise
            found, error = await asyncio.shield(done)
    except TimeoutError:
        if begun and not done.done():
            threads.late.add(this)
        raise _silent(where, limit_s) from None
    if error is not None:
        raise error
    return found  # type: ignore[return-value]  # T, where there is no error


def _do(
    work: Callable[[], Any], loop: asyncio.AbstractEventLoop, take: Callable[[Any, Exception | None], None]
) -> None:
    found, error = None, None
    try:
        found = work()
    except Exception as exc:  # noqa: BLE001 raised where it is awaited
        error = exc
    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(take, found, error)


def _silent(where: str, limit_s: float) -> Transient:
    return Transient(f"nothing for {limit_s:g} s from a file", where=where, remedy="look at its file system")
