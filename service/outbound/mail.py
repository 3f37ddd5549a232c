"""A request → its envelope and bytes. Deterministic: every attempt makes the same."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import msgspec

from service.contract import Problem, RequestProblems, SendRequest, ascii_domain, encoded_parameters, missing_blobs
from service.mime import MimeLimits, build, parse_header_only
from service.outbound.dkim import DkimSigner
from service.outbound.proof import KEY_CHARS, mark_of, proof_of, verp_address
from service.smtp import NO_EXTRAS, Extras, bare_line_end

# RFC 5322 4.5.3: white space before the colon is obsolete, and read by everybody.
_BCC: Final = re.compile(rb"^(?:resent-)?bcc[ \t]*:", re.IGNORECASE | re.MULTILINE)


class Mail(msgspec.Struct, frozen=True):
    """What goes to the relay. `wire` gives for each address of the envelope the recipients it stands for."""

    mail_from: str
    wire: dict[str, list[str]]
    data: bytes
    extras: Extras = NO_EXTRAS


def message_id(request: SendRequest, key: str, *, address: str, secret: bytes, raw: bytes | None) -> str:
    """The bare Message-ID: the request's key, by which a mail that comes back is found, and an HMAC of it, so that
    strangers cannot make one.

    Of raw bytes it is what they say themselves, "" where they say nothing.
    """
    if request.raw_blob_id is not None:
        header = parse_header_only(raw or b"", len(raw or b""), received_at=None, limits=MimeLimits())
        return (header.email.message_id or [""])[0]
    sender = request.from_.email if request.from_ is not None else address
    try:
        domain = ascii_domain(sender).rpartition("@")[2]
    except ValueError:
        domain = "invalid"
    # RFC 5322 3.6.4 wants a domain of ours on the right; what is not ASCII would need SMTPUTF8 in every reply.
    return f"{proof_of(key, secret)}@{domain if domain.isascii() else 'invalid'}"


def own_message_id(message_id: str, recipient: str, secret: bytes) -> str:
    """The Message-ID of one recipient's message, of that of a request with `split`."""
    local, _, domain = message_id.partition("@")
    return f"{proof_of(f'{local[:KEY_CHARS]}{mark_of(recipient)}', secret)}@{domain}"


def make_mail(
    request: SendRequest,
    recipients: Sequence[str],
    blobs: Mapping[str, bytes],
    *,
    message_id: str,
    date: datetime,
    address: str,
    redirect: str | None,
    proof: str,
    verp: str = "",
    dkim: Sequence[DkimSigner] = (),
) -> Mail:
    """The mail for some of a request's recipients. Raises RequestProblems: missing blob, bad domain, bare line end.

    `proof`: see proof.py; `verp`: where it stands in the reverse-path, "" for nowhere.
    """
    if problems := missing_blobs(request, blobs):
        raise RequestProblems(problems)
    if request.envelope is not None:
        mail_from = request.envelope.mail_from.email
    else:
        mail_from = request.from_.email if request.from_ is not None else address
        if verp and redirect is None:
            mail_from = verp_address(verp, proof)
    wire: dict[str, list[str]] = {}
    for recipient in recipients:
        wire.setdefault(redirect or _wire(recipient), []).append(recipient)
    if request.raw_blob_id is not None:
        data = blobs[request.raw_blob_id]
        if (place := bare_line_end(data)) is not None:
            raise RequestProblems([Problem("rawBlobId", f"a bare CR or LF at byte {place}: lines end with CRLF")])
        if (named := _BCC.search(data, 0, data.find(b"\r\n\r\n") + 1 or len(data))) is not None:
            # RFC 5322 3.6.3: whoever reads the mail would read it. Its signatures may cover it, so it is not ours to
            # take out.
            words = f"a Bcc field at byte {named.start()}: take it out, and name its recipients in `bcc` or `envelope`"
            raise RequestProblems([Problem("rawBlobId", words)])
    else:
        data = build(request, message_id=message_id, boundary_seed=proof, date=date, from_default=address, blobs=blobs)
    # Each of the mail as it is, so that none stands on another; the date makes every attempt's the same.
    data = b"".join([*(signer.signature(data, date) for signer in dkim), data])
    # What was asked for the recipients is not for the one who gets their mail instead.
    extras = _extras(request, proof) if redirect is None else NO_EXTRAS
    extras = replace(extras, raw=request.raw_blob_id is not None)
    return Mail(_wire(mail_from) if mail_from else "", wire, data, extras)


def sent_copy(
    request: SendRequest, blobs: Mapping[str, bytes], *, message_id: str, date: datetime, address: str, proof: str
) -> bytes:
    """What of a mail goes into the account's Sent mailbox: without a signature, with Bcc (RFC 5322 3.6.3)."""
    if request.raw_blob_id is not None:
        return blobs[request.raw_blob_id]
    return build(
        request,
        message_id=message_id,
        boundary_seed=proof,
        date=date,
        from_default=address,
        blobs=blobs,
        keep_bcc=True,
    )


def _extras(request: SendRequest, proof: str) -> Extras:
    """RFC 3461 4.4: an ENVID comes back in the report; the requester's own, where he gives one, and then not ours."""
    envelope = request.envelope
    ours = {"ENVID": proof}
    if envelope is None:
        return Extras(ours)
    rcpt = {_wire(one.email): encoded_parameters(one.parameters) for one in envelope.rcpt_to if one.parameters}
    return Extras(ours | encoded_parameters(envelope.mail_from.parameters), rcpt)


def _wire(address: str) -> str:
    try:
        return ascii_domain(address)
    except ValueError as exc:
        raise RequestProblems([Problem("to", f"{exc}")]) from exc
