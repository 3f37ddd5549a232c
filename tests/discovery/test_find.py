"""Where an address's mail is: by a real name server and a real web server on loopback."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import trustme
import yaml
from aiohttp import web

from service.cli.discover import as_settings
from service.contract import Security
from service.discovery import Finding, Server, Ways, find
from service.discovery.autoconfig import servers_in
from service.discovery.names import Names
from service.errors import PeerError
from tests.servers.dns import NameServer
from tests.smtp.harness import client_context, server_context

SRV = {
    ("_imaps._tcp.example.com", "SRV"): ["20 0 993 second.example.com.", "10 0 1993 mail.example.com."],
    ("_submission._tcp.example.com", "SRV"): ["0 1 587 smtp.example.com."],
}
XML = """<?xml version="1.0"?>
<clientConfig version="1.1"><!-- ours -->
 <emailProvider id="example.com">
  <incomingServer type="pop3"><hostname>pop</hostname><port>995</port><socketType>SSL</socketType></incomingServer>
  <incomingServer type="imap"><hostname>plain.%EMAILDOMAIN%</hostname><port>143</port>
   <socketType>plain</socketType></incomingServer>
  <incomingServer type="imap"><hostname>imap.%EMAILDOMAIN%</hostname><port>993</port>
   <socketType>SSL</socketType><username>%EMAILLOCALPART%</username></incomingServer>
  <outgoingServer type="smtp"><hostname>smtp.example.com</hostname><port>587</port>
   <socketType>STARTTLS</socketType><username>%EMAILADDRESS%</username></outgoingServer>
 </emailProvider>
