"""Consumers of the event log → those that retention has overtaken. Run by app.py in the background.

A consumer that is slower than the stream's limits loses events without a word from NATS: what was pending is gone
although it was never delivered. Compared from one look to the next, so that a filter that rarely matches, whose
acknowledgements are old, is no false alarm.
"""

from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client

from service.bus.errors import js_api, translated

PAGES_LIMIT: Final = 40  # of 256 consumers each


@dataclass(frozen=True, slots=True)
class _Seen:
    pending: int
    delivered: int
    ack_floor: int


@dataclass(frozen=True, slots=True)
class Overrun:
    """`lost`: events that the consumer can never see, at least."""

    consumer: str
    lost: int


class Readers:
    """What was seen of a stream's consumers at the last look."""

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc = nc
        self._stream = stream
        self._seen: dict[str, _Seen] = {}

    async def look(self) -> list[Overrun]:
        """The consumers that lost events since the last look. Raises Transient."""
        with translated(self._stream):
            consumers = await self._consumers()
            # Behind them: what retention takes in between is found by the next look, and not by none.
            state = (await js_api(self._nc, f"STREAM.INFO.{self._stream}"))["state"]
        seen: dict[str, _Seen] = {}
        overruns: list[Overrun] = []
        for info in consumers:
            name = str(info["name"])
            now = _Seen(int(info["num_pending"]), info["delivered"]["consumer_seq"], info["ack_floor"]["stream_seq"])
            seen[name] = now
            before = self._seen.get(name, now)
            # New events hide some of the loss, never make one up.
            lost = before.pending - now.pending - (now.delivered - before.delivered)
            if lost > 0 and now.ack_floor + 1 < int(state["first_seq"]):
                overruns.append(Overrun(name, lost))
        self._seen = seen
        return overruns

    async def _consumers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _ in range(PAGES_LIMIT):
            answer = await js_api(self._nc, f"CONSUMER.LIST.{self._stream}", {"offset": len(found)})
            page: list[dict[str, Any]] = answer.get("consumers") or []
            found += page
            if not page or len(found) >= int(answer["total"]):
                break
        return found
