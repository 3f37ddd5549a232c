"""Providers as data: what `preset: NAME` fills in where an account's settings say nothing. No branches, only hosts.

Ports and protection are the defaults (993 and 465 by TLS, RFC 8314 3) unless they stand here. Every provider here
ends an idle connection later than the default `idle` of 4 minutes renews it (Gmail is the quickest: 10 minutes).
"""

from typing import Any, Final

PRESETS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "gmail": {
        "incoming": {"imap": {"host": "imap.gmail.com"}},
        "outgoing": {"smtp": {"host": "smtp.gmail.com"}},
    },
    "outlook": {
        "incoming": {"imap": {"host": "outlook.office365.com"}},
        "outgoing": {"smtp": {"host": "smtp-mail.outlook.com", "security": "starttls"}},
    },
    "yahoo": {
        "incoming": {"imap": {"host": "imap.mail.yahoo.com"}},
        "outgoing": {"smtp": {"host": "smtp.mail.yahoo.com"}},
    },
    "icloud": {
        "incoming": {"imap": {"host": "imap.mail.me.com"}},
        "outgoing": {"smtp": {"host": "smtp.mail.me.com", "security": "starttls"}},
    },
    "fastmail": {
        "incoming": {"imap": {"host": "imap.fastmail.com"}},
        "outgoing": {"smtp": {"host": "smtp.fastmail.com"}},
    },
    "gmx": {
        "incoming": {"imap": {"host": "imap.gmx.net"}},
        "outgoing": {"smtp": {"host": "mail.gmx.net"}},
    },
}
