"""A POP3 session as an enum and a table. Pure.

Used by protocol.py. RFC 1939 sections 4 to 6: who is not known may do next to nothing, messages are marked in
TRANSACTION, and only QUIT, in UPDATE, takes away what is marked. RFC 2449 5: CAPA in both; RFC 2595 4: STLS before
the login alone.
"""

from enum import Enum, StrEnum, auto
from typing import Final


class Phase(Enum):
    """Where a session stands. UPDATE: QUIT is said, and nobody knows yet whether the server has done it."""

    GREETING = auto()
    AUTHORIZATION = auto()
    TRANSACTION = auto()
    UPDATE = auto()
    OVER = auto()


class Verb(StrEnum):
    """What is said; GREET is the server's first line."""

    GREET = "greeting"
    CAPA = "CAPA"
    STLS = "STLS"
    USER = "USER"
    PASS = "PASS"
    APOP = "APOP"
    AUTH = "AUTH"
    STAT = "STAT"
    LIST = "LIST"
    UIDL = "UIDL"
    RETR = "RETR"
    TOP = "TOP"
    DELE = "DELE"
    NOOP = "NOOP"
    QUIT = "QUIT"


# Where a session stands once the answer is +OK. After -ERR it stands where it stood.
ANSWERED: Final[dict[tuple[Phase, Verb], Phase]] = {
    (Phase.GREETING, Verb.GREET): Phase.AUTHORIZATION,
    (Phase.AUTHORIZATION, Verb.CAPA): Phase.AUTHORIZATION,
    (Phase.AUTHORIZATION, Verb.STLS): Phase.AUTHORIZATION,
    (Phase.AUTHORIZATION, Verb.USER): Phase.AUTHORIZATION,
    (Phase.AUTHORIZATION, Verb.PASS): Phase.TRANSACTION,
    (Phase.AUTHORIZATION, Verb.APOP): Phase.TRANSACTION,
    (Phase.AUTHORIZATION, Verb.AUTH): Phase.TRANSACTION,
    (Phase.TRANSACTION, Verb.CAPA): Phase.TRANSACTION,
    (Phase.TRANSACTION, Verb.STAT): Phase.TRANSACTION,
    (Phase.TRANSACTION, Verb.LIST): Phase.TRANSACTION,
    (Phase.TRANSACTION, Verb.UIDL): Phase.TRANSACTION,
    (Phase.TRANSACTION, Verb.RETR): Phase.TRANSACTION,
    (Phase.TRANSACTION, Verb.TOP): Phase.TRANSACTION,
    (Phase.TRANSACTION, Verb.DELE): Phase.TRANSACTION,
    (Phase.TRANSACTION, Verb.NOOP): Phase.TRANSACTION,
    (Phase.UPDATE, Verb.QUIT): Phase.OVER,
}
# Where it stands once the command is out: of all commands only QUIT moves it before its answer.
SENT: Final[dict[tuple[Phase, Verb], Phase]] = {
    (Phase.AUTHORIZATION, Verb.QUIT): Phase.UPDATE,
    (Phase.TRANSACTION, Verb.QUIT): Phase.UPDATE,
}


def sent(phase: Phase, verb: Verb) -> Phase:
    """The phase once a command is out. Raises RuntimeError where it may not be said: our own fault."""
    moved = SENT.get((phase, verb))
    if moved is not None:
        return moved
    if (phase, verb) not in ANSWERED or verb is Verb.QUIT:
        raise RuntimeError(f"POP3: {verb} while {phase.name}")
    return phase


def answered(phase: Phase, verb: Verb, *, ok: bool) -> Phase:
    """The phase once the answer is there. Raises RuntimeError for a pair that is not in the table."""
    try:
        reached = ANSWERED[phase, verb]
    except KeyError:
        raise RuntimeError(f"POP3: an answer to {verb} while {phase.name}") from None
    return reached if ok or reached is Phase.OVER else phase
