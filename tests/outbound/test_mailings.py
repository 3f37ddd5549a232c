"""Requests with a message for each recipient are in hand for a while only: others go between their parts."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.observe.steps import STOP_EXIT_CODE
from service.outbound import Limit, Suppressions
from service.outbound.evidence import Evidence
from service.outbound.lanes import Lanes, Turn
from service.outbound.mailing import IN_HAND_S, _Turns
from service.outbound.options import TOGETHER
from service.outbound.retry import Said, Verdict
from service.outbound.sender import IN_HAND_LIMIT
from service.outbound.sends import SendRecord
from service.smtp import RelayUnreachable
from tests.outbound.child import begin_in_parts
from tests.outbound.conftest import LIMIT_S, Post, delivered, deliveries, sending
from tests.outbound.test_crash import run_child
from tests.outbound.test_ending import outcomes, record_of
from tests.outbound.test_memory import LARGE, large
from tests.servers.clock import FakeClock
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay


def people(count: int, of: str = "x") -> list[dict[str, str]]:
    return [{"email": f"p{n}@{of}.example"} for n in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 nothing rings
            await asyncio.sleep(0.02)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mailing is in hand for one part."""
    monkeypatch.setattr("service.outbound.mailing.IN_HAND_S", 0.0)


@pytest.mark.fault("E05")
async def test_mailings_that_fill_the_account_let_its_other_requests_go_between_their_parts(
    bus: Bus, post: Post, relay: ScriptedRelay, in_parts: None
) -> None:
    for n in range(IN_HAND_LIMIT):
        await post.request(f"mailing{n}", to=people(3 * TOGETHER), split=True)
    await post.request("other")
    async with sending(bus, relay, smtp={"connections": 2}):
        await post.states(IN_HAND_LIMIT * 3 * TOGETHER + 1)
        await post.empty()
    order = [event.body.id for event in post.events]
    before = order[: order.index("other")]
    assert max(map(before.count, set(before))) <= 2 * TOGETHER
    assert len(relay.messages) == len(order)
    assert {event.state for event in post.events} == {"sent"}


@pytest.mark.fault("F06")
async def test_a_large_mailing_gives_its_memory_to_others_between_its_parts(
    bus: Bus, post: Post, relay: ScriptedRelay, in_parts: None
) -> None:
    relay.script.hold = asyncio.Event()
    places = deliveries(16, 6 * LARGE)
    files = await large(bus, b"x")
    async with sending(bus, relay, places=places):
        await post.request("mailing", to=people(3 * TOGETHER), split=True, attachments=files)
        await relay.received(2)
        await post.request("other", attachments=files)
        await until(lambda: bool(places.memory._large._waiting))
        relay.script.hold.set()
        await post.states(3 * TOGETHER + 1)
        await post.empty()
    order = [event.body.id for event in post.events]
    assert order.index("other") < 2 * TOGETHER


async def test_who_was_put_off_waits_until_everybody_was_tried_and_then_for_one_pause(
    bus: Bus, post: Post, relay: ScriptedRelay, in_parts: None
) -> None:
    late = {f"p{n}@x.example": ["451 4.2.0 busy", "451 4.2.0 busy", "250 OK"] for n in (0, 9)}
    relay.script.rcpt = dict(late)
    async with sending(bus, relay, retry_first_s=0.3, retry_factor=10_000.0):
        await post.request("r", to=people(5 * TOGETHER), split=True)
        await post.states(5 * TOGETHER + 2)
        await until(lambda: all(len(relay.script.rcpt[who]) == 1 for who in late))
    states = [event.state for event in post.events]
    assert states.count("sent") == 5 * TOGETHER - 2
    # Only then are those tried again, together; the next pause is the second and not the seventh.
    assert states[-2:] == ["deferred", "deferred"]
    record = await record_of(bus, "r")
    assert (set(record.pending), record.trying) == (set(late), [])
    assert record.attempt - record.overfull == 2


