"""Mails broken in many ways, for as long as one likes: `python -m tests.mime.fuzz --help`.

What is called for each: the parser, the classifier and the texts that are made of bodies, at one of three sizes of
events in turn, and the parser of headers alone. Prints inputs a second, the slowest input, and the most memory that
the process had. Ends with 1, and the input in a file, at the first broken promise.
"""

import argparse
import random
import resource
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

from tests.meaning.test_any_bytes import MAILS
from tests.mime.invariants import INLINE_LIMITS, check
from tests.mime.test_any_bytes import SEED

SLOW_S = 2.0
# Larger seeds cost more than they find; of the others the small ones come more often, as each byte costs the same.
SEED_BYTES = 24 * 1024
SMALL_BYTES = 512
JUNK = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"(", b")", b"<", b">",
    b",", b";", b":", b"=", b"\\", b"@", b"--", b"--out", b"--out--", b"--in", b"=?utf-8?q?", b"=?x?b?", b"?=",
    b"*0*=", b"''", b"=\r\n", b"=3D", b"boundary=", b"charset=", b"utf-7", b"utf-16", b"iso-2022-jp", b"base64",
    b"quoted-printable", b"Content-Type: multipart/mixed; boundary=in\r\n",
    b"Content-Type: message/rfc822\r\n\r\n", b"From: a@b, c\r\n", b"format=flowed; delsp=yes", b"> ", b"-- \r\n",
    b"<div>", b"<blockquote>", b"<p hidden>", b"<!--", b"<script>", b"</", b"<a href=\"", b"&#",
    b"On Mon, Ada wrote:\r\n",
    b"Final-Recipient: rfc822; a@b.example\r\n", b"550 5.1.1 ", b"Action: failed\r\n", b"BEGIN:VCALENDAR\r\n",
    b"delivered ", b"rcpt to   ", b"=ybegin line=9 size=9 name=a\r\n", "\u00a0".encode(), b"<style", b"bad",
    b"Authentication-Results: mx;spf=fail (",
    b"begin 644 a\r\n", b"PK\x03\x04", b"Rar!\x1a\x07\x01\0",
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
    mail[at:at] = piece * rng.choice((2, 2, 3, 5, 5, 20, 100, 1000))


def swap(rng: random.Random, mail: bytearray) -> None:
    lines = mail.split(b"\r\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    mail[:] = b"\r\n".join(lines)


def line_ends(rng: random.Random, mail: bytearray) -> None:
    mail[:] = mail.replace(b"\r\n", rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r")))


CHANGES: tuple[Callable[[random.Random, bytearray], None], ...] = (flip, insert, remove, repeat, swap, line_ends)


def weights(seeds: list[bytes]) -> list[float]:
    """How often each seed comes, for `broken`."""
    return list(accumulate(1 / (SMALL_BYTES + len(seed)) for seed in seeds))


def broken(rng: random.Random, seeds: list[bytes], weighed: list[float]) -> bytes:
    """One seed after one to four changes. `weighed`: what `weights` says of the seeds."""
    (seed,) = rng.choices(seeds, cum_weights=weighed)
    mail = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        if mail:
            rng.choice(CHANGES)(rng, mail)
    return bytes(mail)


def own_seeds() -> list[bytes]:
    """Mails of the tests, for those who have no corpora."""
    seeds = [SEED, SEED.replace(b"\r\n", b"\n"), SEED[:900], SEED.replace(b"out", b"in"), b"\r\n" + SEED]
    return seeds + [mail.encode().replace(b"\n", b"\r\n") for mail in MAILS]


def corpus_seeds(folder: Path) -> Iterator[bytes]:
    """Every file of the corpora that is not too large."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("truth.jsonl", "PROVENANCE.md") and path.stat().st_size <= SEED_BYTES:
            yield path.read_bytes()


def peak_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(seeds: list[bytes], *, seconds: float, inputs: int, seed: int) -> int:
    """The exit code."""
    rng, weighed = random.Random(seed), weights(seeds)
    began_s, before_mib = time.monotonic(), peak_mib()
    count, size, slowest_s = 0, 0, 0.0
    while time.monotonic() - began_s < seconds and count < inputs:
        mail = broken(rng, seeds, weighed)
        limits = INLINE_LIMITS[count % 3 :][:1]
        began = time.monotonic()
        try:
            check(mail, limits)
            if time.monotonic() - began > slowest_s:
                # Others may have had the processor meanwhile; asking what was ours costs as much as half an input.
                began = time.process_time()
                check(mail, limits)
                took_s = time.process_time() - began
                assert took_s < SLOW_S, f"{took_s:.1f} s for {len(mail)} bytes"
                slowest_s = max(slowest_s, took_s)
        except Exception as exc:  # noqa: BLE001 whatever it is, it is what we are looking for
            path = Path(f"fuzz-{zlib.crc32(mail):08x}.eml")
            path.write_bytes(mail)
            print(f"{path}: {type(exc).__name__}: {exc}")
            return 1
        count, size = count + 1, size + len(mail)
    took = time.monotonic() - began_s
    print(
        f"{count} inputs of {len(seeds)} seeds, {size / 1e6:.0f} MB, {count / max(took, 1e-9):.0f}/s, slowest "
        f"{slowest_s * 1000:.0f} ms, memory at most {peak_mib():.0f} MiB (before {before_mib:.0f}), seed {seed}: no "
        "promise broken"
    )
    return 0


def main(words: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mime.fuzz", description="Broken mails, until one breaks us.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--inputs", type=int, default=10**9, help="end after so many")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--corpora", type=Path, help="a folder whose files are seeds, too")
    said = parser.parse_args(words)
    seeds = own_seeds()
    if said.corpora is not None:
        seeds += corpus_seeds(said.corpora)
    return fuzz(seeds, seconds=said.seconds, inputs=said.inputs, seed=said.seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
