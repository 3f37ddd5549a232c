"""Recipients of whom nobody heard whether the relay took their mail → what mailboxes tell of it.

Used by attempt.py before a lost answer becomes `uncertain`, and by deliver.py before such a request is tried again or
given up. Two things count: a copy in Sent, where the provider keeps what it sends, and a proved report on the mail
(returned.py).
"""

from collections.abc import Mapping
from typing import Final

from service.contract import request_key
from service.observe import log
from service.outbound.proof import known_of
from service.outbound.retry import Said, Verdict
from service.outbound.sends import SendRecord, Sends
from service.outbound.sent import SentMailbox
from service.outbound.told import REPORTED

_IN_SENT: Final = Said(Verdict.ACCEPTED, "250 2.0.0 the relay's answer was lost: the mail is in Sent")
_CAME_BACK: Final = Said(Verdict.ACCEPTED, "250 2.0.0 the relay's answer was lost: the mail was reported on")


class Evidence:
    """One account's; `sent` is None where it has no mailboxes to look into."""

    def __init__(self, account: str, sends: Sends, sent: SentMailbox | None) -> None:
        self._account = account
        self._sends = sends
        self._sent = sent

    async def of_attempt(self, record: SendRecord, said: Mapping[str, Said]) -> dict[str, Said]:
        """What was said, and for whom nothing was said whether the mail is in Sent."""
        unsure = [who for who, one in said.items() if one.verdict is Verdict.UNKNOWN]
        if not unsure:
            return dict(said)
        # A copy says nothing of a single recipient: where somebody was taken before, or now, it is perhaps his.
        taken = record.taken or any(one.verdict is Verdict.ACCEPTED for one in said.values())
        if not taken and await self._is_in_sent(record):
            return {**said, **dict.fromkeys(unsure, _IN_SENT)}
        return dict(said)

    async def of_waiting(self, record: SendRecord) -> dict[str, Said]:
        """Between attempts: who of those that an earlier one left uncertain certainly has the mail."""
        unsure = record.doubted
        if not unsure:
            return {}
        back = {one.partition(" ")[2].lower() for one in record.returned if one.startswith(f"{REPORTED} ")}
        found = {who: _CAME_BACK for who in unsure if who.lower() in back}
        once = record.unsure == 1 and set(record.taken) == set(unsure)
        if len(found) < len(unsure) and once and await self._is_in_sent(record):
            found = dict.fromkeys(unsure, _IN_SENT) | found
        return found

    async def _is_in_sent(self, record: SendRecord) -> bool:
        if self._sent is None or record.split or record.copy or not record.message_id:
            return False
        known = known_of(record.message_id, await self._sends.secret())
        # Of raw bytes a copy may be there that nobody sent: the requester's, or that of another request.
        if known is None or known.key != request_key(self._account, record.id):
            return False
        found = await self._sent.has(record.message_id, since=record.date)
        log.info("sent_looked_at", account=self._account, found=found)
        return found
