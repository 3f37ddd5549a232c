"""What tests ask of a real IMAP server, whichever it is: other clients of its mailboxes. Dovecot and Cyrus are two."""

import asyncio
import contextlib
import imaplib
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "secret"
# From so many on messages come as one: each by itself would cost a millisecond.
MANY = 200
START_TRIES = 3
START_LIMIT_S = 15.0
STOP_LIMIT_S = 10.0


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: mail servers cannot choose their own."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Client(imaplib.IMAP4):
    """Another client, whose commands are done or the test fails: what is refused without a word proves nothing."""

    def _simple_command(self, name: str, *arguments: str) -> tuple[str, list[Any]]:
        status, answer = super()._simple_command(name, *arguments)
        assert status != "NO", answer
        return status, answer

    def append_all(self, mailbox: str, messages: Sequence[bytes]) -> None:
        """Many messages in one command (RFC 3502), in literals that wait for no answer (RFC 7888)."""
        tag = self._new_tag()
        literals = b"".join(b" {%d+}\r\n%b" % (len(message), message) for message in messages)
        self.send(b"%b APPEND %b%b\r\n" % (tag, mailbox.encode(), literals))
        status, answer = self._command_complete("APPEND", tag)
        assert status == "OK", answer


class ImapServer:
    """One server in a folder of its own. `command()` and `configure()` are what its kind adds; `last_words()` too."""

    root: Path
    host: str = "127.0.0.1"
    imap: int = 0
    process: subprocess.Popen[bytes] | None = None

    def check(self) -> None:
        """Fail with the command that installs what is missing."""
        raise NotImplementedError

    def configure(self) -> None:
        """Choose ports and write the configuration."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What runs it in the foreground."""
        raise NotImplementedError

    def last_words(self) -> str:
        """What it wrote, for a test that fails."""
        raise NotImplementedError

    def start(self) -> None:
        """Start and wait until IMAP answers."""
        self.check()
        for attempt in range(START_TRIES):
            self.configure()
            # In a group of its own: Cyrus's master, when it ends, ends its whole group, and so another test's Cyrus.
            self.process = subprocess.Popen(self.command(), start_new_session=True)
            if self._answers():
                return
            self.stop()
            if attempt == START_TRIES - 1:
                pytest.fail(f"{type(self).__name__} did not start: {self.last_words()}")

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                imaplib.IMAP4(self.host, self.imap, timeout=5).logout()
                return True
            if self.process is not None and self.process.poll() is not None:
                return False
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        """Stop at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_LIMIT_S)

    @contextlib.contextmanager
    def client(self, user: str) -> Iterator[imaplib.IMAP4]:
        """A logged-in client of another kind than ours."""
        client = Client(self.host, self.imap, timeout=30)
        client.login(user, PASSWORD)
        try:
            yield client
        finally:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                client.logout()

    def make_again(self, user: str, mailbox: str) -> None:
        """Delete a mailbox and make it again; blocks, and not for long.

        In a session of its own: a session that knew the old one may be refused all that concerns the new one, for ever
        (Dovecot 2.3: "duplicate transaction log sequence").
        """
        with self.client(user) as client:
            client.delete(mailbox)
            client.create(mailbox)

    def append_now(self, user: str, messages: Sequence[bytes], mailbox: str = "INBOX") -> None:
        """Put messages into a mailbox; blocks."""
        with self.client(user) as client:
            if len(messages) >= MANY:
                client.append_all(mailbox, messages)
                return
            for message in messages:
                client.append(mailbox, "", "", message)

    async def append(self, user: str, messages: Sequence[bytes], mailbox: str = "INBOX") -> None:
        """Put messages into a mailbox, in a thread."""
        await asyncio.to_thread(self.append_now, user, messages, mailbox)


def account_of(name: str) -> pwd.struct_passwd:
    """Whom a server runs as: the package's own user where root starts it, whoever runs the tests otherwise."""
    return pwd.getpwnam(name) if os.getuid() == 0 else pwd.getpwuid(os.getuid())
