"""What ingest wants of a mailbox, whichever protocol it is read by. IMAP and POP3 meet here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Epoch:
    """A mailbox as it was opened. `uidnext`: no message has it or a higher UID yet."""

    uidvalidity: int
    uidnext: int
    exists: int


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What is known of a message before it is read. `size` in octets."""

    uid: int
    size: int
    flags: frozenset[str]
    internal_date: datetime | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message as it was read: whole, or its header alone where that was asked for."""

    surveyed: Surveyed
    body: bytes
    whole: bool


class Source(Protocol):
    """One opened mailbox on one connection. Every method raises Transient when the connection is lost."""

    @property
    def id(self) -> str:
        """Names host, user and mailbox (cursor.source_id)."""
        ...

    async def open(self) -> Epoch:
        """Select the mailbox anew. Raises Permanent where it does not exist."""
        ...

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """The messages of UIDs first to last (None: to the end), ascending; SURVEY_LIMIT_ROWS at most, the lowest."""
        ...

    async def since(self, moment: datetime) -> int | None:
        """The lowest UID that may have arrived at or after the moment; None where there is none."""
        ...

    async def fetch(self, wanted: Sequence[Surveyed], give: Callable[[Fetched], None], *, whole: bool) -> None:
        """Read messages without marking them read, each given as it comes; what is not to be had is left out."""
        ...

    async def highest(self) -> int:
        """The highest UID that is there now; 0 in an empty mailbox."""
        ...

    async def wait(self) -> float | None:
        """Until there may be something new: the moment of its notice (monotonic), None where it is time to look."""
        ...

    async def close(self) -> None:
        """Leave politely, within a few seconds."""
        ...

    def abort(self) -> None:
        """Drop the connection at once."""
        ...
