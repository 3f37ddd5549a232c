"""What is heard, and who comes, between two parts of a request with a message for each recipient."""

import asyncio
from collections.abc import Sequence
from email import message_from_bytes
from typing import Any

import msgspec
import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import request_key
from service.outbound import Phase, Returned, Suppressions
from service.outbound.options import TOGETHER
from service.outbound.places import Place
from service.outbound.retry import Said, Verdict, found
from service.outbound.sends import SendRecord, Sends
from service.outbound.settle import Settler
from tests.outbound.conftest import Post, deliveries, idle_sender, sending
from tests.outbound.test_ending import record_of
from tests.outbound.test_evidence import report
from tests.outbound.test_mailings import people, until
from tests.outbound.test_returned import announced, bounce
from tests.servers.smtp import ScriptedRelay


async def test_what_is_heard_between_two_parts_does_not_put_forward_who_was_put_off(bus: Bus) -> None:
    clock, settler = SystemClock(), idle_sender(bus)._deliverer._settler
    now = clock.now()
    pending = {"doubted@x.example": "", "late@x.example": "451 4.2.0 busy", "next@x.example": "not sent yet"}
    record = SendRecord(
        "r", "", "", Phase.WAITING, 1, "m@x", now, now, pending=pending, split=True,
        trying=["doubted@x.example", "next@x.example"], account="a",
    )  # fmt: skip
    taken = {"doubted@x.example": Said(Verdict.ACCEPTED, "250 2.0.0 OK")}
    decision = found(taken, pending, [], next_at=now, expires_at=now)
    settled = await settler.told(request_key("a", "r"), record, 0, decision, None, attempt=1)
    assert set(settled.record.pending) == {"late@x.example", "next@x.example"}
    assert settled.record.trying == ["next@x.example"]


@pytest.mark.fault("E16")
@pytest.mark.parametrize("leaving", [False, True])
async def test_a_mail_that_comes_back_between_two_parts_does_not_stop_the_mailing(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch, leaving: bool
) -> None:
    came: list[bytes] = []

    async def comes_back() -> None:
        """Once, and only between two parts."""
        if relay.messages and not came:
            (first,) = [mail for mail in relay.messages if mail.rcpt_to == ["a@x.example"]]
            came.append(first.content)
            message_id = message_from_bytes(first.content)["Message-ID"].strip("<>")
            await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(bounce(message_id))

    among, again = Suppressions.among, Settler.again

    async def among_late(self: Suppressions, recipients: Sequence[str]) -> dict[str, Said]:
        await comes_back()
        return await among(self, recipients)

    async def again_late(self: Settler, *args: Any, **more: Any) -> None:
        await comes_back()
        await again(self, *args, **more)

    if leaving:
        monkeypatch.setattr("service.outbound.mailing.IN_HAND_S", 0.0)
        monkeypatch.setattr(Settler, "again", again_late)
    else:
        monkeypatch.setattr(Suppressions, "among", among_late)
    async with sending(bus, relay, retry_first_s=3600.0):
        await post.request("r", to=[{"email": "a@x.example"}, *people(2 * TOGETHER)], split=True)
        await post.states(2 * TOGETHER + 2)
        await post.empty()
        record = await record_of(bus, "r")
    assert sorted(event.state for event in post.events) == ["bounced", *["sent"] * (2 * TOGETHER + 1)]
    assert len(relay.messages) == 2 * TOGETHER + 1
    assert (record.phase, record.returned) == (Phase.FINAL, ["bounced a@x.example"])


