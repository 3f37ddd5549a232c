"""What the log and its buckets can do to a maildrop: forget, go back in time, lose what was seen."""

import shutil

import pytest

from service.bus import Bus
from tests.ingest.maildrop import LONG_AGO, kinds, mail, resets, run, subjects
from tests.servers.bus import bus_at
from tests.servers.mailbus import BusReader, Event, reading
from tests.servers.nats import NatsServer
from tests.servers.pop3_stub import Mail, Pop3Stub


def own(events: list[Event]) -> list[Event]:
    return [event for event in events if ".drop." in event.subject]


async def fill(bus: Bus, prefix: str, count: int) -> None:
    """Other accounts' events."""
    for _ in range(count):
        await bus.publish(f"{prefix}.in.other.INBOX.received", b"{}")


@pytest.mark.fault("D06")
async def test_where_all_events_were_purged_by_hand_that_is_said_and_nothing_is_announced_twice(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, prefix: str
) -> None:
    pop3_stub.mails = [mail(1, LONG_AGO)]
    await run(bus, pop3_stub, initial="new")
    pop3_stub.mails += [mail(2), mail(3)]
    await run(bus, pop3_stub, initial="new")
    await fill(bus, prefix, 10)
    await reader.nc.jetstream().purge_stream(f"{prefix.upper()}_IN", subject=f"{prefix}.in.drop.>")
    drop = await run(bus, pop3_stub, initial="new")
    assert "cannot be recognised" in drop.alarms[0].what
    pop3_stub.mails.append(mail(4))
    await run(bus, pop3_stub, initial="new")
    events = own(await reader.events())
    assert resets(events) == ["uidvalidity"]
    assert subjects(events) == ["mail 4"]


@pytest.mark.fault("D07")
async def test_after_a_log_that_went_back_what_it_lost_is_announced_again_under_ids_of_its_own(
    pop3_stub: Pop3Stub, own_nats: NatsServer, prefix: str
) -> None:
    pop3_stub.mails = [mail(1, LONG_AGO), mail(2, LONG_AGO)]
    async with bus_at(own_nats.url, prefix) as bus:
        await run(bus, pop3_stub, initial="new")
        pop3_stub.mails.append(mail(3))
        await run(bus, pop3_stub, initial="new")
    await own_nats.stop()
    stream = next((own_nats.folder / "store").glob(f"jetstream/**/streams/{prefix.upper()}_IN"))
    snapshot = own_nats.folder / "snapshot"
    shutil.copytree(stream, snapshot)
    await own_nats.start()
    async with bus_at(own_nats.url, prefix) as bus, reading(own_nats.url, prefix) as reader:
        pop3_stub.mails += [mail(4), mail(5)]
        await run(bus, pop3_stub, initial="new")
        lost = {event.body["subject"]: event.body["id"] for event in await reader.received()}
    await own_nats.stop()
    shutil.rmtree(stream)
    shutil.copytree(snapshot, stream)
    await own_nats.start()
    # The fourth is deleted meanwhile: the next number must not be taken for its.
    pop3_stub.mails = [one for one in pop3_stub.mails if one.uidl != "uidl-4"] + [mail(6)]
    async with bus_at(own_nats.url, prefix) as bus, reading(own_nats.url, prefix) as reader:
        await fill(bus, prefix, 10)  # others publish past the copy's sequence first
        await run(bus, pop3_stub, initial="new")
        await run(bus, pop3_stub, initial="new")
        events = own(await reader.events())
    assert subjects(events) == ["mail 3", "mail 5", "mail 6"]
    again = {event.body["subject"]: event.body["id"] for event in events if event.kind == "received"}
    assert again["mail 3"] == lost["mail 3"]
    assert not {again["mail 5"], again["mail 6"]} & set(lost.values())


async def test_where_what_was_seen_is_lost_a_new_epoch_begins_and_mail_is_known_by_its_content(
    pop3_stub: Pop3Stub, bus: Bus, reader: BusReader, prefix: str
) -> None:
    pop3_stub.mails = [mail(1, LONG_AGO)]
    await run(bus, pop3_stub, initial="new")
    pop3_stub.mails += [mail(2), mail(3)]
    await run(bus, pop3_stub, initial="new")
    await reader.nc.jetstream().purge_stream(f"OBJ_{prefix}-state")
    pop3_stub.mails.append(mail(4))
    await run(bus, pop3_stub, initial="new")
    events = await reader.events()
    assert resets(events) == ["start", "uidvalidity"]
    assert subjects(events) == ["mail 2", "mail 3", "mail 4"]


async def test_another_user_is_another_maildrop(pop3_stub: Pop3Stub, bus: Bus, reader: BusReader) -> None:
    pop3_stub.mails = [mail(1), mail(2)]
    await run(bus, pop3_stub)
    # The same mail in another maildrop is known; what was there is not called removed.
    pop3_stub.mails = [Mail("a", mail(2).body), Mail("b", mail(3).body)]
    await run(bus, pop3_stub, user="another", initial="new")
    events = await reader.events()
    assert resets(events) == ["start", "source"]
    assert subjects(events) == ["mail 1", "mail 2", "mail 3"]
    assert "removed" not in kinds(events)
