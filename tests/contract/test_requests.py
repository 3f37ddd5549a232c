"""A request to send: what is taken, and what is refused with its field."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import RequestProblems, decode_request

GOOD: dict[str, Any] = {"id": "order-1", "to": [{"email": "a@example.org"}], "subject": "Hi", "text": "x"}


def fields(**changes: Any) -> list[str]:
    with pytest.raises(RequestProblems) as raised:
        decode_request(json.dumps(GOOD | changes).encode())
    return [problem.field for problem in raised.value.problems]


def test_a_good_request_is_taken() -> None:
    assert decode_request(json.dumps(GOOD).encode()).recipients() == ["a@example.org"]


@pytest.mark.fault("E14")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"subject": 1}, "subject"),
        ({"to": [{"email": "a@example.org", "nick": "x"}]}, "to[0].nick"),
        ({"to": []}, "to"),
        ({"to": [{"email": "nobody"}]}, "to[0].email"),
        ({"text": None}, "text"),
        ({"id": ""}, "id"),
        ({"headers": {"Subject": "twice"}}, "headers.Subject"),
        ({"headers": {"X Y": "1"}}, "headers"),
        ({"inReplyTo": "<a@b>"}, "inReplyTo"),
        ({"attachments": [{"name": "a"}]}, "attachments[0]"),
        ({"rawBlobId": "x"}, "rawBlobId"),
        ({"sendAt": "2026-12-02T08:00:00Z", "expiresAt": "2026-12-01T08:00:00Z"}, "expiresAt"),
        ({"sendAt": "tomorrow"}, "sendAt"),
        ({"sendAt": "9999-12-31T23:59:59Z"}, "sendAt"),
        ({"expiresAt": "0001-01-01T00:00:00Z"}, "expiresAt"),
        ({"to": [{"email": f"{n:0>60}@{'x' * 200}.example"} for n in range(300)]}, "to"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert field in fields(**changes)


@pytest.mark.fault("G07")
@pytest.mark.parametrize("bad", ["a\r\nBcc: x@y.z", "a\nb", "a\rb", "a\0b"])
def test_line_breaks_are_refused_wherever_they_would_become_a_header_or_a_command(bad: str) -> None:
    assert fields(subject=bad) == ["subject"]
    assert fields(headers={"X-A": bad}) == ["headers.X-A"]
    assert fields(to=[{"email": "a@example.org", "name": bad}]) == ["to[0].name"]
    assert fields(to=[{"email": f"{bad}@example.org"}]) == ["to[0].email"]
    assert fields(inReplyTo=bad) == ["inReplyTo"]
    assert fields(envelope={"mailFrom": {"email": bad}, "rcptTo": [{"email": "a@b"}]}) == ["envelope.mailFrom.email"]


def test_null_is_absent_as_in_jmap() -> None:
    nulls = {"cc": None, "replyTo": None, "attachments": None, "headers": None, "html": None, "sendAt": None}
    full = {"envelope": {"mailFrom": {"email": "a@b.c", "parameters": None}, "rcptTo": [{"email": "d@e.f"}]}}
    assert decode_request(json.dumps(GOOD | nulls | full).encode()).recipients() == ["d@e.f"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert fields(to=[], subject="a\nb") == ["to", "subject"]


def test_wrong_types_and_unknown_fields_are_said_beside_wrong_values() -> None:
    wrong = {"to": [{"email": "bad"}], "subject": 5, "foo": 1, "bar": {"baz": 2}, "html": 7}
    assert sorted(fields(**wrong)) == ["bar", "foo", "html", "subject", "to[0].email"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_problems(payload: bytes) -> None:
    with pytest.raises(RequestProblems):
        decode_request(payload)
