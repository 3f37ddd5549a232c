"""The state of each request in `mail-sends`, written by compare-and-set: who tries, who is settled, what was said.

Used by deliver.py. Whoever's write is refused has lost the request to another process, and stops before the dot.
"""

import hashlib
import random
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import msgspec

from service.bus import Conflict, Job, KeyValue
from service.clock import Clock
from service.contract import URGENT, State, account_of_out, encode
from service.errors import Transient
from service.outbound.insist import insist
from service.outbound.proof import mark_of
from service.outbound.retry import Phase, Said

# What names a request in messages of mailbus's own.
KEY_HEADER: Final = "Mail-Request-Key"
SECRET_KEY: Final = "_message-id"  # a name, not a secret: the value lies in the bucket
# What stands as the last reply to whoever waits for a turn, where each recipient has a mail.
NOT_YET: Final = "not sent yet"


class StoredStatus(msgspec.Struct, frozen=True):
    """A status event as it is published, again and again until it is known to stand."""

    state: State
    id: str
    time: datetime
    body: msgspec.Raw


class SendRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request. `source` names the message it came in; `owner` the one who wrote this, unlike any other.

    `taken`: for whom a relay took it, or may have. `cancelled`: who will not get it by a command.
    """

    id: str
    source: str
    owner: str
    phase: Phase
    attempt: int
    message_id: str
    date: datetime
    expires_at: datetime
    pending: dict[str, str] = {}
    held: list[str] = []
    refused: dict[str, Said] = {}  # phase intent: refused before the dot
    next_at: datetime | None = None
    statuses: list[StoredStatus] = []
    outbox: str | None = None
    dead: bool = False
    taken: list[str] = []
    cancelled: list[str] = []
    account: str = ""
    # "bounced a@example.org": what came back and was told.
    returned: list[str] = []
    # The same of what nothing proves.
    claimed: list[str] = []
    # It waits for its recipients' domains to have a turn.
    turn: bool = False
    # A copy is in the account's Sent mailbox, or on its way there.
    copy: bool = False
    # How often nobody knew whether the mail went out.
    unsure: int = 0
    # Where there are several: who was asked last.
    relay: str = ""
    # A message for each recipient.
    split: bool = False
    # Whose turn it is, and in phase intent those whose dot may be out: of a message for each a few at a time; of one
    # for all everybody who waits. Between attempts, where some names stand here only those come next, whom the last one
    # did not get to.
    trying: list[str] = []
    # How many attempts did not get to somebody: none of them makes a pause longer.
    overfull: int = 0

    @property
    def unseen(self) -> bool:
        """Cancelled before anybody had taken it: who its recipients are is not known yet, and nothing was said."""
        return self.phase is Phase.FINAL and not self.source and not self.statuses

    @property
    def open(self) -> list[str]:
        """Whose turn it is; in phase intent, whose outcome is not known."""
        if self.split:
            return self.trying
        return [who for who in self.trying if who in self.pending] or list(self.pending)

    @property
    def waiting(self) -> list[str]:
        """Who has no final status yet."""
        return list(dict.fromkeys([*self.pending, *self.held]))

    @property
    def doubted(self) -> list[str]:
        """Of whom no earlier attempt heard whether he got the mail. Whoever was put off has the relay's words."""
        return [who for who, reply in self.pending.items() if not reply] + self.held if self.unsure else []

    @property
    def others(self) -> dict[str, str]:
        """Those of `pending` that are not tried just now."""
        now = set(self.open)
        return {who: reply for who, reply in self.pending.items() if who not in now}


_DECODER: Final = msgspec.json.Decoder(SendRecord)


def source_of(job: Job) -> str:
    """The name of the message that a request came in."""
    return f"{job.subject} {job.seq}"


def consumer_of_out(subject: str) -> str:
    """The name of the consumer of an account's queue, and of the one for its urgent requests."""
    account = account_of_out(subject)
    return f"{'high' if subject.endswith(URGENT) else 'out'}-{account}"


def consumer_of_stray(subject: str) -> str:
    """The name of the consumer of what is queued under a name that no account can have; no account's is called so."""
    return f"stray-{hashlib.sha256(subject.encode()).hexdigest()[:16]}"


def new_owner() -> str:
    """Who writes a record, unlike any other. No secret: a process that was forked has chance of its own as well."""
    return f"{random.getrandbits(128):032x}"


def new_record(id: str, job: Job, expires_at: datetime) -> SendRecord:
    """A request of which nothing is settled yet."""
    return SendRecord(
        id=id,
        source=source_of(job),
        owner="",
        phase=Phase.INTENT,
        attempt=0,
        message_id="",
        date=job.stored_at,
        expires_at=expires_at,
        account=account_of_out(job.subject),
    )


class Sends:
    """The bucket."""

    def __init__(self, bucket: KeyValue, for_ever: KeyValue, clock: Clock) -> None:
        self._bucket = bucket
        self._for_ever = for_ever
        self._clock = clock
        self._secret: bytes | None = None

    async def get(self, key: str) -> tuple[SendRecord | None, int]:
        """A request's record and the revision to write it from. Raises Transient."""
        entry = await self._bucket.get(key)
        return (_DECODER.decode(entry.value), entry.revision) if entry is not None else (None, 0)

    async def get_all(self, keys: Sequence[str]) -> dict[str, SendRecord]:
        """The records of some requests, in their order, without those that have none. Raises Transient."""
        found = await self._bucket.get_all(keys)
        return {key: _DECODER.decode(entry.value) for key, entry in found.items()}

    async def put(self, key: str, record: SendRecord, revision: int) -> int:
        """Write a record over `revision`, or where there is none. Raises Conflict, Transient."""
        value = encode(record)

        async def write() -> int:
            try:
                if revision == 0:
                    return await self._bucket.create(key, value)
                return await self._bucket.update(key, value, revision)
            except Conflict:
                # An answer that was lost looks like this too: `owner` tells our own write from another's.
                entry = await self._bucket.get(key)
                if entry is not None and entry.value == value:
                    return entry.revision
                raise

        return await insist(write, key, self._clock)

    async def report(self, key: str, recipients: Iterable[str]) -> None:
        """Keep who has a request's mail by a report. Raises Transient."""
        for who in recipients:
            with suppress(Conflict):  # an earlier one said so, too
                await self._bucket.create(_report_of(key, who), b"1")

    async def reported(self, key: str, recipients: Iterable[str]) -> list[str]:
        """Of whom that is kept. Raises Transient."""
        kept = {_report_of(key, who): who for who in recipients}
        # Whoever asks may know what the relay said, and has not stored it yet.
        return [kept[name] for name in await insist(lambda: self._bucket.get_all(list(kept)), key, self._clock)]

    async def secret(self) -> bytes:
        """The key of this deployment's Message-IDs: random, made once, shared by every replica. Raises Transient."""
        if self._secret is None:
            # Not among the requests: there it would be gone after the longest window.
            entry = await self._for_ever.get(SECRET_KEY)
            if entry is None:
                with suppress(Conflict):  # another process was first: its secret serves
                    await self._for_ever.create(SECRET_KEY, secrets.token_bytes(32))
                entry = await self._for_ever.get(SECRET_KEY)
                if entry is None:
                    raise Transient("the secret of Message-IDs is gone", where="mail-cursors")
            self._secret = entry.value
        return self._secret


def _report_of(key: str, recipient: str) -> str:
    """The bucket's key: no record's, and it names nobody."""
    return f"reported-{key}-{mark_of(recipient)}"
