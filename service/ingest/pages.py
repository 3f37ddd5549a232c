"""What one commit will announce, from survey to event; and what of it POP3 announced already.

Filled by reading.py, committed by mailbox.py.
"""

from dataclasses import dataclass, field
from typing import Final

from service.contract import NUMBERS_FROM
from service.ingest.announce import Announced
from service.ingest.numbers import Numbers
from service.ingest.plan import PAGE_LIMIT_BYTES, PAGE_LIMIT_MESSAGES
from service.ingest.prints import print_of
from service.ingest.surveyed import Fetched, Surveyed
from service.parsing import Made

# A commit costs the server 2 ms whatever is in it: what waits for one goes together, up to two full pages.
COMMIT_LIMIT_MESSAGES: Final = 2 * PAGE_LIMIT_MESSAGES
COMMIT_LIMIT_BYTES: Final = 2 * PAGE_LIMIT_BYTES


@dataclass(slots=True)
class Page:
    """`held`: bytes of the budget; `room`: bytes that may still come; `left_out`: UIDs of what there was no room for.

    `paired`: messages that were announced already, under which numbers.
    """

    wanted: list[Surveyed]
    held: int
    room: int
    fetched: list[Fetched] = field(default_factory=list)
    unavailable: list[Surveyed] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    paired: list[tuple[Surveyed, int]] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    announced: Announced = field(default_factory=lambda: Announced([], []))

    def takes(self, message: Fetched) -> bool:
        """Add a message, where there is room: the first one has it always, none has it behind one that had not."""
        if self.left_out or (self.fetched and len(message.body) > self.room):
            self.left_out.add(message.surveyed.uid)
            return False
        self.room -= len(message.body)
        self.fetched.append(message)
        return True

    def end_sooner(self) -> None:
        """End before the first message that was left out."""
        end = next(at for at, message in enumerate(self.wanted) if message.uid in self.left_out)
        self.wanted = self.wanted[:end]
        there = {message.uid for message in self.wanted}
        self.fetched = [message for message in self.fetched if message.surveyed.uid in there]
        self.unavailable = [message for message in self.unavailable if message.uid in there]

    def join(self, behind: "Page") -> bool:
        """Have the page that comes next committed with this one, where both are small enough: False, nothing is done.

        Both are ready to be committed.
        """
        events, more = self.announced.events, behind.announced.events
        if len(events) + len(more) > COMMIT_LIMIT_MESSAGES or self.held + behind.held > COMMIT_LIMIT_BYTES:
            return False
        self.announced.dead.extend(len(events) + index for index in behind.announced.dead)
        events.extend(more)
        self.wanted = behind.wanted
        self.paired += behind.paired
        self.held += behind.held
        return True


class Pairing:
    """Finds what waits for its UID among what IMAP gives. One connection's: pages are ahead of their commits."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self, page: Page, numbers: Numbers) -> None:
        """Such messages are `paired` and not `fetched` any more."""
        if not numbers.waiting:
            return
        rest: list[Fetched] = []
        for message in page.fetched:
            is_uid = message.surveyed.uid < NUMBERS_FROM
            found = numbers.find(print_of(message.body, whole=message.whole), self._taken) if is_uid else 0
            if found:
                self._taken.add(found)
                page.paired.append((message.surveyed, found))
            else:
                rest.append(message)
        page.fetched = rest
