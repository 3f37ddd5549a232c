"""The tree of parts: boundaries as RFC 2046 has them, and as they come."""

import pytest

from service.mime import structure
from service.mime.header import HeaderEnd, find_end, parse_header
from service.mime.structure import split
from tests.mime.mails import LIMITS, attached, htmls, multipart, read, texts, tree


def test_parts_in_order() -> None:
    parsed = read(multipart("b", "\none", "Content-Type: text/html\n\n<p>two", "Content-Type: image/png\n\nthree"))
    assert tree(parsed.email.body_structure) == ("multipart/mixed", ["text/plain", "text/html", "image/png"])
    assert texts(parsed) == ["one", "<p>two", "image/png"]
    assert parsed.whole


def test_the_line_break_before_a_boundary_belongs_to_it() -> None:
    # RFC 2046 5.1.1.
    assert texts(read(multipart("b", "\none\n"))) == ["one\n"]
    assert texts(read(multipart("b", "\none"))) == ["one"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_all_line_ends_make_the_same_tree(newline: bytes) -> None:
    raw = multipart("b", "\none\ntwo", 'Content-Type: application/pdf; name="a.pdf"\n\nx').encode()
    parsed = read(raw.replace(b"\n", newline))
    assert texts(parsed) == ["one\ntwo"]
    assert attached(parsed) == ["a.pdf"]
    assert parsed.email.from_ is not None
    assert parsed.email.size == len(raw.replace(b"\n", newline))


def test_preamble_and_epilogue_are_not_shown() -> None:
    text = multipart("b", "\none").replace("\n\n--b", "\n\npreamble\n--b") + "epilogue\n"
    assert texts(read(text)) == ["one"]


def test_nesting() -> None:
    inner = multipart("in", "\ntext", "Content-Type: text/html\n\nhtml", kind="alternative", header="")
    parsed = read(multipart("out", inner, "Content-Type: application/pdf\n\nx"))
    assert tree(parsed.email.body_structure) == (
        "multipart/mixed",
        [("multipart/alternative", ["text/plain", "text/html"]), "application/pdf"],
    )
    assert (texts(parsed), htmls(parsed), attached(parsed)) == (["text"], ["html"], ["application/pdf"])


def test_part_ids_number_the_leaves() -> None:
    inner = multipart("in", "\na", "\nb", header="")
    root = read(multipart("out", inner, "\nc")).email.body_structure
    assert root is not None
    assert isinstance(root.sub_parts, list)
    assert (root.part_id, root.sub_parts[0].part_id, root.sub_parts[1].part_id) == (None, None, "3")


@pytest.mark.fault("C06")
def test_a_boundary_that_begins_like_another_one() -> None:
    inner = multipart("bb", "\ninner", header="")
    assert texts(read(multipart("b", inner, "\nouter"))) == ["inner", "outer"]
    inner = multipart("b", "\ninner", header="")
    assert texts(read(multipart("bb", inner, "\nouter"))) == ["inner", "outer"]


@pytest.mark.fault("C06")
def test_boundaries_within_the_text_are_text() -> None:
    assert texts(read(multipart("b", "\n--bx\n-- b\n--"))) == ["--bx\n-- b\n--"]


def test_white_space_after_a_boundary_is_padding() -> None:
    # RFC 2046 5.1.1.
    assert texts(read(multipart("b", "\none", "\ntwo").replace("--b\n", "--b \t\n"))) == ["one", "two"]


@pytest.mark.fault("C06")
def test_a_mail_that_ends_too_early_still_has_its_parts() -> None:
    parsed = read('Content-Type: multipart/mixed; boundary="b"\n\n--b\n\none\n--b\nContent-Type: application/pdf\n\nx')
    assert texts(parsed) == ["one"]
    assert attached(parsed) == ["application/pdf"]


@pytest.mark.fault("C06")
def test_an_outer_boundary_ends_an_inner_multipart() -> None:
    inner = 'Content-Type: multipart/mixed; boundary="in"\n\n--in\n\ninner'
    assert texts(read(multipart("out", inner, "\nouter"))) == ["inner", "outer"]


@pytest.mark.fault("C06")
@pytest.mark.parametrize("boundary", ['; boundary=""', "", '; boundary="other"'])
def test_a_multipart_that_cannot_be_taken_apart_is_text_and_a_problem(boundary: str) -> None:
    parsed = read(f"Content-Type: multipart/mixed{boundary}\n\n--b\n\none\n--b--\n")
    assert texts(parsed) == ["--b\n\none\n--b--\n"]
    assert parsed.problem is not None
    assert parsed.problem.type == "unparseable"


@pytest.mark.fault("C06")
def test_a_boundary_used_twice_is_a_problem() -> None:
    parsed = read(multipart("b", multipart("b", "\ninner", header=""), "\nouter"))
    assert parsed.problem is not None
    assert "inner" in "".join(texts(parsed))


@pytest.mark.fault("C06")
def test_of_two_content_types_the_first_counts_and_it_is_a_problem() -> None:
    parsed = read("Content-Type: text/html\nContent-Type: text/plain\n\n<p>x")
    assert tree(parsed.email.body_structure) == "text/html"
    assert parsed.problem is not None
    assert read("Content-Type: text/html\nContent-Type: text/html \n\n<p>x").problem is None


def test_a_multipart_with_nothing_in_it() -> None:
    parsed = read('Content-Type: multipart/mixed; boundary="b"\n\n')
    assert tree(parsed.email.body_structure) == ("multipart/mixed", [])


def test_a_boundary_without_a_header_before_its_body() -> None:
    # No empty line: it is the body, not a header.
    assert texts(read(multipart("b", "no header here"))) == ["no header here"]
    assert texts(read(multipart("b", "no header here\n\nand more"))) == ["no header here\n\nand more"]


def test_a_boundary_with_nothing_after_it_begins_no_part() -> None:
    parsed = read('Content-Type: multipart/mixed; boundary="b"\n\n--b\n--b\n--b\n\none\n--b\n--b--\n')
    assert texts(parsed) == ["one"]
    assert texts(read('Content-Type: multipart/mixed; boundary="b"\n\n--b\n\none\n--b\n')) == ["one"]
    assert "parts" in read(multipart("b", "\none").replace("--b\n", "--b\n" * (LIMITS.boundary_misses + 9))).truncated


def test_a_part_without_an_empty_line_has_its_body_where_the_fields_end() -> None:
    parsed = read(multipart("b", "Content-Type: text/html\n<p>one", "\ntwo"))
    assert texts(parsed) == ["<p>one", "two"]
    assert tree(parsed.email.body_structure) == ("multipart/mixed", ["text/html", "text/plain"])
    assert not parsed.whole


def test_a_boundary_within_a_header_ends_the_part() -> None:
    text = 'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: image/png\n--b\n\ntwo\n--b--\n'
    parsed = read(text)
    assert tree(parsed.email.body_structure) == ("multipart/mixed", ["image/png", "text/plain"])
    assert texts(parsed) == ["image/png", "two"]


def test_an_enclosed_message_is_an_attachment_whole() -> None:
    enclosed = "Subject: inner\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nx\n--c--"
    parsed = read(multipart("b", "\nhi", f"Content-Type: message/rfc822\n\n{enclosed}"))
    assert tree(parsed.email.body_structure) == ("multipart/mixed", ["text/plain", "message/rfc822"])
    assert parsed.blobs["2"].decode() == enclosed.replace("\n", "\r\n")
    assert parsed.email.subject is None


def test_in_a_digest_parts_are_messages() -> None:
    # RFC 2046 5.1.5.
    parsed = read(multipart("b", "\nSubject: one\n\nx", "Content-Type: text/plain\n\ny", kind="digest"))
    assert tree(parsed.email.body_structure) == ("multipart/digest", ["message/rfc822", "text/plain"])
    assert parsed.blobs["1"] == b"Subject: one\r\n\r\nx"


@pytest.mark.fault("C02")
@pytest.mark.parametrize("between", ["", "Content-Type: message/rfc822\n\n"])
def test_nesting_10000_deep_is_cut(between: str) -> None:
    head = "".join(
        f'Content-Type: multipart/mixed; boundary="b{number}"\n\n--b{number}\n{between}' for number in range(10_000)
    )
    parsed = read(head + "\nthe end\n")
    depth, part = 0, parsed.email.body_structure
    while part is not None and isinstance(part.sub_parts, list) and part.sub_parts:
        depth, part = depth + 1, part.sub_parts[0]
    assert depth <= LIMITS.depth
    assert b"the end" in b"".join(parsed.blobs.values())
    assert between or parsed.truncated == ["depth"]


@pytest.mark.fault("C03")
def test_of_100000_parts_the_rest_is_one_blob() -> None:
    parsed = read(multipart("b", *["\nx"] * 100_000))
    root = parsed.email.body_structure
    assert root is not None
    assert isinstance(root.sub_parts, list)
    assert len(root.sub_parts) <= LIMITS.parts
    assert root.sub_parts[-1].type == "application/octet-stream"
    assert root.sub_parts[-1].size > 500_000
    assert "parts" in parsed.truncated


@pytest.mark.fault("C04")
def test_lines_that_look_like_boundaries_are_not_looked_at_for_ever() -> None:
    raw = multipart("b", "\nbegin\n" + "--bx\n" * (LIMITS.boundary_misses + 10) + "end", "\nafter")
    assert "parts" in read(raw).truncated
    raw = multipart("b", "X: y\n" + "--bx\n" * (LIMITS.boundary_misses + 10) + "end", "\nafter")
    assert "parts" in read(raw).truncated


@pytest.mark.fault("C04")
def test_parts_without_an_empty_line_do_not_search_the_mail_again_and_again() -> None:
    raw = multipart("b", *["X: y"] * 200).encode() + b"Z: z\n" * 100_000
    searched = 0

    def counting(data: bytes, start: int, end: int) -> HeaderEnd:
        nonlocal searched
        found = find_end(data, start, end)
        searched += found.body - start
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "find_end", counting)
        end = find_end(raw, 0, len(raw))
        split(raw, parse_header(raw[: end.header], LIMITS), end.body, LIMITS, most=1000)
    assert searched <= len(raw)
