"""A mailbox on the bus: its log, its known state, and what makes events of its mail. Used by whatever follows one."""

from collections.abc import Callable
from datetime import datetime

from service.build.shared import Shared
from service.contract import DeadReason
from service.errors import MailbusError
from service.ingest import (
    ALONE,
    AnnounceOptions,
    Announcer,
    DeadLetters,
    Former,
    Kinship,
    MailboxLog,
    Memory,
    Recalled,
    WriterIdentity,
)
from service.settings import IncomingSettings


def mailbox_log(
    shared: Shared,
    account: str,
    mailbox: str,
    alarm: Callable[[MailbusError], None],
    kinship: Kinship = ALONE,
) -> tuple[MailboxLog, Memory]:
    """One mailbox's, by whatever way it is read."""
    bus, where = shared.bus, f"{account}, {mailbox}"
    filter_subject = bus.subjects.mailbox_filter(account, mailbox)
    events = MailboxLog(
        bus.log,
        shared.copies,
        DeadLetters(bus.dead, shared.publish, subject=bus.subjects.dead(DeadReason.MESSAGE), where=where),
        account=account,
        mailbox=mailbox,
        filter_subject=filter_subject,
        writer=WriterIdentity(shared.writer, shared.rival_of(account)),
        alarm=alarm,
        clock=shared.clock,
    )
    memory = Memory(
        events,
        bus.log,
        bus.blobs(bus.subjects.state),
        account=account,
        mailbox=mailbox,
        filter_subject=filter_subject,
        clock=shared.clock,
        kinship=kinship,
    )
    return events, memory


def announcer_of(
    shared: Shared, account: str, incoming: IncomingSettings, mailbox: str, inline: int, *, prints: bool = False
) -> Announcer:
    """What makes events of one mailbox's mail. `inline`: bytes of a body that rides in its event."""
    bus = shared.bus
    return Announcer(
        bus.blobs(),
        bus.subjects,
        shared.parser,
        account=account,
        mailbox=mailbox,
        options=AnnounceOptions(
            inline,
            bus.max_payload,
            incoming.raw,
            incoming.after,
            incoming.authserv_id,
            incoming.extras,
            prints=prints,
        ),
        clock=shared.clock,
        returned=shared.returned.heard,
    )


async def last_of(
    mailbox: str, events: MailboxLog, memory: Memory, initial: datetime | str, *, proved: bool
) -> Former | None:
    """Where a mailbox stands, for whoever goes on under another name; None where nobody knows. Raises Transient."""
    position = await events.resume(contest=True)
    cursor = position.cursor
    if cursor is None or await memory.recall(cursor, position.seq, position.older) is not Recalled.WHOLE:
        return None
    return Former(mailbox, await memory.save(cursor), initial, proved, position.seq)
