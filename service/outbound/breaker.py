"""Refusals of everything, one after another → a pause for the account. Pure but for its memory of the last ones.

A relay that refuses whatever it is given (5.7.x: policy, reputation, a login that may not send) makes every queued
request fail in seconds. Used by relays.py; RFC 3463 section 3.8 for the class. A domain that refuses is no such relay:
lanes.py slows it down.
"""

from collections.abc import Mapping
from typing import Final

from service.errors import Permanent
from service.outbound.blame import ALIKE_LIMIT, Spread, is_by_policy
from service.outbound.retry import Said, Verdict

_SHOWN_WORDS: Final = 2  # code and enhanced code: the rest may hold addresses


class Breaker:
    """Opens after ALIKE_LIMIT; once it has, a single one more is enough until somebody's mail is taken."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._alike = 0
        self._last = ""
        self._spread = Spread()

    def heard(self, said: Mapping[str, Said]) -> Permanent | None:
        """Take note of an attempt; gives why to pause, if it is time to."""
        codes = {" ".join(one.reply.split()[:_SHOWN_WORDS]) for one in said.values() if is_by_policy(one)}
        if len(codes) != 1 or not all(map(is_by_policy, said.values())):
            if any(one.verdict is Verdict.ACCEPTED for one in said.values()):
                self._alike = 0
                self._spread.clear()
            return None
        (code,) = codes
        if code != self._last:
            self._alike = 0
            self._spread.clear()
        self._alike += 1
        self._last = code
        if not self._spread.is_the_accounts(said) or self._alike < ALIKE_LIMIT:
            return None
        return Permanent(
            f"the relay refuses all mail: {code}, {self._alike} requests in a row",
            where=self._account,
            remedy="ask its operator what this account may send; the statuses have its words",
        )
