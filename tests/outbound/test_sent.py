"""Copies in the Sent mailbox: one for each mail that a relay took, and what such a mailbox proves. A real Dovecot."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from service.budget import Budget, Share
from service.bus import Bus
from service.clock import SystemClock
from service.contract import request_key
from service.errors import MailbusError, Permanent
from service.imap import Pool, WritingSession
from service.observe.steps import STOP_EXIT_CODE
from service.outbound import OUTBOX_HEADER, Returned, SentMailbox, SentOptions
from tests.commands.conftest import SPECIAL_USE, dovecot_with, options
from tests.meaning.mails import dsn
from tests.outbound.child import begin, ended, waiting
from tests.outbound.conftest import LIMIT_S, Post, deliveries, sending, soon
from tests.outbound.test_returned import announced, bounce
from tests.servers.dovecot import Dovecot
from tests.servers.forked import Forked
from tests.servers.imap_server import ImapServer
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way
from tests.servers.smtp import ScriptedRelay

HERE = Path(__file__).parent
ProxyMaker = Callable[[str, int], Awaitable[FaultProxy]]
STOPS = ("copy.before", "copy.done", "copy.kept")


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Dovecot]:
    async with dovecot_with(SPECIAL_USE) as one:
        yield one


def pool_of(server: ImapServer, user: str, **changes: Any) -> Pool:
    clock = SystemClock()
    where = options(server, user, **changes)
    return Pool(lambda: WritingSession.open(where, clock=clock), clock, where="a")


def sent_mailbox(bus: Bus, pool: Pool, *, memory: Share | None = None, **changes: Any) -> SentMailbox:
    usual: dict[str, Any] = {"account": "a", "copies": True, "insists": False, "life_s": 3600.0}
    said: list[MailbusError] = []
    memory = memory or deliveries().memory
    return SentMailbox(bus, pool, SentOptions(**(usual | changes)), SystemClock(), memory=memory, degraded=said.append)


@asynccontextmanager
async def keeping(sent: SentMailbox) -> AsyncIterator[None]:
    """While the block runs, copies are put there; begun again where it fails."""

    async def for_ever() -> None:
        while True:
            try:
                await sent.run(lambda: None)
            except MailbusError:
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(for_ever())
        try:
            yield
        finally:
            task.cancel()


async def in_sent(pool: Pool, count: int, mailbox: str = "Sent") -> list[str]:
    """The Message-IDs of what is there, once so many are and no copy waits."""
    async with asyncio.timeout(LIMIT_S):
        while len(found := await message_ids(pool, mailbox)) < count:  # noqa: ASYNC110 a mailbox that is asked
            await asyncio.sleep(0.05)
    return found


async def message_ids(pool: Pool, mailbox: str = "Sent") -> list[str]:
    async with pool.session() as session:
        await session.open_mailbox(mailbox, writing=False)
        await session.noop()
        uids = [uid for run in await session.search(["ALL"]) for uid in run]
        return [one.message_id.decode() for one in (await session.identities(uids)).values()]


async def text_of(pool: Pool, name: bytes) -> bytes:
    """A field of the only mail that is there."""
    found: list[bytes] = []
    async with pool.session() as session:
        await session.open_mailbox("Sent", writing=False)
        await session.fetch_section(
            f"BODY.PEEK[HEADER.FIELDS ({name.decode()})]", [1], lambda _, header: found.append(header)
        )
    return found[0]


async def comes_back(bus: Bus, mail: bytes) -> None:
    """A report that it was delivered."""
    message_id = message_from_bytes(mail)["Message-ID"].strip("<>")
    fields = "Final-Recipient: rfc822; a@x.example\nAction: delivered\nStatus: 2.0.0"
    payload = announced(dsn(fields, returned=f"Message-ID: <{message_id}>"))
    await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(payload)


async def test_what_a_report_proves_to_have_gone_out_is_in_sent(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str
) -> None:
    pool = pool_of(server, prefix)
    sent = sent_mailbox(bus, pool)
    relay.script.cut = ["before_reply"]
    async with keeping(sent), sending(bus, relay, sent=sent, uncertain="hold"):
        await post.request("r")
        await post.states(1)
        await comes_back(bus, relay.messages[0].content)
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
        await in_sent(pool, 1)
        await post.empty()
    assert len(relay.messages) == len(await message_ids(pool)) == 1


async def test_what_a_report_proves_to_have_gone_out_of_a_process_that_ended_is_in_sent(
    bus: Bus,
    post: Post,
    relay: ScriptedRelay,
    server: Dovecot,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    soon_again: None,
) -> None:
    monkeypatch.setattr("service.outbound.sender.FINISH_TIMEOUT_S", 0.1)
    pool = pool_of(server, prefix)
    sent = sent_mailbox(bus, pool)
    relay.script.hold = asyncio.Event()
    await post.request("r")
    async with sending(bus, relay, sent=sent):
        (mail,) = await relay.received(1)
        await comes_back(bus, mail.content)
    relay.script.hold.set()
    async with keeping(sent), sending(bus, relay, sent=sent):
        assert await post.states(1) == [("r", "sent")]
        await in_sent(pool, 1)
        await post.empty()
    assert len(relay.messages) == len(await message_ids(pool)) == 1


async def test_what_a_relay_took_is_in_sent_once_with_its_bcc(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str
) -> None:
    pool = pool_of(server, prefix)
    sent = sent_mailbox(bus, pool)
    # One is put off at first, one is refused: neither makes another copy.
    relay.script.rcpt = {"b@x.example": ["451 4.2.0 busy", "250 OK"], "c@x.example": ["550 5.1.1 unknown"]}
    async with keeping(sent), sending(bus, relay, sent=sent):
        to = [{"email": f"{who}@x.example"} for who in "abc"]
        await post.request("r", to=to, bcc=[{"email": "hidden@x.example"}])
        await post.until(lambda: sum(event.state == "sent" for event in post.events) == 2)
        await post.request("refused", to=[{"email": "c@x.example"}])
        await post.until(lambda: post.events[-1].body.id == "refused")
        await in_sent(pool, 1)
        await post.empty()
    ids = {message_from_bytes(mail.content)["Message-ID"] for mail in relay.messages}
    assert set(await message_ids(pool)) == ids
    assert len(await message_ids(pool)) == 1
    assert b"hidden@x.example" in await text_of(pool, b"Bcc")


async def test_of_a_message_for_each_there_are_no_copies(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str
) -> None:
    pool = pool_of(server, prefix)
    sent = sent_mailbox(bus, pool)
    async with keeping(sent), sending(bus, relay, sent=sent):
        await post.request("each", split=True, to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.request("one")
        await post.states(3)
        await post.empty()
    assert len(await in_sent(pool, 1)) == 1


@pytest.mark.fault("F06")
async def test_copies_that_wait_for_memory_leave_the_connection_to_commands(
    bus: Bus, post: Post, server: Dovecot, prefix: str
) -> None:
    whole = Budget(1_000_000)
    others = whole.take_now(whole.limit)
    assert others is not None
    pool = pool_of(server, prefix)
    sent = sent_mailbox(bus, pool, memory=Share(whole, whole.limit // 2))
    async with keeping(sent):
        await sent.queue("k", b"Message-ID: <1@x.example>\r\n\r\ntext\r\n", sent_at=SystemClock().now())
        async with asyncio.timeout(LIMIT_S):
            while not whole._waiting:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.02)
        assert await message_ids(pool) == []
        whole.give(others)
        await in_sent(pool, 1)
        await post.empty()


async def test_a_copy_larger_than_a_message_of_nats_goes_by_the_outbox(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str
) -> None:
    pool = pool_of(server, prefix)
    sent = sent_mailbox(bus, pool)
    blob = await bus.blobs().put(os.urandom(1_500_000), now=SystemClock().now())
    async with keeping(sent), sending(bus, relay, sent=sent):
        await post.request("r", attachments=[{"blobId": blob, "name": "a.bin"}])
        await in_sent(pool, 1)
        await post.empty()
    assert len(await message_ids(pool)) == 1


@pytest.mark.fault("E17")
async def test_an_append_whose_answer_is_lost_is_looked_for_before_it_is_done_again(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str, fault_proxy: ProxyMaker, soon_again: None
) -> None:
    proxy = await fault_proxy(server.host, server.imap)
    lost = 0

    def lose(way: Way, chunk: bytes) -> bytes:
        nonlocal lost
        if way is Way.TO_CLIENT and b"APPENDUID" in chunk and not lost:
            lost += 1
            proxy.cut()
            return b""
        return chunk

    proxy.watch = lose
    sent = sent_mailbox(bus, pool_of(server, prefix, port=proxy.port))
    async with keeping(sent), sending(bus, relay, sent=sent):
        await post.request("r")
        await post.request("next")
        await post.states(2)
        # It connects anew, and waits between: a busy machine took twenty seconds.
        await post.empty(90.0)
    assert lost == 1
    assert len(set(await message_ids(pool_of(server, prefix)))) == len(await message_ids(pool_of(server, prefix))) == 2


@pytest.mark.fault("E17")
async def test_a_mail_server_that_is_away_holds_up_no_mail_and_gets_its_copies_later(
    bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str, soon_again: None
) -> None:
    away = sent_mailbox(bus, pool_of(server, prefix, port=1))
    async with keeping(away), sending(bus, relay, sent=away):
        for n in range(20):
            await post.request(f"r{n}")
        await post.states(20)
    assert {event.state for event in post.events} == {"sent"}
    pool = pool_of(server, prefix)
    async with keeping(sent_mailbox(bus, pool)):
        await in_sent(pool, 20)
        await post.empty()
    assert len(await message_ids(pool)) == 20


async def test_without_a_sent_mailbox_nothing_is_copied_unless_it_is_insisted_on(
    bus: Bus, post: Post, relay: ScriptedRelay, dovecot: Dovecot, prefix: str
) -> None:
    pool = pool_of(dovecot, prefix)
    sent = sent_mailbox(bus, pool)
    async with keeping(sent), sending(bus, relay, sent=sent):
        await post.request("r")
        await post.states(1)
        await post.empty()
    assert not sent.wants_copies
    insisting = sent_mailbox(bus, pool, insists=True)
    async with sending(bus, relay, sent=insisting):
        await post.request("again")
        await post.states(2)
        with pytest.raises(Permanent, match="no Sent mailbox"):
            async with asyncio.timeout(LIMIT_S):
                await insisting.run(lambda: None)


# -- what it proves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["retry", "hold"])
async def test_a_proved_bounce_ends_the_doubt_and_nothing_is_sent_again(
    bus: Bus, post: Post, relay: ScriptedRelay, policy: str
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain=policy, retry_first_s=3600.0):
        await post.request("r", expiresAt=soon(3000))
        await post.states(1)
        message_id = post.events[0].body.message_id
        assert isinstance(message_id, str)
        await scheduled(bus, "r")
        await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(bounce(message_id))
        await post.states(3)
        await post.empty()
    assert [event.state for event in post.events] == ["uncertain", "bounced", "sent"]
    assert post.events[-1].body.undo_status == "final"
    assert len(relay.messages) == 1


async def scheduled(bus: Bus, id: str) -> None:
    """Until the schedule stands: what comes before it would be replaced by it."""
    subjects = bus.subjects
    async with asyncio.timeout(LIMIT_S):
        while not await bus.pending(  # noqa: ASYNC110 nothing rings
            subjects.stream_later, subjects.later("a", request_key("a", id))
        ):
            await asyncio.sleep(0.02)


# -- over a kill --------------------------------------------------------------------------------------------------


@pytest.mark.fault("E17")
async def test_killed_around_the_copy_there_is_one(
    nats_server: NatsServer, bus: Bus, post: Post, relay: ScriptedRelay, server: Dovecot, prefix: str, soon_again: None
) -> None:
    async def one(stop_at: str) -> None:
        account, user = stop_at.replace(".", "-"), f"{prefix}-{stop_at}"
        await Post(bus, account).request("r")
        words = (nats_server.url, bus.subjects.prefix, str(relay.port), "retry", account, str(server.imap), user)
        environment = os.environ | {"MAILBUS_STOP_AT": stop_at}
        assert await ended(Forked(begin, *words, env=environment)) == STOP_EXIT_CODE
        pool = pool_of(server, user)
        sent = sent_mailbox(bus, pool, account=account)
        async with keeping(sent), sending(bus, relay, account=account, sent=sent):
            async with asyncio.timeout(LIMIT_S):
                while await waiting(bus, account):  # noqa: ASYNC110 an empty stream rings no bell
                    await asyncio.sleep(0.05)
        assert len(await message_ids(pool)) == 1, stop_at

    async with asyncio.TaskGroup() as group:
        for stop_at in STOPS:
            group.create_task(one(stop_at))
    assert await post.states(len(STOPS)) == [("r", "sent")] * len(STOPS)
    assert len(relay.messages) == len(STOPS)


async def test_a_copy_that_is_queued_again_once_it_is_there_keeps_nothing(bus: Bus, post: Post) -> None:
    """Of a large one, whose process ended before it had said that the mail was sent."""

    def never() -> WritingSession:
        raise AssertionError("nobody puts it anywhere")

    clock = SystemClock()
    sent = sent_mailbox(bus, Pool(never, clock, where="a"))
    mail, at = b"x" * bus.max_payload, clock.now()
    for _ in range(2):
        await sent.queue("k", mail, sent_at=at)
    puller = await bus.queue(bus.subjects.stream_later).puller("sent-a", bus.subjects.sent_copies("a"))
    (job,) = await puller.fetch(2)
    await bus.blobs(bus.subjects.outbox).delete(job.headers[OUTBOX_HEADER])
    await job.ack()
    await sent.queue("k", mail, sent_at=at)
    await puller.close()
    await post.empty()
