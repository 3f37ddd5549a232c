"""Real MTAs as relays, Postfix and Exim: what mailbus sends is what lies in the mailbox behind them, byte by byte."""

import pytest

from service.clock import SystemClock
from service.errors import AuthRefused
from service.smtp import Relay
from tests.servers.mta import DOMAIN, Mta
from tests.smtp.harness import Dot

HEADER = b"From: me@x.example\r\nTo: a@x.example\r\nDate: Thu, 26 Nov 2026 10:00:00 +0000\r\n"
DOTS = b".\r\n..\r\n.x\r\n\r\nFrom here\r\n.\r\n"
BODIES = {
    "small": b"hello\r\n",
    "dots": DOTS,
    "dot": b".",
    "8bit": "Gr\u00fc\u00dfe\r\n".encode() * 3,
    "long": DOTS * 30_000,
    "edge": b"x" * 64 + b"\r\n." * 5_500 + b"\r\n",
}


@pytest.fixture(params=["postfix", "exim"])
def mta(request: pytest.FixtureRequest) -> Mta:
    found: Mta = request.getfixturevalue(request.param)
    return found


def message(number: int, body: bytes) -> bytes:
    return HEADER + b"Message-ID: <%d@x.example>\r\nSubject: %d\r\n\r\n" % (number, number) + body


@pytest.mark.fault("E11")
@pytest.mark.parametrize("chunks", [True, False], ids=["bdat", "data"])
async def test_what_is_sent_lies_in_the_mailbox(mta: Mta, prefix: str, chunks: bool) -> None:
    """STARTTLS, AUTH, PIPELINING, and CHUNKING or DATA, on one connection; and nothing beside it."""
    relay = Relay(mta.options(), SystemClock())
    relay._chunks = chunks
    who = f"{prefix}-{'bdat' if chunks else 'data'}"
    sent = [message(number, body) for number, body in enumerate(BODIES.values())]
    for data in sent:
        replies = await relay.deliver("me@x.example", [f"{who}@{DOMAIN}"], data, before_final_dot=Dot())
        assert all(reply.accepted for reply in replies.values()), replies
    (session,) = relay._idle
    assert {"pipelining", "chunking", "8bitmime"} <= session.offer.extensions.keys()
    assert session.offer.chunks is chunks
    assert session.transactions == len(sent)
    await relay.close()
    found = await mta.mails(who, len(sent))
    assert len(found) == len(sent)
    whole = [data if data.endswith(b"\r\n") else data + b"\r\n" for data in sent]
    for data in whole:
        (mail,) = [one for one in found if one.endswith(data)]
        # What stands before it is the MTA's own: no line of it is ours.
        assert b"Message-ID" not in mail.removesuffix(data)


@pytest.mark.fault("E04")
async def test_a_recipient_that_is_refused_costs_the_others_nothing(mta: Mta, prefix: str) -> None:
    relay = Relay(mta.options(), SystemClock())
    data = message(1, b"x\r\n")
    whom = [f"nobody@{DOMAIN}", f"{prefix}-one@{DOMAIN}"]
    replies = await relay.deliver("me@x.example", whom, data, before_final_dot=Dot())
    assert [replies[who].code // 100 for who in whom] == [5, 2]
    nobody = await relay.deliver("me@x.example", whom[:1], data, before_final_dot=Dot())
    assert nobody[whom[0]].refused
    # After nobody was taken the connection serves on.
    again = await relay.deliver("me@x.example", whom[1:], data, before_final_dot=Dot())
    assert again[whom[1]].accepted
    assert len(relay._idle) == 1
    await relay.close()
    assert len(await mta.mails(f"{prefix}-one", 2)) == 2


async def test_a_wrong_password_is_refused_and_no_login_is_no_mail(mta: Mta, prefix: str) -> None:
    relay = Relay(mta.options(password="wrong"), SystemClock())
    with pytest.raises(AuthRefused):
        await relay.deliver("me@x.example", [f"{prefix}-x@{DOMAIN}"], message(1, b""), before_final_dot=Dot())
    await relay.close()
    relay = Relay(mta.options(login=False), SystemClock())
    replies = await relay.deliver("me@x.example", [f"x@{DOMAIN}"], message(1, b""), before_final_dot=Dot())
    assert all(reply.refused for reply in replies.values())
    await relay.close()
