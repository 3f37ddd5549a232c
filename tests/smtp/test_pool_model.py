"""Anything may happen to a relay's connections and to those who use them, in any order and in the same instant.

Whoever is in hand is somewhere where he is not forgotten, each connection is counted once and is one's alone, nobody
hears an answer to another, and all come to their end.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from service.contract import Security
from service.errors import AuthRefused, MailbusError, Transient
from service.smtp import Booking, DotUnanswered, Relay, RelayUnreachable, Reply, SmtpOptions
from service.smtp.connect import Connection
from service.smtp.envelope import Prepared
from service.smtp.errors import RelayFull
from service.smtp.session import QUICK_S, Session
from tests.servers.smtp_steps import Act
from tests.smtp.memory import Loop, LoopClock, MemoryRelay, Peer, message_of

EXAMPLES = 200
STEPS = 60
TRANSACTIONS = 6
# How far the loop goes after something happened; None: until nothing happens by itself.
TICKS = st.sampled_from([0, 1, 2, None, None, None])
ACTS = st.sampled_from(
    [None] * 12 + [Act.REFUSE, Act.DEFER, Act.CLOSE, Act.DROP, Act.TAKE_AND_DROP]
)  # fmt: skip
REFUSALS = {
    "full": lambda: RelayFull("421 too many"),
    "away": lambda: RelayUnreachable("gone"),
    "refused": lambda: AuthRefused("535", where="", remedy=""),
}


class Delivery:
    """A mail under way."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.dots = 0
        self.intent: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any] | None = None


class Watched(Session):
    """Counts who is being opened and who is at work; stands in the pool for Session."""

    opening = 0
    at_work: set["Watched"] = set()  # noqa: RUF012 of all of them
    pool: Relay
    out: Prepared | None = None

    @classmethod
    async def open(cls, *arguments: Any, **named: Any) -> Session:
        cls.opening += 1
        try:
            return await super().open(*arguments, **named)
        finally:
            cls.opening -= 1

    async def transact(self, *arguments: Any, prepared: Prepared | None = None, **named: Any) -> dict[str, Reply]:
        assert self not in self.at_work
        assert self not in self.pool._idle
        # Who has an envelope out goes on where it is, and nobody else does.
        assert prepared is self.out
        self.out = None
        self.at_work.add(self)
        try:
            return await super().transact(*arguments, prepared=prepared, **named)
        finally:
            self.at_work.remove(self)

    def _behind(self) -> list[bytes]:
        commands = super()._behind()
        if commands:
            self.out = self.pool._behind[self].prepared
        return commands


