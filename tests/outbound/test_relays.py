"""Relays in order of preference, the next only where the one before has nothing of the mail; and who is there."""

import asyncio

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.errors import AuthRefused
from service.login import LoginGate
from service.outbound.mail import Mail
from service.outbound.relays import each
from service.outbound.retry import Verdict
from service.smtp import RelayUnreachable, Reply
from tests.outbound.conftest import LIMIT_S, Post, delivered, found_lost, sending, soon
from tests.servers.smtp import RelayMaker, ScriptedRelay


@pytest.fixture
async def second(make_relay: RelayMaker) -> ScriptedRelay:
    return await make_relay()


async def test_while_the_first_is_away_mail_goes_by_the_second_and_by_the_first_again(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay
) -> None:
    await relay.stop()
    async with sending(bus, relay, others=[second]) as sender:
        await post.request("r1")
        await post.request("r2")
        assert sorted(await post.states(2)) == [("r1", "sent"), ("r2", "sent")]
        # Its state is the account's to hear of.
        assert isinstance(await found_lost(sender), RelayUnreachable)
        await relay.start()
        sender._deliverer.relays.found()
        await post.request("r3")
        await post.states(3)
    assert (len(relay.messages), len(second.messages)) == (1, 2)
    assert post.events[0].body.relay == f"127.0.0.1:{second.port}"


@pytest.mark.parametrize("said", ["421 4.3.2 closing", "451 4.7.0 too fast", "550 5.7.1 not you"])
async def test_who_refuses_all_mail_is_passed_by(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay, said: str
) -> None:
    relay.script.mail = said
    async with sending(bus, relay, others=[second]):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        assert await post.states(1) == [("r", "sent")]
        await post.empty()
    assert [mail.rcpt_to for mail in second.messages] == [["a@x.example", "b@x.example"]]


async def test_where_the_first_lacks_an_extension_the_next_one_is_asked(
    bus: Bus, post: Post, make_relay: RelayMaker, second: ScriptedRelay
) -> None:
    first = await make_relay(smtputf8=False)
    async with sending(bus, first, others=[second]):
        await post.request("address", to=[{"email": "jürgen@x.example"}])
        await post.request("header", replyTo=[{"email": "jürgen@x.example"}])
        assert sorted(await post.states(2)) == [("address", "sent"), ("header", "sent")]
        await post.empty()
    assert (first.data_commands, len(second.messages)) == (0, 2)


@pytest.mark.parametrize("away", ["first", "second"])
async def test_what_one_relay_lacks_is_no_refusal_while_another_is_away(
    bus: Bus, post: Post, make_relay: RelayMaker, second: ScriptedRelay, away: str
) -> None:
    lacks = await make_relay(smtputf8=False)
    await second.stop()
    first, behind = (second, lacks) if away == "first" else (lacks, second)
    async with sending(bus, first, others=[behind], retry_first_s=3600.0):
        # The first finds that one is away, the second knows.
        for n in range(2):
            await post.request(f"r{n}", to=[{"email": "jürgen@x.example"}])
            assert (await post.states(n + 1))[n] == (f"r{n}", "deferred")


async def test_a_refusal_of_the_last_relay_by_policy_is_none_where_another_put_the_mail_off(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay
) -> None:
    relay.script.mail, second.script.mail = "451 4.7.0 too fast", "550 5.7.1 not you"
    async with sending(bus, relay, others=[second]):
        await post.request("r")
        assert (await post.states(1))[0] == ("r", "deferred")
        relay.script.mail = None
        assert (await post.states(2))[-1] == ("r", "sent")
        await post.empty()


