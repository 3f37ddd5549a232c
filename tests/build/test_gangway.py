"""Places for opening connections."""

import asyncio

import pytest

from service.build.gangway import Gangways


class Crowd:
    """Tasks that hold a place until they are let go."""

    def __init__(self, gangways: Gangways) -> None:
        self.gangways = gangways
        self.inside: list[str] = []
        self.go_on = asyncio.Event()

    async def connect(self, host: str) -> None:
        async with self.gangways.to(host):
            self.inside.append(host)
            await self.go_on.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.fault("F07")
async def test_a_host_that_answers_nobody_leaves_places_for_others() -> None:
    crowd = Crowd(Gangways(limit=4, limit_a_host=3))
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(crowd.connect("dead.example"))
        await settled()
        group.create_task(crowd.connect("well.example"))
        await settled()
        assert crowd.inside == ["dead.example"] * 3 + ["well.example"]
        crowd.go_on.set()
    assert len(crowd.inside) == 21


async def test_a_host_is_the_same_however_it_is_written() -> None:
    crowd = Crowd(Gangways(limit=4, limit_a_host=1))
    async with asyncio.TaskGroup() as group:
        for host in ("imap.example.com", "IMAP.Example.com"):
            group.create_task(crowd.connect(host))
        await settled()
        assert len(crowd.inside) == 1
        crowd.go_on.set()


async def test_whoever_is_cancelled_while_waiting_gives_nothing_away() -> None:
    gangways = Gangways(limit=1, limit_a_host=1)
    crowd = Crowd(gangways)
    async with asyncio.TaskGroup() as group:
        group.create_task(crowd.connect("a.example"))
        await settled()
        for host in ("a.example", "b.example"):
            waiting = group.create_task(crowd.connect(host))
            await settled()
            waiting.cancel()
        await settled()
        crowd.go_on.set()
    assert crowd.inside == ["a.example"]
    for host in ("a.example", "b.example"):
        async with asyncio.timeout(1), gangways.to(host):
            pass
