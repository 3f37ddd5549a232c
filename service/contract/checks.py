"""A request to send: bytes → SendRequest, or every problem with its field. Pure.

What a field may hold by itself; headers.py says it of the header fields that a request gives.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from service.contract.esmtp import OF_MAIL, OF_RCPT, check_parameters
from service.contract.headers import BREAKS, HEADER_VALUE_LIMIT_CHARS, check_headers, check_line
from service.contract.ids import place_of
from service.contract.media import address_problem, media_type, one_spelling
from service.contract.merge import check_variables, filled
from service.contract.problems import Problem, RequestProblems, Wrong, outermost, read_body
from service.contract.requests import Address, SendRequest
from service.contract.structured import STRUCTURED_FIELDS, check_structured

ID_LIMIT_CHARS: Final = 255
RECIPIENTS_LIMIT: Final = 1000
# The state of a request names each recipient up to three times, and must fit into one NATS message of 1 MiB.
RECIPIENTS_LIMIT_BYTES: Final = 64 * 1024
# Far enough for everybody, and no sum with a duration overflows.
YEARS_LIMIT: Final = 9000
ATTACHMENTS_LIMIT: Final = 100
BLOB_ID: Final = re.compile(r"[0-9]{4,8}-[0-9a-f]{64}")

_DECODER: Final = msgspec.json.Decoder(SendRequest)


def decode_request(payload: bytes) -> SendRequest:
    """Bytes from the bus → a request that can be built. Raises RequestProblems with all that is wrong."""
    read = read_body(payload, _DECODER)
    request, problems = read.body, list(read.problems)
    if request is not None:
        left_out = {outermost(problem.field) for problem in problems}
        problems += [one for one in check_request(request) if outermost(one.field) not in left_out]
    if request is None or problems:
        raise RequestProblems(problems)
    return request


def check_request(request: SendRequest, *, sent: bool = True) -> list[Problem]:
    """All that is wrong with a request whose types are right; one that is not to be sent needs no recipient."""
    problems: list[Problem] = []

    def wrong(field: str, message: str) -> None:
        problems.append(Problem(field, message))

    if request.id is not None and (not 1 <= len(request.id) <= ID_LIMIT_CHARS or not request.id.isprintable()):
        wrong("id", f"1 to {ID_LIMIT_CHARS} printable characters are wanted")
    recipients = request.recipients()
    _check_addresses(request, recipients, wrong)
    if sent and not recipients and request.reply is None:
        wrong("to", "no recipient: give to, cc, bcc or envelope.rcptTo")
    if request.raw_blob_id is not None:
        _check_raw(request, wrong)
    elif request.text is None and request.html is None and not request.attachments and request.forward is None:
        wrong("text", "there is nothing to send: give text, html, attachments or rawBlobId")
    check_headers(request, wrong)
    _check_attachments(request, wrong)
    _check_split(request, wrong)
    if request.original_id is not None:
        _check_answer(request, wrong)
    for field, moment in (("sendAt", request.send_at), ("expiresAt", request.expires_at)):
        if moment is not None and not 1970 < moment.year < YEARS_LIMIT:
            wrong(field, "not a time that will come")
    if request.send_at and request.expires_at and request.expires_at <= request.send_at:
        wrong("expiresAt", "must be later than sendAt")
    return problems


def _check_addresses(request: SendRequest, recipients: Sequence[str], wrong: Wrong) -> None:
    lists: dict[str, Sequence[Address]] = {
        "to": request.to,
        "cc": request.cc,
        "bcc": request.bcc,
        "replyTo": request.reply_to,
    }
    if request.from_ is not None:
        lists["from"] = [request.from_]
    for field, addresses in lists.items():
        for i, address in enumerate(addresses):
            where = field if field == "from" else f"{field}[{i}]"
            # Each message of its own fails by itself (RFC 3463 3.2).
            _check_address(f"{where}.email", address.email, wrong, domain=not (request.split and field == "to"))
            if address.name is not None:
                check_line(f"{where}.name", address.name, wrong)
    if request.envelope is not None:
        # RFC 5321 4.5.5: the null reverse-path is what notifications are sent with.
        if request.envelope.mail_from.email:
            _check_address("envelope.mailFrom.email", request.envelope.mail_from.email, wrong)
        check_parameters("envelope.mailFrom.parameters", request.envelope.mail_from.parameters, OF_MAIL, wrong)
        for i, rcpt in enumerate(request.envelope.rcpt_to):
            _check_address(f"envelope.rcptTo[{i}].email", rcpt.email, wrong)
            check_parameters(f"envelope.rcptTo[{i}].parameters", rcpt.parameters, OF_RCPT, wrong)
        if not request.envelope.rcpt_to and not request.split:
            wrong("envelope.rcptTo", "required: who gets the mail; or `split`, where everybody in `to` does")
    count = len(recipients)
    if sum(len(one.encode("utf-8", "replace")) for one in recipients) > RECIPIENTS_LIMIT_BYTES:
        wrong("to", f"more than {RECIPIENTS_LIMIT_BYTES} bytes of addresses in one request: make several")
    if count > RECIPIENTS_LIMIT:
        wrong("to", f"{count} recipients; at most {RECIPIENTS_LIMIT} in one request")


def _check_split(request: SendRequest, wrong: Wrong) -> None:
    if not request.split:
        for i, one in enumerate(request.to):
            if one.variables:
                wrong(f"to[{i}].variables", "goes with `split: true`, where each recipient gets a message")
        return
    rcpt_to = request.envelope.rcpt_to if request.envelope is not None else []
    for field, value in (("cc", request.cc), ("bcc", request.bcc), ("envelope.rcptTo", rcpt_to)):
        if value:
            # Whoever stood in cc would get a copy of every message.
            wrong(field, "goes not with `split`: everybody in `to` gets a message")
    if request.raw_blob_id is not None:
        wrong("rawBlobId", "goes not with `split`: raw bytes are one message")
    seen: set[str] = set()
    for i, one in enumerate(request.to):
        spelt = one_spelling(one.email)
        if spelt in seen:
            wrong(f"to[{i}].email", "stands here twice: with `split` each address gets one message")
        seen.add(spelt)
    check_variables(
        _texts(request), [one.variables for one in request.to], wrong, line_limit_chars=HEADER_VALUE_LIMIT_CHARS
    )
    _check_merged(request, wrong)


def _check_merged(request: SendRequest, wrong: Wrong) -> None:
    """Fields that are no free text, as each recipient gets them; the first who gets a wrong one is enough."""
    fields = {name: value for name, value in request.headers.items() if name.lower() in STRUCTURED_FIELDS}
    problems: list[Problem] = []
    for i, one in enumerate(request.to if fields else ()):
        with suppress(KeyError):  # a value that is missing was said
            merged = {name: filled(value, one.variables) for name, value in fields.items()}
            check_structured(merged, lambda field, message: problems.append(Problem(field, message)))
        for problem in problems:
            wrong(problem.field, f"{problem.message} (as to[{i}] gets it)")
        if problems:
            return


def _check_answer(request: SendRequest, wrong: Wrong) -> None:
    field = "reply" if request.reply is not None else "forward"
    if place_of(request.original_id or "") is None:
        wrong(f"{field}.emailId", "not the id of an announced message")
    if request.reply is not None and request.forward is not None:
        wrong("forward", "goes not with `reply`")
    for name, value in (
        ("inReplyTo", request.in_reply_to),
        ("references", request.references),
        ("rawBlobId", request.raw_blob_id),
        ("split", request.split),
    ):
        if value:
            wrong(name, f"goes not with `{field}`")


def _texts(request: SendRequest) -> dict[str, str]:
    """Where `{{name}}` may stand, by field."""
    texts = {"subject": request.subject, "text": request.text or "", "html": request.html or ""}
    return texts | {f"headers.{name}": value for name, value in request.headers.items()}


def _check_address(field: str, address: str, wrong: Wrong, *, domain: bool = True) -> None:
    if (problem := address_problem(address, domain=domain)) is not None:
        wrong(field, problem)


def _check_raw(request: SendRequest, wrong: Wrong) -> None:
    if not BLOB_ID.fullmatch(request.raw_blob_id or ""):
        wrong("rawBlobId", "not a blobId")
    for field, given in (
        ("replyTo", request.reply_to),
        ("subject", request.subject),
        ("text", request.text is not None),
        ("html", request.html is not None),
        ("attachments", request.attachments),
        ("headers", request.headers),
        ("inReplyTo", request.in_reply_to),
        ("references", request.references),
    ):
        if given:
            wrong(field, "goes not with `rawBlobId`: the raw bytes have their own")


def _check_attachments(request: SendRequest, wrong: Wrong) -> None:
    if len(request.attachments) > ATTACHMENTS_LIMIT:
        wrong("attachments", f"{len(request.attachments)} of them; at most {ATTACHMENTS_LIMIT}")
    cids: set[str] = set()
    for i, attachment in enumerate(request.attachments):
        field = f"attachments[{i}]"
        if (attachment.blob_id is None) == (attachment.content is None):
            wrong(field, "exactly one of blobId and content is wanted")
        if attachment.blob_id is not None and not BLOB_ID.fullmatch(attachment.blob_id):
            wrong(f"{field}.blobId", "not a blobId")
        if media_type(attachment.type) is None:
            wrong(f"{field}.type", "a media type such as application/pdf is wanted, neither multipart nor message")
        for name, value in (("name", attachment.name), ("cid", attachment.cid)):
            if value is not None and (BREAKS.search(value) or not 1 <= len(value) <= 255):
                wrong(f"{field}.{name}", "1 to 255 characters without CR, LF and NUL are wanted")
        if attachment.cid is not None and not re.fullmatch(r"[!-;=?-~]+", attachment.cid):
            wrong(f"{field}.cid", "printable ASCII without white space, < and > is wanted")
        # RFC 2045 7: an id names one part, or nobody can tell which is meant.
        if attachment.cid in cids:
            wrong(f"{field}.cid", "stands here twice")
        if attachment.cid is not None:
            cids.add(attachment.cid)
