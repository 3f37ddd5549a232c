"""Accounts, mailboxes, verbs → subjects, streams and buckets. Pure.

Used by every room that names something on the bus; nobody else builds a subject.
Source: NATS subject rules (a token holds no `.`, `*`, `>`, white space), the contract in docs/contract.md.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from service.contract.ids import mailbox_name

# What follows an account's id in the subject of its urgent requests; no id ends so.
URGENT: Final = "+high"
ACCOUNT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
# A 5,000-byte subject makes the server close the connection that all accounts share.
TOKEN_LIMIT_BYTES: Final = 200
# How the token of a name begins that is too long, or no UTF-8.
HASHED_TOKEN: Final = "%sha256-"
_FORBIDDEN: Final = re.compile(r"[.*>%\s\x00-\x20\x7f-\x9f]")


# RFC 3986 3.3: what stands in a path as it is, and the token's own percent-encoding.
_URI_SAFE: Final = "%/!$&'()*+,;=:@~"


@lru_cache(maxsize=4096)
def mailbox_token(name: str) -> str:
    """A mailbox's name as one subject token, injectively.

    Normal form C, percent-encoded UTF-8 where NATS forbids a character; INBOX in any case is `INBOX`
    (RFC 9051 5.1); beyond 200 bytes `%sha256-<hex>`, which no encoded name can look like.
    """
    name = mailbox_name(name)
    token = _FORBIDDEN.sub(lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode("utf-8")), name)
    encoded = token.encode("utf-8", "surrogatepass")
    # A lone surrogate is no UTF-8: such a name goes by its hash, as the empty one does.
    if not token or len(encoded) > TOKEN_LIMIT_BYTES or any("\ud800" <= char <= "\udfff" for char in token):
        return HASHED_TOKEN + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return token


def account_of_out(subject: str) -> str:
    """Whose request it is that was published there."""
    return subject.rpartition(".")[2].removesuffix(URGENT)


@dataclass(frozen=True, slots=True)
class Subjects:
    """Every name on the bus under one prefix."""

    prefix: str = "mail"

    mailbox_token = staticmethod(mailbox_token)

    # -- subjects ---------------------------------------------------------------------------------------------

    def event(self, account: str, mailbox: str, kind: str) -> str:
        """Where an event of kind received, changed, removed or reset is published."""
        return f"{self.prefix}.in.{account}.{mailbox_token(mailbox)}.{kind}"

    def mailbox_filter(self, account: str, mailbox: str) -> str:
        """All events of one mailbox; also the text of its fence, which the server compares as a string."""
        return f"{self.prefix}.in.{account}.{mailbox_token(mailbox)}.*"

    def out(self, account: str) -> str:
        """Requests to send."""
        return f"{self.prefix}.out.{account}"

    def out_urgent(self, account: str) -> str:
        """Those that go before all others of the account: a queue of their own in the same stream."""
        return f"{self.prefix}.out.{account}{URGENT}"

    def later(self, account: str, key: str) -> str:
        """The schedule of one request that waits."""
        return f"{self.prefix}.later.{account}.{key}"

    def due(self, account: str) -> str:
        """Requests whose time has come."""
        return f"{self.prefix}.due.{account}"

    def sent_copies(self, account: str) -> str:
        """Mails that go into the account's Sent mailbox."""
        return self.later(account, "sent")

    def bell(self, account: str) -> str:
        """Headers of what was just queued for an account."""
        return f"{self.prefix}.bell.{account}"

    def bell_urgent(self, account: str) -> str:
        """The same of its urgent requests."""
        return self.bell(f"{account}{URGENT}")

    def status(self, account: str, state: str) -> str:
        """What became of a request."""
        return f"{self.prefix}.status.{account}.{state}"

    def account(self, account: str, state: str) -> str:
        """What became of an account."""
        return f"{self.prefix}.account.{account}.{state}"

    def dead(self, reason: str) -> str:
        """Dead letters."""
        return f"{self.prefix}.dead.{reason}"

    def cmd(self, account: str, verb: str) -> str:
        """A command to an account; `*` as account is what the service listens on."""
        return f"{self.prefix}.cmd.{account}.{verb}"

    def admin_accounts(self, verb: str) -> str:
        """A request about accounts themselves."""
        return f"{self.prefix}.admin.accounts.{verb}"

    @property
    def forget(self) -> str:
        """Heard by every process: blobs were erased, none may be believed to be there."""
        return f"{self.prefix}.admin.forget"

    def cmd_at(self, instance: str, account: str, verb: str) -> str:
        """A command passed on to the process that has the account."""
        return f"{self.prefix}.fleet.{instance}.{account}.{verb}"

    def source(self, account: str, mailbox: str) -> str:
        """`ce-source` of a mailbox's events: a URI-reference (CloudEvents 1.0, source; RFC 3986 section 2)."""
        token = mailbox_token(mailbox)
        if token.startswith(HASHED_TOKEN):
            # RFC 3986 2.1: two hex digits follow a `%`. In all other names a `?` is encoded: none looks like this one.
            return f"/{self.prefix}/{account}/?sha256={token.removeprefix(HASHED_TOKEN)}"
        return f"/{self.prefix}/{account}/{quote(token, safe=_URI_SAFE)}"

    def account_source(self, account: str) -> str:
        """`ce-source` of an account's events and of its requests' statuses."""
        return f"/{self.prefix}/{account}"

    # -- streams ----------------------------------------------------------------------------------------------

    @property
    def stream_in(self) -> str:
        return f"{self.prefix.upper()}_IN"

    @property
    def stream_out(self) -> str:
        return f"{self.prefix.upper()}_OUT"

    @property
    def stream_later(self) -> str:
        return f"{self.prefix.upper()}_LATER"

    @property
    def stream_status(self) -> str:
        return f"{self.prefix.upper()}_STATUS"

    @property
    def stream_dead(self) -> str:
        return f"{self.prefix.upper()}_DEAD"

    # -- buckets ----------------------------------------------------------------------------------------------

    @property
    def blobs(self) -> str:
        return f"{self.prefix}-blobs"

    @property
    def state(self) -> str:
        return f"{self.prefix}-state"

    @property
    def outbox(self) -> str:
        return f"{self.prefix}-outbox"

    @property
    def cursors(self) -> str:
        return f"{self.prefix}-cursors"

    @property
    def after(self) -> str:
        return f"{self.prefix}-after"

    @property
    def sends(self) -> str:
        return f"{self.prefix}-sends"

    @property
    def suppressions(self) -> str:
        return f"{self.prefix}-suppressions"

    @property
    def accounts(self) -> str:
        return f"{self.prefix}-accounts"

    @property
    def fleet(self) -> str:
        return f"{self.prefix}-fleet"
