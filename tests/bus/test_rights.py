"""Rights that are tried: each that is missing is named, and trying them changes nothing."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from service.bus import Bus, NatsOptions, StreamOptions, mailbus_permissions, wanted_streams
from service.bus.errors import js_api
from service.contract import Subjects
from service.errors import Permanent
from tests.bus.conftest import opened
from tests.servers.nats_documented import DocumentedNats

MAIL: Final = Subjects("mail")
STREAMS: Final = [config["name"] for config in wanted_streams(MAIL, StreamOptions(), 1)]
WANTED: Final = mailbus_permissions(MAIL)
# Those that are tried at a NATS that has all streams.
PUBLISH: Final = [one for one in WANTED.publish if "STREAM.CREATE" not in one]
LOGIN: Final = {"user": "mailbus", "password": "secret"}


class NarrowNats(DocumentedNats):
    """mailbus's user lacks what `lacks` says; `maker` may do everything."""

    lacks: tuple[str, ...] = ()

    def authorization(self) -> str:
        # A list without anything would permit everything.
        given = [[*(one for one in some if one not in self.lacks), "other"] for some in (WANTED.publish, heard())]
        listed = [", ".join(f'"{one}"' for one in some) for some in given]
        return (
            "authorization { users: [ { user: maker, password: secret }\n{ user: mailbus, password: secret, "
            f"permissions: {{ publish: [{listed[0]}], subscribe: [{listed[1]}] }} }} ] }}\n"
        )


def heard() -> list[str]:
    return list(WANTED.subscribe)


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[NarrowNats]:
    server = NarrowNats(tmp_path / "nats")
    yield server
    await server.kill()


async def start(server: NarrowNats, *lacks: str, made: bool = True) -> None:
    server.lacks = lacks
    await server.start()
    if made:
        async with opened(server.url, "mail", user="maker", password="secret"):
            pass


async def refused(server: NarrowNats, *missing: str) -> list[str]:
    """What is named as refused; nothing where all is permitted."""
    async with opened(server.url, "mail", streams=None, **LOGIN) as bus:
        try:
            await bus.check_rights(missing=missing)
        except Permanent as exc:
            return re.findall(r"(?:publish|subscribe) [^ ,]+", exc.what)
        return []


async def everything(bus: Bus) -> list[str]:
    return [await bus.stream_state(stream) for stream in STREAMS]


async def test_whoever_has_the_documented_rights_lacks_none(documented_nats: DocumentedNats) -> None:
    async with opened(documented_nats.url, "mail", streams=None, **LOGIN) as bus:
        await bus.check_rights(missing=STREAMS)


async def test_each_right_that_is_missing_is_named(narrow: NarrowNats) -> None:
    await start(narrow, *PUBLISH, *heard())
    named = [f"publish {one}" for one in PUBLISH] + [f"subscribe {one}" for one in heard()]
    # Without an inbox nothing else can be asked: it is heard all the same.
    assert await refused(narrow) == named


@pytest.mark.parametrize("lack", ["$KV.mail-sends.>", "$JS.API.STREAM.PURGE.MAIL_LATER", "mail.fleet.>"])
async def test_one_right_that_is_missing_is_the_only_one_named(narrow: NarrowNats, lack: str) -> None:
    await start(narrow, lack)
    found = await refused(narrow)
    assert {one.partition(" ")[2] for one in found} == {lack}


async def test_the_right_to_make_a_stream_is_wanted_where_it_is_missing(narrow: NarrowNats) -> None:
    await start(narrow, "$JS.API.STREAM.CREATE.MAIL_IN", made=False)
    assert await refused(narrow) == []
    assert await refused(narrow, "MAIL_IN", "MAIL_OUT") == ["publish $JS.API.STREAM.CREATE.MAIL_IN"]


async def test_trying_them_changes_nothing(documented_nats: DocumentedNats) -> None:
    async with opened(documented_nats.url, "mail", **LOGIN) as bus:
        await bus.publish("mail.in.a.INBOX.received", b"1")
        await bus.publish("mail.out.a", b"1")
        await bus.publish("mail.status.a.sent", b"1")
        await bus.publish("mail.dead.request", b"1")
        at = datetime.now(UTC) + timedelta(days=1)
        await bus.queue("MAIL_LATER").schedule("mail.later.a.k", "mail.due.a", at, b"1", {})
        for bucket in (MAIL.cursors, MAIL.after, MAIL.sends, MAIL.accounts, MAIL.fleet, MAIL.suppressions):
            await bus.key_value(bucket).create("a", b"1")
        for store in (MAIL.blobs, MAIL.state, MAIL.outbox):
            await bus.blobs(store).put(b"1", now=datetime.now(UTC))
        before = await everything(bus)
        assert all(not state.endswith(" 0") for state in before)
        await bus.check_rights(missing=STREAMS)
        assert await everything(bus) == before
        for stream in STREAMS:
            assert (await js_api(bus.nc, f"STREAM.INFO.{stream}"))["state"].get("consumer_count", 0) == 0


async def test_nothing_is_made_either(documented_nats: DocumentedNats) -> None:
    options = NatsOptions(servers=(documented_nats.url,), user="mailbus", password="secret")
    async with opened(documented_nats.url, options.prefix, streams=None, **LOGIN) as bus:
        await bus.check_rights(missing=STREAMS)
        assert await bus.check_streams(StreamOptions(), 1) == STREAMS
