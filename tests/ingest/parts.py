"""A mailbox on a real NATS, for whoever reads it here: its log, what is known of it, and what makes its events."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.bus import Bus, OutMessage
from service.clock import SystemClock
from service.contract import DeadReason
from service.errors import MailbusError
from service.ingest import (
    ALONE,
    AnnounceOptions,
    Announcer,
    Copies,
    DeadLetters,
    Kinship,
    MailboxLog,
    Memory,
    Parser,
    WriterIdentity,
)


async def nobody(_writer: str) -> bool:
    """No other process lives."""
    return False


@dataclass(frozen=True)
class Parts:
    copies: Copies
    events: MailboxLog
    memory: Memory
    announcer: Announcer


def parts_of(
    bus: Bus,
    options: AnnounceOptions,
    *,
    account: str,
    mailbox: str = "INBOX",
    writer: str = "one/1",
    is_alive: Callable[[str], Awaitable[bool]] = nobody,
    alarm: Callable[[MailbusError], None] = lambda _: None,
    returned: Callable[[bytes], Awaitable[None]] | None = None,
    kinship: Kinship = ALONE,
) -> Parts:
    clock, subjects = SystemClock(), bus.subjects
    copies = Copies(bus.key_value(subjects.cursors), clock)
    filter_subject = subjects.mailbox_filter(account, mailbox)

    async def dead_letter(message: OutMessage) -> None:
        await bus.publish(message.subject, message.payload, message.headers)

    events = MailboxLog(
        bus.log,
        copies,
        DeadLetters(bus.dead, dead_letter, subject=subjects.dead(DeadReason.MESSAGE), where=account),
        account=account,
        mailbox=mailbox,
        filter_subject=filter_subject,
        writer=WriterIdentity(writer, is_alive),
        alarm=alarm,
        clock=clock,
    )
    memory = Memory(
        events,
        bus.log,
        bus.blobs(subjects.state),
        account=account,
        mailbox=mailbox,
        filter_subject=filter_subject,
        clock=clock,
        kinship=kinship,
    )
    announcer = Announcer(
        bus.blobs(),
        subjects,
        Parser(clock),
        account=account,
        mailbox=mailbox,
        options=options,
        clock=clock,
        returned=returned,
    )
    return Parts(copies, events, memory, announcer)
