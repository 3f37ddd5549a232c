"""What the tests ask of a real MTA in the part of a relay: an end, and what lies in the mailboxes behind it."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from service.contract import Security
from service.smtp import SmtpOptions
from tests.servers.imap_server import PASSWORD, STOP_LIMIT_S, free_ports

START_LIMIT_S = 20.0
START_TRIES = 3
WAIT_LIMIT_S = 30.0
# It has mailboxes for whoever is in it, but for `nobody`.
DOMAIN = "mta.test"
USER = "sender"


class Mta:
    """STARTTLS, AUTH, PIPELINING and CHUNKING on 127.0.0.1:`port`. What its kind adds: see those that raise."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = 0
        self.ca = root / "ca.pem"
        self.process: subprocess.Popen[bytes] | None = None
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_pem.write_to_path(root / "key.pem")
        (root / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))

    def check(self) -> None:
        """Fail with the command that installs what is missing."""
        raise NotImplementedError

    def configure(self) -> None:
        """Write the configuration, for `port`."""
        raise NotImplementedError

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it, in the foreground."""
        raise NotImplementedError

    def contents(self) -> Sequence[bytes]:
        """Every mail in every mailbox, with the fields that the MTA put before it."""
        return [file.read_bytes() for file in sorted(self.root.glob("mail/**/new/*"))]

    def start(self) -> None:
        """Start, and wait until it greets."""
        self.check()
        for _ in range(START_TRIES):
            (self.port,) = free_ports(1)
            self.configure()
            self.process = self.spawn()
            if self._greets():
                return
            self.stop()
        pytest.fail(f"{type(self).__name__} did not start: {self.log()}", pytrace=False)

    def log(self) -> str:
        """What it wrote."""
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in self.root.glob("log*"))

    def _greets(self) -> bool:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as made:
                    if made.recv(3) == b"220":
                        return True
            except OSError:
                pass
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        """Stop it and all its processes."""
        if self.process is None:
            return
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(STOP_LIMIT_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def options(self, **changes: Any) -> SmtpOptions:
        """How mailbus reaches it."""
        fields: dict[str, Any] = {
            "account": "a", "host": "127.0.0.1", "port": self.port, "security": Security.STARTTLS,
            "tls": ssl.create_default_context(cafile=str(self.ca)), "username": USER, "password": PASSWORD,
        } | changes  # fmt: skip
        return SmtpOptions(**fields)

    async def mails(self, who: str, count: int) -> list[bytes]:
        """The mails in somebody's mailbox with CRLF, once they are so many."""
        mark = f": {who}@{DOMAIN}\n".encode()
        async with asyncio.timeout(WAIT_LIMIT_S):
            while True:
                found = [mail for mail in self.contents() if mark in mail.partition(b"\nReceived:")[0] + b"\n"]
                if len(found) >= count:
                    return [mail.replace(b"\n", b"\r\n") for mail in found]
                await asyncio.sleep(0.02)
