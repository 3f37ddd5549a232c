"""What NATS refuses → a word in the log for each, and no wait for what cannot come. Used by client.py.

On a subject that is not permitted the server drops what is published, and says so beside it: whoever asked there would
hear nothing but silence.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import nats.errors

from service.bus.errors import NotPermitted
from service.observe import log

_REFUSED: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"')
# Who sees so many needs no more of them.
SAID_LIMIT: Final = 100
# A bucket's keys are one thing to permit, and so are an account's consumers.
_BUCKETS: Final = ("$kv.", "$o.")
_BUCKET_TOKENS: Final = 2
_OTHER_TOKENS: Final = 5
REMEDY: Final = "give the user of NATS this right (mailbus streams permissions), or ask as another user"


@dataclass(frozen=True, slots=True)
class Refused:
    """What a user may not do: `publish` to a subject, or hear one (`subscription`), in small letters."""

    what: str
    subject: str

    def concerns(self, subject: str) -> bool:
        """Whether no answer comes to what was asked on a subject: where the inbox is refused to nothing."""
        return subject.lower() == self.subject if self.what == "publish" else self.is_inbox

    @property
    def is_inbox(self) -> bool:
        """Whether answers cannot be heard."""
        return self.what != "publish" and self.subject.startswith("_inbox")


def not_permitted(subject: str) -> NotPermitted:
    """For whoever asked there."""
    return NotPermitted("NATS does not permit it", where=subject, remedy=REMEDY)


class Refusals:
    """Of one client."""

    def __init__(self) -> None:
        self._login_said = False
        self._said: set[str] = set()
        self._asking: dict[asyncio.Timeout, Collection[str]] = {}
        self._gathered: set[Refused] | None = None

    def heard(self, error: Exception, *, away: bool) -> Refused | None:
        """What the client heard of the server; gives what is not permitted.

        `away`: it looks for NATS, or for another server.
        """
        if away and not self._login_said and refuses_login(error):
            self._login_said = True
            log.warning("nats_refused", error=str(error))
        found = _REFUSED.search(str(error).lower())
        if found is None:
            return None
        refused = Refused(*found.groups())
        if self._gathered is not None:
            self._gathered.add(refused)
        else:
            self._say(refused.what, refused.subject)
        now = asyncio.get_running_loop().time()
        for limit, asked in self._asking.items():
            if not limit.expired() and any(map(refused.concerns, asked)):
                limit.reschedule(now)
        return refused

    def _say(self, what: str, subject: str) -> None:
        tokens = _BUCKET_TOKENS if subject.startswith(_BUCKETS) else _OTHER_TOKENS
        kind = f"{what} {'.'.join(subject.split('.')[:tokens])}"
        if kind not in self._said and len(self._said) < SAID_LIMIT:
            self._said.add(kind)
            log.warning("nats_not_permitted", what=what, subject=subject, remedy=REMEDY)

    def forget(self) -> None:
        """The connection is another one, whose rights may be others."""
        self._login_said = False
        self._said.clear()

    @contextmanager
    def gathered(self) -> Iterator[set[Refused]]:
        """What is not permitted within the block, for whoever tells it in words of its own."""
        found: set[Refused] = set()
        self._gathered = found
        try:
            yield found
        finally:
            self._gathered = None

    @asynccontextmanager
    async def permitted(self, *subjects: str) -> AsyncIterator[None]:
        """Ask on subjects within the block. Raises NotPermitted once the server says that it takes nothing there."""
        try:
            async with asyncio.timeout(None) as limit:
                self._asking[limit] = subjects
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise not_permitted(subjects[0]) from None
        finally:
            self._asking.pop(limit, None)


def refuses_login(error: Exception) -> bool:
    """Whether a server says that it does not know these credentials; `Authentication Timeout` is said by a busy one."""
    said = str(error).lower()
    is_of_login = "authorization" in said or "authentication" in said
    return isinstance(error, nats.errors.Error) and is_of_login and "timeout" not in said