async def test_who_was_put_off_hears_when_he_is_tried_again_once_everybody_was_tried(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    to, busy = people(3 * TOGETHER), ["451 4.2.0 busy"]
    first, last = to[0]["email"], to[-1]["email"]
    relay.script.rcpt = {first: busy, last: busy}
    async with sending(bus, relay, retry_first_s=3600.0):
        await post.request("r", to=to, split=True)
        await post.states(3 * TOGETHER)
    next_at = {who: event.body.next_attempt_at for event in post.events for who in event.body.delivery_status}
    assert next_at[first] is msgspec.UNSET
    assert next_at[last] == (await record_of(bus, "r")).next_at


@pytest.mark.fault("E05", "F06")
async def test_a_large_mailing_waits_for_its_accounts_turn_without_its_memory(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    places = deliveries(16, 6 * LARGE)
    files = await large(bus, b"x")
    other = Post(bus, account="b")
    async with (
        sending(bus, relay, places=places, interval_s=3600.0),
        sending(bus, relay, places=places, account="b"),
    ):
        await post.request("mailing", to=people(3 * TOGETHER), split=True, attachments=files)
        await relay.received(1)
        await other.request("other", attachments=files)
        await post.until(lambda: any(event.body.id == "other" for event in post.events))
    assert [event.state for event in post.events] == ["sent", "sent"]
    assert len(relay.messages) == 2


async def test_of_a_relay_that_goes_away_within_a_mailing_hears_nobody_who_was_not_tried(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.deliver.AGAIN_S", 0.1)
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay) as sender:
        await post.request("r", to=people(3 * TOGETHER), split=True)
        await relay.received(TOGETHER)
        relays = sender._deliverer.relays
        relays.lost(RelayUnreachable("it closes", where="a"))
        relay.script.hold.set()
        relay.script.hold = None
        await post.states(TOGETHER)
        async with asyncio.timeout(LIMIT_S):
            while not (await record_of(bus, "r")).overfull:  # noqa: ASYNC110 nothing rings
                await asyncio.sleep(0.02)
        relays.found()
        await post.states(3 * TOGETHER)
        await post.empty()
    assert {event.state for event in post.events} == {"sent"}
    assert len(relay.messages) == 3 * TOGETHER


async def test_who_waits_for_a_domain_is_out_of_hand_and_in_nobodys_way(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    to = [*people(12, "slow"), *people(12)]
    async with sending(bus, relay, domains={"slow.example": Limit(interval_s=3600.0)}) as sender:
        await post.request("r", to=to, split=True)
        await post.states(13)
        await until(lambda: not len(sender._hands))
        record = await record_of(bus, "r")
    assert {who.partition("@")[2] for who in record.pending} == {"slow.example"}
    assert (len(record.pending), record.turn, record.unsure) == (11, True, 0)
    assert {state for _, state in outcomes(post)} == {"sent"}


@pytest.mark.fault("E05")
async def test_a_mailing_is_promised_no_more_turns_than_it_comes_back_for() -> None:
    """It is in hand for a quarter of a minute, again and again, and asks for everybody who waits each time."""
    clock = FakeClock()
    ours = Lanes("a", {"*": Limit(interval_s=60.0), "quick.example": Limit(interval_s=2.0)}, clock)
    waiting = [f"p{n}@d{n % 20}.example" for n in range(200)] + [f"p{n}@quick.example" for n in range(200)]
    waited, longest_s = False, 0.0
    while waiting:
        turns, until = _Turns(ours, clock, waited=waited), clock.monotonic() + IN_HAND_S
        for who in waiting.copy():
            turn = turns.take(who)
            while isinstance(turn, float):
                await clock.advance(turn)
                turn = ours.take([who], waited=True)
            if turn is not None:
                ours.give_back(turn, spent=True)
                waiting.remove(who)
            if clock.monotonic() >= until:
                break
        newcomer = ours._lane("d0.example").wait_s(clock.monotonic(), waited=False)
        longest_s, waited = max(longest_s, newcomer), True
        if waiting:
            await clock.advance(max(1.0, turns.promised_s(waiting)))
    # Behind one that waits for each of the domains' turns.
    assert longest_s <= 2 * 60.0
    assert clock.monotonic() <= 1.1 * 9 * 60.0


@pytest.mark.fault("E05")
async def test_two_mailings_to_the_same_two_domains_do_not_wait_for_each_other(
    bus: Bus, post: Post, relay: ScriptedRelay, in_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has one domain's turn, and few of its large mails go at once: first those to the other domain."""
    real, there, go_on = Suppressions.among, asyncio.Event(), asyncio.Event()

    async def among(self: Suppressions, recipients: Sequence[str]) -> dict[str, Said]:
        barred = await real(self, recipients)
        if "x8@x.example" in recipients:
            there.set()
            await go_on.wait()
        return barred

    monkeypatch.setattr(Suppressions, "among", among)
    files, one = await large(bus, b"x"), Limit(at_once=1)

    async def mailing(id: str, *names: str) -> None:
        to = [{"email": f"{name}@{name[0]}.example"} for name in names]
        await post.request(id, to=to, split=True, attachments=files)

    async with sending(bus, relay, domains={"x.example": one, "y.example": one}) as sender:
        lanes = sender._deliverer.lanes
        await mailing("one", *(f"w{n}" for n in range(TOGETHER)), "x8", "x9", "y8", "y9")
        await asyncio.wait_for(there.wait(), LIMIT_S)
        under_way = lanes.take(["z@y.example"], waited=True)
        assert isinstance(under_way, Turn)
        await mailing("two", "y1", "y2", "x1", "x2")
        await until(lambda: lanes._lane("x.example").full)
        lanes.give_back(under_way, spent=True)
        go_on.set()
        await post.states(TOGETHER + 8)
        await post.empty()
    assert {event.state for event in post.events} == {"sent"}


async def test_who_gets_nothing_takes_no_turn(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    barred = people(3, "slow")
    for one in barred:
        await Suppressions(bus, "a", SystemClock()).add(one["email"], "bounced")
    async with sending(bus, relay, domains={"slow.example": Limit(interval_s=3600.0)}):
        await post.request("r", to=[*barred, {"email": "b@slow.example"}], split=True)
        await post.states(4)
        await post.empty()
    assert [mail.rcpt_to for mail in relay.messages] == [["b@slow.example"]]


async def test_who_was_reported_on_since_his_turn_began_leaves_it_to_the_next_one_of_his_domain(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are of one part, and of its domain's mails one goes at once."""

    async def of_part(_self: Evidence, _record: SendRecord) -> dict[str, Said]:
        return {"p0@x.example": Said(Verdict.ACCEPTED, "250 2.0.0 the mail was reported on")}

    monkeypatch.setattr(Evidence, "of_part", of_part)
    async with sending(bus, relay, domains={"x.example": Limit(at_once=1)}):
        await post.request("r", to=people(2), split=True)
        await post.states(2)
        await post.empty()
    assert {event.state for event in post.events} == {"sent"}
    assert [mail.rcpt_to for mail in relay.messages] == [["p1@x.example"]]


@pytest.mark.fault("E02", "E04")
@pytest.mark.timeout(300)
async def test_killed_where_a_mailing_leaves_nobody_is_forgotten_and_twice_only_who_was_uncertain(
    nats_server: NatsServer,
    bus: Bus,
    post: Post,
    relay: ScriptedRelay,
    tmp_path: Path,
    soon_again: None,
    in_parts: None,
) -> None:
    log, where = tmp_path / "steps", (nats_server.url, bus.subjects.prefix, relay.port)
    await post.request("clean", to=people(10), split=True)
    assert await run_child(*where, log=log, begin=begin_in_parts) == 0
    steps = log.read_text().split()
    # What it leaves by is stored, scheduled, and its job let go.
    left = steps.index("schedule.before")
    for stop_at in range(left - 1, left + 5):
        name = f"{steps[stop_at - 1]}-{stop_at}"
        relay.messages.clear()
        await post.request(name, to=people(10), split=True)
        assert await run_child(*where, stop_at=stop_at, begin=begin_in_parts) == STOP_EXIT_CODE
        async with sending(bus, relay, retry_first_s=0.1):
            await post.empty()
        events = {event.id: event for event in post.events if event.body.id == name}.values()
        sent = [who for event in events if event.state == "sent" for who in delivered(event)]
        uncertain = [who for event in events if event.state == "uncertain" for who in delivered(event)]
        assert sorted(sent) == sorted(one["email"] for one in people(10)), name
        for who in sent:
            assert 1 <= sum(who in mail.rcpt_to for mail in relay.messages) <= 1 + uncertain.count(who), (name, who)
