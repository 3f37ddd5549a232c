"""Dovecot's imaptest disturbs a mailbox that mailbus follows: `python -m tests.ingest.imaptest PROGRAM [SECONDS]`.

PROGRAM is imaptest (https://dovecot.github.io/imaptest/), which no package has: build it against Debian's dovecot-dev.
Its clients do at full speed what they like: STORE, EXPUNGE, APPEND, COPY, by its own chance. Meanwhile mailbus, in a
process of its own, is killed and begun again. In the end who reads nothing but events has exactly what the server has,
in each habit of Dovecot, and a start that compares all finds nothing that was not told. Prints a line for each; a
difference ends with exit code 1. Run by hand: what it found is in docs/quirks.md, and test_disturbed.py does the like.
"""

import asyncio
import os
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from tests.ingest.child import Follower
from tests.ingest.view import View, mail, there_now
from tests.servers.bus import bus_at
from tests.servers.dovecot import HABITS, Dovecot
from tests.servers.mailbus import BusReader, reading
from tests.servers.nats import NatsServer

BOX: Final = "Box"
USER: Final = "tester"
CLIENTS: Final = 8
MESSAGES: Final = 50
SECONDS: Final = 30
# Without a kill for so long.
LIFE_S: Final = (1.0, 6.0)
SETTLE_LIMIT_S: Final = 60.0
DISTURBED: Final = ("qresync", "condstore", "snapshot", "old")


def mbox() -> str:
    """What imaptest appends, as it wants it."""
    mails = [f"From a@b Thu Jan  1 00:00:00 2026\n{mail(number).decode()}\n" for number in range(1, 60)]
    return "".join(mails).replace("\r\n", "\n")


async def disturb(program: str, server: Dovecot, seconds: int, seed: int) -> int:
    """Run imaptest; gives how many commands it did. Raises RuntimeError where it found fault with Dovecot."""
    source = server.root / "imaptest.mbox"
    source.write_text(mbox())
    arguments = [f"host={server.host}", f"port={server.imap}", f"user={USER}", "pass=secret", f"mbox={source}"]
    arguments += [f"box={BOX}", f"copybox={BOX}", f"clients={CLIENTS}", f"msgs={MESSAGES}", f"secs={seconds}"]
    process = await asyncio.create_subprocess_exec(
        program, *arguments, f"seed={seed}", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), seconds + 60)
    totals = out.decode().rpartition("Totals:")[2].splitlines()
    if process.returncode or len(totals) < 4:
        raise RuntimeError(f"imaptest ended with {process.returncode}: {err.decode()[-2000:]}")
    return sum(map(int, re.findall(r"\d+", totals[-1])))


async def kept_alive(follower: Follower, chance: random.Random, over: asyncio.Event) -> int:
    """mailbus, killed and begun again until it is over, then left alone; gives how often it was killed."""
    kills = 0
    while not over.is_set():
        process = await asyncio.to_thread(follower.start)
        try:
            async with asyncio.timeout(chance.uniform(*LIFE_S)):
                await over.wait()
        except TimeoutError:
            kills += 1
        process.kill()
        await asyncio.to_thread(process.join)
    return kills


async def settled(reader: BusReader, there: dict[int, set[str]]) -> View:
    """Until events make what the server has. Raises RuntimeError after the limit."""
    found = View()
    deadline = asyncio.get_running_loop().time() + SETTLE_LIMIT_S
    while asyncio.get_running_loop().time() < deadline:
        found = View().read(await reader.events())
        if found.messages == there:
            return found
        await asyncio.sleep(0.2)
    missing, wrong = there.keys() - found.messages.keys(), found.messages.keys() - there.keys()
    flags = [uid for uid in there.keys() & found.messages.keys() if there[uid] != found.messages[uid]]
    raise RuntimeError(f"events differ: missing {sorted(missing)}, gone {sorted(wrong)}, keywords of {flags}")


async def one_habit(program: str, habit: str, nats: NatsServer, seconds: int, seed: int) -> str:
    """A line of what happened."""
    with tempfile.TemporaryDirectory(prefix="mailbus-dovecot-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        server = Dovecot(Path(folder), extra=HABITS[habit])
        await asyncio.to_thread(server.start)
        try:
            with server.client(USER) as client:
                client.create(BOX)
            follower = Follower(nats.url, habit, server.imap, USER, BOX, {})
            over = asyncio.Event()
            async with bus_at(nats.url, habit), reading(nats.url, habit) as reader:
                async with asyncio.TaskGroup() as group:
                    living = group.create_task(kept_alive(follower, random.Random(seed), over))
                    while not await reader.count(f"{habit}.in.>"):  # noqa: ASYNC110 a log rings no bell
                        await asyncio.sleep(0.1)
                    commands = await disturb(program, server, seconds, seed)
                    over.set()
                there = await asyncio.to_thread(there_now, server, USER, BOX)
                process = await asyncio.to_thread(follower.start)
                found = await settled(reader, there)
                process.kill()
                await asyncio.to_thread(process.join)
                # One that begins now compares all that it does not know for sure.
                process = await asyncio.to_thread(follower.start)
                await asyncio.sleep(3)
                process.kill()
                await asyncio.to_thread(process.join)
                if (await settled(reader, there)).told != found.told:
                    raise RuntimeError("a later start told more")
        finally:
            await asyncio.to_thread(server.stop)
    kinds = Counter(kind for kind, _ in found.told)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"{habit}: {commands} commands, {living.result()} kills; {said}; {len(there)} messages left, the same"


async def main(program: str, seconds: int) -> int:
    """All habits, one after the other."""
    seed = random.randrange(2**31)
    print("seed", seed)
    with tempfile.TemporaryDirectory(prefix="mailbus-nats-") as folder:
        nats = NatsServer(Path(folder))
        await nats.start()
        try:
            for habit in DISTURBED:
                print(await one_habit(program, habit, nats, seconds, seed))
        except RuntimeError as exc:
            print(exc)
            return 1
        finally:
            await nats.kill()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else SECONDS)))
