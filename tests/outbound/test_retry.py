"""What the relay said → what becomes of each recipient. Pure: no clock, no luck."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import SendLimits, State, beyond, expiry_of, request_key
from service.outbound.options import OutboundOptions
from service.outbound.request import made_id, settle_id, take
from service.outbound.retry import LAST_TRY, Decision, Phase, Said, Verdict, decide, expire
from service.outbound.status import statuses_of

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
EXPIRES = NOW + timedelta(days=5)


def after(said: dict[str, Verdict], **changes: Any) -> Decision:
    fields: dict[str, Any] = {
        "held": [], "attempt": 1, "now": NOW, "expires_at": EXPIRES, "chance": 1.0,
        "options": OutboundOptions("a", "me@x"),
    } | changes  # fmt: skip
    return decide({who: Said(verdict, verdict.value) for who, verdict in said.items()}, **fields)


HOLD = OutboundOptions("a", "me@x", uncertain="hold")


def test_all_accepted_is_final() -> None:
    decision = after({"a": Verdict.ACCEPTED, "b": Verdict.ACCEPTED})
    assert (decision.phase, decision.states) == (Phase.FINAL, {State.SENT: {"a": "accepted", "b": "accepted"}})


def test_each_outcome_has_its_state_and_only_what_was_put_off_waits() -> None:
    decision = after({"a": Verdict.ACCEPTED, "b": Verdict.PUT_OFF, "c": Verdict.REFUSED})
    assert decision.phase is Phase.WAITING
    assert {state: set(who) for state, who in decision.states.items()} == {
        State.SENT: {"a"},
        State.DEFERRED: {"b"},
        State.FAILED: {"c"},
    }
    assert decision.pending == {"b": "put_off"}
    assert decision.next_at == NOW + timedelta(seconds=60)


@pytest.mark.fault("E06")
def test_recipients_too_many_for_one_transaction_go_at_once_and_nobody_is_told() -> None:
    decision = after({"a": Verdict.ACCEPTED, "b": Verdict.OVERFULL})
    assert set(decision.states) == {State.SENT}
    assert (decision.pending, decision.next_at, decision.at_once) == ({"b": "overfull"}, NOW, ("b",))


def test_pauses_grow_up_to_their_limit() -> None:
    pauses = [after({"a": Verdict.PUT_OFF}, attempt=n).next_at for n in (1, 2, 3, 20, 1000)]
    assert [(at - NOW).total_seconds() for at in pauses if at] == [60, 120, 240, 4 * 3600, 4 * 3600]


def test_jitter_takes_at_most_half() -> None:
    decision = after({"a": Verdict.PUT_OFF}, chance=0.0)
    assert decision.next_at == NOW + timedelta(seconds=30)


def test_the_last_try_is_shortly_before_the_expiry() -> None:
    in_an_hour = NOW + timedelta(hours=1)
    last = in_an_hour - LAST_TRY
    assert after({"a": Verdict.PUT_OFF}, attempt=20, expires_at=in_an_hour).next_at == last
    assert after({"a": Verdict.PUT_OFF}, attempt=21, now=last, expires_at=in_an_hour).next_at == in_an_hour
    # One that comes back in seconds is nothing that a relay would like.
    soon = NOW + timedelta(seconds=50)
    assert after({"a": Verdict.PUT_OFF}, expires_at=soon).next_at == soon
    assert after({"a": Verdict.PUT_OFF}, expires_at=NOW - timedelta(days=1)).next_at == NOW


def test_an_unknown_outcome_is_tried_again_or_held_by_policy() -> None:
    retried = after({"a": Verdict.UNKNOWN})
    assert (retried.phase, set(retried.states), set(retried.pending)) == (Phase.WAITING, {State.UNCERTAIN}, {"a"})
    held = after({"a": Verdict.UNKNOWN}, options=HOLD)
    assert (held.phase, held.held, held.pending, held.next_at) == (Phase.HELD, ["a"], {}, EXPIRES)


def test_who_is_held_stays_so_while_others_are_tried_again() -> None:
    mixed = after({"a": Verdict.UNKNOWN, "b": Verdict.PUT_OFF}, options=HOLD)
    assert (mixed.phase, mixed.held, set(mixed.pending)) == (Phase.WAITING, ["a"], {"b"})
    then = after({"b": Verdict.ACCEPTED}, held=mixed.held, attempt=2, options=HOLD)
    assert (then.phase, then.held) == (Phase.HELD, ["a"])
    end = expire(then.pending, then.held)
    assert (end.phase, end.states) == (Phase.FINAL, {State.FAILED: {"a": ""}})


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.sampled_from(Verdict), min_size=1),
    st.sampled_from(["retry", "hold"]),
)
def test_every_recipient_has_one_state_and_waits_unless_that_is_final(said: dict[str, Verdict], uncertain: Any) -> None:
    decision = after(said, options=OutboundOptions("a", "me@x", uncertain=uncertain))
    stated = [who for replies in decision.states.values() for who in replies]
    at_once = [who for who, verdict in said.items() if verdict is Verdict.OVERFULL]
    assert sorted(stated) == sorted(said.keys() - set(at_once))
    waits = {who for who, verdict in said.items() if verdict not in (Verdict.ACCEPTED, Verdict.REFUSED)}
    assert set(decision.pending) | set(decision.held) == waits
    assert (decision.phase is Phase.FINAL) == (not waits)


def test_who_is_put_off_is_not_told_a_time_while_others_go_before_him() -> None:
    def told(**said: Verdict) -> list[object]:
        made = statuses_of(after(said), key="k", id="r", message_ids="m", attempt=1, now=NOW)
        return [msgspec.json.decode(one.body).get("nextAttemptAt") for one in made if one.state is State.DEFERRED]

    assert told(a=Verdict.ACCEPTED, b=Verdict.PUT_OFF) == ["2026-11-24T12:01:00Z"]
    assert told(a=Verdict.ACCEPTED, b=Verdict.PUT_OFF, c=Verdict.OVERFULL) == [None]


def test_a_status_id_depends_on_key_state_recipients_and_attempt_alone() -> None:
    def ids(now: datetime, attempt: int = 1) -> list[str]:
        decision = after({"a": Verdict.ACCEPTED, "b": Verdict.PUT_OFF})
        made = statuses_of(decision, key="k", id="r", message_ids="m", attempt=attempt, now=now)
        return [status.id for status in made]

    assert ids(NOW) == ids(NOW + timedelta(hours=1))
    assert len(set(ids(NOW) + ids(NOW, attempt=2))) == 4


@pytest.mark.parametrize(
    ("payload", "headers", "id"),
    [
        (b'{"id": "x"}', {"Nats-Msg-Id": "y"}, "x"),
        (b'{"id": "x", "nope": [1', {}, "made"),
        (b'{"id": "x", "nope": [1]}', {}, "x"),
        (b'{"id": 5}', {"Nats-Msg-Id": "y"}, "y"),
        (b'{"id": ""}', {}, "made"),
        (b'{"id": "a\\nb"}', {"Nats-Msg-Id": "z" * 256}, "made"),
        (b"\xff", {}, "made"),
        (b"[]", {"Nats-Msg-Id": "y"}, "y"),
    ],
)
def test_the_id_is_the_first_that_can_be_one(payload: bytes, headers: dict[str, str], id: str) -> None:
    assert settle_id(payload, headers, lambda: "made") == id


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_have_problems(payload: bytes) -> None:
    taken = take("a", payload, {}, made_id=lambda: "made")
    assert (taken.request is None) == bool(taken.problems)
    assert taken.key == request_key("a", taken.id)


def test_a_made_id_is_the_same_on_each_delivery_and_another_in_a_new_stream() -> None:
    assert made_id(NOW, 7) == made_id(NOW, 7)
    assert len({made_id(NOW, 7), made_id(NOW, 8), made_id(NOW + timedelta(seconds=1), 7)}) == 3


def test_what_outlives_the_memory_of_ids_is_refused() -> None:
    taken = take(
        "a", b'{"to": [{"email": "a@x"}], "text": "", "sendAt": "2026-12-20T00:00:00Z"}', {}, made_id=lambda: "m"
    )
    assert taken.request is not None
    assert expiry_of(taken.request, NOW, SendLimits(10, 30 * 86400)) == datetime(2026, 12, 20, 0, 0, 10, tzinfo=UTC)
    assert not beyond(taken.request, NOW, SendLimits(10, 30 * 86400))
    assert beyond(taken.request, NOW, SendLimits(10, 5 * 86400))[0].field == "sendAt"


def test_a_time_to_send_near_the_end_of_the_memory_of_ids_is_good_and_the_life_ends_with_it() -> None:
    taken = take(
        "a", b'{"to": [{"email": "a@x"}], "text": "", "sendAt": "2026-12-20T00:00:00Z"}', {}, made_id=lambda: "m"
    )
    assert taken.request is not None
    limits = SendLimits(60 * 86400, 60 * 86400)
    assert not beyond(taken.request, NOW, limits)
    assert expiry_of(taken.request, NOW, limits) == NOW + timedelta(days=60)
