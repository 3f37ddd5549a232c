"""What the process knows → the status page's snapshot, and pages of all accounts. Used by app.py."""

import heapq
from collections.abc import Collection, Container, Mapping

from prometheus_client.metrics import MetricWrapperBase

from service import __version__
from service.admin import (
    PAGE_LIMIT_ACCOUNTS,
    PAGE_LIMIT_MAILBOXES,
    AccountSnapshot,
    AccountsPage,
    MailboxSnapshot,
    Snapshot,
    Totals,
    Waiting,
    clip,
)
from service.build import Work
from service.fleet import SENDER, AccountReports, AccountView
from service.ingest import MailboxStatus
from service.observe import metrics


def take_snapshot(
    reports: AccountReports | None,
    work: list[Work],
    *,
    instance: str,
    uptime_s: float,
    nats_connected: bool,
    ready: bool,
    replicas: dict[str, int],
) -> Snapshot:
    """Everything at this moment; the accounts of this process."""
    views = {} if reports is None else reports.accounts
    statuses = _statuses(work, views)
    return Snapshot(
        instance=instance,
        version=__version__,
        uptime_s=uptime_s,
        nats_connected=nats_connected,
        ready=ready,
        accounts=tuple(_account(view, statuses.get(view.id, []), instance) for view in views.values()),
        replicas=replicas,
        waiting=tuple(Waiting(where, int(count)) for where, count in sorted(_by_label(metrics.WAITING).items())),
        totals=Totals(
            events=int(sum(_by_label(metrics.EVENTS).values())),
            recipients={outcome: int(count) for outcome, count in _by_label(metrics.RECIPIENTS).items()},
            bugs=int(sum(_by_label(metrics.BUGS).values())),
        ),
    )


def take_page(
    reports: AccountReports | None,
    work: list[Work],
    owners: Mapping[str, str],
    paused: Collection[str],
    instance: str,
    after: str,
) -> AccountsPage:
    """The accounts, of all processes, whose ids come after `after`: as many as a reply holds, one at least."""
    views = {} if reports is None else reports.accounts
    ids = heapq.nsmallest(PAGE_LIMIT_ACCOUNTS + 1, (id for id in {*owners, *views, *paused} if id > after))
    statuses = _statuses(work, set(ids))
    page: list[AccountSnapshot] = []
    mailboxes = 0
    for id in ids[:PAGE_LIMIT_ACCOUNTS]:
        mailboxes += len(statuses.get(id, []))
        if page and mailboxes > PAGE_LIMIT_MAILBOXES:
            break
        if (view := views.get(id)) is not None:
            page.append(clip(_account(view, statuses.get(id, []), instance)))
        elif id in paused:
            page.append(AccountSnapshot(id=id, state="paused"))
        else:
            state = "starting" if owners[id] == instance else "elsewhere"
            page.append(AccountSnapshot(id=id, state=state, owner=owners[id]))
    return AccountsPage(accounts=tuple(page), after=page[-1].id if len(page) < len(ids) else None)


def behind(work: list[Work]) -> int:
    """How many mails are there and not announced yet, over all mailboxes of this process: at most, by their UIDs."""
    found = _statuses(work, {piece.account for piece in work})
    return sum(max(0, status.top_uid - status.last_uid) for many in found.values() for status in many)


def _statuses(work: list[Work], accounts: Container[str]) -> dict[str, list[MailboxStatus]]:
    """The mailboxes of some accounts."""
    found: dict[str, list[MailboxStatus]] = {}
    for piece in work:
        if piece.account in accounts:
            found.setdefault(piece.account, []).extend(piece.statuses())
    return found


def _account(view: AccountView, statuses: list[MailboxStatus], instance: str) -> AccountSnapshot:
    sender = view.parts.get(SENDER)
    return AccountSnapshot(
        id=view.id,
        state=view.state.value if view.state else "starting",
        since=view.since,
        last_error=view.last_error,
        mailboxes=tuple(
            MailboxSnapshot(
                name=status.name,
                state=status.state,
                last_uid=status.last_uid,
                behind=max(0, status.top_uid - status.last_uid),
                announced=status.announced,
                last_event_at=status.last_event_at,
                sync=status.sync.value,
            )
            for status in statuses
        ),
        sender=None if sender is None else sender.value,
        owner=instance,
    )


def _by_label(metric: MetricWrapperBase) -> dict[str, float]:
    """A metric's values by its one label."""
    found: dict[str, float] = {}
    for family in metric.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[next(iter(sample.labels.values()), "")] = sample.value
    return found
