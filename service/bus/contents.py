"""What a stream holds, read whole, and the removal of single messages. Used by the room erase.

A consumer of its own reads a log; a work queue takes no reader beside its own and is read message by message.
"""

import base64
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client

from service.bus.errors import NO_MESSAGE, ApiError, js_api, translated
from service.bus.follow import Followed
from service.bus.log import parse_headers
from service.bus.replay import whole

ALL: Final = ">"


class Contents:
    """One stream."""

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc = nc
        self._stream = stream

    async def last(self) -> int:
        """The sequence that it has reached. Raises Transient."""
        with translated(self._stream):
            info = await js_api(self._nc, f"STREAM.INFO.{self._stream}")
        return int(info["state"]["last_seq"])

    def read(self, subject: str, *, after: int, last: int) -> AsyncGenerator[Followed, None]:
        """Its messages on a subject with wildcards beyond `after`, up to `last`. Raises Transient."""
        return whole(self._nc, self._stream, subject, after=after, last=last)

    async def waiting(self) -> AsyncGenerator[Followed, None]:
        """What waits in a work queue, up to its end of now, but what is taken meanwhile. Raises Transient."""
        seq, last = 0, await self.last()
        while (found := await self._next(seq + 1)) is not None and found.seq <= last:
            seq = found.seq
            yield found

    async def erase(self, seq: int) -> bool:
        """Remove a message, whose bytes the server overwrites; False where it is gone. Raises Transient."""
        with translated(self._stream):
            try:
                await js_api(self._nc, f"STREAM.MSG.DELETE.{self._stream}", {"seq": seq})
            except ApiError:
                if await self._get({"seq": seq}) is not None:
                    raise
                return False
        return True

    async def _next(self, seq: int) -> Followed | None:
        with translated(self._stream):
            message = await self._get({"seq": seq, "next_by_subj": ALL})
        if message is None:
            return None
        return Followed(
            int(message["seq"]),
            message["subject"],
            parse_headers(base64.b64decode(message.get("hdrs", ""))),
            base64.b64decode(message.get("data", "")),
            datetime.fromisoformat(message["time"]),
        )

    async def _get(self, request: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = await js_api(self._nc, f"STREAM.MSG.GET.{self._stream}", request)
        except ApiError as exc:
            if exc.err_code == NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        return message
