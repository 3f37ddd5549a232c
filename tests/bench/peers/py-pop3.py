"""What a Python user would write: poplib + the stdlib email package + nats-py.

    pip install nats-py
    python py-pop3.py POP3_HOST POP3_PORT USER PASSWORD NATS_URL
"""

import asyncio
import email
import email.policy
import json
import poplib
import sys
import time

import nats
from nats.js.api import StreamConfig


async def main() -> None:
    host, port, user, password, url = sys.argv[1:6]
    client = poplib.POP3(host, int(port))
    client.user(user)
    client.pass_(password)
    nc = await nats.connect(url)
    js = nc.jetstream()
    try:
        await js.delete_stream("PEER_POP3")
    except Exception:
        pass
    await js.add_stream(StreamConfig(name="PEER_POP3", subjects=["peer.pop3.>"]))
    start = time.perf_counter()
    listed = [line.decode().split(" ", 1) for line in client.uidl()[1]]
    count = size = 0
    for i in range(0, len(listed), 100):
        pending = []
        for number, uidl in listed[i : i + 100]:
            raw = b"\r\n".join(client.retr(int(number))[1]) + b"\r\n"
            mail = email.message_from_bytes(raw, policy=email.policy.default)
            body, html = mail.get_body(("plain",)), mail.get_body(("html",))
            event = {
                "uidl": uidl,
                "subject": mail["subject"],
                "from": str(mail["from"]),
                "to": str(mail["to"]),
                "text": body.get_content() if body else None,
                "html": html.get_content() if html else None,
                "headers": [(k, str(v)) for k, v in mail.items()],
                "attachments": [(a.get_filename(), len(a.get_content())) for a in mail.iter_attachments()],
            }
            pending.append(js.publish("peer.pop3.INBOX", json.dumps(event).encode(), headers={"Nats-Msg-Id": uidl}))
            count += 1
            size += len(raw)
        await asyncio.gather(*pending)
    seconds = time.perf_counter() - start
    print(json.dumps({"peer": "poplib+email+nats-py", "count": count, "bytes": size, "seconds": seconds, "per_second": count / seconds}))
    await nc.close()
    client.quit()


asyncio.run(main())
