"""What of requests waits outside the queue → what an erasure takes of it, and what it must leave until it is sent.

A copy for a Sent mailbox goes where its request is final, and so does what a request left in `mail-outbox` when it
ended. Used by found.py.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import msgspec

from service.bus import Bus, Followed
from service.contract import encode
from service.erase.look import Wanted
from service.errors import Permanent
from service.mime import MimeLimits, parse
from service.outbound import KEY_HEADER, OUTBOX_HEADER, SENT, Bundle, Outbox, Phase

# A request's bytes are stored before its record says so: within seconds.
YOUNG: Final = timedelta(hours=1)


class Record(msgspec.Struct):
    """What is looked at of a request's record in `mail-sends`."""

    phase: Phase
    source: str
    account: str = ""


RECORD: Final = msgspec.json.Decoder(Record)


class _Meta(msgspec.Struct):
    """What is looked at of what describes an object."""

    name: str
    deleted: bool = False


_META: Final = msgspec.json.Decoder(_Meta)


@dataclass(slots=True)
class Waiting:
    """`copies`: their places in MAIL_LATER. `kept`: objects of `mail-outbox`. `under_way`: requests that stay."""

    copies: list[int] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    under_way: set[str] = field(default_factory=set)


async def find_waiting(bus: Bus, wanted: Wanted) -> Waiting:
    """What names the address. Raises Transient."""
    found, taken = Waiting(), set[str]()
    await _copies(bus, wanted, found, taken)
    subjects, now = bus.subjects, (await bus.log.bounds()).now
    stream, outbox = bus.contents(f"OBJ_{subjects.outbox}"), Outbox(bus.blobs(subjects.outbox))
    async for meta in stream.read(f"$O.{subjects.outbox}.M.>", after=0, last=await stream.last()):
        try:
            described = _META.decode(meta.payload)
            if described.deleted or described.name in taken:
                continue
            bundle = await outbox.get(described.name)
        except (msgspec.MsgspecError, Permanent):  # it is gone, or none of ours
            continue
        if _is_named(wanted, bundle):
            await _settle(bus, wanted, found, described.name, bundle, young=now - meta.stored_at < YOUNG)
    return found


async def _copies(bus: Bus, wanted: Wanted, found: Waiting, taken: set[str]) -> None:
    """`taken`: the objects of all copies that wait."""
    subjects = bus.subjects
    if not await bus.pending(subjects.stream_later, subjects.sent_copies("*")):
        return
    async for waiting in bus.contents(subjects.stream_later).waiting():
        account = waiting.subject.split(".")[2]
        if waiting.subject != subjects.sent_copies(account):
            continue
        name, record = waiting.headers.get(OUTBOX_HEADER), await _record(bus, waiting.headers.get(KEY_HEADER, ""))
        taken |= {name} if name else set()
        if not wanted.has_account(account):
            continue
        if not (await _is_copy_of(bus, wanted, waiting, name) or (record is not None and wanted.is_named(record[1]))):
            continue
        if record is not None and record[0].phase is not Phase.FINAL:
            found.under_way.add(record[0].source)
            continue
        found.copies.append(waiting.seq)
        found.kept |= {name} if name else set()


async def _is_copy_of(bus: Bus, wanted: Wanted, waiting: Followed, name: str | None) -> bool:
    if name is None:
        return _is_named_in_mail(wanted, waiting.payload)
    try:
        bundle = await Outbox(bus.blobs(bus.subjects.outbox)).get(name)
    except (msgspec.MsgspecError, Permanent):
        return False
    return _is_named_in_mail(wanted, bundle.request)


async def _settle(bus: Bus, wanted: Wanted, found: Waiting, name: str, bundle: Bundle, *, young: bool) -> None:
    """What becomes of an object that names the address: it goes, stays, or is another account's."""
    record = await _record(bus, bundle.key.removeprefix(SENT))
    account = record[0].account if record is not None else ""
    if not wanted.has_account(account):
        return
    if record is not None and record[0].phase is not Phase.FINAL:
        found.under_way.add(record[0].source)
    elif young and record is None:
        found.under_way.add(name)
    else:
        found.kept.add(name)


async def _record(bus: Bus, key: str) -> tuple[Record, bytes] | None:
    """A request's record, and as it is written."""
    entry = await bus.key_value(bus.subjects.sends).get(key) if key else None
    try:
        return (RECORD.decode(entry.value), entry.value) if entry is not None else None
    except msgspec.MsgspecError:
        return None


def _is_named(wanted: Wanted, bundle: Bundle) -> bool:
    if bundle.key.startswith(SENT):
        return _is_named_in_mail(wanted, bundle.request)
    return wanted.is_named(bundle.request)


def _is_named_in_mail(wanted: Wanted, mail: bytes) -> bool:
    """In its bytes, or in what they say: a body in base64 shows no address."""
    parsed = parse(mail, received_at=None, limits=MimeLimits(), inline_limit=2 * len(mail))
    return wanted.is_named(mail) or wanted.is_named(encode(parsed.email))
