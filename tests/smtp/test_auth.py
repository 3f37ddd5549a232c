"""AUTH with a password: the best way that both know, as the mechanism's own RFC has it said."""

import asyncio
import base64
import hmac
from collections.abc import Callable

import pytest

from service.clock import SystemClock
from service.contract import Security
from service.smtp import Relay, SmtpOptions
from tests.smtp.harness import MESSAGE, Dot

USER, PASSWORD = "me@x.example", "right-Pa55"
CHALLENGE = b"<1.2@x.example>"


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


# RFC 4616; draft-murchison-sasl-login; RFC 2195: what is said after each challenge, the first with the command.
TALKS: dict[str, list[tuple[bytes, bytes]]] = {
    "PLAIN": [(b"", b"AUTH PLAIN " + b64(f"\0{USER}\0{PASSWORD}".encode()))],
    "LOGIN": [(b"", b"AUTH LOGIN " + b64(USER.encode())), (b64(b"Password:"), b64(PASSWORD.encode()))],
    "CRAM-MD5": [
        (b"", b"AUTH CRAM-MD5"),
        (b64(CHALLENGE), b64(f"{USER} {hmac.new(PASSWORD.encode(), CHALLENGE, 'md5').hexdigest()}".encode())),
    ],
}


def serving(offered: str, heard: list[bytes]) -> Callable[..., object]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = {b"EHLO": b"250-x\r\n250 AUTH %s\r\n" % offered.encode(), b"DATA": b"354 go\r\n", b"AUTH": b""}
        challenges: list[bytes] = []
        writer.write(b"220 x\r\n")
        while raw := await reader.readline():
            line = raw.rstrip(b"\r\n")
            if line.startswith(b"AUTH"):
                talk = TALKS[line.split()[1].decode()]
                challenges = [challenge for challenge, _ in talk[1:]]
                heard.append(line)
            elif len(heard) and not heard[-1].startswith(b"done"):
                heard.append(line)
            if heard and not heard[-1].startswith(b"done"):
                if challenges:
                    writer.write(b"334 " + challenges.pop(0) + b"\r\n")
                else:
                    writer.write(b"235 2.7.0 in\r\n")
                    heard.append(b"done")
                continue
            if line.startswith(b"QUIT"):
                break
            if line.startswith((b"EHLO", b"MAIL", b"RCPT", b"DATA")) or line == b".":
                writer.write(answers.get(line[:4], b"250 OK\r\n"))
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("offered", "used"),
    [
        ("PLAIN", "PLAIN"),
        ("LOGIN", "LOGIN"),
        ("CRAM-MD5", "CRAM-MD5"),
        # Without TLS nobody who listens shall have the password.
        ("PLAIN LOGIN CRAM-MD5", "CRAM-MD5"),
        ("GSSAPI LOGIN PLAIN", "PLAIN"),
    ],
)
async def test_a_password_is_said_by_the_best_way_that_is_offered(offered: str, used: str) -> None:
    heard: list[bytes] = []
    server = await asyncio.start_server(serving(offered, heard), "127.0.0.1", 0)  # type: ignore[arg-type]
    async with server:
        port = server.sockets[0].getsockname()[1]
        relay = Relay(
            SmtpOptions("a", "127.0.0.1", port, Security.NONE, username=USER, password=PASSWORD), SystemClock()
        )
        replies = await relay.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())
        assert replies["a@x"].accepted
        await relay.close()
    assert heard == [*(said for _, said in TALKS[used]), b"done"]
