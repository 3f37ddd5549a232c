"""What the process knows → the status page's snapshot. Used by app.py."""

from prometheus_client.metrics import MetricWrapperBase

from service import __version__
from service.admin import AccountSnapshot, MailboxSnapshot, Snapshot, Totals, Waiting
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
) -> Snapshot:
    """Everything at this moment."""
    statuses: dict[str, list[MailboxStatus]] = {}
    for piece in work:
        if piece.status is not None:
            statuses.setdefault(piece.account, []).append(piece.status)
    views = [] if reports is None else list(reports.accounts.values())
    return Snapshot(
        instance=instance,
        version=__version__,
        uptime_s=uptime_s,
        nats_connected=nats_connected,
        ready=ready,
        accounts=tuple(_account(view, statuses.get(view.id, [])) for view in views),
        waiting=tuple(Waiting(where, int(count)) for where, count in sorted(_by_label(metrics.WAITING).items())),
        totals=Totals(
            events=int(sum(_by_label(metrics.EVENTS).values())),
            recipients={outcome: int(count) for outcome, count in _by_label(metrics.RECIPIENTS).items()},
            bugs=int(sum(_by_label(metrics.BUGS).values())),
        ),
    )


def _account(view: AccountView, statuses: list[MailboxStatus]) -> AccountSnapshot:
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
            )
            for status in statuses
        ),
        sender=None if sender is None else sender.value,
    )


def _by_label(metric: MetricWrapperBase) -> dict[str, float]:
    """A metric's values by its one label."""
    found: dict[str, float] = {}
    for family in metric.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[next(iter(sample.labels.values()), "")] = sample.value
    return found
