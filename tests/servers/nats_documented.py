"""A nats-server with the permissions that docs/operations.md shows; every password is `secret`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers.nats import NatsServer

ROOT = Path(__file__).parents[2]


def documented_authorization() -> str:
    """The `authorization` block of docs/operations.md, as it stands there."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(r"^authorization \{\n.*?^\}\n", text, re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


class DocumentedNats(NatsServer):
    """A server with the permissions of the documents, or with others; every password is `secret`."""

    def authorization(self) -> str:
        """What its users may do."""
        return documented_authorization()

    def _spawn(self) -> subprocess.Popen[bytes]:
        process_file = self.folder / "nats.conf"
        self.folder.mkdir(parents=True, exist_ok=True)
        process_file.write_text(
            f"host: 127.0.0.1\nport: {self.port}\nports_file_dir: {json.dumps(str(self.folder))}\n"
            f"jetstream {{ store_dir: {json.dumps(str(self.folder / 'store'))} }}\n{self.authorization()}"
        )
        passwords = dict.fromkeys(re.findall(r"\$(\w+_PASSWORD)", self.authorization()), "secret")
        with open(self.folder / "nats.log", "ab") as output:
            return subprocess.Popen(
                [str(Path(sys.executable).parent / "nats-server"), "-c", str(process_file)],
                stdout=output,
                stderr=output,
                env={**os.environ, **passwords},
            )


@pytest.fixture
async def documented_nats(tmp_path: Path) -> AsyncIterator[DocumentedNats]:
    server = DocumentedNats(tmp_path / "nats")
    await server.start()
    yield server
    await server.kill()
