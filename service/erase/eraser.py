"""What was found → gone. Killed anywhere, it is begun again and finds the rest.

What an event changed in the known state is kept before it goes; the event that carries a mailbox's position goes once
the position's copy is there: its process writes that, or the eraser where none follows the mailbox any more. Blobs go
before the events that name them: afterwards nobody would know of them.
"""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from service.bus import Bus, Conflict, KeyValue, Tail
from service.clock import Clock
from service.contract import CURSOR_HEADER
from service.erase.blobs import remove_blobs
from service.erase.found import Found
from service.erase.look import PSEUDONYM, Wanted
from service.errors import Transient
from service.ingest import Copies, Erased, load_cursor

# A copy follows its commit by two seconds. All mailboxes are waited for together.
COPY_TRIES: Final = 15
COPY_EVERY_S: Final = 1.0
CONFLICTS_LIMIT: Final = 5
# Strangers' messages on top of a mailbox's last event.
FOREIGN_LIMIT: Final = 10_000


class _Reset(msgspec.Struct):
    """What is looked at of a mailbox's new epoch."""

    mailbox: str


_RESET: Final = msgspec.json.Decoder(_Reset)


@dataclass(slots=True)
class Erasure:
    """How much of each is gone; of requests, how many are kept under the pseudonym."""

    events: int = 0
    blobs: int = 0
    statuses: int = 0
    dead_letters: int = 0
    requests: int = 0
    copies: int = 0
    left_behind: int = 0


async def erase(bus: Bus, wanted: Wanted, found: Found, clock: Clock) -> Erasure:
    """Erase it. Raises Transient (begin again), Permanent where more is erased than can be kept in mind."""
    done, subjects = Erasure(), bus.subjects
    copies = Copies(bus.key_value(subjects.cursors), clock)
    bounds = await bus.log.bounds()
    log = bus.contents(subjects.stream_in)
    for mailbox, events in found.events.items():
        await copies.keep_erased(mailbox, events, stream_created=bounds.created, first_seq=bounds.first_seq)
    await _see_copied(bus, copies, found.events, clock)
    done.blobs = await remove_blobs(bus, found.blobs, since=found.last, clock=clock)
    for one in itertools.chain.from_iterable(found.events.values()):
        done.events += await log.erase(one.seq)
    for seq in found.statuses:
        done.statuses += await bus.contents(subjects.stream_status).erase(seq)
    for seq in found.dead:
        done.dead_letters += await bus.contents(subjects.stream_dead).erase(seq)
    # Who has one of these copies in hand finds its object gone, and puts nothing there.
    if found.waiting.kept:
        await bus.tell_forget()
    for name in found.waiting.kept:
        await bus.blobs(subjects.outbox).delete(name)
        done.left_behind += 1
    for seq in found.waiting.copies:
        done.copies += await bus.contents(subjects.stream_later).erase(seq)
    if wanted.mention is not None:
        for key in found.sends:
            done.requests += await _anonymous(bus.key_value(subjects.sends), key, wanted.mention)
    return done


async def _see_copied(bus: Bus, copies: Copies, events: Mapping[str, Sequence[Erased]], clock: Clock) -> None:
    """Until the position of each mailbox stands elsewhere than in an event that goes. Raises Transient, Permanent."""
    created = (await bus.log.bounds()).created
    waiting = {mailbox: {one.seq for one in goes} for mailbox, goes in events.items()}
    for attempt in range(COPY_TRIES):
        if attempt:
            await clock.sleep(COPY_EVERY_S)
        waiting = {one: seqs for one, seqs in waiting.items() if await _last_word(bus, copies, one, seqs, created)}
        if not waiting:
            return
    # Whoever follows these would have written it by now: their accounts, or they themselves, are followed no more.
    for mailbox, seqs in waiting.items():
        account, token = mailbox.split(".")[2:4]
        last = await _last_word(bus, copies, mailbox, seqs, created)
        cursor = load_cursor(last.headers[CURSOR_HEADER], where=mailbox) if last is not None else None
        if last is not None and cursor is not None:
            told = await _name(bus, account, token)
            await copies.write_for(account, token, last.seq, cursor, stream_created=created, told=told)
            last = await _last_word(bus, copies, mailbox, seqs, created)
        if last is not None:
            raise Transient(
                f"the last event of a mailbox of {account} alone says where it goes on; nothing was erased",
                where=f"message {last.seq} of {bus.subjects.stream_in}",
                remedy="have a mailbus that follows it run: it copies that at its start; then begin again",
            )


async def _name(bus: Bus, account: str, token: str) -> str:
    """What a mailbox is called, as its last `reset` that the log still has says; its token may be a hash."""
    log, name = bus.contents(bus.subjects.stream_in), ""
    async for event in log.read(f"{bus.subjects.prefix}.in.{account}.{token}.reset", after=0, last=await log.last()):
        with suppress(msgspec.MsgspecError):
            name = _RESET.decode(event.payload).mailbox
    return name


async def _last_word(
    bus: Bus, copies: Copies, mailbox: str, seqs: Collection[int], stream_created: datetime
) -> Tail | None:
    """The event that alone says where a mailbox goes on, where it is one of `seqs`; None where all is well."""
    last = await bus.log.tail(mailbox)
    for _ in range(FOREIGN_LIMIT):
        if last is None or CURSOR_HEADER in last.headers:
            break
        last = await bus.log.before(mailbox, last.seq)
    if last is None or last.seq not in seqs:
        return None
    stands = await copies.stands_at(mailbox.split(".")[2], last.seq, stream_created=stream_created)
    return None if stands else last


async def _anonymous(bucket: KeyValue, key: str, mention: re.Pattern[str]) -> bool:
    """A request's record with the pseudonym in the place of the address; False where it is gone."""
    for _ in range(CONFLICTS_LIMIT):
        entry = await bucket.get(key)
        if entry is None:
            return False
        try:
            record = _without(msgspec.json.decode(entry.value), mention)
            await bucket.update(key, msgspec.json.encode(record), entry.revision)
        except Conflict:
            continue
        return True
    raise Transient("a request's record changes all the time", where=key, remedy="begin again")


def _without(value: Any, mention: re.Pattern[str]) -> Any:
    """The pseudonym in the place of the address, wherever text stands; keys are texts too."""
    match value:
        case str():
            return mention.sub(PSEUDONYM, value)
        case dict():
            return {_without(key, mention): _without(one, mention) for key, one in value.items()}
        case list():
            return [_without(one, mention) for one in value]
    return value
