"""The stages of one mail transaction as an enum and a table. Pure.

The one question that matters afterwards: was the message's end sent, the final dot or the last chunk? Until DOT, a lost
connection lost nothing (RFC 5321 4.1.1.4, RFC 3030 2: the server must not act on a message without its end); from DOT
on nobody knows.
"""

from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """Where a connection stands."""

    READY = "ready"  # between transactions
    ENVELOPE = "envelope"  # MAIL, RCPT and perhaps DATA, or an empty chunk, are out, their replies come
    BODY = "body"  # the go-ahead came, the message streams
    DOT = "dot"  # the final dot, or the last chunk, is out
    SPOILED = "spoiled"  # out of step or gone: never used again


class Seen(StrEnum):
    """What happens to it."""

    MAIL = "mail"  # we send MAIL
    REFUSED = "refused"  # every reply of the envelope came, and there is nothing to send
    GO_AHEAD = "go_ahead"  # 354, or 250 to the empty chunk
    DOT = "dot"  # we send the message's end
    ANSWERED = "answered"  # every reply to it came
    LOST = "lost"  # disconnected, timed out, cancelled, 421, or the reply makes no sense


TRANSACTION: Final[dict[tuple[Stage, Seen], Stage]] = {
    (Stage.READY, Seen.MAIL): Stage.ENVELOPE,
    (Stage.READY, Seen.LOST): Stage.SPOILED,
    (Stage.ENVELOPE, Seen.REFUSED): Stage.READY,
    (Stage.ENVELOPE, Seen.GO_AHEAD): Stage.BODY,
    (Stage.ENVELOPE, Seen.LOST): Stage.SPOILED,
    (Stage.BODY, Seen.DOT): Stage.DOT,
    (Stage.BODY, Seen.LOST): Stage.SPOILED,
    (Stage.DOT, Seen.ANSWERED): Stage.READY,
    (Stage.DOT, Seen.LOST): Stage.SPOILED,
    (Stage.SPOILED, Seen.LOST): Stage.SPOILED,
}


def after(stage: Stage, seen: Seen) -> Stage:
    """The next stage. Raises RuntimeError for a pair that is not in the table: our own fault."""
    try:
        return TRANSACTION[stage, seen]
    except KeyError:
        raise RuntimeError(f"SMTP transaction: {seen} while {stage}") from None
