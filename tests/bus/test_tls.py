"""A NATS that wants TLS: whose certificate is believed, and what is said of one that is not. Real server."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from service.bus import NatsOptions
from service.errors import Permanent
from tests.bus.conftest import opened, until
from tests.bus.test_connection import _refused
from tests.servers.nats import NatsServer


def write_certificates(folder: Path) -> None:
    """ca.pem of an authority of its own, and what it says of the server and of a client."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, certificate in (("server", ca.issue_cert("127.0.0.1")), ("client", ca.issue_cert("client@x.example"))):
        certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))


@pytest.fixture
async def tls_nats(tmp_path: Path) -> AsyncIterator[tuple[NatsServer, Path]]:
    """A server that wants a client's certificate; the folder holds ca.pem, client.pem, client.key, other.pem."""
    folder = tmp_path / "pki"
    folder.mkdir()
    write_certificates(folder)
    trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
    tls = {
        "cert_file": str(folder / "server.pem"),
        "key_file": str(folder / "server.key"),
        "ca_file": str(folder / "ca.pem"),
        "verify": True,
    }
    server = NatsServer(tmp_path / "nats", {"tls": tls})
    await server.start()
    yield server, folder
    await server.kill()


async def test_tls_with_our_own_authority_and_a_client_certificate(tls_nats: tuple[NatsServer, Path]) -> None:
    server, folder = tls_nats
    with_ca = {"ca": str(folder / "ca.pem"), "cert": str(folder / "client.pem"), "key": str(folder / "client.key")}
    async with opened(server.url, "mail", **with_ca) as bus:
        transport: Any = bus.nc._transport
        assert transport._io_writer.get_extra_info("ssl_object").version() == "TLSv1.3"


@pytest.mark.fault("F10")
async def test_certificates_that_were_renewed_in_their_files_are_used_at_the_next_connect(
    tls_nats: tuple[NatsServer, Path],
) -> None:
    server, folder = tls_nats
    with_ca = {"ca": str(folder / "ca.pem"), "cert": str(folder / "client.pem"), "key": str(folder / "client.key")}
    async with opened(server.url, "mail", **with_ca) as bus:
        await server.kill()
        await until(lambda: not bus.connected)
        # Half of it, as where files are written one after the other: what was read before is kept.
        with capture_logs() as said:
            (folder / "client.key").write_text("no key")
            await until(lambda: any(line["event"] == "nats_tls_not_read" for line in said))
        write_certificates(folder)
        await server.start()
        await until(lambda: bus.connected)


@pytest.mark.fault("G03")
async def test_an_unknown_authority_is_permanent(
    tls_nats: tuple[NatsServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # nats-py 2.16 waits out its limit after a failed handshake.
    monkeypatch.setattr("service.bus.connection.CONNECT_TIMEOUT_S", 1)
    server, folder = tls_nats
    said = await _refused(NatsOptions(servers=(server.url,), ca=str(folder / "other.pem")), Permanent)
    assert "certificate" in said
    assert "nats.tls.ca" in said


@pytest.mark.fault("G03")
@pytest.mark.parametrize(("wrong", "reason"), [("host", "(?i)mismatch|not valid for"), ("expired", "expired")])
async def test_a_certificate_that_does_not_hold_is_refused_with_the_reason(
    tls_nats: tuple[NatsServer, Path], monkeypatch: pytest.MonkeyPatch, wrong: str, reason: str
) -> None:
    monkeypatch.setattr("service.bus.connection.CONNECT_TIMEOUT_S", 1)
    server, folder = tls_nats
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    ends = datetime.now(UTC) + timedelta(days=-1 if wrong == "expired" else 1)
    held = ca.issue_cert("other.example" if wrong == "host" else "127.0.0.1", not_after=ends)
    held.private_key_pem.write_to_path(str(folder / "server.key"))
    held.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    await server.restart()
    said = await _refused(NatsOptions(servers=(server.url,), ca=str(folder / "ca.pem")), Permanent)
    assert re.search(reason, said), said
