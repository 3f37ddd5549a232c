"""A mail that may be a report → its kind, its reports and what they are about. Pure.

First what a machine wrote for machines (RFC 3464, 8098), then the notice for people.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from service.contract import Action, EmailAddress, EmailHeader, Kind, Report
from service.meaning.dsn import Delivery, merged, read_dsn, report_of
from service.meaning.fields import ADDRESS, READ, address_of, clean, one_of, plain_of
from service.meaning.notice import Notice, read_notice, returned_header, tells_returned
from service.meaning.places import Refused
from service.meaning.reasons import Diagnoses

# A notice says what happened before it shows what came back.
_LOOK_AT_CHARS: Final = 8000
# Names under which mail servers write.
DAEMONS: Final = (
    r"(?:mailer|mail)[-_. ]?daemon|mdaemon|post[-_.]?master|mail[-_. ]?deliver(?:y|er)?(?:[-_. ]?(?:sub)?system)?"
    r"|mail[-_. ]?system|ndr|bounces?|bounced|mail[-_. ]?server|smtp[-_ ]?(?:mail|gateway|server)"
    r"|e\d+_smtp_mail_service|microsoftexchange\w+|double-bounce"
)
_DAEMON: Final = re.compile(DAEMONS, re.IGNORECASE)
_SUBJECT: Final = one_of(r"""
    undeliver
    non[- ]?deliver
    not? (?:be )?deliver
    return(?:ed|ing)[ :-]+(?:to sender|mail|message|e-?mail|undeliver)
    return(?:ed)? (?:to sender|mail)
    delivery (?:\w+ )?(?:fail|problem|error|report|unsuccessful|has failed|incomplete|delayed)
    delivery status
    fail(?:ed|ure)[ -]+(?:mail|notice|delivery|to deliver|report|of delivery|e-?mail)
    (?:mail|message|e-?mail)[\w ]{0,20} (?:fail|delay|not deliver|error|could not|bounced|undeliver|return|reject)
    mail ?system error
    ndn:
    ndr:
    bounce
    warning: (?:message|could not|unable)
    could not send
    failure notice
    rejected mail
    mail failure
    user unknown
    permanent (?:delivery )?(?:error|failure)
    no se (?:(?:ha )?(?:pudo|podido)|puede) entregar
    unzustellbar
    nicht zugestellt
    zustellung (?:\w+ ){0,3}(?:e-?mail|mail|nachricht)
    zustell(?:ungs)?(?:fehler|bericht|problem|status)
    (?:fehler|problem)\w{0,4} bei der zustellung
    non remis
    non distribu
    [ée]chec (?:de |d['’])(?:la |l['’])?(?:remise|livraison|distribution|transmission|envoi)
    mancata consegna
    onbestelbaar
    niedostarczon
    nie dostarcz
    недоставлен
    не доставлен
    (?:配信|送信|配送|配達)(?:\w{0,8}エラー|失敗|不能|不可|遅延|でき|され(?:ず|ま(?:せん|した)))
    エラーメール
    不達
    退信
    无法投递
    系统退信
    반송
