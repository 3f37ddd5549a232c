"""`mailbus streams print`: what it prints is all that mailbus needs."""

import json
import re
from pathlib import Path

import nats
import yaml

from service.bus import NatsOptions, StreamOptions, open_bus
from tests.servers.mailbus import words
from tests.servers.nats import NatsServer


async def test_what_is_printed_makes_all_streams_as_mailbus_wants_them(
    own_nats: NatsServer, tmp_path: Path, prefix: str
) -> None:
    file = tmp_path / "mailbus.yaml"
    file.write_text(yaml.safe_dump({"nats": {"prefix": prefix}}))
    code, out, err = await words("streams", "print", "-c", str(file))
    assert code == 0, err
    commands = re.findall(
        r"^nats stream add (\S+) --config /dev/stdin <<'END'\n(.*?)^END$", out, re.DOTALL | re.MULTILINE
    )
    nc = await nats.connect(own_nats.url)
    for name, config in commands:
        reply = await nc.request(f"$JS.API.STREAM.CREATE.{name}", config.encode())
        assert "error" not in json.loads(reply.data), reply.data
    made = json.loads((await nc.request("$JS.API.STREAM.NAMES", b"{}")).data)["streams"]
    async with open_bus(NatsOptions(servers=(own_nats.url,), prefix=prefix), StreamOptions()):
        assert json.loads((await nc.request("$JS.API.STREAM.NAMES", b"{}")).data)["streams"] == made
    await nc.close()
