"""Recipients of whom nobody heard whether the relay took their mail → what mailboxes tell of it.

Used by attempt.py and mailing.py before a lost answer becomes `uncertain`, and by broken.py before such a request is
tried again or given up. Two things count: a copy in Sent, where the provider keeps what it sends, and a proved report
on the mail (returned.py).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from service.contract import request_key
from service.observe import log
from service.outbound.mail import own_message_id
from service.outbound.proof import known_of
from service.outbound.retry import Said, Verdict
from service.outbound.sends import SendRecord, Sends
from service.outbound.sent import SentMailbox

_IN_SENT: Final = Said(Verdict.ACCEPTED, "250 2.0.0 the relay's answer was lost: the mail is in Sent")
_CAME_BACK: Final = Said(Verdict.ACCEPTED, "250 2.0.0 the relay's answer was lost: the mail was reported on")


class Evidence:
    """One account's; `sent` is None where it has no mailboxes to look into."""

    def __init__(self, account: str, sends: Sends, sent: SentMailbox | None) -> None:
        self._account = account
        self._sends = sends
        self._sent = sent

    async def of_attempt(self, record: SendRecord, said: Mapping[str, Said]) -> dict[str, Said]:
        """What was said, and for whom nothing was said what mailboxes tell."""
        unsure = [who for who, one in said.items() if one.verdict is Verdict.UNKNOWN]
        if not unsure:
            return dict(said)
        found = await self._reported(record, unsure)
        # A copy says nothing of a single recipient: where somebody was taken before, or now, it is perhaps his.
        taken = record.taken or any(one.verdict is Verdict.ACCEPTED for one in said.values())
        if record.split or not taken:
            found |= await self._in_sent(record, [who for who in unsure if who not in found])
        return {**said, **found}

    async def of_waiting(self, record: SendRecord) -> dict[str, Said]:
        """Between attempts: who of those that an earlier one left uncertain certainly has the mail."""
        unsure = record.doubted
        if not unsure:
            return {}
        # Of a mailing, which comes again and again, not yet of those who are tried later: each is asked for by himself.
        # Whoever is on hold is not tried any more.
        now = {*record.trying, *record.held} if record.split and record.trying else set(unsure)
        found = await self._reported(record, [who for who in unsure if who in now])
        left = [who for who in unsure if who not in found]
        if record.split:
            # Not yet of those whom this attempt is not about: a mailing comes again and again.
            return found | await self._in_sent(record, [who for who in left if who in (record.trying or left)])
        once = record.unsure == 1 and set(record.taken) == set(unsure)
        return found | (await self._in_sent(record, left) if once else {})

    async def of_part(self, record: SendRecord) -> dict[str, Said]:
        """Of a mailing, before a part of it is tried: who of those has the mail of an earlier attempt, by a report."""
        return await self._reported(record, [who for who in record.doubted if who in record.trying])

    async def _reported(self, record: SendRecord, unsure: Sequence[str]) -> dict[str, Said]:
        """Whom a report was about."""
        key = request_key(self._account, record.id)
        return dict.fromkeys(await self._sends.reported(key, unsure), _CAME_BACK) if unsure else {}

    async def _in_sent(self, record: SendRecord, unsure: Sequence[str]) -> dict[str, Said]:
        """Whose mail is there. One for all is there for all of them."""
        if not unsure or self._sent is None or record.copy or not record.message_id:
            return {}
        secret = await self._sends.secret()
        known = known_of(record.message_id, secret)
        # Of raw bytes a copy may be there that nobody sent: the requester's, or that of another request.
        if known is None or known.key != request_key(self._account, record.id):
            return {}
        ids = dict.fromkeys(unsure, record.message_id)
        if record.split:
            ids = {who: own_message_id(record.message_id, who, secret) for who in unsure}
        there = await self._sent.which(set(ids.values()), since=record.date)
        log.info("sent_looked_at", account=self._account, found=len(there))
        return {who: _IN_SENT for who, id in ids.items() if id in there}
