"""Whether what a mail costs grows with its size and no faster: `python -m tests.mime.growth [BYTES]`.

Each hostile piece is repeated in a header and in bodies of several kinds to BYTES (256 KB), and to twice as much; both
are read with all that can be made of a mail. Prints the worst growths, and ends with 1 where one is above LIMIT of
inputs that take long enough to be measured. No test asserts a time: this is run by hand, on a machine that is idle.
"""

import sys
import time

from tests.mime.fuzz import JUNK
from tests.mime.invariants import check

LIMIT = 2.5
# A shorter time is noise.
MEASURED_S = 0.02
SHOWN = 5
FRAMES = {
    "subject": (b"Subject: ", b"\r\n\r\n"),
    "addresses": (b"To: ", b"\r\n\r\n"),
    "fields": (b"X: y\r\n", b"\r\n\r\n"),
    "parameters": (b"Content-Type: text/plain; x=y; ", b"\r\n\r\nx"),
    "text": (b"Content-Type: text/plain\r\n\r\n", b""),
    "html": (b"Content-Type: text/html\r\n\r\n", b""),
    "base64": (b"Content-Transfer-Encoding: base64\r\n\r\n", b""),
    "quoted-printable": (b"Content-Transfer-Encoding: quoted-printable\r\n\r\n", b""),
    "parts": (b"Content-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\n\r\n", b"\r\n--in--\r\n"),
    "notice": (b"From: MAILER-DAEMON@x\r\nSubject: failure notice\r\n\r\n<a@b.example>: 550 no\r\n", b""),
    "report": (
        b"Content-Type: multipart/report; boundary=in\r\n\r\n--in\r\nContent-Type: message/delivery-status\r\n\r\n",
        b"\r\n--in--\r\n",
    ),
}


def took_s(frame: tuple[bytes, bytes], piece: bytes, size: int) -> float:
    """The least of two readings."""
    mail = frame[0] + piece * (size // len(piece)) + frame[1]
    times = []
    for _ in range(2):
        began = time.process_time()
        check(mail, [256 * 1024])
        times.append(time.process_time() - began)
    return min(times)


def main(words: list[str]) -> int:
    """The exit code."""
    size = int(words[0]) if words else 256 * 1024
    found = []
    for name, frame in FRAMES.items():
        for piece in JUNK:
            once, twice = took_s(frame, piece, size), took_s(frame, piece, 2 * size)
            if twice >= MEASURED_S:
                found.append((twice / max(once, 1e-9), twice, name, piece))
    found.sort(reverse=True)
    for ratio, took, name, piece in found[:SHOWN]:
        print(f"{ratio:4.1f} times for twice the size, {took:.2f} s: {name} of {piece!r}")
    print(f"{len(FRAMES) * len(JUNK)} kinds of {size} bytes, {len(found)} of them measurable")
    return 1 if any(ratio > LIMIT for ratio, *_ in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
