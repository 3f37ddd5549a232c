"""What a request says of an announced message that it replies to or passes on. Plain data."""

import msgspec


class Reply(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An answer to a message. `all`: also to whom else it went; `quote`: with its text below."""

    email_id: str
    all: bool = False
    quote: bool = False


class Forward(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A message passed on: its text below, and its attachments unless they are not wanted."""

    email_id: str
    attachments: bool = True
