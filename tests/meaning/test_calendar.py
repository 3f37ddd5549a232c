"""Invitations and answers to them (RFC 5545, 5546, 6047)."""

from base64 import encodebytes

import pytest
from msgspec import UNSET

from service.contract import Attendee, Calendar, Kind
from tests.meaning.mails import meaning_of

EVENT = """\
BEGIN:VCALENDAR
METHOD:REQUEST
BEGIN:VTIMEZONE
TZID:Europe/Berlin
BEGIN:STANDARD
DTSTART:19701025T030000
END:STANDARD
END:VTIMEZONE
BEGIN:VEVENT
UID:4711@example.org
SUMMARY:Lunch\\, and
  more
DTSTART;TZID=Europe/Berlin:20261203T120000
DTEND;TZID=Europe/Berlin:20261203T130000
LOCATION:Canteen
ORGANIZER;CN="Ada; L.":mailto:ada@example.org
ATTENDEE;PARTSTAT=NEEDS-ACTION;CN="B: x":MAILTO:b@example.org
ATTENDEE:mailto:c@example.org
RRULE:FREQ=WEEKLY
SEQUENCE:2
BEGIN:VALARM
DTSTART:20000101T000000
END:VALARM
END:VEVENT
BEGIN:VEVENT
UID:other@example.org
END:VEVENT
END:VCALENDAR"""


def mail(event: str) -> str:
    return (
        "From: ada@example.org\nTo: b@example.org\nContent-Type: multipart/alternative; boundary=b\n\n"
        f"--b\nContent-Type: text/plain\n\nLunch?\n--b\nContent-Type: text/calendar; method=REQUEST\n\n{event}\n--b--\n"
    )


def test_an_invitation() -> None:
    meaning = meaning_of(mail(EVENT))
    assert meaning.kind is Kind.INVITATION
    assert meaning.calendar == Calendar(
        method="REQUEST",
        uid="4711@example.org",
        summary="Lunch, and more",
        start="2026-12-03T12:00:00",
        end="2026-12-03T13:00:00",
        time_zone="Europe/Berlin",
        location="Canteen",
        organizer="ada@example.org",
        attendees=[Attendee("b@example.org", "needs-action"), Attendee("c@example.org")],
        recurrence="FREQ=WEEKLY",
        sequence=2,
    )


def test_utc_and_whole_days() -> None:
    event = EVENT.replace("DTSTART;TZID=Europe/Berlin:20261203T120000", "DTSTART:20261203T120000Z")
    event = event.replace("DTEND;TZID=Europe/Berlin:20261203T130000", "DTEND;VALUE=DATE:20261204")
    calendar = meaning_of(mail(event)).calendar
    assert calendar is not UNSET
    assert (calendar.start, calendar.end, calendar.time_zone) == ("2026-12-03T12:00:00Z", "2026-12-04", UNSET)


def test_an_answer_is_an_invitation_with_its_method() -> None:
    meaning = meaning_of(mail(EVENT.replace("METHOD:REQUEST", "METHOD:REPLY").replace("NEEDS-ACTION", "ACCEPTED")))
    assert meaning.kind is Kind.INVITATION
    assert meaning.calendar is not UNSET
    assert meaning.calendar.method == "REPLY"
    assert meaning.calendar.attendees is not UNSET
    assert meaning.calendar.attendees[0].status == "accepted"


@pytest.mark.parametrize("how", ["auto-generated", "auto-replied"])
def test_what_a_room_answers_by_itself_is_an_answer_to_an_invitation(how: str) -> None:
    header = f"Return-Path: <>\nAuto-Submitted: {how}\nIn-Reply-To: <a@example.org>\n"
    assert meaning_of(header + mail(EVENT.replace("METHOD:REQUEST", "METHOD:REPLY"))).kind is Kind.INVITATION


def test_what_is_published_asks_nothing() -> None:
    meaning = meaning_of(mail(EVENT.replace("METHOD:REQUEST", "METHOD:PUBLISH")))
    assert meaning.kind is Kind.MESSAGE
    assert meaning.calendar is not UNSET


