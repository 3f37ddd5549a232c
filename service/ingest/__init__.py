"""A mailbox → events on the bus, exactly once.

mailbox.py runs one mailbox; source.py is what it wants of a protocol, from_imap.py gives it; plan.py decides;
announce.py makes events, parser.py says in which process; publish.py commits them with their cursor; dead.py copies
those of mail that could not be had; copies.py keeps what outlives retention.
"""

from service.ingest.announce import AnnounceOptions, Announcer
from service.ingest.budget import Budget
from service.ingest.copies import Copies
from service.ingest.dead import DeadLetters
from service.ingest.from_imap import ImapSource
from service.ingest.mailbox import IngestOptions, MailboxIngest, MailboxStatus
from service.ingest.parser import Parser
from service.ingest.plan import Why
from service.ingest.publish import MailboxLog, WriterIdentity
from service.ingest.source import Source

__all__ = [
    "AnnounceOptions",
    "Announcer",
    "Budget",
    "Copies",
    "DeadLetters",
    "ImapSource",
    "IngestOptions",
    "MailboxIngest",
    "MailboxLog",
    "MailboxStatus",
    "Parser",
    "Source",
    "Why",
    "WriterIdentity",
]
