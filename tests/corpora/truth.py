"""`expect` of each corpus → what a reader has to see. One function a corpus: each has its own words."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tests.corpora.seen import Seen

Expect = dict[str, Any]
# mail-deliverystatus-bounceparser's words for a reason, as loosely as they are meant.
_REASONS = {
    "user_unknown": ["userunknown", "hostunknown", "filtered", "suspend", "hasmoved", "rejected"],
    "over_quota": ["mailboxfull", "systemfull"],
    "user_disabled": ["suspend", "filtered"],
    "message_too_large": ["mesgtoobig", "exceedlimit"],
    "domain_error": ["hostunknown", "norelaying", "networkerror"],
    "spam": ["spamdetected", "blocked", "policyviolation", "contenterror", "rejected", "badreputation", "securityerror",
             "virusdetected", "notcompliantrfc"],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A message and what is expected of it."""

    file: str
    raw: bytes
    expected: Seen


# RFC 4155: what begins each mail of an mbox.
_MBOX: Final = re.compile(
    rb"^From \S+ +[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d(?::\d\d)? .{4,30}\n", re.MULTILINE
)


def mails(raw: bytes) -> list[bytes]:
    """The mails of an mbox; one that is alone, as it is."""
    starts = [found.start() for found in _MBOX.finditer(raw)]
    if len(starts) < 2 or starts[0]:
        return [raw]
    return [raw[start:end] for start, end in zip(starts, [*starts[1:], len(raw)], strict=True)]


def cases(folder: Path) -> Iterator[Case]:
    """Every message of a corpus that has a truth we can read."""
    read = _READERS.get(folder.name)
    lines = folder / "truth.jsonl"
    if folder.name == _FIELDS_OF:
        yield from _fields(folder)
    if read is None or not lines.exists():
        return
    for line in lines.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        raw = (folder / row["file"]).read_bytes()
        expected = read(row["expect"], raw)
        if expected is not None:
            yield Case(row["file"], raw, expected)


_FIELDS_OF: Final = "stalwart-header-fields"


def _fields(folder: Path) -> Iterator[Case]:
    """Bodies of single fields, a mail made of each; what an Email has no property for is left out."""
    for name, field, expected in (
        ("address", b"To", lambda it: Seen(to=_members(it))),
        ("date", b"Date", lambda it: Seen(date=_date_of(it)) if it else None),
        ("id", b"Message-ID", lambda it: Seen(message_id=it if isinstance(it, str) or not it else it[0])),
        ("unstructured", b"Subject", lambda it: Seen(subject=it or "")),
    ):
        path = folder / f"{name}.jsonl"
        rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(rows, 1):
            row = json.loads(line)
            seen = expected(row["expect"])
            # RFC 5321 4.4: the date of a Received field, of which one row has all, stands behind its semicolon.
            body = row["header"].rpartition(";")[2] if name == "date" else row["header"]
            if seen is not None:
                yield Case(f"{name}.jsonl:{number}", field + b": " + body.encode() + b"\n\n", seen)


def _members(expect: Expect | None) -> list[str]:
    lists = expect or {}
    groups = [group["addresses"] for group in lists.get("Group", [])]
    return (
        _emails([{"email": one["address"], "name": one["name"]} for one in chain(lists.get("List", []), *groups)]) or []
    )


def _date_of(it: Expect) -> datetime:
    zone = timedelta(hours=it["tz_hour"], minutes=it["tz_minute"])
    return datetime(
        *(it[part] for part in ("year", "month", "day", "hour", "minute", "second")),
        tzinfo=timezone(-zone if it["tz_before_gmt"] else zone),
    )


def _emails(people: list[Expect] | None) -> list[str] | None:
    """An entry without an address (`From: Whomever`) is compared by the words that it has."""
    if people is None:
        return None
    out: list[str] = []
    for one in people:
        for member in one.get("addresses", [one]):
            word = member.get("email") or member.get("name") or ""
            out += [word.lower()] if word else []
    return out


def _stalwart(expect: Expect, _raw: bytes) -> Seen:
    parts = expect.get("parts", [])
    shown = [parts[index] for index in expect["textBody"]]
    # An enclosed message's bytes are not in the truth, and what is shown is no attachment.
    attached = [parts[index] for index in expect["attachments"]]
    whole = all("sha256" in part for part in attached)
    return Seen(
        subject=expect.get("subject"),
        from_=_emails(expect.get("from")),
        to=_emails(expect.get("to")),
        date=_date(expect.get("sentAt")),
        message_id=(expect.get("messageId") or [None])[0],
        text="\n".join(part.get("value", "") for part in shown)
        if all(part["type"] == "text/plain" for part in shown)
        else None,
        attachments=[part["sha256"] for part in attached] if whole else None,
        # Texts that the source itself could not read whole stand among its attachments.
        also={"read whole": [part.get("value", "") for part in shown if not part["encodingProblem"]]}
        if any(part["encodingProblem"] for part in parts)
        else {},
    )


