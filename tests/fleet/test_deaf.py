"""A replica that hears nothing of the others, or hears the past: nobody waits for it, and it believes nothing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from service.bus import Bus, KeyChange, KeyValue, NatsOptions, StreamOptions, open_bus
from service.bus.errors import js_api
from service.bus.watch import TOGETHER, _newest
from service.clock import SystemClock
from service.errors import Permanent, Transient
from service.fleet import Kind, Presence, Roster, Running, Steering
from service.observe import metrics
from service.tasks import TaskGroup, cut_short
from tests.servers.mailbus import until
from tests.servers.nats import NatsServer

pytestmark = pytest.mark.fault("F02", "F03")

TTL_S = 1.0
MANY_SEQUENCES = 20
ACCOUNTS = {f"account-{number}": f"account-{number}" for number in range(12)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.fleet.presence.DEAF_S", TTL_S)
    monkeypatch.setattr("service.fleet.members.QUIET_S", 0.2)
    monkeypatch.setattr("service.fleet.roster.LISTEN_AGAIN_S", 0.2)


@pytest.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[Bus]:
    options = NatsOptions(servers=(nats_server.url,), prefix=prefix)
    async with open_bus(options, StreamOptions(presence_ttl_s=TTL_S)) as bus:
        yield bus


class Ears(KeyValue):
    """A bucket of which nothing is heard while `deaf`; a watch that was begun before ends with the next change.

    While `full` it takes nothing.
    """

    full = False

    def __init__(self, bus: Bus, *, deaf: bool) -> None:
        super().__init__(bus.nc, bus.subjects.fleet)
        self.deaf = deaf

    async def update(self, key: str, value: bytes, revision: int) -> int:
        if self.full:
            raise Transient("no answer", where="the test")
        return await super().update(key, value, revision)

    async def watch(self) -> AsyncGenerator[list[KeyChange], None]:
        self._check()
        async with aclosing(super().watch()) as watch:
            async for changes in watch:
                self._check()
                yield changes

    def _check(self) -> None:
        if self.deaf:
            raise Transient("refused", where="the test")


@dataclass
class Replica:
    """One of the fleet, as app.py puts it together, with accounts that do nothing."""

    ears: Ears
    presence: Presence
    roster: Roster[str]
    running: Running[str]
    task: asyncio.Task[None] | None = None

    @property
    def has(self) -> set[str]:
        return set(self.running.accounts)


@asynccontextmanager
async def replicas(bus: Bus) -> AsyncIterator[Callable[..., Replica]]:
    async def nats_answers(_: float) -> bool:
        return True

    async def idle(_: str) -> None:
        await asyncio.Event().wait()

    def start(name: str, *, deaf: bool = False) -> Replica:
        clock, ears = SystemClock(), Ears(bus, deaf=deaf)
        presence = Presence(ears, instance=name, boot=f"boot-{name}", capacity=1.0, ttl_s=TTL_S, clock=clock)
        roster = Roster[str](ears, presence, clock)
        roster.know(ACCOUNTS)
        kind = Kind(run=idle, end=lambda _: None, host=lambda _: "")
        running, known = Running(kind, nats_answers, clock), asyncio.Event()
        known.set()

        async def present() -> None:
            await roster.heard.wait()
            await presence.run()

        async def live() -> None:
            async with TaskGroup() as group:
                for work in (roster.follow(), present(), Steering(roster, running, clock, known=known).run()):
                    group.create_task(work)
                group.create_task(running.run())

        one = Replica(ears, presence, roster, running)
        one.task = asyncio.ensure_future(live())
        made.append(one)
        return one

    made: list[Replica] = []
    try:
        yield start
    finally:
        await cut_short([one.task for one in made if one.task is not None])


def shared(*those: Replica) -> bool:
    """Whether these have all accounts among them, each one's its own."""
    return sum(len(one.has) for one in those) == len(ACCOUNTS) and set().union(*(one.has for one in those)) == set(
        ACCOUNTS
    )


async def test_one_that_hears_nothing_any_more_holds_up_no_other(bus: Bus) -> None:
    async with replicas(bus) as start:
        one, two = start("one"), start("two")
        await until(lambda: bool(one.has) and bool(two.has) and shared(one, two))
        one.ears.deaf = True
        three = start("three")
        # It lets go of what it has, and the others have all.
        await until(lambda: not one.has and bool(three.has) and shared(two, three))
        one.ears.deaf = False
        await until(lambda: bool(one.has) and shared(one, two, three))


async def test_a_metric_says_whether_this_process_surely_has_a_share(bus: Bus) -> None:
    def has_share() -> bool:
        return metrics.HAS_SHARE._value.get() == 1

    metrics.HAS_SHARE.set(0)
    async with replicas(bus) as start:
        one = start("one")
        await until(has_share)
        # Nothing is taken any more, on a connection that stands.
        one.ears.full = True
        await until(lambda: not has_share())
        one.ears.full = False
        await until(has_share)


