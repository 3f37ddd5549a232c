"""Commands that need memory, and those that need none: neither keeps the account's one connection from the other."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest

from service.bus import BlobStore
from service.contract import Blob
from tests.commands.conftest import Desk, mail


async def test_what_needs_no_memory_waits_for_nobody_who_does(whole: Desk) -> None:
    await whole.append(mail("one"))
    (id,) = await whole.ids()
    held = await whole.budget.take(whole.budget.limit)
    waiting = asyncio.create_task(whole.budget.take(1))
    await asyncio.sleep(0)
    for properties in (["size"], ["subject"]):
        (email,) = (await whole.ask("get", {"ids": [id], "properties": properties}))["list"]
        assert email["id"] == id
    assert not waiting.done()
    whole.budget.give(held)
    await waiting


@pytest.mark.parametrize("pages", [1, 2])
async def test_whole_messages_for_which_there_is_no_memory_do_not_keep_the_connection_from_others(
    whole: Desk, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.commands.get.MEMORY_LIMIT_S", 0.1)
    monkeypatch.setattr("service.commands.get.PAGE_LIMIT_MESSAGES", 1)
    await whole.append(mail("one"), mail("two"))
    ids, put_all = await whole.ids(), BlobStore.put_all
    others = list[asyncio.Task[int]]()

    async def others_come(store: BlobStore, blobs: Sequence[Blob], *, now: datetime) -> None:
        others.append(asyncio.create_task(whole.budget.take(whole.budget.limit)))
        await put_all(store, blobs, now=now)

    asked = {"ids": ids, "raw": True}
    if pages == 1:
        await whole.budget.take(whole.budget.limit)
        answered, problems = await whole.refused("get", asked)
        assert (answered, "no memory" in problems[0]["message"]) == ("503", True)
    else:
        monkeypatch.setattr(BlobStore, "put_all", others_come)
        answer = await whole.ask("get", asked)
        assert ([one["id"] for one in answer["list"]], answer["more"]) == (ids[:1], True)
        await asyncio.gather(*others)
