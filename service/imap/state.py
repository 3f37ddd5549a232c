"""IDLE as a table. Pure.

Used by session.py. RFC 2177; RFC 9051 6.3.13: DONE may only be sent after the continuation, and after DONE the
tagged answer must come.
"""

from enum import Enum, auto
from typing import Final

from service.errors import PeerError


class Idle(Enum):
    """Where an IDLE stands."""

    OFF = auto()
    ASKED = auto()
    ON = auto()
    LEAVING = auto()


class Seen(Enum):
    """What happens to it: START and DONE are ours, PLUS and TAGGED the server's."""

    START = auto()
    PLUS = auto()
    DONE = auto()
    TAGGED = auto()


IDLE: Final[dict[tuple[Idle, Seen], Idle]] = {
    (Idle.OFF, Seen.START): Idle.ASKED,
    (Idle.ASKED, Seen.PLUS): Idle.ON,
    (Idle.ASKED, Seen.TAGGED): Idle.OFF,  # refused
    (Idle.ON, Seen.DONE): Idle.LEAVING,
    (Idle.ON, Seen.TAGGED): Idle.OFF,  # the server ended it
    (Idle.LEAVING, Seen.TAGGED): Idle.OFF,
}


def next_idle(state: Idle, seen: Seen) -> Idle:
    """The next state. Raises PeerError where the server broke the protocol, RuntimeError where we did."""
    reached = IDLE.get((state, seen))
    if reached is not None:
        return reached
    message = f"{seen.name} while IDLE is {state.name}"
    if seen in {Seen.PLUS, Seen.TAGGED}:
        raise PeerError(message)
    raise RuntimeError(message)
