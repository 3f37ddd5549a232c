"""The mailboxes of an account that are followed: each a life of its own, begun when it appears, ended when it vanishes.

Used by rounds.py, which says what there is, and by build, which says what a life is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from service.boxes.lines import Lines, Place
from service.boxes.plan import Renamed
from service.tasks import TaskGroup

NONE_RENAMED: Final[Mapping[str, Renamed]] = MappingProxyType({})


class Life(Protocol):
    """What a mailbox does for as long as it is there."""

    async def run(self) -> None:
        """Follow it for ever."""
        ...

    @property
    def begun(self) -> bool:
        """Whether its position is in the log."""
        ...

    def vanished(self) -> None:
        """There is no such mailbox any more; `run` is about to end."""
        ...

    def gone(self) -> None:
        """It has vanished, and `run` has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Appeared:
    """`new`: while mailbus ran; `former`: what it may have been called before; it is followed under that no more."""

    new: bool
    former: Renamed | None = None


@dataclass(slots=True)
class _Box:
    place: Place
    life: Life
    task: asyncio.Task[None]
    new: bool


class Boxes:
    """One account's. `make` gives the life of a mailbox: its name, its place, and how it appeared."""

    def __init__(self, lines: Lines, make: Callable[[str, Place, Appeared], Life]) -> None:
        self._lines = lines
        self._make = make
        self._group: TaskGroup | None = None
        self._boxes: dict[str, _Box] = {}
        self._order: list[str] = []
        self._ending: set[str] = set()

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Lives go on while `lead` does, which says what is followed."""
        async with TaskGroup() as group:
            self._group = group
            await lead()

    @property
    def names(self) -> set[str]:
        """Those that are followed."""
        return set(self._boxes)

    def follow(
        self, names: Sequence[str], *, new: Callable[[str], bool], renamed: Mapping[str, Renamed] = NONE_RENAMED
    ) -> None:
        """These and no others are followed from now on, most important first."""
        if self._group is None:
            raise RuntimeError("boxes that do not run")
        self._order = list(names)
        ended = {name: self._end(name) for name in self._boxes.keys() - set(names)}
        for order, name in enumerate(names):
            box = self._boxes.get(name)
            if box is not None:
                box.place.seat.order = order
            elif name not in self._ending:
                place, is_new, before = self._lines.place(order), new(name), renamed.get(name)
                former = before if before is not None and before.name in ended else None
                life = self._make(name, place, Appeared(is_new, former))
                task = self._group.create_task(_live(life, [box.task for box in ended.values()]), name=name)
                self._boxes[name] = _Box(place, life, task, is_new)

    def _end(self, name: str) -> _Box:
        box = self._boxes.pop(name)
        self._ending.add(name)

        def ended(_task: asyncio.Task[None]) -> None:
            self._ending.discard(name)
            box.place.forget()
            box.life.gone()

        box.task.add_done_callback(ended)
        box.life.vanished()
        box.task.cancel()
        return box

    def begun(self, name: str) -> bool:
        """Whether a mailbox has its position in the log; those that are not followed need none."""
        box = self._boxes.get(name)
        return box is None or box.life.begun

    def place(self, name: str) -> Place | None:
        """The place of a mailbox that is followed."""
        box = self._boxes.get(name)
        return box.place if box is not None else None

    def resting(self) -> list[str]:
        """Those without a connection that wait to be called."""
        return [name for name, box in self._boxes.items() if box.place.resting]

    def before(self, name: str) -> list[str]:
        """Those that announce a mail which is in this one too (Gmail's labels).

        One that appeared meanwhile comes after all others: what they have announced is not announced again.
        """
        box = self._boxes.get(name)
        if box is not None and box.new:
            return [other for other in self._order if other != name]
        names = self._order[: self._order.index(name)] if name in self._order else self._order
        return [other for other in names if other not in self._boxes or not self._boxes[other].new]


async def _live(life: Life, before: Collection[asyncio.Task[None]]) -> None:
    # It may be any of those that ended just now, under another name.
    if before:
        await asyncio.wait(before)
    await life.run()
