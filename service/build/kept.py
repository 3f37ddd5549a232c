"""What is kept of a mailbox on the bus: its log and its known state. Used by whatever follows mailboxes."""

from collections.abc import Callable

from service.build.shared import Shared
from service.contract import DeadReason
from service.errors import MailbusError
from service.ingest import DeadLetters, MailboxLog, Memory, WriterIdentity


def mailbox_log(
    shared: Shared, account: str, mailbox: str, alarm: Callable[[MailbusError], None]
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
    )
    return events, memory
