"""The private names of aiosmtplib that smtp stands on: a release that changes one fails here, by name."""

import inspect

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol


def test_the_client_makes_its_connection_in_one_place() -> None:
    assert list(inspect.signature(aiosmtplib.SMTP._create_connection).parameters) == ["self", "timeout"]
    assert "await self._create_connection(" in inspect.getsource(aiosmtplib.SMTP.connect)
    assert "await self._get_default_local_hostname()" in inspect.getsource(aiosmtplib.SMTP.connect)


def test_the_client_names_that_we_set_and_call() -> None:
    client = aiosmtplib.SMTP(hostname="x", start_tls=False)
    assert client.protocol is None
    assert client.transport is None
    assert callable(client._on_connection_lost)
    assert callable(client._ehlo_or_helo_if_needed)
    assert client.is_ehlo_or_helo_needed
    assert client.server_auth_methods == []
    assert client.esmtp_extensions == {}


def test_start_tls_false_never_upgrades_and_true_never_falls_back() -> None:
    source = inspect.getsource(aiosmtplib.SMTP._maybe_start_tls_on_connect)
    assert "self._start_tls_on_connect is True" in source
    assert "raise SMTPException" in inspect.getsource(aiosmtplib.SMTP.starttls)


async def test_the_protocol_names_that_we_read() -> None:
    protocol = SMTPProtocol(connection_lost_callback=None)
    assert protocol._response_pending is False
    assert protocol._response_waiter is None
    assert protocol._buffer == b""
    assert protocol._drain_helper is not None
    assert "self._drain_waiters" in inspect.getsource(SMTPProtocol._drain_helper)
