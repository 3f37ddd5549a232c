"""What comes back names its request by the envelope, too: by its id (ENVID) or by where the report was sent (VERP)."""

import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bus import Bus
from service.clock import SystemClock
from service.contract import decode_request, request_key
from service.outbound import Returned
from service.outbound.mail import make_mail, sent_copy
from service.outbound.proof import TAG_CHARS, known_by_address, known_of, mark_of, proof_of, verp_address
from service.outbound.sends import Sends
from tests.meaning.mails import dsn, notice
from tests.meaning.test_dsn import FAILED
from tests.outbound.conftest import Post, sending
from tests.outbound.test_returned import announced
from tests.servers.smtp import ScriptedRelay

SECRET = b"s" * 32
KEY = request_key("a", "order-1")
TEMPLATE = "bounces+{}@example.com"
MARKS = ("", mark_of("a@x.example"))


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("template", [TEMPLATE, "{}@b.example.com", "a.{}.b@example.com"])
@pytest.mark.parametrize("change", [str, str.upper, "<{}>".format])
def test_an_address_has_the_proof_in_it(mark: str, template: str, change: type[str]) -> None:
    address = verp_address(template, proof_of(KEY + mark, SECRET))
    assert len(address.partition("@")[0]) <= 64  # RFC 5321 4.5.3.1.1
    known = known_by_address(["other@example.com", change(address)], SECRET)
    assert known is not None
    assert (known.key, known.mark) == (KEY, mark)


@pytest.mark.fault("E16")
@pytest.mark.parametrize("mark", MARKS)
def test_an_address_that_was_changed_proves_nothing(mark: str) -> None:
    address = verp_address(TEMPLATE, proof_of(KEY + mark, SECRET))
    for at in (8, 20, 40):
        forged = address[:at] + ("a" if address[at] != "a" else "b") + address[at + 1 :]
        assert known_by_address([forged], SECRET) is None
    assert known_by_address([address], b"t" * 32) is None


@given(st.lists(st.text(alphabet="abc234567+.@", max_size=80), max_size=5))
def test_other_addresses_prove_nothing(addresses: list[str]) -> None:
    assert known_by_address(addresses, SECRET) is None


def mail_of(**more: str) -> tuple[str, str | None]:
    """The reverse-path and the ENVID of a mail."""
    request = decode_request(b'{"to": [{"email": "a@x.example"}], "text": "t"}')
    proof = proof_of(KEY, SECRET)
    made = make_mail(
        request, ["a@x.example"], {}, message_id="m@x", date=datetime(2026, 11, 26, tzinfo=UTC),
        address="me@example.com", redirect=more.get("redirect"), proof=proof, verp=more.get("verp", ""),
    )  # fmt: skip
    return made.mail_from, made.extras.mail.get("ENVID")


def test_nobody_knows_a_mails_boundary_before_it_is_sent() -> None:
    """A text that a stranger wrote could hold it, and begin a part of its own (RFC 2046 5.1.1)."""
    request = decode_request(b'{"id": "order-1", "to": [{"email": "a@x.example"}], "text": "t", "html": "<p>t</p>"}')
    date = datetime(2026, 11, 26, tzinfo=UTC)
    proofs = [proof_of(KEY, secret) for secret in (SECRET, SECRET, b"t" * 32)]
    made = [
        make_mail(
            request, ["a@x.example"], {}, message_id="m@x", date=date, address="me@example.com", redirect=None,
            proof=proof,
        ).data
        for proof in proofs
    ]  # fmt: skip
    assert made[0] == made[1] != made[2]
    copies = [
        sent_copy(request, {}, message_id="m@x", date=date, address="me@example.com", proof=proof) for proof in proofs
    ]
    assert copies == made


def test_a_mail_has_an_envelope_id_and_where_it_is_wanted_a_path_of_its_own() -> None:
    assert mail_of() == ("me@example.com", proof_of(KEY, SECRET))
    path, _ = mail_of(verp=TEMPLATE)
    assert known_by_address([path], SECRET) == known_of(proof_of(KEY, SECRET), SECRET)
    # What goes elsewhere for a test comes back to nobody.
    assert mail_of(verp=TEMPLATE, redirect="staging@example.com") == ("me@example.com", None)


@pytest.mark.fault("E16")
async def test_a_report_of_raw_bytes_is_found_by_its_envelope_id(post: Post, relay: ScriptedRelay, bus: Bus) -> None:
    async with sending(post.bus, relay):
        await post.request("order-1")
        await post.states(1)
        await post.empty()
    sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), SystemClock())
    proof = proof_of(KEY, await sends.secret())
    fields = FAILED.replace("nobody@example.net", "a@x.example").replace("alias@example.net", "a@x.example")
    returned = Returned(bus, SystemClock(), suppresses=lambda _: False)
    for said in (KEY + "0" * 32, proof, proof):
        report = dsn(fields, returned="Message-ID: <their-own@x.example>")
        await returned.heard(announced(report.replace("Reporting-MTA", f"Original-Envelope-Id: {said}\nReporting-MTA")))
    assert await post.states(2) == [("order-1", "sent"), ("order-1", "bounced")]
    assert post.events[1].body.verified is True


@pytest.mark.fault("E16")
async def test_a_bounce_that_says_nothing_is_found_by_where_it_was_sent(
    post: Post, relay: ScriptedRelay, bus: Bus
) -> None:
    async with sending(post.bus, relay, verp=TEMPLATE):
        await post.request("order-1")
        await post.states(1)
        await post.empty()
    path = relay.messages[0].mail_from
    bounced = notice("Your mail could not be delivered.")
    returned = Returned(bus, SystemClock(), suppresses=lambda _: False)
    await returned.heard(announced(bounced.replace("sender@example.org", "bounces+" + "a" * 42 + "@example.com")))
    await returned.heard(announced(bounced.replace("sender@example.org", path)))
    await returned.heard(announced(f"Delivered-To: {path}\n{bounced}"))
    assert await post.states(2) == [("order-1", "sent"), ("order-1", "bounced")]
    assert list(post.events[1].body.delivery_status) == ["a@x.example"]


@given(st.text(alphabet="0123456789abcdef", max_size=100), st.binary(max_size=100))
def test_a_proof_is_an_hmac_of_what_it_proves(said: str, secret: bytes) -> None:
    assert proof_of(said, secret) == said + hmac.digest(secret, said.encode(), "sha256").hex()[:TAG_CHARS]
