"""A message, and what a connection's relay offers → the commands that go before it, or the refusal it would get. Pure.

Used by session.py and pool.py. RFC 5321 4.1.1 (MAIL, RCPT, DATA), RFC 1870, 6152, 6531, 3461, 8689 (parameters),
RFC 3030 (BDAT).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from service.contract import REQUIRETLS
from service.errors import Permanent
from service.smtp.options import NO_EXTRAS, Extras
from service.smtp.wire import Reply, ended, has_utf8_header, mail_command, make_reply, rcpt_command, size_limit, stuffed

# A body of this size gains nothing by going ahead of its end: one write less, and it is out before a reply could come.
JOINED_BYTES: Final = 16 * 1024
# RFC 6531 3.4: an address that is not ASCII fails nobody else. Like one too many for this transaction, it comes in the
# next and without the others; alone it is refused, or another relay has SMTPUTF8.
_APART: Final = Reply(
    452, "4.6.7", "not sent by mailbus: the address is not ASCII and the relay has no SMTPUTF8", of_recipient=True
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a relay's EHLO said, and what is done with it: `chunks`, that messages go by BDAT; `secure`, TLS."""

    extensions: Mapping[str, str]
    chunks: bool
    secure: bool

    @property
    def pipelining(self) -> bool:
        """Whether commands may go out before the ones in front are answered (RFC 2920)."""
        return "pipelining" in self.extensions


@dataclass(frozen=True, slots=True)
class Message:
    """One message of CRLF lines, and who it is from and for."""

    mail_from: str
    rcpt_to: Sequence[str]
    data: bytes
    extras: Extras = NO_EXTRAS

    @property
    def is_small(self) -> bool:
        """Whether it goes out with its end, in one write."""
        return len(self.data) <= JOINED_BYTES


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message as one connection wants it: MAIL, each RCPT, then DATA or a first chunk; and what goes behind those.

    `rcpt_to`: for whom, in the order of `rcpt`; `apart`: who of the message's recipients is not among them, and why.
    """

    rcpt_to: Sequence[str]
    apart: Mapping[str, Reply]
    mail: bytes
    rcpt: Sequence[bytes]
    go: bytes
    body: memoryview

    @property
    def commands(self) -> list[bytes]:
        """All that goes before the body."""
        return [self.mail, *self.rcpt, self.go]


def prepare(message: Message, offer: Offer) -> Prepared | Reply:
    """Linear in the message: what is large belongs into a thread."""
    whole, message = message, _plain(message, offer)
    parameters = _parameters(message, offer)
    if isinstance(parameters, Reply):
        return parameters
    # RFC 3461 is for the relays on the way; without it the mail goes all the same, and reports come as they do.
    dsn = message.extras.rcpt if "dsn" in offer.extensions else {}
    try:
        mail = mail_command(message.mail_from, parameters)
        rcpt = [rcpt_command(address, dsn.get(address, {})) for address in message.rcpt_to]
        body = (ended if offer.chunks else stuffed)(message.data)
    except Permanent as exc:
        return make_reply(554, [f"5.6.0 {exc.what}"])
    apart = dict.fromkeys((one for one in whole.rcpt_to if one not in message.rcpt_to), _APART)
    if not offer.chunks:
        return Prepared(message.rcpt_to, apart, mail, rcpt, b"DATA\r\n", memoryview(body))
    # RFC 3030 2: the first chunk asks what DATA asks. It is one byte, and so no line: who does not know BDAT after all
    # would read commands in a longer one. Postfix 3.7 refuses an empty one.
    return Prepared(message.rcpt_to, apart, mail, rcpt, b"BDAT 1\r\n" + body[:1], memoryview(body)[1:])


def _plain(message: Message, offer: Offer) -> Message:
    """The message to those whom this relay can be told of: all, where it can be told of none, or not of the sender."""
    if "smtputf8" in offer.extensions or not message.mail_from.isascii():
        return message
    plain = [one for one in message.rcpt_to if one.isascii()]
    return replace(message, rcpt_to=plain) if 0 < len(plain) < len(message.rcpt_to) else message


def _parameters(message: Message, offer: Offer) -> dict[str, str | None] | Reply:
    """MAIL FROM's parameters, or the refusal that this relay would have to give."""
    extensions, extras, data = offer.extensions, message.extras, message.data
    parameters: dict[str, str | None] = {}
    if "size" in extensions:
        limit = size_limit(extensions["size"])
        if limit is not None and limit < len(data):
            return make_reply(552, [f"5.3.4 {len(data)} bytes; the relay takes {limit}"])
        parameters["SIZE"] = str(len(data))
    if not data.isascii():
        if "8bitmime" not in extensions:
            return make_reply(554, ["5.6.3 the message holds 8-bit bytes and the relay has no 8BITMIME"])
        parameters["BODY"] = "8BITMIME"
    if not all(address.isascii() for address in (message.mail_from, *message.rcpt_to)):
        if "smtputf8" not in extensions:
            return make_reply(553, ["5.6.7 an address is not ASCII and the relay has no SMTPUTF8"])
        parameters["SMTPUTF8"] = None
    elif "BODY" in parameters and has_utf8_header(data, of_addresses=extras.raw):
        # RFC 6531 3.1: who does not know SMTPUTF8 would pass it on to servers and programs that read it wrong. So does
        # who made raw bytes; they go where 8-bit bytes go, as by any other client.
        if "smtputf8" in extensions:
            parameters["SMTPUTF8"] = None
        elif not extras.raw:
            return make_reply(550, ["5.6.9 a header field is UTF-8 and the relay has no SMTPUTF8"])
    if REQUIRETLS in extras.mail and not (offer.secure and "requiretls" in extensions):
        # RFC 8689 4.2.1: it may go nowhere else, so it goes nowhere.
        return make_reply(550, ["5.7.30 REQUIRETLS support required: the relay does not offer it under TLS"])
    if "dsn" in extensions:
        return parameters | dict(extras.mail)
    return parameters | ({REQUIRETLS: None} if REQUIRETLS in extras.mail else {})
