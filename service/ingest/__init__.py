"""A mailbox → events on the bus, exactly once.

mailbox.py runs one mailbox; source.py is what it wants of a protocol, from_imap.py gives it, and from_pop3.py with
drop.py, seen.py, contents.py and visits.py, which make what POP3 lacks. stand_in.py is POP3 in the place of IMAP,
absence.py says when; where both share no number, paired.py, by what learnt.py keeps, prints.py and numbers.py. plan.py
decides; pages.py is what one commit announces, reading.py reads it; announce.py makes events, parser.py says in which
process; publish.py commits them with their cursor; dead.py copies those of mail that could not be had; copies.py keeps
what outlives retention, erased.py what outlives an erasure; replay.py reads log and erased as one. epochs.py begins and
recognises, kinship.py is what it asks of other mailboxes; lineage.py finds what one was called before, by left.py too,
which keeps what names have left;
memory.py keeps what is known (known.py, marks.py, labels.py, notes.py, state.py), compare.py finds what became of it,
resync.py says so to whoever asked. allowance.py is what may be read a day, status.py what a mailbox shows.
"""

from service.ingest.absence import Absence
from service.ingest.allowance import Allowance
from service.ingest.announce import AnnounceOptions, Announcer
from service.ingest.copies import Copies
from service.ingest.cursor import Before, Cursor, load_cursor
from service.ingest.dead import DeadLetters
from service.ingest.drop import Lasting
from service.ingest.erased import Erased
from service.ingest.from_imap import ImapSource
from service.ingest.from_pop3 import Pop3Source
from service.ingest.kinship import ALONE, Alone, Kinship
from service.ingest.learnt import Learner, Lesson
from service.ingest.lineage import Kin, Lineage
from service.ingest.mailbox import IngestOptions, MailboxIngest
from service.ingest.memory import Memory
from service.ingest.paired import PairedStandIn
from service.ingest.parser import Parser
from service.ingest.plan import Former, Position, Recalled, Why
from service.ingest.prints import header_print
from service.ingest.publish import MailboxLog, WriterIdentity
from service.ingest.resync import Desk, Desks
from service.ingest.source import Epoch, Source
from service.ingest.stand_in import LinkedStandIn, StandIn, Tries
from service.ingest.status import MailboxStatus

__all__ = [
    "ALONE",
    "Absence",
    "Allowance",
    "Alone",
    "AnnounceOptions",
    "Announcer",
    "Before",
    "Copies",
    "Cursor",
    "DeadLetters",
    "Desk",
    "Desks",
    "Epoch",
    "Erased",
    "Former",
    "ImapSource",
    "IngestOptions",
    "Kin",
    "Kinship",
    "Lasting",
    "Learner",
    "Lesson",
    "Lineage",
    "LinkedStandIn",
    "MailboxIngest",
    "MailboxLog",
    "MailboxStatus",
    "Memory",
    "PairedStandIn",
    "Parser",
    "Pop3Source",
    "Position",
    "Recalled",
    "Source",
    "StandIn",
    "Tries",
    "Why",
    "WriterIdentity",
    "header_print",
    "load_cursor",
]
