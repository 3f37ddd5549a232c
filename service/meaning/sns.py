"""What Amazon SES tells by mail of a delivery, as JSON → the same as any other report. Pure, never raises.

Its form is published as "Amazon SNS notification contents for Amazon SES"; SNS sends it as the text of a mail, at times
within an envelope of its own, and says below it how to leave.
"""

import json
from typing import Final

from service.contract import Action, Kind
from service.meaning.bounces import Reported, kind_of
from service.meaning.dsn import Delivery, report_of, status_in
from service.meaning.fields import READ, typed
from service.meaning.reasons import Diagnoses

# The field that SNS puts into every mail of its own.
MARK: Final = "x-amz-sns-message-id"
# Line ends within strings are the mail's; and sendmail breaks lines of more than 998 characters (RFC 5322 2.1.1) so.
_DECODER: Final = json.JSONDecoder(strict=False)
_BROKEN: Final = "!\n "
# What stands where a complaint or a bounce is of the account's own list, and what it means.
_NOT_SENT: Final = "OnAccountSuppressionList"
_SUPPRESSED: Final = f"{_NOT_SENT}: on the suppression list of the account"


def read_sns(text: str) -> Reported | None:
    """None where the text is none of SES's notifications."""
    said = _object(text.replace(_BROKEN, ""))
    within = said.get("Message")
    if isinstance(within, str):
        said = _object(within)
    kind = said.get("notificationType") or said.get("eventType")
    mail = _part(said, "mail")
    found, diagnoses = Reported(message_id=_message_id(mail)), Diagnoses()
    if kind == "Bounce":
        bounce = _part(said, "bounce")
        reporting = typed(_text(bounce, "reportingMTA"))
        for one in _parts(bounce, "bouncedRecipients"):
            delivery = Delivery(
                _text(one, "emailAddress"),
                status=status_in(_text(one, "status")),
                diagnostic=typed(_text(one, "diagnosticCode")),
                reporting_mta=reporting,
            )
            sub_type = _text(bounce, "bounceSubType")
            notice = _SUPPRESSED if sub_type == _NOT_SENT else sub_type
            found.reports.append(report_of(delivery, notice, diagnoses, action=Action.FAILED))
        found.kind = kind_of(found.reports)
    elif kind == "Complaint" and _text(_part(said, "complaint"), "complaintSubType") == _NOT_SENT:
        # Nobody complains: SES took the mail and did not send it, for somebody once had.
        for one in _parts(_part(said, "complaint"), "complainedRecipients"):
            delivery = Delivery(_text(one, "emailAddress"))
            found.reports.append(report_of(delivery, _SUPPRESSED, diagnoses, action=Action.FAILED))
        found.kind = kind_of(found.reports)
    elif kind == "Complaint":
        complaint = _part(said, "complaint")
        found.kind = Kind.COMPLAINT
        found.feedback_type = _text(complaint, "complaintFeedbackType")[:40] or "abuse"
        found.recipients = [_text(one, "emailAddress") for one in _parts(complaint, "complainedRecipients")]
    elif kind == "Delivery":
        arrived = _part(said, "delivery")
        reply = _text(arrived, "smtpResponse")
        names = arrived.get("recipients")
        for name in names[:READ] if isinstance(names, list) else ():
            found.reports.append(
                report_of(Delivery(str(name), diagnostic=reply), "", diagnoses, action=Action.DELIVERED)
            )
        found.kind = kind_of(found.reports)
    found.cut = diagnoses.cut
    return found if found.kind is not None else None


def _object(text: str) -> dict[str, object]:
    """The object that a text begins with; empty where it is no JSON."""
    try:
        found, _ = _DECODER.raw_decode(text.lstrip("\ufeff \t\r\n"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(of: dict[str, object], name: str) -> dict[str, object]:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


def _parts(of: dict[str, object], name: str) -> list[dict[str, object]]:
    found = of.get(name)
    return [one for one in found[:READ] if isinstance(one, dict)] if isinstance(found, list) else []


def _text(of: dict[str, object], name: str) -> str:
    found = of.get(name)
    return found.replace("\0", "")[:2000] if isinstance(found, str) else ""


def _message_id(mail: dict[str, object]) -> str:
    """The sender's own Message-ID where SES tells headers; else the one that SES gave."""
    ids = [_text(one, "value") for one in _parts(mail, "headers") if _text(one, "name").lower() == "message-id"]
    found = (ids or [_text(_part(mail, "commonHeaders"), "messageId") or _text(mail, "messageId")])[0]
    return found.strip("<> ")[:998]
