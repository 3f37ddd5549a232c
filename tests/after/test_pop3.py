"""Deleting from a maildrop: what is confirmed, once the server said so; over broken sessions and kills at any step."""

import asyncio
import sys
from dataclasses import replace

import pytest

from service.bus import Bus
from tests.ingest.maildrop import DELETE, LONG_AGO, Drop, caught_up, following, mail, subjects
from tests.pop3.harness import answering, cutting
from tests.servers.bus import bus_at
from tests.servers.mailbus import BusReader, Event, reading, until
from tests.servers.nats import NatsServer
from tests.servers.pop3_stub import Mail, Pop3Connection, Pop3Stub
from tests.servers.scripted import serving


class Killed(BaseException):
    """The process ends here."""


def deleting(stub: Pop3Stub, **options: object) -> Drop:
    return replace(Drop(stub.port, after=DELETE), **options)  # type: ignore[arg-type]


async def emptied(stub: Pop3Stub) -> None:
    await until(lambda: not stub.mails, what=f"{stub.uidls}")


def told(events: list[Event], account: str = "drop") -> list[tuple[str, str | None]]:
    own = [event for event in events if f".in.{account}." in event.subject]
    names = {event.body["id"]: event.body["subject"] for event in own if event.kind == "received"}
    return [(event.kind, names.get(event.body.get("id", ""))) for event in own]


async def test_deleted_is_what_was_announced_and_no_other(pop3_stub: Pop3Stub, bus: Bus, reader: BusReader) -> None:
    pop3_stub.mails = [mail(1, LONG_AGO), mail(2, LONG_AGO)]
    async with following(bus, deleting(pop3_stub, initial="new", message_limit=10_000)) as drop:
        await caught_up(drop)
        large = Mail("large", b"Subject: large\r\n\r\n" + b"x" * 50_000 + b"\r\n")
        pop3_stub.mails += [mail(3), large, mail(4)]
        await until(lambda: pop3_stub.uidls == ["uidl-1", "uidl-2", "large"])
        await caught_up(drop)
        await caught_up(drop)
    events = await reader.events()
    assert subjects(events) == ["mail 3", "large", "mail 4"]
    assert sorted(name or "" for kind, name in told(events) if kind == "removed") == ["mail 3", "mail 4"]
    assert not drop.alarms


async def test_what_is_to_be_kept_for_a_while_stays_until_then(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1)]
    async with following(bus, deleting(pop3_stub, delay_s=3600.0)) as drop:
        await reader.wait_received(1)
        await caught_up(drop)
        await caught_up(drop)
        assert pop3_stub.uidls == ["uidl-1"]
        assert not any(line.startswith("DELE") for line in pop3_stub.commands)
    async with following(bus, deleting(pop3_stub)):
        await emptied(pop3_stub)


@pytest.mark.fault("B01")
@pytest.mark.parametrize("how", ["cut before", "cut after", "refused", "cut at DELE"])
async def test_a_broken_session_repeats_the_deletion_and_never_the_announcement(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, how: str
) -> None:
    pop3_stub.mails = [mail(n) for n in (1, 2, 3)]
    left = 3

    def once() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    async def quit_(connection: Pop3Connection, arguments: str) -> bool:
        if not connection.marked or not once():
            return False
        if how == "refused":
            await connection.send("-ERR some deleted messages not removed\r\n")
        elif how == "cut after":
            await pop3_stub.behave(connection, "QUIT", "")
        connection.cut()
        return True

    if how == "cut at DELE":
        pop3_stub.hooks["DELE"] = cutting(once)
    else:
        pop3_stub.hooks["QUIT"] = quit_
    async with following(bus, deleting(pop3_stub)) as drop:
        await emptied(pop3_stub)
        await caught_up(drop)
        await caught_up(drop)
    # What was done although nobody heard of it is found done at once.
    assert left == 2 if how == "cut after" else left < 0
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    assert sorted(name or "" for kind, name in told(events) if kind == "removed") == ["mail 1", "mail 2", "mail 3"]


