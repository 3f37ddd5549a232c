"""Refusals of everything, one after another → a pause for the account. Pure but for its memory of the last ones.

A relay that refuses whatever it is given (5.7.x: policy, reputation, a login that may not send) makes every queued
request fail in seconds. Used by deliver.py; RFC 3463 section 3.8 for the class.
"""

from collections.abc import Mapping
from typing import Final

from service.errors import Permanent
from service.outbound.retry import Said, Verdict

# So many requests in a row, refused whole and alike. One is the recipient's affair, twenty are the account's.
ALIKE_LIMIT: Final = 20
_POLICY: Final = "5.7."
_SHOWN_WORDS: Final = 2  # code and enhanced code: the rest may hold addresses


class Breaker:
    """Opens after ALIKE_LIMIT; once it has, a single one more is enough until somebody's mail is taken."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._alike = 0
        self._last = ""

    def heard(self, said: Mapping[str, Said]) -> Permanent | None:
        """Take note of an attempt; gives why to pause, if it is time to."""
        codes = {" ".join(one.reply.split()[:_SHOWN_WORDS]) for one in said.values() if _by_policy(one)}
        if len(codes) != 1 or not all(map(_by_policy, said.values())):
            if any(one.verdict is Verdict.ACCEPTED for one in said.values()):
                self._alike = 0
            return None
        (code,) = codes
        self._alike = self._alike + 1 if code == self._last else 1
        self._last = code
        if self._alike < ALIKE_LIMIT:
            return None
        return Permanent(
            f"the relay refuses all mail: {code}, {self._alike} requests in a row",
            where=self._account,
            remedy="ask its operator what this account may send; the statuses have its words",
        )


def _by_policy(said: Said) -> bool:
    words = said.reply.split()
    return said.verdict is Verdict.REFUSED and len(words) >= _SHOWN_WORDS and words[1].startswith(_POLICY)