</clientConfig>
"""
IMAP = Server("imap.example.com", 993, Security.TLS, "me")
SMTP = Server("smtp.example.com", 587, Security.STARTTLS, "me@example.com")


@dataclass
class Web:
    """Documents by path; `asked` with their queries."""

    documents: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    async def get(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(str(request.rel_url))
        if request.path == "/plain":
            raise web.HTTPFound("http://127.0.0.1:9/")
        if request.path == "/other":
            raise web.HTTPFound(f"https://127.0.0.1:{self.port}/own")
        text = self.documents.get(request.path)
        return web.Response(text=text) if text is not None else web.Response(status=404)


@pytest.fixture
async def site(authority: trustme.CA) -> AsyncIterator[Web]:
    made = Web()
    application = web.Application()
    application.router.add_get("/{path:.*}", made.get)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(authority)).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def ways(name_server: NameServer, site: Web, authority: trustme.CA, own: str = "/own") -> Ways:
    base = f"https://127.0.0.1:{site.port}"
    return Ways(Names(name_server.resolver), client_context(authority), (base + own,), base + "/listed/{domain}")


async def test_srv_records_say_where(name_server: NameServer, site: Web, authority: trustme.CA) -> None:
    name_server.records = dict(SRV)
    (found,) = await find("me@example.com", ways(name_server, site, authority))
    assert found.imap == Server("mail.example.com", 1993, Security.TLS)
    assert found.smtp == Server("smtp.example.com", 587, Security.STARTTLS)


async def test_the_root_as_a_target_means_there_is_none(
    name_server: NameServer, site: Web, authority: trustme.CA
) -> None:
    name_server.records = {("_imaps._tcp.example.com", "SRV"): ["0 0 0 ."]}
    assert await find("me@example.com", ways(name_server, site, authority)) == []


async def test_the_providers_own_word_goes_before_the_list(
    name_server: NameServer, site: Web, authority: trustme.CA
) -> None:
    site.documents = {"/own": XML, "/listed/example.com": XML.replace("imap.%EMAILDOMAIN%", "listed.example.com")}
    found = await find("me@example.com", ways(name_server, site, authority))
    assert [one.imap.host for one in found if one.imap] == ["imap.example.com", "listed.example.com"]
    assert (found[0].imap, found[0].smtp) == (IMAP, SMTP)
    # Only the provider hears who asks.
    assert site.asked == ["/own?emailaddress=me@example.com", "/listed/example.com"]


@pytest.mark.parametrize(
    ("host", "preset"),
    [
        ("aspmx.l.google.com.", "google-workspace"),
        ("example-com.mail.protection.outlook.com.", "microsoft365"),
        ("in1-smtp.messagingengine.com.", "fastmail"),
        ("mx.zoho.com.", "zoho-pro"),
        ("notgoogle.com.", None),
    ],
)
async def test_where_the_mail_of_a_domain_goes_tells_its_provider(
    name_server: NameServer, site: Web, authority: trustme.CA, host: str, preset: str | None
) -> None:
    name_server.records = {("example.com", "MX"): [f"10 {host}", "20 backup.example.net."]}
    found = await find("me@example.com", ways(name_server, site, authority))
    assert [one.preset for one in found] == ([preset] if preset else [])


async def test_a_providers_own_address_is_known_without_asking(
    name_server: NameServer, site: Web, authority: trustme.CA
) -> None:
    name_server.silent = False
    found = await find("me@GMAIL.com", ways(name_server, site, authority))
    assert found[0].preset == "gmail"
    assert str(found[0].imap) == "imap.gmail.com:993 (tls)"


async def test_without_dns_the_rest_is_asked(site: Web, authority: trustme.CA) -> None:
    site.documents = {"/own": XML}
    base = f"https://127.0.0.1:{site.port}"
    found = await find("me@example.com", Ways(None, client_context(authority), (base + "/own",), base + "/listed"))
    assert [one.imap for one in found] == [IMAP]


async def test_a_redirect_is_followed_to_tls_alone(name_server: NameServer, site: Web, authority: trustme.CA) -> None:
    site.documents = {"/own": XML}
    assert len(await find("me@example.com", ways(name_server, site, authority, "/other"))) == 1
    assert await find("me@example.com", ways(name_server, site, authority, "/plain")) == []


async def test_who_is_not_trusted_is_not_believed(name_server: NameServer, site: Web) -> None:
    site.documents = {"/own": XML}
    base = f"https://127.0.0.1:{site.port}"
    stranger = Ways(Names(name_server.resolver), ssl.create_default_context(), (base + "/own",), base + "/listed")
    assert await find("me@example.com", stranger) == []
    assert site.asked == []


@pytest.mark.parametrize("address", ["nobody", "@example.com", "a@", "a@b..c", "a@" + "x" * 300])
async def test_what_is_no_address_is_said(
    name_server: NameServer, site: Web, authority: trustme.CA, address: str
) -> None:
    with pytest.raises(PeerError, match="no mail address"):
        await find(address, ways(name_server, site, authority))
    assert name_server.asked == []


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<html></html>",
        "<clientConfig>",
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><clientConfig>&b;</clientConfig>',
        XML.replace("<hostname>", "<hostname>\0"),
    ],
)
def test_a_document_that_is_none_is_refused(document: str) -> None:
    with pytest.raises(PeerError):
        servers_in(document.encode(), "me@example.com")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (">993<", ">0<"),
        (">993<", ">x<"),
        (">993<", ">²<"),
        (">993<", f">{'9' * 5_000}<"),
        ("imap.%EMAILDOMAIN%", "a b"),
        ("imap.%EMAILDOMAIN%", ""),
        (">SSL<", ">?<"),
    ],
)
def test_a_server_that_makes_no_sense_is_left_out(old: str, new: str) -> None:
    imap, smtp = servers_in(XML.replace(old, new).encode(), "me@example.com")
    assert imap is None
    assert smtp == SMTP


@pytest.mark.parametrize(
    "finding",
    [
        Finding("x", IMAP, SMTP),
        Finding("x", IMAP, None),
        Finding("x", None, None, "gmail"),
        Finding("x", None, None, "163"),
        Finding("x", None, None, "microsoft365"),
    ],
)
def test_what_is_shown_is_settings(finding: Finding) -> None:
    shown = yaml.safe_load(as_settings("me.1@example.com", finding))
    (account,) = shown["accounts"]
    assert account["address"] == "me.1@example.com"
    assert ("oauth2" in account) is (finding.preset == "microsoft365")
    if finding.preset:
        assert str(account["preset"]) == finding.preset
    if finding.imap:
        assert account["incoming"]["imap"] == {"host": "imap.example.com", "port": 993, "security": "tls"}
        assert account["incoming"]["username"] == "me"
