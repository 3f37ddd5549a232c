"""All streams, read whole → what an erasure would take. Changes nothing.

The log is read twice: for the mails that are meant, then for their other events and for who else names their blobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

import msgspec

from service.bus import Bus, Followed
from service.contract import STATE_HEADER, URGENT, EventType
from service.erase.look import Wanted, blobs_named
from service.erase.waiting import RECORD, Waiting, find_waiting
from service.errors import Permanent
from service.ingest import Erased
from service.outbound import Phase

BLOB_HEADER: Final = "Mail-Blob-Id"
ACCOUNT_HEADER: Final = "Mail-Account"
OF_A_MAIL: Final = frozenset({EventType.RECEIVED, EventType.CHANGED, EventType.REMOVED})


@dataclass(slots=True)
class Found:
    """`events`: by the subject of their mailbox's events. `last`: how far the log was read.

    `shared`: blobs of these mails that others name too. `under_way`: requests that name the address and are not final.
    """

    last: int
    events: dict[str, list[Erased]] = field(default_factory=dict)
    mails: set[tuple[str, str]] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    sends: list[str] = field(default_factory=list)
    waiting: Waiting = field(default_factory=Waiting)
    under_way: set[str] = field(default_factory=set)

    @property
    def counts(self) -> dict[str, int]:
        """How much of each."""
        return {
            "mails": len(self.mails),
            "events": sum(map(len, self.events.values())),
            "blobs": len(self.blobs),
            "statuses": len(self.statuses),
            "dead_letters": len(self.dead),
            "requests": len(self.sends),
            "copies": len(self.waiting.copies),
            "left_behind": len(self.waiting.kept),
        }


async def find(bus: Bus, wanted: Wanted) -> Found:
    """What of it stands on the bus now. Raises Transient."""
    subjects = bus.subjects
    log = bus.contents(subjects.stream_in)
    found = Found(await log.last())
    # A `changed` may name it alone: Gmail's labels are keywords.
    async for event in log.read(f"{subjects.prefix}.in.{wanted.account}.>", after=0, last=found.last):
        id = event.headers.get("ce-subject", "")
        if event.subject.rpartition(".")[2] in OF_A_MAIL and wanted.is_mail(id, event.payload):
            found.mails.add((_account_of(event), id))
            found.blobs |= blobs_named(event.payload, event.headers)
    elsewhere = await _dead_letters(bus, wanted, found)
    async for event in log.read(f"{subjects.prefix}.in.>", after=0, last=found.last):
        kind = event.subject.rpartition(".")[2]
        if kind in OF_A_MAIL and (_account_of(event), event.headers.get("ce-subject", "")) in found.mails:
            erased = Erased(event.seq, kind, event.headers.get("ce-id", ""), event.headers.get(STATE_HEADER, ""))
            found.events.setdefault(f"{event.subject.rpartition('.')[0]}.*", []).append(erased)
        elif kind == EventType.RECEIVED and found.blobs:
            elsewhere |= blobs_named(event.payload, event.headers)
    async for request in bus.contents(subjects.stream_out).waiting():
        elsewhere |= blobs_named(request.payload, request.headers)
        if wanted.has_account(_account_of(request)) and wanted.is_named(request.payload, request.headers):
            found.under_way.add(f"{request.subject} {request.seq}")
    found.shared = found.blobs & elsewhere
    found.blobs -= found.shared
    if wanted.mention is not None:
        await _statuses(bus, wanted, found)
        await _requests(bus, wanted, found)
        found.waiting = await find_waiting(bus, wanted)
        found.under_way |= found.waiting.under_way
    return found


async def blobs_since(bus: Bus, seq: int) -> set[str]:
    """What events beyond `seq`, and requests in the queue, name. Raises Transient."""
    log, named = bus.contents(bus.subjects.stream_in), set[str]()
    async for event in log.read(f"{bus.subjects.prefix}.in.*.*.received", after=seq, last=await log.last()):
        named |= blobs_named(event.payload, event.headers)
    async for request in bus.contents(bus.subjects.stream_out).waiting():
        named |= blobs_named(request.payload, request.headers)
    return named


async def _dead_letters(bus: Bus, wanted: Wanted, found: Found) -> set[str]:
    """Those that are meant; gives the blobs that the others name."""
    letters, others = bus.contents(bus.subjects.stream_dead), set[str]()
    async for letter in letters.read(f"{bus.subjects.prefix}.dead.>", after=0, last=await letters.last()):
        id, whose = letter.headers.get("ce-subject", ""), _account_of_letter(letter.headers)
        named = blobs_named(letter.payload, letter.headers)
        if wanted.has_account(whose) and (
            wanted.is_mail(id, await _whole(bus, letter)) or wanted.is_named(b"", letter.headers)
        ):
            found.dead.append(letter.seq)
            found.blobs |= named
            if id:
                found.mails.add((whose, id))
        else:
            others |= named
    return others


async def _whole(bus: Bus, letter: Followed) -> bytes:
    """A dead letter's text; a large request lies in a blob."""
    blob = letter.headers.get(BLOB_HEADER)
    if not blob:
        return letter.payload
    try:
        return await bus.blobs().get(blob)
    except Permanent:  # it is gone
        return letter.payload


async def _statuses(bus: Bus, wanted: Wanted, found: Found) -> None:
    stream = bus.contents(bus.subjects.stream_status)
    # A mail server's own words stand in the states of accounts.
    for told in (bus.subjects.status(wanted.account, "*"), bus.subjects.account(wanted.account, "*")):
        async for status in stream.read(told, after=0, last=await stream.last()):
            if wanted.is_named(status.payload, status.headers):
                found.statuses.append(status.seq)


async def _requests(bus: Bus, wanted: Wanted, found: Found) -> None:
    """Their records: those that are final are kept under a pseudonym, so that no id is sent a second time."""
    prefix = f"$KV.{bus.subjects.sends}."
    stream = bus.contents(f"KV_{bus.subjects.sends}")
    async for entry in stream.read(f"{prefix}>", after=0, last=await stream.last()):
        if not wanted.is_named(entry.payload):
            continue
        try:
            record = RECORD.decode(entry.payload)
        except msgspec.MsgspecError:
            continue
        key = entry.subject.removeprefix(prefix)
        if wanted.has_account(record.account):
            if record.phase is Phase.FINAL:
                found.sends.append(key)
            else:
                found.under_way.add(record.source)


def _account_of(message: Followed) -> str:
    """`<prefix>.in.<account>.…` and `<prefix>.out.<account>`."""
    return message.subject.split(".")[2].removesuffix(URGENT)


def _account_of_letter(headers: Mapping[str, str]) -> str:
    """A request's letter says it in a header of its own, a mail's in its source: `/<prefix>/<account>/<mailbox>`."""
    named = headers.get(ACCOUNT_HEADER)
    return unquote(named) if named else [*headers.get("ce-source", "").split("/"), "", "", ""][2]
