"""Anything may happen in any order; a consumer that reads nothing but events ends with exactly the server's state.

Another client appends, flags, moves, expunges and makes the mailbox again on a real Dovecot, in three habits, and on
Cyrus. Meanwhile mailbus, in a process of its own, is started, stopped, killed at any moment, ended at any durable step,
and cut off from the server.
"""

import asyncio
import imaplib
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from multiprocessing.process import BaseProcess
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from service.contract import Keywords, keywords_of
from service.observe.steps import STOP_EXIT_CODE
from tests.ingest.child import Follower
from tests.ingest.view import View, mail
from tests.servers.bus import bus_at
from tests.servers.imap_server import ImapServer
from tests.servers.mailbus import BusReader, reading
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy

EXAMPLES = 6
STEPS = 20
# Of modules of ingest: small, so that a few mails pass every limit.
CONSTANTS = {
    "memory.IDLE_EVENTS_LIMIT": 5,
    "memory.BUSY_EVENTS_LIMIT": 5,
    "compare.COMMIT_LIMIT_EVENTS": 3,
    "compare.WINDOW_ALL": 4,
    # Dovecot says nothing to a session whose mailbox was made again at once.
    "compare.OPEN_AGAIN_MODSEQ_S": 0.5,
    "compare.OPEN_AGAIN_SNAPSHOT_S": 0.5,
}
FLAGS = (r"(\Seen)", r"(\Flagged)", r"(\Deleted)", "(work)", r"(\Seen work)")


class Mailbox(RuleBasedStateMachine):
    """What another client and an operator may do; a new user, a new prefix for each example."""

    loop: asyncio.AbstractEventLoop
    server: ImapServer
    nats_url: str
    proxy: FaultProxy
    prefix: str
    example = 0
    # How often a process was killed, and ended at a step; over all examples.
    kills = 0
    deaths = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """From hypothesis's thread into the tests' loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __init__(self) -> None:
        super().__init__()
        type(self).example += 1
        self.user = f"{self.prefix}x{type(self).example}"
        self.count = 0
        self.epochs = 0
        self.process: BaseProcess | None = None
        self.opened = False

    @initialize()
    def begin(self) -> None:
        self._log_in()
        self.client.create("Other")
        self.client.create("Box")
        self.client.select("Box")
        self.client.append("Box", "", "", mail(1000))
        self.run(self._open())
        self._start()

    def _log_in(self) -> None:
        self.client = imaplib.IMAP4(self.server.host, self.server.imap, timeout=30)
        self.client.login(self.user, "secret")

    async def _open(self) -> None:
        # The streams are there before the reader looks.
        async with bus_at(self.nats_url, self.user):
            self.reader_context = reading(self.nats_url, self.user)
            self.reader: BusReader = await self.reader_context.__aenter__()
        self.opened = True

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
        self.client.logout()
        self._log_in()
        self.client.delete("Box")
        # Cyrus may say that it is still there, and then it is: whatever there is in the end is what counts.
        for _ in range(20):
            if self.client.create("Box")[0] == "OK":
                break
            time.sleep(0.05)
        self.client.logout()
        # Dovecot refuses the new one while others have the old one open, and for ever whoever knew the old one.
        for _ in range(100):
            self._log_in()
            if self.client.select("Box")[0] == "OK":
                return
            self.client.logout()
            time.sleep(0.05)
        raise AssertionError("the mailbox that was made again cannot be selected")

    # -- the operator and the network -----------------------------------------------------------------------------

    @rule(dies_at=st.integers(0, 8))
    def start(self, dies_at: int) -> None:
        self._start(dies_at)

    @rule()
    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self._ended()

    @rule()
    def kill(self) -> None:
        if self.process is not None and self.process.is_alive():
            type(self).kills += 1
            self.process.kill()
            self._ended()

    @rule(after=st.integers(0, 5000))
    def cut(self, after: int) -> None:
        self.run(self._cut(after))

    async def _cut(self, after: int) -> None:
        self.proxy.cut_each_after(after)
        self.proxy.cut()

    @rule(pause=st.floats(0, 0.2))
    def wait(self, pause: float) -> None:
        self.run(asyncio.sleep(pause))

    def _start(self, dies_at: int = 0) -> None:
        """A process, unless one lives; `dies_at`: the durable step that ends it, as kill -9 would, 0 for none."""
        if self.process is not None and self.process.is_alive():
            return
        self._ended()
        self.run(self._heal())
        self.process = Follower(self.nats_url, self.user, self.proxy.port, self.user, "Box", CONSTANTS, dies_at).start()

    async def _heal(self) -> None:
        self.proxy.heal()

    def _ended(self) -> None:
        if self.process is not None:
            self.process.join(30)
            assert self.process.exitcode is not None, "it does not stop"
            type(self).deaths += self.process.exitcode == STOP_EXIT_CODE
            self.process.close()
            self.process = None

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
        if not self.opened:
            return
        try:
            self._settled(self._there())
        finally:
            self.run(self._close())
            self.client.logout()

    def _settled(self, there: dict[int, Keywords]) -> None:
        # Whoever is about to die at a step lives no longer than until here.
        self.kill()
        self._start()
        self.run(self._seen(there))

    async def _seen(self, there: dict[int, Keywords]) -> None:
        found = View()
        for _ in range(1500):
            found = View().read(await self.reader.events()) if await self._any() else View()
            if found.messages == there:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{found.messages} is not {there}: {found.told}")

    async def _any(self) -> bool:
        return await self.reader.count(f"{self.user}.in.>") > 0

    async def _close(self) -> None:
        await asyncio.to_thread(self.stop)
        await self.reader_context.__aexit__(None, None, None)


def ends_at_a_step(nats_url: str, prefix: str, port: int) -> None:
    """A process that shall end at its first durable step does: the making of a stream."""
    process = Follower(nats_url, f"{prefix}0", port, prefix, "Box", CONSTANTS, dies_at=1).start()
    process.join(30)
    assert process.exitcode == STOP_EXIT_CODE


@pytest.mark.fault("A11", "A14", "A15", "D01")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("habit", ["qresync", "condstore", "snapshot", "cyrus"])
async def test_events_alone_make_the_servers_state_whatever_happened(
    server_that: Callable[[str], ImapServer],
    nats_server: NatsServer,
    prefix: str,
    habit: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
) -> None:
    server = server_that(habit)
    Mailbox.loop = asyncio.get_running_loop()
    Mailbox.server, Mailbox.nats_url, Mailbox.prefix = server, nats_server.url, prefix
    Mailbox.proxy = await fault_proxy(server.host, server.imap)
    await asyncio.to_thread(ends_at_a_step, nats_server.url, prefix, server.imap)
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
    print(f"{Mailbox.kills} killed, {Mailbox.deaths} ended at a step")
