"""Every step of the protocol, crossed with everything that a relay may do there, and with the sender's own deaths.

The history is checked as a whole: each recipient of each request has one end; a mail came twice only where `uncertain`
was said before. MAILBUS_TEST_KILLS=200 kills and pauses for as long as that takes, MAILBUS_TEST_SEED repeats a run.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import trustme

from service.bus import Bus
from service.observe import metrics
from service.observe.steps import STOP_EXIT_CODE
from tests.outbound.conftest import Post, soon
from tests.outbound.history import Asked, History
from tests.outbound.matrix import BEFORE, QUICK, WHO, Case, Kind, Plan, faults, queued, relay_of, send
from tests.servers.nats import NatsServer
from tests.servers.scripted import serving
from tests.servers.smtp_steps import Act, Step, StepRelay
from tests.smtp.harness import server_context

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
PROCESSES = 3
KILLS = int(os.environ.get("MAILBUS_TEST_KILLS", "3"))
# More of them where they shall last for more kills.
ACCOUNTS, REQUESTS = min(150, 7 + KILLS), min(50, 2 + KILLS // 3)
# Longer than what goes in one piece with its end.
LONG = "A line of text, and another one.\r\n" * 700


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setattr(name, value)


class Relays:
    """Relays by account, while they listen; and what is asked of them."""

    def __init__(self, bus: Bus, authority: trustme.CA, stack: AsyncExitStack) -> None:
        self.cases: list[Case] = []
        self.asked: list[Asked] = []
        self._bus = bus
        self._context = server_context(authority)
        self._stack = stack

    async def listen(self, account: str, relay: StepRelay, *, hold: bool = False) -> None:
        """One more account."""
        secure = relay.at in BEFORE
        relay.starttls = self._context if secure else None
        await self._stack.enter_async_context(serving(relay))
        self.cases.append(Case(account, relay.port, relay.lmtp, secure, hold))

    async def ask(self, case: Case, relay: StepRelay, requests: dict[str, Sequence[str]]) -> None:
        """Queue requests."""
        expires = {"expiresAt": soon(2.5)} if case.hold else {}
        for id, whose in requests.items():
            body = {"id": id, "to": [{"email": who} for who in whose], "subject": "s", "text": "t"} | expires
            if relay.at is Step.BODY:
                body["text"] = LONG
            await self._bus.publish(self._bus.subjects.out(case.account), json.dumps(body).encode())
        self.asked.append(Asked(case.account, relay, requests, case.hold))


@pytest.mark.fault("E01", "E04", "E06", "E08")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", get_args(Kind))
async def test_whatever_a_relay_does_at_any_step_each_recipient_has_one_end(
    bus: Bus, post: Post, authority: trustme.CA, tmp_path: Path, quick: None, kind: Kind
) -> None:
    """A request to nobody it knows goes first: after it the next one on the connection begins with RSET."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    bugs = metrics.BUGS._value.get()
    async with AsyncExitStack() as stack:
        made = Relays(bus, authority, stack)
        for step, act, who in faults(kind):
            for hold in (False, True) if step is Step.END and act is not Act.REFUSE else (False,):
                relay = relay_of(kind, step, act, who)
                await made.listen(f"{step}-{act}-{who[:1]}{'-hold' * hold}", relay, hold=hold)
                await made.ask(made.cases[-1], relay, {"nobody": WHO[2:], "all": WHO})
        history = History(made.asked)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send(bus, made.cases, str(tmp_path / "ca.pem")))
            await post.until(lambda: history.ended(post.events), LIMIT_S)
            await post.empty()
            sending.cancel()
        assert history.problems() == []
        # What is on hold may expire before its turn, and QUIT comes last.
        late = [one for one in made.asked if one.hold or one.relay.at is Step.QUIT]
        missed = [one.account for one in made.asked if one.relay.times and one not in late]
        assert missed == []
    assert metrics.BUGS._value.get() == bugs


@pytest.mark.fault("E01", "E02", "E13")
@pytest.mark.timeout(600)
async def test_three_processes_on_the_same_queues_killed_and_paused_at_random_lose_nothing(
    nats_server: NatsServer, bus: Bus, post: Post, authority: trustme.CA, tmp_path: Path
) -> None:
    """Each dies by itself at one of its steps, or sleeps for longer than a request stays its own."""
    seed = int(os.environ.get("MAILBUS_TEST_SEED", random.randrange(1 << 32)))
    print("MAILBUS_TEST_SEED", seed)
    chance = random.Random(seed)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with AsyncExitStack() as stack:
        made = Relays(bus, authority, stack)
        kinds: list[Kind] = list(get_args(Kind))
        everything = [(kind, *fault) for kind in kinds for fault in faults(kind)]
        for number, (kind, step, act, who) in enumerate(chance.sample(everything, ACCOUNTS)):
            relay = relay_of(kind, step, act, who)
            relay.times = 2
            await made.listen(f"a{number}-{kind}-{step}-{act}", relay)
            await made.ask(made.cases[-1], relay, {f"r{n}": WHO for n in range(REQUESTS)})
        plan = tmp_path / "plan.json"
        plan.write_bytes(
            msgspec.json.encode(Plan(nats_server.url, bus.subjects.prefix, str(tmp_path / "ca.pem"), made.cases))
        )
        history = History(made.asked)
        fleet = Fleet(plan, chance)
        async with asyncio.TaskGroup() as group:
            lives = [group.create_task(fleet.live()) for _ in range(PROCESSES)]
            pausing = group.create_task(fleet.pause())
            await post.until(lambda: history.ended(post.events), LIMIT_S + KILLS * 5)
            async with asyncio.timeout(LIMIT_S):
                while await queued(bus):  # noqa: ASYNC110 an empty stream rings no bell
                    await asyncio.sleep(0.05)
            for task in (pausing, *lives):
                task.cancel()
        print("killed", fleet.killed, "paused", fleet.paused)
        assert history.problems() == []
        assert fleet.killed


class Fleet:
    """Processes that send for all accounts."""

    def __init__(self, plan: Path, chance: random.Random) -> None:
        self._plan = plan
        self._chance = chance
        self._running: list[asyncio.subprocess.Process] = []
        self._to_kill = KILLS
        self.killed = 0
        self.paused = 0

    async def live(self) -> None:
        """One process after the other, until it is not needed."""
        while True:
            stop_at = self._chance.randrange(5, 60) if self._to_kill > 0 else 0
            self._to_kill -= 1
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.outbound.matrix", str(self._plan), cwd=ROOT,
                env=os.environ | {"MAILBUS_STOP_AT": str(stop_at)},
            )  # fmt: skip
            self._running.append(child)
            try:
                code = await child.wait()
            finally:
                self._running.remove(child)
                if child.returncode is None:
                    child.kill()
                    await child.wait()
            assert code in (0, STOP_EXIT_CODE)
            if code == 0:
                return
            self.killed += 1

    async def pause(self) -> None:
        """Now one, now another, for longer than ACK_WAIT_S."""
        while self.paused < KILLS:
            await asyncio.sleep(self._chance.uniform(0.2, 1.0))
            if self._running:
                child = self._chance.choice(self._running)
                child.send_signal(signal.SIGSTOP)
                self.paused += 1
                try:
                    await asyncio.sleep(1.5)
                finally:
                    if child.returncode is None:
                        child.send_signal(signal.SIGCONT)
