"""IMAP as mailbus uses it: RFC 9051 and RFC 3501 servers, read without being changed, and changed when asked to.

wire.py cuts responses out of bytes, grammar.py reads them, encode.py writes arguments, refusals.py turns NO into
verdicts, state.py is IDLE's table; protocol.py joins them with aioimaplib, connection.py opens and asks,
session.py is what mailbus does with a mailbox; changes.py asks what became of known messages, stir.py notes what
is said of them unasked; identity.py reads what makes a message the same in several mailboxes.
For commands: criteria.py turns filters into search keys, uidplus.py reads what says where messages are now, roles.py
which mailbox is which; writing.py does it on a connection, listing.py lists, pool.py keeps the connections.
For an account's mailboxes at a glance: overview.py; to be told of all of them on one connection: notify.py.
"""

from service.imap.changes import Changes, FlagsFound, FlagsRow
from service.imap.connection import SessionOptions
from service.imap.criteria import Near, criteria, moment_keys, moments, sortable
from service.imap.encode import Argument, uid_set
from service.imap.identity import GMAIL, NO_LABELS, Labelling, Labels
from service.imap.listing import Totals, list_mailboxes, list_totals
from service.imap.message import SurveyedMessage
from service.imap.notify import NamesNews, News, NewsMissing, StatusNews, notify, notify_selected
from service.imap.overview import Figures, Overview, figures_of, left_out, mailbox_id_of, overview
from service.imap.pool import NotConnected, Pool, Unanswered, sweep_all
from service.imap.refusals import NoMailbox, Refused
from service.imap.roles import NONE_NAMED, by_role, roles, selectable
from service.imap.session import SURVEY_LIMIT_ROWS, ListedMailbox, SelectedMailbox, Session
from service.imap.uidplus import Moved
from service.imap.writing import PIECE_BYTES, Gone, Identity, Opened, WritingSession, identity_of

__all__ = [
    "GMAIL",
    "NONE_NAMED",
    "NO_LABELS",
    "PIECE_BYTES",
    "SURVEY_LIMIT_ROWS",
    "Argument",
    "Changes",
    "Figures",
    "FlagsFound",
    "FlagsRow",
    "Gone",
    "Identity",
    "Labelling",
    "Labels",
    "ListedMailbox",
    "Moved",
    "NamesNews",
    "Near",
    "News",
    "NewsMissing",
    "NoMailbox",
    "NotConnected",
    "Opened",
    "Overview",
    "Pool",
    "Refused",
    "SelectedMailbox",
    "Session",
    "SessionOptions",
    "StatusNews",
    "SurveyedMessage",
    "Totals",
    "Unanswered",
    "WritingSession",
    "by_role",
    "criteria",
    "figures_of",
    "identity_of",
    "left_out",
    "list_mailboxes",
    "list_totals",
    "mailbox_id_of",
    "moment_keys",
    "moments",
    "notify",
    "notify_selected",
    "overview",
    "roles",
    "selectable",
    "sortable",
    "sweep_all",
    "uid_set",
]
