"""A proved report that a mail was delivered, or waits behind the relay, ends the doubt whether it went out."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any

import pytest
from msgspec.structs import replace

from service.bus import Bus
from service.clock import SystemClock
from service.contract import Action
from service.errors import Transient
from service.outbound import Bundle, Phase, Returned, settle
from service.outbound import returned as returned_module
from service.outbound.bundles import Bundles
from service.outbound.evidence import Evidence
from service.outbound.proof import Known, mark_of
from service.outbound.sends import SendRecord, Sends
from service.outbound.told import doubted, names_of
from tests.meaning.mails import dsn, reports_of
from tests.outbound.conftest import Post, delivered, sending
from tests.outbound.test_returned import announced
from tests.outbound.test_sent import scheduled
from tests.servers.smtp import ScriptedRelay


def report(action: str, message_id: str = "", *, whom: str = "a@x.example", original: str = "") -> str:
    fields = f"Final-Recipient: rfc822; {whom}\nAction: {action}\nStatus: 2.0.0"
    fields += f"\nOriginal-Recipient: rfc822; {original}" if original else ""
    return dsn(fields, returned=f"Message-ID: <{message_id}>")


@pytest.mark.fault("E01")
@pytest.mark.parametrize(("policy", "action"), [("hold", "relayed"), ("retry", "delivered"), ("hold", "delayed")])
async def test_a_proved_report_of_success_ends_the_doubt_and_nothing_is_sent_again(
    bus: Bus, post: Post, relay: ScriptedRelay, policy: str, action: str
) -> None:
    relay.script.cut = ["before_reply"]
    returned = Returned(bus, SystemClock(), suppresses=lambda _: True)
    async with sending(bus, relay, uncertain=policy, retry_first_s=3600.0):
        await post.request("r")
        await post.states(1)
        message_id = str(post.events[0].body.message_id)
        await scheduled(bus, "r")
        # A stranger's says nothing; it stands before the other in all that follows.
        await returned.heard(announced(report(action, f"{'0' * 64}@example.com")))
        await returned.heard(announced(report(action, message_id)))
        await post.states(2)
        await post.empty()
        await returned.heard(announced(report(action, message_id)))
        await post.request("next")
        await post.states(3)
    assert [event.state for event in post.events] == ["uncertain", "sent", "sent"]
    assert post.events[1].body.undo_status == "final"
    assert "the mail was reported on" in post.events[1].body.delivery_status["a@x.example"].smtp_reply
    assert delivered(post.events[1]) == {"a@x.example": "unknown"}
    assert [mail.rcpt_to for mail in relay.messages] == [["a@x.example"]] * 2


@pytest.mark.fault("E01")
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("action", ["delivered", "failed"])
async def test_a_proved_report_that_comes_while_the_relay_has_not_answered_is_remembered(
    bus: Bus, post: Post, relay: ScriptedRelay, split: bool, action: str
) -> None:
    relay.script.cut = ["before_reply"]
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r", split=split)
        (mail,) = await relay.received(1)
        message_id = message_from_bytes(mail.content)["Message-ID"].strip("<>")
        payload = announced(report(action, message_id))
        await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(payload)
        relay.script.hold.set()
        relay.script.hold = None
        await post.until(lambda: any(event.state in ("sent", "uncertain") for event in post.events))
        await post.empty()
    assert [event.state for event in post.events] == ["bounced"] * (action == "failed") + ["sent"]
    assert "the mail was reported on" in post.events[-1].body.delivery_status["a@x.example"].smtp_reply
    assert len(relay.messages) == 1


@pytest.mark.fault("E01")
async def test_a_report_right_before_the_schedule_of_what_is_on_hold_is_not_left_for_its_expiry(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_schedule, first = settle.schedule, True

    async def late(*given: Any) -> None:
        nonlocal first
        if first:
            first = False
            message_id = message_from_bytes(relay.messages[0].content)["Message-ID"].strip("<>")
            payload = announced(report("delivered", message_id))
            await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(payload)
        await set_schedule(*given)

    monkeypatch.setattr("service.outbound.settle.schedule", late)
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r")
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
        await post.empty()


class Sent:
    """A Sent mailbox without the mail; meanwhile a report comes."""

    wants_copies = False

    def __init__(self, comes: Callable[[], Awaitable[None]]) -> None:
        self._comes = comes

    async def which(self, _message_ids: Iterable[str], *, since: datetime) -> set[str]:
        await self._comes()
        return set()


@pytest.mark.fault("E01")
@pytest.mark.parametrize("split", [False, True])
async def test_a_report_that_comes_while_the_sent_mailbox_is_looked_into_is_not_left_for_the_expiry_of_a_hold(
    bus: Bus, post: Post, relay: ScriptedRelay, split: bool
) -> None:
    async def comes() -> None:
        message_id = message_from_bytes(relay.messages[0].content)["Message-ID"].strip("<>")
        await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(announced(report("delivered", message_id)))

    relay.script.cut = ["before_reply"]
    sent: Any = Sent(comes)
    async with sending(bus, relay, uncertain="hold", sent=sent):
        await post.request("r", split=split)
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
        await post.empty()
    assert len(relay.messages) == 1


@pytest.mark.fault("E01")
@pytest.mark.parametrize("split", [False, True])
async def test_a_report_that_comes_while_the_next_attempt_waits_for_its_turn_stops_it(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch, split: bool
) -> None:
    read = Bundles.read

    async def comes(self: Bundles, record: SendRecord) -> Bundle:
        payload = announced(report("delivered", str(post.events[0].body.message_id)))
        await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(payload)
        return await read(self, record)

    monkeypatch.setattr(Bundles, "read", comes)
    monkeypatch.setattr("service.outbound.deliver.AGAIN_S", 0.05)
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay):
        await post.request("r", split=split)
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
        await post.empty()
    assert len(relay.messages) == 1


@pytest.mark.fault("E01")
@pytest.mark.parametrize("action", ["delivered", "failed"])
async def test_a_report_whose_hearing_broke_off_frees_who_is_on_hold_when_it_is_heard_again(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    set_schedule, broken = returned_module.schedule, False

    async def breaks(*given: Any) -> None:
        nonlocal broken
        if not broken:
            broken = True
            raise Transient("this process ends", where="here")
        await set_schedule(*given)

    monkeypatch.setattr(returned_module, "schedule", breaks)
    relay.script.cut = ["before_reply"]
    returned = Returned(bus, SystemClock(), suppresses=lambda _: False)
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r")
        await post.states(1)
        await scheduled(bus, "r")
        payload = announced(report(action, str(post.events[0].body.message_id)))
        with pytest.raises(Transient):
            await returned.heard(payload)
        await returned.heard(payload)
        await post.until(lambda: any(event.state == "sent" for event in post.events))
        await post.empty()
    assert len(relay.messages) == 1


@pytest.mark.fault("E16")
async def test_a_bounce_that_names_nobody_and_comes_before_the_outcome_finds_who_it_is(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay):
        await post.request("r")
        (mail,) = await relay.received(1)
        message_id = message_from_bytes(mail.content)["Message-ID"].strip("<>")
        payload = announced(dsn("Reporting-MTA: dns; x.example", returned=f"Message-ID: <{message_id}>"))
        await Returned(bus, SystemClock(), suppresses=lambda _: False).heard(payload)
        await post.states(1)
        relay.script.hold.set()
        await post.states(2)
        await post.empty()
    assert [(event.state, list(delivered(event))) for event in post.events] == [
        ("bounced", ["a@x.example"]), ("sent", ["a@x.example"]),
    ]  # fmt: skip


def record(pending: dict[str, str], *, taken: list[str], held: list[str] | None = None, unsure: int = 1) -> SendRecord:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    return SendRecord(
        "r", "", "", Phase.WAITING, 1, "m@x", now, now, pending=pending, taken=taken, held=held or [], unsure=unsure
    )


class Asked(Sends):
    """`asked`: of whom it was asked whether his mail was reported on."""

    asked: tuple[str, ...] = ()

    async def reported(self, key: str, recipients: Iterable[str]) -> list[str]:
        self.asked = tuple(recipients)
        return []


async def test_a_mailing_asks_of_those_alone_who_come_next_or_are_on_hold(bus: Bus) -> None:
    """It comes again and again: each time it would ask of everybody, one after the other."""
    sends = Asked(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), SystemClock())
    evidence = Evidence("a", sends, None)
    waits = record({"next@x.example": "", "later@x.example": ""}, taken=[], held=["held@x.example"])
    mailing = replace(waits, split=True, trying=["next@x.example"])
    for one, asked in (
        (mailing, ("next@x.example", "held@x.example")),
        (replace(mailing, trying=[]), ("next@x.example", "later@x.example", "held@x.example")),
        (waits, ("next@x.example", "later@x.example", "held@x.example")),
    ):
        await evidence.of_waiting(one)
        assert sends.asked == asked


ANY = Known("k", "")


def test_a_report_counts_while_another_part_of_the_mailing_is_tried() -> None:
    mailing = record({"before@x.example": "", "now@x.example": ""}, taken=["before@x.example"])
    trying = replace(mailing, phase=Phase.INTENT, split=True, trying=["now@x.example"])
    for who in ("before@x.example", "now@x.example"):
        assert doubted(Known("k", mark_of(who)), trying, names_of([])) == [who]


def test_who_has_the_mail_for_certain_proves_nothing_of_another() -> None:
    """He can write a report that looks as if the mail went to the other, too: who then would get none."""
    doubtful = record({"b@x.example": ""}, taken=["a@x.example", "b@x.example"])
    assert doubted(ANY, doubtful, names_of(reports_of(report("delivered", whom="b@x.example")))) == []
    marked = Known("k", mark_of("b@x.example"))
    assert doubted(marked, doubtful, names_of(reports_of(report("delivered", whom="b@x.example")))) == ["b@x.example"]
    assert doubted(Known("k", mark_of("a@x.example")), doubtful, names_of([])) == []


def test_of_several_in_doubt_those_are_meant_that_a_report_names() -> None:
    both = record({"B@x.example": ""}, taken=["a@x.example", "B@x.example"], held=["a@x.example"])
    reports = reports_of(report("relayed", whom="other@behind.example", original="b@x.example"))
    assert [one.action for one in reports] == [Action.RELAYED]
    assert doubted(ANY, both, names_of(reports)) == ["B@x.example"]
    assert doubted(ANY, both, names_of(reports_of(report("relayed", whom="other@behind.example")))) == []


def test_one_alone_is_meant_whatever_he_is_called_behind_the_relay_and_who_was_put_off_is_in_no_doubt() -> None:
    reports = reports_of(report("delivered", whom="other@behind.example"))
    assert doubted(ANY, record({"a@x.example": ""}, taken=["a@x.example"]), names_of(reports)) == ["a@x.example"]
    assert doubted(ANY, record({"a@x.example": "451 4.2.0 busy"}, taken=["a@x.example"]), names_of(reports)) == []
    assert doubted(ANY, record({"a@x.example": ""}, taken=[], unsure=0), names_of(reports)) == []
