"""A mailbox from a UID on → windows of surveyed messages, however many there are. Used by mailbox.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.contract import NUMBERS_FROM
from service.ingest.plan import SURVEY_LIMIT_ROWS, SURVEY_LIMIT_UIDS, widened
from service.ingest.source import Source
from service.ingest.surveyed import Surveyed

# The first window is so much smaller: its pages are under way while the next one is surveyed.
FIRST_SHARE: Final = 8


@dataclass(frozen=True, slots=True)
class Window:
    """`last`: the highest of its UIDs that were asked for; None: all there are."""

    found: Sequence[Surveyed]
    last: int | None

    @property
    def end(self) -> int | None:
        """Where the next one begins: behind the last UID found, or asked for. None where messages have no UIDs."""
        end = self.found[-1].uid if self.found else self.last
        return end if end is not None and end < NUMBERS_FROM else None


class Windows:
    """What lies up to `top` (None: whatever there is). `shared`: as far as other mailboxes let it."""

    def __init__(self, source: Source, top: int | None, *, shared: bool) -> None:
        self._source: Final = source
        self._top: Final = top
        self._shared: Final = shared
        self._width = SURVEY_LIMIT_UIDS
        self._begun = self._over = False

    async def next(self, last: int) -> Window | None:
        """What lies above `last`; None where nothing is left, or it is others' turn. Raises Transient."""
        if self._over or (self._top is not None and last >= self._top):
            return None
        if self._begun and self._shared and self._source.displaced:
            return None
        first = last + 1
        width = self._width if self._begun else max(1, self._width // FIRST_SHARE)
        end = None if self._top is None else await self._source.reach(first, min(self._top, last + width))
        found = await self._source.survey(first, end)
        if self._begun:
            self._width = widened(width, len(found), SURVEY_LIMIT_UIDS)
        self._begun = True
        self._over = end is None and len(found) < SURVEY_LIMIT_ROWS
        return Window(found, end)
