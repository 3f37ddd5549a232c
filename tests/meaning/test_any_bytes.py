"""Whatever is in a mail, its meaning is read without an exception and within limits."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import encode
from service.meaning import read_meaning
from service.mime import MimeLimits, parse
from tests.meaning.mails import dsn, notice
from tests.meaning.test_calendar import EVENT
from tests.meaning.test_calendar import mail as invitation
from tests.meaning.test_dsn import FAILED
from tests.meaning.test_kinds import report
from tests.meaning.test_notices import FORMS, RETURNED

FEEDBACK = report("feedback-report", "message/feedback-report", "Feedback-Type: abuse")
MAILS = [dsn(FAILED), invitation(EVENT), FEEDBACK, *(notice(form + RETURNED) for form in FORMS.values())]


def check(raw: bytes) -> None:
    parsed = parse(
        raw,
        received_at=None,
        limits=MimeLimits(),
        inline_limit=64 * 1024,
        meaning=lambda email, values, contents: read_meaning(email, values, contents, ""),
    )
    assert parsed.problem is None or "the parser failed" not in parsed.problem.detail, parsed.problem
    event = encode(parsed.email)
    assert len(event) <= 64 * 1024
    event.decode("utf-8")


@pytest.mark.fault("C01")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(MAILS))
def test_broken_reports_are_read_as_far_as_they_go(seed: int, mail: str) -> None:
    rng = random.Random(seed)
    raw = bytearray(mail.encode())
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(len(raw))
        match rng.randrange(4):
            case 0:
                raw[at] = rng.randrange(256)
            case 1:
                del raw[at : at + rng.randint(1, 60)]
            case 2:
                raw[at:at] = raw[at : at + rng.randint(1, 200)] * rng.choice((2, 20))
            case _:
                raw[at:at] = rng.choice((b"\n", b"\r", b"\0", b"@", b"<", b"550 ", b"\xff", b": ", b"--b\n"))
    check(bytes(raw))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=400))
def test_any_text_is_read(subject: bytes, text: bytes) -> None:
    check(b"From: MAILER-DAEMON@x.example\nSubject: failure notice " + subject + b"\n\n" + text)


@pytest.mark.fault("C04")
@pytest.mark.parametrize(
    "text",
    [
        "a@b.example " * 20_000,
        "<a@b.example>:\n" * 20_000,
        "550 user unknown " * 20_000,
        "over over over quota the the the " * 10_000,
        "Received: from\nTo: x\nSubject: y\n\n" * 10_000,
        "-" * 300_000,
        " " * 300_000,
        "a" * 300_000 + "@" + "b." * 100_000,
        "<p" * 100_000,
        "=" * 100_000 + "\n" + "(" * 100_000,
    ],
    ids=range(10),
)
def test_long_notices_are_read_within_their_limits(text: str) -> None:
    # A quadratic expression would take minutes here, and the suite's limit for one test would end it.
    check(notice(text).encode())
    check(dsn(FAILED, notice=text[:100_000]).encode())
    check(notice(text, header="Content-Type: text/html\n").encode())
