"""A message and its recipients → the relay's reply to each, with the certainty of whether the final dot was sent.

wire.py speaks the grammar (RFC 5321) and state.py the stages, both pure. connect.py and protocol.py alone know
aiosmtplib, which connects, upgrades and logs in; session.py is our own transaction; pool.py keeps connections,
booking.py one of them for somebody.
"""

from service.smtp.booking import Booking
from service.smtp.envelope import JOINED_BYTES
from service.smtp.errors import DotUnanswered, LoginWanted, RelayUnreachable, TlsWanted, TurnedAway
from service.smtp.options import NO_EXTRAS, Extras, SmtpOptions, Timeouts
from service.smtp.pool import Relay
from service.smtp.session import BeforeDot
from service.smtp.wire import Reply, bare_line_end

__all__ = [
    "JOINED_BYTES",
    "NO_EXTRAS",
    "BeforeDot",
    "Booking",
    "DotUnanswered",
    "Extras",
    "LoginWanted",
    "Relay",
    "RelayUnreachable",
    "Reply",
    "SmtpOptions",
    "Timeouts",
    "TlsWanted",
    "TurnedAway",
    "bare_line_end",
]
