"""An account's parts → its state on the bus, once a change."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from service.bus import OutMessage
from service.contract import AccountPart, AccountState, Subjects
from service.errors import AuthRefused, Permanent, Transient
from service.fleet import REQUESTS, SENDER, AccountReports, Part
from service.fleet.report import RETRY_S, WAITING_LIMIT
from service.observe import metrics
from service.observe import stuck as stuck_module
from tests.servers.clock import FakeClock

C, D, A, G = AccountState.CONNECTED, AccountState.DISCONNECTED, AccountState.AUTH_FAILED, AccountState.DEGRADED

INBOX = Part(AccountPart.MAILBOX, "INBOX")


class Published:
    """What was published; fails as long as `away`."""

    def __init__(self) -> None:
        self.messages: list[OutMessage] = []
        self.away = False

    async def __call__(self, message: OutMessage) -> None:
        if self.away:
            raise Transient("NATS is away")
        self.messages.append(message)

    @property
    def states(self) -> list[str]:
        return [message.subject.rpartition(".")[2] for message in self.messages]


Running = tuple[AccountReports, Published, FakeClock]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    published, clock = Published(), FakeClock()
    reports = AccountReports(Subjects("mail"), published, writer="pod-1/boot7", clock=clock)
    reports.add("acct", [INBOX, SENDER])
    task = asyncio.ensure_future(reports.run())
    yield reports, published, clock
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_account_is_connected_when_all_its_parts_are_and_says_so_once(running: Running) -> None:
    reports, published, clock = running
    reports.part("acct", INBOX, C)
    await clock.settle()
    assert published.states == []
    reports.part("acct", SENDER, C)
    reports.part("acct", SENDER, C)
    await clock.settle()
    assert published.states == ["connected"]
    assert reports.accounts["acct"].state is C
    assert reports.accounts["acct"].since == clock.now()


async def test_a_part_is_stuck_where_it_fails_until_somebody_acts_and_at_no_alarm(running: Running) -> None:
    reports, _, _ = running
    view = reports.accounts["acct"]
    reports.part("acct", INBOX, G, Transient("the log was rolled back"))
    assert not view.stuck
    reports.part("acct", INBOX, G, Permanent("the certificate ran out"))
    assert view.stuck == {INBOX}
    reports.part("acct", INBOX, A, AuthRefused("no"))
    assert not view.stuck
    reports.part("acct", INBOX, G, Permanent("the certificate ran out"))
    reports.part("acct", INBOX, C)
    assert not view.stuck


async def test_the_worst_part_speaks_and_recovery_is_said(running: Running) -> None:
    reports, published, clock = running
    for part, state in [(INBOX, C), (SENDER, C), (SENDER, A), (INBOX, D), (SENDER, C), (INBOX, C)]:
        error = AuthRefused("no") if state is A else Transient("gone") if state is D else None
        reports.part("acct", part, state, error)
    await clock.settle()
    assert published.states == ["connected", "auth_failed", "disconnected", "connected"]


async def test_before_a_first_connection_only_a_failure_is_said(running: Running) -> None:
    reports, published, clock = running
    reports.part("acct", INBOX, D)
    await clock.settle()
    assert published.states == []
    reports.part("acct", INBOX, D, Transient("refused", where="imap:993", remedy="tried again"))
    await clock.settle()
    assert published.states == ["disconnected"]


@pytest.mark.fault("D08")
async def test_what_has_not_begun_yet_is_no_news_when_another_part_recovers(running: Running) -> None:
    """A log that was made anew is said by each mailbox as it begins: the first has done so before the last begins."""
    reports, published, clock = running
    others = [Part(AccountPart.MAILBOX, f"Lists/{n}") for n in range(7)]
    reports.add("acct", [INBOX, *others])
    for part in (INBOX, *others):
        reports.part("acct", part, G, Transient("the log was made anew"))
        reports.part("acct", part, C)
    await clock.settle()
    assert published.states == ["degraded", "connected"]
    reports.add("acct", [INBOX, *others])
    reports.part("acct", INBOX, G, Transient("the log was made anew"))
    reports.part("acct", others[0], C)
    reports.drop("acct", INBOX)
    await clock.settle()
    assert published.states == ["degraded", "connected", "degraded"]


async def test_when_the_worst_part_recovers_the_event_is_about_the_next_worst(running: Running) -> None:
    reports, published, clock = running
    reports.part("acct", INBOX, D, Transient("no route", remedy="tried again"))
    reports.part("acct", SENDER, G, Permanent("no relay"))
    reports.part("acct", SENDER, C)
    await clock.settle()
    body = json.loads(published.messages[-1].payload)
    assert (body["state"], body["part"], body["mailbox"]) == ("disconnected", "mailbox", "INBOX")
    assert (body["detail"], body["remedy"]) == ("no route", "tried again")


async def test_the_event_names_account_part_instance_and_remedy(running: Running) -> None:
    reports, published, clock = running
    reports.part("acct", INBOX, G, Permanent("no such mailbox", where="INBOX", remedy="name another"))
    reports.part("acct", INBOX, C)
    reports.part("acct", SENDER, C)
    await clock.settle()
    degraded, *_, connected = published.messages
    assert degraded.subject == "mail.account.acct.degraded"
    body = json.loads(degraded.payload)
    assert body["account"] == "acct"
    assert (body["state"], body["part"], body["mailbox"]) == ("degraded", "mailbox", "INBOX")
    assert body["instance"] == "pod-1"
    assert (body["detail"], body["remedy"]) == ("no such mailbox", "name another")
    assert degraded.headers["ce-type"] == "mailbus.account"
    assert degraded.headers["ce-source"] == "/mail/acct"
    assert not {"part", "mailbox"} & json.loads(connected.payload).keys()
    ids = [message.headers["ce-id"] for message in published.messages]
    assert len(set(ids)) == len(ids)
    assert [message.headers["Nats-Msg-Id"] for message in published.messages] == ids


@pytest.mark.parametrize("other", [SENDER, REQUESTS])
async def test_a_mailbox_named_as_another_part_is_a_part_of_its_own(running: Running, other: Part) -> None:
    reports, published, clock = running
    mailbox = Part(AccountPart.MAILBOX, other.kind)
    reports.add("both", [mailbox, other])
    reports.part("both", other, G, Permanent("no relay"))
    reports.part("both", mailbox, C)
    await clock.settle()
    assert reports.accounts["both"].parts == {mailbox: C, other: G}
    assert reports.accounts["both"].state is G
    (degraded,) = published.messages
    body = json.loads(degraded.payload)
    assert body["part"] == other.kind
    assert "mailbox" not in body


@pytest.mark.fault("F08")
async def test_nats_away_holds_the_reports_in_order_and_bounded(running: Running) -> None:
    reports, published, clock = running
    published.away = True
    reports.part("acct", INBOX, D, Transient("x"))
    reports.part("acct", INBOX, G, Permanent("y"))
    await clock.settle()
    assert published.messages == []
    published.away = False
    await clock.advance(RETRY_S)
    assert published.states == ["disconnected", "degraded"]
    published.away = True
    for _ in range(WAITING_LIMIT):
        reports.part("acct", INBOX, D, Transient("x"))
        reports.part("acct", INBOX, G, Permanent("y"))
    assert len(reports._waiting) == WAITING_LIMIT


async def test_states_are_counted(running: Running) -> None:
    reports, _, _ = running
    reports.add("other", [INBOX])
    reports.part("other", INBOX, C)
    counts = {state: metrics.ACCOUNTS.labels(state=state)._value.get() for state in (C, D)}
    assert (counts[C], counts[D]) == (1, 1)
    reports.part("other", INBOX, A, AuthRefused("no"))
    assert metrics.ACCOUNTS.labels(state=A)._value.get() == 1


def test_an_account_is_stuck_after_its_time_in_one_state_and_no_sum_of_short_ones_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Long after all that other tests of this process have left behind.
    now = time.monotonic() + 100_000.0
    monkeypatch.setattr(stuck_module, "time", SimpleNamespace(monotonic=lambda: now))
    reports = AccountReports(Subjects("mail"), Published(), writer="pod-1/boot7", clock=FakeClock())

    def stuck(state: AccountState) -> float | None:
        return REGISTRY.get_sample_value("mailbus_accounts_stuck", {"state": state})

    before = stuck(A) or 0.0
    for number in range(20):
        reports.add(f"stuck{number}", [INBOX])
        reports.part(f"stuck{number}", INBOX, A, AuthRefused("no"))
        now += 60
        # One after the other is refused and let in again; the last one is not.
        if number < 19:
            reports.part(f"stuck{number}", INBOX, C)
    assert stuck(A) == before
    now += 540
    reports.part("stuck19", INBOX, A, AuthRefused("again"))
    assert stuck(A) == before + 1
    for number in range(20):
        reports.remove(f"stuck{number}")
    assert stuck(A) == before


def test_an_account_that_goes_from_one_trouble_to_the_other_and_back_is_stuck_in_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic() + 200_000.0
    monkeypatch.setattr(stuck_module, "time", SimpleNamespace(monotonic=lambda: now))
    reports = AccountReports(Subjects("mail"), Published(), writer="pod-1/boot7", clock=FakeClock())

    def stuck() -> tuple[float, ...]:
        return tuple(REGISTRY.get_sample_value("mailbus_accounts_stuck", {"state": state}) or 0.0 for state in (G, D))

    degraded, disconnected = stuck()
    reports.add("back-and-forth", [INBOX])
    for _ in range(15):
        assert stuck() == (degraded, disconnected)
        reports.part("back-and-forth", INBOX, G, Permanent("no"))
        now += 60
        reports.part("back-and-forth", INBOX, D, Transient("away"))
        now += 60
    assert stuck() == (degraded + 1, disconnected)
    now += 15 * 60
    assert stuck() == (degraded + 1, disconnected + 1)
    reports.part("back-and-forth", INBOX, C)
    assert stuck() == (degraded, disconnected)
    reports.part("back-and-forth", INBOX, G, Permanent("no"))
    now += 60
    assert stuck() == (degraded, disconnected)
    reports.remove("back-and-forth")


def test_there_is_a_metric_for_each_state_that_an_account_can_be_in() -> None:
    AccountReports(Subjects("mail"), Published(), writer="pod-1/boot7", clock=FakeClock())
    assert {labels[0] for labels in metrics.ACCOUNTS._metrics} == {C, D, A, G}
