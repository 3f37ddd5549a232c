"""What a process makes of the fleet's keys."""

from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from structlog.testing import capture_logs

from service.bus import KeyChange, KeyValue
from service.fleet import Presence, Roster
from service.fleet.presence import PresenceValue
from service.fleet.roster import DIFFER_LIMIT_S
from tests.servers.clock import FakeClock


def key(instance: str, accounts: str, seq: int) -> KeyChange:
    return KeyChange(instance, msgspec.json.encode(PresenceValue(f"boot-{instance}", accounts=accounts)), seq)


@pytest.mark.fault("F10")
async def test_that_some_know_other_accounts_is_said_once_where_it_stays() -> None:
    clock = FakeClock()
    presence = cast(
        Presence,
        SimpleNamespace(
            instance="one", boot="b", is_others=lambda *_: False, heard=lambda _: None, heard_all=lambda _: None
        ),
    )
    roster = Roster[str](cast(KeyValue, SimpleNamespace()), presence, clock)
    with capture_logs() as said:
        roster._hear_all([key("two", "old", 1), key("three", "new", 2)])
        await clock.advance(DIFFER_LIMIT_S / 2)
        # All know the same in time, as when a settings file changes.
        roster._hear(key("two", "new", 3))
        roster._hear(key("two", "other", 4))
        await clock.advance(DIFFER_LIMIT_S)
        roster._hear(key("two", "other", 5))
        assert not said
        await clock.advance(1)
        for seq in range(6, 9):
            roster._hear(key("two", "other", seq))
        assert [line["event"] for line in said] == ["fleet_accounts_differ"]
        roster._hear(key("two", "new", 9))
        roster._hear(key("two", "other", 10))
        await clock.advance(2 * DIFFER_LIMIT_S)
        roster._hear(key("two", "other", 11))
        assert [line["event"] for line in said] == ["fleet_accounts_differ"] * 2
