"""Blobs: stored once, found again, whole or an error. Real server."""

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.bus import Bus
from service.bus.blobs import CHUNK_LIMIT_BYTES
from service.bus.errors import js_api
from service.contract import Blob, blob_id
from service.errors import Permanent, Transient
from tests.bus.conftest import opened, stream_config, until
from tests.servers.nats import NatsServer
from tests.servers.proxy import FaultProxy, Way

NOW = datetime(2026, 11, 24, tzinfo=UTC)


async def subjects(bus: Bus, bucket: str | None = None) -> dict[str, int]:
    """What the bucket's stream holds, by subject."""
    name = f"OBJ_{bucket or bus.subjects.blobs}"
    info = await js_api(bus.nc, f"STREAM.INFO.{name}", {"subjects_filter": ">"})
    found: dict[str, int] = info["state"].get("subjects") or {}
    return found


async def orphans(bus: Bus) -> int:
    """Chunk sets that no meta names, and metas whose chunks are not there."""
    held = await subjects(bus)
    chunk_sets = {subject.rpartition(".")[2] for subject in held if ".C." in subject}
    named = set()
    for subject in held:
        if ".M." in subject:
            request = {"last_by_subj": subject}
            answer = await js_api(bus.nc, f"STREAM.MSG.GET.OBJ_{bus.subjects.blobs}", request)
            meta = json.loads(base64.b64decode(answer["message"]["data"]))
            if meta["chunks"]:
                named.add(meta["nuid"])
    return len(chunk_sets ^ named)


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_LIMIT_BYTES - 1, CHUNK_LIMIT_BYTES, CHUNK_LIMIT_BYTES + 1, 20 * CHUNK_LIMIT_BYTES + 7]
)
async def test_what_is_put_is_got(bus: Bus, size: int) -> None:
    data = os.urandom(size)
    id = await bus.blobs().put(data, now=NOW)
    assert id == f"202611-{hashlib.sha256(data).hexdigest()}"
    assert await bus.blobs().get(id) == data
    assert await bus.blobs().exists(id)


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [0, 1, CHUNK_LIMIT_BYTES, 5 * CHUNK_LIMIT_BYTES + 7])
async def test_what_comes_in_pieces_is_what_comes_at_once(bus: Bus, size: int) -> None:
    data, store = os.urandom(size), bus.blobs()
    id = await store.put_pieces(pieces_of(data, 100_000), now=NOW)
    assert id == await store.put(data, now=NOW)
    assert await store.get(id) == data
    store.forget()
    # The same again leaves nothing beside what is there.
    assert await store.put_pieces(pieces_of(data, 70_000), now=NOW) == id
    assert await orphans(bus) == 0
    got = await (await bus.nc.jetstream().object_store(bus.subjects.blobs)).get(id)
    assert (got.data or b"") == data


async def test_pieces_that_end_too_soon_leave_nothing(bus: Bus) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield os.urandom(3 * CHUNK_LIMIT_BYTES)
        raise Transient("lost", where="there")

    before = await subjects(bus)
    with pytest.raises(Transient, match="lost"):
        await bus.blobs().put_pieces(broken(), now=NOW)
    assert await subjects(bus) == before


async def test_an_ordinary_object_store_client_reads_it(bus: Bus) -> None:
    data = os.urandom(300_000)
    id = await bus.blobs().put(data, now=NOW)
    store = await bus.nc.jetstream().object_store(bus.subjects.blobs)
    got = await store.get(id)
    assert got.data == data
    assert got.info.name == id


@pytest.mark.fault("D10")
async def test_equal_content_is_one_object_within_a_period_and_another_in_the_next(
    bus: Bus, nats_server: NatsServer
) -> None:
    first = await bus.blobs().put(b"same", now=NOW)
    before = await subjects(bus)
    async with opened(nats_server.url, bus.subjects.prefix) as other:
        assert await other.blobs().put(b"same", now=NOW.replace(day=1)) == first
    assert await bus.blobs().put(b"same", now=NOW) == first
    assert await subjects(bus) == before
    later = await bus.blobs().put(b"same", now=NOW.replace(month=12))
    assert later != first
    assert later.startswith("202612-")
    assert len(await subjects(bus)) == 2 * len(before)


