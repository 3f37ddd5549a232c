"""Requests on the bus, a real MTA as the relay: what lies in the mailbox is the mail that was asked for."""

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from service.bus import Bus
from service.clock import SystemClock
from tests.outbound.conftest import Post, sending
from tests.servers.mta import DOMAIN, Mta


@pytest.mark.parametrize("name", ["postfix", "exim"])
async def test_a_request_lies_in_the_mailbox_as_it_was_asked_for(
    bus: Bus, post: Post, prefix: str, request: pytest.FixtureRequest, name: str
) -> None:
    mta: Mta = request.getfixturevalue(name)
    made = mta.options()
    smtp = {key: getattr(made, key) for key in ("security", "tls", "username", "password", "login")}
    blob = await bus.blobs().put(bytes(range(256)) * 400, now=SystemClock().now())
    whom = [f"{prefix}-one@{DOMAIN}", f"{prefix}-two@{DOMAIN}"]
    text = "Gr\u00fc\u00dfe\n.\n..\nFrom here on\n" * 300
    async with sending(bus, mta, smtp=smtp):  # type: ignore[arg-type]  # all that is asked of it is its port
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
