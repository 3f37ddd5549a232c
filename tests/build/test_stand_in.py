"""When IMAP counts as being away."""

import nats.errors
import nats.js.errors
import pytest

from service.build.stand_in import BY_IMAP, is_away
from service.bus import MessageTooLarge
from service.bus.errors import translated
from service.clock import SystemClock
from service.contract import AccountState, Subjects
from service.errors import Halted, Inward, MailbusError, Permanent, Transient
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


@pytest.mark.fault("B07")
@pytest.mark.parametrize("part", [BY_IMAP, MAILBOXES])
@pytest.mark.parametrize(
    ("state", "error"),
    [
        (AccountState.DISCONNECTED, Inward("JetStream does not answer")),
        (AccountState.DEGRADED, Halted("a bug")),
        (AccountState.DEGRADED, MessageTooLarge("over max_payload")),
    ],
)
def test_what_no_mail_server_did_is_no_absence_of_imap(part: Part, state: AccountState, error: MailbusError) -> None:
    reports = AccountReports(Subjects("mail"), nowhere, writer="one/1", clock=SystemClock())
    reports.add("a", [part])
    reports.part("a", part, state, error)
    assert not is_away(reports.accounts["a"], has_bus=True)
    # The next failure is the server's own.
    reports.part("a", part, AccountState.DISCONNECTED, Transient("no answer"))
    assert is_away(reports.accounts["a"], has_bus=True)


@pytest.mark.parametrize(
    "error", [nats.errors.NoRespondersError(), nats.js.errors.ServiceUnavailableError(), TimeoutError()]
)
async def test_jetstream_that_is_down_while_nats_is_up_is_no_mail_servers_fault(error: Exception) -> None:
    with pytest.raises(Inward), translated("the log"):
        raise error
