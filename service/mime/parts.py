"""The tree of parts → EmailBodyParts with their bytes and texts. Pure. RFC 8621 section 4.1.4."""

from typing import Final

import msgspec

from service.contract import EmailBodyPart, EmailBodyValue
from service.mime.bodies import Choice, Shape, choose
from service.mime.charset import REPLACEMENT, decode
from service.mime.fields import content_id, languages, location
from service.mime.limits import Cut, MimeLimits
from service.mime.params import without_comments
from service.mime.structure import Node, Tree
from service.mime.transfer import Content, decode_transfer
from service.mime.unpack import Unpacked, has_files, is_tnef, unpack_text, unpack_tnef
from service.mime.words import unfold


class Body:
    """All parts of a mail. `parts` is in document order with `sub_parts` still unset; assemble() makes the tree."""

    def __init__(self, children: list[list[int] | None], choice: Choice) -> None:
        self.parts: list[EmailBodyPart] = []
        self.children = children
        self.choice = choice
        self.values: dict[str, EmailBodyValue] = {}
        self.contents: dict[str, bytes] = {}  # every body that has a value, by part
        self.blobs: dict[str, bytes] = {}
        self.damaged: str | None = None  # the first part whose encoding made no sense
        self.encoding_problem = False
        # Files found within texts and winmail.dat: attachments that are no parts of the structure.
        self.unpacked: list[EmailBodyPart] = []
        # Texts whose lines flow (RFC 3676 4.1), and whether the space at a line's end goes then.
        self.flowed: dict[str, bool] = {}


class Assembled:
    """What an Email says of its parts."""

    def __init__(
        self,
        structure: EmailBodyPart,
        text: list[EmailBodyPart],
        html: list[EmailBodyPart],
        attachments: list[EmailBodyPart],
    ) -> None:
        self.structure = structure
        self.text = text
        self.html = html
        self.attachments = attachments


# RFC 2046 5.2.1: the enclosed message is the part, whatever encoding its header claims beyond the identity ones.
_MULTIPART_SIZE: Final = 0


def read_parts(raw: bytes, tree: Tree, limits: MimeLimits, inline_limit: int) -> Body:
    """Every part decoded; texts as values up to `inline_limit`, all else as blobs."""
    nodes = tree.nodes
    shapes = [
        Shape(
            node.type,
            node.disposition.value == "attachment",
            bool(node.disposition.params.get("filename") or node.content_type.params.get("name")),
            node.children if node.is_multipart else None,
        )
        for node in nodes
    ]
    choice = choose(shapes)
    body = Body([shape.children for shape in shapes], choice)
    shown = {*choice.text, *choice.html}
    number = 0
    rtf_bytes = limits.rtf_bytes
    for index, node in enumerate(nodes):
        if node.is_multipart:
            body.parts.append(_part(node, None, _MULTIPART_SIZE, limits, tree.cuts))
            continue
        number += 1
        part_id = str(number)
        content = _content(raw, node)
        part = _part(node, part_id, len(content.data), limits, tree.cuts)
        body.parts.append(part)
        if index in shown and node.type.startswith("text/"):
            _read_text(body, part_id, node, content, limits, inline_limit)
            if node.type == "text/plain" and has_files(content.data):
                _unpack(body, part_id, unpack_text(content.data, most=_room(body, limits)), tree.cuts, limits)
            continue
        body.blobs[part_id] = content.data
        if is_tnef(node.type, part.name):
            found = unpack_tnef(content.data, most=_room(body, limits), rtf_bytes=rtf_bytes)
            rtf_bytes -= found.rtf_bytes
            _unpack(body, part_id, found, tree.cuts, limits)
        if content.damaged and body.damaged is None:
            body.damaged = part_id
    return body


def _room(body: Body, limits: MimeLimits) -> int:
    return limits.unpacked - len(body.unpacked)


def _unpack(body: Body, part_id: str, found: Unpacked, cuts: dict[Cut, None], limits: MimeLimits) -> None:
    """What was inside a part, as attachments: 3.1 is the first within part 3."""
    if found.cut:
        cuts[Cut.UNPACKED] = None
    for number, inside in enumerate(found.files, 1):
        inside_id = f"{part_id}.{number}"
        if len(inside.name) > limits.name_chars or len(inside.type) > limits.name_chars:
            cuts[Cut.NAMES] = None
        body.blobs[inside_id] = inside.data
        body.unpacked.append(
            EmailBodyPart(
                part_id=inside_id,
                blob_id=None,
                size=len(inside.data),
                name=inside.name[: limits.name_chars] or None,
                type=inside.type if len(inside.type) <= limits.name_chars else "application/octet-stream",
                charset=None,
                disposition="attachment",
                cid=inside.cid[: limits.name_chars] or None,
            )
        )


