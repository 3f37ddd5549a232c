"""Hostile requests → refused, or mails that parsers read as they were meant: `python -m tests.outbound.fuzz`.

Every field that becomes a header, a command, a parameter or a body is given what has ended one somewhere: line ends,
dots, NUL, encoded words, quotes, brackets, other scripts, line separators, long runs. What is taken is read by Python's
`email`, by mailbus's own parser, and where it is installed by fast-mail-parser (Rust's mailparse). Prints how many were
refused and made; ends with 1 at the first that escapes, with the request.
"""

import argparse
import base64
import importlib.util
import json
import random
import re
import smtplib
import sys
import time
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any, Final

from service.contract import RequestProblems, SendRequest, decode_request
from service.errors import Permanent
from service.mime import MimeLimits, parse
from service.outbound.mail import Mail, make_mail
from service.smtp.wire import bare_line_end, mail_command, rcpt_command, stuffed

NOW: Final = datetime(2026, 11, 24, 8, 30, 15, tzinfo=UTC)
PIECES: Final = (
    "\r", "\n", "\r\n", "\r\n\r\n", "\r\n.\r\n", "\n.\n", "\r.\r", "\n.\r\n", "\0", "\t", " ", "  ", ".", "..",
    ",", ";", ":", "<", ">", '"', "\\", "(", ")", "@", "{5}", "%0d%0a", "=0D=0A", "=?utf-8?q?=0d=0aBcc:_e@x.y?=",
    "=?utf-8?b?", "?=", "=\r\n", "\r\nBcc: evil@x.example", "\nSubject: other", "\r\nDATA\r\n",
    "RCPT TO:<evil@x.example>", "ä", "日本語", "עברית", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1b[31m",
    "\u202e", "\U0001f600", "e\u0301", "\ufeff", "--k", "From ", "a", "b c", "x" * 80, "y" * 1100, "{{name}}",
    "boundary=", "\x7f", "SMTPUTF8", " SIZE=1",
)  # fmt: skip
# What mailbus itself writes.
FIELDS: Final = frozenset(
    "date from to cc reply-to subject message-id in-reply-to references mime-version content-type"
    " content-transfer-encoding".split()
)
PATH: Final = re.compile(rb"(MAIL FROM|RCPT TO):<[^\x00-\x1f\x7f<>]*>( [!-~]+)*\r\n")
LINE_LIMIT: Final = 998


def text(chance: random.Random, most: int = 6) -> str:
    """Pieces in a row."""
    return "".join(chance.choice(PIECES) for _ in range(chance.randrange(most + 1)))


def value(chance: random.Random, good: str, hostility: float = 0.12) -> str:
    """Mostly what is right: a request with one wrong field is refused, and shows nothing of the others."""
    if chance.random() > hostility:
        return good
    return chance.choice((text(chance), good + text(chance, 2), text(chance, 2) + good))


def hostile(chance: random.Random) -> dict[str, Any]:
    """One request, as it comes over the bus."""

    def person(name: str) -> dict[str, Any]:
        return {"email": value(chance, f"{name}@x.example", 0.05), "name": value(chance, chance.choice((name, "Ä B")))}

    request: dict[str, Any] = {
        "from": person("me"),
        "to": [person("a"), person("b")][: chance.randrange(3)],
        "cc": [person("c")][: chance.randrange(2)],
        "bcc": [person("d")],
        "replyTo": [person("r")][: chance.randrange(2)],
        "subject": value(chance, "Your order", 0.3),
        "text": chance.choice((text(chance, 30), "Hello\n.\nworld")),
        "headers": {value(chance, "X-Note", 0.05): value(chance, "a note", 0.2)},
        "references": [value(chance, "a.b@x.example", 0.05)],
        "inReplyTo": value(chance, "a.b@x.example", 0.05),
    }
    if chance.random() < 0.4:
        request["html"] = text(chance, 30)
    if chance.random() < 0.4:
        content = base64.b64encode(text(chance, 20).encode("utf-8", "surrogatepass")).decode()
        request["attachments"] = [
            {
                "content": content,
                "name": value(chance, "bill.pdf", 0.4),
                "type": value(chance, "application/pdf", 0.05),
                "cid": value(chance, "logo", 0.05),
                "disposition": chance.choice(("attachment", "inline")),
            }
        ]
    if chance.random() < 0.3:
        request["envelope"] = {
            "mailFrom": {
                "email": value(chance, "bounce@x.example", 0.1),
                "parameters": {value(chance, "ENVID", 0.05): value(chance, "an id", 0.2)},
            },
            "rcptTo": [
                {
                    "email": value(chance, "a@x.example", 0.1),
                    "parameters": {"ORCPT": value(chance, "rfc822;a@x.example", 0.2)},
                }
            ],
        }
    return request


@dataclass
class Count:
    """What became of them."""

    refused: int = 0
    made: int = 0


def attempt(request: dict[str, Any], count: Count) -> None:
    """One request through all of it. Raises AssertionError where something escapes."""
    try:
        asked = decode_request(json.dumps(request).encode())
        mail = make_mail(
            asked,
            asked.recipients(),
            {},
            message_id="m1@x.example",
            date=NOW,
            address="me@x.example",
            redirect=None,
            proof="p" * 52,
        )
        commands = [
            mail_command(mail.mail_from, mail.extras.mail),
            *(rcpt_command(address, mail.extras.rcpt.get(address, {})) for address in mail.wire),
        ]
    except (RequestProblems, Permanent):
        count.refused += 1
        return
    count.made += 1
    for command in commands:
        assert PATH.fullmatch(command), command
    _check_wire(mail)
    _read_by_email(mail, asked)
    _read_by_ours(mail, asked)
    _read_by_another(mail, asked)


def _check_wire(mail: Mail) -> None:
    assert bare_line_end(mail.data) is None
    assert b"\0" not in mail.data
    assert max(map(len, mail.data.split(b"\r\n"))) <= LINE_LIMIT
    wire = stuffed(mail.data) + b".\r\n"
    assert wire.find(b"\r\n.\r\n") == len(wire) - 5
    assert stuffed(mail.data) == smtplib._quote_periods(mail.data)  # type: ignore[attr-defined]


def _names(asked: SendRequest) -> list[str]:
    """The header that a request asks for, by names."""
    names = ["date", "from", "subject", "message-id", "mime-version", "content-type"]
    names += ["to"] if asked.to or not asked.cc else []
    names += ["cc"] if asked.cc else []
    names += ["reply-to"] if asked.reply_to else []
    names += ["in-reply-to"] if asked.in_reply_to is not None else []
    names += ["references"] if asked.references else []
    return sorted([*names, *(name.lower() for name in asked.headers)])


def _plain(text: str | None) -> str:
    """As far as parsers agree: white space and what stands for it, and composition, are their own affair."""
    return unicodedata.normalize("NFC", re.sub(r"[\s\x00-\x1f\x7f-\x9f\ufeff]+", "", text or ""))


def _lines(text: str | None) -> str:
    return re.sub(r"\r\n|\r|\n", "\n", text or "").rstrip("\n")


def _read_by_email(mail: Mail, asked: SendRequest) -> None:
    found = BytesParser(policy=policy.default).parsebytes(mail.data)
    assert isinstance(found, EmailMessage)
    names = sorted(name.lower() for name in found if name.lower() != "content-transfer-encoding")
    assert names == _names(asked), (names, _names(asked))
    assert _plain(found["subject"]) == _plain(asked.subject)
    for key, people in (("from", [asked.from_]), ("to", asked.to), ("cc", asked.cc), ("reply-to", asked.reply_to)):
        wanted = [(_plain(one.name), one.email.rpartition("@")[0].strip('"')) for one in people if one is not None]
        seen = found[key].addresses if found[key] is not None else []
        assert [_plain(one.display_name) for one in seen] == [name for name, _ in wanted], (key, seen, wanted)
        assert len(seen) == len(wanted)
    body = found.get_body(("plain",))
    assert body is not None
    assert _lines(body.get_content()) == _lines(asked.text)
    parts = [part for part in found.walk() if part.get_filename() is not None or part.get_content_disposition()]
    assert len(parts) == len(asked.attachments)
    for part, one in zip(parts, asked.attachments, strict=True):
        assert part.get_payload(decode=True) == one.content
        assert _plain(part.get_filename()) == _plain(one.name)


def _read_by_ours(mail: Mail, asked: SendRequest) -> None:
    found = parse(mail.data, received_at=NOW, limits=MimeLimits(), inline_limit=1 << 20).email
    assert _plain(found.subject) == _plain(asked.subject), (found.subject, asked.subject)
    for seen, people in ((found.to, asked.to), (found.cc, asked.cc), (found.reply_to, asked.reply_to)):
        assert [_plain(one.name) for one in seen or []] == [_plain(one.name) for one in people]
    assert found.text_body
    body = found.body_values[found.text_body[0].part_id or ""].value
    # An event holds no NUL: the sign for what cannot be shown stands there.
    wanted = _lines(asked.text).replace("\0", "\ufffd")
    assert _lines(body).lstrip("\ufeff") == wanted.lstrip("\ufeff"), (body, asked.text)


def _read_by_another(mail: Mail, asked: SendRequest) -> None:
    if importlib.util.find_spec("fast_mail_parser") is None:
        return
    found: Any = importlib.import_module("fast_mail_parser").parse_email(mail.data)
    assert _plain(found.subject) == _plain(asked.subject), (found.subject, asked.subject)
    names = sorted(name.lower() for name in found.headers if name.lower() != "content-transfer-encoding")
    assert names == sorted(set(_names(asked))), names
    # It takes a byte order mark off.
    assert _lines(found.text_plain[0]).lstrip("\ufeff") == _lines(asked.text).lstrip("\ufeff")
    contents = [bytes(one.content) for one in found.attachments]
    assert all(one.content in contents for one in asked.attachments)


def run(inputs: int, seed: int) -> Count:
    """So many requests."""
    chance, count = random.Random(seed), Count()
    for number in range(inputs):
        request = hostile(chance)
        try:
            attempt(request, count)
        except Exception:
            print(f"request {number} of seed {seed}: {json.dumps(request)}", file=sys.stderr)
            raise
    return count


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.outbound.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began = time.monotonic()
    count = run(asked.inputs, asked.seed)
    took = time.monotonic() - began
    print(f"{asked.inputs} requests in {took:.1f} s: {count.refused} refused, {count.made} made and read alike")


if __name__ == "__main__":
    main()