async def test_a_lone_process_that_is_cut_off_begins_none_that_waited_for_their_turn(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.fleet.running.BURST", 2)
    monkeypatch.setattr("service.fleet.running.BEGUN_PER_S", 2)
    async with replicas(bus) as start:
        one = start("one")
        await until(lambda: bool(one.has))
        one.ears.full = True
        await until(lambda: metrics.HAS_SHARE._value.get() == 0 and not one.running._waiting)
        assert 0 < len(one.has) < len(ACCOUNTS)
        monkeypatch.setattr("service.fleet.running.BEGUN_PER_S", 100)
        one.ears.full = False
        await until(lambda: shared(one))


async def test_a_bucket_that_is_made_anew_beneath_them_costs_nobody_its_accounts(
    bus: Bus, nats_server: NatsServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bus.watch.REQUEST_TIMEOUT_S", 1.0)
    options = NatsOptions(servers=(nats_server.url,), prefix=prefix)
    async with replicas(bus) as start:
        one, two = start("one"), start("two")
        await until(lambda: bool(one.has) and bool(two.has) and shared(one, two))
        # As after days: what they have settled, the next bucket will not come to for long.
        await until(lambda: min(one.presence.said_settled, two.presence.said_settled) > MANY_SEQUENCES)
        await js_api(bus.nc, f"STREAM.DELETE.KV_{bus.subjects.fleet}", {})
        async with open_bus(options, StreamOptions(presence_ttl_s=TTL_S)):
            three = start("three")
            await until(lambda: one.roster.membership.epoch == two.roster.membership.epoch == 1)
            await until(lambda: all(replica.has for replica in (one, two, three)) and shared(one, two, three))


async def test_one_that_has_heard_nothing_yet_is_nobody_to_the_others(bus: Bus) -> None:
    async with replicas(bus) as start:
        one, two = start("one", deaf=True), start("two")
        await until(lambda: shared(two))
        one.ears.deaf = False
        await until(lambda: bool(one.has) and shared(one, two))


def leader_at(seq: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader has changes up to this one, when a watch asks; the server where the watch lies may have fewer."""

    async def newest(*_: object) -> int:
        return seq

    monkeypatch.setattr("service.bus.watch._newest", newest)


async def test_a_list_that_is_older_than_what_nats_has_is_waited_for(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = bus.key_value(bus.subjects.accounts)
    await keys.create("one", b"1")
    leader_at(3, monkeypatch)
    async with aclosing(keys.watch()) as watch, TaskGroup() as group:
        listed = group.create_task(anext(watch))
        await keys.create("two", b"2")
        await keys.update("two", b"3", 2)
        assert [(change.key, change.value) for change in await listed] == [("one", b"1"), ("two", b"3")]


async def test_a_list_that_stays_older_is_not_believed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bus.watch.BEHIND_S", 0.2)
    keys = bus.key_value(bus.subjects.accounts)
    await keys.create("one", b"1")
    leader_at(2, monkeypatch)
    async with aclosing(keys.watch()) as watch:
        with pytest.raises(Transient, match="behind"):
            await anext(watch)


async def test_changes_that_came_together_are_heard_together_and_in_order(bus: Bus) -> None:
    keys = bus.key_value(bus.subjects.accounts)
    async with aclosing(keys.watch()) as watch:
        assert await anext(watch) == []
        for number in range(TOGETHER + 10):
            await keys.create(f"key-{number}", b"")
        lists = [await anext(watch), await anext(watch)]
        # The last of them may come a moment later than its answer.
        while sum(map(len, lists)) < TOGETHER + 10:
            lists.append(await anext(watch))
    assert TOGETHER // 2 < max(map(len, lists)) <= TOGETHER
    assert [change.key for changes in lists for change in changes] == [f"key-{n}" for n in range(TOGETHER + 10)]


async def test_a_watch_begins_with_what_the_leader_has(bus: Bus) -> None:
    keys = bus.key_value(bus.subjects.accounts)
    assert await _newest(bus.nc, f"KV_{bus.subjects.accounts}", f"$KV.{bus.subjects.accounts}.>") == 0
    await keys.create("one", b"1")
    await keys.delete("one")
    assert await _newest(bus.nc, f"KV_{bus.subjects.accounts}", f"$KV.{bus.subjects.accounts}.>") == 2


async def test_who_had_the_name_before_is_no_double_however_late_it_is_heard_of(bus: Bus) -> None:
    keys, clock = bus.key_value(bus.subjects.fleet), SystemClock()
    made = {
        boot: Presence(keys, instance="one", boot=boot, capacity=1.0, ttl_s=TTL_S, clock=clock)
        for boot in ("killed", "back", "newer")
    }
    roster = Roster[str](keys, made["back"], clock)
    seen: list[KeyChange] = []
    for presence in made.values():
        await presence.take()
        entry = await keys.get("one")
        assert entry is not None
        seen.append(KeyChange("one", entry.value, entry.revision))
    roster._hear_all(seen[:1])
    assert not roster.joined.is_set()
    roster._hear(seen[1])
    assert roster.joined.is_set()
    with pytest.raises(Permanent, match="another process runs as instance one"):
        roster._hear(seen[2])
