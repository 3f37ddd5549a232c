"""Servers of its own → the whole loop before the user's eyes, then a status page that stays up.

Reads the streams as an ordinary consumer does, over a connection of its own; mailbus itself is service/app.py with
settings written here, in the same event loop as the mail servers.
"""

import asyncio
import json
import shlex
import signal
import smtplib
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final

from service.app import Application
from service.build import nats_options
from service.bus import Bus, Followed, open_bus
from service.demo.servers import HOST, Mail, check_installed, running_imap, running_nats, running_smtp
from service.demo.show import Screen
from service.errors import EX_FAILURE, EX_OK, MailbusError, Permanent, verdict_of
from service.observe import set_up_logs
from service.settings import Settings
from service.tasks import TaskGroup

LOOP_LIMIT_S: Final = 60.0
COMMAND_LIMIT_S: Final = 10.0
ACCOUNT: Final = "demo"
ADDRESS: Final = "demo@mailbus.example"
PASSWORD: Final = "demo"  # of a mailbox that lives for minutes, on loopback
STRANGER: Final = "ada@customer.example"

Seen = Followed | Mail


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything listens."""

    nats: str
    imap: int
    smtp: int
    page: str


class Story:
    """The loop, told as it happens. `missing` is what is waited for now."""

    def __init__(self, screen: Screen, places: Places, bus: Bus, seen: asyncio.Queue[Seen]) -> None:
        self._screen, self._places, self._bus, self._seen = screen, places, bus, seen
        self.missing = ""

    async def tell(self) -> None:
        """From an empty mailbox to a status. Ends when the loop is closed."""
        screen, subjects = self._screen, self._bus.subjects
        screen.say("\nThe account starts", "bold")
        # Two streams, so in any order.
        wanted = {subjects.event(ACCOUNT, "INBOX", "reset"), subjects.account(ACCOUNT, "connected")}
        while wanted:
            seen = await self._until(" and ".join(sorted(wanted)), lambda seen: isinstance(seen, Followed))
            wanted -= {seen.subject} if isinstance(seen, Followed) else set()
        screen.step("mailbus watches INBOX; its starting line stands in MAIL_IN")

        screen.say("\n1. A mail arrives", "bold")
        await asyncio.to_thread(send_mail, self._places.smtp)
        await self._until("the mail at the SMTP server", lambda seen: _is_mail(seen, ADDRESS))
        screen.step(f"delivered to the mailbox of {ADDRESS}")

        screen.say("\n2. Its event, as any consumer reads it from MAIL_IN", "bold")
        subject = subjects.event(ACCOUNT, "INBOX", "received")
        event = await self._until("the mail's event", lambda seen: _is(seen, subject))
        email = json.loads(event.payload) if isinstance(event, Followed) else {}
        screen.step(f"{email['from'][0]['email']} wrote “{email['subject']}”")

        screen.say("\n3. A reply, asked for on the bus", "bold")
        await self._reply(email)

        screen.say("\n4. The reply, as the SMTP server got it", "bold")
        await self._until("the reply at the SMTP server", lambda seen: _is_mail(seen, STRANGER))
        screen.step("delivered")

        screen.say("\n5. Its status, as any consumer reads it from MAIL_STATUS", "bold")
        await self._until("the reply's status", lambda seen: _is(seen, subjects.status(ACCOUNT, "sent")))
        screen.step("sent: the loop is closed\n")

    async def _reply(self, email: dict[str, list[str]]) -> None:
        to_answer = email["messageId"]
        request = {
            "id": "reply-1",
            "to": [{"name": "Ada", "email": STRANGER}],
            "subject": f"Re: {email['subject']}",
            "text": "It does: you wrote, it became an event, and this is the answer.\n",
            "inReplyTo": to_answer[0],
            "references": to_answer,
        }
        subject = self._bus.subjects.cmd(ACCOUNT, "send")
        self.missing = f"an answer on {subject}"
        answer = await self._bus.request(subject, json.dumps(request).encode(), timeout_s=COMMAND_LIMIT_S)
        if code := answer.headers.get("Nats-Service-Error-Code"):
            raise Permanent(f"{subject} answered {code}", where=answer.payload.decode("utf-8", "replace")[:300])
        self._screen.request(subject, request)
        self._screen.step(f"answer: {answer.payload.decode()}")

    async def _until(self, what: str, wanted: Callable[[Seen], bool]) -> Seen:
        """Show what happens until the wanted happens."""
        self.missing = what
        while not wanted(seen := await self.show_next()):
            pass
        return seen

    async def show_next(self) -> Seen:
        """The next thing that happens, shown."""
        seen = await self._seen.get()
        if isinstance(seen, Mail):
            self._screen.mail(seen)
        else:
            self._screen.event(seen)
        return seen


def _is(seen: Seen, subject: str) -> bool:
    return isinstance(seen, Followed) and seen.subject == subject


def _is_mail(seen: Seen, to: str) -> bool:
    return isinstance(seen, Mail) and to in seen.rcpt_to


def send_mail(port: int) -> None:
    """A customer's mail, as any program sends one. Blocks."""
    mail = EmailMessage()
    mail["From"] = f"Ada Lovelace <{STRANGER}>"
    mail["To"] = f"Support <{ADDRESS}>"
    mail["Subject"] = "Does the loop work? ☕"
    mail["Message-ID"] = "<first-question@customer.example>"
    mail.set_content("Good morning,\n\ndoes a mail become an event?\n\nAda\n")
    with smtplib.SMTP(HOST, port, timeout=COMMAND_LIMIT_S) as smtp:
        smtp.send_message(mail)


