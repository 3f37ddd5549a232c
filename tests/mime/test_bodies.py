"""Which parts are text, HTML and attachments: RFC 8621 4.1.4's own code is the oracle."""

from hypothesis import given
from hypothesis import strategies as st

from service.mime.bodies import Choice, Shape, choose


class Node:
    """A part as the RFC's code sees it."""

    def __init__(self, type: str, parts: "list[Node] | None" = None, *, attached: bool = False, named: bool = False):
        self.type, self.parts, self.attached, self.named = type, parts, attached, named


def shapes_of(root: Node) -> tuple[list[Shape], list[Node]]:
    """In document order."""
    nodes: list[Node] = []

    def walk(node: Node) -> None:
        nodes.append(node)
        for child in node.parts or []:
            walk(child)

    walk(root)
    index = {id(node): number for number, node in enumerate(nodes)}
    return [
        Shape(node.type, node.attached, node.named, None if node.parts is None else [index[id(c)] for c in node.parts])
        for node in nodes
    ], nodes


def rfc(root: Node) -> tuple[list[Node], list[Node], list[Node]]:
    """RFC 8621 4.1.4, parseStructure, line by line."""

    def is_media(type: str) -> bool:
        return type.startswith(("image/", "audio/", "video/"))

    text_body: list[Node] = []
    html_body: list[Node] = []
    attachments: list[Node] = []

    def parse_structure(
        parts: list[Node], multipart: str, in_alternative: bool, html: list[Node] | None, text: list[Node] | None
    ) -> None:
        text_length = -1 if text is None else len(text)
        html_length = -1 if html is None else len(html)
        for i, part in enumerate(parts):
            is_inline = (
                not part.attached
                and (part.type in ("text/plain", "text/html") or is_media(part.type))
                and (i == 0 or (multipart != "related" and (is_media(part.type) or not part.named)))
            )
            if part.parts is not None:
                sub = part.type.split("/")[1]
                parse_structure(part.parts, sub, in_alternative or sub == "alternative", html, text)
            elif is_inline:
                if multipart == "alternative":
                    if part.type == "text/plain" and text is not None:
                        text.append(part)
                    elif part.type == "text/html" and html is not None:
                        html.append(part)
                    else:  # also where the RFC's code would push to null
                        attachments.append(part)
                    continue
                if in_alternative:
                    if part.type == "text/plain":
                        html = None
                    if part.type == "text/html":
                        text = None
                if text is not None:
                    text.append(part)
                if html is not None:
                    html.append(part)
                # The RFC's code loses a text that comes when both are null; we do not.
                if (text is None or html is None) and (is_media(part.type) or text is html):
                    attachments.append(part)
            else:
                attachments.append(part)
        if multipart == "alternative" and text is not None and html is not None:
            if text_length == len(text) and html_length != len(html):
                text.extend(html[html_length:])
            elif html_length == len(html) and text_length != len(text):
                html.extend(text[text_length:])

    parse_structure([root], "mixed", False, html_body, text_body)
    return text_body, html_body, attachments


LEAF = st.builds(
    Node,
    st.sampled_from(["text/plain", "text/html", "text/calendar", "image/png", "application/pdf", "message/rfc822"]),
    attached=st.booleans(),
    named=st.booleans(),
)
MULTIPART = st.sampled_from(["mixed", "alternative", "related", "report", "digest"]).map(lambda sub: f"multipart/{sub}")
TREE = st.recursive(LEAF, lambda sub: st.builds(Node, MULTIPART, st.lists(sub, max_size=4)), max_leaves=20)


@given(TREE)
def test_the_choice_is_the_rfcs(root: Node) -> None:
    shapes, nodes = shapes_of(root)
    choice = choose(shapes)
    found = [[nodes[index] for index in one] for one in (choice.text, choice.html, choice.attachments)]
    assert found == list(rfc(root))


@given(TREE)
def test_no_leaf_is_lost(root: Node) -> None:
    shapes, _ = shapes_of(root)
    choice = choose(shapes)
    leaves = {number for number, shape in enumerate(shapes) if shape.children is None}
    assert {*choice.text, *choice.html, *choice.attachments} == leaves


def chosen(root: Node, names: str) -> tuple[str, str, str]:
    """Leaves named in document order by the letters of `names`."""
    shapes, _ = shapes_of(root)
    letters = dict(zip((n for n, shape in enumerate(shapes) if shape.children is None), names, strict=True))
    choice: Choice = choose(shapes)
    text, html, attachments = (
        "".join(letters[n] for n in one) for one in (choice.text, choice.html, choice.attachments)
    )
    return text, html, attachments


def test_the_rfcs_example() -> None:
    root = Node(
        "multipart/mixed",
        [
            Node("text/plain"),  # A
            Node(
                "multipart/mixed",
                [
                    Node(
                        "multipart/alternative",
                        [
                            Node(
                                "multipart/mixed", [Node("text/plain"), Node("image/jpeg"), Node("text/plain")]
                            ),  # B C D
                            Node("multipart/related", [Node("text/html"), Node("image/jpeg")]),  # E F
                        ],
                    ),
                    Node("image/jpeg", attached=True),  # G
                    Node("application/x-excel"),  # H
                    Node("message/rfc822"),  # J
                ],
            ),
            Node("text/plain"),  # K
        ],
    )
    assert chosen(root, "ABCDEFGHJK") == ("ABCDK", "AEK", "CFGHJ")


def test_an_alternative_with_html_alone_is_text_too() -> None:
    assert chosen(Node("multipart/alternative", [Node("text/html")]), "H") == ("H", "H", "")


def test_a_calendar_in_an_alternative_is_an_attachment() -> None:
    root = Node("multipart/alternative", [Node("text/plain"), Node("text/html"), Node("text/calendar")])
    assert chosen(root, "THC") == ("T", "H", "C")


def test_of_related_parts_only_the_first_is_shown() -> None:
    root = Node("multipart/related", [Node("text/html"), Node("image/png"), Node("text/plain")])
    assert chosen(root, "HIT") == ("H", "H", "IT")


def test_a_text_with_a_file_name_is_an_attachment_unless_it_is_first() -> None:
    root = Node("multipart/mixed", [Node("text/plain", named=True), Node("text/plain", named=True)])
    assert chosen(root, "AB") == ("A", "A", "B")


def test_a_text_after_html_within_an_alternatives_mixed_part_is_not_lost() -> None:
    inner = Node("multipart/mixed", [Node("text/plain"), Node("text/html")])
    root = Node("multipart/alternative", [inner])
    assert chosen(root, "AB") == ("A", "A", "B")