def _content(raw: bytes, node: Node) -> Content:
    data = raw[node.start : node.end]
    encoding = node.header.values.get("content-transfer-encoding")
    if encoding is None or node.opaque:
        return Content(data, damaged=False)
    encoding = unfold(encoding[:256]).lower()
    if "(" in encoding:
        encoding = without_comments(encoding).strip()
    return decode_transfer(data, encoding.strip("\"';."))


def _read_text(body: Body, part_id: str, node: Node, content: Content, limits: MimeLimits, inline_limit: int) -> None:
    params = node.content_type.params
    declared = params.get("charset")
    data = content.data
    if "format" in params and params["format"].lower() == "flowed":
        body.flowed[part_id] = params.get("delsp", "").lower() == "yes"
    if len(data) > inline_limit:
        decoded = decode(head_of(data, limits.prefix_chars * 4), declared)
        value = EmailBodyValue(decoded.text, decoded.problem or content.damaged)
        body.values[part_id] = prefix_of(value, node.type, limits)
        body.encoding_problem = body.encoding_problem or value.is_encoding_problem
        body.blobs[part_id] = data
        return
    decoded = decode(data, declared)
    text = decoded.text
    if "\r" in text:
        # RFC 8621 4.1.4: CRLF is one LF.
        text = text.replace("\r\n", "\n")
    problem = decoded.problem or content.damaged
    body.values[part_id] = EmailBodyValue(text, problem)
    body.contents[part_id] = data
    if problem:
        # The reading is a guess, so the bytes are kept beside it.
        body.encoding_problem = True
        body.blobs[part_id] = data


def head_of(data: bytes, most: int) -> bytes:
    """At most `most` bytes, cut between two characters if they are UTF-8: a torn one would look like a lie."""
    if len(data) <= most:
        return data
    for back in range(4):
        if data[most - back] & 0xC0 != 0x80:
            return data[: most - back]
    return data[:most]


def prefix_of(value: EmailBodyValue, kind: str, limits: MimeLimits) -> EmailBodyValue:
    """The beginning of a body that is kept whole as a blob."""
    shown = value.value[: limits.prefix_chars].replace("\r\n", "\n").rstrip(REPLACEMENT + "\r")
    if kind == "text/html" and (tag := shown.rfind("<")) > shown.rfind(">"):
        shown = shown[:tag]  # RFC 8621 4.2: not within a tag
    return EmailBodyValue(shown, value.is_encoding_problem, is_truncated=True)


def _part(node: Node, part_id: str | None, size: int, limits: MimeLimits, cuts: dict[Cut, None]) -> EmailBodyPart:
    values = node.header.values
    params = node.content_type.params
    name = node.disposition.params.get("filename") or params.get("name")
    charset = params.get("charset")
    if node.content_type.cut or node.disposition.cut:
        cuts[Cut.NAMES] = None
    if charset is None and node.type.startswith("text/"):
        charset = "us-ascii"  # RFC 8621 4.1.4: the implicit charset
    kind: str = node.type
    disposition: str | None = node.disposition.value or None
    if len(kind) > limits.name_chars:
        kind, cuts[Cut.NAMES] = "application/octet-stream", None
    if (name and len(name) > limits.name_chars) or (charset and len(charset) > 64) or len(disposition or "") > 64:
        cuts[Cut.NAMES] = None
        name = name[: limits.name_chars] if name else name
        charset = charset[:64] if charset else charset
        disposition = disposition[:64] if disposition else disposition
    return EmailBodyPart(
        part_id=part_id,
        blob_id=None,
        size=size,
        name=name or None,
        type=kind,
        charset=charset,
        disposition=disposition,
        cid=content_id(values.get("content-id"), cuts),
        language=languages(values.get("content-language"), cuts),
        location=location(values.get("content-location"), cuts),
    )


def assemble(body: Body, ids: dict[str, str]) -> Assembled:
    """The tree and the three lists, with the blobs that are known by now."""
    parts = list(body.parts)
    if ids:
        for index, part in enumerate(parts):
            blob_id = ids.get(part.part_id) if part.part_id is not None else None
            if blob_id is not None:
                parts[index] = msgspec.structs.replace(part, blob_id=blob_id)
    # Children stand after their parent, so backwards every child is finished first.
    for index in range(len(parts) - 1, -1, -1):
        children = body.children[index]
        if children is not None:
            parts[index] = msgspec.structs.replace(parts[index], sub_parts=[parts[child] for child in children])
    choice = body.choice
    attachments = [parts[index] for index in choice.attachments]
    for part in body.unpacked:
        blob_id = ids.get(part.part_id or "")
        attachments.append(part if blob_id is None else msgspec.structs.replace(part, blob_id=blob_id))
    return Assembled(
        parts[0], [parts[index] for index in choice.text], [parts[index] for index in choice.html], attachments
    )
