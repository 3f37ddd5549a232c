"""What a process knows of itself → /metrics, /healthz, /readyz and the status page.

Shows snapshots that it is given and owns nothing: server.py is the HTTP server, snapshot.py what it shows,
page.html the page, which draws what /events sends it once a second.
"""

from service.admin.server import AdminServer
from service.admin.snapshot import (
    PAGE_LIMIT_ACCOUNTS,
    PAGE_LIMIT_MAILBOXES,
    AccountSnapshot,
    AccountsPage,
    MailboxSnapshot,
    Snapshot,
    Totals,
    Waiting,
    clip,
    severity,
)

__all__ = [
    "PAGE_LIMIT_ACCOUNTS",
    "PAGE_LIMIT_MAILBOXES",
    "AccountSnapshot",
    "AccountsPage",
    "AdminServer",
    "MailboxSnapshot",
    "Snapshot",
    "Totals",
    "Waiting",
    "clip",
    "severity",
]
