"""Raw bytes → an Email (RFC 8621 section 4) and its blobs. Pure, linear, and for any bytes at all it returns.

Used by ingest for every mail. Knows no mailbox and no id: `id`, `mailboxIds`, `keywords` are filled in there.
What a mail may cost stands in limits.py; whatever is cut is named in `mailbus.truncated`, and the event stays
under the inline limit whatever the mail holds.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET

from service.contract import Email, EmailHeader, Extension, Extra, FileFacts, MailProblem, ProblemType
from service.mime.charset import codec_or_none, decode
from service.mime.derive import derived
from service.mime.facts import facts
from service.mime.fields import Fields, read_fields
from service.mime.fit import NOTHING_TO_SAY, fit
from service.mime.header import find_end, first_junk, parse_header
from service.mime.limits import Cut, MimeLimits
from service.mime.parts import Body, assemble, read_parts
from service.mime.preview import preview_of_html, preview_of_text
from service.mime.structure import Tree, split

# One part costs this much of the event's room at the least: more of them cannot fit anyway.
_PART_ROOM: Final = 1024
# Header, structure and preview of an ordinary mail: an event smaller than this tells nobody anything.
EVENT_FLOOR_BYTES: Final = 64 * 1024
# RFC 8551 3.2.2; a signed message has another smime-type.
_ENCRYPTED: Final = frozenset(("enveloped-data", "authenveloped-data"))
_SMIME: Final = frozenset(("application/pkcs7-mime", "application/x-pkcs7-mime"))
_OPENPGP: Final = frozenset(("multipart/encrypted", "application/pgp-encrypted"))
_ENVELOPED: Final = bytes.fromhex("06092a864886f70d010703")  # RFC 5652 6.1, as DER
_OID_WITHIN: Final = 32
# RFC 9580 6.2: lines of their own, the first perhaps below a greeting. Words about one seldom show both.
_ARMOR_BEGIN: Final = "-----BEGIN PGP MESSAGE-----"
_ARMOR: Final = re.compile(rf"^{_ARMOR_BEGIN}[ \t]*+$", re.MULTILINE)
_ARMOR_WITHIN: Final = 2048
_ARMOR_END: Final = "\n-----END PGP MESSAGE-----"
_LOOK_AT: Final = 4096
_CALENDARS: Final = ("text/calendar", "application/ics")
# Whoever reads an event out of it takes less, in UTF-8.
_CALENDAR_BYTES: Final = 1024 * 1024
# RFC 5545 3.1: a fold may stand within a character, so it goes before the bytes are read as text. In these charsets
# such bytes may be a character themselves.
_FOLD: Final = re.compile(rb"\r?\n[ \t]")
_WIDE: Final = ("utf-16", "utf-32")
_WHITE: Final = re.compile(rb"\s++")
# A fact takes 100 to 300 bytes of the event.
_FILES: Final = 50
_NO_FIELDS: Final = Fields()


# What reads a meaning out of an Email, before it is made to fit: the Email, a value of each header field (names in
# lower case) and the bytes of parts that are no text, by partId (a calendar's in UTF-8) → the same with its meaning.
Meaning: TypeAlias = Callable[[Email, dict[str, str], dict[str, bytes]], Email]


class Parsed:
    """A mail as an Email without id, mailbox and keywords.

    `blobs`: decoded bytes to store, by partId: attachments, bodies over the inline limit, bodies whose charset
    or encoding was wrong. `whole` is false where anything was cut, guessed or left out: then the raw bytes say more.
    """

    def __init__(self, email: Email, blobs: dict[str, bytes], *, whole: bool, body: Body | None = None) -> None:
        self.email = email
        self.blobs = blobs
        self.whole = whole
        self.body = body

    @property
    def problem(self) -> MailProblem | None:
        """Why the mail could not be given whole; None where it could."""
        problem = self.email.mailbus.problem
        return None if problem is UNSET else problem

    @property
    def truncated(self) -> list[str]:
        """What was cut by a limit."""
        truncated = self.email.mailbus.truncated
        return [] if truncated is UNSET else truncated

    def with_blobs(self, ids: dict[str, str]) -> Email:
        """The Email with the blobIds under which the blobs were stored, by partId."""
        if self.body is None or not ids:
            return self.email
        parts = assemble(self.body, ids)
        return msgspec.structs.replace(
            self.email,
            body_structure=parts.structure,
            text_body=parts.text,
            html_body=parts.html,
            attachments=parts.attachments,
        )


def parse(
    raw: bytes,
    *,
    received_at: datetime | None,
    limits: MimeLimits,
    inline_limit: int,
    meaning: Meaning | None = None,
    extras: Sequence[Extra] = (),
) -> Parsed:
    """A whole message. Never raises: what defeats the parser comes back with a problem `unparseable`.

    inline_limit: bytes that a body may have to ride in the event, and that the whole event may have as JSON,
    though it is never held below EVENT_FLOOR_BYTES. 0 makes every body a blob. `extras`: see derive.py.
    """
    try:
        room = max(inline_limit, EVENT_FLOOR_BYTES)
        return _parse(raw, received_at, limits, inline_limit, room, meaning, extras)
    except Exception as exc:  # noqa: BLE001 the one place: a defect of ours must not stop a mailbox
        problem = MailProblem(ProblemType.UNPARSEABLE, f"the parser failed: {type(exc).__name__}")
        return Parsed(problem_email(len(raw), received_at=received_at, problem=problem), {}, whole=False)


def parse_header_only(
    header: bytes, size: int, *, received_at: datetime | None, limits: MimeLimits, meaning: Meaning | None = None
) -> Parsed:
    """A message over the size limit: its header is known, `size` is what the server says. Never raises."""
    detail = f"{size} bytes: over the limit for messages"
    try:
        data = _with_line_feeds(header)
        start = _start(data)
        end = find_end(data, start, len(data))
        parsed = parse_header(data[start : end.header], limits)
        cuts: dict[Cut, None] = {Cut.HEADERS: None} if parsed.cut else {}
        fields = read_fields(parsed.values, limits, cuts)
        problem = MailProblem(ProblemType.TOO_LARGE, detail)
        email = _email(parsed.fields, fields, None, "", size, received_at, _extension(problem, cuts))
        if meaning is not None:
            email = meaning(email, parsed.values, {})
        return Parsed(fit(email, None, limits, EVENT_FLOOR_BYTES, header_chars=end.header - start), {}, whole=False)
    except Exception as exc:  # noqa: BLE001 as in parse
        problem = MailProblem(ProblemType.TOO_LARGE, f"{detail}; the parser failed: {type(exc).__name__}")
        return Parsed(problem_email(size, received_at=received_at, problem=problem), {}, whole=False)


def problem_email(size: int, *, received_at: datetime | None, problem: MailProblem) -> Email:
    """An Email of which nothing is known but that it is there, and why."""
    return _email([], _NO_FIELDS, None, "", size, received_at, _extension(problem, {}))


def _parse(
    raw: bytes,
    received_at: datetime | None,
    limits: MimeLimits,
    inline_limit: int,
    room: int,
    meaning: Meaning | None,
    extras: Sequence[Extra],
) -> Parsed:
    size = len(raw)
    data = _with_line_feeds(raw)
    start = _start(data)
    end = find_end(data, start, size)
    header = parse_header(data[start : end.header], limits)
    at = end.body
    if header.junk and (not header.fields or not data[at : at + _LOOK_AT].strip()):
        # The empty line is missing, or the whole header is: the body begins where the fields end.
        at = start + first_junk(data[start : end.header])
        header = parse_header(data[start:at], limits)
        header.junk = True
    tree = split(data, header, at, limits, most=min(limits.parts, room // _PART_ROOM))
    cuts = tree.cuts
    fields = read_fields(header.values, limits, cuts)
    body = read_parts(data, tree, limits, inline_limit)
    problem = _problem(tree, body)
    whole = problem is None and not tree.junk and not body.encoding_problem and not cuts and not _is_signed(tree)
    preview = _preview(body, limits)
    email = _email(header.fields, fields, body, preview, size, received_at, NOTHING_TO_SAY)
    known = facts(email.attachments, body.blobs) if email.attachments else []
    if len(known) > _FILES:
        cuts[Cut.FILES], whole = None, False
    if problem is not None or cuts or known:
        email = msgspec.structs.replace(email, mailbus=_extension(problem, cuts, known))
    if meaning is not None:
        email = meaning(email, header.values, _readable(email, body.blobs))
    if extras:
        email = msgspec.structs.replace(email, mailbus=derived(email.mailbus, body, extras, limits))
    email = fit(email, body, limits, room, header_chars=end.header - start)
    if email.body_structure is None:
        return Parsed(email, {}, whole=False)  # no part is left that a blob could belong to
    # Extras say again what the bodies say: without them nothing is lost.
    cut = email.mailbus.truncated
    return Parsed(email, body.blobs, whole=whole and (cut is UNSET or cut == [Cut.EXTRAS.value]), body=body)


def _readable(email: Email, blobs: dict[str, bytes]) -> dict[str, bytes]:
    """The same bytes, but those of a calendar in UTF-8: it may be in any charset (RFC 5545 3.1.4, RFC 6047 2.4)."""
    for kind in _CALENDARS:
        for part in email.attachments:
            content = blobs.get(part.part_id or "") if part.type == kind else None
            if content is not None:
                # RFC 5545 3.1.4: the default is UTF-8.
                codec = codec_or_none(part.charset or "us-ascii") or ""
                content = content[:_CALENDAR_BYTES]
                if not codec.startswith(_WIDE):
                    content = _FOLD.sub(b"", content)
                text = decode(content, "utf-8" if codec == "ascii" else part.charset).text
                return {**blobs, part.part_id or "": text.encode("utf-8", "replace")}
    return blobs


def _with_line_feeds(raw: bytes) -> bytes:
    """The same bytes, but for a mail from a system whose lines end with CR alone. No offset changes."""
    if raw.find(b"\n", 0, 4096) < 0 and b"\r" in raw and b"\n" not in raw:
        return raw.replace(b"\r", b"\n")
    return raw


def _start(data: bytes) -> int:
    """Where the header begins: empty lines, white space and a byte order mark before it are nobody's."""
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    if data[start : start + 1].isspace():
        found = _WHITE.match(data, start)
        start = found.end() if found else start
    return start


