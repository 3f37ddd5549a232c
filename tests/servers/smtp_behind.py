"""A scripted relay that knows what stood behind a message's end as it was answered, and goes wrong just there."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.servers.smtp_steps import Act, Step, StepConnection, StepRelay

# With one connection: the first opens it, the second has it next, and the third's envelope goes out behind that.
SECOND: Final = 2
THIRD: Final = 3


@dataclass(kw_only=True)
class Watching(StepRelay):
    """Answers a message's end once something stands behind it, where `wants` names its number.

    At SECOND's it does `then`; or what `next` says, to whatever comes after that.
    """

    wants: Sequence[int] = (SECOND,)
    then: Act | None = None
    next: tuple[Step, Act] | None = None
    made: int = 0
    ends: int = 0
    # What stood behind each message's end as it was answered.
    behind: list[bytes] = field(default_factory=list)
    # Set while SECOND waits for its answer, until `go`.
    holds: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event | None = None

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> StepConnection:
        self.made += 1
        return super().meet(reader, writer)

    async def _end(self, connection: StepConnection) -> str:
        self.ends += 1
        waiting: bytearray = connection.reader._buffer  # type: ignore[attr-defined]  # nothing says that more came
        while self.ends in self.wants and not waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        self.behind.append(bytes(waiting))
        is_second = self.ends == SECOND
        if is_second and self.go is not None:
            self.holds.set()
            await self.go.wait()
        if is_second and self.then is not None:
            self.at, self.do, self.times = Step.END, self.then, 1
        said = await super()._end(connection)
        if is_second and self.next is not None:
            self.at, self.do = self.next
        return said
