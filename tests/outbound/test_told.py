"""Of whom a report speaks, and when it puts him on the list of suppressions."""

from datetime import UTC, datetime

import msgspec
import pytest
from msgspec import UNSET

from service.bus import Bus
from service.clock import SystemClock
from service.contract import Kind, State
from service.outbound import Phase, Returned
from service.outbound.evidence import Evidence
from service.outbound.proof import Known, mark_of, proof_of
from service.outbound.sends import SendRecord, Sends
from service.outbound.suppressions import Suppressions
from service.outbound.told import is_for_good, is_told, meant, named
from tests.meaning.mails import dsn, meaning_of, reports_of
from tests.meaning.test_kinds import report as complaint
from tests.outbound.conftest import Post, sending
from tests.outbound.test_returned import announced, bounce, sent
from tests.servers.smtp import ScriptedRelay

NOW = datetime(2026, 11, 26, tzinfo=UTC)
ANY = Known("k", "")


def record(*taken: str, phase: Phase = Phase.FINAL, pending: dict[str, str] | None = None) -> SendRecord:
    unsure = 1 if pending else 0
    return SendRecord("r", "", "", phase, 1, "m@x", NOW, NOW, pending=pending or {}, taken=list(taken), unsure=unsure)


def failed(whom: str, *, status: str = "5.1.1", said: str = "550 no such user", original: str = "") -> str:
    wanted = f"Original-Recipient: rfc822;{original}\n" if original else ""
    fields = f"Final-Recipient: rfc822;{whom}\nAction: failed\nStatus: {status}\nDiagnostic-Code: smtp; {said}"
    return dsn(wanted + fields)


def who(mail: str, *taken: str, known: Known = ANY, proved: bool = True) -> dict[str, str]:
    """Whom a report is about, with the address that it names."""
    about = meant(known, record(*taken), State.BOUNCED, named(meaning_of(mail)), alone=True, proved=proved)
    return {name: "" if report is UNSET else report.recipient for name, report in about.items()}


def test_who_is_called_otherwise_behind_an_alias_is_meant_by_his_own_name() -> None:
    assert who(failed("a.smith@behind.example", original="Ann@x.example"), "ann@x.example", "b@x.example") == {
        "ann@x.example": "a.smith@behind.example"
    }
    # RFC 3461 4: xtext.
    assert list(
        who(failed("s@behind.example", original="ann+2Bshop@x.example"), "ann+shop@x.example", "b@x.example")
    ) == ["ann+shop@x.example"]


def test_where_the_mail_went_to_one_he_is_meant_whoever_is_named() -> None:
    assert list(who(failed("a.smith@behind.example"), "ann@x.example")) == ["ann@x.example"]
    both = ("ann@x.example", "b@x.example")
    assert list(who(failed("s@behind.example"), *both, known=Known("k", mark_of(both[0])))) == [both[0]]


def test_of_several_a_name_that_none_of_them_has_is_nobodys() -> None:
    both = ("ann@x.example", "b@x.example")
    assert list(who(failed("stranger@behind.example"), *both)) == [""]
    assert who(failed("stranger@behind.example"), *both, proved=False) == {}


def test_an_address_that_led_to_several_is_gone_only_if_all_of_them_are() -> None:
    said = {one.recipient: one for one in reports_of(failed("a@b.example"))}
    soft = {one.recipient: one for one in reports_of(failed("c@b.example", status="5.2.2", said="552 mailbox is full"))}
    about = meant(ANY, record("team@x.example"), State.BOUNCED, {**said, **soft}, alone=True, proved=True)
    assert [is_for_good(report) for report in about.values()] == [False]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("4.7.1", "450 4.7.1 <mail.example.org>: Helo command rejected: Host not found"),
        ("5.1.7", "550 5.1.7 The sender's address was invalid: no such user"),
        ("5.1.8", "550 5.1.8 The sender's domain does not exist"),
        ("5.7.27", "550 5.7.27 Sender address has null MX"),
        ("4.4.3", "451 4.4.3 Domain b.example not found: DNS server failure"),
        ("4.2.1", "450 4.2.1 user unknown, try again later"),
        ("5.0.0", "550 Unable to verify your sender address: domain example.org does not exist"),
        ("5.7.1", "550 5.7.1 User unknown in local sender table"),
        ("5.7.8", "535 5.7.8 authentication failed: account not found"),
        ("5.3.0", "554 5.3.0 account not found in LDAP: ldap server down"),
        ("5.7.1", "550 5.7.1 Message rejected: link domain example.org does not exist"),
        ("5.6.0", "550 5.6.0 attachment does not exist"),
        ("5.0.0", "message expired, last said: 450 mailbox does not exist yet"),
        ("", "user unknown"),
    ],
)
def test_what_says_nothing_of_the_address_or_may_pass_is_not_for_good(status: str, said: str) -> None:
    (report,) = reports_of(failed("a@b.example", status=status, said=said))
    assert not is_for_good(report)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("5.1.1", "550 5.1.1 user unknown"),
        ("5.0.0", "550 user unknown"),
        ("5.1.10", "550 5.1.10 not found"),
        ("", "550 no such user"),
    ],
)
def test_an_address_that_is_refused_for_good_is_so(status: str, said: str) -> None:
    (report,) = reports_of(failed("a@b.example", status=status, said=said))
    assert is_for_good(report)


