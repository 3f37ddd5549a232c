"""Mails broken in many ways, for as long as one likes: `python -m tests.mime.fuzz [SECONDS] [SEED]`.

Prints inputs a second and the slowest input. Ends with 1, and the input in a file, at the first broken promise.
"""

import random
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.mime.invariants import check
from tests.mime.test_any_bytes import SEED

SLOW_S = 2.0
JUNK = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"(", b")", b"<", b">",
    b",", b";", b":", b"=", b"\\", b"@", b"--", b"--out", b"--out--", b"--in", b"=?utf-8?q?", b"=?x?b?", b"?=",
    b"*0*=", b"''", b"=\r\n", b"=3D", b"boundary=", b"charset=", b"utf-7", b"utf-16", b"iso-2022-jp", b"base64",
    b"quoted-printable", b"Content-Type: multipart/mixed; boundary=in\r\n",
    b"Content-Type: message/rfc822\r\n\r\n", b"From: a@b, c\r\n",
)  # fmt: skip


def flip(rng: random.Random, mail: bytearray) -> None:
    for _ in range(rng.randint(1, 10)):
        mail[rng.randrange(len(mail))] = rng.randrange(256)


def insert(rng: random.Random, mail: bytearray) -> None:
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(mail))
        mail[at:at] = rng.choice(JUNK) * rng.choice((1, 1, 1, 3, 50))


def remove(rng: random.Random, mail: bytearray) -> None:
    at = rng.randrange(len(mail))
    del mail[at : at + rng.randint(1, 80)]


def repeat(rng: random.Random, mail: bytearray) -> None:
    at = rng.randrange(len(mail))
    piece = mail[at : at + rng.randint(1, 120)]
    mail[at:at] = piece * rng.choice((2, 5, 100, 1000))


def swap(rng: random.Random, mail: bytearray) -> None:
    lines = mail.split(b"\r\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    mail[:] = b"\r\n".join(lines)


def line_ends(rng: random.Random, mail: bytearray) -> None:
    mail[:] = mail.replace(b"\r\n", rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r")))


CHANGES: tuple[Callable[[random.Random, bytearray], None], ...] = (flip, insert, remove, repeat, swap, line_ends)


def broken(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One seed after one to four changes."""
    mail = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 4)):
        if mail:
            rng.choice(CHANGES)(rng, mail)
    return bytes(mail)


def main(seconds: float, seed: int) -> int:
    rng = random.Random(seed)
    seeds = [SEED, SEED.replace(b"\r\n", b"\n"), SEED[:900], SEED.replace(b"out", b"in"), b"\r\n" + SEED]
    end = time.monotonic() + seconds
    count, slowest_s = 0, 0.0
    while time.monotonic() < end:
        mail = broken(rng, seeds)
        began = time.process_time()
        try:
            check(mail)
            took_s = time.process_time() - began
            assert took_s < SLOW_S, f"{took_s:.1f} s for {len(mail)} bytes"
        except Exception as exc:  # noqa: BLE001 whatever it is, it is what we are looking for
            path = Path(f"fuzz-{zlib.crc32(mail):08x}.eml")
            path.write_bytes(mail)
            print(f"{path}: {type(exc).__name__}: {exc}")
            return 1
        count, slowest_s = count + 1, max(slowest_s, took_s)
    print(f"{count} inputs, {count / seconds:.0f}/s, slowest {slowest_s * 1000:.1f} ms, seed {seed}: no promise broken")
    return 0


if __name__ == "__main__":
    sys.exit(
        main(
            float(sys.argv[1]) if len(sys.argv) > 1 else 60.0,
            int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000,
        )
    )