""")
# Words by which a notice says that something was not delivered.
_FAILED: Final = one_of(r"""
    (?:could|can|was|were|has|have|be|did|is|would)(?: ?not|n'?t)(?: be| been| yet){0,3} (?:deliver|sent|reach)
    (?:could|can|was|were|has|have|did|is|would)(?: ?not|n'?t)(?: be| been)? (?:receiv|accept|process|forward)
    unable to (?:deliver|send|relay|transfer)
    undeliver
    non-?deliver
    not deliver
    deliver\w* (?:\w+ ){0,6}(?:fail|unsuccess|impossib|error)
    fail(?:ed|ure|s)? (?:\w+ ){0,3}(?:deliver|recipient|address)
    permanent(?:ly)? (?:\w+ )?(?:error|fail|fatal)
    returned (?:to sender|mail|message|to you)
    user unknown
    unknown user
    no such user
    rejected
    refused
    mailbox (?:is )?(?:full|unavailable|disabled)
    following (?:address|recipient)
    did not reach
    does not exist
    not exist
    over quota
    error (?:was|during|occurred|while)
    returned because
    no puede
    no pudo
    nicht zugestellt
    non (?:è stato )?(?:possibile|remis)
    не может быть доставлено
    (?:配信|送信|配送|配達)(?:\w{0,8}エラー|失敗|不能|不可|遅延|でき(?:ません|ず|なかった)|され(?:ず|ません))
    nie (?:został|można)
    invalid (?:final|recipient|address)
    account is (?:disabled|full)
    attempts:
    bounced
    transcript of session
    trouble delivering
    permanent errors
""")
_DELAYED: Final = one_of(r"""
    not yet been delivered
    has been delayed
    (?:is|was|message) delayed
    delayed (?:mail|message|delivery)
    warning message only
    will (?:be retried|continue to|keep trying|retry|try again)
    still (?:being )?(?:trying|queued|attempting)
    do not need to resend
    delivery is delayed
    not yet delivered
    could not (?:yet )?be delivered (?:\w+ ){0,6}(?:so far|yet)
    temporarily (?:delayed|deferred)
    this is (?:just )?a warning
    attempts will continue
    delivery status notification \(delay
    you do not need to take any action
""")
_OF_LISTS: Final = frozenset(("list-id", "list-post", "mailing-list", "x-mailing-list"))
_FINAL: Final = re.compile(
    r"giving up|fail(?:ed|ure)? permanently|permanent (?:fatal )?(?:error|fail)|will not be retried"
    r"|not going to try again|removed from the",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Reported:
    """What a report means; `kind` None: it is none."""

    kind: Kind | None = None
    reports: list[Report] = field(default_factory=list)
    message_id: str = ""
    envelope_id: str = ""
    feedback_type: str = ""
    recipients: list[str] = field(default_factory=list)
    # A limit cut what was said.
    cut: bool = False


# Names that no person and no newsletter has.
_MACHINE: Final = re.compile(r"(?:(?:mailer|mail)[-_. ]?daemon|microsoftexchange\w+)(?:@|\Z)", re.IGNORECASE)
# Exim's and Google's field, and Amazon's.
_OF_PROGRAMS: Final = frozenset(("x-failed-recipients", "x-amz-sns-message-id"))
STATUS_KINDS: Final = ("message/delivery-status", "message/global-delivery-status")
# Names that people use as well.
ADMINISTRATORS: Final = r"admin(?:istrator)?"
_ADMINISTRATOR: Final = re.compile(f"{ADMINISTRATORS}@", re.IGNORECASE)
# RFC 5322 3.6.5, and what mail programs of other languages write: an answer is a person's, also to a bounce; so is what
# somebody passes on.
_ANSWER: Final = re.compile(
    r"\s*(?:re|aw|antw|sv|vs|rif|odp|res|ynt|fwd?|wg|tr|i|vb|enc|rv|pd|doorst)\s?(?:\[\d+\])?\s?:", re.IGNORECASE
)
# What a server said: an enhanced status; a reply that begins a line or follows what introduces it, with words of SMTP
# in the rest of its line. Prices and telephone numbers have neither.
# A detail of two digits (RFC 3463 2 has such from 10 on) is one behind what introduces a status alone: 4.5.26 is a day.
_STATUS: Final = re.compile(
    r"(?<![0-9.])[45]\.[0-9]\.(?:[0-9]|10|[0-9]{3})(?![0-9.])"
    r"|(?:#|\b(?:status|code|error)\b[ \t]{0,4}[:=(]?|\b[45][0-5][0-9])[ \t]{0,4}[45]\.[0-7]\.[0-9]{1,3}(?![0-9.])",
    re.IGNORECASE,
)
_REPLY: Final = re.compile(r"(?:^|[:<>(\[])[ \t]{0,4}[45][0-5][0-9][ -](.{1,60})", re.MULTILINE)
# A reply with its enhanced status (RFC 3463 2), or Exchange's: it needs no words that anybody knows beside it.
_WHOLE_REPLY: Final = re.compile(r"(?<![0-9.])([45])[0-5][0-9][ -]{1,3}#?\1\.[0-9]\.[0-9]{1,3}(?![0-9.])")
_SMTP_WORD: Final = re.compile(
    r"user|mail|recipient|address|relay|message|reject|unknown|denied|block|spam|unavailable|quota|service|sender|host"
    r"|account|requested|transaction|timed? ?out|rcpt",
    re.IGNORECASE,
)


def is_machine(sender: EmailAddress) -> bool:
    """Whether an address is one that nothing but a mail server writes from."""
    return not sender.email or _MACHINE.match(sender.email) is not None


def is_administrator(sender: EmailAddress) -> bool:
    """Whether an address is one that mail servers and people write from."""
    return _ADMINISTRATOR.match(sender.email) is not None


def is_answer(subject: str | None) -> bool:
    """Whether a subject says that the mail answers another one."""
    return subject is not None and _ANSWER.match(subject[:200]) is not None


def shows_reply(text: str) -> bool:
    """Whether a text has a server's reply that is none of anything else, in whatever language the rest is."""
    head = text[:_LOOK_AT_CHARS]
    if _WHOLE_REPLY.search(head) is not None:
        return True
    return any(_SMTP_WORD.search(reply[1]) is not None for reply in _REPLY.finditer(head))


def shows_said(text: str) -> bool:
    """Whether a text has what a server said: a reply, or a status alone."""
    return shows_reply(text) or _STATUS.search(text[:_LOOK_AT_CHARS]) is not None


def shows_refusal(text: str) -> bool:
    """Whether a text has more than words: what a server said, or the mail that came back."""
    return shows_said(text) or tells_returned(text)


def is_by_program(headers: Sequence[EmailHeader], senders: Sequence[EmailAddress], kinds: Sequence[str]) -> bool:
    """Whether a bounce has what no letter has: a part for machines, the null path, a name or a field of programs.

    `kinds`: the types of its attachments.
    """
    if any(kind in STATUS_KINDS for kind in kinds) or not senders or is_machine(senders[0]):
        return True
    paths = [field.value for field in headers if field.name.lower() == "return-path"]
    return any(field.name.lower() in _OF_PROGRAMS for field in headers) or [one.strip() for one in paths[:1]] == ["<>"]


def is_daemon(sender: EmailAddress) -> bool:
    """Whether an address is one that mail servers write from; some write from none."""
    found = _DAEMON.match(sender.email)
    return not sender.email or (found is not None and sender.email[found.end() : found.end() + 1] in ("@", ""))


def read_report(
    text: str, status: str | None, returned: str, *, known: list[str], own: set[str], domain: str, cut: bool
) -> Reported:
    """`status`: the delivery-status part; `returned`: the returned mail's header, "" where the text may have it.

    `known`, `own`, `domain`, `cut`: see read_notice.
    """
    found, diagnoses = Reported(), Diagnoses()
    notice = read_notice(text, known, own, domain, cut=cut)
    header = returned_header(returned) if returned else notice.returned
    found.message_id = message_id(header)
    for fields in (status or "", text, returned):
        # Where the report has no part of its own its fields stand in a text, or in a bounce that was sent on.
        if not found.reports and fields and (fields is status or "final-recipient:" in fields.lower()):
            _from_fields(found, fields, notice, header, diagnoses)
    if not found.reports:
        _from_notice(found, notice, header, diagnoses)
        found.cut = notice.cut
    found.cut = found.cut or diagnoses.cut
    return found


def _from_fields(found: Reported, fields: str, notice: Notice, header: dict[str, str], diagnoses: Diagnoses) -> None:
    dsn = read_dsn(fields)
    sent = {one.lower(): one for one in (clean(one[0]) for one in ADDRESS.finditer(_sent_to(header)))}
    names: dict[str, set[str]] = {}
    for low, address in sent.items():
        names.setdefault(low.rpartition("@")[0], set()).add(address)
    for delivery in dsn.deliveries:
        delivery.recipient = _as_sent(delivery.recipient, sent, names)
    found.envelope_id, found.cut = dsn.envelope_id, dsn.cut
    action = _action(notice.text)
    deliveries = merged(dsn.deliveries, action)
    said = {one.address.lower(): one.said for one in reversed(notice.refused)}
    for delivery in deliveries:
        default = notice.text[:4000] if len(deliveries) == 1 else ""
        notes = said.get(delivery.recipient.lower(), default)
        found.reports.append(report_of(delivery, notes, diagnoses, action=action))
    found.kind = kind_of(found.reports)


def _sent_to(header: dict[str, str]) -> str:
    """To and Cc of the mail that came back. A list's own address is not among its members."""
    return "" if not _OF_LISTS.isdisjoint(header) else f"{header.get('to', '')[:2000]},{header.get('cc', '')[:2000]}"


def _as_sent(recipient: str, sent: dict[str, str], names: dict[str, set[str]]) -> str:
    """A recipient as the mail that came back names him, where a server wrote him otherwise.

    `sent`: whom that names, by lower case; `names`: the same by local part.

    RFC 3464 2.3.2: as he was known to the server that reports, which may be a name without a domain. Some leave xtext
    there (RFC 3461 4.2), and what looks like xtext may be an address as it stands: ann+2024@example.org.
    """
    plain = plain_of(recipient)
    for one in (recipient, plain):
        if one.lower() in sent:
            return one
    if "@" in recipient:
        return recipient
    named = names.get(recipient.lower()) or names.get(plain.lower()) or set()
    return next(iter(named)) if len(named) == 1 else recipient


def _from_notice(found: Reported, notice: Notice, header: dict[str, str], diagnoses: Diagnoses) -> None:
    action = _action(notice.text)
    refused = notice.refused
    if not refused:
        # Nobody is named: the returned mail went to somebody, and if to one alone, he is meant.
        # A list's own address is not among its members.
        to = "" if not _OF_LISTS.isdisjoint(header) else header.get("to", "")
        sent = [clean(one[0]) for one in ADDRESS.finditer(header.get("x-failed-recipients", "") or to[:2000])]
        refused = [Refused(sent[0], notice.text[:2000])] if len(sent) == 1 else []
    for one in refused[:READ]:
        said = one.said
        notes = notice.text[:4000]
        delivery = Delivery(
            one.address,
            original_recipient=one.original,
            diagnostic=_diagnosis(said, notes, alone=len(refused) == 1),
        )
        found.reports.append(report_of(delivery, notes if len(refused) == 1 else said, diagnoses, action=action))
    found.kind = kind_of(found.reports) or (Kind.DELAY if action is Action.DELAYED else Kind.BOUNCE)


_REPLY_LINE: Final = re.compile(r"(?:^|[\s<>:])[45][0-5][0-9](?:[ -]|$)|\b[45]\.[0-9]{1,3}\.[0-9]{1,3}\b")
_CLIENT_LINE: Final = re.compile(r"^\s*>>>")


def _diagnosis(said: str, notice: str, *, alone: bool) -> str:
    """The lines of a server's reply where there are some, else all that is said of the address."""
    for text in (said, notice if alone else ""):
        lines = [line.strip() for line in text.splitlines() if _CLIENT_LINE.match(line) is None]
        at = next((i for i, line in enumerate(lines) if _REPLY_LINE.search(line) is not None), None)
        if at is not None:
            kept: list[str] = []
            for line in lines[max(at - 1, 0) : at + 6]:
                if not line and len(kept) > 1:
                    break
                kept.append(line.removeprefix("<<<").strip())
            return "\n".join(kept)[:2000]
    return (said or (notice if alone else ""))[:2000]


def kind_of(reports: list[Report]) -> Kind | None:
    """The worst that happened to anybody."""
    actions = {report.action for report in reports}
    if Action.FAILED in actions:
        return Kind.BOUNCE
    if Action.DELAYED in actions:
        return Kind.DELAY
    return Kind.DELIVERED if actions else None


def _action(text: str) -> Action:
    """What a notice says became of the mail; failed where it does not say that it is being tried still."""
    head = text[:4000]
    if _DELAYED.search(head) is not None and _FINAL.search(head) is None:
        return Action.DELAYED
    return Action.FAILED


def says_undelivered(subject: str | None) -> bool:
    """Whether a subject is one that mail servers give to bounces."""
    return subject is not None and _SUBJECT.search(subject[:200]) is not None


def tells_failure(text: str) -> bool:
    """Whether a text says that a mail did not arrive."""
    head = text[:_LOOK_AT_CHARS]
    return _FAILED.search(head) is not None or _DELAYED.search(head) is not None


def message_id(header: dict[str, str]) -> str:
    """The returned mail's Message-ID without its brackets."""
    value = header.get("message-id", "").strip()
    start, end = value.find("<"), value.find(">")
    bare = value[start + 1 : end] if 0 <= start < end else value.split(" ")[0]
    return bare.strip()[:998] if "@" in bare else ""


def known_recipients(value: str) -> list[str]:
    """X-Failed-Recipients, as Exim and Google write it: addresses between commas."""
    found: list[str] = []
    for piece in value.split(",")[:READ]:
        address = address_of(piece)
        if address and address not in found:
            found.append(address)
    return found
