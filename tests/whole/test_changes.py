"""mailbus as a process, while a second client changes flags, moves and expunges: the events are the changes, once each.

While it runs, while it is stopped, and while it is killed again and again, on Dovecot in three habits and on Cyrus.
"""

import asyncio
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from service.observe.steps import STOP_EXIT_CODE
from tests.ingest.view import View, act, mail, seen, view
from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import ImapServer
from tests.servers.mailbus import BusReader, Mailbus, imap_account, reading, settings_for, until
from tests.servers.nats import NatsServer

Maker = Callable[..., Mailbus]
HABITS = ["qresync", "condstore", "snapshot"]


def connected(one: Mailbus) -> bool:
    return any(line["state"] == "connected" for line in one.said("account_state"))


async def sync_shown(one: Mailbus) -> str:
    """What the status page says of the mailbox."""
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{one.port}/events") as response:
        async for line in response.content:
            if line.startswith(b"data:"):
                (account,) = json.loads(line[5:])["snapshot"]["accounts"]
                return str(account["mailboxes"][0]["sync"])
    pytest.fail("the page said nothing")


@pytest.mark.fault("A15", "A11")
@pytest.mark.parametrize("habit", [*HABITS, "cyrus"])
async def test_changes_while_it_runs_while_it_is_stopped_and_after_it_was_killed(
    server_that: Callable[[str], ImapServer], own_nats: NatsServer, mailbus: Maker, prefix: str, habit: str
) -> None:
    server = server_that(habit)
    await server.append(prefix, [mail(n) for n in range(1, 11)])
    with server.client(prefix) as client:
        client.create("Other")
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(server, prefix)))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await seen(reader, {n: set() for n in range(1, 11)}, limit_s=30)
        await act(server, prefix, ("STORE", "2", "+FLAGS", r"(\Seen)"), ("MOVE", "3", "Other"))
        left: dict[int, set[str]] = {n: set() for n in range(1, 11) if n != 3} | {2: {"$seen"}}
        await seen(reader, left)
        assert await sync_shown(one) == ("qresync" if habit == "cyrus" else habit)
        assert await one.stop() == 0
        await act(
            server,
            prefix,
            ("STORE", "4:6", "+FLAGS", r"(\Flagged work)"),
            ("STORE", "5", "+FLAGS", r"(\Deleted)"),
            ("EXPUNGE",),
            ("MOVE", "7", "Other"),
        )
        await server.append(prefix, [mail(11)])
        one.start()
        del left[5], left[7]
        left |= {4: {"$flagged", "work"}, 6: {"$flagged", "work"}, 11: set()}
        await seen(reader, left, limit_s=30)
        one.kill()
        await act(server, prefix, ("STORE", "8:9", "-FLAGS", r"(\Seen)"), ("STORE", "9", "+FLAGS", r"(\Answered)"))
        await act(server, prefix, ("STORE", "10", "+FLAGS", r"(\Deleted)"), ("EXPUNGE",))
        one.start()
        del left[10]
        left |= {9: {"$answered"}}
        found = await seen(reader, left, limit_s=30)
        assert await one.stop() == 0
        one.start()
        await until(lambda: connected(one))
        assert await one.stop() == 0
        assert (await view(reader)).told == found.told
    assert sorted(told for told in found.told if told[0] != "received") == [
        ("changed", 2),
        ("changed", 4),
        ("changed", 6),
        ("changed", 9),
        ("removed", 3),
        ("removed", 5),
        ("removed", 7),
        ("removed", 10),
    ]


@pytest.mark.fault("A14")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("habit", HABITS)
async def test_killed_again_and_again_among_thousands_of_changes_each_is_told_once(
    dovecot_that: Callable[[str], Dovecot], own_nats: NatsServer, mailbus: Maker, prefix: str, habit: str
) -> None:
    server, count = dovecot_that(habit), 3000
    await server.append(prefix, [b"Subject: %d\r\n\r\nx\r\n" % n for n in range(count)])
    one = mailbus(settings_for(own_nats.url, prefix, imap_account(server, prefix)))
    one.start()
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    async with reading(own_nats.url, prefix) as reader:
        await reader.wait_received(count)
        # More than a thousand events later a snapshot is there, and what follows starts from it.
        one.kill()
        await act(
            server,
            prefix,
            ("STORE", "1:2500", "+FLAGS", r"(\Seen)"),
            ("STORE", "100:199,2900:2950", "+FLAGS", r"(\Deleted)"),
            ("EXPUNGE",),
        )
        changed, removed = 2400, 151
        kills = 0
        while kills < 12:
            one.start()
            await one.started()
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            one.kill()
            kills += 1
            if await told(reader, prefix) >= changed + removed:
                break
        one.start()
        await one.started()
        await until_told(reader, prefix, changed + removed)
        assert await one.stop() == 0
        found = await view(reader)
    gone = {*range(100, 200), *range(2900, 2951)}
    assert found.messages == {
        n: frozenset({"$seen"} if n <= 2500 else ()) for n in range(1, count + 1) if n not in gone
    }
    assert len(found.told) == count + changed + removed


