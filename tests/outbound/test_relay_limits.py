"""Relays with limits and policies: recipients for one transaction, refusals of everything."""

from datetime import timedelta
from typing import Any

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import request_key
from service.errors import Permanent
from service.outbound import Sender
from service.outbound.breaker import ALIKE_LIMIT, Breaker
from service.outbound.retry import Said, Verdict
from service.outbound.sends import SendRecord
from tests.outbound.conftest import Post, found_lost, sending
from tests.servers.smtp import Handler, RelayMaker, ScriptedRelay

LIMIT = 100


class Limited(Handler):
    """Takes LIMIT recipients in a transaction."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if len(envelope.rcpt_tos) >= LIMIT:
            return "452 4.5.3 too many recipients"
        return await super().handle_RCPT(server, session, envelope, address, options)


@pytest.mark.fault("E06")
async def test_recipients_beyond_the_relays_limit_go_in_further_transactions_at_once(
    bus: Bus, post: Post, make_relay: RelayMaker
) -> None:
    relay = await make_relay(handler=Limited)
    everybody = [f"n{n}@x.example" for n in range(2 * LIMIT + 1)]
    async with sending(bus, relay, retry_first_s=3600):
        await post.request("r", to=[{"email": one} for one in everybody])
        await post.states(3)
        await post.empty()
    assert {event.state for event in post.events} == {"sent"}
    assert [len(mail.rcpt_to) for mail in relay.messages] == [LIMIT, LIMIT, 1]
    assert sorted(one for mail in relay.messages for one in mail.rcpt_to) == sorted(everybody)
    assert len({mail.content for mail in relay.messages}) == 1


class LimitedAndGrey(Limited):
    """The same, and puts off whoever is called grey; `asked`: how often he was named."""

    asked = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("grey"):
            type(self).asked += 1
            return "451 4.7.1 greylisted"
        return await super().handle_RCPT(server, session, envelope, address, options)


@pytest.mark.fault("E06")
async def test_who_was_put_off_is_not_asked_again_at_once_with_those_for_whom_there_was_no_room(
    bus: Bus, post: Post, make_relay: RelayMaker
) -> None:
    LimitedAndGrey.asked = 0
    relay = await make_relay(handler=LimitedAndGrey)
    everybody = ["grey@x.example", *(f"n{n}@x.example" for n in range(2 * LIMIT + 1))]
    async with sending(bus, relay, retry_first_s=3600) as sender:
        await post.request("r", to=[{"email": one} for one in everybody])
        await post.states(4)
        record = await record_of(sender)
    assert [len(mail.rcpt_to) for mail in relay.messages] == [LIMIT, LIMIT, 1]
    assert [event.state for event in post.events].count("deferred") == 1
    assert LimitedAndGrey.asked == 1
    assert list(record.pending) == ["grey@x.example"]
    # His first pause, however many transactions the others took.
    assert record.next_at is not None
    assert record.next_at - SystemClock().now() <= timedelta(seconds=3600)


async def record_of(sender: Sender) -> SendRecord:
    record, _ = await sender._deliverer._sends.get(request_key("a", "r"))
    assert record is not None
    return record


@pytest.mark.fault("E07")
async def test_refused_for_good_is_one_attempt(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    relay.script.data = ["550 5.7.1 no", "552 5.3.4 too big", "554 5.6.0 spam"]
    async with sending(bus, relay):
        for n in range(3):
            await post.request(f"r{n}")
        await post.states(3)
        await post.empty()
    assert {event.state for event in post.events} == {"failed"}
    assert {event.body.attempt for event in post.events} == {1}
    assert relay.data_commands == 3


@pytest.mark.fault("E07")
async def test_a_relay_that_refuses_everything_is_left_alone_and_the_rest_waits(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.breaker.ALIKE_LIMIT", 5)
    monkeypatch.setattr("service.outbound.relays.PATIENCE_S", 0.0)
    relay.script.mail = "550 5.7.1 you may not send"
    async with sending(bus, relay, retry_first_s=3600, smtp={"connections": 1}) as sender:
        for n in range(12):
            await post.request(f"r{n}")
        assert isinstance(await found_lost(sender), Permanent)
        await post.states(12)
    states = [event.state for event in post.events]
    assert (states.count("failed"), states.count("deferred")) == (5, 7)


def refused(reply: str = "550 5.7.1 no") -> dict[str, Said]:
    return {"a": Said(Verdict.REFUSED, reply)}


ACCEPTED = {"a": Said(Verdict.ACCEPTED, "250 OK")}


def test_what_is_refused_for_other_reasons_or_in_part_opens_nothing() -> None:
    breaker = Breaker("a")
    for n in range(3 * ALIKE_LIMIT):
        assert breaker.heard(refused("550 5.1.1 unknown")) is None
        assert breaker.heard(refused(f"550 5.7.{n % 2} no")) is None
        assert breaker.heard(refused() | {"b": Said(Verdict.ACCEPTED, "250 OK")}) is None


def test_a_domain_that_refuses_all_its_mail_pauses_nobody_and_many_domains_alike_do() -> None:
    breaker = Breaker("a")
    domains = ("x", "y", "z")

    def no(domain: str) -> dict[str, Said]:
        return {f"a@{domain}.example": Said(Verdict.REFUSED, "550 5.7.1 no", of_recipient=True)}

    for _ in range(3 * ALIKE_LIMIT):
        assert breaker.heard(no("x")) is None
    assert breaker.heard(ACCEPTED) is None
    opened = [breaker.heard(no(domains[n % 3])) is not None for n in range(ALIKE_LIMIT)]
    assert opened == [False] * (ALIKE_LIMIT - 1) + [True]


def test_once_open_one_more_is_enough_until_a_mail_is_taken() -> None:
    breaker = Breaker("a")
    opened = [breaker.heard(refused()) is not None for _ in range(ALIKE_LIMIT + 2)]
    assert opened == [False] * (ALIKE_LIMIT - 1) + [True, True, True]
    assert breaker.heard(ACCEPTED) is None
    assert breaker.heard(refused()) is None


def test_what_is_said_of_it_holds_no_address() -> None:
    breaker = Breaker("a")
    for n in range(ALIKE_LIMIT):
        why = breaker.heard(refused(f"554 5.7.1 <n{n}@x.example>: Relay access denied"))
    assert why is not None
    assert "@" not in str(why)


@pytest.mark.fault("E10")
@pytest.mark.parametrize("second_has_it", [False, True])
async def test_an_address_that_is_not_ascii_is_the_affair_of_its_recipient_alone(
    bus: Bus, post: Post, make_relay: RelayMaker, *, second_has_it: bool
) -> None:
    """RFC 6531 3.4: without SMTPUTF8 the others get their mail, and he his by a relay that has it, or 5.6.7."""
    first, second = await make_relay(smtputf8=False), await make_relay(smtputf8=second_has_it)
    async with sending(bus, first, others=[second]):
        await post.request("r", bcc=[{"email": "jürgen@x.example"}])
        await post.states(2)
        await post.empty()
    said = {
        who: (event.state, one.smtp_reply) for event in post.events for who, one in event.body.delivery_status.items()
    }
    assert said["a@x.example"][0] == "sent"
    state, reply = said["jürgen@x.example"]
    assert (state, "5.6.7" in reply) == (("sent", False) if second_has_it else ("failed", True))
    assert [mail.rcpt_to for mail in first.messages] == [["a@x.example"]]
    assert [mail.rcpt_to for mail in second.messages] == [["jürgen@x.example"]] * second_has_it
