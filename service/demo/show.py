"""Steps and messages of the demo → panels on a terminal, plain lines elsewhere."""

import json
import sys
from email import message_from_bytes, policy
from typing import Any, Final

from rich.console import Console
from rich.json import JSON
from rich.panel import Panel
from rich.text import Text

from service.bus import Followed
from service.demo.servers import Mail

# Of an Email, what a first look wants; the rest is counted.
FIRST: Final = ("id", "mailboxIds", "receivedAt", "from", "to", "subject", "bodyValues", "preview")
STRING_LIMIT: Final = 120
TEXT_LIMIT_LINES: Final = 14


class Screen:
    """Where the demo speaks."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace", line_buffering=True)
        self.console = Console(soft_wrap=True, highlight=False)

    def say(self, text: str = "", style: str = "") -> None:
        """A line."""
        self.console.print(Text(text, style=style))

    def step(self, text: str) -> None:
        """Something that was done."""
        self.console.print(Text.assemble(("✓ ", "bold green"), text))

    def failed(self, text: str) -> None:
        """What went wrong, or is missing."""
        self.console.print(Text.assemble(("✗ ", "bold red"), text))

    def event(self, message: Followed) -> None:
        """A message as it stands in its stream."""
        body = json.dumps(abridged(message), indent=2, ensure_ascii=False)
        self._panel(f"{message.subject}  #{message.seq}", JSON(body), body, colour(message.subject))

    def request(self, subject: str, body: dict[str, Any]) -> None:
        """A request as it goes out."""
        text = json.dumps(body, indent=2, ensure_ascii=False)
        self._panel(f"{subject}  (request)", JSON(text), text, "magenta")

    def mail(self, mail: Mail) -> None:
        """A mail as the SMTP server got it."""
        content = mail_text(mail)
        self._panel(f"SMTP: {mail.mail_from} → {', '.join(mail.rcpt_to)}", Text(content), content, "blue")

    def _panel(self, title: str, pretty: Any, plain: str, style: str) -> None:
        title = printable(title)
        if self.console.is_terminal:
            self.console.print(
                Panel(pretty, title=Text(title), title_align="left", border_style=style), soft_wrap=False
            )
            return
        self.say(f"  {title}")
        for line in plain.splitlines():
            self.say(f"    {line}")


def colour(subject: str) -> str:
    """A border's colour by the kind of the event."""
    kinds = {"received": "green", "sent": "green", "failed": "red", "deferred": "yellow", "auth_failed": "red"}
    return kinds.get(subject.rpartition(".")[2], "cyan")


def abridged(message: Followed) -> dict[str, Any]:
    """An event's body for a first look: known properties first, long strings cut, the rest counted."""
    body: dict[str, Any] = json.loads(message.payload)
    if not message.subject.endswith(".received"):
        return dict(body)
    shown = {name: _short(body[name]) for name in FIRST if name in body}
    more = len(body) - len(shown)
    return shown | {"…": f"and {more} more: {', '.join(name for name in body if name not in shown)}"}


def _short(value: Any) -> Any:
    match value:
        case str() if len(value) > STRING_LIMIT:
            return value[:STRING_LIMIT] + "…"
        case list():
            return [_short(one) for one in value[:5]]
        case dict():
            return {name: _short(one) for name, one in value.items()}
        case _:
            return value


def mail_text(mail: Mail) -> str:
    """The header lines that people read, and the text."""
    message = message_from_bytes(mail.content, policy=policy.default)
    names = ("From", "To", "Subject", "Date", "Message-ID", "In-Reply-To")
    lines = [f"{name}: {message[name]}" for name in names if message[name]]
    body = message.get_body(("plain", "html"))
    text = body.get_content() if body else ""
    shown = [*lines, "", *text.splitlines()]
    return "\n".join(printable(line) for line in shown[:TEXT_LIMIT_LINES])


def printable(line: str) -> str:
    """A stranger's line without what would steer the terminal."""
    return "".join(char if char.isprintable() else "�" for char in line)
