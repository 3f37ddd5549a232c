"""Anything may happen in any order; a consumer that reads nothing but events ends with exactly the server's state.

Another client appends, flags, moves, expunges and makes the mailbox again on a real Dovecot, in three habits, while
mailbus is started, stopped and cut off from it.
"""

import asyncio
import imaplib
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from service.bus import Bus
from service.contract import Keywords, keywords_of
from service.ingest import compare, memory
from tests.ingest.harness import follow_mailbox
from tests.ingest.view import View, mail, quick
from tests.servers.bus import bus_at
from tests.servers.imap_server import ImapServer
from tests.servers.mailbus import BusReader, reading
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy

EXAMPLES = 6
STEPS = 20
FLAGS = (r"(\Seen)", r"(\Flagged)", r"(\Deleted)", "(work)", r"(\Seen work)")


class Mailbox(RuleBasedStateMachine):
    """What another client and an operator may do; a new user, a new prefix for each example."""

    loop: asyncio.AbstractEventLoop
    server: ImapServer
    nats_url: str
    proxy: FaultProxy
    prefix: str
    example = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """From hypothesis's thread into the tests' loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __init__(self) -> None:
        super().__init__()
        type(self).example += 1
        self.user = f"{self.prefix}x{type(self).example}"
        self.count = 0
        self.epochs = 0
        self.task: asyncio.Task[None] | None = None
        self.bus: Bus | None = None

    @initialize()
    def begin(self) -> None:
        self.client = imaplib.IMAP4(self.server.host, self.server.imap, timeout=30)
        self.client.login(self.user, "secret")
        self.client.create("Other")
        self.client.create("Box")
        self.client.select("Box")
        self.client.append("Box", "", "", mail(1000))
        self.run(self._open())
        self.run(self._start())

    async def _open(self) -> None:
        self.context = bus_at(self.nats_url, self.user)
        self.bus = await self.context.__aenter__()
        self.reader_context = reading(self.nats_url, self.user)
        self.reader: BusReader = await self.reader_context.__aenter__()

    # -- the other client -----------------------------------------------------------------------------------------

    @rule(many=st.integers(1, 4))
    def arrive(self, many: int) -> None:
        for _ in range(many):
            self.count += 1
            self.client.append("Box", "", "", mail(self.count))

    @rule(which=st.integers(0, 30), sign=st.sampled_from("+-"), flags=st.sampled_from(FLAGS))
    def flag(self, which: int, sign: str, flags: str) -> None:
        if uids := self._uids():
            self.client.uid("STORE", str(uids[which % len(uids)]), f"{sign}FLAGS", flags)

    @rule(sign=st.sampled_from("+-"), flags=st.sampled_from(FLAGS))
    def flag_all(self, sign: str, flags: str) -> None:
        if self._uids():
            self.client.uid("STORE", "1:*", f"{sign}FLAGS", flags)

    @rule(which=st.integers(0, 30))
    def remove(self, which: int) -> None:
        self.flag(which, "+", r"(\Deleted)")
        self.client.expunge()

    @rule(which=st.integers(0, 30))
    def move_away(self, which: int) -> None:
        if uids := self._uids():
            self.client.uid("MOVE", str(uids[which % len(uids)]), "Other")

    # A new epoch forgives what was wrong in the one before: seldom.
    @precondition(lambda self: self.count > 3 and self.epochs < 1)
    @rule()
    def make_again(self) -> None:
        self.epochs += 1
        self.client.close()
        self.client.delete("Box")
        self.client.create("Box")
        # Dovecot refuses what was made a moment ago while others have the one before open.
        for _ in range(100):
            if self.client.select("Box")[0] == "OK":
                return
            time.sleep(0.05)
        raise AssertionError("the mailbox that was made again cannot be selected")

    # -- the operator and the network -----------------------------------------------------------------------------

    @rule()
    def start(self) -> None:
        self.run(self._start())

    @rule()
    def stop(self) -> None:
        self.run(self._stop())

    @rule(after=st.integers(0, 5000))
    def cut(self, after: int) -> None:
        self.run(self._cut(after))

    async def _cut(self, after: int) -> None:
        self.proxy.cut_each_after(after)
        self.proxy.cut()

    @rule(pause=st.floats(0, 0.2))
    def wait(self, pause: float) -> None:
        self.run(asyncio.sleep(pause))

    async def _start(self) -> None:
        if self.task is None:
            self.proxy.heal()
            box = quick(self.server, self.user, mailbox="Box")
            box.port = self.proxy.port
            assert self.bus is not None
            self.task = asyncio.create_task(follow_mailbox(self.bus, box))

    async def _stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            self.task = None

    # -- the end --------------------------------------------------------------------------------------------------

    def _uids(self) -> list[int]:
        self.client.noop()
        return [int(uid) for uid in self.client.uid("SEARCH", "ALL")[1][0].split()]

    def _there(self) -> dict[int, Keywords]:
        found: dict[int, Keywords] = {}
        if not self._uids():
            return found
        for line in self.client.uid("FETCH", "1:*", "(UID FLAGS)")[1]:
            uid, flags = re.search(rb"UID (\d+)", line), re.search(rb"FLAGS \(([^)]*)\)", line)
            assert uid
            assert flags
            found[int(uid[1])] = keywords_of(frozenset(flags[1].decode().split()))
        return found

    def teardown(self) -> None:
        if self.bus is None:
            return
        try:
            self.run(self._settled(self._there()))
        finally:
            self.run(self._close())
            self.client.logout()

    async def _settled(self, there: dict[int, Keywords]) -> None:
        self.proxy.heal()
        await self._start()
        found = View()
        for _ in range(500):
            found = View().read(await self.reader.events()) if await self._any() else View()
            if found.messages == there:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{found.messages} is not {there}: {found.told}")

    async def _any(self) -> bool:
        return await self.reader.count(f"{self.user}.in.>") > 0

    async def _close(self) -> None:
        await self._stop()
        await self.reader_context.__aexit__(None, None, None)
        await self.context.__aexit__(None, None, None)


@pytest.mark.fault("A11", "A14", "A15")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("habit", ["qresync", "condstore", "snapshot", "cyrus"])
async def test_events_alone_make_the_servers_state_whatever_happened(
    server_that: Callable[[str], ImapServer],
    nats_server: NatsServer,
    prefix: str,
    habit: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "IDLE_EVENTS_LIMIT", 5)
    monkeypatch.setattr(memory, "BUSY_EVENTS_LIMIT", 5)
    monkeypatch.setattr(compare, "COMMIT_LIMIT_EVENTS", 3)
    monkeypatch.setattr(compare, "WINDOW_ALL", 4)
    # Dovecot says nothing to a session whose mailbox was made again at once.
    monkeypatch.setattr(compare, "OPEN_AGAIN_MODSEQ_S", 0.5)
    monkeypatch.setattr(compare, "OPEN_AGAIN_SNAPSHOT_S", 0.5)
    server = server_that(habit)
    Mailbox.loop = asyncio.get_running_loop()
    Mailbox.server, Mailbox.nats_url, Mailbox.prefix = server, nats_server.url, prefix
    Mailbox.proxy = await fault_proxy(server.host, server.imap)
    bounded = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        # No shrinking: each example that fails waits to its limit.
        phases=[Phase.generate],
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, Mailbox, settings=bounded)
