"""A complaint of a provider → what kind of complaint, and of whom. Pure. RFC 5965, 6650, 6591.

Microsoft's feedback loop sends the mail alone under a subject of its own, with the complaining reader in a field.
"""

import re
from dataclasses import dataclass
from typing import Final

from service.contract import EmailAddress
from service.meaning.fields import READ, address_of, groups

# RFC 5965 3.1: the type is a token; registered are abuse, fraud, virus, other, not-spam, auth-failure, dmarc.
_TYPE: Final = re.compile(r"[A-Za-z0-9-]{1,40}")
# Subjects of complaints that have no machine-readable part: Microsoft's, and Exim's of a failed DMARC policy.
_SUBJECT: Final = re.compile(
    r"\s*(?:complaint about message from [\[0-9]|(dmarc forensic report for)\b)", re.IGNORECASE
)
# What Apple's Mail puts into the mail by which it leaves a list for its user (RFC 2369 3.2).
OPT_OUT: Final = "x-apple-unsubscribe"
_MICROSOFT: Final = ("x-hmxmroriginalrecipient", "x-ms-exchange-crosstenant-x-hmxmroriginalrecipient")


@dataclass(frozen=True, slots=True)
class Feedback:
    """RFC 5965 3: the type, in lower case, and who complained, as far as the provider says."""

    type: str
    recipients: list[str]
    envelope_id: str = ""


def feedback(text: str) -> Feedback:
    """A message/feedback-report part. Without a type it is abuse: nothing else is reported so."""
    fields: dict[str, str] = {}
    recipients: list[str] = []
    for group in groups(text, most=4):
        for name, value in group.items():
            fields.setdefault(name, value)
    for line in text.splitlines()[:1000]:
        # RFC 5965 3.2: Original-Rcpt-To may come several times; Removal-Recipient is AOL's and Yahoo's older word.
        name, colon, value = line.partition(":")
        if colon and name.strip().lower() in ("original-rcpt-to", "removal-recipient"):
            who = address_of(value)
            if who and who not in recipients and len(recipients) < READ:
                recipients.append(who)
    kind = _TYPE.match(fields.get("feedback-type", "abuse").strip())
    return Feedback(
        kind[0].lower() if kind is not None else "abuse", recipients, fields.get("original-envelope-id", "")
    )


def is_bare_complaint(subject: str | None) -> bool:
    """Whether a mail without a machine-readable part is a complaint by its subject."""
    return subject is not None and _SUBJECT.match(subject[:200]) is not None


def is_opt_out(values: dict[str, str]) -> bool:
    """Whether a mail program says, at its user's press of a button, that he wants no more mail."""
    return values.get(OPT_OUT, "").strip().lower() == "true"


def opted_out(senders: list[EmailAddress] | None) -> Feedback:
    """A complaint of the softest kind, by whom the mail is from."""
    return Feedback("opt-out", [one.email for one in senders or [] if one.email][:READ])


def bare(subject: str | None, returned: dict[str, str]) -> Feedback:
    """A complaint that is the mail itself, whose header has the reader added."""
    found = None if subject is None else _SUBJECT.match(subject[:200])
    if found is not None and found[1] is not None:
        return Feedback("auth-failure", [])
    for name in _MICROSOFT:
        who = address_of(returned.get(name, ""))
        if who:
            return Feedback("abuse", [who])
    return Feedback("abuse", [])
