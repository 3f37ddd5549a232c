"""docs/schema is what the classes say, and what mailbus writes is what docs/schema says."""

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from service.contract import (
    AFTER_HEADER,
    KIND_HEADER,
    AccountEvent,
    AccountPart,
    AccountState,
    Changed,
    DeliveryStatus,
    EmailSubmission,
    EventType,
    Problem,
    Problems,
    Removed,
    Reset,
    ResetReason,
    SendAnswer,
    SendRequest,
    State,
    Subjects,
    Verb,
    cloud_event_headers,
    encode,
)
from service.mime import MimeLimits, parse
from tools.schema import FOLDER, documents, text_of

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
EVENTS = documents()["events.json"]
ASYNCAPI = documents()["asyncapi.json"]

MAIL = b"""\
From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\r
To: Team: a@example.com, "B" <b@example.com>;\r
Subject: =?iso-8859-1?q?Gr=FC=DFe?=\r
Date: Tue, 24 Nov 2026 12:00:00 +0100\r
Message-ID: <1@example.org>\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary=b\r
\r
--b\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: 8bit\r
\r
Gr\xc3\xbc\xc3\x9fe\r
--b\r
Content-Type: application/pdf; name="bill.pdf"\r
Content-Transfer-Encoding: base64\r
\r
JVBERi0=\r
--b--\r
"""


def validator(name: str) -> Any:
    """Of one body, formats included."""
    return jsonschema_rs.Draft202012Validator(EVENTS | {"$ref": f"#/$defs/{name}"}, validate_formats=True)


def parsed(raw: bytes) -> bytes:
    email = parse(raw, received_at=NOW, limits=MimeLimits(), inline_limit=262144).email
    return encode(msgspec.structs.replace(email, id="x", mailbox_ids={"m": True}, keywords={"$seen": True}))


@pytest.mark.parametrize("name", list(documents()))
def test_the_file_is_what_the_classes_say(name: str) -> None:
    file = FOLDER / name
    assert file.read_text(encoding="utf-8") == text_of(documents()[name]), "run: make schema"


def test_the_schema_is_one_of_2020_12() -> None:
    jsonschema_rs.Draft202012Validator(EVENTS)
    assert jsonschema_rs.meta.is_valid(EVENTS)
    for name in EVENTS["$defs"]:
        validator(name)


SUBMISSION = EmailSubmission(
    id="order-1",
    undo_status="final",
    delivery_status={"a@example.org": DeliveryStatus(smtp_reply="250 2.0.0 ok", delivered="unknown")},
    state=State.SENT,
    attempt=1,
    message_id="k@mail.example",
)
REFUSED = msgspec.structs.replace(SUBMISSION, next_attempt_at=NOW, problems=[Problem("to", "no address")])


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Email", parsed(MAIL)),
        ("Email", parsed(b"")),
        ("Email", parsed(b"\x00\xff: \r\n\r\n\x80")),
        ("Changed", encode(Changed(id="x", mailbox_ids={"m": True}, keywords={"$seen": True}))),
        ("Removed", encode(Removed(id="x", mailbox_ids={"m": True}))),
        ("Reset", encode(Reset("INBOX", ResetReason.START, 1, None))),
        ("Reset", encode(Reset("INBOX", ResetReason.UIDVALIDITY, 2, 1))),
        ("AccountEvent", encode(AccountEvent("a", AccountState.CONNECTED, NOW, "pod-1"))),
        ("AccountEvent", encode(AccountEvent("a", AccountState.DEGRADED, NOW, "pod-1", "INBOX", "no", "yes"))),
        ("AccountEvent", encode(AccountEvent("a", AccountState.DEGRADED, NOW, "pod-1", part=AccountPart.SENDER))),
        ("EmailSubmission", encode(SUBMISSION)),
        (
            "EmailSubmission",
            encode(msgspec.structs.replace(SUBMISSION, next_attempt_at=NOW, problems=[Problem("a", "b")])),
        ),
        ("SendAnswer", encode(SendAnswer(id="x"))),
        ("Problems", encode(Problems([Problem("to", "no address")]))),
        ("SendRequest", encode(SendRequest(id="x", subject="s", text="t"))),
    ],
)
def test_what_we_write_is_what_the_schema_says(name: str, body: bytes) -> None:
    validator(name).validate(json.loads(body))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("SendRequest", {"id": "x", "sujbect": "typo"}),
        ("SendRequest", {"to": "a@example.org"}),
        ("SendRequest", {"sendAt": "tomorrow"}),
        ("Changed", {"id": "x"}),
        ("Reset", {"mailbox": "INBOX", "reason": "boredom", "uidvalidity": 1, "oldUidvalidity": None}),
        ("AccountEvent", {"account": "a", "state": "connected", "at": "noon", "instance": "i"}),
        ("EmailSubmission", {"id": "x"}),
    ],
)
def test_the_schema_refuses_what_is_wrong(name: str, body: dict[str, Any]) -> None:
    assert not validator(name).is_valid(body)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                target: Any = ASYNCAPI
                for step in reference.removeprefix("#/").split("/"):
                    target = target[step]
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    assert ASYNCAPI["asyncapi"].startswith("3.")
    walk(ASYNCAPI)


def test_the_asyncapi_addresses_are_the_subjects_we_use() -> None:
    subjects = Subjects("mail")
    values = {"prefix": "mail", "account": "a", "mailbox": "INBOX", "state": "sent", "reason": "request"}
    used = {
        "received": subjects.event("a", "INBOX", "received"),
        "changed": subjects.event("a", "INBOX", "changed"),
        "removed": subjects.event("a", "INBOX", "removed"),
        "reset": subjects.event("a", "INBOX", "reset"),
        "out": subjects.out("a"),
        "status": subjects.status("a", "sent"),
        "account": subjects.account("a", "sent"),
        "dead": subjects.dead("request"),
    } | {str(verb): subjects.cmd("a", verb) for verb in Verb}
    addresses = {name: channel["address"] for name, channel in ASYNCAPI["channels"].items() if channel["address"]}
    assert {name: address.format(**values) for name, address in addresses.items()} == used


def test_the_headers_we_write_are_those_of_the_document() -> None:
    schema = ASYNCAPI["components"]["schemas"]["CloudEventHeaders"]
    headers = cloud_event_headers(EventType.RECEIVED, source="/mail/a/INBOX", id="1", time=NOW, subject="x")
    assert sorted(headers) == sorted(schema["required"])
    jsonschema_rs.Draft202012Validator(schema).validate(headers)


def test_the_document_has_every_header_that_consumers_of_mail_may_use() -> None:
    schema = ASYNCAPI["components"]["schemas"]["ReceivedHeaders"]
    assert KIND_HEADER in schema["required"]
    assert set(schema["properties"]) - set(schema["required"]) == {AFTER_HEADER}


def test_every_time_has_its_format() -> None:
    times = ["receivedAt", "sentAt"]
    for name in times:
        assert "date-time" in json.dumps(EVENTS["$defs"]["Email"]["properties"][name])
    for name in ("sendAt", "expiresAt"):
        assert "date-time" in json.dumps(EVENTS["$defs"]["SendRequest"]["properties"][name])
