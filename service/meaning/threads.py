"""Which conversation a mail belongs to, where its server does not say: by its references alone. Pure.

The rule, for ever the same: the root is the first id of References, else the first of In-Reply-To, else the mail's own
Message-ID (RFC 5322 3.6.4: the first reference is the mail that began it all). No table is kept, so that any replica
says the same of any mail, at any time.
"""

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

from service.contract import Email

# 120 bits: no two roots meet by chance.
_BYTES: Final = 15


def thread_id(email: Email) -> str | None:
    """JMAP's threadId; None for a mail without any id."""
    for ids in (email.references, email.in_reply_to, email.message_id):
        if ids:
            digest = sha256(ids[0].encode("utf-8", "replace")).digest()
            return f"t-{urlsafe_b64encode(digest[:_BYTES]).decode()}"
    return None
