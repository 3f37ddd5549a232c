"""An address field → mailboxes, groups flattened or not. Pure, linear, never raises.

RFC 5322 3.4 and 4.4, with what people write: bare names, two addresses without a comma, stray quotes and brackets.
The usual form is read by one expression a mailbox [1 µs]; anything else by a scanner [1 µs a token].
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from service.contract import EmailAddress, EmailAddressGroup
from service.mime.words import composed, decode_words, unfold

_USUAL: Final = re.compile(
    r'\s*+(?:"([^"\\<>@]*+)"\s*+|([^"\\<>@]*+))<\s*+([^\s<>"]++)\s*+>\s*+\Z|\s*+([^\s<>"@]++@[^\s<>"@]++)\s*+\Z'
)
# Anything here asks for the scanner: quotes with commas, comments, groups, routes, domain literals.
_UNUSUAL: Final = re.compile(r'[():;\\\[\]]|"[^",]*+[,@<>][^"]*+"')
_TOKEN: Final = re.compile(
    r'"((?:[^"\\]++|\\.)*+)("?)'  # 1 quoted string, 2 its end
    r"|(=\?[^?\s]{1,75}\?[bBqQ]\?[^?]*+(?:(?<!=)(?=\?[^=])\?[^?]*+)*+\?=)"  # 3 encoded word, whatever is in it
    r"|(\[(?:[^\[\]\\]++|\\.)*+\]?)"  # 4 domain literal
    r"|([ \t\r\n]++)"  # 5
    r"|([(),:;<>])"  # 6 specials with a meaning
    r'|([^ \t\r\n"()\[\],:;<>=\\]++|\\.|.)',  # 7 anything else, escapes whole
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_QUOTE_OR_ESCAPE: Final = re.compile(r'\\(.)|"', re.DOTALL)
# Only what folding leaves: a no-break space belongs to the name.
_BREAKS: Final = re.compile(r"[ \t\r\n]+")
# RFC 5322 4.4 has white space round dots and "@". A run of it is looked at once: 30,000 no-break spaces took 9 s.
_AROUND: Final = re.compile(r"(?:(?<!\s)\s++)?([.@])\s*+")
# Longer fields are seldom the same twice, and would fill the memory.
_CACHED_CHARS: Final = 256


class Addresses:
    """Mailboxes in order, shared by all who ask for the same; `cut` where there were more than the limit."""

    def __init__(self, list: list[EmailAddress], *, cut: bool) -> None:
        self.list = list
        self.cut = cut


def parse_addresses(raw: str, *, most: int, words: int) -> Addresses:
    """At most `most` mailboxes of an address field's raw value."""
    # A mailbox's mail is to few addresses: the same fields come again and again.
    return _cached(raw, most, words) if len(raw) <= _CACHED_CHARS else _parse(raw, most, words)


def parse_groups(raw: str, *, most: int, words: int) -> list[EmailAddressGroup]:
    """The same in groups (RFC 8621 4.1.2.4): those that have a name, and what stands between them without one."""
    scanner = _Scanner(most, words)
    found = scanner.run(_readable(raw, words)).list
    ends = [one.at for one in scanner.borders[1:]] + [len(found)]
    groups = [EmailAddressGroup(one.name, found[one.at : end]) for one, end in zip(scanner.borders, ends, strict=True)]
    return [group for group in groups if group.addresses or group.name is not None]


def _readable(raw: str, words: int) -> str:
    text = unfold(raw)
    if "@" not in text and "=?" in text:
        # RFC 2047 5 forbids to encode the whole field; programs that know no better do it.
        text = _BREAKS.sub(" ", decode_words(text, words=words))
    return text


def _parse(raw: str, most: int, words: int) -> Addresses:
    text = _readable(raw, words)
    if not _UNUSUAL.search(text):
        found = _usual(text, most, words)
        if found is not None:
            return found
    return _Scanner(most, words).run(text)


_cached: Final = lru_cache(maxsize=1024)(_parse)


def _usual(text: str, most: int, words: int) -> Addresses | None:
    out: list[EmailAddress] = []
    for piece in text.split(","):
        match = _USUAL.match(piece)
        if match is None:
            if not piece or piece.isspace():
                continue
            return None
        if len(out) >= most:
            return Addresses(out, cut=True)
        quoted, plain, angle, bare = match.groups()
        if bare is not None:
            out.append(EmailAddress(None, bare))
        else:
            out.append(EmailAddress(_name(quoted if quoted is not None else plain, words), angle))
    return Addresses(out, cut=False)


def _name(text: str, words: int) -> str | None:
    """RFC 8621 4.1.2.3: the display name decoded, null where there is none."""
    if "=?" in text:
        text = decode_words(text, words=words)
    if "  " in text or not text.isprintable():
        text = _BREAKS.sub(" ", text)
    return composed(text.strip(" ")) or None


@dataclass(frozen=True, slots=True)
class _Border:
    """Where in the list a group begins; without a name it has ended."""

    at: int
    name: str | None


