"""LMTP (RFC 2033): LHLO, and a reply for each recipient after the message; on Dovecot, and what only a script does."""

from pathlib import Path
from typing import Any

import pytest

from service.clock import SystemClock
from service.contract import Security
from service.errors import Permanent
from service.smtp import DotUnanswered, Relay, Reply, SmtpOptions
from tests.servers.dovecot import Dovecot
from tests.servers.smtp_steps import OFFERS, Act, Step, StepRelay, StepRelayMaker
from tests.smtp.harness import MESSAGE, Dot

LONG = b"Subject: x\r\n\r\n" + b".\r\n..\r\n.x\r\n\r\n" * 5_000
WITHOUT_CHUNKS = tuple(name for name in OFFERS if name != "CHUNKING")


def client(port: int, **changes: Any) -> Relay:
    return Relay(SmtpOptions("a", "127.0.0.1", port, Security.NONE, login=False, lmtp=True, **changes), SystemClock())


async def deliver(port: int, *whom: str, data: bytes = MESSAGE) -> dict[str, Reply]:
    relay = client(port)
    try:
        return await relay.deliver("me@x", whom, data, before_final_dot=Dot())
    finally:
        await relay.close()


def codes(replies: dict[str, Reply]) -> dict[str, int]:
    return {who: reply.code for who, reply in replies.items()}


def spoil(dovecot: Dovecot, user: str) -> None:
    Path(dovecot.root, "home", user).write_text("a file where a folder should be")


@pytest.mark.fault("E10")
async def test_dovecot_gets_no_header_in_utf8_which_its_lmtp_does_not_offer_to_take(
    dovecot: Dovecot, prefix: str
) -> None:
    relay, who = client(dovecot.lmtp), f"{prefix}@x.example"
    data = "Reply-To: jürgen@x.example\r\nSubject: x\r\n\r\nx\r\n".encode()
    replies = await relay.deliver("me@x.example", [who], data, before_final_dot=Dot())
    assert (replies[who].code, replies[who].enhanced) == (550, "5.6.9")
    await relay.close()


@pytest.mark.fault("E04")
async def test_dovecot_says_of_each_recipient_what_became_of_it(dovecot: Dovecot, prefix: str) -> None:
    """One mailbox cannot be written: the others have the mail, and keep it."""
    good, other, full = (f"{prefix}-{who}@x.example" for who in ("good", "other", "full"))
    spoil(dovecot, full)
    relay = client(dovecot.lmtp)
    for data in (MESSAGE, LONG, MESSAGE):
        replies = await relay.deliver("me@x.example", [good, full, other], data, before_final_dot=Dot())
        assert replies[good].accepted
        assert replies[other].accepted
        assert replies[full].transient
    await relay.close()
    for who in (good, other):
        with dovecot.client(who) as reader:
            reader.select("INBOX")
            found = [reader.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in ("1", "2", "3")]  # type: ignore[index]
        assert [mail.partition(b"Subject:")[2] for mail in found] == [
            data.partition(b"Subject:")[2] for data in (MESSAGE, LONG, MESSAGE)
        ]


@pytest.mark.parametrize("offers", [OFFERS, WITHOUT_CHUNKS, ()])
async def test_each_accepted_recipient_has_a_reply_of_its_own(
    step_relay: StepRelayMaker, offers: tuple[str, ...]
) -> None:
    server = await step_relay(
        lmtp=True,
        offers=offers,
        rcpt={"b@x": ["550 5.1.1 unknown"]},
        end={"c@x": ["452 4.2.2 full", "250 OK"], "d@x": ["552 5.2.2 full"]},
    )
    relay = client(server.port)
    whom = ["a@x", "b@x", "c@x", "d@x"]
    first = await relay.deliver("me@x", whom, MESSAGE, before_final_dot=Dot())
    assert codes(first) == {"a@x": 250, "b@x": 550, "c@x": 452, "d@x": 552}
    # The connection serves on: each reply found its recipient.
    assert codes(await relay.deliver("me@x", ["c@x"], LONG, before_final_dot=Dot())) == {"c@x": 250}
    await relay.close()
    assert len(server.connections) <= 1
    assert [line for line in server.commands if line.startswith(("EHLO", "HELO", "LHLO"))] == ["LHLO [127.0.0.1]"]
    assert server.copies("c@x") == [LONG]


@pytest.mark.fault("E01")
@pytest.mark.parametrize("offers", [OFFERS, WITHOUT_CHUNKS])
@pytest.mark.parametrize("do", [Act.DROP, Act.TAKE_AND_DROP, Act.CLOSE])
async def test_lost_between_two_replies_only_those_without_one_are_uncertain(
    step_relay: StepRelayMaker, offers: tuple[str, ...], do: Act
) -> None:
    server = await step_relay(lmtp=True, offers=offers, at=Step.END, do=do, who="b@x", rcpt={"d@x": ["550 5.1.1 no"]})
    with pytest.raises(DotUnanswered) as caught:
        await deliver(server.port, "a@x", "b@x", "c@x", "d@x")
    told = {"b@x": 421} if do is Act.CLOSE else {}
    assert codes(caught.value.settled) == {"a@x": 250, "d@x": 550} | told
    assert len(server.copies("a@x")) == 1


async def test_a_server_that_speaks_smtp_says_the_remedy(step_relay: StepRelayMaker) -> None:
    server: StepRelay = await step_relay()
    with pytest.raises(Permanent) as caught:
        await deliver(server.port, "a@x")
    assert "protocol: smtp" in caught.value.remedy
    assert [line for line in server.commands if line.startswith(("EHLO", "HELO"))] == []
