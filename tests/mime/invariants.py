"""What holds for any bytes at all: the property tests and the fuzzer ask for the same."""

import json
from collections.abc import Sequence

from service.contract import Email, EmailBodyPart, Extra, encode
from service.meaning import read_meaning, thread_id
from service.mime import MimeLimits, Parsed, parse, parse_header_only

INLINE_LIMITS = (256 * 1024, 1000, 0)
FLOOR_BYTES = 64 * 1024


def meaning(email: Email, values: dict[str, str], contents: dict[str, bytes]) -> Email:
    """What a mail means, its server to be learnt from it."""
    return read_meaning(email, values, contents, "")


def check(raw: bytes, inline_limits: Sequence[int] = INLINE_LIMITS) -> None:
    """Raises AssertionError where the parser breaks a promise. `inline_limits`: at which sizes of events."""
    for inline_limit in inline_limits:
        parsed = parse(
            raw,
            received_at=None,
            limits=MimeLimits(),
            inline_limit=inline_limit,
            meaning=meaning,
            extras=list(Extra),
        )
        thread_id(parsed.email)
        _check_parsed(parsed, max(inline_limit, FLOOR_BYTES))
        assert parsed.email.size == len(raw)
    header = parse_header_only(raw[:100_000], len(raw), received_at=None, limits=MimeLimits())
    _check_parsed(header, FLOOR_BYTES)


def _check_parsed(parsed: Parsed, limit: int) -> None:
    problem = parsed.problem
    assert problem is None or "the parser failed" not in problem.detail, problem
    email = parsed.with_blobs(dict.fromkeys(parsed.blobs, "2026-11-" + "a" * 64))
    event = encode(email)
    assert len(event) <= limit, f"{len(event)} bytes, limit {limit}"
    json.loads(event.decode("utf-8"))
    assert "\\u0000" not in event.decode("utf-8").replace("\\\\", ""), "NUL in the event"
    # Extras say again what the bodies say.
    assert not parsed.whole or (problem is None and parsed.truncated in ([], ["extras"]))
    # What was found within texts and winmail.dat files stands among the attachments alone.
    parts = _leaves(email.body_structure)
    parts += [part for part in email.attachments if "." in (part.part_id or "")]
    ids = [part.part_id for part in parts]
    assert len(set(ids)) == len(ids)
    assert set(parsed.blobs) | set(email.body_values) <= set(ids)
    for part in parts:
        if part.part_id in parsed.blobs:
            assert part.size == len(parsed.blobs[part.part_id])
            assert part.blob_id is not None
    # Each leaf is shown or attached.
    assert {part.part_id for one in (email.text_body, email.html_body, email.attachments) for part in one} == set(ids)
    assert len(email.preview) <= MimeLimits().preview_chars


def _leaves(root: EmailBodyPart | None) -> list[EmailBodyPart]:
    found, waiting = [], [] if root is None else [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part.sub_parts, list):
            waiting.extend(part.sub_parts)
        else:
            found.append(part)
    return found
