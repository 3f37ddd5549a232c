"""Unique ids that are missing, doubled, all changed or shown again: nothing is announced twice, nothing is merged."""

import pytest

from service.bus import Bus
from tests.ingest.maildrop import LONG_AGO, Drop, body, caught_up, following, ids, kinds, mail, resets, run, subjects
from tests.pop3.harness import answering
from tests.servers.mailbus import BusReader, until
from tests.servers.pop3_stub import Mail, Pop3Stub


def without_uidl(stub: Pop3Stub) -> None:
    stub.capabilities = "TOP USER PIPELINING"
    stub.hooks["UIDL"] = answering("-ERR what?\r\n")


@pytest.mark.fault("B03")
@pytest.mark.parametrize("uidls", ["none", "empty", "double", "long", "endless"])
async def test_without_good_unique_ids_a_message_is_known_by_its_content(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, uidls: str
) -> None:
    if uidls == "none":
        without_uidl(pop3_stub)
    named = {"none": "x", "empty": "", "double": "same", "long": "x" * 71, "endless": "x" * 5000}[uidls]

    def one(number: int) -> Mail:
        return Mail(named, body(number))

    # Two that are the same byte by byte are two.
    pop3_stub.mails = [one(1), one(2), one(2)]
    drop = await run(bus, pop3_stub)
    pop3_stub.mails = [one(2), one(3), one(2)]
    await run(bus, pop3_stub)
    pop3_stub.mails = [one(3), one(2)]
    await run(bus, pop3_stub)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 2", "mail 3"]
    received = ids(events)
    # Of several with one id the first has it, whichever it is.
    gone = [received[2], received[3]] if uidls == "double" else [received[0], received[2]]
    assert ids(events, "removed") == gone
    assert "no unique id" in drop.alarms[0].what


@pytest.mark.fault("B03")
async def test_an_id_that_is_doubled_later_or_not_any_more_announces_nothing_twice(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    one, two, three = (Mail("same", body(n)) for n in (1, 2, 3))
    for there in ([one], [one, two], [one, two, three], [two, three], [three]):
        pop3_stub.mails = there
        await run(bus, pop3_stub)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    assert kinds(events).count("removed") == 2


@pytest.mark.fault("B03")
async def test_what_has_no_unique_id_is_read_again_only_where_the_listing_changed(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    without_uidl(pop3_stub)
    pop3_stub.mails = [mail(1)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await caught_up(drop)
        pop3_stub.commands.clear()
        await caught_up(drop)
        await caught_up(drop)
        assert not any(line.startswith("RETR") for line in pop3_stub.commands)


@pytest.mark.fault("B02", "B03")
async def test_unique_ids_that_the_server_has_and_does_not_tell_for_once_are_waited_for(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        await caught_up(drop)
        pop3_stub.commands.clear()
        pop3_stub.hooks["UIDL"] = answering("-ERR try again\r\n")
        await until(lambda: bool(drop.states))
        pop3_stub.hooks.clear()
        pop3_stub.mails.append(mail(3))
        await reader.wait_received(3)
    events = await reader.events()
    assert resets(events) == ["start"]
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    assert [line for line in pop3_stub.commands if line.startswith("RETR")] == ["RETR 3"]
    assert not drop.alarms


@pytest.mark.fault("B04")
async def test_when_all_unique_ids_change_a_reset_is_said_and_known_mail_is_not_announced_again(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(n, LONG_AGO) for n in range(1, 4)]
    await run(bus, pop3_stub, initial="new")
    pop3_stub.mails += [mail(4), mail(5)]
    await run(bus, pop3_stub, initial="new")
    # Another server: in another order, one less, one more.
    moved = [pop3_stub.mails[n] for n in (4, 0, 2, 3)] + [mail(6)]
    pop3_stub.mails = [Mail(f"other-{n}", one.body) for n, one in enumerate(moved)]
    drop = await run(bus, pop3_stub, initial="new")
    await run(bus, pop3_stub, initial="new")
    pop3_stub.mails.append(Mail("other-7", body(7)))
    await run(bus, pop3_stub, initial="new")
    events = await reader.events()
    assert resets(events) == ["start", "uidvalidity"]
    assert subjects(events) == ["mail 4", "mail 5", "mail 6", "mail 7"]
    assert "all unique ids" in drop.alarms[0].what


@pytest.mark.fault("B04")
async def test_all_unique_ids_change_while_the_maildrop_is_followed(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port, initial="new")) as drop:
        await caught_up(drop)
        pop3_stub.mails = [Mail(f"other-{n}", one.body) for n, one in enumerate(pop3_stub.mails)]
        pop3_stub.mails.append(mail(3))
        await reader.wait_received(1)
        await caught_up(drop)
    events = await reader.events()
    assert resets(events) == ["start", "uidvalidity"]
    assert subjects(events) == ["mail 3"]


@pytest.mark.fault("B04")
async def test_new_mail_after_an_empty_maildrop_is_no_other_maildrop(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        pop3_stub.mails = []
        await caught_up(drop)
        await caught_up(drop)
        pop3_stub.mails = [mail(3)]
        await reader.wait_received(3)
    pop3_stub.mails = [mail(4)]
    await run(bus, pop3_stub)
    events = await reader.events()
    assert resets(events) == ["start"]
    assert subjects(events) == ["mail 1", "mail 2", "mail 3", "mail 4"]
    assert not drop.alarms
    assert not drop.states


@pytest.mark.fault("B08")
async def test_mail_that_is_hidden_and_shown_again_is_not_announced_again(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    mails = [mail(1), mail(2), mail(3)]
    for shown in ([0, 1], [1], [0, 1, 2], [], [0, 1, 2]):
        pop3_stub.mails = [mails[n] for n in shown]
        await run(bus, pop3_stub)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    assert resets(events) == ["start"]


@pytest.mark.fault("B03")
async def test_another_mail_under_the_unique_id_of_one_that_was_told_to_be_gone_is_announced(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader
) -> None:
    other = Mail("uidl-1", body(3))
    pop3_stub.mails = [mail(1), mail(2)]
    async with following(bus, Drop(pop3_stub.port)) as drop:
        await reader.wait_received(2)
        await caught_up(drop)
        for there in ([mail(2)], [mail(1), mail(2)], [mail(2)]):
            pop3_stub.mails = there
            await caught_up(drop)
            await caught_up(drop)
        pop3_stub.mails = [mail(2), other]
        await reader.wait_received(3)
        for there in ([mail(2)], [other, mail(2)]):
            pop3_stub.mails = there
            await caught_up(drop)
            await caught_up(drop)
    events = await reader.events()
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    assert resets(events) == ["start"]
    assert not drop.alarms
