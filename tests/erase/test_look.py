"""An address is known however it is written, and no other one is."""

import json
from unicodedata import normalize
from urllib.parse import quote

import pytest

from service.erase import wanted_address

ADA = "ada@example.org"


def test_an_address_is_found_as_a_whole_and_in_any_case() -> None:
    wanted = wanted_address(ADA, "*")
    for text in (ADA, f"<{ADA}>", f"mailto:{ADA.upper()}?x", f"smtp.mailfrom={ADA};", f"an {ADA}."):
        assert wanted.is_named(text.encode()), text
    for text in (
        json.dumps({"text": f"hello\n{ADA}\nbye"}),
        json.dumps({"text": f'"{ADA}"'}),
        r"\u003cada\u0040example.org\u003e",
        "https://x.example/?u=ada%40example.org&x=1",
        "https://x.example/?u%3Dada%40example.org",
    ):
        assert wanted.is_named(text.encode()), text
    assert wanted_address("jörg@example.org", "*").is_named(json.dumps({"email": "jörg@example.org"}).encode())
    assert wanted_address('"a b"@example.org', "*").is_named(json.dumps({"email": '"a b"@example.org'}).encode())
    for text in (f"x{ADA}", f"b.{ADA}", f"a+{ADA}", f"{ADA}.net", f"{ADA}x", "ada@exampleXorg"):
        assert not wanted.is_named(text.encode()), text


@pytest.mark.parametrize("typed", ["ada@bücher.example", "ada@BÜCHER.example", "ada@xn--bcher-kva.example"])
def test_a_domain_is_found_in_both_of_its_spellings_whichever_was_asked_for(typed: str) -> None:
    wanted = wanted_address(typed, "*")
    for written in ("ada@bücher.example", "ada@xn--bcher-kva.example", "ADA@XN--BCHER-KVA.EXAMPLE"):
        for text in (written, json.dumps({"email": written}), quote(written, safe=""), normalize("NFD", written)):
            assert wanted.is_named(text.encode()), text
    for other in ("ada@bucher.example", "ada@xn--bcher-kva.example.net", "bada@bücher.example"):
        assert not wanted.is_named(other.encode()), other
    assert wanted.mention is not None
    assert wanted.mention.sub("", "ada@bücher.example, ada@xn--bcher-kva.example") == ", "


def test_a_domain_that_is_no_name_is_looked_for_as_it_is_written() -> None:
    for address in ("ada@xn--0.example", "ada@a..b", "ada@-ü.example"):
        assert wanted_address(address, "*").is_named(f"<{address}>".encode())
