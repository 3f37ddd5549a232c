"""Commands on `mail.cmd.<account>.<verb>`: a NATS micro service, a file a verb.

serve.py listens and turns verdicts into codes; route.py finds the account, here or at another replica; account.py is
what a command is given, in_hand.py how those under way end with their account, places.py finds the mailboxes of ids,
transfer.py is what copy, move and delete share, order.py sorts where the server does not, repeat.py answers a command
that comes twice; errors.py makes answers of problems.
"""

from service.commands.account import UNLIMITED, Account, Context, MailAccess, SendAccess
from service.commands.begun import Keeper
from service.commands.places import Directory
from service.commands.repeat import Answered
from service.commands.route import Fleet
from service.commands.serve import serve_commands

__all__ = [
    "UNLIMITED",
    "Account",
    "Answered",
    "Context",
    "Directory",
    "Fleet",
    "Keeper",
    "MailAccess",
    "SendAccess",
    "serve_commands",
]
