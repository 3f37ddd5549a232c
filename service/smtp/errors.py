"""What a delivery may fail with, beside the verdicts themselves."""

from collections.abc import Mapping

from service.errors import Transient, Uncertain
from service.smtp.wire import Reply


class RelayUnreachable(Transient):
    """No connection to the relay came about: nothing was said of any message."""


class DotUnanswered(Uncertain):
    """The final dot was sent and no reply to it was understood. `refused`: recipients that were refused before it."""

    def __init__(self, what: str, *, where: str, refused: Mapping[str, Reply]) -> None:
        super().__init__(what, where=where, remedy="the relay may or may not have the message")
        self.refused = dict(refused)
