"""Any header field, in the form that is asked for."""

from datetime import UTC, datetime

import pytest

from service.contract import EmailAddress, EmailAddressGroup, EmailHeader, header_property
from service.mime import MimeLimits, header_form

FIELDS = [
    EmailHeader("X-Tag", " one"),
    EmailHeader("x-tag", " =?utf-8?q?zw=C3=B6lf?=\r\n and more"),
    EmailHeader("Resent-To", ' "Ada L." <ada@x.example>, Team: b@x.example, c@x.example;'),
    EmailHeader("X-To", ' undisclosed:; d@x.example, "=?utf-8?q?B=C3=BCro?=, A": Ada L. <ada@x.example>; e@x.example'),
    EmailHeader("References", " <a@x>\r\n <b@x>"),
    EmailHeader("Resent-Date", " Tue, 24 Nov 2026 12:00:00 +0000"),
    EmailHeader("List-Unsubscribe", " (by mail) <mailto:u@x.example?subject=a>,\r\n <https://x.example/\r\n u>"),
    EmailHeader("List-Post", " NO (closed)"),
]
ADA = EmailAddress("Ada L.", "ada@x.example")
SHOWN = {
    "header:X-Tag": " =?utf-8?q?zw=C3=B6lf?=\r\n and more",
    "header:x-TAG:asText": "zwölf and more",
    "header:X-Tag:asText:all": ["one", "zwölf and more"],
    "header:X-None": None,
    "header:X-None:asDate:all": [],
    "header:Resent-To:asAddresses": [ADA, EmailAddress(None, "b@x.example"), EmailAddress(None, "c@x.example")],
    "header:Resent-To:asGroupedAddresses": [
        EmailAddressGroup(None, [ADA]),
        EmailAddressGroup("Team", [EmailAddress(None, "b@x.example"), EmailAddress(None, "c@x.example")]),
    ],
    "header:X-To:asGroupedAddresses": [
        EmailAddressGroup("undisclosed", []),
        EmailAddressGroup(None, [EmailAddress(None, "d@x.example")]),
        EmailAddressGroup("Büro, A", [ADA]),
        EmailAddressGroup(None, [EmailAddress(None, "e@x.example")]),
    ],
    "header:X-None:asGroupedAddresses": None,
    "header:References:asMessageIds": ["a@x", "b@x"],
    "header:X-Tag:asMessageIds": None,
    "header:Resent-Date:asDate": datetime(2026, 11, 24, 12, tzinfo=UTC),
    "header:X-Tag:asDate": None,
    "header:List-Unsubscribe:asURLs": ["mailto:u@x.example?subject=a", "https://x.example/u"],
    "header:List-Post:asURLs": None,
}


@pytest.mark.parametrize("asked", SHOWN)
def test_a_field_is_given_as_it_is_asked_for(asked: str) -> None:
    assert header_form(FIELDS, header_property(asked), MimeLimits()) == SHOWN[asked]


@pytest.mark.parametrize(
    "asked",
    [
        "header:",
        "header:a b",
        "header:ä",
        "header:X-Tag:asDate:asText",
        "header:X-Tag:all:asText",
        "header:Subject:asGroupedAddresses",
        "header:X-Tag:ASTEXT",
        "header:Subject:asDate",
        "header:From:asText",
        "header:Received:asText",
        "header:" + "x" * 256,
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(asked: str) -> None:
    with pytest.raises(ValueError, match="header:"):
        header_property(asked)
