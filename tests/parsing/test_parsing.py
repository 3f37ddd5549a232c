"""A page of messages → events and blobs: what make.py makes, and what crosses the pipe to a process of its own."""

import hashlib
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import CURSOR_HEADER, ENVELOPE_ROOM_BYTES, Email, place_of
from service.parsing import INBOUND_BYTES, LENGTH, Made, Page, Raw, Read, Slots, decode_answer, encode_task, make
from service.parsing.__main__ import serve
from service.parsing.frames import encode_answer

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
WITH_FILE = (
    b"Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n"
    b"--b\r\nContent-Disposition: attachment; filename=f\r\n\r\nfile\r\n--b--\r\n"
)


def page(raw: Raw = Raw.PROBLEM, event_limit: int = 1024 * 1024) -> Page:
    return Page("/mail/a/INBOX", "INBOX", "c0ffee", 7, 256 * 1024, event_limit, raw, NOW)


def read(body: bytes | None, uid: int = 3, *, whole: bool = True) -> Read:
    return Read(uid, len(body or b""), {"$seen": True}, NOW, body, whole)


def email_of(made: Made) -> Email:
    return msgspec.json.decode(made.payload, type=Email)


def frames(output: bytes) -> list[bytes]:
    found = []
    while output:
        (length,) = LENGTH.unpack_from(output)
        found.append(output[LENGTH.size : LENGTH.size + length])
        output = output[LENGTH.size + length :]
    return found


@pytest.fixture
def slots() -> Iterator[Slots]:
    one = Slots.create()
    yield one
    one.close()


def test_an_event_has_the_place_of_its_message_and_no_cursor() -> None:
    made = make(page(), read(b"Subject: s\r\n\r\nhello"))
    email = email_of(made)
    place = place_of(email.id)
    assert place is not None
    assert (place.uidvalidity, place.uid) == (7, 3)
    assert email.keywords == {"$seen": True}
    assert made.headers["ce-subject"] == email.id
    assert CURSOR_HEADER not in made.headers


def test_an_attachment_is_a_blob_named_by_period_and_content() -> None:
    made = make(page(), read(WITH_FILE))
    name = f"202611-{hashlib.sha256(b'file').hexdigest()}"
    assert [(blob.id, blob.data) for blob in made.blobs] == [(name, b"file")]
    assert email_of(made).attachments[0].blob_id == name


@pytest.mark.parametrize(("raw", "kept"), [(Raw.PROBLEM, False), (Raw.ALWAYS, True), (Raw.NEVER, False)])
def test_raw_bytes_are_kept_as_asked(raw: Raw, kept: bool) -> None:
    body = b"Subject: s\r\n\r\nhello"
    made = make(page(raw), read(body))
    assert [blob.data for blob in made.blobs] == ([body] if kept else [])
    assert (email_of(made).blob_id is not msgspec.UNSET) is kept


@pytest.mark.fault("C01", "A08")
def test_a_message_that_the_server_does_not_give_is_an_event_that_says_so() -> None:
    email = email_of(make(page(), read(None)))
    assert email.mailbus.problem is not msgspec.UNSET
    assert email.mailbus.problem.type == "unavailable"


@pytest.mark.fault("C03", "D12")
def test_an_event_too_large_for_the_bus_gives_its_bodies_as_blobs() -> None:
    body = b"Subject: s\r\n\r\n" + b"word " * 40_000
    made = make(page(event_limit=128 * 1024), read(body))
    assert len(made.payload) < 128 * 1024 - ENVELOPE_ROOM_BYTES
    assert [blob.data for blob in made.blobs] == [b"word " * 40_000]


def test_the_same_message_makes_the_same_event() -> None:
    assert make(page(), read(WITH_FILE)) == make(page(), read(WITH_FILE))


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_through_a_slot_any_messages_make_what_they_make_here(bodies: list[bytes]) -> None:
    messages = [read(body, uid) for uid, body in enumerate(bodies, start=1)]
    output = io.BytesIO()
    with closing(Slots.create()) as slots:
        asked = [encode_task(slot, page(), messages, slots.inbound(slot)) for slot in (2, 0)]
        serve(io.BytesIO(b"".join(asked)), output, slots)
        ready, first, second = frames(output.getvalue())
        here = [make(page(), message) for message in messages]
        assert ready == b""
        assert decode_answer(first, slots.outbound(2)) == here
        assert decode_answer(second, slots.outbound(0)) == here


def test_what_does_not_fit_into_a_slot_comes_through_the_pipe(slots: Slots) -> None:
    made = [make(page(), read(WITH_FILE, uid)) for uid in range(1, 4)]
    room = slots.outbound(1)[: len(made[0].payload) + 10]
    assert decode_answer(encode_answer(made, room)[LENGTH.size :], room) == made


def test_a_page_larger_than_a_slot_is_refused_before_anything_is_sent(slots: Slots) -> None:
    with pytest.raises(ValueError, match="memoryview"):
        encode_task(0, page(), [read(b"x" * (INBOUND_BYTES + 1))], slots.inbound(0))


@pytest.mark.parametrize("cut", [0, 1, LENGTH.size, LENGTH.size + 1, -1])
def test_a_parent_that_is_gone_in_the_middle_of_a_page_ends_it(cut: int, slots: Slots) -> None:
    frame = encode_task(0, page(), [read(WITH_FILE)], slots.inbound(0))
    ended = subprocess.run(
        [sys.executable, "-m", "service.parsing", str(slots.fd)],
        input=frame[:cut],
        pass_fds=[slots.fd],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0
    assert ended.stderr == b""
    assert frames(ended.stdout) == [b""]


def test_it_starts_without_what_only_its_parent_needs() -> None:
    code = "import sys, service.parsing.__main__; print(sorted({'nats', 'aiohttp', 'structlog'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True, text=True)
    assert shown.stdout.strip() == "[]"
