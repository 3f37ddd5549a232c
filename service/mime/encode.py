"""Text → header fields, parameters and bodies that any mail server passes on unchanged. Pure, linear.

Used by build.py. Everything comes out as ASCII in CRLF lines, but for an address whose local part is not ASCII
(RFC 6532). RFC 5322 2.2.3 (folding), RFC 2045 section 6 (bodies), RFC 2047 (words), RFC 2231 (parameters).
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Iterator, Sequence
from typing import Final

FOLD_CHARS: Final = 76  # RFC 5322 2.1.1 wants 78 at most; RFC 2047 section 2 wants 76 where encoded words are
# RFC 5322 2.1.1: 998 at most. What cannot be folded under this is encoded instead.
TOKEN_LIMIT_CHARS: Final = 900
# The longest name of a field with phrases, its colon and a space.
PHRASE_FIELD_CHARS: Final = len("Reply-To: ")
_WORD_CHARS: Final = 75 - len("=?utf-8?q??=")
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PIECE: Final = r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+|\"(?:[ !#-\[\]-~]|\\[ -~])*\")"
_PHRASE: Final = re.compile(rf"{_PIECE}(?: +{_PIECE})*")
_PHRASE_PIECE: Final = re.compile(_PIECE)
# RFC 2047 section 5 (3): what may stand for itself in a Q word inside a phrase.
_Q_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
# RFC 2231 section 7: attribute-char.
_ATTRIBUTE_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")


# -- header fields ------------------------------------------------------------------------------------------------


def field(name: str, tokens: Sequence[str]) -> str:
    """A field of tokens that stay whole, a space between two of them, folded where a line would be too long."""
    lines: list[str] = []
    line = f"{name}:"
    for token in tokens:
        if len(line) + 1 + len(token) > FOLD_CHARS and line != f"{name}:":
            lines.append(line)
            line = ""
        line += f" {token}"
    lines.append(line)
    return "\r\n".join(lines) + "\r\n"


def text_field(name: str, text: str) -> str:
    """A field of free text (RFC 5322 2.2.1)."""
    plain = text.isascii() and text.isprintable() and text == text.strip() and "=?" not in text
    # A word counts with the spaces before it: they cannot be parted, or folding would change their number.
    if not plain or any(len(word) > TOKEN_LIMIT_CHARS for word in re.findall(r" *[^ ]+", text)):
        return field(name, encoded_words(text, first_room=FOLD_CHARS - len(name) - 2)) if text else f"{name}: \r\n"
    return plain_field(name, text)


def plain_field(name: str, text: str) -> str:
    """A field as it is given, printable ASCII, folded where it has spaces."""
    if len(name) + 2 + len(text) <= FOLD_CHARS:
        return f"{name}: {text}\r\n"
    # Unfolding gives back every space: a fold stands before one, never instead of it.
    lines, line = [], f"{name}:"
    for word in re.findall(r" +[^ ]+", f" {text}"):
        if len(line) + len(word) > FOLD_CHARS and line.strip() and line != f"{name}:":
            lines.append(line)
            line = ""
        line += word
    return "\r\n".join([*lines, line]) + "\r\n"


def address_tokens(addresses: Sequence[tuple[str | None, str]]) -> list[str]:
    """Names and addresses as the tokens of an address list (RFC 5322 3.4)."""
    tokens: list[str] = []
    for name, address in addresses:
        if name:
            tokens += phrase(name)
            tokens.append(f"<{address}>,")
        else:
            tokens.append(f"{address},")
    if tokens:
        tokens[-1] = tokens[-1][:-1]
    return tokens


def phrase(name: str) -> list[str]:
    """A display name: atoms, a quoted string, or encoded words."""
    if "=?" not in name and len(name) <= FOLD_CHARS - 20:
        if _ATOMS.fullmatch(name):
            return [name]
        if name.isascii() and name.isprintable() and name == " ".join(name.split()):
            return ['"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"']
    # The first one stands behind the name of its field: RFC 2047 2, such a line has 76 characters at most.
    return encoded_words(name, first_room=FOLD_CHARS - PHRASE_FIELD_CHARS)


def given_phrase(text: str) -> list[str]:
    """A phrase as somebody wrote it: left alone where it is one (RFC 5322 3.2.5), otherwise what he means as one."""
    if _PHRASE.fullmatch(text):
        return _PHRASE_PIECE.findall(text)
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return phrase(text) if text else []


def encoded_words(text: str, *, first_room: int = FOLD_CHARS) -> list[str]:
    """RFC 2047: as few words as it takes, cut between characters, in the shorter of its two encodings."""
    whole = text.encode("utf-8", "replace")
    q_cost = sum(1 if byte in _Q_PLAIN or byte == 0x20 else 3 for byte in whole)
    in_base64 = q_cost > (len(whole) + 2) // 3 * 4
    words: list[str] = []
    room = max(16, min(_WORD_CHARS, first_room - len("=?utf-8?q??=")))
    chunk: list[bytes] = []
    used = 0
    for char in text:
        encoded = char.encode("utf-8", "replace")
        cost = len(encoded) if in_base64 else sum(1 if b in _Q_PLAIN or b == 0x20 else 3 for b in encoded)
        limit = room // 4 * 3 if in_base64 else room
        if used + cost > limit and chunk:
            words.append(_word(b"".join(chunk), in_base64))
            chunk, used, room = [], 0, _WORD_CHARS
        chunk.append(encoded)
        used += cost
    words.append(_word(b"".join(chunk), in_base64))
    return words


def _word(data: bytes, in_base64: bool) -> str:
    if in_base64:
        return f"=?utf-8?b?{b2a_base64(data, newline=False).decode('ascii')}?="
    return "=?utf-8?q?" + "".join(_q(byte) for byte in data) + "?="


def _q(byte: int) -> str:
    if byte == 0x20:
        return "_"
    return chr(byte) if byte in _Q_PLAIN else f"={byte:02X}"


def parameter_tokens(name: str, value: str) -> list[str]:
    """A parameter: quoted where it is short ASCII, otherwise in percent encoding and numbered pieces (RFC 2231)."""
    if value.isascii() and value.isprintable() and len(value) <= FOLD_CHARS - len(name) - 10 and "=?" not in value:
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        return [f'{name}="{quoted}"']
    room = FOLD_CHARS - len(name) - 10
    pieces: list[str] = []
    piece = "utf-8''"
    for char in value:
        encoded = "".join(_percent(byte) for byte in char.encode("utf-8", "replace"))
        if len(piece) + len(encoded) > room:
            pieces.append(piece)
            piece = ""
        piece += encoded
    pieces.append(piece)
    if len(pieces) == 1:
        return [f"{name}*={piece}"]
    tokens = [f"{name}*{i}*={piece};" for i, piece in enumerate(pieces)]
    return [*tokens[:-1], tokens[-1][:-1]]


def _percent(byte: int) -> str:
    return chr(byte) if byte in _ATTRIBUTE_PLAIN else f"%{byte:02X}"


# -- bodies -------------------------------------------------------------------------------------------------------


def text_body(text: str) -> tuple[str, bytes]:
    """The transfer encoding that fits and the body: CRLF lines, ASCII, ending with CRLF."""
    # Replacements: a tenth of what one regular expression takes.
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    data = text.encode("utf-8", "replace").replace(b"\n", b"\r\n")
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    if _plain(data):
        return "7bit", data
    # Where more than a third is not ASCII, quoted-printable costs more than base64's one third.
    odd = len(data) - len(data.translate(None, delete=_NOT_ASCII))
    if odd * 6 > len(data):
        return "base64", base64_lines(data)
    # b2a_qp takes its line ends from the first one it sees, which is ours.
    quoted = b2a_qp(data, istext=True).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    # Some software still escapes a line that begins with From, and breaks signatures.
    quoted = quoted.replace(b"\r\nFrom ", b"\r\n=46rom ")
    return "quoted-printable", b"=46" + quoted[1:] if quoted.startswith(b"From ") else quoted


# Of a file, at once: whole lines.
_BLOCK_BYTES: Final = 57 * 1024
_NOT_ASCII: Final = bytes(range(128, 256))
# What 7bit text holds: printable ASCII, tabs and line ends.
_7BIT: Final = bytes([9, 10, 13, *range(32, 127)])


def _plain(data: bytes) -> bool:
    """Whether nothing on the way has a reason to change it. No regular expression: 30 times slower on 10 KB."""
    if data.translate(None, delete=_7BIT) or b" \r\n" in data or b"\t\r\n" in data:
        return False
    if b"\nFrom " in data or data.startswith(b"From "):
        return False
    return max(map(len, data.split(b"\r\n"))) <= 76


def base64_lines(data: bytes) -> bytes:
    """RFC 2045 6.8: lines of 76 characters."""
    return b"".join(base64_blocks(data))


def base64_blocks(data: bytes) -> Iterator[bytes]:
    """The same, some lines at a time: those of a large file would take five times its size."""
    for start in range(0, len(data), _BLOCK_BYTES):
        encoded = b2a_base64(data[start : start + _BLOCK_BYTES], newline=False)
        yield b"".join([encoded[i : i + 76] + b"\r\n" for i in range(0, len(encoded), 76)])
