"""Whether there is such an account: said by what was heard, and by NATS where that says no."""

from typing import cast

import pytest

from service.bus import Bus, ServiceError
from service.commands.route import Fleet, Router
from tests.servers.clock import FakeClock


def router(known: set[str], in_nats: set[str], *, heard_after: int) -> Router:
    """`known` hears of what NATS has after so many looks."""
    clock, looks = FakeClock(), 0

    async def coming(account: str) -> bool:
        return account in in_nats

    async def look(seconds: float) -> None:
        nonlocal looks
        looks += 1
        await clock.advance(seconds)
        if looks == heard_after:
            known.update(in_nats)

    fleet = Fleet("here", {}, lambda: known, set, coming, lambda _: None, look, patience_s=1.0)
    return Router(cast(Bus, None), fleet, clock, limit_s=1.0)


async def test_an_account_that_was_just_added_is_waited_for() -> None:
    assert await router({"old"}, set(), heard_after=0).knows("old")
    assert await router({"old"}, {"new"}, heard_after=2).knows("new")


async def test_an_account_that_nats_has_not_either_is_none() -> None:
    one = router({"old"}, {"new"}, heard_after=1)
    assert not await one.knows("other")
    assert not await one.knows("no.id")


async def test_an_account_that_is_not_heard_of_in_time_is_503_and_not_404() -> None:
    with pytest.raises(ServiceError) as refused:
        await router(set(), {"new"}, heard_after=100).knows("new")
    assert refused.value.code == 503
