"""Requests that are cancelled, held and released: what may still be decided, and that exactly one thing comes of it."""

import asyncio
from datetime import datetime
from typing import Any

import msgspec
import pytest

from service.bus import Bus, NatsOptions, StreamOptions, open_bus
from service.contract import HeldAnswer, HeldRequest, request_key
from service.observe import metrics
from service.outbound import Bundle, Outbox, Phase, Waiting, settle
from service.outbound.sends import SendRecord
from tests.outbound.conftest import LIMIT_S, Post, delivered, idle_sender, sending, soon
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay


@pytest.fixture
def waiting(bus: Bus) -> Waiting:
    """As another process has it, which does not send."""
    return idle_sender(bus).waiting


async def undone(waiting: Waiting, id: str) -> tuple[str, list[str]] | None:
    said = await waiting.cancel(id)
    return (said.undo_status, said.cancelled) if said is not None else None


async def scheduled(post: Post) -> None:
    """Until something waits for its time."""
    subjects = post.bus.subjects
    async with asyncio.timeout(LIMIT_S):
        while await post.bus.pending(subjects.stream_out, ">") or not await post.bus.pending(  # noqa: ASYNC110
            subjects.stream_later, subjects.later("a", "*")
        ):
            await asyncio.sleep(0.02)


async def test_a_request_for_later_is_cancelled_and_nothing_of_it_stays(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting
) -> None:
    async with sending(bus, relay):
        await post.request("r", sendAt=soon(3600))
        await scheduled(post)
        assert await undone(waiting, "r") == ("canceled", ["a@x.example"])
        assert await post.states(1) == [("r", "cancelled")]
        await post.empty()
    assert post.events[0].body.undo_status == "canceled"
    assert delivered(post.events[0]) == {"a@x.example": "no"}
    assert not relay.messages


async def test_a_request_that_nobody_has_taken_yet_is_cancelled_and_its_recipients_are_told_of_once_it_is(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting
) -> None:
    await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
    for _ in range(2):
        assert await undone(waiting, "r") == ("canceled", [])
    async with sending(bus, relay):
        await post.empty()
        assert await post.states(1) == [("r", "cancelled")]
        assert await undone(waiting, "r") == ("canceled", ["a@x.example", "b@x.example"])
        await post.request("r")
        await post.states(2)
        await post.empty()
    assert {event.id for event in post.events} == {post.events[0].id}
    assert delivered(post.events[0]) == {"a@x.example": "no", "b@x.example": "no"}
    assert not relay.messages


