"""A connection that is waited for before there is a message → who has it, and whether it is others' again.

Made by pool.py, for whoever is to wait for none later.
"""

from collections.abc import Callable

from service.smtp.session import Session


class Booking:
    """A connection that is one's own between messages, too, until `end`. They go one after the other."""

    def __init__(self, relay: object, session: Session, leave: Callable[[Session], None]) -> None:
        self._relay = relay
        self._leave = leave
        self._session: Session | None = None
        self._ended = False
        self.give(session)

    def take(self, relay: object) -> Session | None:
        """It, for a message to that relay; None where it is another's, or a message has it, or it is no more."""
        if relay is not self._relay:
            return None
        session, self._session = self._session, None
        return session

    def give(self, session: Session) -> None:
        """What was taken, or one in its place: the message is through with it."""
        if self._ended or not session.usable:
            self._leave(session)
        else:
            self._session, session.shared = session, False

    def end(self) -> None:
        """It is others'; again does nothing."""
        self._ended = True
        if (session := self.take(self._relay)) is not None:
            self._leave(session)