@pytest.mark.parametrize(
    "kind", ["abuse", "fraud", "virus", "other", "not-spam", "auth-failure", "dmarc", "unheard-of"]
)
def test_only_what_a_reader_says_against_a_mail_is_a_complaint_about_a_request(kind: str) -> None:
    said = meaning_of(complaint("feedback-report", "message/feedback-report", f"Feedback-Type: {kind}"))
    assert said.kind is Kind.COMPLAINT
    assert is_told(said) is (kind in ("abuse", "fraud", "virus", "other"))


@pytest.mark.parametrize("original", ["", "a@x.example"])
async def test_an_alias_whose_member_is_gone_is_told_by_its_own_name_and_gets_mail_still(
    post: Post, relay: ScriptedRelay, bus: Bus, original: str
) -> None:
    message_id = await sent(post, relay)
    mail = failed("bob@behind.example", original=original).replace("sent@example.org", message_id)
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(announced(mail))
    assert await post.states(2) == [("order-1", "sent"), ("order-1", "bounced")]
    assert list(post.events[1].body.delivery_status) == ["a@x.example"]
    assert [one.email async for one in Suppressions(bus, "a", SystemClock()).all()] == []


async def test_who_is_gone_is_known_in_whatever_case_he_is_written(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    message_id = await sent(post, relay)
    mail = failed("A@X.example").replace("sent@example.org", message_id)
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(announced(mail))
    assert [one.email async for one in Suppressions(bus, "a", SystemClock()).all()] == ["a@x.example"]


async def test_a_complaint_that_names_nobody_is_his_whom_the_mail_went_to(
    post: Post, relay: ScriptedRelay, bus: Bus
) -> None:
    message_id = await sent(post, relay)
    mail = complaint("feedback-report", "message/feedback-report", "Feedback-Type: abuse")
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(
        announced(mail.replace("sent@example.org", message_id))
    )
    await post.states(2)
    assert list(post.events[1].body.delivery_status) == ["a@x.example"]
    assert [one.email async for one in Suppressions(bus, "a", SystemClock()).all()] == ["a@x.example"]


@pytest.mark.fault("E16")
async def test_who_has_the_mail_cannot_say_that_another_has_it_by_a_bounce(
    post: Post, relay: ScriptedRelay, bus: Bus
) -> None:
    async with sending(bus, relay):
        await post.request("order-1", to=[{"email": "a@x.example"}, {"email": "b@x.example"}])
        await post.states(1)
        await post.empty()
    message_id = str(post.events[0].body.message_id)
    sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), SystemClock())
    key = message_id[:32]
    found, revision = await sends.get(key)
    assert found is not None
    # As it is between two attempts, the first of which reached the one, and perhaps the other.
    doubtful = {"phase": Phase.WAITING, "pending": {"a@x.example": ""}, "unsure": 1}
    await sends.put(key, msgspec.structs.replace(found, **doubtful), revision)
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(bounce(message_id))
    await post.states(2)
    told, _ = await sends.get(key)
    assert told is not None
    assert told.returned == ["bounced a@x.example"]
    assert await Evidence("a", sends, None).of_waiting(told) == {}


@pytest.mark.fault("E16")
async def test_who_bounces_while_his_part_of_a_mailing_is_under_way_gets_nothing_more(post: Post, bus: Bus) -> None:
    sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), SystemClock())
    key, both = "0" * 32, ["a@x.example", "b@x.example"]
    under_way = msgspec.structs.replace(
        record(phase=Phase.INTENT, pending=dict.fromkeys(both, "")), account="a", split=True, trying=both
    )
    await sends.put(key, under_way, 0)
    of_one = f"{proof_of(f'{key}{mark_of(both[0])}', await sends.secret())}@example.com"
    await Returned(bus, SystemClock(), suppresses=lambda _: True).heard(bounce(of_one))
    assert await post.states(1) == [("r", "bounced")]
    assert [one.email async for one in Suppressions(bus, "a", SystemClock()).all()] == both[:1]