def _is_signed(tree: Tree) -> bool:
    """RFC 1847 2.1: what is signed are a part's bytes with its header, which only the raw message has."""
    return any(node.type == "multipart/signed" for node in tree.nodes)


def _problem(tree: Tree, body: Body) -> MailProblem | None:
    if (how := _encrypted(tree, body)) is not None:
        return MailProblem(ProblemType.ENCRYPTED, how)
    if tree.defect is not None:
        return MailProblem(ProblemType.UNPARSEABLE, tree.defect)
    if body.damaged is not None:
        return MailProblem(ProblemType.UNPARSEABLE, f"part {body.damaged}: its transfer encoding is damaged")
    return None


def _encrypted(tree: Tree, body: Body) -> str | None:
    """How the mail's text is encrypted; None where it is not."""
    for node in tree.nodes:
        # Also within what a mailing list or Exchange made of it (RFC 3156 4 wants both of these).
        if node.type in _OPENPGP:
            return f"{node.type}: {node.content_type.params.get('protocol', 'OpenPGP')[:100]}"
    root = tree.nodes[0]
    if root.type in _SMIME:
        said = root.content_type.params.get("smime-type", "").lower()
        # RFC 8551 3.2.2 has the parameter as optional; RFC 5652 3 has what it is first.
        if said in _ENCRYPTED or (not said and _ENVELOPED in body.blobs.get("1", b"")[:_OID_WITHIN]):
            return f"{root.type}: S/MIME"
    for index in body.choice.text[:1]:
        value = body.values.get(body.parts[index].part_id or "")
        # The expression looks at each character, which takes as long as all else that is done with a small mail.
        if value is None or value.value.find(_ARMOR_BEGIN, 0, _ARMOR_WITHIN) < 0:
            continue
        begins = _ARMOR.search(value.value, 0, _ARMOR_WITHIN)
        # A text that was cut has lost its end.
        if begins and (value.is_truncated or value.value.find(_ARMOR_END, begins.end()) >= 0):
            return "OpenPGP within the text"
    return None


