"""Processes share accounts while mail comes: killed, paused, cut off, restarted in turn; and what the log says.

The history that the log holds is checked as a whole: every mail once, in its mailbox's order, whoever wrote it.
"""

import asyncio
import json
import os
import re
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import nats.js.errors
import pytest

from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, Mailbus, imap_account, reading, settings_for, until, with_relay
from tests.servers.nats import NatsServer
from tests.servers.nats_cluster import NatsCluster
from tests.servers.proxy import FaultProxy
from tests.servers.smtp import ScriptedRelay

Maker = Callable[..., Mailbus]
Proxies = Callable[[str, int], Awaitable[FaultProxy]]
# MAILBUS_TEST_ACCOUNTS=60 MAILBUS_TEST_ROUNDS=3 take minutes (--timeout 1800), with the default time to live.
ACCOUNTS = int(os.environ.get("MAILBUS_TEST_ACCOUNTS", "6"))
ROUNDS = int(os.environ.get("MAILBUS_TEST_ROUNDS", "1"))
MANY = 30
# The hash divides so many for each process evenly, a few as it falls: 60 among five are 8 to 17 for each.
EVEN_FROM = 20
TTL_S = 10.0 if ACCOUNTS >= MANY else 4.0
# What docs/operations.md promises of the default time to live, from the last sign of life to the next event.
TAKEN_OVER_S = 15.0
# What nothing is promised of, on a machine that runs servers and other tests beside.
LIMIT_S = 30.0
# MAILBUS_TEST_PROCESSES=5 beside them: three is what a machine with two cores takes in passing.
NAMES = ("one", "two", "three", "four", "five")[: int(os.environ.get("MAILBUS_TEST_PROCESSES", "3"))]
SENDS = "a0"


@dataclass
class Fleet:
    """Processes, their accounts, the mail that was put into each, and how many requests were made."""

    processes: dict[str, Mailbus]
    dovecot: Dovecot
    reader: BusReader
    prefix: str
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    requests: int = 0
    enough: bool = False
    turns: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def user(self, account: str) -> str:
        return f"{self.prefix}-{account}"

    async def mail(self, account: str) -> None:
        # One after the other: the mailbox has them in the order of their numbers.
        async with self.turns[account]:
            number = self.sent[account] + 1
            await self.dovecot.append(self.user(account), [b"Subject: %d\r\n\r\nbody\r\n" % number])
            self.sent[account] = number

    async def mail_to_all(self) -> None:
        for number in range(ACCOUNTS):
            await self.mail(f"a{number}")

    async def arrivals(self) -> None:
        """Mail for all accounts in turn, until it is enough."""
        while not self.enough:
            for number in range(ACCOUNTS):
                await self.mail(f"a{number}")
                await asyncio.sleep(0.1)

    async def requesting(self) -> None:
        """Requests to send, until it is enough; each is asked for until NATS has it."""
        while not self.enough:
            id = f"r{self.requests + 1}"
            request = {"id": id, "to": [{"email": "a@example.org"}], "subject": id, "text": "x"}
            while True:
                try:
                    subject = f"{self.prefix}.out.{SENDS}"
                    await self.reader.nc.jetstream(timeout=1).publish(subject, json.dumps(request).encode())
                    break
                except (nats.errors.Error, nats.js.errors.Error):
                    await asyncio.sleep(0.1)
            self.requests += 1
            await asyncio.sleep(0.2)

    async def counts(self) -> Counter[str]:
        """Account → mails announced."""
        context = self.reader.nc.jetstream(timeout=2)
        name, subjects = f"{self.prefix.upper()}_IN", f"{self.prefix}.in.*.*.received"
        try:
            found = (await context.stream_info(name, subjects_filter=subjects)).state.subjects or {}
        except (nats.errors.Error, nats.js.errors.Error):
            return Counter()  # a cluster without a leader
        counts: Counter[str] = Counter()
        for subject, count in found.items():
            counts[subject.split(".")[2]] += count
        return counts

    async def all_announced(self, deadline: float | None = None) -> None:
        """Until what was put there by now is in the log, of all accounts."""
        wanted = dict(self.sent)
        deadline = deadline or now() + LIMIT_S
        while True:
            counts = await self.counts()
            behind = {one: (counts[one], count) for one, count in wanted.items() if counts[one] < count}
            if not behind:
                return
            if now() > deadline:
                pytest.fail(f"not announced in time: {behind}")
            await asyncio.sleep(0.1)

    async def taken_over(self, lost_at: float, how: str) -> None:
        """Somebody was lost then: in the time that is promised all accounts' mail is announced by the others."""
        await self.mail_to_all()
        await self.all_announced(lost_at + TAKEN_OVER_S)
        print(f"{how}: taken over within {now() - lost_at:.1f} s")

    def shares(self, name: str) -> dict[str, int]:
        divided = self.processes[name].said("fleet_divided")
        return dict(divided[-1]["replicas"]) if divided else {}

    async def agreed(self, *names: str) -> None:
        """Until these processes know of each other and of nobody else."""
        await until(
            lambda: all(sorted(self.shares(name)) == sorted(names) for name in names),
            limit_s=LIMIT_S,
            what=f"{names} have divided the accounts",
        )

    async def check_history(self) -> None:
        """0 lost, 0 doubled, in order."""
        subjects: dict[str, list[int]] = defaultdict(list)
        for event in await self.reader.received():
            subjects[event.subject.split(".")[2]].append(int(event.body["subject"]))
        assert subjects == {account: list(range(1, count + 1)) for account, count in self.sent.items()}
        print(f"{sum(self.sent.values())} mails in {ACCOUNTS} mailboxes: none lost, none doubled, in order")


