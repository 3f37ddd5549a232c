"""Work with files → what it gives, from threads of its own. Used by bus, oauth, catalog and reload.

A file on a network file system, or a pipe, may say nothing for ever, and nothing cuts a read of it short. In the event
loop it would hold up all accounts, in the loop's own few threads all others that need one, and the end of the process.
So these threads are daemons, so many of each kind at once, and nobody waits longer than a limit. What is silent takes
threads from its own kind and its own file system alone: accounts over one that is away keep no settings from being
read, and no accounts over another one. And a thread that is silent can be ended by nobody: there are never more of them
than what is silent, by name.
"""

import asyncio
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from weakref import WeakKeyDictionary

from service.errors import Transient

T = TypeVar("T")
# Reads of the settings file, looks at it, looks at what accounts name, accounts in NATS, OAuth's refresh tokens, and
# what NATS is connected to with.
Kind = Literal["settings", "look", "folders", "accounts", "tokens", "nats"]

LIMIT_S: Final = 10.0
# Of a kind. A file is read in well under a millisecond: more would not be faster.
AT_ONCE: Final = 32
# With so many of a kind that say nothing their file system is away: no more threads for it.
LATE_LIMIT: Final = 16
# One of them may be tried again in other versions, but not for ever.
LATE_THREADS: Final = 64
# proc(5): its fifth field is where each is mounted, what would part words in octal. Nothing of it asks a file system.
MOUNTS: Final = Path("/proc/self/mountinfo")
_MOUNTED_AT: Final = 4
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def _slots() -> asyncio.Semaphore:
    return asyncio.Semaphore(AT_ONCE)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done where."""

    kind: Kind
    place: str
    where: str
    version: int


@dataclass
class _Threads:
    """Of one event loop. `late`: what says nothing for longer than the limit, and still has its thread."""

    slots: dict[tuple[Kind, str], asyncio.Semaphore] = field(default_factory=lambda: defaultdict(_slots))
    late: dict[asyncio.Future[Any], _Work] = field(default_factory=dict)

    def take_no(self, this: _Work) -> bool:
        """Whether it is silent still, or as much is where its files are as may be."""
        late = [one for one in self.late.values() if (one.kind, one.place) == (this.kind, this.place)]
        others = {one.where for one in late} - {this.where}
        return this in late or len(others) >= LATE_LIMIT or len(late) >= LATE_THREADS


_of_loop: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Threads]] = WeakKeyDictionary()


def mounts_of(paths: Iterable[Path]) -> str:
    """The file systems that paths are on, for `place`, as far as their names tell: no link is followed."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    points = {_OCTAL.sub(lambda found: chr(int(found[1], 8)), line.split(" ")[_MOUNTED_AT]) for line in lines}
    found = set()
    for path in paths:
        at = Path(os.path.abspath(path))
        found.add(next((str(one) for one in (at, *at.parents) if str(one) in points), "/"))
    return " ".join(sorted(found))


async def aside(
    work: Callable[[], T],
    *,
    where: str,
    kind: Kind,
    version: int = 0,
    place: str = "",
    limit_s: float | None = None,
) -> T:
    """Do `work` in a thread. Raises what it raises, and Transient where it takes longer than the limit.

    What is late under the same `where` is not begun again before its thread has ended, but in another `version`: it may
    name other files. `place`: where its files are, as `mounts_of` gives it. `limit_s`: of work that takes long by
    itself; of all other LIMIT_S.
    """
    loop, limit_s = asyncio.get_running_loop(), LIMIT_S if limit_s is None else limit_s
    threads, this = _of_loop.setdefault(loop, _Threads()), _Work(kind, place, where, version)
    if threads.take_no(this):
        raise _silent(where, limit_s)
    slots = threads.slots[kind, place]
    done: asyncio.Future[tuple[T | None, Exception | None]] = loop.create_future()

    def take(found: T | None, error: Exception | None) -> None:
        if threads.late.pop(done, None) is None:
            slots.release()
        if not done.done():
            done.set_result((found, error))

    begun = False
    try:
        async with asyncio.timeout(limit_s):
            await slots.acquire()
            if threads.take_no(this):  # what was before it is late by now
                slots.release()
                raise _silent(where, limit_s)
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
            # Its thread counts with those that are late from now on, and keeps no other from a turn.
            threads.late[done] = this
            slots.release()
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
