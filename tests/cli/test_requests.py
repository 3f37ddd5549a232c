"""`mailbus held` and `mailbus dead` beside a running service."""

import asyncio
import json

from tests.servers.mailbus import command, reading, settings_for, with_relay
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay
from tests.whole.test_life import Maker


async def test_a_request_on_hold_is_shown_and_released(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    relay.script.cut = ["before_reply"]
    account = with_relay({"id": "box", "address": "me@example.com"}, relay)
    account["outgoing"]["uncertain"] = "hold"
    one = mailbus(settings_for(own_nats.url, prefix, account))
    one.start()
    await one.started()
    code, _, _ = await command(one, "send", "box", "--to", "a@x.example", "--text", "x", "--id", "r1", "--wait", "1")
    assert code == 1
    code, out, err = await command(one, "held", "list", "box")
    assert code == 0, err
    assert "r1" in out
    assert "a@x.example" in out
    code, out, err = await command(one, "held", "release", "box", "r1")
    assert code == 0, err
    assert json.loads(out)["undoStatus"] == "pending"
    await relay.received(2)
    code, _, err = await command(one, "held", "cancel", "box", "another")
    assert code == 1
    assert "no such request" in err
    assert await one.stop() == 0


async def test_a_dead_letter_is_shown_and_its_request_sent_again_once(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix, with_relay({"id": "box", "address": "me@example.com"}, relay)))
    one.start()
    await one.started()
    # So much text that it fits into a message just as it is.
    wrong = {"id": "bad", "to": [{"email": "a@x.example"}], "text": "ü" * 500_000, "attachments": [
        {"blobId": f"202611-{'0' * 64}", "name": "later.pdf"}
    ]}  # fmt: skip
    worse = {"id": "worse", "to": [{"email": f"nobody{n}"} for n in range(30)], "text": "x"}
    async with reading(own_nats.url, prefix) as reader:
        for request in (*(json.dumps(one, ensure_ascii=False).encode() for one in (wrong, worse)), b"\xff no JSON"):
            await reader.nc.jetstream().publish(f"{prefix}.out.box", request)
        async with asyncio.timeout(30):
            while await reader.count(f"{prefix}.dead.request", "DEAD") < 3:  # noqa: ASYNC110 a stream rings no bell
                await asyncio.sleep(0.05)
    code, out, err = await command(one, "dead", "list")
    assert code == 0, err
    lines = [line for line in out.splitlines() if " request " in line]
    first, second = sorted((line for line in lines if "JSON" not in line), key=lambda line: "no such blob" not in line)
    assert "no such blob" in first
    assert "box" in first
    code, out, err = await command(one, "dead", "show", first.split()[0])
    assert json.loads(out) == wrong
    assert "Mail-Request-Key" in err
    code, out, _ = await command(one, "dead", "show", next(line for line in lines if "JSON" in line).split()[0])
    assert out.encode(errors="surrogateescape") == b"\xff no JSON"
    for _ in range(2):
        code, out, err = await command(one, "dead", "retry", first.split()[0])
        assert code == 0, err
        assert "bad.again-" in out
    code, _, err = await command(one, "dead", "retry", second.split()[0])
    assert code == 1
    assert "to[0].email" in err
    assert "to[25].email" not in err
    assert "and 10 more like these" in err
    broken = next(line for line in lines if "JSON" in line).split()[0]
    code, _, err = await command(one, "dead", "retry", broken)
    assert "mailbus: not a JSON object" in err
    code, _, err = await command(one, "dead", "show", "99")
    assert "no dead letter 99" in err
    assert await one.stop() == 0