def but(name: str) -> tuple[str, ...]:
    """All processes but one."""
    return tuple(one for one in NAMES if one != name)


def now() -> float:
    return asyncio.get_running_loop().time()


def number_of(mail: bytes) -> int:
    found = re.search(rb"^Subject: r(\d+)\r$", mail, re.MULTILINE)
    assert found is not None
    return int(found[1])


@asynccontextmanager
async def fleet_of_three(
    dovecot: Dovecot, urls: list[str], make: Maker, prefix: str, *, three: str = "", **more: Any
) -> AsyncIterator[Fleet]:
    """`three`: where the process of that name finds NATS. `relay`: the first account sends too."""
    accounts = [imap_account(dovecot, f"{prefix}-a{number}", id=f"a{number}") for number in range(ACCOUNTS)]
    relay: ScriptedRelay | None = more.pop("relay", None)
    if relay is not None:
        accounts[0] = with_relay(accounts[0], relay)
    made: dict[str, Mailbus] = {}
    for name in NAMES:
        settings = settings_for("", prefix, *accounts, instance=name, fleet={"ttl": f"{TTL_S:g}s"})
        settings["nats"] |= {"servers": [three] if three and name == "three" else urls} | more
        made[name] = make(settings)
    async with reading(urls, prefix) as reader:
        fleet = Fleet(made, dovecot, reader, prefix)
        await fleet.mail_to_all()
        for process in made.values():
            process.start()
        for process in made.values():
            await process.started()
        await fleet.agreed(*NAMES)
        async with asyncio.TaskGroup() as group:
            group.create_task(fleet.arrivals())
            if relay is not None:
                group.create_task(fleet.requesting())
            yield fleet
            fleet.enough = True
        await fleet.all_announced()
        await fleet.check_history()