@pytest.mark.fault("E12")
async def test_what_was_kept_for_a_request_that_was_cancelled_meanwhile_is_freed(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender has put it into the outbox, a command cancels it, the sender's record is refused."""
    monkeypatch.setattr("service.outbound.deliver.AGAIN_S", 0.1)
    put = Outbox.put

    async def slow_put(outbox: Outbox, bundle: Bundle, *, stored_at: datetime) -> str:
        name = await put(outbox, bundle, stored_at=stored_at)
        assert await undone(waiting, "r") == ("canceled", [])
        return name

    monkeypatch.setattr(Outbox, "put", slow_put)
    async with sending(bus, relay):
        await post.request("r", sendAt=soon(3600))
        assert await post.states(1) == [("r", "cancelled")]
        await post.empty()
    assert delivered(post.events[0]) == {"a@x.example": "no"}


async def test_a_cancellation_that_is_broken_off_leaves_nothing_in_the_outbox(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(bus, relay):
        await post.request("r", sendAt=soon(2))
        await scheduled(post)
        with monkeypatch.context() as patch:
            patch.setattr(waiting._settler, "unschedule", _killed)
            with pytest.raises(ConnectionError):
                await waiting.cancel("r")
        await post.empty()
    assert [event.state for event in post.events] == ["cancelled"]


async def test_what_waits_is_counted_as_long_as_the_account_is_here(
    bus: Bus, post: Post, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.outbound.settle.COUNTED_LIMIT", 3)
    counted = metrics.WAITING.labels(where="retry")._value
    before = counted.get()
    async with sending(bus, relay) as sender:
        for n in range(5):
            await post.request(f"r{n}", sendAt=soon(3600))
        await scheduled(post)
        assert counted.get() == before + 3
        sender.waiting.forget()
        assert counted.get() == before


async def test_what_is_cancelled_while_its_time_is_set_counts_as_nothing_that_waits(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = metrics.WAITING.labels(where="retry")._value
    before, schedule = counted.get(), settle.schedule

    async def cancelled_before(*what: Any) -> None:
        assert await undone(waiting, "r") == ("canceled", ["a@x.example"])
        await schedule(*what)

    monkeypatch.setattr(settle, "schedule", cancelled_before)
    async with sending(bus, relay):
        await post.request("r", sendAt=soon(3600))
        await post.states(1)
        await post.empty()
        assert counted.get() == before


async def test_what_was_sent_is_final_and_what_never_was_is_unknown(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting
) -> None:
    async with sending(bus, relay):
        await post.request("r")
        await post.states(1)
        await post.empty()
    assert await undone(waiting, "r") == ("final", [])
    assert await undone(waiting, "another") is None
    assert await waiting.release("another") is None


async def test_cancelled_between_attempts_only_who_has_it_not_yet_goes_without(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting
) -> None:
    relay.script.rcpt = {"b@x.example": ["451 4.2.0 busy"]}
    async with sending(bus, relay, retry_first_s=3600):
        await post.request("r", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(2)
        await scheduled(post)
        # One has it: that cannot be recalled (RFC 8621 section 7).
        assert await undone(waiting, "r") == ("final", ["b@x.example"])
        assert await undone(waiting, "r") == ("final", ["b@x.example"])
        await post.until(lambda: any(event.state == "cancelled" for event in post.events))
        await post.empty()
    last = post.events[-1]
    assert (last.state, last.body.undo_status) == ("cancelled", "final")
    assert last.body.delivery_status["b@x.example"].smtp_reply == "451 4.2.0 busy"


async def test_a_request_under_way_is_pending(bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting) -> None:
    relay.script.hold = asyncio.Event()
    async with sending(bus, relay):
        await post.request("r")
        await relay.received(1)
        assert await undone(waiting, "r") == ("pending", [])
        relay.script.hold.set()
        assert await post.states(1) == [("r", "sent")]
    assert await undone(waiting, "r") == ("final", [])


@pytest.mark.fault("E12")
async def test_a_cancellation_that_races_the_attempt_ends_in_exactly_one_of_sent_and_cancelled(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting
) -> None:
    count = 40
    async with sending(bus, relay):
        for n in range(count):
            await post.request(f"r{n}", sendAt=soon(1.2) if n % 2 else soon(-1))

        async def cancel(n: int) -> str:
            await asyncio.sleep(n * 0.035)
            said = await waiting.cancel(f"r{n}")
            return said.undo_status if said is not None else "unknown"

        async with asyncio.TaskGroup() as group:
            said = [group.create_task(cancel(n)) for n in range(count)]
        await post.until(lambda: len({event.body.id for event in post.events}) == count)
        await post.empty()
    states = {f"r{n}": {event.state for event in post.events if event.body.id == f"r{n}"} for n in range(count)}
    assert all(one in ({"sent"}, {"cancelled"}) for one in states.values()), states
    assert len(relay.messages) == sum(one == {"sent"} for one in states.values())
    for n, task in enumerate(said):
        if task.result() in ("canceled", "final"):
            assert states[f"r{n}"] == {"cancelled" if task.result() == "canceled" else "sent"}


@pytest.mark.fault("E12")
async def test_a_request_whose_time_comes_while_nats_is_away_is_sent_late(
    own_nats: NatsServer, prefix: str, relay: ScriptedRelay
) -> None:
    async with opened(own_nats, prefix) as own:
        post = Post(own)
        async with sending(own, relay):
            await post.request("r", sendAt=soon(1.5))
            await scheduled(post)
    await own_nats.kill()
    await asyncio.sleep(2)
    await own_nats.start()
    async with opened(own_nats, prefix) as own, sending(own, relay):
        post = Post(own)
        await post.watch()
        assert await post.states(1) == [("r", "sent")]
        await post.empty()
    assert len(relay.messages) == 1


@pytest.mark.fault("E12")
async def test_a_time_beyond_what_is_remembered_is_refused(bus: Bus, post: Post, relay: ScriptedRelay) -> None:
    async with sending(bus, relay):
        await post.request("r", sendAt=soon(31 * 86400))
        assert await post.states(1) == [("r", "failed")]
    problems: Any = post.events[0].body.problems
    assert [one.field for one in problems] == ["sendAt"]


async def held(waiting: Waiting) -> list[HeldRequest]:
    return (await waiting.held()).found


async def until_held(post: Post, waiting: Waiting) -> HeldRequest:
    await post.until(lambda: any(event.state == "uncertain" for event in post.events))
    await scheduled(post)
    (one,) = await held(waiting)
    return one


async def test_of_many_that_wait_those_on_hold_are_found_in_as_many_looks_as_it_takes(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r")
        await until_held(post, waiting)
        for n in range(150):
            await post.request(f"later{n}", sendAt=soon(3600))
        async with asyncio.timeout(LIMIT_S):
            while await bus.pending(bus.subjects.stream_out, ">"):  # noqa: ASYNC110 an empty stream rings no bell
                await asyncio.sleep(0.02)
        whole = await waiting.held()
        assert ([one.id for one in whole.found], whole.more) == (["r"], False)
        monkeypatch.setattr("service.outbound.waiting.LOOK_S", -1.0)
        monkeypatch.setattr("service.outbound.waiting.READ_AT_ONCE", 64)
        found, looks, look = list[str](), 0, HeldAnswer([], more=True)
        while look.more:
            look = await waiting.held(after=look.next or "")
            looks += 1
            found += [one.id for one in look.found]
        assert (found, looks) == (["r"], 3)


async def test_a_request_on_hold_is_listed_and_released_and_then_sent(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain="hold"):
        await post.request("later", sendAt=soon(3600))
        await post.request("r")
        one = await until_held(post, waiting)
        assert (one.id, one.recipients, one.attempt) == ("r", ["a@x.example"], 1)
        said = await waiting.release("r")
        assert said is not None
        assert said.undo_status == "pending"
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
        assert await held(waiting) == []
        await waiting.cancel("later")
        await post.empty()
    first, second = relay.messages
    assert first.content == second.content


@pytest.mark.fault("E01")
async def test_a_release_right_before_the_schedule_of_what_is_on_hold_is_not_undone_by_it(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_schedule, first = settle.schedule, True

    async def late(*given: Any) -> None:
        nonlocal first
        if first:
            first = False
            await waiting.release("r")
        await set_schedule(*given)

    monkeypatch.setattr("service.outbound.settle.schedule", late)
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r")
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
        await post.empty()


async def test_a_request_on_hold_is_cancelled_and_may_have_arrived(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r")
        await until_held(post, waiting)
        assert await undone(waiting, "r") == ("final", ["a@x.example"])
        assert await post.states(2) == [("r", "uncertain"), ("r", "cancelled")]
        await post.empty()
        said = await waiting.release("r")
        assert said is not None
        assert said.undo_status == "final"
    assert delivered(post.events[1]) == {"a@x.example": "unknown"}
    assert len(relay.messages) == 1


async def test_a_release_that_was_broken_off_is_done_when_it_comes_again(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r")
        await until_held(post, waiting)
        with monkeypatch.context() as patch:
            patch.setattr(waiting._settler, "go_on", _killed)
            with pytest.raises(ConnectionError):
                await waiting.release("r")
        await waiting.release("r")
        await post.until(lambda: any(event.state == "sent" for event in post.events))
        await post.empty()


async def test_a_cancellation_that_was_broken_off_is_done_when_it_comes_again(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(bus, relay):
        await post.request("r", sendAt=soon(3600))
        await scheduled(post)
        with monkeypatch.context() as patch:
            patch.setattr(waiting._settler, "say", _killed_at_the_end)
            with pytest.raises(ConnectionError):
                await waiting.cancel("r")
        assert await undone(waiting, "r") == ("canceled", ["a@x.example"])
        assert await post.states(1) == [("r", "cancelled")]
        await post.empty()


@pytest.mark.parametrize("verb", ["cancel", "release"])
async def test_an_outcome_that_was_stored_and_not_said_is_said_before_a_command_goes_on(
    bus: Bus, post: Post, relay: ScriptedRelay, waiting: Waiting, verb: str
) -> None:
    relay.script.cut = ["before_reply"]
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r")
        await until_held(post, waiting)
        record, revision = await waiting._sends.get(request_key("a", "r"))
        assert record is not None
        # As a sender leaves it that is killed between the two.
        unsaid = msgspec.structs.replace(record.statuses[0], id="f" * 32)
        await waiting._sends.put(request_key("a", "r"), msgspec.structs.replace(record, statuses=[unsaid]), revision)
        await getattr(waiting, verb)("r")
        await post.states(3)
        await post.empty()
    assert post.events[1].id == unsaid.id


async def _killed(*_: Any) -> None:
    raise ConnectionError("killed here")


def opened(server: NatsServer, prefix: str) -> Any:
    return open_bus(NatsOptions(servers=(server.url,), prefix=prefix), StreamOptions())


async def _killed_at_the_end(record: SendRecord) -> None:
    if record.phase is Phase.FINAL:
        raise ConnectionError("killed here")
