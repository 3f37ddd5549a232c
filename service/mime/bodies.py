"""The tree of parts → which of them are text, HTML and attachments. Pure, no recursion. RFC 8621 section 4.1.4."""

from typing import Final

_MEDIA: Final = ("image/", "audio/", "video/")


class Shape:
    """What the choice depends on: type, disposition, whether it has a name, and the children by index."""

    def __init__(self, type: str, attached: bool, named: bool, children: list[int] | None = None) -> None:
        self.type = type
        self.attached = attached
        self.named = named
        self.children = children


class Choice:
    """Indices of parts, in the order in which they are shown."""

    def __init__(self) -> None:
        self.text: list[int] = []
        self.html: list[int] = []
        self.attachments: list[int] = []


class _Level:
    """One call of the RFC's parseStructure, with its local variables."""

    def __init__(
        self,
        parts: list[int],
        multipart: str,
        in_alternative: bool,
        text: bool,
        html: bool,
        text_length: int,
        html_length: int,
    ) -> None:
        self.parts = parts
        self.multipart = multipart
        self.in_alternative = in_alternative
        self.text = text
        self.html = html
        self.text_length = text_length
        self.html_length = html_length
        self.position = 0


def choose(shapes: list[Shape]) -> Choice:
    """RFC 8621 4.1.4's parseStructure over the parts in document order, the root first."""
    choice = Choice()
    stack = [_Level([0], "mixed", in_alternative=False, text=True, html=True, text_length=0, html_length=0)]
    while stack:
        level = stack[-1]
        if level.position >= len(level.parts):
            _end_alternative(level, choice)
            stack.pop()
            continue
        index = level.parts[level.position]
        first = level.position == 0
        level.position += 1
        shape = shapes[index]
        if shape.children is not None:
            sub = shape.type.partition("/")[2]
            in_alternative = level.in_alternative or sub == "alternative"
            texts = len(choice.text) if level.text else -1
            htmls = len(choice.html) if level.html else -1
            stack.append(_Level(shape.children, sub, in_alternative, level.text, level.html, texts, htmls))
        elif _is_body(shape, level.multipart, first=first):
            _place(index, shape.type, level, choice)
        else:
            choice.attachments.append(index)
    return choice


def _is_body(shape: Shape, multipart: str, *, first: bool) -> bool:
    media = shape.type.startswith(_MEDIA)
    if shape.attached or not (media or shape.type in ("text/plain", "text/html")):
        return False
    # Of multipart/related only the first; a text with a file name that is not the first is an attachment.
    return first or (multipart != "related" and (media or not shape.named))


def _place(index: int, kind: str, level: _Level, choice: Choice) -> None:
    if level.multipart == "alternative":
        if kind == "text/plain" and level.text:
            choice.text.append(index)
        elif kind == "text/html" and level.html:
            choice.html.append(index)
        else:
            choice.attachments.append(index)
        return
    if level.in_alternative:
        if kind == "text/plain":
            level.html = False
        if kind == "text/html":
            level.text = False
    if level.text:
        choice.text.append(index)
    if level.html:
        choice.html.append(index)
    # The RFC's own code forgets a text that comes when neither list is open any more; nothing may get lost.
    if not (level.text or level.html) or (not (level.text and level.html) and kind.startswith(_MEDIA)):
        choice.attachments.append(index)


def _end_alternative(level: _Level, choice: Choice) -> None:
    """Where an alternative has one form only, the other list shows it too."""
    if level.multipart != "alternative" or not (level.text and level.html):
        return
    texts, htmls = choice.text[level.text_length :], choice.html[level.html_length :]
    if htmls and not texts:
        choice.text.extend(htmls)
    elif texts and not htmls:
        choice.html.extend(texts)
