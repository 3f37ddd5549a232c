"""Settings → the parts of a process, put together. Decides nothing at run time.

shared.py is what accounts share and what a piece of work is; accounts.py makes an account's work of its mailboxes
(incoming.py, after.py, stand_in.py, or pop3.py) and its sender (outgoing.py), and hosted.py begins and ends it; bus.py
says how NATS is reached, commands.py what commands get. Used by app.py, the checker and the command line.
"""

from service.build.bus import nats_options, stream_options, window_problems
from service.build.commands import command_context
from service.build.gangway import CONNECTING_LIMIT, Gangways
from service.build.hosted import Hosted
from service.build.incoming import session_options
from service.build.outgoing import next_relays, send_limits, smtp_options
from service.build.pop3 import pop3_options
from service.build.shared import DELIVERIES_LIMIT, Shared, Work

__all__ = [
    "CONNECTING_LIMIT",
    "DELIVERIES_LIMIT",
    "Gangways",
    "Hosted",
    "Shared",
    "Work",
    "command_context",
    "nats_options",
    "next_relays",
    "pop3_options",
    "send_limits",
    "session_options",
    "smtp_options",
    "stream_options",
    "window_problems",
]
