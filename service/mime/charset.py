"""Bytes in a charset that may be wrong, unknown or a lie → text that is valid Unicode. Pure, never raises.

Order: what is declared, UTF-8, what the bytes look like (faust-cchardet), windows-1252.
Only codecs of the table below are used: Python's own registry also holds `punycode` (quadratic),
`unicode_escape` and codecs that are no charsets.
"""

from functools import lru_cache
from typing import Final

import cchardet

# The detector's answer does not get better with more than this, and it costs 1-20 ns a byte.
DETECT_BYTES: Final = 16 * 1024
# Header and body of a mail are supersets of ASCII; what DOS and old Macs wrote is seldomer than a wrong guess at it.
_NEVER_UNDECLARED: Final = ("utf-16", "utf-32", "utf-7", "ascii", "mac-", "cp4", "cp7", "cp8")
REPLACEMENT: Final = "\ufffd"


class Decoded:
    """Text, and whether something in it had to be guessed or replaced (RFC 8621 4.1.4 isEncodingProblem)."""

    def __init__(self, text: str, problem: bool) -> None:
        self.text = text
        self.problem = problem


def _table() -> dict[str, str]:
    """Charset name without punctuation → Python codec."""
    table = {}
    for codec in (
        "utf-8 utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be utf-7 koi8-r koi8-u koi8-t kz1048 mac-roman"
        " mac-cyrillic mac-greek mac-turkish mac-latin2 mac-iceland gb18030 big5hkscs euc-jp euc-jis-2004 iso2022-jp"
        " iso2022-kr iso2022-jp-1 iso2022-jp-2 iso2022-jp-3 iso2022-jp-ext iso2022-jp-2004 hz johab ptcp154 tis-620"
        " cp437 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858 cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869"
        " cp874 cp932 cp949 cp950 cp037 cp500 cp1140 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258"
        " iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-10 iso8859-13 iso8859-14"
        " iso8859-15 iso8859-16"
    ).split():
        table[_plain(codec)] = codec
    for number in range(1250, 1259):
        table[f"windows{number}"] = table[f"xcp{number}"] = table[f"ms{number}"] = f"cp{number}"
    for number in (437, 850, 852, 855, 857, 860, 861, 862, 863, 864, 865, 866, 869):
        table[f"ibm{number}"] = f"cp{number}"
    for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16):
        table[f"iso8859{number}"] = table[f"8859{number}"] = f"iso8859-{number}"
    table |= {f"latin{n}": f"iso8859-{n}" for n in (2, 3, 4)} | {"latin9": "iso8859-15", "latin10": "iso8859-16"}
    # WHATWG Encoding 4.2: what senders name is the smaller set, what they use is the vendor's larger one.
    for names, codec in (
        ("ascii usascii ansix341968 ansix341986 iso646us us 646 cp367 ibm367", "ascii"),
        ("utf8 unicode11utf8 xutf8 utf8mb4", "utf-8"),
        ("utf7 unicode11utf7 xunicode20utf7", "utf-7"),
        ("utf16 unicode ucs2 iso10646ucs2", "utf-16"),
        ("iso88591 88591 latin1 l1 iso885911987 isoir100 windows1252 xansi ansi westerneuropean", "cp1252"),
        ("iso88599 latin5 l5", "cp1254"),
        ("iso885911 tis620 windows874 dos874", "cp874"),
        ("iso88598i iso88598e visual logical", "iso8859-8"),
        ("iso88596i iso88596e", "iso8859-6"),
        ("gb2312 gbk cp936 ms936 windows936 xgbk euccn gb231280 csgb2312 chinese gb18030 xeuccn", "gb18030"),
        ("hzgb2312", "hz"),
        ("big5 xxbig5 big5hkscs cnbig5 csbig5 big5tw", "big5hkscs"),
        ("euckr ksc56011987 ksc5601 korean uhc windows949 ksx1001 ksc56011989 cseuckr", "cp949"),
        ("shiftjis sjis xsjis mskanji windows31j csshiftjis cp942 shiftjisms", "cp932"),
        ("eucjp xeucjp xeuc", "euc-jp"),
        ("iso2022jp csiso2022jp iso2022jpms cp50220 cp50221", "iso2022-jp-ext"),
        ("koi8 koi", "koi8-r"),
        ("koi8ru", "koi8-u"),
        ("macintosh xmacroman mac macroman", "mac-roman"),
        ("xmaccyrillic xmacukrainian", "mac-cyrillic"),
    ):
        table |= dict.fromkeys(names.split(), codec)
    return table


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isascii() and char.isalnum())


_CODECS: Final = _table()


def codec_or_none(name: str) -> str | None:
    """The codec for a charset's name as people write it, None for one that is unknown."""
    return _codec_or_none(name[:64])


@lru_cache(maxsize=512)
def _codec_or_none(name: str) -> str | None:
    return _CODECS.get(_plain(name))


def decode(data: bytes, declared: str | None) -> Decoded:
    """All of `data` as text; `declared` is the charset parameter, None where there was none.

    RFC 8621 4.1.4: a problem is a charset that is unknown, or bytes that are not of it. Without one it is us-ascii.
    """
    codec = "ascii" if declared is None else codec_or_none(declared)
    if codec is None:
        return Decoded(_clean(guess(data)), problem=True)
    try:
        text = data.decode(codec)
    except (UnicodeDecodeError, ValueError):
        return Decoded(_clean(_second_try(data, codec)), problem=True)
    if codec in ("ascii", "utf-8"):
        if "\0" in text:
            return Decoded(text.replace("\0", REPLACEMENT), problem=True)
        return Decoded(text.removeprefix("\ufeff"), problem=False)
    clean = _clean(text)
    return Decoded(clean, problem=clean is not text)


def _second_try(data: bytes, codec: str) -> str:
    if codec == "ascii":
        return guess(data)
    if codec == "cp1252":
        return data.decode("latin-1")  # the five bytes that windows-1252 leaves out
    if codec == "utf-8":
        # Broken UTF-8 with good UTF-8 around it is UTF-8; otherwise another charset hides behind the label.
        text = data.decode("utf-8", "replace")
        head = text[:DETECT_BYTES]
        return text if head.count(REPLACEMENT) * 4 <= sum(char > "\x7f" for char in head) else guess(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(codec, "replace")


def guess(data: bytes) -> str:
    """Text of undeclared bytes. May hold NUL or surrogates: see _clean."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    codec = guess_codec(data)
    try:
        return data.decode(codec)
    except (UnicodeDecodeError, ValueError):
        return data.decode("latin-1" if codec == "cp1252" else codec, "replace")


def guess_codec(data: bytes) -> str:
    """The codec that 8-bit bytes look like; windows-1252 where nothing is sure."""
    try:
        found = cchardet.detect(data[:DETECT_BYTES])
    except Exception:  # noqa: BLE001 a C++ library over hostile bytes: no answer is an answer
        return "cp1252"
    name, confidence = found.get("encoding"), found.get("confidence")
    if not name or not confidence or confidence < 0.5:
        return "cp1252"
    codec = codec_or_none(name)
    return "cp1252" if codec is None or codec.startswith(_NEVER_UNDECLARED) else codec


def _clean(text: str) -> str:
    """The same object where nothing is wrong; lone surrogates (UTF-7 makes them) and NUL become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", REPLACEMENT)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # A pair written as two halves becomes its character, a half alone U+FFFD.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
