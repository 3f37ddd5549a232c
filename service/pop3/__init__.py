"""POP3: one maildrop, one session at a time.

wire.py (pure) cuts replies and writes commands; state.py (pure) says what may be said when; refusals.py turns a
server's no into a verdict; protocol.py is the connection, session.py what one does with it; stock.py (pure) is what a
maildrop holds, maildrop.py how one gets in and takes stock, nameless.py how messages without a unique id are known,
reading.py which message a connection broke at.
"""

from service.pop3.links import linked_uid
from service.pop3.maildrop import Door, listed
from service.pop3.reading import read_at
from service.pop3.refusals import NotNow
from service.pop3.session import CONNECT_TIMEOUT_S, Pop3Options, Session
from service.pop3.stock import IDENTITY_BYTES, NO_IDENTITY, Listing, content_of

__all__ = [
    "CONNECT_TIMEOUT_S",
    "IDENTITY_BYTES",
    "NO_IDENTITY",
    "Door",
    "Listing",
    "NotNow",
    "Pop3Options",
    "Session",
    "content_of",
    "linked_uid",
    "listed",
    "read_at",
]
