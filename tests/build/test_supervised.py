"""A piece of an account's work that ended leaves nothing behind while it waits to begin again."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.build.shared import Shared, supervised
from service.errors import Transient
from service.fleet import MAILBOXES, Pace
from tests.servers.clock import FakeClock


class Connection:
    """What a life has."""


@pytest.mark.fault("F09")
async def test_an_error_that_is_kept_until_the_next_one_holds_nothing_of_the_life_that_ended() -> None:
    had: list[weakref.ref[Connection]] = []
    told: list[str] = []
    reports = SimpleNamespace(part=lambda account, part, state, error: told.append(str(error)))
    shared: Any = SimpleNamespace(reports=reports, pace=Pace(), clock=FakeClock())

    async def life(proved: Callable[[], None]) -> None:
        connection = Connection()
        had.append(weakref.ref(connection))
        try:
            raise ConnectionError("reset")
        except ConnectionError as exc:
            raise Transient("connection lost", where="a") from exc

    gc.collect()
    gc.disable()
    try:
        run = asyncio.create_task(supervised(life, "a", MAILBOXES, cast("Shared", shared), None)())
        async with asyncio.timeout(10):
            while not shared.clock.slept:  # noqa: ASYNC110 the clock rings no bell
                await asyncio.sleep(0)
        assert told == ["connection lost [a]"]
        assert [one() for one in had] == [None]
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    finally:
        gc.enable()
