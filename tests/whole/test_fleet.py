"""Three processes share accounts while mail comes: killed, paused, cut off, restarted in turn; and what the log says.

The history that the log holds is checked as a whole: every mail once, in its mailbox's order, whoever wrote it.
"""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, Mailbus, command, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy

Maker = Callable[..., Mailbus]
Proxies = Callable[[str, int], Awaitable[FaultProxy]]
# MAILBUS_TEST_ACCOUNTS=60 takes some minutes.
ACCOUNTS = int(os.environ.get("MAILBUS_TEST_ACCOUNTS", "6"))
# The hash divides many accounts evenly, a few as it falls.
MANY = 30
TTL_S = 4.0
# What is promised: the time to live, and 5 s. The rest is this machine's, which runs servers and tests beside.
TAKEN_OVER_S = TTL_S + 5 + 20
NAMES = ("one", "two", "three")


@dataclass
class Fleet:
    """Processes, their accounts, and the mail that was put into each."""

    processes: dict[str, Mailbus]
    dovecot: Dovecot
    reader: BusReader
    prefix: str
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def user(self, account: str) -> str:
        return f"{self.prefix}-{account}"

    async def mail(self, account: str) -> None:
        number = self.sent[account] = self.sent[account] + 1
        await self.dovecot.append(self.user(account), [b"Subject: %d\r\n\r\nbody\r\n" % number])

    async def arrivals(self) -> None:
        """Mail for all accounts in turn, for ever."""
        while True:
            for number in range(ACCOUNTS):
                await self.mail(f"a{number}")
                await asyncio.sleep(0.1)

    async def all_announced(self) -> None:
        """Until what was put there by now is in the log, of all accounts."""
        wanted = dict(self.sent)
        deadline = asyncio.get_running_loop().time() + TAKEN_OVER_S
        while True:
            counts = {one: await self.reader.count(f"{self.prefix}.in.{one}.*.received") for one in wanted}
            behind = {one: (counts[one], count) for one, count in wanted.items() if counts[one] < count}
            if not behind:
                return
            if asyncio.get_running_loop().time() > deadline:
                pytest.fail(f"not announced within {TAKEN_OVER_S:g} s: {behind}")
            await asyncio.sleep(0.1)

    def shares(self, name: str) -> dict[str, int]:
        divided = self.processes[name].said("fleet_divided")
        return dict(divided[-1]["replicas"]) if divided else {}

    async def agreed(self, *names: str) -> None:
        """Until these processes know of each other and of nobody else."""
        await until(
            lambda: all(sorted(self.shares(name)) == sorted(names) for name in names),
            limit_s=TAKEN_OVER_S,
            what=f"{names} have divided the accounts",
        )

    async def check_history(self) -> None:
        """0 lost, 0 doubled, in order."""
        subjects: dict[str, list[int]] = defaultdict(list)
        for event in await self.reader.received():
            subjects[event.subject.split(".")[2]].append(int(event.body["subject"]))
        assert subjects == {account: list(range(1, count + 1)) for account, count in self.sent.items()}


@asynccontextmanager
async def fleet_of_three(
    dovecot: Dovecot, nats: NatsServer, make: Maker, prefix: str, urls: dict[str, str] | None = None
) -> AsyncIterator[Fleet]:
    accounts = [imap_account(dovecot, f"{prefix}-a{number}", id=f"a{number}") for number in range(ACCOUNTS)]
    made: dict[str, Mailbus] = {}
    for name in NAMES:
        more: dict[str, Any] = {"instance": name, "fleet": {"ttl": f"{TTL_S:g}s"}}
        made[name] = make(settings_for((urls or {}).get(name, nats.url), prefix, *accounts, **more))
    async with reading(nats.url, prefix) as reader:
        fleet = Fleet(made, dovecot, reader, prefix)
        for number in range(ACCOUNTS):
            await fleet.mail(f"a{number}")
        for process in made.values():
            process.start()
        for process in made.values():
            await process.started()
        await fleet.agreed(*NAMES)
        async with asyncio.TaskGroup() as group:
            arrivals = group.create_task(fleet.arrivals())
            yield fleet
            arrivals.cancel()
        await fleet.all_announced()
        await fleet.check_history()


@pytest.mark.fault("F02", "D02", "F04")
async def test_killed_paused_and_back_no_mail_is_lost_or_doubled(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    async with fleet_of_three(dovecot, own_nats, mailbus, prefix) as fleet:
        one, two = fleet.processes["one"], fleet.processes["two"]
        before = fleet.shares("two")
        assert ACCOUNTS < MANY or max(before.values()) <= 2 * min(before.values())
        one.kill()
        await fleet.agreed("two", "three")
        await fleet.all_announced()
        # Only the dead one's share moved.
        assert all(fleet.shares("two")[name] >= before[name] for name in ("two", "three"))
        one.start()
        await one.started()
        await fleet.agreed(*NAMES)
        assert two.process is not None
        os.kill(two.process.pid, signal.SIGSTOP)
        await fleet.all_announced()
        await asyncio.sleep(TTL_S)
        os.kill(two.process.pid, signal.SIGCONT)
        await fleet.agreed(*NAMES)
        await fleet.all_announced()
        shares = [fleet.shares(name) for name in NAMES]
        assert shares[0] == shares[1] == shares[2] == before
    for process in fleet.processes.values():
        assert await process.stop() == 0


@pytest.mark.fault("F03")
async def test_cut_off_from_nats_and_restarted_in_turn_no_mail_is_lost_or_doubled(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str, fault_proxy: Proxies
) -> None:
    proxy = await fault_proxy("127.0.0.1", own_nats.port)
    urls = {"three": f"nats://127.0.0.1:{proxy.port}"}
    async with fleet_of_three(dovecot, own_nats, mailbus, prefix, urls) as fleet:
        # Any of them answers for all accounts.
        for number in range(min(ACCOUNTS, 6)):
            code, out, err = await command(fleet.processes["one"], "cmd", f"a{number}", "mailboxes")
            assert code == 0, err
            assert "INBOX" in out
        code, _, err = await command(fleet.processes["one"], "cmd", "nobody", "mailboxes")
        assert (code, err.startswith("mailbus: 404")) == (1, True)
        proxy.swallow()
        await fleet.agreed("one", "two")
        await fleet.all_announced()
        proxy.heal()
        proxy.cut()
        await fleet.agreed(*NAMES)
        await fleet.all_announced()
        for process in fleet.processes.values():
            assert await process.stop() == 0
            process.start()
            await process.started()
        await fleet.agreed(*NAMES)
        await fleet.all_announced()
    for process in fleet.processes.values():
        assert await process.stop() == 0


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
