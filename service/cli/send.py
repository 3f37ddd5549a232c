"""`mailbus send` and `mailbus cmd`: a request to the running service, and the status that follows."""

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import typer

from service.cli.words import Declined, aside, on_bus
from service.clock import SystemClock
from service.contract import State, Verb, decode_request, encode, request_key
from service.errors import EX_FAILURE
from service.tasks import TaskGroup

if TYPE_CHECKING:
    from service.bus import Bus
    from service.settings import Settings

# A little longer than the service takes at the most.
COMMAND_TIMEOUT_S: Final = 130.0
LAST_WORDS_S: Final = 1.0
ERROR_CODE: Final = "Nats-Service-Error-Code"
ERROR: Final = "Nats-Service-Error"
FINAL: Final = frozenset({State.SENT, State.FAILED, State.CANCELLED})


def request_from_flags(to: list[str], subject: str, text: str, id: str | None) -> bytes:
    """A request as section "requests" of docs/contract.md has it."""
    request: dict[str, Any] = {"to": [{"email": address} for address in to], "subject": subject, "text": text}
    if id is not None:
        request["id"] = id
    return encode(request)


async def command(settings: "Settings", account: str, verb: Verb, payload: bytes) -> int:
    """Ask, print the answer, 0 where it is none of an error."""
    async with on_bus(settings) as bus:
        answer, failed = await ask(bus, account, verb, payload)
    if answer:
        typer.echo(answer.decode("utf-8", "replace"))
    return failure(failed) if failed else 0


def failure(said: str) -> int:
    """Say what was wrong; the exit code."""
    aside(f"mailbus: {said}", style="red")
    return EX_FAILURE


async def send_and_wait(settings: "Settings", account: str, payload: bytes, *, wait_s: float) -> int:
    """Ask `send`, then print each status until the final one; 0 where everybody got it."""
    async with on_bus(settings) as bus:
        subject = bus.subjects.status(account, "*")
        # What is said before it is asked is about others; an id that was there before is answered anew.
        before = await bus.last_seq(bus.subjects.stream_status)
        statuses: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=1000)

        async def listen() -> None:
            async for message in bus.follow(bus.subjects.stream_status, subject, after=before):
                await statuses.put(json.loads(message.payload))

        async with TaskGroup() as group:
            listening = group.create_task(listen())
            try:
                answer, failed = await ask(bus, account, Verb.SEND, payload)
                if failed:
                    if answer:
                        typer.echo(answer.decode("utf-8", "replace"), err=True)
                    return failure(failed)
                id = json.loads(answer)["id"]
                aside(f"queued as {id}")
                waiting = _recipients(payload)
                code = await _outcome(id, waiting, statuses, wait_s)
                return code or await _earlier(bus, account, id, waiting - {""})
            finally:
                listening.cancel()


def _recipients(payload: bytes) -> set[str]:
    # Of a reply they stand in the message that it answers: its last word tells the end.
    return set(decode_request(payload).recipients()) or {""}


async def _outcome(id: str, waiting: set[str], statuses: asyncio.Queue[dict[str, Any]], wait_s: float) -> int:
    """Until each of `waiting` has its final state, or the last word is said; 0 where all that was said is `sent`.

    Who had none is left in `waiting`.
    """
    code = 0
    last_word = False
    try:
        async with asyncio.timeout(wait_s) as limit:
            while waiting:
                status = await statuses.get()
                if status.get("id") != id:
                    continue
                typer.echo(json.dumps(status, ensure_ascii=False))
                if status.get("state") in FINAL:
                    settled = status.get("deliveryStatus") or dict.fromkeys(waiting)
                    waiting -= settled.keys()
                    code = code if status.get("state") == State.SENT else EX_FAILURE
                if status.get("undoStatus") == "final":
                    # The last word; its sisters of the same attempt come with it. An id that was there before is
                    # answered with the first request's status, whoever that went to.
                    last_word = True
                    limit.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_S)
            return code
    except TimeoutError:
        if last_word:
            return code
        aside(f"mailbus: no final status within {wait_s:g} s; mailbus tail shows it when it comes", style="red")
        return EX_FAILURE


async def _earlier(bus: "Bus", account: str, id: str, missing: set[str]) -> int:
    """Of whom an id that was there before said nothing now: 0 where a relay took the mail for all of them then.

    The last attempt's statuses are said again, and no others (docs/contract.md).
    """
    from service.outbound import Sends

    if not missing:
        return 0
    sends = Sends(bus.key_value(bus.subjects.sends), bus.key_value(bus.subjects.cursors), SystemClock())
    record, _ = await sends.get(request_key(account, id))
    not_sent = missing - set(record.taken if record is not None else ())
    if not not_sent:
        return 0
    return failure(f"{id} was asked before, and these did not get it: {', '.join(sorted(not_sent))}")


async def ask(bus: "Bus", account: str, verb: Verb, payload: bytes) -> tuple[bytes, str]:
    """The answer's body, and what was wrong."""
    if len(payload) > bus.max_payload:
        size = f"{len(payload)} bytes, and NATS takes {bus.max_payload} at once"
        raise Declined(size, where=verb, remedy="give large attachments by blobId: mailbus cmd ACCOUNT upload")
    answer = await bus.request(bus.subjects.cmd(account, verb), payload, timeout_s=COMMAND_TIMEOUT_S)
    code = answer.headers.get(ERROR_CODE)
    return answer.payload, f"{code} {answer.headers.get(ERROR, '')}" if code else ""