async def test_a_refusal_by_policy_is_final_though_another_recipient_of_the_mail_is_put_off(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.rcpt = {"a@x.example": ["450 4.7.1 greylisted"], "b@x.example": ["554 5.7.1 blocked"]}
    async with sending(bus, relay, retry_first_s=3600.0):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(2)
    assert {event.state: list(delivered(event)) for event in post.events} == {
        "deferred": ["a@x.example"], "failed": ["b@x.example"],
    }  # fmt: skip


async def test_of_several_recipients_he_alone_is_put_off_whom_one_of_the_relays_put_off(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay
) -> None:
    refused = "554 5.7.1 blocked"
    relay.script.rcpt = {"a@x.example": ["450 4.7.1 greylisted"], "b@x.example": [refused]}
    second.script.rcpt = {"a@x.example": [refused], "b@x.example": [refused]}
    async with sending(bus, relay, others=[second], retry_first_s=3600.0):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(2)
    assert {event.state: list(delivered(event)) for event in post.events} == {
        "deferred": ["a@x.example"], "failed": ["b@x.example"],
    }  # fmt: skip


async def test_raw_bytes_with_a_header_in_utf8_go_to_a_relay_without_smtputf8(
    bus: Bus, post: Post, make_relay: RelayMaker
) -> None:
    relay = await make_relay(smtputf8=False)
    raw = "From: Jürgen <me@example.com>\r\nSubject: Grüße\r\n\r\nx\r\n".encode()
    blob = await bus.blobs().put(raw, now=SystemClock().now())
    async with sending(bus, relay):
        await bus.publish(
            bus.subjects.out("a"), b'{"id": "r", "to": [{"email": "a@x.example"}], "rawBlobId": "%b"}' % blob.encode()
        )
        assert await post.states(1) == [("r", "sent")]
        await post.empty()
    assert relay.messages[0].content == raw


async def test_a_refusal_of_a_recipient_is_final_and_no_other_relay_is_asked(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay
) -> None:
    relay.script.rcpt = {"a@x.example": ["550 5.1.1 unknown"]}
    async with sending(bus, relay, others=[second]):
        await post.request("r")
        assert await post.states(1) == [("r", "failed")]
    assert not second.connections


@pytest.mark.parametrize("stage", ["mail", "data", "body"])
async def test_a_connection_lost_before_the_dot_is_free_for_the_next_relay(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay, stage: str
) -> None:
    relay.script.cut, relay.script.cut_always = [stage], True
    async with sending(bus, relay, others=[second]):
        await post.request("r", text="a line of text\n" * 3000)
        assert await post.states(1) == [("r", "sent")]
        await post.empty()
    assert (len(relay.messages), len(second.messages)) == (0, 1)


@pytest.mark.fault("E01")
async def test_who_may_have_the_mail_is_named_and_nobody_else_is_asked_in_that_attempt(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, others=[second]):
        await post.request("r")
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
        await post.empty()
    assert post.events[0].body.relay == f"127.0.0.1:{relay.port}"
    assert (len(relay.messages), len(second.messages)) == (2, 0)


async def test_where_all_are_away_requests_are_put_off(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay
) -> None:
    await relay.stop()
    await second.stop()
    async with sending(bus, relay, others=[second], retry_first_s=60):
        await post.request("r")
        assert await post.states(1) == [("r", "deferred")]


async def test_a_relay_that_greets_and_wants_a_login_for_mail_is_no_relay_until_it_takes_one(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.relays.PATIENCE_S", 0.0)
    relay.script.mail = "530 5.7.0 authentication required"
    proved: list[str] = []
    async with sending(bus, relay) as sender:
        for n in range(2):
            watching = asyncio.create_task(sender.watch_relay(lambda: proved.append("")))
            # The first is greeted and believed; after its refusal nobody is until a mail goes.
            await post.request(f"r{n}", expiresAt=soon(3600))
            with pytest.raises(AuthRefused):
                async with asyncio.timeout(30):
                    await watching
        assert len(proved) == 1
        relay.script.mail = None
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            watching = group.create_task(sender.watch_relay(lambda: proved.append("")))
            await post.until(lambda: sum(event.state == "sent" for event in post.events) == 2)
            while len(proved) < 2:  # noqa: ASYNC110 the task that hears of it is another
                await asyncio.sleep(0.01)
            watching.cancel()
        await post.empty()


async def test_a_password_that_was_mended_ends_the_accounts_trouble_without_a_mail(
    bus: Bus, post: Post, make_relay: RelayMaker
) -> None:
    relay = await make_relay(password="right")
    login = {"login": True, "username": "u", "password": "changed", "gate": LoginGate(pause_s=0.0)}
    async with sending(bus, relay, smtp=login, retry_first_s=3600) as sender:
        await post.request("r")
        assert isinstance(await found_lost(sender), AuthRefused)
        assert await post.states(1) == [("r", "deferred")]
        relay._password = "changed"
        proved = asyncio.Event()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            watching = group.create_task(sender.watch_relay(proved.set))
            await proved.wait()
            watching.cancel()
    assert not relay.messages


def test_a_limit_of_recipients_is_known_where_the_answer_to_the_dot_is_lost() -> None:
    """RFC 5321 4.5.3.1.10: 552 for too many is 452, and means somebody else's mail went."""
    mail = Mail("me@x", {"b@x": ["b@x"]}, b"")
    refused = {"b@x": Reply(552, "5.5.3", "too many recipients", of_recipient=True)}
    assert each(mail, refused, taken=True)["b@x"].verdict is Verdict.OVERFULL
    assert each(mail, refused)["b@x"].verdict is Verdict.REFUSED


@pytest.mark.parametrize("split", [False, True])
async def test_what_a_relay_refused_after_its_end_is_in_no_doubt_where_nobody_waits_for_the_next_any_more(
    bus: Bus, post: Post, relay: ScriptedRelay, second: ScriptedRelay, split: bool
) -> None:
    """Its intent stands, and the relay's answer is known."""
    relay.script.data = ["550 5.7.1 not you"] * 2
    second.script.hold = asyncio.Event()
    async with sending(bus, relay, others=[second], retry_first_s=3600.0) as sender:
        behind = sender._deliverer.relays._ways[1].relay
        behind._limit = 1
        await post.request("r1")
        await second.received(1)
        await post.request("r2", split=split)
        async with asyncio.timeout(LIMIT_S):
            while not behind._waiting:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.01)
        behind.turn_away()
        assert await post.states(1) == [("r2", "deferred")]
        second.script.hold.set()
        assert (await post.states(2))[1:] == [("r1", "sent")]