def demo_settings(nats: str, imap: int, smtp: int, listen: str) -> Settings:
    """What one would write into a file, with the demo's own servers."""
    account = {
        "id": ACCOUNT,
        "address": ADDRESS,
        "username": "demo",
        "password": PASSWORD,
        "incoming": {"imap": {"host": HOST, "port": imap, "security": "none"}, "initial": "all"},
        "outgoing": {"smtp": {"host": HOST, "port": smtp, "security": "none", "login": False}},
    }
    whole = {
        "nats": {"servers": [nats]},
        "http": {"listen": listen},
        "instance": "demo",
        "log": {"level": "warning"},
        "accounts": [account],
    }
    return Settings.model_validate(whole)


def free_address(listen: str, *, once: bool) -> str:
    """`listen`; or with `once`, any free port where that one is taken. Raises Permanent."""
    host, _, port = listen.rpartition(":")
    name = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((name, int(port)))
        except OSError as exc:
            if not once:
                raise Permanent(
                    f"the status page cannot listen on {listen}: {exc.strerror}", remedy="give --listen 127.0.0.1:0"
                ) from exc
            return f"{host}:0"
    return listen


async def run_demo(*, once: bool, listen: str) -> int:
    """`mailbus demo`: the exit code. With `once` it ends after the loop; otherwise at SIGINT or SIGTERM."""
    screen = Screen()
    set_up_logs("warning")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        check_installed()
        return await _run(screen, stopping, once=once, listen=free_address(listen, once=once))
    except MailbusError as exc:
        screen.failed(str(exc))
        return EX_FAILURE
    except BaseExceptionGroup as failed:
        error = verdict_of(failed)
        if not isinstance(error, MailbusError):
            raise error from failed
        screen.failed(str(error))
        return EX_FAILURE


