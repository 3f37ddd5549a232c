"""Verdicts of the account's own mail server, and of nobody else (RFC 8601)."""

import pytest
from msgspec import UNSET

from service.contract import Authentication
from tests.meaning.mails import meaning_of

OURS = "Received: from x by mx.example.org with ESMTPS; Thu, 26 Nov 2026 10:00:00 +0000\n"
PASS = "Authentication-Results: mx.example.org; spf=pass smtp.mailfrom=a@b.example; dkim=pass header.d=b.example\n"


def verdicts(header: str, server: str = "") -> Authentication | None:
    found = meaning_of(f"{header}From: a@b.example\n\ntext\n", server=server).authentication
    return None if found is UNSET else found


def test_the_server_that_stored_the_mail_is_believed() -> None:
    assert verdicts(OURS + PASS) == Authentication("mx.example.org", spf="pass", dkim="pass")
    assert verdicts(PASS + OURS) == Authentication("mx.example.org", spf="pass", dkim="pass")


def test_its_domain_will_do_for_its_name() -> None:
    field = "Authentication-Results: example.org 1; dmarc=fail (p=none) header.from=b.example\n"
    assert verdicts(OURS + field) == Authentication("example.org", dmarc="fail")


@pytest.mark.parametrize(
    "header",
    [
        OURS + PASS.replace("mx.example.org", "mx.evil.example"),
        OURS + PASS.replace("mx.example.org", "org"),
        PASS,
        # The sender's own, below one that counts for nothing.
        OURS + "Authentication-Results: mx.evil.example; spf=fail\n" + PASS,
    ],
)
@pytest.mark.fault("E16")
def test_what_a_stranger_wrote_is_not_believed(header: str) -> None:
    assert verdicts(header) is None


def test_a_server_that_settings_name_is_believed_wherever_it_stands() -> None:
    header = OURS + "Authentication-Results: relay.example.net; spf=fail\n" + PASS.replace("mx.example", "mx.provider")
    assert verdicts(header, server="mx.provider.org") == Authentication("mx.provider.org", spf="pass", dkim="pass")


def test_the_topmost_counts_where_there_are_two() -> None:
    forged = "Authentication-Results: mx.example.org; spf=pass; dkim=pass; dmarc=pass\n"
    header = f"{OURS}Authentication-Results: mx.example.org; spf=fail smtp.mailfrom=a@b.example\n{forged}"
    assert verdicts(header) == Authentication("mx.example.org", spf="fail")


def test_one_signature_that_verifies_is_enough() -> None:
    field = "Authentication-Results: mx.example.org; dkim=fail (bad (nested) key) header.d=x; dkim=pass header.d=y\n"
    assert verdicts(OURS + field) == Authentication("mx.example.org", dkim="pass")


def test_no_verdict_is_nothing_to_say() -> None:
    assert verdicts(f"{OURS}Authentication-Results: mx.example.org; none\n") is None
