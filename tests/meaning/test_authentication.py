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


def test_what_stands_above_all_that_a_sender_can_write_is_believed() -> None:
    assert verdicts(PASS + OURS) == Authentication("mx.example.org", spf="pass", dkim="pass")


def test_its_domain_will_do_for_its_name() -> None:
    field = "Authentication-Results: example.org 1; dmarc=fail (p=none) header.from=b.example\n"
    assert verdicts(field + OURS) == Authentication("example.org", dmarc="fail")


@pytest.mark.parametrize(
    "header",
    [
        # Under the server's own name, through a server that writes no such fields and so removes none.
        OURS + PASS,
        OURS + PASS.replace("mx.example.org", "mx.evil.example"),
        PASS.replace("mx.example.org", "mx.evil.example") + OURS,
        PASS.replace("mx.example.org", "org") + OURS,
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
    header = f"Authentication-Results: mx.example.org; spf=fail smtp.mailfrom=a@b.example\n{OURS}{forged}"
    assert verdicts(header) == Authentication("mx.example.org", spf="fail")
    assert verdicts(header, server="mx.example.org") == Authentication("mx.example.org", spf="fail")


def test_filters_that_write_a_field_each_are_one_server() -> None:
    header = "".join(
        f"Authentication-Results: mx.example.org; {one}\n" for one in ("dmarc=pass", "dkim=pass", "spf=fail")
    )
    both = Authentication("mx.example.org", spf="fail", dkim="pass", dmarc="pass")
    assert verdicts(header + OURS) == both
    assert verdicts(OURS + header, server="mx.example.org") == both


@pytest.mark.parametrize(
    "said",
    [
        'spf=fail smtp.mailfrom="a;dmarc=pass;dkim=pass"@evil.example',
        "spf=fail (of a;dmarc=pass;dkim=pass) smtp.mailfrom=a@evil.example",
        "spf=fail (((((( a;dmarc=pass;dkim=pass )))))) smtp.mailfrom=a@evil.example",
        r"spf=fail (of a\) ;dmarc=pass;dkim=pass) smtp.mailfrom=a@evil.example",
        'spf=fail (says "it) ;dmarc=fail (is";dmarc=pass;dkim=pass)',
        "spf=fail; dmarc=fail (of a;dkim=pass; x=y",
        'spf=fail; dmarc=fail reason="a;dkim=pass; x=y',
    ],
)
@pytest.mark.fault("E16")
def test_what_a_sender_has_the_server_quote_is_no_verdict(said: str) -> None:
    found = verdicts(f"{OURS}Authentication-Results: mx.example.org; {said}\n", server="mx.example.org")
    assert found is not None
    assert (found.spf, found.dkim, found.dmarc is UNSET or found.dmarc == "fail") == ("fail", UNSET, True)


def test_one_signature_that_verifies_is_enough() -> None:
    field = "Authentication-Results: mx.example.org; dkim=fail (bad (nested) key) header.d=x; dkim=pass header.d=y\n"
    assert verdicts(field + OURS) == Authentication("mx.example.org", dkim="pass")


def test_no_verdict_is_nothing_to_say() -> None:
    assert verdicts(f"Authentication-Results: mx.example.org; none\n{OURS}") is None
