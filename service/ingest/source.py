"""What ingest wants of a mailbox, whichever protocol it is read by. IMAP and POP3 meet here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.contract import Sync
from service.ingest.known import Flagged
from service.ingest.surveyed import Fetched, Surveyed


@dataclass(frozen=True, slots=True)
class Epoch:
    """A mailbox as it was opened. `uidnext`: no message has it or a higher UID yet."""

    uidvalidity: int
    uidnext: int
    exists: int
    # RFC 7162: HIGHESTMODSEQ, 0 where the mailbox has none.
    modseq: int = 0
    # Whether the server said UIDNEXT itself.
    uidnext_told: bool = True
    # What the mailbox keeps when it is renamed; empty where the source has no such thing.
    mailbox_id: str = ""
    # Whether new mail is all that the source shows: of what it does not show nothing follows.
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What a source says of flags. `gone`: ascending, no UID twice; None where it did not say. `whole`: it showed
    all messages that there are."""

    there: list[Flagged]
    gone: Sequence[range] | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Stirred:
    """What was noticed: messages went, flags changed; `numbers` are those of the changed ones, while they hold."""

    gone: bool
    flags: bool
    numbers: frozenset[int]

    def __bool__(self) -> bool:
        return self.gone or self.flags


@dataclass(frozen=True, slots=True)
class Looked:
    """How far a mailbox was looked at: all that has a lower UID, all changes up to `modseq` (0: it has none)."""

    uidvalidity: int
    uidnext: int
    modseq: int


class Source(Protocol):
    """One mailbox, on a connection that it may have to share. All raise Transient when the connection is lost."""

    @property
    def id(self) -> str:
        """Names host, user and mailbox (cursor.source_id)."""
        ...

    @property
    def sync(self) -> Sync:
        """How it tells what became of known messages, now."""
        ...

    @property
    def modseq(self) -> int:
        """The highest modseq it has told: all changes up to it can be asked for. 0 without one."""
        ...

    @property
    def refused(self) -> Sequence[str]:
        """Names of what it offered and refused on this connection."""
        ...

    async def open(self) -> Epoch:
        """Select the mailbox anew, once there is a connection for it. Raises Permanent where it does not exist."""
        ...

    @property
    def displaced(self) -> bool:
        """Whether other mailboxes need the connection: `rest` is to be called soon."""
        ...

    async def rest(self, looked: Looked, limit_s: float) -> None:
        """Leave the connection to others until there may be something to look at, `limit_s` at most; then `open`."""
        ...

    async def survey(self, first: int, last: int | None) -> list[Surveyed]:
        """The messages of UIDs first to last (None: to the end), ascending; SURVEY_LIMIT_ROWS at most, the lowest."""
        ...

    async def reach(self, first: int, last: int) -> int:
        """How far from `first`, `last` at most, a window may go that `survey` would give whole.

        As far as the source knows: what it gives in the end says it.
        """
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

    async def wait(self, limit_s: float) -> float | None:
        """Until there may be something new, `limit_s` at most: the moment of its notice (monotonic), None without."""
        ...

    def nudge(self) -> None:
        """Have `wait` or `rest` end soon, or the next one at once."""
        ...

    async def replaced(self) -> bool:
        """Whether another mailbox has its name by now, and nothing of this one is to be had: `open` shows the other."""
        ...

    def stirred(self) -> Stirred:
        """What was noticed of known messages since this was asked last."""
        ...

    async def flags(self, first: int, last: int, since: int) -> Told:
        """Flags of UIDs first to last that changed after the modseq `since`; 0: all of them."""
        ...

    async def flags_of(self, numbers: frozenset[int]) -> list[Flagged]:
        """Flags of messages whose numbers were noticed."""
        ...

    async def present(self, first: int, last: int) -> Sequence[range]:
        """Which UIDs of first to last there are, ascending, none of them twice."""
        ...

    async def close(self) -> None:
        """Leave politely, within a few seconds."""
        ...
