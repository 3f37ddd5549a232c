"""Words and codes of servers → why, in Sisimai's vocabulary."""

import pytest

from service.contract import Reason
from tests.meaning.mails import dsn, reports_of


def reason(diagnostic: str, status: str = "5.0.0", remote: str = "mx.example.net") -> tuple[str, bool]:
    fields = (
        "Final-Recipient: rfc822; who@example.net\nAction: failed\n"
        f"Status: {status}\nRemote-MTA: dns; {remote}\nDiagnostic-Code: smtp; {diagnostic}"
    )
    (report,) = reports_of(dsn(fields))
    assert isinstance(report.reason, Reason)
    assert isinstance(report.hard, bool)
    return report.reason.value, report.hard


@pytest.mark.parametrize(
    ("diagnostic", "wanted"),
    [
        ("550 no such user", "userunknown"),
        ("550 <who@example.net>: Recipient address rejected: User unknown in virtual mailbox table", "userunknown"),
        ("550 Requested action not taken: mailbox unavailable", "userunknown"),
        ("554 delivery error: dd This user doesn't have a example.net account", "userunknown"),
        ("552 Requested mail action aborted: over quota", "mailboxfull"),
        ("452 4.2.2 The email account that you tried to reach is over quota", "mailboxfull"),
        ("552 5.3.4 Message size exceeds fixed maximum message size", "mesgtoobig"),
        ("550 The account has been suspended", "suspend"),
        ("550 5.7.1 Unable to relay", "norelaying"),
        ("550 Host unknown", "hostunknown"),
        ("550 5.7.1 Message rejected as spam by content scanner", "spamdetected"),
        ("554 5.7.1 Service unavailable; client [192.0.2.1] blocked using zen.spamhaus.org", "blocked"),
        ("550 5.7.26 Unauthenticated email is not accepted due to the domain's DMARC policy", "authfailure"),
        ("550 the sender's SPF check failed", "authfailure"),
        ("554 your host has no PTR record", "requireptr"),
        ("421 too many connections from your host", "toomanyconn"),
        ("550 message contains a virus", "virusdetected"),
        ("553 sender address rejected: domain not found", "rejected"),
        ("554 too many hops", "networkerror"),
        ("556 this host does not accept mail: Null MX", "notaccept"),
        ("530 5.7.0 Must issue a STARTTLS command first", "failedstarttls"),
        ("450 try again slower", "speeding"),
        ("550 email not accepted for policy reasons", "policyviolation"),
        ("554 message contains spam or virus", "spamdetected"),
        ("550 sender IP address rejected", "blocked"),
        ("550 you are sending spam", "blocked"),
        ("550 we do not accept mail from dynamic IPs", "blocked"),
        ("550 mail domain mentioned in the address is unknown", "hostunknown"),
        ("550 non existent user", "userunknown"),
        ("550 Benutzer unknown", "userunknown"),
        ("550 <who@example.net> not found", "userunknown"),
        ("554 aliasing/forwarding loop broken", "systemerror"),
        ("554 mail loop detected", "networkerror"),
        ("552 disk space quota reached", "mailboxfull"),
        ("550 account not subscribed to SES", "securityerror"),
        ("450 <mail.example.org>: Helo command rejected: Host not found", "blocked"),
        ("550 Unable to verify your sender address: domain example.org does not exist", "rejected"),
        ("550 User unknown in local sender table", "rejected"),
        ("550 5.7.27 Sender address has null MX", "rejected"),
        ("535 authentication failed: account not found", "securityerror"),
        ("550 zzz", "onhold"),
    ],
)
def test_words_say_why(diagnostic: str, wanted: str) -> None:
    assert reason(diagnostic)[0] == wanted


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ("5.1.1", ("userunknown", True)),
        ("5.1.2", ("hostunknown", True)),
        ("5.1.6", ("hasmoved", True)),
        ("5.2.2", ("mailboxfull", False)),
        ("4.4.7", ("expired", False)),
        ("5.7.25", ("requireptr", False)),
    ],
)
def test_a_status_says_why_where_the_words_do_not(status: str, wanted: tuple[str, bool]) -> None:
    assert reason("550 zzz", status) == wanted


@pytest.mark.parametrize(
    ("diagnostic", "status", "remote", "wanted"),
    [
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "5.7.606", "mx.outlook.com", "blocked"),
        ("550 5.4.1 Recipient address rejected: Access denied", "5.4.1", "mx.outlook.com", "userunknown"),
        ("421 4.7.0 [TSS04] deferred due to user complaints", "4.7.0", "mta5.yahoodns.net", "badreputation"),
        ("550 5.5.0 Service refused. OFR_416", "5.5.0", "smtp-in.orange.fr", "userunknown"),
        ("550 Unknown user who@docomo.ne.jp (in reply to end of DATA command)", "5.0.0", "m.docomo.ne.jp", "rejected"),
        ("550 Unknown user who@docomo.ne.jp (in reply to RCPT TO command)", "5.0.0", "mfs.docomo.ne.jp", "userunknown"),
        ("554 RCP-P1 http://postmaster.example", "5.0.0", "smtpin.mx.facebook.com", "userunknown"),
    ],
)  # fmt: skip
def test_codes_of_providers(diagnostic: str, status: str, remote: str, wanted: str) -> None:
    assert reason(diagnostic, status, remote)[0] == wanted


def test_who_refuses_after_the_content_has_a_filter() -> None:
    assert reason("550 user unknown (in reply to end of DATA command)")[0] == "filtered"
    assert reason("550 user unknown (in reply to RCPT TO command)")[0] == "userunknown"


def test_a_disabled_mailbox_whose_user_nobody_knows_at_rcpt_is_none() -> None:
    assert (
        reason("550 5.2.1 <who@example.net>... User Unknown (in reply to RCPT TO command)", "5.2.1")[0] == "userunknown"
    )
    assert reason("550 5.2.1 <who@example.net>... User Unknown", "5.2.1")[0] == "filtered"
