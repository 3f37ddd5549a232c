"""A job's payload and headers → its id, and the request or all that is wrong with it. Pure."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec

from service.contract import Problem, RequestProblems, SendRequest, decode_request, event_id, request_key, rfc3339

ID_LIMIT_CHARS: Final = 255


class Taken(msgspec.Struct, frozen=True):
    """A request as it came. Where `problems` is not empty, `request` is None."""

    id: str
    key: str
    request: SendRequest | None
    problems: list[Problem]


class _OnlyId(msgspec.Struct):
    id: Any = None


_ONLY_ID: Final = msgspec.json.Decoder(_OnlyId)


def take(account: str, payload: bytes, headers: Mapping[str, str], *, made_id: Callable[[], str]) -> Taken:
    """The id of a request, from its body, from `Nats-Msg-Id`, or made; and the request itself. Never raises."""
    request: SendRequest | None = None
    problems: list[Problem] = []
    try:
        request = decode_request(payload)
    except RequestProblems as exc:
        problems = exc.problems
    id = request.id if request is not None and request.id is not None else settle_id(payload, headers, made_id)
    return Taken(id, request_key(account, id), request, problems)


def settle_id(payload: bytes, headers: Mapping[str, str], made_id: Callable[[], str]) -> str:
    """The first of the three that can be an id. Also of a request that is wrong otherwise."""
    said: object = None
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = _ONLY_ID.decode(payload).id
    for id in (said, headers.get("Nats-Msg-Id")):
        if isinstance(id, str) and 1 <= len(id) <= ID_LIMIT_CHARS and id.isprintable():
            return id
    return made_id()


def made_id(stream_created: datetime, seq: int) -> str:
    """An id for a request that brought none: the same on every delivery, another in a stream made anew."""
    return event_id(rfc3339(stream_created), seq)
