"""A decision → status events (RFC 8621 section 7), and their way to `mail.status.<account>.<state>`."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from service.bus import Bus
from service.contract import (
    DeliveryStatus,
    EmailSubmission,
    EventType,
    Problem,
    State,
    bounded,
    cloud_event_headers,
    encode,
    event_id,
)
from service.observe import step
from service.outbound.retry import Decision, Phase
from service.outbound.sends import SendRecord, StoredStatus

# Printable ASCII but for the space, the quotation mark, the backslash and `%`.
_SAFE: Final = "!#$&'()*+,/:;=?@[]^_`{|}~-.<>"
_PLAIN: Final = re.compile(rf"[A-Za-z0-9{re.escape(_SAFE)}]*")

Delivered = Literal["queued", "yes", "no", "unknown"]


def statuses_of(
    decision: Decision,
    *,
    key: str,
    id: str,
    message_ids: Mapping[str, str] | str,
    attempt: int,
    now: datetime,
    relay: str = "",
    taken: Collection[str] = (),
) -> list[StoredStatus]:
    """One event for each state, about its recipients only; one for each recipient where each has a Message-ID.

    `taken`: for whom a relay may have taken it.
    """
    if isinstance(message_ids, str):
        about = [(state, replies, message_ids) for state, replies in decision.states.items()]
    else:
        about = [
            (state, {who: reply}, message_ids[who])
            for state, all in decision.states.items()
            for who, reply in all.items()
        ]
    return [
        _stored(
            EmailSubmission(
                id=id,
                undo_status="final" if decision.phase is Phase.FINAL else "pending",
                delivery_status=_deliveries(replies, _delivered(state, decision, replies), taken),
                state=state,
                attempt=attempt,
                message_id=message_id or UNSET,
                next_attempt_at=_next_at(decision, replies),
                problems=[decision.problem] if decision.problem is not None and state is State.FAILED else UNSET,
                relay=relay or UNSET,
            ),
            key,
            now,
        )
        for state, replies, message_id in about
    ]


def refusal(problems: list[Problem], record: SendRecord, *, key: str, now: datetime) -> StoredStatus:
    """The event of a request that cannot be sent as it is, about everybody who was still waiting."""
    submission = EmailSubmission(
        id=record.id,
        undo_status="final",
        delivery_status=_deliveries(dict.fromkeys(record.waiting, ""), "no", record.taken),
        state=State.FAILED,
        attempt=record.attempt,
        problems=bounded(problems),
    )
    return _stored(submission, key, now)


def cancellation(record: SendRecord, *, key: str, now: datetime) -> StoredStatus:
    """The event of a request that was cancelled, about everybody who was still waiting and is not tried just now."""
    under_way = record.phase is Phase.INTENT
    waiting = (record.others if under_way else record.pending) | dict.fromkeys(record.held, "")
    # RFC 8621 section 7: canceled means that it will not be delivered to any recipient.
    undo: Literal["pending", "final", "canceled"] = "final" if record.taken else "canceled"
    submission = EmailSubmission(
        id=record.id,
        undo_status="pending" if under_way else undo,
        delivery_status=_deliveries(waiting, "no", record.taken),
        state=State.CANCELLED,
        attempt=record.attempt,
        message_id=record.message_id or UNSET if not record.split else UNSET,
    )
    return _stored(submission, key, now)


def _next_at(decision: Decision, replies: Mapping[str, str]) -> datetime | UnsetType:
    """When they are tried again; not known while others go before them."""
    others_first = decision.at_once or decision.goes_on
    if decision.next_at is None or others_first or not decision.pending.keys() & replies:
        return UNSET
    return decision.next_at


def _delivered(state: State, decision: Decision, replies: Mapping[str, str]) -> Delivered:
    if decision.pending.keys() & replies:
        return "queued"
    return "no" if state is State.FAILED else "unknown"


def _deliveries(replies: Mapping[str, str], delivered: Delivered, taken: Collection[str]) -> dict[str, DeliveryStatus]:
    """`taken`: of these nobody may say `no`, whatever was said of them later: they may have it."""
    doubtful = set(taken) if delivered == "no" else set()
    return {
        recipient: DeliveryStatus(reply, "unknown" if recipient in doubtful else delivered)
        for recipient, reply in replies.items()
    }


def _stored(submission: EmailSubmission, key: str, now: datetime) -> StoredStatus:
    recipients = ",".join(sorted(submission.delivery_status))
    id = event_id(key, submission.state, recipients, submission.attempt)
    return StoredStatus(submission.state, id, now, msgspec.Raw(encode(submission)))


async def publish(bus: Bus, account: str, id: str, status: StoredStatus, *, asked_again: int | None = None) -> None:
    """Publish, acknowledged; a repeat within the stream's duplicate window changes nothing. Raises Transient.

    `asked_again`: the sequence of another request with this id, which gets an answer of its own with the same `ce-id`.
    """
    headers = cloud_event_headers(
        EventType.STATUS,
        source=bus.subjects.account_source(account),
        id=status.id,
        time=status.time,
        subject=quoted(id),
    )
    step("status.before")
    subject = bus.subjects.status(account, status.state)
    once = status.id if asked_again is None else f"{status.id}-{asked_again}"
    headers["Nats-Msg-Id"] = once
    await bus.publish(subject, bytes(status.body), headers)
    step("status.done")


def quoted(id: str) -> str:
    """A request's id as a header holds it: percent-encoded where it is not plain ASCII (CloudEvents HTTP 3.1.3.2)."""
    # Nearly every one is plain, and `quote` looks at each letter.
    return id if _PLAIN.fullmatch(id) else quote(id, safe=_SAFE)
