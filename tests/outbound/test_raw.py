"""Raw bytes go as they are or not at all: what would tell of hidden recipients is refused, and nothing is changed."""

from datetime import UTC, datetime

import pytest

from service.contract import RequestProblems, decode_request
from service.outbound.dkim import DkimSigner
from service.outbound.mail import make_mail
from tests.outbound.test_dkim import SIGNERS, verified

BLOB = "202611-" + "a" * 64
HEADER = b"From: Me <me@example.com>\r\nSubject: x\r\n"


def made(raw: bytes, *signers: DkimSigner) -> bytes:
    """What of it goes to the relay."""
    request = decode_request(b'{"to": [{"email": "a@x.example"}], "rawBlobId": "%b"}' % BLOB.encode())
    return make_mail(
        request, ["a@x.example"], {BLOB: raw}, message_id="", date=datetime(2026, 11, 26, tzinfo=UTC),
        address="me@example.com", redirect=None, proof="p", dkim=signers,
    ).data  # fmt: skip


@pytest.mark.parametrize(
    "field",
    [
        b"Bcc: hidden@x.example\r\n",
        b"BCC:\r\n hidden@x.example\r\n",
        b"bcc \t: hidden@x.example\r\n",
        b"Resent-Bcc: hidden@x.example\r\n",
        b"Bcc:\r\n",
    ],
)
@pytest.mark.parametrize("form", [b"%b" + HEADER + b"\r\nhi\r\n", HEADER + b"%b\r\nhi\r\n", HEADER + b"%b"])
def test_raw_bytes_that_name_hidden_recipients_are_refused_with_the_field(field: bytes, form: bytes) -> None:
    with pytest.raises(RequestProblems) as refused:
        made(form % field)
    (problem,) = refused.value.problems
    assert problem.field == "rawBlobId"
    assert f"a Bcc field at byte {(form % field).lower().index(field[:3].lower())}" in problem.message
    assert "hidden" not in problem.message


@pytest.mark.parametrize(
    "raw",
    [
        HEADER + b"\r\nBcc: is what the text is about\r\n",
        HEADER + b"X-Note: a field goes on\r\n Bcc: here\r\nX-Bcc: not it\r\n\r\nhi\r\n",
        HEADER + b"\r\n\r\n\r\nBcc: behind empty lines\r\n",
    ],
)
def test_raw_bytes_go_byte_for_byte_and_what_signs_them_stands_before(raw: bytes) -> None:
    assert made(raw) == raw
    signed = made(raw, SIGNERS["ed25519"])
    assert signed.endswith(raw)
    assert verified(signed)
