"""What a relay said of many recipients → what of it a record has room for. Pure.

A record, and every status, is one message of NATS, which takes 1 MiB; a larger one ends the connection of everybody.
Used by attempt.py, before words go into a record, and by status.py.
"""

from collections.abc import Mapping
from typing import Final

from service.contract import RECIPIENTS_LIMIT, RECIPIENTS_LIMIT_BYTES, Problem, SendRequest
from service.outbound.retry import Said

# Of all recipients together: with 1,000 of them 100 bytes each. They stand in a record twice, and in JSON a quote is
# two bytes.
WORDS_LIMIT_BYTES: Final = 100_000
# Of one: TEXT_LIMIT_CHARS of smtp/wire.py, where none is ASCII.
ONE_LIMIT_BYTES: Final = 2_048
# What a record may hold of its recipients: each address up to seven times (pending, taken, in a status or among those
# who come next, returned and claimed by either kind of report), and some words round it.
TIMES: Final = 7
ROUND_BYTES: Final = 120
FIXED_BYTES: Final = 16 * 1024
LARGEST_BYTES: Final = (
    FIXED_BYTES + TIMES * RECIPIENTS_LIMIT_BYTES + ROUND_BYTES * RECIPIENTS_LIMIT + 4 * WORDS_LIMIT_BYTES
)


def short(reply: str, recipients: int) -> str:
    """As much of one reply as there is room for beside those of the others."""
    limit = min(ONE_LIMIT_BYTES, WORDS_LIMIT_BYTES // max(1, recipients))
    # In UTF-8 a character has four bytes at the most.
    if len(reply) * 4 <= limit:
        return reply
    return reply.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def shortened(said: Mapping[str, Said], recipients: int) -> dict[str, Said]:
    """What was said, in as many bytes as a record with so many recipients has room for."""
    return {who: Said(one.verdict, short(one.reply, recipients)) for who, one in said.items()}


def nameable(request: SendRequest | None, max_payload: int) -> list[str]:
    """The recipients of a request that is refused: nobody where there is no room to name all, or none can be read."""
    return [] if request is None or too_wide(request, max_payload) else request.recipients()


def too_wide(request: SendRequest, max_payload: int) -> list[Problem]:
    """What is wrong with a request whose record a NATS server would not take, if it takes less than they do."""
    if max_payload >= LARGEST_BYTES:
        return []
    recipients = request.recipients()
    addresses = sum(len(one.encode("utf-8", "replace")) for one in recipients)
    words = 4 * min(WORDS_LIMIT_BYTES, ONE_LIMIT_BYTES * len(recipients))
    if FIXED_BYTES + TIMES * addresses + ROUND_BYTES * len(recipients) + words <= max_payload:
        return []
    return [Problem("to", f"{len(recipients)} recipients are too many for a NATS of {max_payload} bytes: make several")]
