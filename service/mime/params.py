"""`type; name=value` fields → a value and its parameters. Pure, linear, never raises.

Content-Type (RFC 2045 5.1), Content-Disposition (RFC 2183), parameters in pieces and charsets (RFC 2231).
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from service.mime.charset import decode
from service.mime.words import decode_words, unfold

# Names in RFC 2231 pieces fit; what is longer is no parameter list.
_VALUE_CHARS: Final = 32 * 1024
_PARAM: Final = re.compile(r';\s*+([^\s=;"]++)\s*+=\s*+("(?:[^"\\]++|\\.)*+"?|[^;]*+)', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
# A path of Windows whose backslashes nobody doubled: C:\new\file, and the name of a share.
_PATH: Final = re.compile(r'[A-Za-z]:\\(?![\\"])|\\\\[^\\"]+\\(?![\\"])')
_TYPE: Final = re.compile(r'\s*+([^\s/;"(),=]++)\s*+/\s*+([^\s;"(),=/]++)')
_TOKEN: Final = re.compile(r'[^\s;"(),=/]++')
# `text/plain charset=utf-8`: what some programs write instead of the semicolon is white space.
_NO_SEMICOLON: Final = re.compile(r"\s++(?=[A-Za-z0-9*_-]++\s*+=)")
# RFC 2231 3 and 4: name*, name*3, name*3*.
_PIECE: Final = re.compile(r"([^*]+)\*(?:([0-9]{1,4})(\*?))?\Z")
_TOKENS_OR_QUOTES: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|\\.|[()]|[^"\\()]++|\\', re.DOTALL)
_WORDS: Final = 100
# The same few fields come again and again; long ones are not the same and would fill the memory.
_CACHED_CHARS: Final = 256


class Parameters:
    """The value in lower case ("" where there is none that makes sense) and its parameters, names in lower case."""

    def __init__(self, value: str, params: dict[str, str]) -> None:
        self.value = value
        self.params = params
        self.cut = False  # the field is too long to be read whole


def parse_content_type(raw: str) -> Parameters:
    """`value` is type/subtype, or "" for one that RFC 2045 5.2 wants replaced by the default."""
    return _cached_type(raw) if len(raw) <= _CACHED_CHARS else _marked(_content_type(raw), raw)


def parse_disposition(raw: str) -> Parameters:
    """`value` is inline, attachment, or another token; "" where the field begins with its parameters."""
    return _cached_disposition(raw) if len(raw) <= _CACHED_CHARS else _marked(_disposition(raw), raw)


def _marked(found: Parameters, raw: str) -> Parameters:
    found.cut = len(raw) > _VALUE_CHARS
    return found


def _content_type(raw: str) -> Parameters:
    text = unfold(raw[:_VALUE_CHARS])
    bare = without_comments(text) if "(" in text else text
    found = _TYPE.match(bare)
    if found and (missing := _NO_SEMICOLON.match(bare, found.end())) is not None:
        bare = text = f"{bare[: found.end()]};{bare[missing.end() :]}"
    params = _params(bare) if bare is text else _with_brackets(_params(bare), text)
    if found:
        return Parameters(f"{found[1]}/{found[2]}".lower(), params)
    word = _TOKEN.match(bare.strip())
    lone = word[0].lower() if word else ""
    if lone == "multipart" or (not lone and "boundary" in params):
        return Parameters("multipart/mixed", params)
    if lone in ("", "text") or "name" not in params:
        return Parameters("", params)
    return Parameters("application/octet-stream", params)


def _disposition(raw: str) -> Parameters:
    text = unfold(raw[:_VALUE_CHARS])
    bare = (without_comments(text) if "(" in text else text).strip()
    word = _TOKEN.match(bare)
    value = word[0].lower() if word else ""
    if not word or bare[len(value) :].lstrip().startswith("="):
        value, bare, text = "", f";{bare}", f";{text}"
    return Parameters(value, _with_brackets(_params(bare), text) if "(" in text else _params(bare))


def _with_brackets(params: dict[str, str], text: str) -> dict[str, str]:
    """Names of files keep their brackets: `filename=plan (2).pdf` is no comment to those who write it."""
    whole = _params(text)
    return params | {name: whole[name] for name in ("filename", "name") if name in params and name in whole}


_cached_type: Final = lru_cache(maxsize=1024)(_content_type)
_cached_disposition: Final = lru_cache(maxsize=1024)(_disposition)


def without_comments(text: str) -> str:
    """RFC 5322 3.2.2: comments nest, and stand outside quotes."""
    out: list[str] = []
    depth = 0
    for found in _TOKENS_OR_QUOTES.finditer(text):
        token = found[0]
        if token == "(":
            depth += 1
        elif token == ")":
            depth = max(0, depth - 1)
            out.append(" ")
        elif not depth:
            out.append(token)
    # A comment that never ends is none.
    return text if depth else "".join(out)


def _params(text: str) -> dict[str, str]:
    params: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for found in _PARAM.finditer(text):
        name, value = found[1].lower(), found[2]
        if value[:1] == '"':
            value = value[1:-1] if len(value) > 1 and value[-1] == '"' else value[1:]
            if "\\" in value:
                value = _unescaped(value)
        else:
            value = value.rstrip()
        if "*" in name and (piece := _PIECE.match(name)):
            extended = piece[2] is None or piece[3] == "*"
            pieces.setdefault(piece[1], {}).setdefault(int(piece[2] or 0), (value, extended))
        else:
            if "=?" in value:
                # RFC 2047 5 forbids it; Outlook and many others do it.
                value = decode_words(value, words=_WORDS)
            params.setdefault(name, value)
    for name, found_pieces in pieces.items():
        params[name] = _joined(found_pieces)
    return params


def _unescaped(value: str) -> str:
    r"""RFC 5322 3.2.4; but C:\new\file keeps its backslashes, which senders forget to double."""
    if _PATH.match(value):
        return value
    return _ESCAPE.sub(r"\1", value)


def _joined(pieces: dict[int, tuple[str, bool]]) -> str:
    """RFC 2231 3 and 4: pieces in order up to the first that is missing; the charset stands in the first."""
    ordered = sorted(pieces.items())
    charset: str | None = None
    out: list[bytes] = []
    for position, (number, (value, extended)) in enumerate(ordered):
        if number != position and position and number != ordered[position - 1][0] + 1:
            break
        if extended and not position and value.count("'") >= 2:
            charset, _, value = value.split("'", 2)
        out.append(unquote_to_bytes(value) if extended else value.encode("utf-8", "replace"))
    if charset is None and "=?" in (joined := b"".join(out).decode("utf-8", "replace")):
        return decode_words(joined, words=_WORDS)
    return decode(b"".join(out), charset or None).text