@pytest.mark.fault("D11")
@pytest.mark.parametrize("size", [10, 5 * CHUNK_LIMIT_BYTES])
async def test_writers_of_one_blob_leave_one_object_and_readers_read_it_meanwhile(
    bus: Bus, nats_server: NatsServer, size: int
) -> None:
    async with opened(nats_server.url, bus.subjects.prefix) as other:
        for _ in range(8):
            data = os.urandom(size)
            id = f"202611-{hashlib.sha256(data).hexdigest()}"

            async def read(expected: bytes, id: str) -> None:
                while not await bus.blobs().exists(id):  # noqa: ASYNC110 the server rings no bell
                    await asyncio.sleep(0)
                assert await bus.blobs().get(id) == expected

            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(read(data, id))
                for writer in (bus, other, bus, other):
                    group.create_task(writer.blobs().put(data, now=NOW))
    assert await orphans(bus) == 0
    assert len([subject for subject in await subjects(bus) if ".M." in subject]) == 8


@pytest.mark.fault("D09")
async def test_a_put_that_was_cut_short_is_made_whole_by_the_next(
    bus: Bus, nats_server: NatsServer, fault_proxy: Callable[[str, int], Awaitable[FaultProxy]]
) -> None:
    data = os.urandom(10 * CHUNK_LIMIT_BYTES)
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    async with opened(f"nats://127.0.0.1:{proxy.port}", bus.subjects.prefix, streams=None) as behind:
        await behind.blobs().exists("202611-none")
        proxy.cut_after(4 * CHUNK_LIMIT_BYTES, Way.TO_SERVER)
        with pytest.raises(Transient):
            await behind.blobs().put(data, now=NOW)
        assert not await bus.blobs().exists(f"202611-{hashlib.sha256(data).hexdigest()}")
        await until(lambda: behind.connected)
        id = await behind.blobs().put(data, now=NOW)
    assert await bus.blobs().get(id) == data