@pytest.mark.parametrize(
    ("charset", "codec", "words"),
    [
        ("charset=iso-8859-1", "latin-1", "Besprechung über"),
        ("charset=gb2312", "gb18030", "会议"),
        ("charset=iso-2022-jp", "iso2022-jp", "会議"),
        ("charset=utf-16", "utf-16", "会議"),
        ("charset=utf-8", "utf-8", "会議"),
        ("x=y", "utf-8", "会議"),  # RFC 5545 3.1.4: the default
    ],
)
def test_a_calendar_in_any_charset(charset: str, codec: str, words: str) -> None:
    event = f"BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:{words}\nEND:VEVENT\nEND:VCALENDAR\n"
    header = (
        "From: ada@example.org\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment\n"
        f"Content-Type: text/calendar; {charset}\n\n"
    )
    calendar = meaning_of(header.encode() + encodebytes(event.encode(codec))).calendar
    assert calendar is not UNSET
    assert calendar.summary == words


@pytest.mark.parametrize("charset", ["x=y", "charset=us-ascii", "charset=utf-8"])
def test_a_fold_within_a_character_is_none_of_it(charset: str) -> None:
    # RFC 5545 3.1: lines are folded by octets.
    words = "Grüße aus Köln und M\xfcnchen".encode().replace(b"M\xc3\xbc", b"M\xc3\r\n \xbc")
    event = b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:" + words + b"\r\nUID:1\r\nEND:VEVENT\r\n"
    calendar = meaning_of(
        f"From: ada@example.org\nContent-Type: text/calendar; {charset}\n\n".encode() + event
    ).calendar
    assert calendar is not UNSET
    assert (calendar.summary, calendar.uid) == ("Grüße aus Köln und München", "1")


def test_a_calendar_is_read_though_one_character_of_it_is_broken() -> None:
    event = b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:" + "üüüü".encode() + b" \xff\r\n"
    calendar = meaning_of(b"From: ada@example.org\nContent-Type: text/calendar\n\n" + event).calendar
    assert calendar is not UNSET
    assert calendar.summary == "üüüü \ufffd"


def test_a_character_that_looks_like_a_fold_stays() -> None:
    # U+0A20 is the bytes of a line feed and a space in UTF-16.
    event = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:\u0a20x\nEND:VEVENT\n"
    header = (
        "From: ada@example.org\nContent-Transfer-Encoding: base64\nContent-Type: text/calendar; charset=utf-16be\n\n"
    )
    calendar = meaning_of(header.encode() + encodebytes(event.encode("utf-16-be"))).calendar
    assert calendar is not UNSET
    assert calendar.summary == "\u0a20x"


def test_a_file_of_an_invitation_is_one() -> None:
    part = "Content-Type: application/ics; name=invite.ics\nContent-Disposition: attachment\n"
    alone = (
        f"From: ada@example.org\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b\n{part}\n{EVENT}\n--b--\n"
    )
    for text in (alone, f"From: ada@example.org\n{part}\n{EVENT}\n"):
        meaning = meaning_of(text)
        assert (meaning.kind, meaning.calendar and meaning.calendar.summary) == (Kind.INVITATION, "Lunch, and more")
    # Beside a part of the standard's type it says the same again.
    both = mail(EVENT).replace("--b--", f"--b\n{part}\n{EVENT.replace('Lunch', 'Supper')}\n--b--")
    calendar = meaning_of(both).calendar
    assert calendar
    assert calendar.summary == "Lunch, and more"


def test_no_method_in_a_calendar_asks_nothing() -> None:
    # RFC 5545 3.7.2, whatever the Content-Type says.
    assert meaning_of(mail(EVENT.replace("METHOD:REQUEST\n", ""))).kind is Kind.MESSAGE


def test_no_calendar_is_no_invitation() -> None:
    meaning = meaning_of(mail("nothing of the kind"))
    assert (meaning.kind, meaning.calendar) == (Kind.MESSAGE, UNSET)