def _preview(body: Body, limits: MimeLimits) -> str:
    """Of the first text that has words, else of the first HTML."""
    for index in (*body.choice.text, *body.choice.html):
        part = body.parts[index]
        value = body.values.get(part.part_id or "")
        if value is None or not value.value:
            continue
        if part.type == "text/html":
            shown = preview_of_html(value.value, most=limits.preview_chars, look_at=limits.preview_html_chars)
        else:
            shown = preview_of_text(value.value, most=limits.preview_chars)
        if shown:
            return shown
    return ""


def _extension(problem: MailProblem | None, cuts: dict[Cut, None], known: Sequence[FileFacts] = ()) -> Extension:
    if problem is None and not cuts and not known:
        return NOTHING_TO_SAY
    return Extension(
        problem=problem or UNSET,
        truncated=[cut.value for cut in cuts] if cuts else UNSET,
        files=list(known[:_FILES]) if known else UNSET,
    )


def _email(
    headers: list[EmailHeader],
    fields: Fields,
    body: Body | None,
    preview: str,
    size: int,
    received_at: datetime | None,
    extension: Extension,
) -> Email:
    parts = None if body is None else assemble(body, {})
    attachments = [] if parts is None else parts.attachments
    return Email(
        id="",
        mailbox_ids={},
        keywords={},
        size=size,
        received_at=received_at,
        message_id=fields.message_id,
        in_reply_to=fields.in_reply_to,
        references=fields.references,
        sender=fields.sender,
        from_=fields.from_,
        to=fields.to,
        cc=fields.cc,
        bcc=fields.bcc,
        reply_to=fields.reply_to,
        subject=fields.subject,
        sent_at=fields.sent_at,
        headers=headers,
        body_structure=None if parts is None else parts.structure,
        body_values={} if body is None else body.values,
        text_body=[] if parts is None else parts.text,
        html_body=[] if parts is None else parts.html,
        attachments=attachments,
        # RFC 8621 4.1.4: something to download, not an image within the text.
        has_attachment=any(part.disposition != "inline" for part in attachments),
        preview=preview,
        mailbus=extension,
    )
