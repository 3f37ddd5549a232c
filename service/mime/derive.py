"""A mail's bodies → text to work with: of HTML and flowed lines, the newest reply, its language, safe HTML. Pure.

Each is made only where settings or a request ask for it: they cost as much as all the rest of reading. RFC 8621 4.1.4
has `bodyValues` as the part has them, so these stand beside it, in `mailbus`.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from service.contract import EmailBodyPart, Extension, Extra
from service.mime.charset import decode
from service.mime.flowed import unflowed
from service.mime.language import language_of
from service.mime.limits import Cut, MimeLimits
from service.mime.parts import Body, head_of
from service.mime.plain import text_of_html
from service.mime.reply import newest_reply
from service.mime.safe import safe_html

_OF_TEXT: Final = frozenset((Extra.TEXT, Extra.REPLY, Extra.LANGUAGE))


def derived(extension: Extension, body: Body, wanted: Collection[Extra], limits: MimeLimits) -> Extension:
    """The extension with what is wanted; a member is absent where there is nothing to make it of."""
    reader = _Reader(body, limits)
    changes: dict[str, object] = {}
    if not _OF_TEXT.isdisjoint(wanted):
        text = reader.text()
        if Extra.TEXT in wanted and reader.changed:
            changes["text"] = text
        if Extra.REPLY in wanted and text.strip():
            changes["reply"] = newest_reply(text)
        # What is quoted may be in another's language.
        if Extra.LANGUAGE in wanted and (tag := language_of(newest_reply(text) or text)):
            changes["language"] = tag
    if Extra.HTML in wanted and (html := reader.html()):
        changes["html"] = html
    if reader.cut:
        changes["truncated"] = [*(extension.truncated or []), Cut.EXTRAS.value]
    return msgspec.structs.replace(extension, **changes) if changes else extension


class _Reader:
    """`changed`: the text is another than in bodyValues; `cut`: not all of a part was worked on."""

    def __init__(self, body: Body, limits: MimeLimits) -> None:
        self.body = body
        self.limits = limits
        self.changed = False
        self.cut = False

    def text(self) -> str:
        """All that a reader sees, as plain text."""
        pieces: list[str] = []
        for index in self.body.choice.text:
            part = self.body.parts[index]
            if part.type == "text/html":
                self.changed = True
                pieces.append(text_of_html(self._value(part), most=self.limits.extra_chars))
            elif part.type.startswith("text/"):
                value = self._value(part)
                delete_space = self.body.flowed.get(part.part_id or "")
                if delete_space is not None:
                    self.changed = True
                    value = unflowed(value, delete_space=delete_space)
                pieces.append(value)
        return "\n".join(pieces)

    def html(self) -> str:
        """All HTML that a reader sees."""
        return "\n".join(
            safe_html(self._value(part))
            for part in (self.body.parts[index] for index in self.body.choice.html)
            if part.type == "text/html"
        )

    def _value(self, part: EmailBodyPart) -> str:
        """The text of a part, or as much of it as is worked on."""
        part_id, most = part.part_id or "", self.limits.extra_chars
        value = self.body.values[part_id]
        text = value.value
        if value.is_truncated:
            data = self.body.blobs[part_id]
            text = decode(head_of(data, most), part.charset).text.replace("\r\n", "\n")
            self.cut = self.cut or len(data) > most
        self.cut = self.cut or len(text) > most
        return text[:most]
