"""Keys with compare-and-set. Real server; nats-py's own client as the other side."""

import asyncio

import pytest

from service.bus import Bus, Conflict
from service.bus.errors import MessageTooLarge, js_api
from service.bus.kv import READ_AT_ONCE, Entry
from service.errors import Permanent, Transient
from tests.bus.conftest import opened
from tests.servers.nats import NatsServer


async def test_many_keys_are_read_at_once_in_their_order_without_those_that_are_not_there(bus: Bus) -> None:
    keys = bus.key_value(bus.subjects.cursors)
    names = [f"k{n}" for n in range(3 * READ_AT_ONCE)]
    for name in names[::2]:
        await keys.create(name, name.encode())
    await keys.delete(names[0])
    found = await keys.get_all(names)
    assert [(name, entry.value) for name, entry in found.items()] == [(name, name.encode()) for name in names[2::2]]
    assert await keys.get_all([]) == {}


async def test_create_update_delete_and_their_conflicts(bus: Bus) -> None:
    keys = bus.key_value(bus.subjects.cursors)
    assert await keys.get("k") is None
    first = await keys.create("k", b"1")
    with pytest.raises(Conflict):
        await keys.create("k", b"x")
    second = await keys.update("k", b"2", first)
    assert second > first
    with pytest.raises(Conflict):
        await keys.update("k", b"x", first)
    entry = await keys.get("k")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"2", second)
    await keys.delete("k")
    assert await keys.get("k") is None
    with pytest.raises(Conflict):
        await keys.update("k", b"x", second)
    third = await keys.create("k", b"3")
    assert third > second
    with pytest.raises(Conflict):
        await keys.remove("k", second)
    await keys.remove("k", third)
    assert await keys.get("k") is None


@pytest.mark.fault("D06")
async def test_of_two_writers_of_one_revision_one_wins(bus: Bus, nats_server: NatsServer) -> None:
    keys = bus.key_value(bus.subjects.sends)
    revision = await keys.create("k", b"0")
    async with opened(nats_server.url, bus.subjects.prefix, streams=None) as other:
        theirs = other.key_value(other.subjects.sends)
        revision = await theirs.update("k", b"theirs", revision)
        with pytest.raises(Conflict):
            await keys.update("k", b"ours", revision - 1)
    entry = await keys.get("k")
    assert entry is not None
    assert entry.value == b"theirs"


async def test_an_ordinary_client_reads_ours_and_deletes_so_that_we_see_it(bus: Bus) -> None:
    keys = bus.key_value(bus.subjects.cursors)
    await keys.create("k", b"1")
    theirs = await bus.nc.jetstream().key_value(bus.subjects.cursors)
    assert (await theirs.get("k")).value == b"1"
    for remove in (theirs.delete, theirs.purge):
        await remove("k")
        assert await keys.get("k") is None
        await keys.create("k", b"2")


@pytest.mark.fault("G07", "G11")
@pytest.mark.parametrize("key", ["", "a b", "*", ">", "a.>", "a\r\n", ".a", "x" * 5000])
async def test_a_key_that_is_none_is_refused(bus: Bus, key: str) -> None:
    keys = bus.key_value(bus.subjects.cursors)
    for call in (keys.get(key), keys.create(key, b""), keys.update(key, b"", 1), keys.delete(key)):
        with pytest.raises(Permanent):
            await call


@pytest.mark.fault("D08")
async def test_a_bucket_that_is_gone_is_transient_not_empty(own_bus: Bus) -> None:
    keys = own_bus.key_value(own_bus.subjects.cursors)
    await keys.create("k", b"1")
    for name in ("KV_mail-cursors", "MAIL_IN", "OBJ_mail-blobs"):
        await js_api(own_bus.nc, f"STREAM.DELETE.{name}")
    for call in (keys.get("k"), own_bus.log.tail("mail.in.a.INBOX.*"), own_bus.log.get(1), own_bus.blobs().exists("x")):
        with pytest.raises(Transient, match="stream not found"):
            await call


@pytest.mark.fault("D12")
async def test_a_value_that_nats_would_not_take_is_refused_before_it_is_sent(bus: Bus) -> None:
    keys = bus.key_value(bus.subjects.cursors)
    revision = await keys.create("k", b"x" * (bus.max_payload - 400))
    for write in (keys.create("new", b"x" * bus.max_payload), keys.update("k", b"x" * bus.max_payload, revision)):
        with pytest.raises(MessageTooLarge):
            await write
    assert (await keys.get("k"), bus.nc.stats["reconnects"]) == (Entry(b"x" * (bus.max_payload - 400), revision), 0)


async def test_more_keys_than_nats_lists_at_once_are_all_there(bus: Bus) -> None:
    """It lists 100,000."""
    count = 100_500
    for n in range(count):
        await bus.nc.publish(f"$KV.{bus.subjects.suppressions}.a.{n}", b"x")
    stream = f"KV_{bus.subjects.suppressions}"
    async with asyncio.timeout(120):
        while int((await bus.stream_state(stream)).split()[1]) < count:  # noqa: ASYNC110 nothing rings
            await asyncio.sleep(0.1)
    keys = await bus.key_value(bus.subjects.suppressions).keys("a.*")
    assert len(keys) == len(set(keys)) == count
    subject = f"$KV.{bus.subjects.suppressions}.>"
    assert await bus.pending(stream, subject) == count
    assert len(await bus.queued(stream, subject)) == count
    pages = [page async for page in bus.queue(stream).subjects(subject)]
    assert [len(page) for page in pages] == [100_000, 500]


async def test_what_goes_while_keys_are_listed_hides_none_that_stays(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lists three at once, of which the first has gone by the next page."""
    there = ["a", "b", "c", "d", "e", "f", "g"]

    async def answer(_nc: object, _subject: str, request: dict[str, int]) -> dict[str, object]:
        page, total = there[request["offset"] :][:3], len(there)
        if request["offset"] == 0:
            del there[0]
        return {"state": {"subjects": dict.fromkeys(page, 1)}, "total": total}

    monkeypatch.setattr("service.bus.errors.js_api", answer)
    assert await bus.queued("S", ">") == ["a", "b", "c", "d", "e", "f", "g"]