async def told(reader: BusReader, prefix: str) -> int:
    return await reader.count(f"{prefix}.in.*.*.changed") + await reader.count(f"{prefix}.in.*.*.removed")


async def until_told(reader: BusReader, prefix: str, count: int) -> None:
    for _ in range(600):
        if await told(reader, prefix) >= count:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{await told(reader, prefix)} of {count} changes are told")


def put(server: ImapServer, user: str, numbers: range, date: str) -> None:
    """Mail into `Box`, which is made where it is not there."""
    with server.client(user) as client:
        if client.list(pattern="Box")[1] == [None]:
            client.create("Box")
        for n in numbers:
            client.append("Box", "", f'"{date}"', mail(n))


def change(server: ImapServer, user: str, _date: str) -> None:
    """One of the announced is read, the other goes, and one that was there before."""
    with server.client(user) as client:
        client.select("Box")
        client.uid("STORE", "6", "+FLAGS", r"(\Seen)")
        client.uid("STORE", "1,7", "+FLAGS", r"(\Deleted)")
        client.expunge()


def make_again(server: ImapServer, user: str, date: str) -> None:
    """The mailbox numbered anew, without its first two, with one that came meanwhile."""
    server.make_again(user, "Box")
    put(server, user, range(3, 9), date)


@pytest.mark.fault("D01", "A14", "A05")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("disturb", "kinds", "steps_wanted"),
    [
        (change, ["reset", "received", "received", "changed", "removed"], {"compare.done", "commit.answered"}),
        (make_again, ["reset", "received", "received", "reset", "received"], {"state.before", "state.done"}),
    ],
)
async def test_ended_at_every_step_it_goes_on_as_if_nothing_had_been(
    dovecot: Dovecot,
    own_nats: NatsServer,
    mailbus: Maker,
    prefix: str,
    tmp_path: Path,
    disturb: Callable[[ImapServer, str, str], None],
    kinds: list[str],
    steps_wanted: set[str],
) -> None:
    date = datetime.now(UTC).strftime("%d-%b-%Y %H:%M:%S +0000")
    steps = tmp_path / "steps"

    async def trial(own: str, **env: str) -> tuple[list[object], int | None]:
        """Two mails, a stop, a disturbance; then a start that ends at its step, and another."""
        user, code = f"{prefix}{own}", None
        await asyncio.to_thread(put, dovecot, user, range(1, 6), date)
        account = imap_account(dovecot, user, mailboxes=["Box"], initial="new")
        one = mailbus(settings_for(own_nats.url, own, account, instance=own))
        async with reading(own_nats.url, own) as reader:
            one.start()
            await until(lambda: connected(one))
            await asyncio.to_thread(put, dovecot, user, range(6, 8), date)
            await reader.wait_received(2)
            assert await one.stop() == 0
            await asyncio.to_thread(disturb, dovecot, user, date)
            one.start(**env)
            await until(lambda: one.exited is not None or connected(one))
            if one.exited is None:
                await one.stop()  # the last steps belong to the stop itself
            code = one.exited
            one.start()
            await until(lambda: connected(one))
            events = await reader.events()
            assert await one.stop() == 0
            View().read(events)
            for stream in ("IN", "OUT", "LATER", "STATUS", "DEAD"):
                await reader.nc.jetstream().delete_stream(f"{own.upper()}_{stream}")
        told = [(e.kind, e.body.get("subject"), e.body.get("keywords"), e.body.get("reason")) for e in events]
        assert [one[0] for one in told] == kinds, own
        return list(told), code

    clean, _ = await trial("clean", MAILBUS_STEPS_LOG=str(steps))
    names = steps.read_text().splitlines()
    assert steps_wanted <= set(names)
    places = asyncio.Semaphore(3)

    async def in_turn(number: int) -> None:
        async with places:
            told, code = await trial(f"s{number}", MAILBUS_STOP_AT=str(number))
            assert told == clean, names[number - 1]
            assert code == STOP_EXIT_CODE, names[number - 1]

    async with asyncio.TaskGroup() as group:
        for number in range(1, len(names) + 1):
            group.create_task(in_turn(number))
