"""Whether a connection hears of all mailboxes (NOTIFY, RFC 5465), as a table; and how long a round may wait then. Pure.

Used by rounds.py.
"""

from enum import Enum, auto
from typing import Final

# With NOTIFY a round only finds what a server did not tell: Dovecot 2.3 keeps some notices until the next one. Where
# it costs a STATUS for each mailbox, it is rare.
HEARING_ROUND_S: Final = 300.0
# A server that refused, or could not keep up once (RFC 5465 5.8), is asked again after so long.
EAR_PAUSE_S: Final = 600.0


class Ear(Enum):
    """DEAF: no connection hears, rounds ask; ON: one hears; RESTS: none is asked to for a while, and rounds ask."""

    DEAF = auto()
    ON = auto()
    RESTS = auto()


class Noise(Enum):
    """What happens to it: the server agreed, refused, overflowed; the connection was lost; a while has passed."""

    AGREED = auto()
    REFUSED = auto()
    OVERFLOW = auto()
    LOST = auto()
    RESTED = auto()


EAR: Final[dict[tuple[Ear, Noise], Ear]] = {
    (Ear.DEAF, Noise.AGREED): Ear.ON,
    (Ear.DEAF, Noise.REFUSED): Ear.RESTS,
    (Ear.DEAF, Noise.OVERFLOW): Ear.RESTS,  # with the answer, or instead of one
    (Ear.DEAF, Noise.LOST): Ear.DEAF,
    (Ear.ON, Noise.OVERFLOW): Ear.RESTS,
    (Ear.ON, Noise.LOST): Ear.DEAF,
    (Ear.RESTS, Noise.AGREED): Ear.RESTS,
    (Ear.RESTS, Noise.REFUSED): Ear.RESTS,
    (Ear.RESTS, Noise.OVERFLOW): Ear.RESTS,
    (Ear.RESTS, Noise.LOST): Ear.RESTS,
    (Ear.RESTS, Noise.RESTED): Ear.DEAF,
}


def pause_s(ear: Ear, *, poll_s: float, cheap: bool, beyond: bool) -> float:
    """Seconds until the next round.

    `cheap`: it takes one command (LIST-STATUS); `beyond`: some that are followed are not told of.
    """
    return poll_s if cheap or beyond or ear is not Ear.ON else max(poll_s, HEARING_ROUND_S)