async def test_a_message_that_the_server_will_not_delete_holds_up_no_other(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(n) for n in (1, 2, 3)]

    async def dele(connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        if connection.drop[int(arguments) - 1].uidl != "uidl-2":
            return False
        await connection.send("-ERR no\r\n")
        return True

    pop3_stub.hooks["DELE"] = dele
    async with following(bus, deleting(pop3_stub)) as drop:
        await until(lambda: pop3_stub.uidls == ["uidl-2"])
        await until(lambda: bool(drop.alarms))
    assert "the server refuses to delete it" in drop.alarms[0].what


@pytest.mark.fault("B06")
@pytest.mark.parametrize("verb", ["TOP", "DELE"])
async def test_a_message_that_breaks_each_connection_in_hand_holds_up_no_other(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, verb: str
) -> None:
    pop3_stub.mails = [mail(n) for n in range(1, 6)]

    async def breaks(connection: Pop3Connection, arguments: str) -> bool:
        assert connection.drop is not None
        if connection.drop[int(arguments.partition(" ")[0]) - 1].uidl != "uidl-2":
            return False
        connection.cut()
        return True

    pop3_stub.hooks[verb] = breaks
    async with following(bus, deleting(pop3_stub)) as drop:
        await until(lambda: pop3_stub.uidls == ["uidl-2"])
        await until(lambda: bool(drop.alarms))
    assert len(await reader.received()) == 5


@pytest.mark.fault("B03")
async def test_without_unique_ids_the_message_that_is_meant_is_deleted(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.capabilities = "TOP USER"
    pop3_stub.hooks["UIDL"] = answering("-ERR what?\r\n")
    pop3_stub.mails = [mail(1, LONG_AGO), mail(2, LONG_AGO)]
    async with following(bus, deleting(pop3_stub, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.mails.insert(1, mail(3))
        await until(lambda: pop3_stub.uidls == ["uidl-1", "uidl-2"] and "DELE 2" in pop3_stub.commands)
        await reader.wait_received(1)
    assert pop3_stub.uidls == ["uidl-1", "uidl-2"]


@pytest.mark.fault("B03")
@pytest.mark.parametrize("named", [True, False])
async def test_another_mail_under_the_unique_id_of_one_that_was_announced_stays(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, named: bool
) -> None:
    def one(number: int) -> Mail:
        message_id = b"Message-ID: <%d@x>\r\n" % number if named else b""
        return Mail(f"{number % 2}", message_id + b"Subject: mail %d\r\n\r\nx\r\n" % number)

    pop3_stub.mails = [one(1), one(2)]
    async with following(bus, deleting(pop3_stub, delay_s=3600.0)):
        await reader.wait_received(2)
    # Another client took the first away; what came has its unique id, and its size.
    pop3_stub.mails = [one(3), one(2)]
    async with following(bus, deleting(pop3_stub)) as drop:
        await until(lambda: pop3_stub.uidls == ["1"])
        await caught_up(drop)
        await caught_up(drop)
    assert pop3_stub.mails == [one(3)]
    assert not drop.alarms


@pytest.mark.fault("B03")
async def test_a_copy_by_way_of_a_list_under_the_unique_id_of_the_mail_that_was_announced_stays(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    def came_by(way: bytes) -> Mail:
        received = b"Received: from %b by b; Fri, 1 Jan 2021 10:00:00 +0000\r\n" % way
        return Mail("1@x", received + b"Message-ID: <1@x>\r\nSubject: mail 1\r\n\r\nx\r\nBy: %b\r\n" % way)

    pop3_stub.mails = [came_by(b"author")]
    async with following(bus, deleting(pop3_stub, delay_s=3600.0)):
        await reader.wait_received(1)
    # Another client took it away; its server makes unique ids of Message-IDs.
    copy = came_by(b"a-list")
    pop3_stub.mails = [copy, mail(2)]
    async with following(bus, deleting(pop3_stub)) as drop:
        await until(lambda: pop3_stub.uidls == ["1@x"])
        await caught_up(drop)
        await caught_up(drop)
    assert pop3_stub.mails == [copy]
    assert not drop.alarms


@pytest.mark.fault("B03")
async def test_a_mail_that_its_server_shows_otherwise_by_now_is_deleted(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [Mail("1", b"Message-ID:\r\n <1@x>\r\nSubject: mail 1\r\n\r\nx\r\n")]
    async with following(bus, deleting(pop3_stub, delay_s=3600.0)):
        await reader.wait_received(1)
    pop3_stub.mails[0].body = b"Status: RO\r\n" + pop3_stub.mails[0].body
    async with following(bus, deleting(pop3_stub)):
        await emptied(pop3_stub)
    assert len(await reader.received()) == 1


@pytest.mark.fault("B03")
async def test_where_one_unique_id_serves_for_each_mail_that_comes_alone_each_is_announced_and_deleted(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    async with following(bus, deleting(pop3_stub)) as drop:
        for number in (1, 2, 3):
            pop3_stub.mails = [Mail("same", mail(number).body)]
            await reader.wait_received(number)
            await emptied(pop3_stub)
    assert subjects(await reader.events()) == ["mail 1", "mail 2", "mail 3"]
    assert not drop.alarms


async def test_while_nats_is_away_the_maildrop_does_not_shrink(
    pop3_stub: Pop3Stub, own_nats: NatsServer, prefix: str
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with bus_at(own_nats.url, prefix) as bus:
        async with following(bus, deleting(pop3_stub, delay_s=1.0)):
            async with reading(own_nats.url, prefix) as reader:
                await reader.wait_received(2)
            await own_nats.stop()
            pop3_stub.mails.append(mail(3))
            await asyncio.sleep(1.5)  # by now it would be time, and the third would be read
            assert pop3_stub.uidls == ["uidl-1", "uidl-2", "uidl-3"]
            await own_nats.start()
            await emptied(pop3_stub)
        async with reading(own_nats.url, prefix) as reader:
            assert subjects(await reader.events()) == ["mail 1", "mail 2", "mail 3"]


@pytest.mark.fault("B01", "D01")
@pytest.mark.timeout(180)
async def test_ended_at_every_step_nothing_is_lost_and_nothing_announced_twice(
    bus: Bus, reader: BusReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    stop_at = 0

    def step(name: str) -> None:
        names.append(name)
        if len(names) == stop_at:
            raise Killed

    for module in list(sys.modules.values()):
        if module.__name__.startswith("service.") and hasattr(module, "step") and "observe" not in module.__name__:
            monkeypatch.setattr(module, "step", step)

    expected = {("received", "mail 1"), ("received", "mail 2"), ("removed", "mail 1"), ("removed", "mail 2")}

    async def trial(account: str) -> None:
        async with serving(Pop3Stub([mail(0, LONG_AGO)])) as stub:
            names.clear()
            came = False

            async def whole(drop: Drop) -> None:
                nonlocal came
                async with following(bus, drop):
                    await caught_up(drop)
                    if not came:
                        stub.mails += [mail(1), mail(2)]
                        came = True
                    await until(lambda: stub.uidls == ["uidl-0"], what=f"{stub.uidls}, {names}")
                    await caught_up(drop)
                    await caught_up(drop)

            if stop_at:
                with pytest.raises(BaseExceptionGroup) as ended:
                    await whole(deleting(stub, account=account, initial="new"))
                assert ended.group_contains(Killed)
                there = {f"mail {uidl.removeprefix('uidl-')}" for uidl in stub.uidls}
                on_the_bus = {name for kind, name in told(await reader.events(), account) if kind == "received"}
                # At no moment is something gone that is not on the bus.
                assert not came or {"mail 1", "mail 2"} <= on_the_bus | there
            await whole(deleting(stub, account=account, initial="new"))
            found = told(await reader.events(), account)
            assert found[0] == ("reset", None)
            assert len(found) == 5
            assert set(found[1:]) == expected

    await trial("clean")
    clean = list(names)
    assert {"state.done", "commit.done", "after.marked", "after.done"} <= set(clean)
    first = clean[: clean.index("after.done") + 1]
    for number in range(1, len(first) + 1):
        stop_at = number
        try:
            await trial(f"at{number}")
        except BaseException as exc:
            exc.add_note(f"ended at step {number}, {first[number - 1]}")
            raise
        finally:
            stop_at = 0
