"""Events of mail that its server does not give → their copies in the dead letters, each there once.

Used by publish.py. The event is committed first, with the position that passes it, and the commit's last message says
which of its events have a copy (`Mail-Dead`): so a process that was killed between the two is made up for.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

from service.bus import EventLog, OutMessage, Tail
from service.contract import CURSOR_HEADER, DEAD_HEADER, DeadReason
from service.observe import log, metrics, step

ID_HEADER: Final = "Nats-Msg-Id"
# A copy is never older than its event; two servers of a cluster stamp them.
SKEW: Final = timedelta(minutes=10)
# Dead letters since the commit that are looked through for its own, 0.3 ms each. Beyond: rather twice than never.
LOOK_LIMIT: Final = 10_000


class DeadLetters:
    """`mail.dead.message`."""

    def __init__(
        self, letters: EventLog, publish: Callable[[OutMessage], Awaitable[None]], *, subject: str, where: str
    ) -> None:
        self._letters = letters
        self._publish = publish
        self._subject = subject
        self._where = where

    async def put(self, events: Sequence[OutMessage]) -> None:
        """Copy events that were committed just now. Raises Transient."""
        for event in events:
            letter = OutMessage(self._subject, event.payload, event.headers | {ID_HEADER: _letter_id(event.headers)})
            step("dead.before")
            await self._publish(letter)
            step("dead.done")
            metrics.DEAD.labels(reason=DeadReason.MESSAGE).inc()
            log.warning("message_with_problem", where=self._where, id=event.headers["ce-id"])

    async def make_up(self, events: Sequence[Tail]) -> None:
        """Copy events of a commit whose process may have been killed before it did. Raises Transient.

        NATS itself remembers a `Nats-Msg-Id` for two minutes only: those that are there are looked for.
        """
        wanted = {_letter_id(event.headers): event for event in events}
        oldest = min(event.time for event in events) - SKEW
        there = await self._letters.tail(self._subject)
        for _ in range(LOOK_LIMIT):
            if there is None or not wanted or there.time < oldest:
                break
            wanted.pop(there.headers.get(ID_HEADER, ""), None)
            there = await self._letters.before(self._subject, there.seq)
        await self.put([OutMessage(event.subject, event.payload, _own(event.headers)) for event in wanted.values()])


def _letter_id(headers: dict[str, str]) -> str:
    return f"dead-{headers['ce-id']}"


def _own(headers: dict[str, str]) -> dict[str, str]:
    """An event's headers as they were before its commit."""
    commits = (CURSOR_HEADER, DEAD_HEADER)
    return {name: value for name, value in headers.items() if not name.startswith("Nats-") and name not in commits}


def dump_places(places: Sequence[int]) -> str:
    """How far before the commit's last message each event with a copy stands, as the header's value."""
    return ",".join(map(str, places))


def load_places(text: str) -> tuple[int, ...]:
    """The header's value → how far before the commit's last message; nothing where it is none of ours."""
    parts = text.split(",")
    is_ours = all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts)
    return tuple(map(int, parts)) if is_ours else ()