@pytest.mark.fault("D09")
async def test_a_put_whose_answer_was_lost_is_reused(
    bus: Bus,
    nats_server: NatsServer,
    fault_proxy: Callable[[str, int], Awaitable[FaultProxy]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.bus.window.REQUEST_TIMEOUT_S", 0.5)
    proxy = await fault_proxy("127.0.0.1", nats_server.port)
    async with opened(f"nats://127.0.0.1:{proxy.port}", bus.subjects.prefix, streams=None) as behind:
        await behind.blobs().exists("202611-none")

        def lose(way: Way, chunk: bytes) -> bytes:
            if way is Way.TO_SERVER and b".M." in chunk and b"HPUB" in chunk:
                proxy.swallow(Way.TO_CLIENT)
            return chunk

        proxy.watch = lose
        with pytest.raises(Transient):
            await behind.blobs().put(b"x" * 1000, now=NOW)
        proxy.heal()
    before = await subjects(bus)
    id = await bus.blobs().put(b"x" * 1000, now=NOW)
    assert await subjects(bus) == before
    assert await bus.blobs().get(id) == b"x" * 1000
    assert await orphans(bus) == 0


@pytest.mark.fault("D09", "D13")
async def test_a_server_that_stands_still_makes_a_large_put_transient(
    own_nats: NatsServer, own_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bus.window.REQUEST_TIMEOUT_S", 0.3)
    monkeypatch.setattr("service.bus.errors.REQUEST_TIMEOUT_S", 0.3)
    own_nats.pause()
    with pytest.raises(Transient):
        await own_bus.blobs().put(os.urandom(5 * CHUNK_LIMIT_BYTES), now=NOW)
    own_nats.resume()


@pytest.mark.fault("D09")
async def test_after_a_break_nothing_is_believed_to_be_there(own_nats: NatsServer, own_bus: Bus) -> None:
    # The server may have come back from an older snapshot.
    id = await own_bus.blobs().put(b"once", now=NOW)
    await own_nats.restart()
    await until(lambda: not own_bus.connected)
    await until(lambda: own_bus.connected)
    name = f"OBJ_{own_bus.subjects.blobs}"
    await js_api(own_bus.nc, f"STREAM.PURGE.{name}")
    assert await own_bus.blobs().put(b"once", now=NOW) == id
    assert await own_bus.blobs().get(id) == b"once"


async def test_a_blob_that_was_deleted_is_stored_again(bus: Bus) -> None:
    id = await bus.blobs().put(b"gone", now=NOW)
    await bus.blobs().delete(id)
    assert not await bus.blobs().exists(id)
    assert await subjects(bus) == {}
    await bus.blobs().delete(id)
    assert await bus.blobs().put(b"gone", now=NOW) == id
    # As `nats object rm` does: a meta that says deleted.
    store = await bus.nc.jetstream().object_store(bus.subjects.blobs)
    await store.delete(id)
    bus.blobs().forget()
    assert not await bus.blobs().exists(id)
    assert await bus.blobs().put(b"gone", now=NOW) == id
    assert await bus.blobs().get(id) == b"gone"


async def test_a_blob_that_is_not_there_is_permanent(bus: Bus) -> None:
    for id in ("202611-" + "0" * 64, "", "x" * 5000, "a b\r\n>"):
        with pytest.raises(Permanent, match="no blob"):
            await bus.blobs().get(id)


@pytest.mark.fault("D15")
async def test_a_full_bucket_is_transient_with_its_code(bus: Bus) -> None:
    name = f"OBJ_{bus.subjects.blobs}"
    config: dict[str, Any] = await stream_config(bus, name)
    await js_api(bus.nc, f"STREAM.UPDATE.{name}", config | {"max_bytes": 300_000})
    await bus.blobs().put(os.urandom(10), now=NOW)
    with pytest.raises(Transient, match="10077"):
        await bus.blobs().put(os.urandom(10 * CHUNK_LIMIT_BYTES), now=NOW)


def blobs_of(*contents: bytes) -> list[Blob]:
    return [Blob(blob_id(hashlib.sha256(content).digest(), NOW), content) for content in contents]


async def test_many_blobs_are_stored_together_and_each_can_be_read(bus: Bus) -> None:
    contents = [b"", b"one", b"two", b"one", b"x" * 300_000, *(f"{n}".encode() * 1000 for n in range(600))]
    blobs = blobs_of(*contents)
    await bus.blobs().put_all(blobs, now=NOW)
    assert [await bus.blobs().get(blob.id) for blob in blobs[:20]] == contents[:20]
    assert len([subject for subject in await subjects(bus) if ".M." in subject]) == len(set(contents))
    assert await orphans(bus) == 0


@pytest.mark.fault("D09")
async def test_where_one_of_many_is_there_already_the_others_are_stored_all_the_same(bus: Bus) -> None:
    first, logo, last = blobs_of(b"first", b"logo", b"last")
    assert await bus.blobs().put(b"logo", now=NOW) == logo.id
    bus.blobs().forget()
    await bus.blobs().put_all([first, logo, last], now=NOW)
    assert [await bus.blobs().get(blob.id) for blob in (first, logo, last)] == [b"first", b"logo", b"last"]
    assert len(await subjects(bus)) == 6
    assert await orphans(bus) == 0


@pytest.mark.parametrize("left", [0, 1])
async def test_a_blob_whose_chunks_are_not_all_there_is_none_and_not_nats_being_away(bus: Bus, left: int) -> None:
    """Whoever needs it would wait for ever, and all that waits behind him."""
    store = bus.blobs()
    id = await store.put(os.urandom(2 * CHUNK_LIMIT_BYTES), now=NOW)
    request = {"filter": f"$O.{bus.subjects.blobs}.C.>", "keep": left}
    await js_api(bus.nc, f"STREAM.PURGE.OBJ_{bus.subjects.blobs}", request)
    with pytest.raises(Permanent):
        await store.get(id)


@pytest.mark.fault("D09")
async def test_chunks_that_no_object_names_are_swept_once_they_are_old(bus: Bus) -> None:
    store = bus.blobs()
    ids = [await store.put(os.urandom(2 * CHUNK_LIMIT_BYTES), now=NOW) for _ in range(3)]
    left = f"$O.{bus.subjects.blobs}.C.LEFTBYAPROCESSTHATDIED"
    await bus.publish(left, b"half")
    now = datetime.now(UTC)
    assert await store.sweep(now=now) == 0
    assert await store.sweep(now=now + timedelta(hours=2)) == 0  # not twice a day
    assert left in await subjects(bus)
    assert await store.sweep(now=now + timedelta(hours=26)) == 1
    assert left not in await subjects(bus)
    assert await orphans(bus) == 0
    assert [len(await store.get(id)) for id in ids] == [2 * CHUNK_LIMIT_BYTES] * 3