class Pool(RuleBasedStateMachine):
    """One account's relay."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.deliveries: list[Delivery] = []
        self.probes: list[asyncio.Task[None]] = []
        self.bookings: list[Booking] = []
        self.number = 0
        Watched.opening = 0
        Watched.at_work.clear()

    @initialize(connections=st.integers(1, 3), chunks=st.booleans())
    def begin(self, connections: int, chunks: bool) -> None:
        self.server = MemoryRelay(self.loop, chunks=chunks)
        options = SmtpOptions("a", "x", 1, Security.NONE, login=False, connections=connections)
        self.pool = Watched.pool = Relay(options, LoopClock(self.loop))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("service.smtp.session.connect", self.server.connect)
        self.patch.setattr("service.smtp.pool.Session", Watched)
        self.patch.setattr("service.smtp.pool.TRANSACTIONS_LIMIT", TRANSACTIONS)
        # Nothing goes behind a connection's first message.
        self.begin_some(connections)
        for _ in range(4):
            self.a_round()

    def run(self, ticks: int | None) -> None:
        if ticks is None:
            self.loop.settle()
            self.check()
        else:
            for _ in range(ticks):
                self.loop.tick()

    def one_of(self, data: st.DataObject, those: list[Any]) -> Any:
        return those[data.draw(st.integers(0, len(those) - 1))]

    @property
    def under_way(self) -> list[Delivery]:
        return [one for one in self.deliveries if one.task is not None and not one.task.done()]

    # -- what happens ------------------------------------------------------------------------------------------

    @rule(large=st.sampled_from([False, False, False, True]), count=st.integers(1, 4), ticks=TICKS)
    def deliver(self, large: bool, count: int, ticks: int | None) -> None:
        self.begin_some(count, large=large)
        self.run(ticks)

    def begin_some(self, count: int, *, large: bool = False) -> None:
        for _ in range(count):
            self.number += 1
            one = Delivery(self.number)
            self.deliveries.append(one)
            one.task = self.loop.create_task(self._deliver(one, message_of(one.number, large=large)))

    @rule(ticks=TICKS)
    def deliver_booked(self, ticks: int | None) -> None:
        """By a connection that is waited for before there is a message."""
        self.number += 1
        one = Delivery(self.number)
        self.deliveries.append(one)
        one.task = self.loop.create_task(self._deliver_booked(one))
        self.run(ticks)

    async def _deliver_booked(self, one: Delivery) -> dict[str, Reply]:
        booking = await self.pool.book()
        try:
            one.intent = self.loop.create_future()
            self.bookings.append(booking)
            await one.intent
            return await self._deliver(one, message_of(one.number, large=False), booking)
        finally:
            booking.end()
            self.bookings.remove(booking)

    @rule(data=st.data(), ticks=TICKS)
    def end_a_booking(self, data: st.DataObject, ticks: int | None) -> None:
        """While whoever has it goes on."""
        if self.bookings:
            self.loop.call_soon(self.one_of(data, self.bookings).end)
        self.run(ticks)

    async def _deliver(self, one: Delivery, data: bytes, booking: Booking | None = None) -> dict[str, Reply]:
        async def dot(refused: Mapping[str, Reply]) -> None:
            assert not one.dots
            assert len(refused) < 2
            one.dots += 1
            # The relay said that it waits for this very message.
            assert one.number in self.server.told
            one.intent = self.loop.create_future()
            await one.intent

        sender, rcpt = f"{one.number}@me", [f"{one.number}@x", f"{one.number}@y"]
        return await self.pool.deliver(sender, rcpt, data, before_final_dot=dot, booking=booking)

    @rule(data=st.data(), do=ACTS, ticks=TICKS)
    def answer(self, data: st.DataObject, do: Act | None, ticks: int | None) -> None:
        if those := [peer for peer in self.server.there if peer.waits]:
            self.one_of(data, those).answer(do)
        self.run(ticks)

    @rule(data=st.data(), do=ACTS, ticks=TICKS)
    def answer_an_end(self, data: st.DataObject, do: Act | None, ticks: int | None) -> None:
        if those := [peer for peer in self.server.there if peer.waits and peer.is_at_end]:
            self.one_of(data, those).answer(do)
        self.run(ticks)

    @rule(data=st.data(), after=st.sampled_from([0, 1, 1, 2]), ticks=TICKS)
    def cancel_behind_an_answer(self, data: st.DataObject, after: int, ticks: int | None) -> None:
        """As it comes."""
        if those := [one for one in self.pool._behind if one._connection in self.at_their_ends]:
            session = self.one_of(data, those)
            sender = self.pool._behind[session].message.mail_from
            self.at_their_ends[session._connection].answer(None)
            self.run(after)
            for one in self.under_way:
                if one.task is not None and f"{one.number}@me" == sender:
                    one.task.cancel()
        self.run(ticks)

    @property
    def at_their_ends(self) -> dict[Connection, Peer]:
        return {peer.connection: peer for peer in self.server.there if peer.waits and peer.is_at_end}

    @rule(data=st.data(), count=st.integers(2, 12), ticks=TICKS)
    def answer_many(self, data: st.DataObject, count: int, ticks: int | None) -> None:
        """In one segment."""
        if those := [peer for peer in self.server.there if peer.waits]:
            peer: Peer = self.one_of(data, those)
            for _ in range(count):
                peer.answer(None)
        self.run(ticks)

    @rule(count=st.integers(0, 6), large=st.sampled_from([False, False, True]), ticks=TICKS)
    def go_on_to_the_ends(self, count: int, large: bool, ticks: int | None) -> None:
        """With so many more: so that envelopes stand behind them."""
        self.begin_some(count)
        if large:
            self.begin_some(1, large=True)
        for _ in range(4):
            self.a_round(ends=False)
        self.run(ticks)

    @rule(rounds=st.integers(1, 6))
    def all_goes_well(self, rounds: int) -> None:
        for _ in range(rounds):
            self.a_round()
        self.check()

    @rule(data=st.data(), do=st.sampled_from([Act.REFUSE, Act.DEFER]), ticks=TICKS)
    def refuse_early(self, data: st.DataObject, do: Act, ticks: int | None) -> None:
        if those := [peer for peer in self.server.there if peer.open and not peer.waits]:
            self.one_of(data, those).answer(do)
        self.run(ticks)

    @rule(data=st.data(), ticks=TICKS)
    def lose_a_connection(self, data: st.DataObject, ticks: int | None) -> None:
        if those := self.server.there:
            self.one_of(data, those).drop()
        self.run(ticks)

    @precondition(lambda self: self.server.connecting)
    @rule(what=st.sampled_from(["", "", ""] * 3 + ["full"] * 4 + ["away"] * 2 + ["refused"]), ticks=TICKS)
    def greet(self, what: str, ticks: int | None) -> None:
        self.server.greets(REFUSALS.get(what))
        self.run(ticks)

    @rule(data=st.data(), fails=st.booleans(), ticks=TICKS)
    def write_an_intent(self, data: st.DataObject, fails: bool, ticks: int | None) -> None:
        if those := [one for one in self.under_way if one.intent is not None and not one.intent.done()]:
            intent = self.one_of(data, those).intent
            if fails and data.draw(st.booleans()):
                intent.set_exception(Transient("no NATS"))
            else:
                intent.set_result(None)
        self.run(ticks)

    @rule(data=st.data(), count=st.sampled_from([1, 1, 2, 3]), behind=st.booleans(), ticks=TICKS)
    def cancel(self, data: st.DataObject, count: int, behind: bool, ticks: int | None) -> None:
        those = {one.message.mail_from for one in self.pool._behind.values()}
        for _ in range(count):
            if left := [one for one in self.under_way if not behind or f"{one.number}@me" in those]:
                self.one_of(data, left).task.cancel()
        self.run(ticks)

    @rule(what=st.sampled_from(["turn_away", "turn_away", "stop", "close", "close", "probe"]), ticks=TICKS)
    def from_without(self, what: str, ticks: int | None) -> None:
        match what:
            case "close":
                self.loop.create_task(self.pool.close())
            case "probe" if not self.probes:
                self.probes.append(self.loop.create_task(self.pool.probe()))
            case _:
                self.pool.turn_away(until_closed=what == "stop")
        self.run(ticks)

    @rule(seconds=st.sampled_from([0.4, 1.1, 1.1, 31.0, 61.0, 61.0]), ticks=TICKS)
    def pass_time(self, seconds: float, ticks: int | None) -> None:
        self.loop.pass_time(seconds)
        self.run(ticks)

    # -- what holds --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Once nothing happens by itself."""
        pool = self.pool
        waiting = [one for one in pool._waiting if not one.got.done()]
        behind = [one for one in pool._behind.values() if not one.got.done()]
        probing = sum(not task.done() for task in self.probes)
        booked = sum(one._session is not None for one in self.bookings)
        parting = len(pool._parting)
        assert pool._count == len(pool._idle) + Watched.opening + len(Watched.at_work) + booked + parting
        assert pool._count - parting <= pool.options.connections + probing
        somewhere = len(waiting) + len(behind) + Watched.opening - probing + len(Watched.at_work)
        assert len(self.under_way) == somewhere + sum(
            one.intent is not None and not one.dots and not one.intent.done() for one in self.under_way
        )
        if waiting or [one for one in behind if one.behind_since < self.loop.at - 2 * QUICK_S]:
            # Nobody waits for what is there, or may be made.
            assert pool._count >= pool._limit
            assert not pool._idle
        for one in self.deliveries:
            self.check_outcome(one)
        self.deliveries = self.under_way
        for task in [one for one in self.probes if one.done()]:
            assert task.exception() is None or isinstance(task.exception(), MailbusError)
            self.probes.remove(task)

    def check_outcome(self, one: Delivery) -> None:
        taken = self.server.taken[one.number]
        assert taken <= 1
        assert not taken or one.dots
        if one.task is None or not one.task.done() or one.task.cancelled():
            return
        if isinstance(exc := one.task.exception(), DotUnanswered):
            assert one.dots
            return
        assert exc is None or isinstance(exc, MailbusError), exc
        assert taken == (exc is None and any(reply.accepted for reply in one.task.result().values()))
        if exc is None:
            about = {reply.text.removeprefix("of ") for reply in one.task.result().values() if reply.code != 421}
            assert about <= {str(one.number), "0"}

    def a_round(self, *, ends: bool = True) -> None:
        """Whoever waits for anything from outside has it; `ends`: for the answer to a message, too."""
        self.loop.settle()
        for peer in self.server.there:
            while peer.waits and (ends or not peer.is_at_end):
                peer.answer(None)
        for one in self.under_way:
            if one.intent is not None and not one.intent.done():
                one.intent.set_result(None)
        self.server.greets(None)
        self.loop.settle()

    def teardown(self) -> None:
        try:
            for _ in range(20 + 4 * len(self.deliveries)):
                self.loop.pass_time(QUICK_S)
                self.a_round()
            self.check()
            assert not self.deliveries
            assert not self.probes
            assert not self.pool._waiting
            assert not self.pool._behind
            assert self.pool._count == len(self.pool._idle)
            self.loop.run_until_complete(self.pool.close())
            assert self.pool._count == 0
            self.loop.settle()
            assert not self.server.there
        finally:
            self.patch.undo()
            for one in self.deliveries:
                if one.task is not None:
                    one.task.cancel()
            self.loop.settle()
            self.loop.close()


@pytest.mark.fault("E09", "E06")
def test_whatever_happens_nobody_is_forgotten_and_each_connection_is_counted() -> None:
    run_state_machine_as_test(Pool, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
