"""What one commit will announce, from survey to event; and what of it POP3 announced already. Used by mailbox.py."""

from dataclasses import dataclass, field

from service.contract import NUMBERS_FROM
from service.ingest.announce import Announced
from service.ingest.numbers import Numbers
from service.ingest.prints import print_of
from service.ingest.source import Fetched, Surveyed
from service.parsing import Made


@dataclass(slots=True)
class Page:
    """`held`: bytes of the budget; `paired`: messages that were announced already, under which numbers."""

    wanted: list[Surveyed]
    fetched: list[Fetched]
    unavailable: list[Surveyed]
    held: int
    paired: list[tuple[Surveyed, int]] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    announced: Announced = field(default_factory=lambda: Announced([], []))


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
