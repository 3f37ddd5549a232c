"""A request to send: what is taken, and what is refused with its field."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import RequestProblems, SendLimits, beyond, decode_request, email_id, encoded_parameters, for_one
from service.smtp.wire import rcpt_command

ID = email_id("INBOX", 7, 3)
BLOB = f"202611-{'0' * 64}"
GOOD: dict[str, Any] = {"id": "order-1", "to": [{"email": "a@example.org"}], "subject": "Hi", "text": "x"}


def envelope(mail: dict[str, str | None] | None = None, rcpt: dict[str, str | None] | None = None) -> dict[str, Any]:
    return {
        "mailFrom": {"email": "me@example.org", "parameters": mail},
        "rcptTo": [{"email": "a@example.org", "parameters": rcpt}],
    }


def merged(**variables: str) -> dict[str, Any]:
    return {"email": "a@example.org", "variables": variables}


def fields(**changes: Any) -> list[str]:
    with pytest.raises(RequestProblems) as raised:
        decode_request(json.dumps(GOOD | changes).encode())
    return [problem.field for problem in raised.value.problems]


def test_a_good_request_is_taken() -> None:
    assert decode_request(json.dumps(GOOD).encode()).recipients() == ["a@example.org"]


UNSUBSCRIBE = {"List-Unsubscribe": "<https://x.example/1?a=(b)>, (by mail)\t<mailto:leave@x.example?subject=leave%201>"}
ONE_CLICK = UNSUBSCRIBE | {"List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}


def test_fields_of_mailing_lists_are_taken_as_their_rfcs_have_them() -> None:
    right = ONE_CLICK | {"List-Post": "NO (announcements)", "List-Id": "All news <news.x.example>"}
    for headers in (right, {"List-Post": "<mailto:talk@x.example>"}):
        assert decode_request(json.dumps(GOOD | {"headers": headers}).encode()).headers == headers
    merge = {"List-Unsubscribe": "<https://x.example/{{u}}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
    to = [merged(u="1"), merged(u="2") | {"email": "b@x.example"}]
    assert decode_request(json.dumps(GOOD | {"split": True, "headers": merge, "to": to}).encode()).headers == merge


def test_with_split_an_envelope_says_where_bounces_go() -> None:
    given = GOOD | {"split": True, "cc": [], "envelope": {"mailFrom": {"email": "bounce@example.com"}}}
    taken = decode_request(json.dumps(given).encode())
    assert taken.recipients() == ["a@example.org"]
    own = for_one(taken, taken.to[0])
    assert own.envelope is not None
    assert own.envelope.mail_from.email == "bounce@example.com"


@pytest.mark.fault("E14")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"subject": 1}, "subject"),
        ({"to": [{"email": "a@example.org", "nick": "x"}]}, "to[0].nick"),
        ({"to": []}, "to"),
        ({"to": [{"email": "nobody"}]}, "to[0].email"),
        ({"bcc": [{"email": "x@\N{PILE OF POO}.la"}], "envelope": envelope()}, "bcc[0].email"),
        ({"bcc": [{"email": "x@exa_mple.\xfc"}], "envelope": envelope()}, "bcc[0].email"),
        ({"cc": [{"email": "a\x85b@example.org"}, {"email": "a\x9b1mb@example.org"}]}, "cc[1].email"),
        ({"envelope": {"mailFrom": {"email": "a\x90@example.org"}, "rcptTo": []}}, "envelope.mailFrom.email"),
        ({"replyTo": [{"email": "a@ex\x80mple.org"}]}, "replyTo[0].email"),
        ({"text": None}, "text"),
        ({"id": ""}, "id"),
        ({"headers": {"Subject": "twice"}}, "headers.Subject"),
        ({"headers": {"X Y": "1"}}, "headers"),
        ({"headers": {"X-Note": "1", "x-nOTE": "2"}}, "headers.x-nOTE"),
        ({"headers": UNSUBSCRIBE | {"LIST-UNSUBSCRIBE": "nothing"}}, "headers.LIST-UNSUBSCRIBE"),
        ({"headers": {"Resent-Bcc": "secret@example.org"}}, "headers.Resent-Bcc"),
        ({"inReplyTo": "<a@b>"}, "inReplyTo"),
        ({"attachments": [{"name": "a"}]}, "attachments[0]"),
        ({"rawBlobId": "x"}, "rawBlobId"),
        *(
            ({"rawBlobId": BLOB, "text": None, "subject": None, field: value}, field)
            for field, value in (
                ("subject", "x"),
                ("text", ""),
                ("html", "x"),
                ("headers", {"X-A": "1"}),
                ("inReplyTo", "a@b"),
                ("references", ["a@b"]),
                ("replyTo", [{"email": "a@example.org"}]),
                ("attachments", [{"content": ""}]),
            )
        ),
        ({"to": [{"email": "a@example.org", "name": "A" * 8001}]}, "to[0].name"),
        ({"references": ["a@b"] * 1001}, "references"),
        ({"attachments": [{"content": "", "cid": "logo"}] * 2}, "attachments[1].cid"),
        ({"envelope": envelope(mail={"SIZE": "1"})}, "envelope.mailFrom.parameters.SIZE"),
        ({"envelope": envelope(mail={"RET": "ALL"})}, "envelope.mailFrom.parameters.RET"),
        ({"envelope": envelope(mail={"RET": None})}, "envelope.mailFrom.parameters.RET"),
        ({"envelope": envelope(mail={"ENVID": "a\r\nb"})}, "envelope.mailFrom.parameters.ENVID"),
        ({"envelope": envelope(mail={"REQUIRETLS": "yes"})}, "envelope.mailFrom.parameters.REQUIRETLS"),
        ({"envelope": envelope(mail={"ret": "FULL", "RET": "HDRS"})}, "envelope.mailFrom.parameters"),
        ({"envelope": envelope(mail={"A B": "x"})}, "envelope.mailFrom.parameters"),
        ({"envelope": envelope(rcpt={"NOTIFY": "NEVER,DELAY"})}, "envelope.rcptTo[0].parameters.NOTIFY"),
        ({"envelope": envelope(rcpt={"NOTIFY": "DELAY,DELAY"})}, "envelope.rcptTo[0].parameters.NOTIFY"),
        ({"envelope": envelope(rcpt={"ORCPT": "a@b"})}, "envelope.rcptTo[0].parameters.ORCPT"),
        ({"envelope": envelope(rcpt={"RET": "FULL"})}, "envelope.rcptTo[0].parameters.RET"),
        ({"sendAt": "2026-12-02T08:00:00Z", "expiresAt": "2026-12-01T08:00:00Z"}, "expiresAt"),
        ({"sendAt": "tomorrow"}, "sendAt"),
        ({"sendAt": "9999-12-31T23:59:59Z"}, "sendAt"),
        ({"expiresAt": "0001-01-01T00:00:00Z"}, "expiresAt"),
        ({"to": [{"email": "a@example.org", "variables": {"x": "1"}}]}, "to[0].variables"),
        ({"cc": [{"email": "a@example.org", "variables": {}}]}, "cc[0].variables"),
        ({"split": True, "cc": [{"email": "b@example.org"}]}, "cc"),
        ({"split": True, "envelope": envelope()}, "envelope.rcptTo"),
        ({"envelope": {"mailFrom": {"email": "a@example.org"}}}, "envelope.rcptTo"),
        ({"headers": {"List-Unsubscribe": "https://x.example/u"}}, "headers.List-Unsubscribe"),
        ({"headers": {"List-Unsubscribe": "<https://x.example/u>,"}}, "headers.List-Unsubscribe"),
        ({"headers": {"List-Unsubscribe": "<https://x.example/u> <mailto:a@b>"}}, "headers.List-Unsubscribe"),
        ({"headers": {"list-unsubscribe": "<https://x.example/a b>"}}, "headers.list-unsubscribe"),
        ({"headers": {"List-Unsubscribe": "NO"}}, "headers.List-Unsubscribe"),
        ({"headers": {"List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}}, "headers.List-Unsubscribe-Post"),
        ({"headers": UNSUBSCRIBE | {"List-Unsubscribe-Post": "yes"}}, "headers.List-Unsubscribe-Post"),
        ({"headers": {**ONE_CLICK, "List-Unsubscribe": "<mailto:a@b.example>"}}, "headers.List-Unsubscribe-Post"),
        ({"headers": {"List-Id": "news.example.org"}}, "headers.List-Id"),
        ({"headers": {"List-Id": "News <news>"}}, "headers.List-Id"),
        ({"headers": {"List-Id": f"News <{'n' * 250}.example>"}}, "headers.List-Id"),
        ({"headers": {"List-Unsubscribe": f"<https://x.example/{'u' * 940}>"}}, "headers.List-Unsubscribe"),
        ({"headers": {"List-Archive": "<https://x.example/> (f\xfcr alle)"}}, "headers.List-Archive"),
        ({"headers": {"Resent-To": "J\xfcrgen <j@x.example>"}}, "headers.Resent-To"),
        ({"headers": {"Disposition-Notification-To": "<j\x1b@x.example>"}}, "headers.Disposition-Notification-To"),
        ({"headers": {"Autocrypt": f"addr=a@x.example; keydata={'A' * 2000}"}}, "headers.Autocrypt"),
        (
            {"split": True, "headers": {"Errors-To": "<{{x}}@x.example>"}, "to": [merged(x="\xfc")]},
            "headers.Errors-To",
        ),
        (
            {"split": True, "headers": {"List-Unsubscribe": "<{{x}}>"}, "to": [merged(x="a b")]},
            "headers.List-Unsubscribe",
        ),
        ({"split": True, "to": [{"email": "a@example.org"}] * 2}, "to[1].email"),
        ({"split": True, "to": [{"email": "a@example.org"}, {"email": "a@Example.ORG"}]}, "to[1].email"),
        (
            {"split": True, "to": [{"email": "a@b\xfccher.example"}, {"email": "a@XN--Bcher-KVA.example"}]},
            "to[1].email",
        ),
        ({"split": True, "text": "{{x}}"}, "to[0].variables.x"),
        ({"split": True, "headers": {"X-A": "{{x}}"}}, "to[0].variables.x"),
        ({"split": True, "subject": "{{x}}", "to": [merged(x="a\r\nBcc: b")]}, "to[0].variables.x"),
        ({"split": True, "subject": "{{x}}", "to": [merged(x="y" * 9000)]}, "to[0].variables"),
        ({"split": True, "text": "{{x}}" * 5000, "to": [merged(x="y" * 5000)]}, "to[0].variables"),
        ({"split": True, "to": [{"email": "a@example.org", "variables": {"a b": "1"}}]}, "to[0].variables"),
        ({"to": [{"email": f"{n:0>60}@{'x' * 200}.example"} for n in range(300)]}, "to"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert field in fields(**changes)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"priority": "urgent"}, "normal, high"),
        ({"attachments": [{"disposition": "embedded"}]}, "attachment, inline"),
    ],
)
def test_a_wrong_value_of_a_few_is_said_beside_those_that_there_are(changes: dict[str, Any], known: str) -> None:
    with pytest.raises(RequestProblems) as raised:
        decode_request(json.dumps(GOOD | changes).encode())
    assert raised.value.problems[0].message.endswith(f"; known are {known}")


def test_parameters_of_the_envelope_are_taken_and_a_null_among_them_says_something() -> None:
    given = GOOD | {
        "cc": None,
        "envelope": envelope({"REQUIRETLS": None, "envid": "a+b c"}, {"Notify": "Success,delay"}),
    }
    taken = decode_request(json.dumps(given).encode()).envelope
    assert taken is not None
    assert encoded_parameters(taken.mail_from.parameters) == {"REQUIRETLS": None, "ENVID": "a+2Bb+20c"}
    assert encoded_parameters(taken.rcpt_to[0].parameters) == {"NOTIFY": "SUCCESS,DELAY"}
    assert encoded_parameters({"ORCPT": "rfc822;a=b@x"}) == {"ORCPT": "rfc822;a+3Db@x"}


@given(st.dictionaries(st.sampled_from(["RET", "ENVID", "REQUIRETLS"]), st.none() | st.text(max_size=8)))
def test_any_parameters_are_refused_or_stay_one_command(given: dict[str, str | None]) -> None:
    try:
        taken = decode_request(json.dumps(GOOD | {"envelope": envelope(given)}).encode()).envelope
    except RequestProblems:
        return
    assert taken is not None
    for value in encoded_parameters(taken.mail_from.parameters).values():
        assert value is None or re.fullmatch("[!-~]+", value)


@pytest.mark.fault("G07")
@pytest.mark.parametrize("bad", ["a\r\nBcc: x@y.z", "a\nb", "a\rb", "a\0b"])
def test_line_breaks_are_refused_wherever_they_would_become_a_header_or_a_command(bad: str) -> None:
    assert fields(subject=bad) == ["subject"]
    assert fields(headers={"X-A": bad}) == ["headers.X-A"]
    assert fields(to=[{"email": "a@example.org", "name": bad}]) == ["to[0].name"]
    assert fields(to=[{"email": f"{bad}@example.org"}]) == ["to[0].email"]
    assert fields(inReplyTo=bad) == ["inReplyTo"]
    assert fields(envelope={"mailFrom": {"email": bad}, "rcptTo": [{"email": "a@b"}]}) == ["envelope.mailFrom.email"]


def test_a_domain_in_another_case_or_script_is_the_same_recipient_and_another_local_part_is_none() -> None:
    to = ["a@Example.org", "A@example.org", "b@bücher.example"]
    cc = ["a@example.ORG", "b@xn--bcher-kva.example", "c@example.org"]
    both = {name: [{"email": email} for email in emails] for name, emails in (("to", to), ("cc", cc))}
    assert decode_request(json.dumps(GOOD | both).encode()).recipients() == [*to, "c@example.org"]


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


def test_a_value_stands_where_its_name_does_as_the_place_wants_it() -> None:
    given = GOOD | {
        "split": True,
        "subject": "{{who}} & {{ who }}",
        "text": "{{who}} {{who}} {who} {{ }}",
        "html": '<a title="{{who}}">{{who}}</a>',
        "headers": {"X-Who": "{{who}}"},
        "to": [merged(who='<"A&B">', unused="x")],
    }
    request = decode_request(json.dumps(given).encode())
    own = for_one(request, request.to[0])
    assert own.subject == own.subject.replace("{{", "") == '<"A&B"> & <"A&B">'
    assert own.text == '<"A&B"> <"A&B"> {who} {{ }}'
    assert own.html == '<a title="&lt;&quot;A&amp;B&quot;&gt;">&lt;&quot;A&amp;B&quot;&gt;</a>'
    assert own.headers == {"X-Who": '<"A&B">'}
    assert (own.split, own.recipients()) == (False, ["a@example.org"])


def test_without_split_braces_are_text() -> None:
    assert decode_request(json.dumps(GOOD | {"text": "{{x}}"}).encode()).text == "{{x}}"


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_value_of_a_variable_is_read_as_another(text: str, value: str) -> None:
    """What a value says is never looked at again: `{{x}}` in it stays."""
    request = {**GOOD, "split": True, "text": f"{text}{{{{x}}}}", "to": [merged(x=value + "{{x}}")]}
    try:
        taken = decode_request(json.dumps(request).encode())
    except RequestProblems:
        return
    own = for_one(taken, taken.to[0])
    assert own.text is not None
    assert own.text.endswith(value + "{{x}}")


@pytest.mark.parametrize(
    "address",
    ['"two words"@x.example', '"a@b"@x.example', '"a\\"b"@x.example', "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "jü@x"],
)
def test_quoted_local_parts_and_address_literals_are_addresses(address: str) -> None:
    request = decode_request(json.dumps(GOOD | {"to": [{"email": address}]}).encode())
    assert request.recipients() == [address]
    assert rcpt_command(address, {}) == f"RCPT TO:<{address}>\r\n".encode()


@pytest.mark.parametrize(
    "address",
    [
        '"a"b@x',
        '"a>b"@x',
        '"a\r\nb"@x',
        '"a\\\nb"@x',
        "a@[300.1.1.1]",
        "a@[IPv6:x]",
        "a@[x]",
        "a b@x",
        '"a@x',
        "a@x.",
        "a@x..y",
    ],
)
def test_what_only_looks_like_one_is_not(address: str) -> None:
    assert "to[0].email" in fields(to=[{"email": address}])


@pytest.mark.parametrize(
    ("type", "good"),
    [
        ("text/calendar; method=REQUEST", True),
        ('text/plain;charset="utf-8"; format=flowed', True),
        ("text/plain; x=\r\n y", False),
        ("text/plain; x", False),
        ("text/plain;", False),
        ("Message/rfc822", False),
        ("multipart/mixed; boundary=x", False),
    ],
)
def test_a_media_type_may_have_parameters(type: str, good: bool) -> None:
    file = {"type": type, "content": "eA=="}
    if good:
        assert decode_request(json.dumps(GOOD | {"attachments": [file]}).encode()).attachments[0].type == type
    else:
        assert fields(attachments=[file]) == ["attachments[0].type"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"reply": {"emailId": "x"}}, "reply.emailId"),
        ({"forward": {"emailId": "m" * 20}}, "forward.emailId"),
        ({"reply": {"emailId": ID}, "forward": {"emailId": ID}}, "forward"),
        ({"reply": {"emailId": ID}, "inReplyTo": "a@b"}, "inReplyTo"),
        ({"reply": {"emailId": ID}, "split": True}, "split"),
        ({"forward": {"emailId": ID}, "to": []}, "to"),
        ({"reply": {"id": ID}}, "reply.id"),
    ],
)
def test_what_goes_not_with_an_answer_is_named(changes: dict[str, Any], field: str) -> None:
    assert field in fields(**changes)


@pytest.mark.parametrize(("window", "words"), [(timedelta(days=30), "30 days"), (timedelta(hours=12), "0.5 days")])
def test_what_outlives_the_memory_of_it_is_told_how_long_that_is(window: timedelta, words: str) -> None:
    request = decode_request(json.dumps(GOOD | {"sendAt": "2100-01-01T00:00:00Z"}).encode())
    (problem,) = beyond(request, datetime.now(UTC), SendLimits(60.0, window.total_seconds()))
    assert (problem.field, problem.message) == (
        "sendAt",
        f"later than requests are remembered: {words} (`outgoing.window`)",
    )
