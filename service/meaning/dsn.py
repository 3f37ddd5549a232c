"""RFC 3464 delivery reports → one report for each recipient. Pure. RFC 3464, 6533 (addresses in UTF-8).

Fields that servers misspell or leave out are taken as they are meant; the words of the diagnosis decide the reason.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from msgspec import UNSET

from service.contract import Action, Report
from service.meaning.fields import READ, address_of, groups, typed
from service.meaning.reasons import Diagnoses, Words
from service.meaning.status import find_status, reply_of

DIAGNOSTIC_CHARS: Final = 500
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_UNFINISHED: Final = re.compile(r"[245][0-5][0-9]-(?!.*\s[245][0-5][0-9] )", re.DOTALL)
_ACTIONS: Final = {
    "failed": Action.FAILED, "failure": Action.FAILED, "fail": Action.FAILED, "expired": Action.FAILED,
    "deferred": Action.DELAYED, "delayed": Action.DELAYED, "delay": Action.DELAYED,
    "delivered": Action.DELIVERED, "deliverable": Action.DELIVERED, "relayed": Action.RELAYED,
    "expanded": Action.EXPANDED,
}  # fmt: skip


@dataclass(slots=True)
class Delivery:
    """What a report says of one recipient before a reason is found."""

    recipient: str
    action: Action | None = None
    original_recipient: str = ""
    status: str = ""
    diagnostic: str = ""
    remote_mta: str = ""
    reporting_mta: str = ""
    command: str = ""


@dataclass(slots=True)
class Delivered:
    """All of a delivery report."""

    deliveries: list[Delivery] = field(default_factory=list)
    envelope_id: str = ""
    # More recipients follow.
    cut: bool = False


def read_dsn(text: str) -> Delivered:
    """The fields of a message/delivery-status part: one group for the message, one for each recipient."""
    report = Delivered()
    reporting = ""
    for group in groups(text, most=READ + 8):
        envelope_id = group.get("original-envelope-id", "").strip()
        if envelope_id and not report.envelope_id:
            report.envelope_id = envelope_id[:200]
        reporting = reporting or typed(group.get("reporting-mta", ""))[:255]
        final = group.get("final-recipient", "") or group.get("x-actual-recipient", "")
        original = group.get("original-recipient", "")
        if not final and not original:
            continue
        recipient = address_of(final) or address_of(original)
        wanted = address_of(original)
        if not recipient:
            # A mailbox's local name, which some servers give: better than nothing.
            recipient = typed(final or original).strip("<> ")[:320]
        if not recipient:
            continue
        report.deliveries.append(
            Delivery(
                recipient=recipient,
                action=_ACTIONS.get(group.get("action", "").partition(" ")[0].strip().lower().rstrip(";.(")),
                original_recipient=wanted if wanted and wanted.lower() != recipient.lower() else "",
                status=status_in(group.get("status", "")),
                diagnostic=typed(group.get("diagnostic-code", "")),
                remote_mta=typed(group.get("remote-mta", ""))[:255],
                reporting_mta=reporting,
            )
        )
        if len(report.deliveries) >= READ:
            report.cut = True
            break
    return report


def status_in(text: str) -> str:
    """The enhanced status of a field for one (RFC 3463 2); "" where it has none."""
    found = _STATUS.search(text)
    return "" if found is None else found[0]


def done_of(delivery: Delivery, action: Action) -> Action:
    """What became of it: `action` where the report does not say.

    RFC 3464 2.3.4 wants both fields; without an action a status of success is none of a failure.
    """
    return delivery.action or (Action.DELIVERED if delivery.status.startswith("2") else action)


def merged(deliveries: list[Delivery], action: Action) -> list[Delivery]:
    """One for each recipient, the worst that was said of him (RFC 3464 2.3 has one group for each)."""
    by_recipient: dict[str, Delivery] = {}
    for delivery in deliveries:
        known = by_recipient.get(delivery.recipient.lower())
        if known is None or _rank(done_of(delivery, action)) > _rank(done_of(known, action)):
            by_recipient[delivery.recipient.lower()] = delivery
    return list(by_recipient.values())


def _rank(done: Action) -> int:
    return 2 if done is Action.FAILED else 1 if done is Action.DELAYED else 0


def report_of(delivery: Delivery, notice: str, diagnoses: Diagnoses, *, action: Action) -> Report:
    """A report with its reason. `notice`: what the human-readable part says of it; `action` where the report has none.

    `diagnoses`: those of the mail.

    A status such as 5.0.0 says nothing; one within the diagnosis is nearer to the server that refused.
    """
    said = delivery.diagnostic or notice
    if notice and delivery.diagnostic and _UNFINISHED.match(delivery.diagnostic) is not None:
        # RFC 5321 4.2.1: a reply that goes on; some reports have its first line only.
        said = f"{delivery.diagnostic}\n{notice}"
    done = done_of(delivery, action)
    status = find_status(said, delivery.status)
    code = reply_of(said)
    words = Words(
        said, notice, status, code, delivery.command, delivery.remote_mta, delivery.recipient, delivery.reporting_mta
    )
    if done in (Action.DELIVERED, Action.RELAYED, Action.EXPANDED):
        reason, hard = None, None
    else:
        found = diagnoses.of(words, done)
        reason, hard = found.reason, found.hard
    return Report(
        recipient=delivery.recipient[:320],
        action=done,
        original_recipient=delivery.original_recipient[:320] or UNSET,
        status=status or UNSET,
        reply_code=code or UNSET,
        reason=UNSET if reason is None else reason,
        hard=UNSET if hard is None else hard,
        diagnostic=" ".join(said.split())[:DIAGNOSTIC_CHARS] or UNSET,
        remote_mta=delivery.remote_mta or UNSET,
    )
