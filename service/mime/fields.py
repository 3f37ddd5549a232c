"""A message's header fields → the convenience properties of an Email. Pure. RFC 8621 sections 4.1.2 and 4.1.3."""

import re
from datetime import datetime
from typing import Final

from service.contract import EmailAddress
from service.mime.addresses import parse_addresses
from service.mime.dates import parse_date
from service.mime.limits import Cut, MimeLimits
from service.mime.params import without_comments
from service.mime.words import decode_text, unfold

# RFC 5322 2.1.1: no line, hence no id, is longer. What is, identifies nothing.
_ID_CHARS: Final = 998
# Browsers take 2,000 characters and more; a picture within its own address (`data:`) is no name of a part.
_URI_CHARS: Final = 2000
_ID: Final = re.compile(r"<([^<>]*+)>")
_ID_OR_COMMENT: Final = re.compile(r"<([^<>]*+)>|[()]|\\.", re.DOTALL)
_WHITE: Final = re.compile(r"\s+")
_LETTER: Final = re.compile(r"\w")
# Words that name a person beside the id; `Re:` and `and` do not.
_PERSON: Final = re.compile(r"\b(?:from|message(?!-id)|mail|letter|wrote)\b", re.IGNORECASE)


class Fields:
    """The convenience properties, each null where its field is missing or makes no sense."""

    def __init__(self) -> None:
        self.message_id: list[str] | None = None
        self.in_reply_to: list[str] | None = None
        self.references: list[str] | None = None
        self.sender: list[EmailAddress] | None = None
        self.from_: list[EmailAddress] | None = None
        self.to: list[EmailAddress] | None = None
        self.cc: list[EmailAddress] | None = None
        self.bcc: list[EmailAddress] | None = None
        self.reply_to: list[EmailAddress] | None = None
        self.subject: str | None = None
        self.sent_at: datetime | None = None


def read_fields(values: dict[str, str], limits: MimeLimits, cuts: dict[Cut, None]) -> Fields:
    """`values`: name in lower case → raw value of the last such field."""
    found = Fields()
    found.message_id = message_ids(values.get("message-id"), limits, cuts)
    found.in_reply_to = _parents(values.get("in-reply-to"), limits, cuts)
    found.references = message_ids(values.get("references"), limits, cuts)
    found.sender = _addresses(values.get("sender"), limits, cuts)
    found.from_ = _addresses(values.get("from"), limits, cuts)
    found.to = _addresses(values.get("to"), limits, cuts)
    found.cc = _addresses(values.get("cc"), limits, cuts)
    found.bcc = _addresses(values.get("bcc"), limits, cuts)
    found.reply_to = _addresses(values.get("reply-to"), limits, cuts)
    found.subject = _subject(values.get("subject"), limits, cuts)
    raw_date = values.get("date")
    found.sent_at = parse_date(raw_date) if raw_date is not None else None
    return found


def message_ids(value: str | None, limits: MimeLimits, cuts: dict[Cut, None]) -> list[str] | None:
    """RFC 8621 4.1.2.5, the MessageIds form: bare ids; null where there is none."""
    if value is None:
        return None
    if len(value) > limits.value_chars:
        value = value[: limits.value_chars]
        cuts[Cut.REFERENCES] = None
    found = [_id(one) for one in _ids(value)]
    if not found:
        # Without brackets it is still what replies will name.
        words = without_comments(unfold(value)).split()
        # RFC 5322 4.5.4: a phrase may stand there, which holds an address and no id.
        found = [one.strip("<>") for one in words] if all("@" in one for one in words) else []
    if any(len(one) > _ID_CHARS for one in found):
        cuts[Cut.REFERENCES] = None
    found = [one for one in found if 0 < len(one) <= _ID_CHARS]
    if len(found) > limits.references:
        # RFC 5322 3.6.4: the first is the thread's root, the last the parent.
        found = found[:1] + found[1 - limits.references :]
        cuts[Cut.REFERENCES] = None
    return found or None