class _Scanner:
    """One pass over the tokens; a mailbox is what stands between two commas, semicolons or group names."""

    def __init__(self, most: int, words: int) -> None:
        self.out: list[EmailAddress] = []
        self.most = most
        self.words = words
        self.borders = [_Border(0, None)]
        self.reset()

    def reset(self) -> None:
        self.phrase: list[str] = []
        self.angle: list[str] | None = None
        self.closed = False
        self.quoted = False
        self.has_at = False
        self.comments: list[str] = []

    def run(self, text: str) -> Addresses:
        depth = 0
        comment: list[str] = []
        # A quote that nothing closes is a character like any other, else it would swallow the rest.
        if _ESCAPE.sub("", text).count('"') % 2:
            text = _without_last_quote(text)
        for found in _TOKEN.finditer(text):
            if len(self.out) > self.most:
                break
            token = found[0]
            if depth:
                depth += (token == "(") - (token == ")")
                if depth:
                    comment.append(token)
                else:
                    self.comments.append(_ESCAPE.sub(r"\1", "".join(comment)))
            elif token == "(":
                depth, comment = 1, []
            elif token == ",":
                self._comma()
            elif token == ";":
                self._finish()
                self._border(None)
            elif token == ":" and self.angle is None:
                self._colon()
            else:
                self._other(found, token)
        self._finish()
        cut = len(self.out) > self.most
        return Addresses(self.out[: self.most], cut=cut)

    def _comma(self) -> None:
        # RFC 5322 4.4: a route <@a,@b:c@d> holds commas; a name without an address may hold one too, unquoted.
        if self.angle is not None and not self.closed and self.angle and self.angle[0].startswith("@"):
            self.angle.append(",")
        else:
            self._finish()

    def _colon(self) -> None:
        # A group's name goes; its members stay. But "mailto:" or a time in a name is no group.
        if self.phrase and not self.has_at:
            self._border(_name(_plain_phrase("".join(self.phrase).strip()), self.words))
            self.reset()
        else:
            self.phrase.append(":")

    def _border(self, name: str | None) -> None:
        # Names of groups count as mailboxes do.
        if len(self.borders) <= self.most:
            self.borders.append(_Border(len(self.out), name))

    def _other(self, found: re.Match[str], token: str) -> None:
        if token == "<" and not self.closed:
            self.angle = []
            return
        if token == "<":
            # Two mailboxes and no comma between them.
            self._finish()
            self.angle = []
            return
        if token == ">":
            self.closed = self.angle is not None
            return
        if self.angle is not None and not self.closed:
            if token == ":" and self.angle[:1] and self.angle[0].startswith("@"):
                self.angle.clear()  # the route ends, the address begins
            elif found[5] is None:
                self.angle.append(token)
            return
        if self.closed and (found[5] is None):
            self._after_angle(found, token)
            return
        if found[1] is not None:
            self.quoted = True
            self.has_at = self.has_at or "@" in found[1]
            self.phrase.append('"' + found[1] + '"')
        else:
            self.has_at = self.has_at or "@" in token
            self.phrase.append(" " if found[5] else token)

    def _after_angle(self, found: re.Match[str], token: str) -> None:
        self._finish()
        self._other(found, token)

    def _finish(self) -> None:
        phrase = "".join(self.phrase).strip()
        if self.angle is not None:
            # RFC 5322 3.2.4: white space within a quoted local part is part of it.
            email = "".join([token if token[0] == '"' else "".join(token.split()) for token in self.angle])
            name = _name(_plain_phrase(phrase), self.words)
            if name is None and self.comments:
                name = _name(" ".join(self.comments), self.words)
            if email or name:
                self.out.append(EmailAddress(name, email))
        elif phrase:
            self._bare(phrase)
        self.reset()

    def _bare(self, phrase: str) -> None:
        name = _name(" ".join(self.comments), self.words) if self.comments else None
        spaceless = phrase if self.quoted else _AROUND.sub(r"\1", phrase)
        if "@" in spaceless and (self.quoted or not re.search(r"\s", spaceless)):
            self.out.append(EmailAddress(name, spaceless))
            return
        # "Name addr@host": the last word with an @ is the address, what stands before it the name.
        pieces = spaceless.split()
        if not self.quoted and all("@" in piece for piece in pieces):
            # Several addresses and no comma between them.
            self.out.extend(EmailAddress(None, piece) for piece in pieces)
            return
        at = next((i for i in range(len(pieces) - 1, -1, -1) if "@" in pieces[i]), None)
        if at is None:
            self.out.append(EmailAddress(name, _name(_plain_phrase(phrase), self.words) or ""))
        else:
            rest = " ".join(pieces[:at] + pieces[at + 1 :])
            self.out.append(EmailAddress(_name(_plain_phrase(rest), self.words) or name, pieces[at]))


def _plain_phrase(phrase: str) -> str:
    """Quotes taken off, escapes resolved."""
    if '"' not in phrase and "\\" not in phrase:
        return phrase
    return _QUOTE_OR_ESCAPE.sub(lambda found: found[1] or "", phrase)


def _without_last_quote(text: str) -> str:
    at = text.rfind('"')
    return text[:at] + text[at + 1 :]
