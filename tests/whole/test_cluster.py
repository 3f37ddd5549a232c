"""Servers of a cluster of three die at random while mailbus and four racing writers commit: nothing lost or doubled."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import pytest

from service.bus import Bus, NatsOptions, OutMessage, open_bus
from service.clock import SystemClock
from service.contract import DeadReason
from service.errors import Transient
from service.ingest import Copies, DeadLetters, MailboxLog, WriterIdentity
from service.ingest.cursor import Cursor
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import BusReader, Mailbus, imap_account, settings_for
from tests.servers.nats_cluster import NatsCluster
from tests.servers.proxy import FaultProxy, Way

WRITERS = 4
KILLS = 6
KILL_FOR_S = 45.0
MAILS = 2000
START = Cursor("src", 1, last=0, line=0, writer="")


async def race(bus: Bus, name: str, enough: asyncio.Event) -> set[str]:
    """Write the next numbers of one mailbox again and again, against others; gives what was confirmed."""
    clock = SystemClock()
    subjects = bus.subjects

    async def dead(_writer: str) -> bool:
        return False  # nobody gives way: they take turns on purpose

    async def publish(message: OutMessage) -> None:
        raise AssertionError(message)

    events = MailboxLog(
        bus.log,
        Copies(bus.key_value(subjects.cursors), clock),
        DeadLetters(bus.dead, publish, subject=subjects.dead(DeadReason.MESSAGE), where=name),
        account="race",
        mailbox="INBOX",
        filter_subject=subjects.mailbox_filter("race", "INBOX"),
        writer=WriterIdentity(f"{name}/1", dead),
        alarm=lambda error: pytest.fail(str(error)),
        clock=clock,
    )
    chance = random.Random(name)
    confirmed: set[str] = set()
    while not enough.is_set():
        try:
            cursor = (await events.resume(contest=True)).cursor or START
            for _ in range(chance.randrange(1, 4)):
                count = chance.choice([1, 1, 2, 20])
                ids = [f"{name}-{number}" for number in range(cursor.last + 1, cursor.last + count + 1)]
                subject = subjects.event("race", "INBOX", "received")
                cursor = Cursor("src", 1, last=cursor.last + count, line=0, writer=f"{name}/1")
                await events.commit([OutMessage(subject, b"", {"ce-id": id}) for id in ids], cursor)
                confirmed.update(ids)
        except Transient:
            await asyncio.sleep(chance.uniform(0, 0.1))
    return confirmed


async def kill_at_random(cluster: NatsCluster, reader: BusReader, stream: str, seed: int) -> int:
    """One server after the other, each when the cluster is whole again; gives how many."""
    chance = random.Random(seed)
    began, kills = time.monotonic(), 0
    while kills < KILLS and time.monotonic() - began < KILL_FOR_S:
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        server = chance.choice(cluster.servers)
        await server.kill()
        kills += 1
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        await server.start()
        await cluster.healed(reader.nc, stream)
    return kills


@pytest.mark.fault("D14")
@pytest.mark.timeout(240)
async def test_servers_of_a_cluster_die_while_writers_race_nothing_is_lost_or_doubled(
    dovecot: Dovecot,
    nats_cluster: NatsCluster,
    mailbus: Callable[..., Mailbus],
    prefix: str,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    await dovecot.append(prefix, [b"Subject: mail %d\r\n\r\n%b\r\n" % (n, b"x" * 1500) for n in range(MAILS)])
    # Slowly enough that it is still at it when the last server dies.
    proxy = await fault_proxy(dovecot.host, dovecot.imap)
    proxy.delay_s[Way.TO_CLIENT] = 0.5
    settings = settings_for("", prefix, imap_account(dovecot, prefix, port=proxy.port))
    settings["nats"] = {"servers": nats_cluster.urls, "prefix": prefix, "replicas": 3}
    one = mailbus(settings)
    one.start()
    await one.started()
    nc = await nats_cluster.client()
    reader, stream = BusReader(nc, prefix), f"{prefix.upper()}_IN"
    enough = asyncio.Event()

    async def writer(name: str) -> set[str]:
        options = NatsOptions(servers=tuple(nats_cluster.urls), prefix=prefix, replicas=3)
        async with open_bus(options, None) as bus:
            return await race(bus, name, enough)

    try:
        async with asyncio.TaskGroup() as group:
            racing = [group.create_task(writer(f"w{number}")) for number in range(WRITERS)]
            kills = await kill_at_random(nats_cluster, reader, stream, seed)
            enough.set()
        proxy.heal()
        async with asyncio.timeout(60):
            while await reader.count(f"{prefix}.in.box.INBOX.received") < MAILS:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await one.stop() == 0
        events = await reader.events()
    finally:
        await nc.close()
    assert kills > 2
    mails = [event.body["subject"] for event in events if event.kind == "received" and ".box." in event.subject]
    assert mails == [f"mail {n}" for n in range(MAILS)]
    raced = [event.headers["ce-id"] for event in events if ".race." in event.subject]
    numbers = [int(id.rpartition("-")[2]) for id in raced]
    print("kills", kills, "raced", len(raced))
    assert numbers == list(range(1, len(raced) + 1))
    assert set().union(*(task.result() for task in racing)) <= set(raced)
    batches: dict[str, list[int]] = {}
    for event in events:
        batches.setdefault(event.headers.get("Nats-Batch-Id", ""), []).append(event.seq)
    batches.pop("", None)
    assert all(seqs == list(range(seqs[0], seqs[0] + len(seqs))) for seqs in batches.values())