async def _run(screen: Screen, stopping: asyncio.Event, *, once: bool, listen: str) -> int:
    seen: asyncio.Queue[Seen] = asyncio.Queue(maxsize=10_000)

    def taken(mail: Mail) -> None:
        with suppress(asyncio.QueueFull):
            seen.put_nowait(mail)

    async with AsyncExitStack() as stack:
        screen.say("mailbus demo: servers of its own, on this machine only", "bold")
        nats = await stack.enter_async_context(running_nats())
        screen.step(f"NATS with JetStream at {nats}")
        imap, append = await stack.enter_async_context(running_imap("demo", PASSWORD))
        screen.step(f"IMAP server at {HOST}:{imap}, mailbox {ADDRESS}")
        smtp = await stack.enter_async_context(running_smtp(ADDRESS, append, taken))
        screen.step(f"SMTP server at {HOST}:{smtp}")
        settings = demo_settings(nats, imap, smtp, listen)
        app = Application(settings)
        async with TaskGroup() as group:
            running = group.create_task(app.run(), name="mailbus")
            try:
                started = group.create_task(app.wait_started(), name="started")
                asked = group.create_task(stopping.wait(), name="asked to stop")
                await asyncio.wait([started, asked, running], timeout=LOOP_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
                if not started.done():
                    started.cancel()
                    asked.cancel()
                    screen.failed("stopped" if stopping.is_set() else "mailbus did not start")
                    return EX_FAILURE
                host = listen.rpartition(":")[0]
                page = f"http://{host}:{app.admin.port if app.admin else 0}/"
                screen.step(f"mailbus, status page at {page}")
                bus = await stack.enter_async_context(open_bus(nats_options(settings), None))
                places = Places(nats, imap, smtp, page)
                code = await _watch(screen, places, bus, seen, asked, once=once)
                asked.cancel()
                return code
            finally:
                app.stop()


async def _watch(
    screen: Screen, places: Places, bus: Bus, seen: asyncio.Queue[Seen], asked: asyncio.Task[bool], *, once: bool
) -> int:
    """Tell the story while consumers read; then show what else happens until asked to stop."""
    story = Story(screen, places, bus, seen)
    subjects = bus.subjects

    async def consume(stream: str, subject: str) -> None:
        async for message in bus.follow(stream, subject, after=0):
            await seen.put(message)

    async def stay() -> None:
        while True:
            await story.show_next()

    async with TaskGroup() as group:
        consumers = [
            group.create_task(consume(subjects.stream_in, f"{subjects.prefix}.in.{ACCOUNT}.*.*"), name="MAIL_IN"),
            group.create_task(consume(subjects.stream_status, f"{subjects.prefix}.>"), name="MAIL_STATUS"),
        ]
        try:
            telling = group.create_task(story.tell(), name="story")
            await asyncio.wait([telling, asked], timeout=LOOP_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
            if not telling.done():
                telling.cancel()
                screen.failed(f"stopped before {story.missing}" if asked.done() else f"missing: {story.missing}")
                return EX_FAILURE
            if once or telling.exception() is not None:
                return EX_OK
            _invite(screen, places)
            staying = group.create_task(stay(), name="stay")
            await asked
            staying.cancel()
            return EX_OK
        finally:
            for consumer in consumers:
                consumer.cancel()


def _invite(screen: Screen, places: Places) -> None:
    """What to try while it stays up."""
    environment = f"MAILBUS_NATS__SERVERS={shlex.quote(places.nats)}"
    code = (
        f"import smtplib; smtplib.SMTP('{HOST}', {places.smtp}).sendmail('you@example.org', '{ADDRESS}', "
        "'Subject: hello\\n\\nIt is me.')"
    )
    screen.say("It stays up until Ctrl-C. In another terminal:", "bold")
    for what, command in (
        ("status page", places.page),
        ("all events", f"{environment} mailbus tail --all"),
        ("the same, with NATS's own tool", f"nats --server {places.nats} sub 'mail.>'"),
        ("another mail", f"swaks --server {HOST}:{places.smtp} --from you@example.org --to {ADDRESS}"),
        ("the same, with Python", f'python3 -c "{code}"'),
        ("send a mail", f"{environment} mailbus send {ACCOUNT} --to {STRANGER} --subject Hello --text 'It works'"),
    ):
        screen.say(f"  {what}", "dim")
        screen.say(f"    {command}")
    screen.say()
