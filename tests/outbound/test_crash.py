"""The sender ended by force at each of its steps, then started again: nothing lost, nothing doubled in silence."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pytest

from service.bus import Bus
from service.observe.steps import STOP_EXIT_CODE
from tests.outbound.child import begin, ended, waiting
from tests.outbound.conftest import FINAL, Event, Post, idle_sender, sending
from tests.outbound.test_waiting import scheduled
from tests.servers.forked import Forked
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay

LIMIT_S = 40.0
# Processes at once: each waits for another most of the time.
AT_ONCE = 3
WHO = ("a", "b", "c")


async def run_child(
    url: str,
    prefix: str,
    port: int,
    *,
    stop_at: int = 0,
    log: Path | None = None,
    uncertain: str = "retry",
    account: str = "a",
    begin: Callable[..., None] = begin,
) -> int:
    environment = os.environ | {"MAILBUS_STOP_AT": str(stop_at)} | ({"MAILBUS_STEPS_LOG": str(log)} if log else {})
    child = Forked(begin, url, prefix, str(port), uncertain, account, env=environment)
    return await ended(child)


@dataclass
class Run:
    """One request of an account of its own, sent by a process that is ended at a step, then by one that goes on."""

    nats: NatsServer
    bus: Bus
    relay: ScriptedRelay
    post: Post
    stop_at: int
    # What the relay does to the first connection: a stage of its script, or nothing.
    cut: str = ""

    @property
    def account(self) -> str:
        return f"{self.cut or 'x'}-{self.stop_at}"

    def address(self, who: str) -> str:
        return f"{who}@{self.account.replace('_', '-')}.example"

    async def run(self, log: Path | None = None) -> int:
        """How the first process ended."""
        # b is put off at the first envelope that reaches the dot and taken at the next; c is never taken.
        self.relay.script.rcpt |= {
            self.address("b"): ["451 4.2.0 busy", "250 OK"],
            self.address("c"): ["550 5.1.1 unknown"],
        }
        request = {"id": "r", "to": [{"email": self.address(who)} for who in WHO], "subject": "s", "text": "t"}
        await self.bus.publish(self.bus.subjects.out(self.account), json.dumps(request).encode())
        where = (self.nats.url, self.bus.subjects.prefix, self.relay.port)
        if self.cut:
            self.relay.script.cut.append(self.cut)
        ended = await run_child(*where, stop_at=self.stop_at, log=log, account=self.account)
        if ended == STOP_EXIT_CODE:
            async with sending(self.bus, self.relay, account=self.account, retry_first_s=0.1):
                await self._done()
        else:
            await self._said()
        self.check()
        return ended

    async def _done(self) -> None:
        await self._said()
        async with asyncio.timeout(LIMIT_S):
            while await waiting(self.bus, self.account):  # noqa: ASYNC110 an empty stream rings no bell
                await asyncio.sleep(0.05)
            # What was said last is on its way to whoever listens.
            said = (self.bus.subjects.stream_status, self.bus.subjects.status(self.account, "*"))
            while len(self.events()) < await self.bus.pending(*said):  # noqa: ASYNC110 as above
                await asyncio.sleep(0.05)

    async def _said(self) -> None:
        """Until a final state of each recipient is here."""
        async with asyncio.timeout(LIMIT_S):
            while {who for who, _ in self.final()} < {self.address(who) for who in WHO}:  # noqa: ASYNC110 as above
                await asyncio.sleep(0.05)

    def final(self) -> Counter[tuple[str, str]]:
        """How often each recipient's final states were said."""
        return Counter({key: count for key, count in self.said().items() if key[1] in FINAL})

    def said(self) -> Counter[tuple[str, str]]:
        """How often each recipient's states were said, an event that came twice counted once."""
        unique = {event.id: event for event in self.events()}
        return Counter((who, event.state) for event in unique.values() for who in event.body.delivery_status)

    def events(self) -> list[Event]:
        """Those of its request, as far as they are here."""
        source = f"/{self.bus.subjects.prefix}/{self.account}"
        return [event for event in self.post.events if event.headers["ce-source"] == source]

    def check(self) -> None:
        """Each recipient has one final state; a mail that came twice was called uncertain, and kept its Message-ID."""
        where = f"{self.cut or 'stopped'} at step {self.stop_at}"
        events = self.events()
        said = self.said()
        a, b, c = (self.address(who) for who in WHO)
        assert self.final() == {(a, "sent"): 1, (b, "sent"): 1, (c, "failed"): 1}, where
        assert len(events) == len({event.id for event in events}), where
        for address in (a, b):
            got = ids_of(self.relay, address)
            assert 1 <= len(got) <= 1 + said[address, "uncertain"], where
            assert len(set(got)) == 1, where
        assert not ids_of(self.relay, c), where


