"""A durable consumer in Python: each mail is handled once in effect, whatever is killed, and its attachments are read.

    pip install nats-py
    python consumer.py nats://127.0.0.1:4222 crm mails.db

What a mail leads to is written in one transaction with the event's `ce-id`; only then the event is acknowledged. Killed
before the transaction: nothing happened, the event comes again. Killed after it: the event comes again, its `ce-id` is
there, and it is acknowledged without being handled.
"""

import asyncio
import base64
import json
import sqlite3
import sys
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext

PREFIX = "mail"  # nats.prefix of mailbus's settings; streams have it in capitals


def open_database(file: str) -> sqlite3.Connection:
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS handled (ce_id TEXT PRIMARY KEY)")
    database.execute("CREATE TABLE IF NOT EXISTS mails (id TEXT, subject TEXT, attachments INTEGER, bytes INTEGER)")
    return database


def is_handled(database: sqlite3.Connection, ce_id: str) -> bool:
    return database.execute("SELECT 1 FROM handled WHERE ce_id = ?", (ce_id,)).fetchone() is not None


async def blob(stream: JetStreamContext, blob_id: str) -> bytes:
    """The bytes of a blob. Needs one permission: $JS.API.STREAM.MSG.GET.OBJ_mail-blobs"""
    bucket, name = f"{PREFIX}-blobs", base64.urlsafe_b64encode(blob_id.encode()).decode()
    meta = json.loads((await stream.get_last_msg(f"OBJ_{bucket}", f"$O.{bucket}.M.{name}")).data or b"")
    data, seq = b"", 1
    for _ in range(meta["chunks"]):
        chunk = await stream.get_msg(f"OBJ_{bucket}", seq=seq, subject=f"$O.{bucket}.C.{meta['nuid']}", next=True)
        data, seq = data + (chunk.data or b""), (chunk.seq or 0) + 1
    return data


async def handle(database: sqlite3.Connection, stream: JetStreamContext, ce_id: str, email: dict[str, Any]) -> None:
    """What your service does with a mail. All that it changes is one transaction with the event's id."""
    contents = [await blob(stream, part["blobId"]) for part in email["attachments"]]
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO handled VALUES (?)", (ce_id,))
    row = (email["id"], email["subject"], len(contents), sum(map(len, contents)))
    database.execute("INSERT INTO mails VALUES (?, ?, ?, ?)", row)
    database.execute("COMMIT")


async def take(database: sqlite3.Connection, stream: JetStreamContext, event: Msg) -> None:
    headers = event.headers or {}
    # Other types of events may come one day: what is not known is acknowledged.
    if headers.get("ce-type") == "mailbus.received" and not is_handled(database, headers["ce-id"]):
        await handle(database, stream, headers["ce-id"], json.loads(event.data))
    await event.ack_sync()


async def main(url: str, name: str, file: str) -> None:
    database = open_database(file)
    client = await nats.connect(url, max_reconnect_attempts=-1)
    stream = client.jetstream()
    # Durable: the server keeps how far it is.
    events = await stream.pull_subscribe_bind(name, stream=f"{PREFIX.upper()}_IN")
    while True:
        try:
            found = await events.fetch(20, timeout=5)
        except nats.errors.TimeoutError:  # nothing new
            continue
        for event in found:
            await take(database, stream, event)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
