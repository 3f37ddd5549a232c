"""Requests on the bus, a real MTA as the relay: what lies in the mailbox is the mail that was asked for."""

import json
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from service.bus import Bus
from service.clock import SystemClock
from service.contract import request_key
from service.outbound.proof import known_of
from service.outbound.sends import Sends
from tests.outbound.conftest import Post, sending
from tests.outbound.test_returned import announced
from tests.servers.mta import DOMAIN, Mta


def way_to(mta: Mta) -> dict[str, object]:
    """How to reach it, log in and be protected."""
    made = mta.options()
    return {key: getattr(made, key) for key in ("security", "tls", "username", "password", "login")}


@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_a_request_lies_in_the_mailbox_as_it_was_asked_for(
    bus: Bus, post: Post, prefix: str, request: pytest.FixtureRequest, name: str
) -> None:
    mta: Mta = request.getfixturevalue(name)
    blob = await bus.blobs().put(bytes(range(256)) * 400, now=SystemClock().now())
    whom = [f"{prefix}-one@{DOMAIN}", f"{prefix}-two@{DOMAIN}"]
    text = "Gr\u00fc\u00dfe\n.\n..\nFrom here on\n" * 300
    async with sending(bus, mta, smtp=way_to(mta)):  # type: ignore[arg-type]  # all that is asked of it is its port
        await post.request(
            "r",
            to=[{"email": whom[0], "name": "Eins, \u00c4"}],
            bcc=[{"email": whom[1]}, {"email": f"nobody@{DOMAIN}"}],
            subject="Gr\u00fc\u00dfe",
            text=text,
            attachments=[{"blobId": blob, "name": "\u00e4.bin"}],
        )
        assert sorted(await post.states(2)) == [("r", "failed"), ("r", "sent")]
        await post.empty()
    first, second = [(await mta.mails(who.partition("@")[0], 1))[0] for who in whom]
    mail = message_from_bytes(first, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert (mail["Subject"], mail["To"].addresses[0].display_name) == ("Gr\u00fc\u00dfe", "Eins, \u00c4")
    body = mail.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n") == text
    (file,) = mail.iter_attachments()
    assert (file.get_filename(), file.get_content()) == ("\u00e4.bin", bytes(range(256)) * 400)
    # The same bytes for both, and nobody reads who else has them.
    assert first.partition(b"Date:")[2] == second.partition(b"Date:")[2]
    assert whom[1].encode() not in first


@pytest.mark.fault("E16")
# Exim 4.96 repeats ORCPT as it was encoded (RFC 3461 section 4).
@pytest.mark.parametrize(("name", "alias"), [("postfix", "+alias"), ("exim", "+2Balias")])
async def test_a_report_of_success_that_was_asked_for_comes_back_and_names_its_request(
    bus: Bus, post: Post, prefix: str, request: pytest.FixtureRequest, name: str, alias: str
) -> None:
    """RFC 3461: NOTIFY, ENVID and ORCPT through a real server, and its report read as any mail that arrives."""
    mta: Mta = request.getfixturevalue(name)
    whom, back = f"{prefix}-to", f"{prefix}-from"
    asked = {"NOTIFY": "SUCCESS,FAILURE", "ORCPT": f"rfc822;{prefix}+alias@x.example"}
    async with sending(bus, mta, smtp=way_to(mta)):  # type: ignore[arg-type]
        await post.request(
            "order-1",
            envelope={
                "mailFrom": {"email": f"{back}@{DOMAIN}", "parameters": {"RET": "HDRS"}},
                "rcptTo": [{"email": f"{whom}@{DOMAIN}", "parameters": asked}],
            },
        )
        assert await post.states(1) == [("order-1", "sent")]
    (came,) = await mta.mails(back, 1)
    meaning = json.loads(announced(came.replace(b"\r\n", b"\n").decode()))["mailbus"]
    assert meaning["kind"] == "delivered"
    (report,) = meaning["reports"]
    assert report["recipient"] == f"{whom}@{DOMAIN}"
    assert report["originalRecipient"] == f"{prefix}{alias}@x.example"
    assert report["action"] in {"delivered", "relayed"}
    sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), SystemClock())
    proofs = [meaning["original"].get(name, "") for name in ("messageId", "envelopeId")]
    keys = {known.key for proof in proofs if (known := known_of(proof, await sends.secret())) is not None}
    assert keys == {request_key("a", "order-1")}


@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_a_mail_that_wants_tls_all_the_way_goes_to_no_server_that_does_not_promise_it(
    bus: Bus, post: Post, prefix: str, request: pytest.FixtureRequest, name: str
) -> None:
    """RFC 8689 4.2.1; none of the two offers REQUIRETLS."""
    mta: Mta = request.getfixturevalue(name)
    mail_from = {"email": f"{prefix}-from@{DOMAIN}", "parameters": {"REQUIRETLS": None}}
    async with sending(bus, mta, smtp=way_to(mta)):  # type: ignore[arg-type]
        await post.request("r", envelope={"mailFrom": mail_from, "rcptTo": [{"email": f"{prefix}-to@{DOMAIN}"}]})
        assert await post.states(1) == [("r", "failed")]
    (said,) = post.events[0].body.delivery_status.values()
    assert said.smtp_reply.startswith("550 5.7.30")
    assert not any(f"{prefix}-to@{DOMAIN}".encode() in mail for mail in mta.contents())