@pytest.mark.fault("E16")
async def test_nor_do_several_that_come_back_one_after_the_other(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each just before the mailing writes what stands then."""
    put, back = Sends.put, list[str]()

    async def put_late(self: Sends, key: str, record: SendRecord, revision: int) -> int:
        if record.phase is Phase.INTENT and revision and len(back) < 3:
            mail = relay.messages[len(back)]
            back.extend(mail.rcpt_to)
            message_id = message_from_bytes(mail.content)["Message-ID"].strip("<>")
            payload = announced(report("failed", message_id, whom=mail.rcpt_to[0]))
            await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(payload)
        return await put(self, key, record, revision)

    monkeypatch.setattr(Sends, "put", put_late)
    async with sending(bus, relay, retry_first_s=3600.0):
        await post.request("r", to=people(2 * TOGETHER), split=True)
        await post.states(2 * TOGETHER + 3)
        await post.empty()
        record = await record_of(bus, "r")
    assert len(relay.messages) == 2 * TOGETHER
    assert (record.phase, set(record.returned)) == (Phase.FINAL, {f"bounced {who}" for who in back})


@pytest.mark.fault("E01")
async def test_whose_mail_is_reported_on_between_two_parts_does_not_get_it_again(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody heard of the first attempt whether it went out."""
    among, last = Suppressions.among, f"p{TOGETHER}@x.example"
    relay.script.cut = ["before_reply"] * (TOGETHER + 1)

    async def among_late(self: Suppressions, recipients: Sequence[str]) -> dict[str, Said]:
        mails = [mail for mail in relay.messages if mail.rcpt_to == [last]]
        if last in recipients and mails:
            message_id = message_from_bytes(mails[0].content)["Message-ID"].strip("<>")
            payload = announced(report("delivered", message_id, whom=last))
            await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(payload)
        return await among(self, recipients)

    monkeypatch.setattr(Suppressions, "among", among_late)
    async with sending(bus, relay, uncertain="retry"):
        await post.request("r", to=people(TOGETHER + 1), split=True)
        await post.until(lambda: sum(event.state == "sent" for event in post.events) > TOGETHER)
        await post.empty()
    assert len([mail for mail in relay.messages if mail.rcpt_to == [last]]) == 1
    assert len(relay.messages) == 2 * TOGETHER + 1


@pytest.mark.fault("E02")
async def test_who_is_slow_between_two_parts_loses_the_mailing_to_whom_its_job_comes_next(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His job is acknowledged there: in whatever part he ended, nobody would find out."""
    among, stands, go = Suppressions.among, asyncio.Event(), asyncio.Event()

    async def among_late(self: Suppressions, recipients: Sequence[str]) -> dict[str, Said]:
        if relay.messages:
            stands.set()
            await go.wait()
        return await among(self, recipients)

    monkeypatch.setattr(Suppressions, "among", among_late)
    async with sending(bus, relay, retry_first_s=3600.0) as slow:
        await post.request("r", to=people(2 * TOGETHER), split=True)
        await stands.wait()
        (job,) = slow._hands._held
        again = msgspec.structs.replace(job, delivered=2)
        await idle_sender(bus)._deliverer.handle(again, Place(asyncio.Semaphore(1), deliveries()))
        go.set()
        await until(lambda: not len(slow._hands))
    assert len(relay.messages) == TOGETHER
    record = await record_of(bus, "r")
    assert (record.phase, len(record.pending)) == (Phase.WAITING, TOGETHER)
    assert await bus.pending(bus.subjects.stream_out, ">") == 0
    assert await bus.pending(bus.subjects.stream_later, bus.subjects.later("a", "*")) == 1


@pytest.mark.fault("E01")
@pytest.mark.parametrize("policy", ["retry", "hold"])
async def test_whose_mail_is_reported_on_while_another_part_is_tried_does_not_get_it_again(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """One of the first part is in doubt; the next part stands at the relay when the report comes."""
    among, hold = Suppressions.among, asyncio.Event()

    async def among_late(self: Suppressions, recipients: Sequence[str]) -> dict[str, Said]:
        if relay.messages and not hold.is_set():
            relay.script.hold = hold
        return await among(self, recipients)

    monkeypatch.setattr(Suppressions, "among", among_late)
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain=policy, retry_first_s=1.0):
        await post.request("r", to=people(2 * TOGETHER), split=True)
        await relay.received(TOGETHER + 1)
        await post.until(lambda: any(event.state == "uncertain" for event in post.events))
        (doubtful,) = [event for event in post.events if event.state == "uncertain"]
        (whom,) = doubtful.body.delivery_status
        payload = announced(report("delivered", str(doubtful.body.message_id), whom=whom))
        await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(payload)
        relay.script.hold = None
        hold.set()
        await post.states(2 * TOGETHER + 1)
        await post.empty()
    assert sorted(event.state for event in post.events) == [*["sent"] * (2 * TOGETHER), "uncertain"]
    assert len(relay.messages) == 2 * TOGETHER
