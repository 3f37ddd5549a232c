"""Blocks of `Name: value` lines, as reports and returned mails have them → fields. Pure, linear, never raises.

RFC 3464 2.1: groups of fields with an empty line between them; folded as RFC 5322 has it.
"""

import re
from html import unescape
from typing import Final

_FOLD: Final = re.compile(r"\r?\n[ \t]+")
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_NAME: Final = re.compile(r"([!-9;-~]{1,76})[ \t]*:[ \t]*")
# Of recipients, guests and complaints an event has so many: more than an envelope has (RFC 5321 4.5.3.1.8 asks servers
# for 100). One more is read, so that read.py knows that there were more, and says so.
RECIPIENTS: Final = 200
READ: Final = RECIPIENTS + 1
# Of a text in an invitation, and URLs by which a list is left: likewise.
TEXT_CHARS: Final = 1000
URLS: Final = 4
# A report of a thousand recipients has about ten thousand lines; what is more is no report.
_LINES: Final = 20_000
# An address within a text. An apostrophe is its own between two letters (o'brien@), else the text's; punctuation of
# Chinese and Japanese, which have no spaces, always is.
ADDRESS: Final = re.compile(
    r"(?:[^\s<>()\[\]:;,\"'`|@（）「」【】《》，。；：、]|(?<=[A-Za-z])'(?=[A-Za-z])){1,128}"
    r"@(?:\[[0-9A-Fa-fIPv:.]{2,48}\]|(?![（）「」【】《》，。；：、])[A-Za-z0-9\u0080-\U0010ffff]"
    r"[^\s<>()\[\]:;,\"'`|@*（）「」【】《》，。；：、]{0,254})"
)
# A field that holds an address and nothing else: RFC 5322 3.2.3 has more characters than a text can be asked for.
_WHOLE: Final = re.compile(r"[^\s<>()\[\]:;,\"@\\]{1,128}@(?:\[[^\s<>()\[\]@]{2,64}\]|[^\s<>()\[\]:;,\"@\\]{1,254})")
# RFC 6533 3: how a `utf-8` address stands in a field that is ASCII.
_UNITEXT: Final = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")
# RFC 5321 4.1.2: a local part in quotes, with whatever a backslash stands before.
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.){1,128}"@(?:\[[^\s<>()\[\]@]{2,64}\]|[A-Za-z0-9.-]{1,254})')
# A name of X.400 or Notes, whose values may have spaces: CN=Ann Example/O=Org@ORG.
_ATTRIBUTES: Final = re.compile(r"/?[A-Za-z0-9]{1,8}=[^@<>()\"]{1,200}@[^\s<>()\"@,;:]{1,254}")


def one_of(alternatives: str, *, before: str = "", after: str = "", lines: bool = False) -> re.Pattern[str]:
    """An expression from its alternatives, one a line, whatever the case; with `lines` ^ and $ are each line's."""
    words = "|".join(line.strip() for line in alternatives.strip().splitlines())
    return re.compile(f"{before}(?:{words}){after}", re.IGNORECASE | (re.MULTILINE if lines else 0))


def text_of(content: bytes) -> str:
    """RFC 3464 2.1.1 wants ASCII, RFC 6533 UTF-8; NUL, which JSON readers choke on, goes."""
    return content.decode("utf-8", "replace").replace("\0", "")


def groups(text: str, *, most: int) -> list[dict[str, str]]:
    """At most `most` groups: name in lower case → value without its folds, the first of a name."""
    found: list[dict[str, str]] = []
    group: dict[str, str] = {}
    last = ""
    for count, line in enumerate(_LINE_END.split(text)):
        if count >= _LINES or len(found) >= most:
            return found
        if not line or line.isspace():
            if group:
                found.append(group)
                group = {}
            last = ""
        elif line[0] in " \t":
            if last:
                group[last] = f"{group[last]} {line.strip()}"
        elif (named := _NAME.match(line)) is not None:
            last = named[1].lower()
            if last in group:
                last = ""
            else:
                group[last] = line[named.end() :].strip()
        else:
            last = ""
    if group and len(found) < most:
        found.append(group)
    return found


def address_of(value: str) -> str:
    """RFC 3464 2.1.2: `rfc822; a@example.org` → the address; "" where there is none."""
    kind, semicolon, rest = value.partition(";")
    plain = (rest if semicolon and "@" not in kind and '"' not in kind else value).strip()
    if kind.strip().lower() == "utf-8" and "\\" in plain:
        plain = _UNITEXT.sub(_character, plain)
    bare = plain.strip("<> ")
    if bare[:1] == bare[-1:] == "'":
        bare = bare[1:-1]  # as Exchange quotes it
    if _WHOLE.fullmatch(bare) is not None or _ATTRIBUTES.fullmatch(bare) is not None:
        return bare.rstrip(".")
    quoted = _QUOTED.search(plain)
    if quoted is not None:
        return quoted[0]
    found = ADDRESS.search(plain)
    return clean(found[0]) if found is not None else ""


def plain_of(xtext: str) -> str:
    """RFC 3461 4: what `+2B` and the like stand for, in which some servers leave an address."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), xtext)


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    return found[0] if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF or number < 0x20 else chr(number)


def clean(address: str) -> str:
    """An address cut out of a text, without the punctuation that the text put round it."""
    bare = address.strip("<>").lstrip("=*<(")
    return bare if bare[-1:] == "]" and "@[" in bare else bare.rstrip(".,;:!?)]}>\"'\u3002")


def typed(value: str) -> str:
    """RFC 3464 2.1.2: `smtp; 550 no such user` → what stands after the type."""
    kind, semicolon, rest = value.partition(";")
    return rest.strip() if semicolon and len(kind) < 40 and " " not in kind.strip() else value.strip()


_BREAKS: Final = re.compile(r"<(?:br|/p|/div|/tr|/td|/th|/li|/h[1-6]|/table|/pre)\b[^<>]{0,500}>", re.IGNORECASE)
# What has no end goes on to the end (HTML 13.2.5): to look for it again at each beginning would be quadratic.
_UNSEEN: Final = re.compile(r"<(style|script|title)\b[^<]*+(?:<(?!/\1)[^<]*+)*(?:</\1[^<>]*+>?|\Z)", re.IGNORECASE)
_TAG: Final = re.compile(r"</?[A-Za-z!][^<>]{0,2000}>")


def words_of_html(html: str) -> str:
    """The words of a notice in HTML, line by line; no tree is built."""
    text = _UNSEEN.sub("", html)
    text = re.sub(r"[\r\n\t ]+", " ", text)
    text = unescape(_TAG.sub("", _BREAKS.sub("\n", text)))
    return text.replace("\u00a0", " ")
