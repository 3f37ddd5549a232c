"""A whole maildrop into JetStream: mailbus, a Python peer, and fetchmail and getmail6, which only download."""

import asyncio
import poplib
import shutil
import sys
import time
from functools import partial
from typing import Final

from tests.bench.bus import check_distinct, check_empty, drop, jetstream, running, stored, wait_messages
from tests.bench.ground import GETMAIL, PEERS, BenchError, Ground, call, program
from tests.bench.programs import checked
from tests.bench.table import OURS, Rates, alternate
from tests.servers.imap_server import PASSWORD, account_of

# Into one file, which is the fastest that it has: a program for each mail, or SMTP, cost more.
FETCHMAIL: Final = """
set no bouncemail
poll 127.0.0.1 protocol pop3 port {port} no uidl
  user "{user}" password "{password}" sslproto "" keep fetchall no rewrite bsmtp "{into}"
"""

# A process and a flush to the disk for each mail, by whatever destination: of 3,000 it would take minutes.
GETMAIL_MAILS: Final = 500
GETMAIL_RC: Final = """
[retriever]
type = SimplePOP3Retriever
server = 127.0.0.1
port = {port}
username = {user}
password = {password}

[destination]
type = Maildir
path = {into}/
user = {owner}

[options]
read_all = true
delete = false
delivered_to = false
received = false
max_messages_per_session = {count}
verbose = 0
"""


async def pop3(ground: Ground, kind: str, count: int, runs: int) -> Rates:
    """Every program's turns over the same maildrop of `count` mails, which all of them leave there."""
    user = f"pop3{kind}{count}"
    size = await ground.fill(user, count, kind) // count
    await asyncio.to_thread(_read_once, ground, user, count)
    programs = {
        OURS: partial(_mailbus, ground, user, count),
        "poplib + email + nats-py": partial(_python, ground, user, count),
        "fetchmail (downloads only, one file)": partial(_fetchmail, ground, user, count),
        f"getmail6 (downloads only, Maildir, {min(count, GETMAIL_MAILS)} of them)": partial(
            _getmail, ground, user, count
        ),
    }
    return Rates(
        f"POP3: {count:,} {kind} mails of {size / 1000:.1f} KB", await alternate(f"pop3 {kind}", programs, runs)
    )


def _read_once(ground: Ground, user: str, count: int) -> None:
    """Dovecot marks as seen what is read, and learns sizes for POP3 when it is asked for them: nobody pays for that."""
    client = poplib.POP3("127.0.0.1", ground.dovecot.pop3, timeout=60)
    client.user(user)
    client.pass_(PASSWORD)
    if client.stat()[0] != count:
        raise BenchError(f"{client.stat()[0]} mails in the maildrop of {user}, not {count}")
    for number in range(1, count + 1):
        client.retr(number)
    client.quit()


async def _mailbus(ground: Ground, user: str, count: int) -> float:
    """From the maildrop's first commit (`reset`) to its last `received`, by the stream's own timestamps."""
    async with ground.turn("mailbus") as turn, jetstream(turn) as context, running(turn, drop(ground, user)) as one:
        await wait_messages(context, "MAIL_IN", "mail.in.>", count + 1, one)
        events = await stored(context, "MAIL_IN")
        received = [event for event in events if event.kind == "received"]
        check_distinct(received, count, "pop3")
        if events[0].kind != "reset" or len(events) != count + 1:
            raise BenchError(f"pop3: {len(events)} events, and the first is {events[0].kind}")
        await check_empty(context, "MAIL_DEAD")
    return count / (received[-1].at - events[0].at).total_seconds()


async def _python(ground: Ground, user: str, count: int) -> float:
    """poplib + email + nats-py."""
    async with ground.turn("python") as turn:
        where = [ground.dovecot.host, str(ground.dovecot.pop3), user, PASSWORD, turn.nats_url]
        said = await call([sys.executable, str(PEERS / "py-pop3.py"), *where])
        return await checked(turn, said, "PEER_POP3", count)


async def _fetchmail(ground: Ground, user: str, count: int) -> float:
    async with ground.turn("fetchmail") as turn:
        file = turn.folder / "mail"
        rc = turn.folder / "fetchmailrc"
        rc.touch(mode=0o600)
        rc.write_text(FETCHMAIL.format(port=ground.dovecot.pop3, user=user, password=PASSWORD, into=file))
        start = time.perf_counter()
        await call(["env", f"FETCHMAILHOME={turn.folder}", program("fetchmail"), "--silent", "--fetchmailrc", str(rc)])
        seconds = time.perf_counter() - start
        there = (b"\n" + await asyncio.to_thread(file.read_bytes)).count(b"\nMAIL FROM:")
        if there != count:
            raise BenchError(f"fetchmail: {there} mails, not {count}")
        return count / seconds


async def _getmail(ground: Ground, user: str, count: int) -> float:
    count = min(count, GETMAIL_MAILS)
    async with ground.turn("getmail") as turn:
        # It delivers as no root.
        owner, into, rc = account_of("dovecot").pw_name, turn.folder / "Maildir", turn.folder / "getmailrc"
        turn.folder.chmod(0o755)
        for folder in (into, *(into / name for name in ("cur", "new", "tmp"))):
            folder.mkdir()
            shutil.chown(folder, owner)
        rc.touch(mode=0o600)
        port = ground.dovecot.pop3
        rc.write_text(GETMAIL_RC.format(port=port, user=user, password=PASSWORD, into=into, owner=owner, count=count))
        start = time.perf_counter()
        command = [
            sys.executable,
            str(GETMAIL / "bin" / "getmail"),
            "--getmaildir",
            str(turn.folder),
            "--rcfile",
            str(rc),
        ]
        await call(["env", f"PYTHONPATH={GETMAIL}", *command])
        seconds = time.perf_counter() - start
        there = len(list((into / "new").iterdir()))
        if there != count:
            raise BenchError(f"getmail6: {there} mails, not {count}")
        return count / seconds
