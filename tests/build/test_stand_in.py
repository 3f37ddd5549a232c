"""When IMAP counts as being away."""

import pytest

from service.build.stand_in import BY_IMAP, is_away
from service.clock import SystemClock
from service.contract import AccountState, Subjects
from service.errors import Permanent, Transient
from service.fleet import MAILBOXES, AccountReports, Part


async def nowhere(_event: object) -> None:
    """Nothing is published."""


@pytest.mark.fault("B07")
@pytest.mark.parametrize("part", [BY_IMAP, MAILBOXES])
def test_imap_is_away_once_it_failed_for_a_reason_of_its_own(part: Part) -> None:
    reports = AccountReports(Subjects("mail"), nowhere, writer="one/1", clock=SystemClock())
    reports.add("a", [part])
    view = reports.accounts["a"]
    assert not is_away(None, has_bus=True)
    assert not is_away(view, has_bus=True)
    reports.part("a", part, AccountState.DISCONNECTED, Transient("no answer"))
    assert is_away(view, has_bus=True)
    # A commit that failed looks the same.
    assert not is_away(view, has_bus=False)
    reports.part("a", part, AccountState.CONNECTED)
    assert not is_away(view, has_bus=True)
    reports.part("a", part, AccountState.AUTH_FAILED, Permanent("wrong password"))
    assert not is_away(view, has_bus=True)
    reports.part("a", part, AccountState.DEGRADED, Permanent("the certificate ran out"))
    assert is_away(view, has_bus=True)
