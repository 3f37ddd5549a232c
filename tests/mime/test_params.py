"""Content-Type and Content-Disposition, RFC 2231, and what senders make of them."""

import pytest

from service.mime.params import parse_content_type, parse_disposition
from tests.mime.mails import attached, multipart, read


@pytest.mark.parametrize(
    ("raw", "value", "params"),
    [
        (" text/plain; charset=utf-8", "text/plain", {"charset": "utf-8"}),
        (" TEXT/Plain ; CHARSET = 'x' ", "text/plain", {"charset": "'x'"}),
        ('text/plain;\r\n\tcharset="a;b";format=flowed', "text/plain", {"charset": "a;b", "format": "flowed"}),
        (r'text/plain; name="a \"b\" \\ c"', "text/plain", {"name": r'a "b" \ c'}),
        (r'text/plain; name="C:\new\file.txt"', "text/plain", {"name": r"C:\new\file.txt"}),
        (r'text/plain; name="\\server\share\f"', "text/plain", {"name": r"\\server\share\f"}),
        (r'text/plain; name="\\"', "text/plain", {"name": "\\"}),
        (r'text/plain; name="\\a"', "text/plain", {"name": r"\a"}),
        (r'text/plain; name="C:\\\"a"', "text/plain", {"name": r"C:\"a"}),
        ("text/plain (a comment); charset=utf-8 (another (nested))", "text/plain", {"charset": "utf-8"}),
        ("text/plain; charset=utf-8;", "text/plain", {"charset": "utf-8"}),
        ("text/plain; name=a b.txt", "text/plain", {"name": "a b.txt"}),
        ('text/plain; name="never closed', "text/plain", {"name": "never closed"}),
        ("text/plain; a=1; a=2", "text/plain", {"a": "1"}),
        # White space where the first semicolon should be.
        ("text/plain charset=utf-8", "text/plain", {"charset": "utf-8"}),
        ('multipart/mixed\r\n boundary="b"; x=y', "multipart/mixed", {"boundary": "b", "x": "y"}),
        ("text/plain charset utf-8", "text/plain", {}),
        # RFC 2045 5.2: what makes no sense is the default.
        ("", "", {}),
        ("text", "", {}),
        ("/plain", "", {}),
        ("nonsense", "", {}),
        ("multipart; boundary=b", "multipart/mixed", {"boundary": "b"}),
        ("pdf; name=a.pdf", "application/octet-stream", {"name": "a.pdf"}),
    ],
)
def test_content_type(raw: str, value: str, params: dict[str, str]) -> None:
    found = parse_content_type(raw)
    assert (found.value, found.params) == (value, params)


@pytest.mark.fault("C09")
@pytest.mark.parametrize(
    ("raw", "name"),
    [
        # RFC 2231 3 and 4: pieces, charset and language.
        ("filename*=utf-8''na%C3%AFve%20plan.txt", "naïve plan.txt"),
        ("filename*=utf-8'en'a.txt", "a.txt"),
        ('filename*0="long "; filename*1=name.txt', "long name.txt"),
        ('filename*1=name.txt; filename*0="long "', "long name.txt"),
        ("filename*0*=utf-8''%C3; filename*1*=%BC.txt", "ü.txt"),
        ("filename*0*=utf-8''a%20; filename*1=\"%20.txt\"", "a %20.txt"),
        ("filename*0=a; filename*2=c", "a"),
        ("filename=plain.txt; filename*=utf-8''better.txt", "better.txt"),
        ("filename*=nonsense''%FC.txt", "ü.txt"),
        ("filename*=%41.txt", "A.txt"),
        ("filename=plan (2).pdf", "plan (2).pdf"),  # a comment by RFC 2045, a name by all who write it
        ('(why) filename="plan (2).pdf" (because)', "plan (2).pdf"),
        # RFC 2047 5 forbids it, nearly everybody does it.
        ('filename="=?utf-8?q?=C3=BC?=.txt"', "ü.txt"),
        ('filename="=?utf-8?q?=C3?= =?utf-8?q?=BC.txt?="', "ü.txt"),
        # A name is data: nothing is taken away, nothing is a path.
        ('filename="../../etc/passwd"', "../../etc/passwd"),
        ('filename="a\u202egnp.exe"', "a\u202egnp.exe"),
    ],
)
def test_file_names(raw: str, name: str) -> None:
    assert parse_disposition(f"attachment; {raw}").params["filename"] == name


@pytest.mark.fault("C09")
def test_a_nul_in_a_file_name_never_arrives() -> None:
    part = 'Content-Disposition: attachment; filename="a\0b.txt"\n\nx'
    assert attached(read(multipart("b", "\nhi", part))) == ["ab.txt"]
    part = "Content-Disposition: attachment; filename*=utf-8''a%00b.txt\n\nx"
    assert attached(read(multipart("b", "\nhi", part))) == ["a\ufffdb.txt"]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("attachment", "attachment"),
        ("INLINE; x=y", "inline"),
        ("filename=a.txt", ""),
        ("", ""),
        (" form-data; name=x", "form-data"),
    ],
)
def test_disposition(raw: str, value: str) -> None:
    assert parse_disposition(raw).value == value


def test_a_disposition_of_parameters_alone_still_has_them() -> None:
    assert parse_disposition("filename=a.txt").params == {"filename": "a.txt"}


@pytest.mark.fault("C09")
def test_a_name_of_endless_length_is_cut_and_named() -> None:
    parsed = read(multipart("b", f'Content-Disposition: attachment; filename="{"x" * 5000}"\n\ny'))
    assert [len(name) for name in attached(parsed)] == [255]
    assert "names" in parsed.truncated
