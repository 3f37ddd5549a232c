"""What a provider's Sent mailbox proves of mail whose answer was lost. A real Dovecot."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from service.bus import Bus
from tests.commands.conftest import SPECIAL_USE, dovecot_with
from tests.outbound.conftest import Post, delivered, idle_sender, sending
from tests.outbound.test_sent import pool_of, scheduled, sent_mailbox
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import ImapServer
from tests.servers.smtp import ScriptedRelay


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Dovecot]:
    async with dovecot_with(SPECIAL_USE) as one:
        yield one


async def kept_by_provider(relay: ScriptedRelay, server: ImapServer, user: str, count: int) -> None:
    """Until it has so many mails, and the first of them lies in Sent."""
    await server.append(user, [(await relay.received(count))[0].content], "Sent")


@pytest.mark.parametrize("policy", ["retry", "hold"])
async def test_a_lost_answer_is_no_loss_where_the_provider_keeps_what_it_sent(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str, policy: str
) -> None:
    relay.script.cut = ["before_reply"]
    relay.script.hold = asyncio.Event()
    sent = sent_mailbox(bus, pool_of(server, prefix), copies=False)
    async with sending(bus, relay, sent=sent, uncertain=policy):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await kept_by_provider(relay, server, prefix, 1)
        relay.script.hold.set()
        await post.states(1)
        await post.empty()
    (event,) = post.events
    assert (event.state, event.body.undo_status) == ("sent", "final")
    assert "the relay's answer was lost" in event.body.delivery_status["b@x.example"].smtp_reply
    assert len(relay.messages) == 1


async def test_of_a_message_for_each_the_one_whose_answer_was_lost_is_looked_for(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str
) -> None:
    relay.script.cut = ["before_reply", "before_reply"]
    relay.script.hold = asyncio.Event()
    sent = sent_mailbox(bus, pool_of(server, prefix), copies=False)
    async with sending(bus, relay, sent=sent, uncertain="hold"):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}], split=True)
        await kept_by_provider(relay, server, prefix, 2)
        relay.script.hold.set()
        await post.states(2)
        # The copy of the other comes late.
        await server.append(prefix, [relay.messages[1].content], "Sent")
        await scheduled(bus, "r")
        await idle_sender(bus).waiting.release("r")
        await post.states(3)
        await post.empty()
    first, second = (mail.rcpt_to[0] for mail in relay.messages)
    said = [(event.state, who) for event in post.events for who in delivered(event)]
    assert sorted(said) == sorted([("sent", first), ("uncertain", second), ("sent", second)])
    assert len(relay.messages) == 2


async def test_a_copy_of_raw_bytes_proves_nothing_for_the_requester_may_have_put_it_there(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str
) -> None:
    raw = b"From: a@x.example\r\nMessage-ID: <my-own@x.example>\r\n\r\nHello\r\n"
    await server.append(prefix, [raw], "Sent")
    blob = await bus.blobs().put(raw, now=datetime.now(UTC))
    relay.script.cut = ["before_reply"]
    sent = sent_mailbox(bus, pool_of(server, prefix), copies=False)
    async with sending(bus, relay, sent=sent):
        await post.request("r", rawBlobId=blob, text=None)
        await post.states(2)
        await post.empty()
    assert [event.state for event in post.events] == ["uncertain", "sent"]
    assert len(relay.messages) == 2


async def test_a_copy_that_comes_late_is_found_before_the_next_attempt(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str
) -> None:
    relay.script.cut = ["before_reply"]
    sent = sent_mailbox(bus, pool_of(server, prefix), copies=False)
    async with sending(bus, relay, sent=sent, uncertain="hold") as sender:
        await post.request("r")
        await post.states(1)
        await kept_by_provider(relay, server, prefix, 1)
        await scheduled(bus, "r")
        await sender.waiting.release("r")
        await post.states(2)
        await post.empty()
    assert [event.state for event in post.events] == ["uncertain", "sent"]
    assert len(relay.messages) == 1


async def test_a_copy_of_an_earlier_attempt_proves_nothing_of_a_later_one(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str
) -> None:
    relay.script.rcpt = {"b@x.example": ["451 4.2.0 busy", "250 OK", "250 OK"]}
    pool = pool_of(server, prefix)
    async with sending(bus, relay, sent=sent_mailbox(bus, pool, copies=False), retry_first_s=0.5):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(2)
        relay.script.cut = ["before_reply"]
        await kept_by_provider(relay, server, prefix, 1)
        await post.states(4)
        await post.empty()
    said = [(event.state, sorted(delivered(event))) for event in post.events]
    assert said[2:] == [("uncertain", ["b@x.example"]), ("sent", ["b@x.example"])]
    assert len(relay.messages) == 3