@pytest.mark.fault("F02", "D02", "F04")
async def test_killed_paused_and_back_no_mail_is_lost_or_doubled(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    async with fleet_of_three(dovecot, [own_nats.url], mailbus, prefix) as fleet:
        one, two = fleet.processes["one"], fleet.processes["two"]
        before = fleet.shares("two")
        print(f"{ACCOUNTS} accounts divided: {before}")
        assert EVEN_FROM * len(NAMES) > ACCOUNTS or max(before.values()) <= 2 * min(before.values())
        for _ in range(ROUNDS):
            lost_at = now()
            one.kill()
            await fleet.taken_over(lost_at, "killed")
            await fleet.agreed(*but("one"))
            # Only the dead one's share moved.
            assert all(fleet.shares("two")[name] >= before[name] for name in but("one"))
            one.start()
            await one.started()
            await fleet.agreed(*NAMES)
            assert two.process is not None
            lost_at = now()
            os.kill(two.process.pid, signal.SIGSTOP)
            await fleet.taken_over(lost_at, "paused")
            # Its key is gone when it wakes.
            await fleet.agreed(*but("two"))
            os.kill(two.process.pid, signal.SIGCONT)
            await fleet.agreed(*NAMES)
            await fleet.all_announced()
            assert all(fleet.shares(name) == before for name in NAMES)
    for process in fleet.processes.values():
        assert await process.stop() == 0


@pytest.mark.fault("F03")
async def test_cut_off_from_nats_and_restarted_in_turn_no_mail_is_lost_or_doubled(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy: Proxies
) -> None:
    proxy = await fault_proxy("127.0.0.1", own_nats.port)
    three = f"nats://127.0.0.1:{proxy.port}"
    async with fleet_of_three(dovecot, [own_nats.url], mailbus, prefix, three=three) as fleet:
        # Any of them answers for all accounts.
        for number in range(ACCOUNTS):
            answer = await fleet.reader.nc.request(f"{prefix}.cmd.a{number}.mailboxes", b"{}", timeout=LIMIT_S)
            assert json.loads(answer.data)["list"][0]["name"] == "INBOX", answer.data
        for _ in range(ROUNDS):
            lost_at = now()
            proxy.swallow()
            await fleet.taken_over(lost_at, "cut off")
            await fleet.agreed(*but("three"))
            proxy.heal()
            proxy.cut()
            await fleet.agreed(*NAMES)
            await fleet.all_announced()
            for name, process in fleet.processes.items():
                lost_at = now()
                assert await process.stop() == 0
                if name == "two":  # as where an image is fetched first
                    await fleet.taken_over(lost_at, "stopped")
                process.start()
                await process.started()
            await fleet.agreed(*NAMES)
            await fleet.all_announced()
    for process in fleet.processes.values():
        assert await process.stop() == 0


@pytest.mark.fault("D14", "F02")
async def test_leaders_of_nats_are_killed_and_moved_and_mail_goes_in_and_out_once(
    dovecot: Dovecot, nats_cluster: NatsCluster, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    more = {"relay": relay, "replicas": 3}
    async with fleet_of_three(dovecot, nats_cluster.urls, mailbus, prefix, **more) as fleet:
        client, log = fleet.reader.nc, f"{prefix.upper()}_IN"
        for number in range(ROUNDS):
            stream = (log, f"KV_{prefix}-fleet")[number % 2]
            lost_at = now()
            killed = await nats_cluster.kill_leader(client, stream)
            await fleet.mail_to_all()
            await fleet.all_announced()
            print(f"the leader of {stream} killed: all announced within {now() - lost_at:.1f} s")
            await killed.start()
            await nats_cluster.healed(client, log)
            await nats_cluster.move_leader(client, log)
        await fleet.mail_to_all()
        await fleet.all_announced()
    await relay.received(fleet.requests, LIMIT_S)
    for process in fleet.processes.values():
        assert await process.stop() == 0
    assert sorted(number_of(one.content) for one in relay.messages) == list(range(1, fleet.requests + 1))
    print(f"{fleet.requests} requests: each sent once")


@pytest.mark.fault("F03")
async def test_a_process_that_is_alone_keeps_its_connections_while_nats_is_away(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix)
    one = mailbus(settings_for(own_nats.url, prefix, account, fleet={"ttl": "3s"}))
    one.start()
    await dovecot.append(prefix, [b"Subject: 1\r\n\r\n\r\n"])
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(1)
        await until(lambda: any(line["state"] == "connected" for line in one.said("account_state")))
        before = len(one.said("account_state"))
        await own_nats.kill()
        await until(lambda: len(one.said("presence_not_renewed")) > 5, what="its key has ended")
        assert len(one.said("account_state")) == before
        await own_nats.start()
        await dovecot.append(prefix, [b"Subject: 2\r\n\r\n\r\n"])
        await reader.wait_received(2)
        assert await one.stop() == 0
