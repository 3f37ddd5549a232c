"""POP3: one maildrop, one session at a time.

wire.py (pure) cuts replies and writes commands; state.py (pure) says what may be said when; refusals.py turns a
server's no into a verdict; protocol.py is the connection, session.py what one does with it.
"""

from service.pop3.refusals import NotNow
from service.pop3.session import Pop3Options, Session

__all__ = ["NotNow", "Pop3Options", "Session"]