def _ids(value: str) -> list[str]:
    """What stands in angle brackets, but not within a comment, unless there is nothing else."""
    found: list[str] = []
    depth = 0
    for token in _ID_OR_COMMENT.finditer(value) if "(" in value else ():
        if token[0] == "(":
            depth += 1
        elif token[0] == ")":
            depth = max(0, depth - 1)
        elif not depth and token[1] is not None:
            found.append(token[1])
    return found if found and not depth else _ID.findall(value)


def _id(raw: str) -> str:
    """RFC 5322 4.5.4 has white space and comments within an id. Without white space brackets are what others see."""
    if "(" in raw and _WHITE.search(raw) is not None:
        raw = without_comments(unfold(raw))
    return "".join(raw.split())


def _parents(value: str | None, limits: MimeLimits, cuts: dict[Cut, None]) -> list[str] | None:
    """The ids of In-Reply-To. RFC 5322 4.5.4: among words there may stand a person's address in brackets, too.

    `Message from Ann <ann@x.example> <id>` has the id last, `<id> from Ann <ann@x.example>` first.
    """
    found = message_ids(value, limits, cuts)
    if value is None or found is None or len(found) == 1:
        return found
    outside = _ID.sub("<", without_comments(unfold(value[: limits.value_chars])))
    words = _LETTER.search(outside)
    if words is None or _PERSON.search(outside) is None:
        return found
    return found[: outside.count("<", 0, words.start())] or found[-1:]


def _addresses(value: str | None, limits: MimeLimits, cuts: dict[Cut, None]) -> list[EmailAddress] | None:
    if value is None:
        return None
    if len(value) > limits.value_chars:
        value = value[: limits.value_chars]
        value = value[: value.rfind(",")] if "," in value else value
        cuts[Cut.RECIPIENTS] = None
    found = parse_addresses(value, most=limits.recipients, words=limits.encoded_words)
    if found.cut or _has_more_words(value, limits):
        cuts[Cut.RECIPIENTS] = None
    return found.list


def _subject(value: str | None, limits: MimeLimits, cuts: dict[Cut, None]) -> str | None:
    if value is None:
        return None
    text = decode_text(value[: limits.value_chars], words=limits.encoded_words)
    if len(text) > limits.subject_chars or len(value) > limits.value_chars or _has_more_words(value, limits):
        cuts[Cut.SUBJECT] = None
        return text[: limits.subject_chars]
    return text


def _has_more_words(value: str, limits: MimeLimits) -> bool:
    """Whether some words may have stayed encoded."""
    return len(value) > limits.encoded_words and value.count("=?") > limits.encoded_words


def content_id(value: str | None, cuts: dict[Cut, None]) -> str | None:
    """RFC 8621 4.1.4 `cid`: without brackets, comments and white space."""
    if value is None:
        return None
    found = _ID.search(value)
    cid = _WHITE.sub("", found[1] if found else without_comments(unfold(value)))
    if len(cid) > _ID_CHARS:
        cuts[Cut.NAMES] = None  # half of it would name another part
        return None
    return cid or None


def languages(value: str | None, cuts: dict[Cut, None]) -> list[str] | None:
    """RFC 3282 Content-Language: tags."""
    if value is None:
        return None
    if len(value) > _ID_CHARS:
        cuts[Cut.NAMES] = None
        value = value[:_ID_CHARS]
    tags = [tag.strip() for tag in without_comments(unfold(value)).split(",")]
    return [tag for tag in tags if tag] or None


def location(value: str | None, cuts: dict[Cut, None]) -> str | None:
    """RFC 2557 Content-Location: a URI, perhaps folded."""
    if value is None:
        return None
    uri = _WHITE.sub("", value)
    if len(uri) > _URI_CHARS:
        cuts[Cut.NAMES] = None  # half of it leads elsewhere
        return None
    return uri or None
