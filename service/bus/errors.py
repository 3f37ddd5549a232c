"""NATS's errors → verdicts. The only file that knows nats-py's exceptions and the server's error codes."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from service.errors import Halted, Inward, MailbusError, Uncertain
from service.tasks import cancellations

REQUEST_TIMEOUT_S: Final = 5.0

WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
BATCH_PLACES_TAKEN: Final = 10210
NOT_FOUND: Final = 404
# No such message, as against no such stream, which is 404 too and says nothing about the message.
NO_MESSAGE: Final = 10037
NO_STREAM: Final = 10059


class FenceRefused(Inward):
    """The server refused the commit: the log has moved on, or the batch was not taken. Read the tail again."""


class CommitUnknown(Uncertain):
    """The commit's answer never came. Read the tail: the log says whether it landed."""

    is_ours = True


class MessageTooLarge(Halted):
    """An event is larger than the server takes; nothing was sent."""


class NobodyThere(Inward):
    """Nobody listens on the subject of a request."""


class NotPermitted(Inward):
    """The user of NATS may not publish where it asks, or not hear the answer."""


class Conflict(MailbusError):
    """Compare-and-set found another revision."""

    is_ours = True


class ApiError(Exception):
    """JetStream answered a request with an error. Stays inside this room."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


RAISED: Final = (nats.errors.Error, nats.js.errors.Error, ApiError, TimeoutError, OSError, asyncio.InvalidStateError)


class translated:  # noqa: N801 reads as what it does
    """Everything that NATS may raise within the block, as Inward: it is away, slow, full or refuses for now.

    And a cancellation is never lost in it, as in tasks.cancellable. A class and no generator: it costs less.
    """

    __slots__ = ("_before", "_where")

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        self._before = cancellations()

    def __exit__(self, _type: object, exc: BaseException | None, _traceback: object) -> None:
        if cancellations() > self._before:
            raise asyncio.CancelledError
        if isinstance(exc, RAISED) and not isinstance(exc, MailbusError):
            raise inward(exc, self._where) from exc


def inward(exc: BaseException, where: str) -> Inward:
    """What one of RAISED says."""
    said = str(exc) or type(exc).__name__
    remedy = "tried again; look at the NATS server if it stays"
    if isinstance(exc, ApiError) and exc.err_code == NO_STREAM:
        # Nobody makes it while mailbus runs: whoever removed it may want to restore it, and a new one is no backup.
        remedy = "restore it, or start mailbus anew, which makes it; what its loss means: docs/operations.md, Backup"
    return Inward(f"NATS: {said}", where=where, remedy=remedy)


async def js_api(nc: Client, subject: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to JetStream's API. Raises ApiError with the server's codes, or nats-py's errors."""
    payload = json.dumps(request).encode() if request is not None else b""
    reply = await nc.request(f"$JS.API.{subject}", payload, timeout=REQUEST_TIMEOUT_S)
    answer: dict[str, Any] = json.loads(reply.data)
    raise_api_error(answer)
    return answer


async def subject_pages(nc: Client, stream: str, subject: str) -> AsyncGenerator[dict[str, int], None]:
    """Subject → messages that a stream holds under it, for those that match `subject`, as many at once as NATS lists.

    One that is there all the time is in them, perhaps twice. Raises as js_api does.
    """
    offset, total = 0, 0
    while True:
        info = await js_api(nc, f"STREAM.INFO.{stream}", {"subjects_filter": subject, "offset": offset})
        gone, total = total - int(info.get("total", 0)), int(info.get("total", 0))
        if gone > 0 and offset:
            # They come in their order: by as many as have gone the others have moved up.
            offset = max(0, offset - gone)
            continue
        page: dict[str, int] = info["state"].get("subjects") or {}
        yield page
        offset += len(page)
        if not page or offset >= total:
            return


async def subject_counts(nc: Client, stream: str, subject: str) -> dict[str, int]:
    """All pages in one. Raises as js_api does."""
    counts: dict[str, int] = {}
    async for page in subject_pages(nc, stream, subject):
        counts |= page
    return counts


def raise_api_error(answer: dict[str, Any]) -> None:
    """Raise ApiError where the answer is one."""
    if error := answer.get("error"):
        raise ApiError(error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