def ids_of(relay: ScriptedRelay, recipient: str) -> list[str]:
    return [message_from_bytes(mail.content)["Message-ID"] for mail in relay.messages if recipient in mail.rcpt_to]


async def at_once(runs: list[Run]) -> list[int]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(run: Run) -> int:
        async with places:
            return await run.run()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(run)) for run in runs]
    return [task.result() for task in tasks]


@pytest.mark.fault("E02", "E04")
@pytest.mark.timeout(600)
async def test_killed_at_each_step_no_mail_is_lost_or_doubled_in_silence(
    nats_server: NatsServer, bus: Bus, post: Post, relay: ScriptedRelay, tmp_path: Path, soon_again: None
) -> None:
    log = tmp_path / "steps"
    assert await Run(nats_server, bus, relay, post, 0).run(log) == 0
    steps = log.read_text().split()
    assert {
        "intent.done",
        "smtp.dot.sent",
        "outcome.done",
        "status.done",
        "schedule.done",
        "outbox.done",
        "ack.done",
    } <= set(steps)
    ended = await at_once([Run(nats_server, bus, relay, post, n) for n in range(1, len(steps) + 1)])
    assert set(ended) <= {STOP_EXIT_CODE, 0}
    assert ended.count(STOP_EXIT_CODE) >= len(steps) - 2
    await post.empty()


@pytest.mark.fault("E01", "E02", "E04")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cut", ["data", "before_reply", "refused_reply"])
async def test_killed_while_the_relay_drops_connections_the_same_holds(
    nats_server: NatsServer, bus: Bus, post: Post, relay: ScriptedRelay, tmp_path: Path, soon_again: None, cut: str
) -> None:
    """The relay drops one connection at each of its stages; the sender is killed at the steps that follow from it."""
    log = tmp_path / "steps"
    assert await Run(nats_server, bus, relay, post, 0, cut).run(log) == 0
    steps = log.read_text().split()
    telling = ("intent.done", "smtp.dot.sent", "outcome.done", "status.done", "schedule.done")
    stops = sorted({steps.index(name) + 1 for name in telling if name in steps})
    # One after the other: which of several processes meets the drop would be chance.
    for n in stops:
        assert await Run(nats_server, bus, relay, post, n, cut).run() in (STOP_EXIT_CODE, 0)
    await post.empty()


@pytest.mark.fault("E02")
@pytest.mark.timeout(300)
async def test_killed_around_the_dot_a_mail_on_hold_is_never_sent_again(
    nats_server: NatsServer, bus: Bus, post: Post, relay: ScriptedRelay, tmp_path: Path
) -> None:
    log, where = tmp_path / "steps", (nats_server.url, bus.subjects.prefix, relay.port)
    waiting = idle_sender(bus).waiting
    await post.request("clean")
    assert await run_child(*where, log=log, uncertain="hold") == 0
    steps = log.read_text().split()
    asked: list[str] = []
    for name in ("intent.done", "smtp.dot", "smtp.dot.sent", "replies", "outcome.before"):
        relay.messages.clear()
        await post.request(name)
        assert await run_child(*where, stop_at=steps.index(name) + 1, uncertain="hold") == STOP_EXIT_CODE
        async with asyncio.TaskGroup() as group:
            second = group.create_task(run_child(*where, uncertain="hold"))
            await scheduled(post)
            await waiting.cancel(name)
        assert second.result() == 0
        await post.empty()
        await post.states(2 * len(asked) + 3)
        asked.append(name)
        assert [event.state for event in post.events if event.body.id == name] == ["uncertain", "cancelled"], name
        assert len(relay.messages) <= 1, name


@pytest.mark.fault("E02")
async def test_a_process_that_sleeps_past_ack_wait_after_the_dot_does_not_hide_the_second_mail(
    nats_server: NatsServer, bus: Bus, relay: ScriptedRelay, post: Post
) -> None:
    """SIGSTOP between dot and reply: another process finds the intent, says `uncertain` first, then sends again."""
    import signal

    relay.script.hold = asyncio.Event()
    where = (nats_server.url, bus.subjects.prefix, str(relay.port), "retry", "a")
    child = Forked(begin, *where, env=os.environ)
    try:
        await post.request("r")
        second = None
        # The child leaves at once while nothing is queued: it may have looked before the request was there.
        while not relay.messages:
            if child.poll() is not None:
                child = Forked(begin, *where, env=os.environ)
            await asyncio.sleep(0.05)
        child.send_signal(signal.SIGSTOP)
        relay.script.hold.set()
        relay.script.hold = None
        second = await run_child(nats_server.url, bus.subjects.prefix, relay.port)
        assert second == 0
        child.send_signal(signal.SIGCONT)
        await ended(child)
    finally:
        child.kill()
    await post.empty()
    assert [event.state for event in post.events] == ["uncertain", "sent"]
    first, again = relay.messages
    assert first.content == again.content