def _date(text: str | None) -> datetime | None:
    return None if not text or text.startswith("1900-01-01T00:00:00") else datetime.fromisoformat(text)


def _imap_tools(expect: Expect, raw: bytes) -> Seen:
    sender = expect.get("from")
    # The source joins the texts and attachments of enclosed messages with those of the mail.
    flat = b"message/" not in raw.lower()
    date = _date(expect.get("sentAt"))
    return Seen(
        subject=expect["subject"] if expect["subject"] or "subject" in expect.get("headers", {}) else None,
        from_=_emails([sender]) if sender and sender.get("email") else None,
        to=_emails(expect.get("to")) or None,
        # A time without a zone is read as UTC by us, as nothing by the source.
        date=date if date is not None and date.tzinfo is not None else None,
        text=expect["text"] or None if flat else None,
        attachments=[one["payload"]["sha256"] for one in expect["attachments"]] if flat else None,
    )


def _mime4j(expect: Expect, _raw: bytes) -> Seen:
    hashes: list[str] = []
    waiting = [expect]
    while waiting:
        part = waiting.pop()
        if "message" in part:
            return Seen(attachments=None)
        waiting += part.get("parts", [])
        if part.get("body", {}).get("kind") == "binary":
            hashes.append(part["body"]["sha256"])
    # The source knows parts only: what is uuencoded within a text is none to it.
    return Seen(attachments=hashes, also={"attachments": ["parts"]})


def _sisimai(expect: Expect, _raw: bytes) -> Seen | None:
    deliveries = expect.get("deliveries", [])
    if not deliveries:
        return Seen(kind="message", also={"kind": ["list", "newsletter", "autoreply", "delivered", "invitation"]})
    first = deliveries[0]["reason"]
    if first in ("feedback", "vacation"):
        return Seen(kind="complaint" if first == "feedback" else "autoreply")
    return Seen(
        kind="bounce",
        reason=[one["reason"] for one in deliveries],
        hard=[one["hardBounce"] for one in deliveries],
        also={"kind": ["delay"]},
    )


def _flufl(expect: Expect, _raw: bytes) -> Seen:
    wanted = [address.lower() for address in expect["recipients"]]
    late = bool(expect["detections"]) and all(one.get("temporary") for one in expect["detections"])
    return Seen(kind=("delay" if late else "bounce") if wanted else None, recipients=wanted)


def _bounceparser(expect: Expect, _raw: bytes) -> Seen:
    bounce = expect["bounce"]
    reason = expect.get("reason")
    allowed = _REASONS.get(reason or "")
    wanted = expect.get("recipients")
    return Seen(
        kind="bounce" if bounce else "message",
        recipients=wanted if bounce and wanted else None,
        reason=[reason] if allowed and bounce else None,
        also={"kind": ["delay"] if bounce else ["autoreply", "list", "newsletter"], "reason": allowed or []},
    )


def _deltachat(expect: Expect, _raw: bytes) -> Seen:
    return Seen(kind="bounce", recipients=[expect["failedRecipient"].lower()], also={"kind": ["delivered", "delay"]})


def _flanker(expect: Expect, _raw: bytes) -> Seen:
    return Seen(kind="complaint" if expect["kind"] == "complaints" else expect["kind"], also={"kind": ["delay"]})


def _kumomta(expect: Expect, _raw: bytes) -> Seen:
    return Seen(kind="bounce" if expect["report"] == "rfc3464" else "complaint", also={"kind": ["delay", "delivered"]})


def _calendarserver(expect: Expect, _raw: bytes) -> Seen:
    return Seen(kind="bounce" if expect["isDSN"] else "invitation")


_READERS: dict[str, Callable[[Expect, bytes], Seen | None]] = {
    "stalwart-mail-parser": _stalwart,
    "imap-tools": _imap_tools,
    "james-mime4j": _mime4j,
    "sisimai-set-of-emails": _sisimai,
    "flufl-bounce": _flufl,
    "mail-deliverystatus-bounceparser": _bounceparser,
    "deltachat": _deltachat,
    "flanker": _flanker,
    "kumomta-reports": _kumomta,
    "calendarserver-imip": _calendarserver,
}
