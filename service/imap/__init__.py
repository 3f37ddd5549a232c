"""IMAP as mailbus uses it: RFC 9051 and RFC 3501 servers, read without being changed.

wire.py cuts responses out of bytes, grammar.py reads them, encode.py writes arguments, refusals.py turns NO into
verdicts, state.py is IDLE's table; protocol.py joins them with aioimaplib, connection.py opens and asks,
session.py is what mailbus does with a mailbox; changes.py asks what became of known messages, stir.py notes what
is said of them unasked.
"""

from service.imap.changes import Changes, FlagsFound, FlagsRow
from service.imap.connection import SessionOptions
from service.imap.session import ListedMailbox, SelectedMailbox, Session, SurveyedMessage
from service.imap.spans import Span

__all__ = [
    "Changes",
    "FlagsFound",
    "FlagsRow",
    "ListedMailbox",
    "SelectedMailbox",
    "Session",
    "SessionOptions",
    "Span",
    "SurveyedMessage",
]
